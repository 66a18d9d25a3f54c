"""Both images at work, under the restrictions that Kubernetes puts on a pod."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from engine import KEY, RESTRICTIONS, TIMEOUT_S, Containers
from harness import ROOT, Cluster
from operators import result_of, write

from demo.broker import EmbeddedBroker

pytestmark = pytest.mark.container


def secured(broker: EmbeddedBroker, topic: str, **more: str) -> dict[str, str]:
    """The variables of a client with API key and certificate."""
    return {
        "KAFKA_BROKERS": broker.secure_bootstrap_servers,
        "KAFKA_APIKEY": KEY,
        "PEM_CERT": "/tmp/certs/es-cert.pem",
        "TOPIC_NAME": topic,
        **more,
    }


def mounted(broker: EmbeddedBroker, folder: Path, events: list[dict[str, int]]) -> tuple[str, ...]:
    """Options that mount the certificate and a data set, both readable by anybody, where the manifests do."""
    for name, file, content in (
        ("certs", "es-cert.pem", broker.ca_path.read_text()),
        ("performance_data", "data.json", json.dumps(events)),
    ):
        (folder / name).mkdir(mode=0o755)
        (folder / name / file).write_text(content)
    folder.chmod(0o755)
    mounts = [("--volume", f"{folder / name}:/tmp/{name}:ro") for name in ("certs", "performance_data")]
    return tuple(word for pair in mounts for word in pair)


def test_a_measurement_over_tls(
    containers: Containers, broker: EmbeddedBroker, cluster: Cluster, tmp_path: Path
) -> None:
    """With API key, certificate and data set mounted, what the producer sends is what the consumer measures."""
    source, output = cluster.create_topic(), cluster.create_topic()
    options = (*RESTRICTIONS, *mounted(broker, tmp_path, [{"id": number} for number in range(7)]))
    sent = containers.run("./ProducerPerformance.py", options=options, SIZE="20", **secured(broker, source))
    assert sent.returncode == 0, sent.stderr
    messages = cluster.read(source, 20)
    assert [json.loads(message.value() or b"")["id"] for message in messages] == [at % 7 for at in range(20)]
    stamp_ms = max(message.timestamp()[1] for message in messages)
    write(cluster.brokers, output, [result_of(message) for message in messages])
    read = containers.run("python", "PerfConsumer.py", options=options, COUNT="20", **secured(broker, output))
    assert read.returncode == 0, read.stderr
    deltas = [
        message.timestamp()[1] - json.loads(message.value() or b"")["timestamp_start"]
        for message in cluster.read(output, 20)
    ]
    assert re.search(r"measured +20\n", read.stdout)
    assert re.search(rf"mean +{round(sum(deltas) / 20, 3):g}\n", read.stdout), (deltas, stamp_ms)
    assert KEY not in sent.stdout + sent.stderr + read.stdout + read.stderr


def test_nothing_but_kafka_is_needed(containers: Containers, only_loopback: bool) -> None:
    """The containers of these tests have no network but the loopback on which the broker listens."""
    if not only_loopback:
        pytest.skip("a network of their own for the containers needs podman, and root")
    devices = containers.run("cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in devices] == ["lo"]


def test_a_wrong_key(containers: Containers, broker: EmbeddedBroker, cluster: Cluster, tmp_path: Path) -> None:
    """A wrong API key ends in exit code 3 with the cause, and the key is not printed."""
    variables = secured(broker, cluster.create_topic()) | {"KAFKA_APIKEY": "wrong-2342"}
    options = (*RESTRICTIONS, *mounted(broker, tmp_path, [{}]))
    done = containers.run("python", "ProducerPerformance.py", options=options, **variables)
    assert done.returncode == 3
    assert "SASL authentication error: Authentication failed" in done.stderr
    assert "wrong-2342" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("script", "begun", "summary"),
    [
        ("ProducerPerformance.py", "sending to topic", "Summary of the producer"),
        ("PerfConsumer.py", "reading topic", "Summary of the consumer"),
    ],
)
def test_sigterm_reaches_python(  # noqa: PLR0917
    containers: Containers, broker: EmbeddedBroker, cluster: Cluster, script: str, begun: str, summary: str
) -> None:
    """The end of a pod ends the script with a full report and 143, as no shell stands in between."""
    topic = cluster.create_topic()
    cluster.produce(topic, [b"{}"])
    process = containers.start(
        "python", script, KAFKA_BROKERS=broker.bootstrap_servers, TOPIC_NAME=topic, RATE="100", DURATION="10m"
    )
    containers.wait_for(begun)
    cluster.read(topic, 2 if summary.endswith("producer") else 1)
    containers.stop()
    done = containers.ended(process)
    assert done.returncode == 143, done.stderr
    assert summary in done.stdout
    if summary.endswith("producer"):
        acknowledged = re.search(r"acknowledged +(\d+)\n", done.stdout)
        assert acknowledged and len(cluster.read(topic, int(acknowledged[1]) + 1)) == int(acknowledged[1]) + 1


def test_a_folder_on_tmp_and_bash(
    containers: Containers, broker: EmbeddedBroker, cluster: Cluster, tmp_path: Path
) -> None:
    """`-v ${PWD}:/tmp -ti IMAGE bash`: the scripts are there, and what they write lands in the folder."""
    topic = f"{cluster.create_topic()}-new"
    tmp_path.chmod(0o777)
    (tmp_path / "events.ndjson").write_text('{"id": 1}\n{"id": 2}\n')
    options = ("--volume", f"{tmp_path}:/tmp", "--interactive", "--tty")
    command = containers.command("bash", options=options, variables={"KAFKA_BROKERS": "", "TOPIC_NAME": ""})
    seen = typed(
        command,
        f"./PerfTopics.py create {topic}",
        "python ProducerPerformance.py --file /tmp/events.ndjson --size 5 --result /tmp/result.json",
        "exit",
        KAFKA_BROKERS=broker.bootstrap_servers,
        TOPIC_NAME=topic,
    )
    assert f"created: {topic}" in seen
    assert re.search(r"acknowledged +5\r", seen), seen
    assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 0
    assert len(cluster.read(topic, 5)) == 5


def typed(command: list[str], *lines: str, **variables: str) -> str:
    """What is on the screen of a terminal in which `lines` are typed."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **variables})
    os.close(slave)
    os.write(master, "".join(f"{line}\n" for line in lines).encode())
    seen = b""
    while data := _screen(master):
        seen += data
    os.close(master)
    assert process.wait(TIMEOUT_S) == 0, seen.decode()
    return seen.decode()


def _screen(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux's end of a terminal
        return b""


def test_only_what_runs_is_in_the_image(containers: Containers) -> None:
    """The image has the scripts, their packages and the data set: no test, no tool, no secret, no git history."""
    listed = containers.run("ls", "-A", ".", "data", "kafka", "perf").stdout.split()
    scripts = {path.name for path in ROOT.glob("*.py")}
    packages = {path.name for folder in ("kafka", "perf") for path in (ROOT / folder).iterdir()}
    folders = {".:", "data:", "kafka:", "perf:", "data", "kafka", "perf", "__pycache__"}
    assert set(listed) == scripts | packages | folders | {"LICENSE", "data.json"}


def test_the_image_without_a_command_says_how_it_is_used(containers: Containers) -> None:
    """`docker run IMAGE` prints help."""
    done = containers.run()
    assert done.returncode == 0
    assert done.stdout.startswith("usage: PerfConsumer.py")


def test_the_image_says_what_it_is(engine: str, image: str) -> None:
    """The labels name version and licence, the user is a number that is not root, and no shell is the entry point."""
    found = json.loads(subprocess.run([engine, "image", "inspect", image], capture_output=True, check=True).stdout)[0]
    config = found["Config"]
    assert config["User"] == "1001:0"
    assert not config.get("Entrypoint")
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.version"] == image.rpartition(":")[2].removesuffix("-ubi")
