"""The Kubernetes manifests: the inputs that their users know, and what the strictest policies ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from perf.process import FLUSH_GRACE_S
from perf.settings import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
FILES = {"PerformanceProducer.yaml": "ProducerPerformance.py", "PerformanceConsumer.yaml": "PerfConsumer.py"}
INPUTS = {
    "KAFKA_BROKERS": {"configMapKeyRef": {"name": "kafka-brokers", "key": "brokers"}},
    "KAFKA_APIKEY": {"secretKeyRef": {"name": "eventstreams-apikey", "key": "binding", "optional": True}},
    "PEM_CERT": "/tmp/certs/es-cert.pem",
    "TOPIC_NAME": "performance-test",
    "TERMINATION_MESSAGE_PATH": "/dev/termination-log",
}
OWN = {"PerformanceProducer.yaml": {"SIZE": "10"}, "PerformanceConsumer.yaml": {"IDLE_TIMEOUT": "5m"}}


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    """Each manifest in turn."""
    return str(request.param)


def job_of(file: str) -> dict[str, Any]:
    """The only document of a manifest."""
    (document,) = yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8"))
    return dict(document)


def test_the_variables_are_the_users(file: str) -> None:
    """Each Job has exactly these variables, all of which the scripts know, out of these configMaps and secrets."""
    job = job_of(file)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert found == INPUTS | OWN[file]
    assert {"TOPIC_NAME", *OWN[file], "TERMINATION_MESSAGE_PATH"} <= {option.variable for option in OPTIONS.values()}
    assert container["command"] == ["python", FILES[file]]
    assert container["terminationMessagePath"] == found["TERMINATION_MESSAGE_PATH"]


def test_the_mounts_are_the_users(file: str) -> None:
    """The certificate and the producer's data set are mounted where the scripts look; both may be missing."""
    spec = job_of(file)["spec"]["template"]["spec"]
    mounts = {one["mountPath"]: one["name"] for one in spec["containers"][0]["volumeMounts"]}
    volumes = {volume.pop("name"): volume for volume in spec["volumes"]}
    data = {"/tmp/performance_data": "data-file"} if file == "PerformanceProducer.yaml" else {}
    assert mounts == {"/tmp": "tmp", "/tmp/certs": "eventstreams-pem-file", **data}
    assert volumes.pop("tmp") == {"emptyDir": {}}
    assert volumes.pop("eventstreams-pem-file") == {"secret": {"secretName": "eventstreams-pem-file", "optional": True}}
    assert volumes == ({"data-file": {"configMap": {"name": "data-file", "optional": True}}} if data else {})


def test_each_input_comes_with_the_command_that_creates_it(file: str) -> None:
    """The comments have `oc create` for every configMap and secret, and so has the README; none shows a secret."""
    text, readme = (ROOT / file).read_text(encoding="utf-8"), (ROOT / "README.md").read_text(encoding="utf-8")
    for kind, reference in (("configmap", "configMap"), ("secret generic", "secret")):
        for name in re.findall(rf"{reference}(?:KeyRef)?:\n +(?:name|secretName): (\S+)", text):
            assert re.search(rf"# +oc create {kind} {name} --from-", text), name
            assert f"oc create {kind} {name} --from-" in readme
    assert not re.search(r"create secret .*--from-literal", text)


def test_the_jobs_are_fit_for_restricted_namespaces(file: str) -> None:
    """What the Pod Security Standard `restricted` and OpenShift's restricted-v2 ask for, and a read-only root."""
    spec = job_of(file)["spec"]["template"]["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]) == {"requests", "limits"}


def test_how_the_jobs_end(file: str) -> None:
    """A 3 is tried again, a producer that may have sent something is not; a pod has time to flush and to report."""
    spec = job_of(file)["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 3)
    rules = spec["podFailurePolicy"]["rules"]
    assert rules == (
        [
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [3]}},
            {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
        if "Producer" in file
        else [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 4, 5, 6]}}]
    )
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= FLUSH_GRACE_S + 10


def test_all_name_the_image_that_make_builds(file: str) -> None:
    """The manifests, kustomization.yaml and the Makefile mean one image, by a tag that is not `latest`."""
    image = job_of(file)["spec"]["template"]["spec"]["containers"][0]["image"]
    assert f"\nIMAGE ?= {image}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    name, _, tag = image.partition(":")
    (named,) = yaml.safe_load((ROOT / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    assert named == {"name": name, "newName": name, "newTag": tag}
    assert tag not in ("", "latest")


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_files_are_up_to_date(name: str) -> None:
    """Each pinned version stands in the lock file, with hashes and without the address of a package index."""
    lock = (ROOT / f"{name}.lock").read_text(encoding="utf-8")
    for line in (ROOT / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if "==" in line:
            assert re.search(rf"^{re.escape(line.strip())} .*\\\n +--hash=sha256:", lock, re.MULTILINE | re.IGNORECASE)
    assert "://" not in lock
