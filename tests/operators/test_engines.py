"""The examples of real engines, each run by the command of `make demo OPERATOR=…`, and measured by the scripts."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from harness import TIMEOUT_S, Cluster, Scripts

from demo.operators import ENGINES, start_command

pytestmark = [pytest.mark.operators, pytest.mark.parametrize("engine", ENGINES)]

COUNT = 10_000
PARTITIONS = 3
PASS_THE_STAMP_ON = {"kafka-streams", "quix-streams"}
_READY_TIMEOUT_S = 120.0


@contextlib.contextmanager
def running(engine: str, scripts: Scripts, topics: tuple[str, str], *more: str) -> Iterator[None]:
    """The example between two topics, from its line "ready" until it is stopped by SIGTERM, as a container would be."""
    command = start_command(engine, input_topic=topics[0], output_topic=topics[1], more=more)
    path = scripts.folder / "operator.txt"
    with path.open("w") as file:
        process = subprocess.Popen(
            command, cwd=scripts.folder, env=scripts.environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while ENGINES[engine].ready not in path.read_text():
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.05)
        yield
        assert process.poll() is None, path.read_text()
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_S)
        finally:
            process.kill()


def send(scripts: Scripts, topic: str, count: int) -> None:
    """Send marked messages on a schedule."""
    flags = ("--size", str(count), "--rate", "5K", "--keyname", "containerId", "--trace", "field:trace")
    done = scripts.run("ProducerPerformance.py", "--topic", topic, *flags)
    assert done.returncode == 0, done.stderr


def written(cluster: Cluster, topic: str) -> int:
    """The sum of a topic's end offsets: all that was ever written to it, commit markers too."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic, number): latest for number in range(PARTITIONS)}
    return sum(int(future.result(TIMEOUT_S).offset) for future in cluster.admin.list_offsets(asked).values())


@pytest.mark.parametrize("mode", ["at-least-once", "exactly-once"])
def test_every_message_comes_out_once_with_its_inputs_stamp(
    engine: str, mode: str, engines_cluster: Cluster, engines_scripts: Scripts
) -> None:
    """10,000 messages come out once, each with its input's key and Kafka timestamp; the averages are recomputed."""
    exactly_once = mode == "exactly-once"
    source, output = (engines_cluster.create_topic(partitions=PARTITIONS) for _ in range(2))
    with running(engine, engines_scripts, (source, output), *(["--exactly-once"] if exactly_once else [])):
        send(engines_scripts, source, COUNT)
        flags = ("--topic", output, "--count", str(COUNT), "--idle-timeout", "30", "--result", "c.json")
        done = engines_scripts.run("PerfConsumer.py", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
    inputs = {
        json.loads(message.value() or b"")["trace"]: (message.key(), message.timestamp()[1])
        for message in engines_cluster.read(source, COUNT, partitions=PARTITIONS)
    }
    outputs, deltas_ms = {}, []
    for message in engines_cluster.read(output, COUNT, partitions=PARTITIONS):
        event = json.loads(message.value() or b"")
        outputs[event["trace"]] = (message.key(), event["timestamp_start"])
        deltas_ms.append(message.timestamp()[1] - event["timestamp_start"])
    assert len(inputs) == COUNT
    assert outputs == inputs
    # Each transaction leaves commit markers; without transactions nothing but the results is there.
    assert written(engines_cluster, output) > COUNT if exactly_once else written(engines_cluster, output) == COUNT
    average = re.search(r"^\[STAT 10K\] - Average (\S+) milliseconds", done.stdout, re.MULTILINE)
    assert average is not None
    assert float(average[1]) == pytest.approx(fmean(deltas_ms), rel=1e-12)
    summary = json.loads(Path(engines_scripts.folder, "c.json").read_text())["summary"]
    assert summary["measured"] == COUNT
    assert (summary["delta_ms"]["min"], summary["delta_ms"]["max"]) == (min(deltas_ms), max(deltas_ms))


def test_what_it_does_with_the_output_stamp(engine: str, engines_cluster: Cluster, engines_scripts: Scripts) -> None:
    """On a CreateTime output topic Kafka Streams and Quix Streams pass the input's stamp on: INVALID; others do not."""
    source = engines_cluster.create_topic(partitions=PARTITIONS)
    output = engines_cluster.create_topic(partitions=PARTITIONS, timestamp_type="CreateTime")
    with running(engine, engines_scripts, (source, output)):
        send(engines_scripts, source, 1_000)
        done = engines_scripts.run("PerfConsumer.py", "--topic", output, "--count", "1000", "--idle-timeout", "30")
    stamps_are_passed_on = all(
        json.loads(message.value() or b"")["timestamp_start"] == message.timestamp()[1]
        for message in engines_cluster.read(output, 1_000, partitions=PARTITIONS)
    )
    assert stamps_are_passed_on == (engine in PASS_THE_STAMP_ON)
    assert done.returncode == (5 if engine in PASS_THE_STAMP_ON else 0), done.stdout + done.stderr
    assert ("INVALID" in done.stdout + done.stderr) == (engine in PASS_THE_STAMP_ON)
