# `make demo` and `make test` set everything up by themselves, in the folder .venv; nothing else is installed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
SOURCES := *.py kafka perf demo benchmarks tests data

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-capacity test lint format bench calibrate capacity-proof soak fuzz clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 17

setup: $(READY) ## the virtual environment with all dependencies, in .venv

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed; this is " + sys.version.split()[0] + ". Choose one with: make PYTHON=python3.12 …")'
	@echo "==> Setting up .venv (once)"
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(READY) ## the whole measurement on this machine: make demo SIZE=100000 RATE=10000 DELAY_MS=5
	@$(RUN) -m demo

demo-capacity: $(READY) ## the capacity search on this machine, with a stand-in of known capacity
	@$(RUN) -m demo capacity

test: $(READY) ## all tests; the integration tests start a real broker, or use KAFKA_BROKERS
	@$(RUN) -m pytest $(PYTEST_ARGS)

lint: $(READY) ## ruff and mypy
	@$(RUN) -m ruff check $(SOURCES)
	@$(RUN) -m ruff format --check $(SOURCES)
	@$(RUN) -m mypy kafka perf demo benchmarks data *.py
	@$(RUN) -m mypy tests/unit tests/fuzz
	@$(RUN) -m mypy tests/integration

format: $(READY) ## let ruff format the code
	@$(RUN) -m ruff check --fix $(SOURCES)
	@$(RUN) -m ruff format $(SOURCES)

bench: $(READY) ## the benchmarks, side by side with Kafka's own tools and kcat; rewrites docs/benchmarks.md
	@$(RUN) -m benchmarks

calibrate: $(READY) ## how often the comparison of runs is wrong, on simulated ones; an hour on two cores
	@$(RUN) -m benchmarks.calibrate

capacity-proof: $(READY) ## capacity searches of known pipelines; rewrites the table of docs/capacity.md: make capacity-proof RUNS=10 AT_ONCE=1
	@$(RUN) -m benchmarks.capacity_proof

soak: $(READY) ## ten minutes with the broker killed every minute; rewrites docs/soak.md; a short try: make soak DURATION=75s EVERY=20s
	@$(RUN) -m benchmarks.soak

fuzz: $(READY) ## fuzz the payload decoder, the data set reader and the settings: make fuzz RUNS=100000 (atheris: Python 3.11 to 3.13)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-fuzz.txt
	@$(RUN) -m tests.fuzz $(or $(RUNS),500000)

clean: ## remove what was made here
	rm -rf $(VENV) demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
