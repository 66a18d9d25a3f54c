"""The Jobs on a real cluster: `make test-kubernetes` with KUBECONFIG, and KAFKA_BROKERS as its pods see them.

In the namespace of the context there must be the secrets that this Kafka asks for, and in Kafka the topic
performance-test; the cluster must be able to pull IMAGE.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest
import yaml
from manifests import Manifest, render

pytestmark = pytest.mark.kubernetes
JOB_TIMEOUT = "180s"


@pytest.fixture
def kubectl() -> str:
    """oc or kubectl, for the cluster of KUBECONFIG."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: KUBECONFIG is not set")
    if not os.environ.get("KAFKA_BROKERS"):
        pytest.skip("no Kafka for the cluster: KAFKA_BROKERS is not set")
    found = shutil.which("oc") or shutil.which("kubectl")
    if not found:
        pytest.skip("neither oc nor kubectl is installed")
    return found


@pytest.fixture
def jobs(kubectl: str) -> Iterator[list[str]]:
    """Both Jobs, applied under names of their own, and removed in the end."""
    documents = render()
    mark = uuid.uuid4().hex[:8]
    for document in documents:
        _adapt(document, mark)
    text = yaml.safe_dump_all(documents)
    subprocess.run([kubectl, "apply", "-f", "-"], input=text, text=True, check=True)
    yield [document["metadata"]["name"] for document in documents if document["kind"] == "Job"]
    subprocess.run([kubectl, "delete", "-f", "-"], input=text, text=True, check=True)


def _adapt(document: Manifest, mark: str) -> None:
    """Another name, this Kafka and this image; and a consumer that ends soon, and needs no operator.

    It takes the time in the data set's events for the input's timestamp.
    """
    document["metadata"]["name"] += f"-{mark}"
    if document["kind"] == "ConfigMap":
        document["data"]["brokers"] = os.environ["KAFKA_BROKERS"]
        return
    container = document["spec"]["template"]["spec"]["containers"][0]
    container["image"] = os.environ.get("IMAGE", container["image"])
    (brokers,) = [one for one in container["env"] if one["name"] == "KAFKA_BROKERS"]
    brokers["valueFrom"]["configMapKeyRef"]["name"] += f"-{mark}"
    if container["name"] == "consumer":
        values = {"IDLE_TIMEOUT": "30s", "TIMESTAMP_FIELD": "eventTime", "TIMESTAMP_UNIT": "iso8601"}
        container["env"] = [one for one in container["env"] if one["name"] not in values]
        container["env"] += [{"name": name, "value": value} for name, value in values.items()]


def test_the_jobs_complete(kubectl: str, jobs: list[str]) -> None:
    """Kubernetes accepts both Jobs, and both are complete in the end."""
    for name in jobs:
        command = [kubectl, "wait", "--for=condition=complete", f"job/{name}", f"--timeout={JOB_TIMEOUT}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        logs = subprocess.run([kubectl, "logs", f"job/{name}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, logs.stdout + logs.stderr
