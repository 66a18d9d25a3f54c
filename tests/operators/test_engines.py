"""The examples of real engines, each run by the command of `make demo OPERATOR=…`, and measured by the scripts."""

from __future__ import annotations

import calendar
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from harness import TIMEOUT_S, Cluster, Scripts
from secured import secured_command

from demo.broker import EmbeddedBroker, Security
from demo.operators import ENGINES, prepare, reading_flags

# Of the function only: the fixture `ready_to_run` may build and download for longer.
pytestmark = [pytest.mark.operators, pytest.mark.timeout(600, func_only=True)]

AT_LEAST_ONCE, EXACTLY_ONCE = "at-least-once", "exactly-once"
MODES = [
    (name, mode)
    for name, engine in ENGINES.items()
    for mode in (AT_LEAST_ONCE, EXACTLY_ONCE)
    if mode == AT_LEAST_ONCE or engine.exactly_once
]
COUNT = 10_000
PARTITIONS = 3
PASS_THE_STAMP_ON = {"kafka-streams", "quix-streams"}
KEEP_THEIR_PLACE_IN_A_FOLDER = {"flink-sql", "spark"}
# Kafka Streams does not leave its group: started again it waits for the end of the old member's session (45 s).
_WAIT_S = 120.0
_SIGTERM = 143  # exit code
API_KEY = "an-API_key+of/64=characters"


@pytest.fixture(autouse=True)
def ready_to_run(engine: str) -> None:
    """The example is built, and its libraries are there."""
    prepare(engine)


@contextlib.contextmanager
def running(
    engine: str, scripts: Scripts, topics: tuple[str, str], *more: str, command: Sequence[str] = (), **variables: str
) -> Iterator[None]:
    """The example (or that of `command`) between two topics, from its line "ready" until it is stopped by SIGTERM, as a
    container would be."""
    command = [*(command or prepare(engine)), "--input", topics[0], "--output", topics[1], *more]
    path = scripts.folder / "operator.txt"
    with path.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=scripts.folder,
            env=scripts.environment | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _WAIT_S
        while ENGINES[engine].ready not in path.read_text():
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.05)
        yield
        assert process.poll() is None, path.read_text()
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
        wait_for_the_end_of(children)


def wait_for_the_end_of(processes: Sequence[psutil.Process]) -> None:
    """Wait until all have ended, on which Flink's and Spark's Java decides by itself when Python has."""
    deadline = time.monotonic() + 10.0
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that takes a look at a topic."""
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def in_ms(stamp: int | str) -> int:
    """timestamp_start in milliseconds, without the code under test: Flink writes 2026-11-22 23:45:18.83Z."""
    if isinstance(stamp, int):
        return stamp
    second, _, fraction = stamp.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(second, "%Y-%m-%d %H:%M:%S")) * 1_000 + int(fraction.ljust(3, "0"))


def without_nulls(value: Any) -> Any:
    """A JSON value whose objects lack what is null, which is one to a typed engine."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def send(scripts: Scripts, topic: str, count: int) -> None:
    """Send marked messages on a schedule."""
    flags = ("--size", str(count), "--rate", "5K", "--keyname", "containerId", "--trace", "field:trace")
    done = scripts.run("ProducerPerformance.py", "--topic", topic, *flags)
    assert done.returncode == 0, done.stderr


def read_to_the_end(cluster: Cluster, topic: str) -> list[Message]:
    """All messages that a careful reader sees by now, so without those of open and aborted transactions.

    A partition is read when its end is reached, or one of the messages that came meanwhile: where an engine writes to
    all partitions at the same time, no fetch finds one of them at its end.
    """
    ends = end_offsets(cluster, topic)
    properties = {"bootstrap.servers": cluster.brokers, "group.id": "independent", "enable.auto.commit": False}
    consumer = Consumer({**properties, "isolation.level": "read_committed", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    messages: list[Message] = []
    ended = set[int | None]()
    deadline = time.monotonic() + TIMEOUT_S
    while len(ended) < PARTITIONS:
        for message in consumer.consume(10_000, 0.1):
            if (error := message.error()) is None:
                messages.append(message)
                if (message.offset() or 0) >= ends[message.partition() or 0]:
                    ended.add(message.partition())
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
        assert time.monotonic() < deadline, f"no end of {topic} after {len(messages)} messages"
    consumer.close()
    return messages


def marks(messages: Sequence[Message]) -> Counter[Any]:
    """How often each mark of --trace header:trace is there; each message must have one."""
    return Counter(dict(message.headers() or ())["trace"] for message in messages)


def end_offsets(cluster: Cluster, topic: str) -> dict[int, int]:
    """By partition: all that was ever written to it, commit markers too."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic, number): latest for number in range(PARTITIONS)}
    return {
        at.partition: int(found.result(TIMEOUT_S).offset) for at, found in cluster.admin.list_offsets(asked).items()
    }


@pytest.mark.parametrize(("engine", "mode"), MODES)
def test_every_message_comes_out_once_with_its_inputs_stamp(
    engine: str, mode: str, engines_cluster: Cluster, engines_scripts: Scripts
) -> None:
    """10,000 messages come out once, each with its input's key, fields and Kafka timestamp; averages are recomputed."""
    exactly_once = mode == EXACTLY_ONCE
    source, output = (engines_cluster.create_topic(partitions=PARTITIONS) for _ in range(2))
    with running(engine, engines_scripts, (source, output), *(["--exactly-once"] if exactly_once else [])):
        send(engines_scripts, source, COUNT)
        flags = ("--topic", output, "--count", str(COUNT), "--idle-timeout", "30", "--result", "c.json")
        done = engines_scripts.run("PerfConsumer.py", *flags, *reading_flags(engine))
        assert done.returncode == 0, done.stdout + done.stderr
    inputs = {}
    for message in engines_cluster.read(source, COUNT, partitions=PARTITIONS):
        event = json.loads(message.value() or b"")
        inputs[event["trace"]] = (message.key(), message.timestamp()[1], without_nulls(event))
    outputs, deltas_ms = {}, []
    for message in read_to_the_end(engines_cluster, output):
        event = json.loads(message.value() or b"")
        start_ms = in_ms(event.pop("timestamp_start"))
        outputs[event["trace"]] = (message.key(), start_ms, without_nulls(event))
        deltas_ms.append(message.timestamp()[1] - start_ms)
    assert len(inputs) == COUNT
    assert outputs == inputs
    assert len(deltas_ms) == COUNT  # none comes twice, not at the end either
    # Each transaction leaves commit markers; without transactions nothing but the results is there.
    written = sum(end_offsets(engines_cluster, output).values())
    assert written > COUNT if exactly_once else written == COUNT
    average = re.search(r"^\[STAT 10K\] - Average (\S+) milliseconds", done.stdout, re.MULTILINE)
    assert average is not None
    assert float(average[1]) == pytest.approx(fmean(deltas_ms), rel=1e-12)
    summary = json.loads(Path(engines_scripts.folder, "c.json").read_text())["summary"]
    assert summary["measured"] == COUNT
    assert (summary["delta_ms"]["min"], summary["delta_ms"]["max"]) == (min(deltas_ms), max(deltas_ms))


@pytest.mark.parametrize(("engine", "mode"), MODES)
def test_it_goes_on_where_it_was_stopped(
    engine: str, mode: str, engines_cluster: Cluster, engines_scripts: Scripts
) -> None:
    """Stopped by SIGTERM under load and started again, no message is missing; exactly once none comes twice."""
    source, output = (engines_cluster.create_topic(partitions=PARTITIONS) for _ in range(2))
    flags = ["--exactly-once"] if mode == EXACTLY_ONCE else []
    if engine in KEEP_THEIR_PLACE_IN_A_FOLDER:
        flags += ["--checkpoints", str(engines_scripts.folder / "checkpoints")]

    def results() -> Counter[Any]:
        return marks(read_to_the_end(engines_cluster, output))

    with running(engine, engines_scripts, (source, output), *flags):
        sending = ("--size", "10M", "--rate", "500", "--keyname", "containerId", "--trace", "header:trace")
        producer = engines_scripts.start("ProducerPerformance.py", "--topic", source, *sending)
        wait_until(lambda: results().total() > 0, "no results")
    assert producer.poll() is None  # it goes on while nobody reads
    before = results().total()
    with running(engine, engines_scripts, (source, output), *flags):
        wait_until(lambda: results().total() > before, "no results after the second start")
        producer.terminate()
        said = producer.communicate(timeout=TIMEOUT_S)
        assert producer.returncode == _SIGTERM, said
        sent = marks(read_to_the_end(engines_cluster, source))
        wait_until(lambda: results().keys() >= sent.keys(), "results are missing")
    assert sent.total() == len(sent) > before
    assert results().keys() == sent.keys()
    if mode == EXACTLY_ONCE:
        assert results() == sent


@pytest.mark.parametrize("engine", ENGINES)
def test_what_it_does_with_the_output_stamp(engine: str, engines_cluster: Cluster, engines_scripts: Scripts) -> None:
    """On a CreateTime output topic Kafka and Quix Streams pass the input's stamp on: INVALID; others are uncertain."""
    source = engines_cluster.create_topic(partitions=PARTITIONS)
    output = engines_cluster.create_topic(partitions=PARTITIONS, timestamp_type="CreateTime")
    with running(engine, engines_scripts, (source, output)):
        send(engines_scripts, source, 1_000)
        flags = ("--topic", output, "--count", "1000", "--idle-timeout", "30", *reading_flags(engine))
        done = engines_scripts.run("PerfConsumer.py", *flags)
    stamps_are_passed_on = all(
        in_ms(json.loads(message.value() or b"")["timestamp_start"]) == message.timestamp()[1]
        for message in engines_cluster.read(output, 1_000, partitions=PARTITIONS)
    )
    assert stamps_are_passed_on == (engine in PASS_THE_STAMP_ON)
    assert done.returncode == (5 if engine in PASS_THE_STAMP_ON else 0), done.stdout + done.stderr
    verdict = "INVALID" if engine in PASS_THE_STAMP_ON else "uncertain"
    assert re.search(rf"^ *verdict +{verdict}:", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("engine", ENGINES)
def test_the_lines_for_a_secured_cluster(engine: str, tmp_path: Path) -> None:
    """With the lines that the README has for it each example works over TLS with an API key, as with Event Streams."""
    with EmbeddedBroker(security=Security(plain_users={"token": API_KEY})) as broker:
        shutil.copy(broker.ca_path, tmp_path)
        cluster, scripts = Cluster(broker.bootstrap_servers), Scripts(broker.bootstrap_servers, tmp_path)
        source, output = (cluster.create_topic(partitions=PARTITIONS) for _ in range(2))
        command = secured_command(engine, tmp_path)
        variables = {"KAFKA_BROKERS": broker.secure_bootstrap_servers, "KAFKA_APIKEY": API_KEY}
        with running(engine, scripts, (source, output), command=command, **variables):
            send(scripts, source, 1_000)
            inputs = {
                json.loads(message.value() or b"")["trace"]: message.timestamp()[1]
                for message in cluster.read(source, 1_000, partitions=PARTITIONS)
            }
            events = [json.loads(one.value() or b"") for one in cluster.read(output, 1_000, partitions=PARTITIONS)]
        assert {event["trace"]: in_ms(event["timestamp_start"]) for event in events} == inputs
        scripts.close()
