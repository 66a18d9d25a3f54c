# `make demo` and `make test` set everything up by themselves, in the folder .venv; nothing else is installed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
SOURCES := *.py kafka perf demo benchmarks tests data examples

# IMAGE is what the manifests name. BASE_IMAGE, BUILD_IMAGE and further arguments of `build` may be given.
IMAGE ?= kafka-performance:0.1
IMAGE_BUILD_ARGS ?=
# so many tests of different files side by side, each with a broker of its own; WORKERS=0 for a debugger
WORKERS ?= 2
ENGINE ?= $(shell for engine in docker podman buildah; do $$engine info >/dev/null 2>&1 && echo $$engine && break; done)
BUILD = $(or $(ENGINE),$(error no docker, podman or buildah works here)) build \
	--build-arg VERSION=$(lastword $(subst :, ,$(IMAGE))) --build-arg REVISION=$(shell git rev-parse HEAD) $(IMAGE_BUILD_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-capacity test test-operators lint format bench bench-engines calibrate capacity-proof soak fuzz lock image image-ubi test-container test-kubernetes clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 17

setup: $(READY) ## the virtual environment with all dependencies, in .venv

$(READY): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed; this is " + sys.version.split()[0] + ". Choose one with: make PYTHON=python3.12 …")'
	@echo "==> Setting up .venv (once)"
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

demo: $(READY) ## the whole measurement on this machine: make demo SIZE=100000 RATE=10000 DELAY_MS=5; a real engine: OPERATOR=kafka-streams
	@$(RUN) -m demo

demo-capacity: $(READY) ## the capacity search on this machine (under 3 minutes), with a stand-in of known capacity
	@$(RUN) -m demo capacity

test: $(READY) ## all tests but those of containers and engines; the integration tests start a real broker, or use KAFKA_BROKERS
	@$(RUN) -m pytest -m "not container and not kubernetes and not operators" -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-operators: $(READY) ## 10,000 messages through each example of examples/operators (JDK and Maven needed)
	@$(RUN) -m pytest tests/operators -m operators $(PYTEST_ARGS)

lint: $(READY) ## ruff, mypy and the Kubernetes manifests
	@$(RUN) -m ruff check $(SOURCES)
	@$(RUN) -m ruff format --check $(SOURCES)
	@$(RUN) -m mypy kafka perf demo benchmarks data *.py
	@$(RUN) -m mypy tests/unit tests/fuzz
	@$(RUN) -m mypy tests/integration
	@$(RUN) -m mypy tests/container
	@$(RUN) -m mypy tests/operators
	@$(RUN) tests/container/manifests.py

format: $(READY) ## let ruff format the code
	@$(RUN) -m ruff check --fix $(SOURCES)
	@$(RUN) -m ruff format $(SOURCES)

bench: $(READY) ## the benchmarks, side by side with Kafka's own tools and kcat; rewrites docs/benchmarks.md
	@$(RUN) -m benchmarks

bench-engines: $(READY) ## the engines of examples/operators side by side: the table of docs/operators.md; some, printed only: ENGINES="spark"
	@$(RUN) -m benchmarks.engines $(ENGINES)

calibrate: $(READY) ## how often the comparison of runs is wrong, on simulated ones
	@$(RUN) -m benchmarks.calibrate

capacity-proof: $(READY) ## capacity searches of known pipelines; rewrites the table of docs/capacity.md: make capacity-proof RUNS=10 AT_ONCE=1
	@$(RUN) -m benchmarks.capacity_proof

soak: $(READY) ## ten minutes with the broker killed every minute; rewrites docs/soak.md; a short try: make soak DURATION=75s EVERY=20s
	@$(RUN) -m benchmarks.soak

fuzz: $(READY) ## fuzz the payload decoder, the data set reader and the settings: make fuzz RUNS=100000 (atheris: Python 3.11 to 3.13)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-fuzz.txt
	@$(RUN) -m tests.fuzz $(or $(RUNS),500000)

lock: $(READY) ## the lock files, with hashes for all platforms, after a change of requirements*.txt
	@for name in requirements requirements-dev; do \
	    $(RUN) -m uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	        --custom-compile-command "make lock" $$name.txt --output-file $$name.lock || exit 1; \
	done

image: ## the image, by docker, podman or buildah: make image IMAGE=registry.example.com/NAME:TAG BASE_IMAGE=…
	$(BUILD) --file Dockerfile --tag $(IMAGE) $(foreach name,BASE_IMAGE BUILD_IMAGE,$(if $($(name)),--build-arg $(name)=$($(name)))) .

image-ubi: ## the same on Red Hat's base, as IMAGE-ubi; another base: UBI_BASE_IMAGE=…
	$(BUILD) --file Dockerfile_ubi --tag $(IMAGE)-ubi $(if $(UBI_BASE_IMAGE),--build-arg BASE_IMAGE=$(UBI_BASE_IMAGE)) .

test-container: $(READY) ## builds both images, and runs them and the manifests as Kubernetes would, by docker or podman
	@$(if $(ENGINE),$(MAKE) --no-print-directory image image-ubi)
	@IMAGE=$(IMAGE) $(RUN) -m pytest tests/container -m container $(PYTEST_ARGS)

test-kubernetes: $(READY) ## applies the manifests to the cluster of KUBECONFIG, which must be able to pull IMAGE
	@IMAGE=$(IMAGE) $(RUN) -m pytest tests/container -m kubernetes $(PYTEST_ARGS)

clean: ## remove what was made here
	rm -rf $(VENV) demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
