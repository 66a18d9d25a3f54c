"""The Jobs' pods at work: `podman kube play` runs them, with configMaps, secrets and limits, as Kubernetes would."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine import KEY, PASSWORD, TIMEOUT_S
from harness import Cluster, Scripts
from manifests import Manifest, ToolMissingError, pod, render
from operators import result_of, write

from demo.broker import EmbeddedBroker

pytestmark = pytest.mark.container
Objects = Mapping[str, Mapping[str, str]]


class Pods:
    """Plays the pods of the Jobs, with what a cluster has and podman 4.3 has not.

    - Kubernetes mounts an optional object if it is there, else an empty folder; podman mounts none that is optional.
    - podman does not decode a mounted secret, so it is mounted as a configMap: the pod sees the same files.
    - Kubernetes mounts the file of the termination message; here it is in a volume.
    - The broker listens on this machine's loopback only, so the pods have its network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex[:8]  # in the names, so that nobody else's pods, secrets and volumes are meant
        self._played: list[Path] = []
        self._secrets: list[str] = []

    def of(self, role: str, *overlays: str, **variables: str) -> list[Manifest]:
        """The pods of the producer's or consumer's Job, with variables that a user sets in it."""
        try:
            documents = render(overlays)
        except ToolMissingError as error:
            pytest.skip(str(error))
        (job,) = [one for one in documents if one["metadata"]["name"] == f"performance-{role}"]
        found = [pod(job, index=number) for number in range(job["spec"]["parallelism"])]
        for played in found:
            container = played["spec"]["containers"][0]
            values = {"TERMINATION_MESSAGE_PATH": "/termination/message", **variables}
            container["env"] = [one for one in container["env"] if one["name"] not in values]
            container["env"] += [{"name": name, "value": value} for name, value in values.items()]
        return found

    def play(self, pods: Sequence[Manifest], *, config_maps: Objects, secrets: Objects | None = None) -> None:
        """Start the pods beside each other, in a cluster where there are these configMaps and secrets."""
        secrets = secrets or {}
        for name, data in secrets.items():
            self._make_secret(self._own(name), data)
        mounted = {name: dict(data) for name, data in {**config_maps, **secrets}.items()}
        documents = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
            for name, data in mounted.items()
        ]
        documents += [self._adapted(one, mounted.keys()) for one in pods]
        path = self.folder / f"{uuid.uuid4().hex}.yaml"
        path.write_text(self._own(yaml.safe_dump_all(documents)))
        self._played.append(path)
        done = podman("kube", "play", str(path))
        assert done.returncode == 0, done.stderr

    def _own(self, text: str) -> str:
        return re.sub(
            r"\b(kafka|eventstreams|data|performance)-(?=brokers|apikey|pem|file|scram|producer|consumer|run\b)",
            rf"\1-{self._mark}-",
            text,
        )

    def _make_secret(self, name: str, data: Mapping[str, str]) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(encoded))  # how podman 4.3 reads one for a variable
        assert podman("secret", "create", name, str(path)).returncode == 0
        self._secrets.append(name)

    def _adapted(self, played: Manifest, mounted: Collection[str]) -> Manifest:
        spec = played["spec"]
        spec["hostNetwork"] = True
        for volume in spec["volumes"]:
            source = volume.pop("secret", None) or volume.pop("configMap", None)
            name = source and (source.get("secretName") or source["name"])
            if name in mounted:
                volume["configMap"] = {"name": name, "optional": False}
            elif source:
                assert source["optional"]
                volume["emptyDir"] = {}
        place = self._place(played)
        place.mkdir()
        place.chmod(0o777)
        spec["containers"][0]["volumeMounts"].append({"name": "termination", "mountPath": "/termination"})
        spec["volumes"].append({"name": "termination", "hostPath": {"path": str(place), "type": "Directory"}})
        return played

    def ended(self, played: Manifest) -> tuple[int, str, str]:
        """The exit code of a pod's container, its termination message, and what it said."""
        waited, logs = podman("wait", self._container(played)), podman("logs", self._container(played))
        return int(waited.stdout), (self._place(played) / "message").read_text(), logs.stdout + logs.stderr

    def inspected(self, played: Manifest) -> dict[str, Any]:
        """What podman made of a pod's container."""
        found = podman("inspect", self._container(played))
        return dict(json.loads(found.stdout)[0])

    def _container(self, played: Manifest) -> str:
        return self._own(f"{played['metadata']['name']}-{played['spec']['containers'][0]['name']}")

    def _place(self, played: Manifest) -> Path:
        return self.folder / self._own(str(played["metadata"]["name"]))

    def close(self) -> None:
        """Remove the pods and what they needed."""
        for path in self._played:
            podman("kube", "down", str(path))
        for name in self._secrets:
            podman("secret", "rm", name)
        volumes = podman("volume", "ls", "--quiet", "--filter", f"name={self._mark}").stdout.split()
        podman("volume", "rm", *volumes)


def podman(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run podman."""
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


@pytest.fixture
def pods(engine: str, tmp_path: Path) -> Iterator[Pods]:
    """Plays pods, where podman is there."""
    if engine != "podman":
        pytest.skip("pods need `podman kube play`, and there is no podman")
    player = Pods(tmp_path)
    yield player
    player.close()


def plain(broker: EmbeddedBroker) -> Objects:
    """The brokers' configMap, for the listener that needs neither key nor certificate."""
    return {"kafka-brokers": {"brokers": broker.bootstrap_servers}}


def secure(broker: EmbeddedBroker) -> Objects:
    """The brokers' configMap, for the SASL_SSL listener."""
    return {"kafka-brokers": {"brokers": broker.secure_bootstrap_servers}}


def certificate(broker: EmbeddedBroker) -> Objects:
    """The secret with the certificate."""
    return {"eventstreams-pem-file": {"es-cert.pem": broker.ca_path.read_text()}}


def operate(cluster: Cluster, source: str, output: str, count: int, *, partitions: int = 1) -> list[int]:
    """Do the streams operator's work; returns the deltas that are to be measured."""
    messages = cluster.read(source, count)
    write(cluster.brokers, output, [result_of(one, partition=at % partitions) for at, one in enumerate(messages)])
    results = cluster.read(output, count, partitions=partitions)
    return [one.timestamp()[1] - json.loads(one.value() or b"")["timestamp_start"] for one in results]


def test_the_jobs_as_they_are(pods: Pods, broker: EmbeddedBroker, cluster: Cluster) -> None:
    """Without any optional object the producer sends SIZE messages, the consumer measures, and both say a verdict."""
    source, output = cluster.create_topic(), cluster.create_topic()
    (producer,) = pods.of("producer", TOPIC_NAME=source)
    pods.play([producer], config_maps=plain(broker))
    code, message, log = pods.ended(producer)
    assert (code, message) == (0, "10 of 10 messages acknowledged, 0 failed"), log
    container = pods.inspected(producer)
    assert container["Config"]["User"] == "1000680000:0"
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["Memory"] == 256 * 1024**2
    assert container["EffectiveCaps"] in ([], None)
    deltas_ms = operate(cluster, source, output, 10)
    (consumer,) = pods.of("consumer", TOPIC_NAME=output, IDLE_TIMEOUT="2s")
    pods.play([consumer], config_maps=plain(broker))
    code, message, log = pods.ended(consumer)
    assert code == 0, log
    assert message.startswith("valid: the broker stamped every result (LogAppendTime); 10 of 10 messages read were")
    assert f"delta mean {sum(deltas_ms) / 10:g} ms" in message


def test_key_certificate_and_data_come_from_the_cluster(pods: Pods, broker: EmbeddedBroker, cluster: Cluster) -> None:
    """With both secrets and the data file's configMap the producer sends that data over SASL_SSL; no secret is said."""
    source = cluster.create_topic()
    (producer,) = pods.of("producer", TOPIC_NAME=source)
    pods.play(
        [producer],
        config_maps={**secure(broker), "data-file": {"data.json": '[{"of": "the user"}]'}},
        secrets={"eventstreams-apikey": {"binding": KEY}, **certificate(broker)},
    )
    code, message, log = pods.ended(producer)
    assert code == 0, log
    assert {one.value() for one in cluster.read(source, 10)} == {b'{"of":"the user"}'}
    assert KEY not in log + message


def test_a_wrong_key(pods: Pods, broker: EmbeddedBroker, cluster: Cluster) -> None:
    """A wrong API key ends the pod with exit code 3, which its Job tries again, and the message says why."""
    (consumer,) = pods.of("consumer", TOPIC_NAME=cluster.create_topic())
    wrong = {"eventstreams-apikey": {"binding": "wrong-2342"}, **certificate(broker)}
    pods.play([consumer], config_maps=secure(broker), secrets=wrong)
    code, message, log = pods.ended(consumer)
    assert code == 3
    assert "SASL authentication error: Authentication failed" in message
    assert "wrong-2342" not in log + message


def test_scram(pods: Pods, broker: EmbeddedBroker, cluster: Cluster) -> None:
    """overlays/scram connects with the user and password of its secret."""
    source = cluster.create_topic()
    (producer,) = pods.of("producer", "scram", TOPIC_NAME=source)
    secrets = {"kafka-scram": {"user": "alice", "password": PASSWORD}, **certificate(broker)}
    pods.play([producer], config_maps=secure(broker), secrets=secrets)
    code, _, log = pods.ended(producer)
    assert code == 0, log
    assert PASSWORD not in log


def test_many_producers_and_a_group(pods: Pods, broker: EmbeddedBroker, cluster: Cluster) -> None:
    """The producers of the overlay send SIZE each under marks of their own, and its consumers share all messages."""
    overlays = ("many-producers", "consumer-group")
    source, output = cluster.create_topic(), cluster.create_topic(partitions=3)
    producers = pods.of("producer", *overlays, TOPIC_NAME=source, TRACE="field:mark")
    pods.play(producers, config_maps=plain(broker))
    assert [pods.ended(one)[0] for one in producers] == [0] * 4
    marks = [json.loads(one.value() or b"")["mark"].split("/")[1] for one in cluster.read(source, 40)]
    assert sorted(marks) == [str(number) for number in range(4) for _ in range(10)]
    operate(cluster, source, output, 40, partitions=3)
    consumers = pods.of("consumer", *overlays, TOPIC_NAME=output, IDLE_TIMEOUT="5s", GROUP_ID=f"group-{output}")
    pods.play(consumers, config_maps=plain(broker))
    found = [re.search(r"(\d+) of (\d+) messages read were measured", pods.ended(one)[1]) for one in consumers]
    assert sum(int(match[1]) for match in found if match) == 40


def test_a_run_of_many_pods(pods: Pods, broker: EmbeddedBroker, cluster: Cluster, tmp_path: Path) -> None:
    """overlays/run: producers wait for consumers, consumers end when all is read, and Kafka has the merged result."""
    source, output, name = cluster.create_topic(), cluster.create_topic(partitions=3), f"run-{uuid.uuid4().hex[:8]}"
    scripts = Scripts(broker.bootstrap_servers, tmp_path)
    try:
        assert scripts.run("PerfTopics.py", "runs").returncode == 0
        operator = scripts.start("-m demo.streams_operator", "--input", source, "--output", output)
        assert operator.stdout is not None and "operator ready" in operator.stdout.readline()
        consumers = pods.of("consumer", "run", TOPIC_NAME=output, TRACE="field:mark")
        producers = pods.of("producer", "run", TOPIC_NAME=source, TRACE="field:mark")
        config_maps = {**plain(broker), "performance-run": {"id": name}}
        for played in (consumers, producers):
            pods.play(played, config_maps=config_maps)
        ended = [pods.ended(one) for one in (*producers, *consumers)]
        assert [code for code, _, _ in ended] == [0] * 7, ended
        report = scripts.run("PerfReport.py", "--run", name, "--fail-if", "lost > 0", "--fail-if", "unique != 40")
        assert report.returncode == 0, report.stdout + report.stderr
        assert "Summary of 4 producers" in report.stdout and "Summary of 3 consumers" in report.stdout
    finally:
        scripts.close()
