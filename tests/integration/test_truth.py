"""The truth of the measurement: each definition of docs/measurement.md, recomputed another way on a real broker."""

from __future__ import annotations

import json
import math
import re
import shlex
import signal
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from harness import ROOT, TIMEOUT_S, Cluster, Scripts
from operators import Faults, Record, TransactionalOperator, misbehave, result_of, write

from demo.broker import EmbeddedBroker, java_command

pytestmark = pytest.mark.integration

STAMP_MS = 1_795_000_000_000
EVENTS = json.loads((ROOT / "data" / "data.json").read_text(encoding="utf-8"))
Wait = Callable[[Callable[[], bool]], None]


def result_file(scripts: Scripts, name: str) -> dict[str, Any]:
    """A result that a script wrote."""
    found: dict[str, Any] = json.loads((scripts.folder / name).read_text())
    return found


def consume(
    scripts: Scripts, topic: str, count: int, *flags: str, **variables: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the consumer for `count` messages; returns its process and its result's summary."""
    common = ("--topic", topic, "--count", str(count), "--idle-timeout", "30", "--result", "c.json")
    done = scripts.run("PerfConsumer.py", *common, *flags, **variables)
    return done, result_file(scripts, "c.json")["summary"]


def end_offsets(cluster: Cluster, topic: str, *, partitions: int = 1) -> int:
    """The sum of a topic's end offsets: all that was ever written to it."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic, number): latest for number in range(partitions)}
    return sum(int(future.result(TIMEOUT_S).offset) for future in cluster.admin.list_offsets(asked).values())


def operate(cluster: Cluster, source: str, output: str, count: int, *, pass_stamp_on: bool = False) -> list[Message]:
    """An operator without faults; one that passes its input's timestamp on if told so. Returns what it read."""
    messages = cluster.read(source, count)
    stamps_ms = [message.timestamp()[1] if pass_stamp_on else 0 for message in messages]
    write(
        cluster.brokers,
        output,
        [result_of(message, timestamp_ms=stamp) for message, stamp in zip(messages, stamps_ms, strict=True)],
    )
    return messages


def delta_of(message: Message) -> int:
    """A result's delta, by another way than the tool's."""
    start_ms = json.loads(message.value() or b"")["timestamp_start"]
    return int(message.timestamp()[1] - start_ms)


def nearest_rank(values: Sequence[int], percent: float) -> int:
    """The percentile as measurement.md defines it, from all values."""
    return sorted(values)[math.ceil(round(percent * len(values), 6) / 100) - 1]


def assert_distribution(found: dict[str, Any], values: Sequence[int]) -> None:
    """Exact count, mean, min and max; percentiles within 0.1 %."""
    assert found["count"] == len(values)
    assert found["mean"] == statistics.fmean(values)
    assert (found["min"], found["max"]) == (min(values), max(values))
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99_9", 99.9)):
        assert found[name] == pytest.approx(nearest_rank(values, percent), rel=0.001)


# Which clock stamped it


def test_inherited_stamps_are_invalid(scripts: Scripts, cluster: Cluster) -> None:
    """An operator that passes its input's stamp on to a CreateTime topic gets the verdict INVALID and exit code 5."""
    source, output = cluster.create_topic(), cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(source, [b'{"n":%d}' % number for number in range(200)])
    operate(cluster, source, output, 200, pass_stamp_on=True)
    done, summary = consume(scripts, output, 200)
    assert done.returncode == 5
    assert (summary["delta_ms"]["min"], summary["delta_ms"]["max"]) == (0, 0)
    sentence = "INVALID: the results carry their inputs' timestamps (CreateTime, deltas of exactly 0)"
    assert summary["verdict"].startswith(sentence)
    assert re.search(rf"verdict +{re.escape(sentence)}", done.stdout)
    assert f"error: {sentence}" in done.stderr
    assert "--latency receive" in done.stderr
    report = scripts.run("PerfReport.py", "c.json")
    assert report.returncode == 5
    assert re.search(rf"verdict +{re.escape(sentence)}", report.stdout)


def test_inherited_stamps_measured_to_receiving(scripts: Scripts, cluster: Cluster) -> None:
    """--latency receive measures the same operator by the moment of receiving, labelled as such; exit code 0."""
    source, output = cluster.create_topic(), cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(source, [b'{"n":%d}' % number for number in range(200)])
    flags = ("--latency", "receive", "--from", "latest", "--count", "200", "--result", "c.json")
    consumer = scripts.start("PerfConsumer.py", "--topic", output, *flags)
    scripts.wait_for(consumer, "read as it comes")
    written_ms = time.time() * 1000
    starts_ms = [message.timestamp()[1] for message in operate(cluster, source, output, 200, pass_stamp_on=True)]
    stdout, stderr = consumer.communicate(timeout=TIMEOUT_S)
    ended_ms = time.time() * 1000
    assert consumer.returncode == 0, stderr
    summary = result_file(scripts, "c.json")["summary"]
    assert summary["verdict"].startswith("valid: from timestamp_start to the moment of receiving")
    assert summary["latency"] == "receive"
    assert re.search(r"latency +receive\n", stdout)
    assert summary["delta_ms"]["min"] >= written_ms - max(starts_ms) - 2 > 0
    assert summary["delta_ms"]["max"] <= ended_ms - min(starts_ms) + 2


def test_own_stamps_are_uncertain_until_the_topic_is_mended(scripts: Scripts, cluster: Cluster) -> None:
    """CreateTime with own stamps is "uncertain"; the command that the warning gives makes the topic measurable."""
    source, output = cluster.create_topic(), cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(source, [b'{"n":%d}' % number for number in range(200)])
    operate(cluster, source, output, 200)
    done, summary = consume(scripts, output, 200)
    assert done.returncode == 0
    assert summary["verdict"].startswith("uncertain: ")
    assert summary["timestamp_types"] == {"CreateTime": 200}
    assert f"the topic {output} has message.timestamp.type=CreateTime" in done.stderr
    command = re.findall(r"kafka-configs\.sh (--.*LogAppendTime)\b", done.stderr)
    assert len(command) == 1
    altered = subprocess.run(
        java_command("kafka.admin.ConfigCommand", *shlex.split(command[0])), capture_output=True, text=True
    )
    assert altered.returncode == 0, altered.stdout + altered.stderr
    operate(cluster, source, output, 200)
    assert cluster.read(output, 400)[-1].timestamp()[0] == 2


def test_append_time_is_valid(scripts: Scripts, cluster: Cluster) -> None:
    """LogAppendTime is valid even where the operator passes stamps on, and every figure is the true one."""
    source, output = cluster.create_topic(), cluster.create_topic()
    cluster.produce(source, [b'{"n":%d}' % number for number in range(200)])
    operate(cluster, source, output, 200, pass_stamp_on=True)
    done, summary = consume(scripts, output, 200)
    assert done.returncode == 0, done.stderr
    assert summary["verdict"] == "valid: the broker stamped every result (LogAppendTime)"
    deltas = [delta_of(message) for message in cluster.read(output, 200)]
    assert min(deltas) > 0
    assert_distribution(summary["delta_ms"], deltas)


@pytest.mark.parametrize("flags", [(), ("--from", "earliest"), ("--from", "latest", "--group", "some-group")])
def test_receive_needs_a_consumer_that_was_there(scripts: Scripts, cluster: Cluster, flags: tuple[str, ...]) -> None:
    """--latency receive is refused where messages may have waited for the consumer; exit code 2."""
    done = scripts.run("PerfConsumer.py", "--topic", cluster.create_topic(), "--latency", "receive", *flags)
    assert done.returncode == 2
    assert "--latency receive" in done.stderr and "--from latest" in done.stderr


# Units and places


def _utc(start_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=start_ms)


def _flink_iso(start_ms: int) -> str:
    """As Flink writes it: a space, trailing zeros cut."""
    return f"{_utc(start_ms):%Y-%m-%d %H:%M:%S}.{start_ms % 1000:03d}".rstrip("0").rstrip(".") + "Z"


def _spark_iso(start_ms: int) -> str:
    return f"{_utc(start_ms):%Y-%m-%dT%H:%M:%S}.{start_ms % 1000:03d}Z"


def _berlin_iso(start_ms: int) -> str:
    return f"{_utc(start_ms) + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}.{start_ms % 1000:03d}+02:00"


class Shape(NamedTuple):
    """How an operator writes timestamp_start: the flags for it, a start's text, what the tool must make of it."""

    flags: tuple[str, ...]
    render: Callable[[int], str]
    read_ms: Callable[[int], int] = int
    headers: Callable[[int], list[tuple[str, bytes]]] | None = None


def _in(unit: str, *flags: str) -> tuple[str, ...]:
    return ("--timestamp-unit", unit, *flags)


HEADER = ("--timestamp-header", "start")
SHAPES = {
    "ms": Shape((), lambda ms: f'{{"a":[1],"timestamp_start":{ms}}}'),
    "ms text": Shape((), lambda ms: f'{{"timestamp_start":"{ms}"}}'),
    "s whole": Shape(_in("s"), lambda ms: f'{{"timestamp_start":{ms // 1000}}}', lambda ms: ms // 1000 * 1000),
    "s fraction": Shape(_in("s"), lambda ms: f'{{"timestamp_start":{ms // 1000}.{ms % 1000:03d}}}'),
    "s text": Shape(_in("s"), lambda ms: f'{{"timestamp_start":"{ms // 1000}.{ms % 1000:03d}"}}'),
    # 499 below the half is rounded down, 501 up
    "us": Shape(
        _in("us"),
        lambda ms: f'{{"timestamp_start":{ms * 1000 + (501 if ms % 2 else 499)}}}',
        lambda ms: ms + ms % 2,
    ),
    "ns": Shape(
        _in("ns"),
        lambda ms: f'{{"timestamp_start":{ms * 1_000_000 + (500_001 if ms % 2 else 499_999)}}}',
        lambda ms: ms + ms % 2,
    ),
    "iso8601 Flink": Shape(_in("iso8601"), lambda ms: f'{{"timestamp_start":"{_flink_iso(ms)}"}}'),
    "iso8601 Spark": Shape(_in("iso8601"), lambda ms: f'{{"timestamp_start":"{_spark_iso(ms)}"}}'),
    "iso8601 offset": Shape(_in("iso8601"), lambda ms: f'{{"timestamp_start":"{_berlin_iso(ms)}"}}'),
    "CloudEvents": Shape(
        ("--timestamp-field", "data.timestamp_start"),
        lambda ms: f'{{"specversion":"1.0","type":"x","timestamp_start":1,"data":{{"v":2,"timestamp_start":{ms}}}}}',
    ),
    "Debezium": Shape(
        ("--timestamp-field", "payload.after.timestamp_start"),
        lambda ms: (
            f'{{"schema":{{}},"payload":{{"before":{{"timestamp_start":1}},"after":{{"id":7,"timestamp_start":{ms}}},'
            f'"op":"u"}}}}'
        ),
    ),
    "array": Shape(
        ("--timestamp-field", "events.0.timestamp_start"),
        lambda ms: f'{{"events":[{{"timestamp_start":{ms}}},{{"timestamp_start":1}}]}}',
    ),
    "dotted name": Shape(
        ("--timestamp-field", r"a\.b"), lambda ms: f'{{"a":{{"b":1}},"a.b":{ms}}}'
    ),
    "header text": Shape(HEADER, lambda _: "\x00Avro", headers=lambda ms: [("x", b"1"), ("start", b"%d" % ms)]),
    "header binary": Shape(HEADER, lambda _: "\x00Avro", headers=lambda ms: [("start", ms.to_bytes(8, "big"))]),
    "header us": Shape(
        _in("us", *HEADER), lambda _: "<xml/>", headers=lambda ms: [("start", (ms * 1000).to_bytes(8, "big"))]
    ),
    "header iso8601": Shape(
        _in("iso8601", *HEADER), lambda _: "<xml/>", headers=lambda ms: [("start", _berlin_iso(ms).encode())]
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_units_and_places(scripts: Scripts, cluster: Cluster, shape: Shape) -> None:
    """However and wherever an operator writes timestamp_start, the figures are those of the true start."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    starts_ms = [STAMP_MS - number * 997 % 60_013 - 1 for number in range(300)]
    starts_ms += [STAMP_MS - 5_000, STAMP_MS - 60, STAMP_MS - 500]  # ends in zeros, which Flink cuts
    records = [
        Record(
            value=shape.render(start_ms).encode(),
            headers=shape.headers(start_ms) if shape.headers else None,
            timestamp_ms=STAMP_MS,
        )
        for start_ms in starts_ms
    ]
    write(cluster.brokers, topic, records)
    done, summary = consume(scripts, topic, len(records), *shape.flags)
    assert done.returncode == 0, done.stderr
    assert_distribution(summary["delta_ms"], [STAMP_MS - shape.read_ms(start_ms) for start_ms in starts_ms])


@pytest.mark.parametrize(
    ("flags", "value", "hint"),
    [
        ((), STAMP_MS // 1000, "looks like seconds: --timestamp-unit s"),
        ((), STAMP_MS * 1000, "looks like microseconds: --timestamp-unit us"),
        (("--timestamp-unit", "s"), STAMP_MS, "looks like milliseconds: --timestamp-unit ms"),
    ],
)
def test_a_wrong_unit_is_never_guessed(
    scripts: Scripts, cluster: Cluster, flags: tuple[str, ...], value: int, hint: str
) -> None:
    """Stamps of another unit than the declared one are counted as implausible, with the flag that reads them."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % value] * 150, timestamp=STAMP_MS)
    done, summary = consume(scripts, topic, 150, *flags)
    assert done.returncode == 5
    assert summary["not_measured"]["implausible_timestamp_start"] == 150
    assert summary["measured"] == 0
    assert re.search(rf"{value} {hint}(\s|$)", done.stderr)


# Open loop

STALL_MESSAGES, STALL_RATE, STALL_MS = 10_000, 1_000, 2_000
SHOWN_MS = 1_500
_MARGIN_MS = 250  # a signal takes effect when the threads that run at that moment notice it
#: How the producer stamps, and the input topic's type.
STAMPINGS = {
    "send": ("send", "CreateTime"),
    "intended": ("intended", "CreateTime"),
    "append": ("send", "LogAppendTime"),
}


class Stall(NamedTuple):
    """When something was certainly stopped, in ms since the epoch."""

    start_ms: float
    end_ms: float


class Stalled:
    """A run in which something was stopped: its summaries, and start and delta of each message by an own read."""

    def __init__(self, name: str, producer: dict[str, Any], consumer: dict[str, Any], results: list[Message]) -> None:
        self.name, self.producer, self.consumer = name, producer, consumer
        self.deltas = [(int(json.loads(m.value() or b"")["timestamp_start"]), delta_of(m)) for m in results]

    def assert_complete(self) -> None:
        """Everything arrived once, and the tool's figures are those of the topic."""
        assert self.producer["acknowledged"] == self.consumer["measured"] == STALL_MESSAGES
        assert self.producer["stamp"] == STAMPINGS[self.name][0]
        assert self.producer["lateness_ms"]["count"] == self.producer["ack_ms"]["count"] == STALL_MESSAGES
        assert self.consumer["timestamp_types"] == {"LogAppendTime": STALL_MESSAGES}
        assert_distribution(self.consumer["delta_ms"], [delta for _, delta in self.deltas])

    def assert_shown(self, stall: Stall) -> None:
        """Messages were stamped all through the stall, and the delta tells how long they waited."""
        begun_ms = stall.start_ms + _MARGIN_MS
        during = [(start, delta) for start, delta in self.deltas if begun_ms < start < stall.end_ms]
        assert len(during) > STALL_MS * STALL_RATE / 1000 / 2
        ended_ms = min(start + delta for start, delta in during)
        assert ended_ms > stall.end_ms - _MARGIN_MS
        assert self.consumer["delta_ms"]["p99"] > SHOWN_MS
        assert self.consumer["delta_ms"]["max"] > 0.9 * STALL_MS

    def assert_hidden(self, stall: Stall) -> None:
        """No message was stamped during the stall, so that only those inside the pipeline when it began may show it.

        Their number is that of a moment: latency × rate, under 1 % where the machine has nothing else to do. A busy one
        takes long for all that comes at once when the stall ends, hence the median.
        """
        middle_ms = (stall.start_ms + stall.end_ms) / 2  # what was on its way to the broker may still be appended
        later = [(start, delta) for start, delta in self.deltas if start > middle_ms]
        assert min(start for start, _ in later) > stall.end_ms - _MARGIN_MS
        assert statistics.median([delta for _, delta in later]) < SHOWN_MS


class Pipelines:
    """A pipeline for each way of stamping, all running at once: producer, stand-in operator, consumer."""

    def __init__(self, scripts: Scripts, cluster: Cluster) -> None:
        self._scripts, self._cluster = scripts, cluster
        self._address = {"KAFKA_BROKERS": cluster.brokers}
        self._inputs = {name: cluster.create_topic(timestamp_type=kind) for name, (_, kind) in STAMPINGS.items()}
        self._outputs = {name: cluster.create_topic() for name in STAMPINGS}
        operators = [
            scripts.start("-m demo.streams_operator", "--input", source, "--output", output, **self._address)
            for source, output in zip(self._inputs.values(), self._outputs.values(), strict=True)
        ]
        self._consumers = [
            self._start("PerfConsumer.py", f"c-{name}.json", "--topic", topic, "--count", str(STALL_MESSAGES))
            for name, topic in self._outputs.items()
        ]
        for operator in operators:
            assert operator.stdout is not None and "operator ready" in operator.stdout.readline()
        for consumer in self._consumers:
            scripts.wait_for(consumer, "reading topic")
        sizes = ("--size", str(STALL_MESSAGES), "--rate", str(STALL_RATE))
        self.producers = [
            self._start("ProducerPerformance.py", f"p-{name}.json", "--topic", source, "--stamp", stamp, *sizes)
            for (name, source), (stamp, _) in zip(self._inputs.items(), STAMPINGS.values(), strict=True)
        ]

    def are_running(self) -> bool:
        """Whether every producer's messages arrive; asserts that each has enough left for a stall."""
        arrived = [end_offsets(self._cluster, topic) for topic in self._inputs.values()]
        assert max(arrived) < STALL_MESSAGES - STALL_MS * STALL_RATE / 1000
        return min(arrived) >= STALL_RATE / 2

    def finish(self) -> list[Stalled]:
        """Wait for the end; returns what was measured, complete, for each way of stamping."""
        for process in (*self.producers, *self._consumers):
            _, stderr = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, stderr
        runs = []
        for name, output in self._outputs.items():
            producer, consumer = (result_file(self._scripts, f"{side}-{name}.json")["summary"] for side in "pc")
            runs.append(Stalled(name, producer, consumer, self._cluster.read(output, STALL_MESSAGES)))
            runs[-1].assert_complete()
        return runs

    def _start(self, script: str, name: str, *flags: str) -> subprocess.Popen[str]:
        return self._scripts.start(script, *flags, "--result", name, **self._address)


def stalled(stop: Callable[[], object], resume: Callable[[], object]) -> Stall:
    """Stop something for STALL_MS. The time is the fault itself, so there is no condition to wait for."""
    stop()
    start_ms = time.time() * 1000
    time.sleep(STALL_MS / 1000)
    end_ms = time.time() * 1000
    resume()
    return Stall(start_ms, end_ms)


def test_a_stopped_broker(scripts: Scripts, await_condition: Wait) -> None:
    """A broker stopped for 2 s shows in the delta with either of the producer's stamps, and hides behind its own."""
    # a long session, lest the broker's other half, the controller, takes the stall for a crash
    with EmbeddedBroker(properties={"broker.session.timeout.ms": "30000"}) as broker:
        pipelines = Pipelines(scripts, Cluster(broker.bootstrap_servers))
        await_condition(pipelines.are_running)
        stall = stalled(broker.pause, broker.resume)
        runs = pipelines.finish()
    for run in runs:
        assert run.producer["lateness_ms"]["p99"] < SHOWN_MS, "produce() only queues"
        assert run.producer["ack_ms"]["p99"] > SHOWN_MS
        if run.name == "append":
            run.assert_hidden(stall)
        else:
            run.assert_shown(stall)


def test_a_stopped_producer(scripts: Scripts, cluster: Cluster, await_condition: Wait) -> None:
    """A producer stopped for 2 s shows in the delta with intended stamps only, and in the lateness always."""
    pipelines = Pipelines(scripts, cluster)
    await_condition(pipelines.are_running)

    def send(number: signal.Signals) -> None:
        for producer in pipelines.producers:
            producer.send_signal(number)

    stall = stalled(lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))
    for run in pipelines.finish():
        assert run.producer["lateness_ms"]["p99"] > SHOWN_MS
        assert run.producer["lateness_ms"]["max"] > 0.9 * STALL_MS
        if run.name == "intended":
            run.assert_shown(stall)
        else:
            run.assert_hidden(stall)


def test_intended_stamps_are_the_schedule(scripts: Scripts, cluster: Cluster) -> None:
    """With --stamp intended, message i carries start + i / rate, to the millisecond; its start is the schedule's.

    A start that were later than the schedule's would make every delta too small, and stamps lie ahead of the sending.
    """
    topic = cluster.create_topic(timestamp_type="CreateTime")
    flags = ("--topic", topic, "--size", "400", "--rate", "400", "--stamp", "intended")
    assert scripts.run("ProducerPerformance.py", *flags).returncode == 0
    stamps = [message.timestamp()[1] for message in cluster.read(topic, 400)]
    # whole milliseconds of start + 2.5 i: cut, so that a distance from the first is up to 1 ms off either way
    assert all(abs(stamp - stamps[0] - 2.5 * number) < 1 for number, stamp in enumerate(stamps))


def test_results_of_an_earlier_test_are_told(scripts: Scripts, cluster: Cluster) -> None:
    """Reading from the beginning, results that are over a minute old are told by their number; others are not."""
    topic = cluster.create_topic(partitions=2, timestamp_type="CreateTime")
    now_ms = time.time_ns() // 1_000_000
    cluster.produce(topic, [b"{}"] * 7, timestamp=now_ms - 120_000)
    cluster.produce(topic, [b"{}"] * 2, timestamp=now_ms)
    cluster.produce(topic, [b"{}"] * 3, partition=1, timestamp=now_ms)
    told = "7 messages of topic .* are over a minute old"
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_ms / 1_000))
    for start, matches in (("earliest", True), ("latest", False), (since, False)):
        done = scripts.run("PerfConsumer.py", "--topic", topic, "--from", start, "--idle-timeout", "1s")
        assert bool(re.search(told, done.stderr)) == matches, done.stderr


@pytest.mark.parametrize("size", ["1", "20", "2000"])
def test_intended_stamps_need_create_time(scripts: Scripts, cluster: Cluster, size: str) -> None:
    """--stamp intended on a LogAppendTime topic is refused with the reason, however short the run; exit code 2."""
    flags = ("--topic", cluster.create_topic(), "--size", size, "--rate", "1000", "--stamp", "intended")
    done = scripts.run("ProducerPerformance.py", *flags)
    assert "LogAppendTime" in done.stderr and "needs message.timestamp.type=CreateTime" in done.stderr
    assert done.returncode == 2


def test_intended_stamps_need_a_rate(scripts: Scripts, cluster: Cluster) -> None:
    """--stamp intended without --rate is refused with the reason; exit code 2."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    done = scripts.run("ProducerPerformance.py", "--topic", topic, "--stamp", "intended")
    assert done.returncode == 2
    assert "--stamp intended needs --rate" in done.stderr
    assert end_offsets(cluster, topic) == 0


# Trace


def _mark_of(trace: str) -> Callable[[Message], str]:
    place, _, name = trace.partition(":")
    if place == "key":
        return lambda message: (message.key() or b"").decode()
    if place == "header":
        return lambda message: str(dict(message.headers() or ())[name], "ascii")  # type: ignore[arg-type]
    return lambda message: str(json.loads(message.value() or b"")[name])


def ledger_of(report: str) -> dict[str, int]:
    """The ledger's counters in a printed report."""
    section = report.partition("Ledger:")[2].partition("\n\n")[0]
    return {name: int(value) for name, value in re.findall(r"^ +([a-z ]+?) +(\d+)$", section, re.MULTILINE)}


def expected_ledger(marked: int, faults: Faults) -> dict[str, int]:
    """What the ledger must say after these faults."""
    return {
        "unique": marked - faults.dropped,
        "lost": faults.dropped,
        "unacknowledged": 0,
        "duplicated": faults.doubled,
        "out of order": faults.swapped,
        "redelivered": 0,
        "untraced": 0,
        "unkept": 0,
        "unexpected": 0,
    }


@pytest.mark.parametrize("trace", ["field:mark", "key", "header:mark"])
def test_the_ledger_counts_known_faults(scripts: Scripts, cluster: Cluster, trace: str) -> None:
    """Messages dropped, doubled and swapped by the operator are counted exactly, wherever the marks stand."""
    count, source, output = 1_800, cluster.create_topic(partitions=6), cluster.create_topic()
    flags = ("--topic", source, "--size", str(count), "--keyname", "containerId", "--trace", trace)
    assert scripts.run("ProducerPerformance.py", *flags, "--result", "p.json").returncode == 0
    messages, faults = misbehave(cluster.read(source, count, partitions=6), _mark_of(trace))
    write(cluster.brokers, output, [result_of(message) for message in messages])
    done, _ = consume(scripts, output, len(messages), "--trace", trace)
    assert done.returncode == 0, done.stderr
    report = scripts.run("PerfReport.py", "p.json", "c.json")
    assert report.returncode == 0
    assert ledger_of(report.stdout) == expected_ledger(count, faults)
    limits = ("lost > 0", f"duplicated > {faults.doubled}", f"out_of_order >= {faults.swapped}")
    judged = scripts.run(
        "PerfReport.py", "p.json", "c.json", *(flag for text in limits for flag in ("--fail-if", text))
    )
    assert judged.returncode == 6
    assert f"lost > 0: lost is {faults.dropped}: exceeded" in judged.stdout
    assert f"duplicated is {faults.doubled}: holds" in judged.stdout
    assert f"out_of_order is {faults.swapped}: exceeded" in judged.stdout


def test_a_faithful_operator_has_nothing_out_of_order(scripts: Scripts, cluster: Cluster) -> None:
    """From six partitions to one, interleaved as they come, nothing is out of order, lost or doubled."""
    source, output = cluster.create_topic(partitions=6), cluster.create_topic()
    flags = ("--topic", source, "--size", "3000", "--trace", "field:mark", "--result", "p.json")
    assert scripts.run("ProducerPerformance.py", *flags).returncode == 0
    messages = cluster.read(source, 3000, partitions=6)
    in_turn = sorted(messages, key=lambda message: (message.offset() or 0) // 7)  # seven of each partition at a time
    assert len({message.partition() for message in in_turn[:42]}) == 6
    write(cluster.brokers, output, [result_of(message) for message in in_turn])
    done, _ = consume(scripts, output, 3000, "--trace", "field:mark")
    assert done.returncode == 0
    limits = _flags(("lost > 0", "duplicated > 0", "out_of_order > 0"))
    report = scripts.run("PerfReport.py", "p.json", "c.json", *limits)
    assert report.returncode == 0, report.stdout
    assert ledger_of(report.stdout) == expected_ledger(3000, Faults(dropped=0, doubled=0, swapped=0))


def test_nothing_is_added_without_trace(scripts: Scripts, cluster: Cluster) -> None:
    """Without --trace messages are the data set's, byte for byte, and a limit on lost ones cannot be judged."""
    source, output = cluster.create_topic(), cluster.create_topic()
    assert (
        scripts.run("ProducerPerformance.py", "--topic", source, "--size", "60", "--result", "p.json").returncode == 0
    )
    messages = operate(cluster, source, output, 60)
    assert [json.loads(message.value() or b"") for message in messages] == [EVENTS[n % len(EVENTS)] for n in range(60)]
    assert all(message.headers() is None and message.key() is None for message in messages)
    consume(scripts, output, 60)
    report = scripts.run("PerfReport.py", "p.json", "c.json", "--fail-if", "lost > 0")
    assert report.returncode == 6
    assert "lost > 0: lost is n/a" in report.stdout
    assert "Ledger" not in report.stdout


def test_what_never_reached_the_input_is_not_called_lost(scripts: Scripts, cluster: Cluster) -> None:
    """Messages that Kafka refused are counted as unacknowledged in the ledger, and do not exceed a limit on lost ones.

    The report ends with the producer's exit code 4.
    """
    (scripts.folder / "data.ndjson").write_text('{"a":1}\n{"a":2}\n{"a":"%s"}\n' % ("x" * 1_100_000))
    source, output = cluster.create_topic(partitions=2), cluster.create_topic()
    flags = ("--topic", source, "--file", "data.ndjson", "--size", "60", "--trace", "header:mark", "--result", "p.json")
    done = scripts.run("ProducerPerformance.py", *flags, "--config", "message.max.bytes=2000000")
    assert done.returncode == 4, done.stderr
    write(cluster.brokers, output, [result_of(message) for message in cluster.read(source, 40, partitions=2)[1:]])
    consume(scripts, output, 39, "--trace", "header:mark")
    report = scripts.run("PerfReport.py", "p.json", "c.json", "--fail-if", "lost > 1")
    assert report.returncode == 4, report.stderr
    counts = ledger_of(report.stdout)
    assert (counts["unique"], counts["lost"], counts["unacknowledged"]) == (39, 1, 20)
    assert "lost > 1: lost is 1: holds" in report.stdout


# Stages


def test_visible_begins_when_the_consumer_has_caught_up(scripts: Scripts, cluster: Cluster) -> None:
    """What was there before waited for the consumer: it is in the delta, and not in visible."""
    source, output = cluster.create_topic(), cluster.create_topic()
    cluster.produce(source, [b'{"n":1}'] * 300)
    operate(cluster, source, output, 300)
    flags = ("--topic", output, "--group", output, "--count", "500", "--result", "c.json")
    consumer = scripts.start("PerfConsumer.py", *flags)
    scripts.wait_for(consumer, "read as it comes")
    cluster.produce(source, [b'{"n":2}'] * 200)
    write(cluster.brokers, output, [result_of(message) for message in cluster.read(source, 500)[300:]])
    _, stderr = consumer.communicate(timeout=TIMEOUT_S)
    assert consumer.returncode == 0, stderr
    summary = result_file(scripts, "c.json")["summary"]
    assert (summary["delta_ms"]["count"], summary["visible_ms"]["count"]) == (500, 200)


@pytest.mark.parametrize(("commit_every_s", "count", "visible_ms"), [(0.5, 400, 100), (5.0, 900, 1_500)])
def test_commit_intervals_show_in_visible(
    scripts: Scripts, cluster: Cluster, commit_every_s: float, count: int, visible_ms: int
) -> None:
    """The wait for an exactly-once operator's commits shows in visible, and not in the delta."""
    source, output = cluster.create_topic(), cluster.create_topic()
    with TransactionalOperator(cluster.brokers, source, output, commit_every_s=commit_every_s) as operator:
        flags = ("--from", "latest", "--isolation", "read_committed", "--count", str(count), "--result", "c.json")
        consumer = scripts.start("PerfConsumer.py", "--topic", output, *flags)
        scripts.wait_for(consumer, "read as it comes")
        sent = scripts.run("ProducerPerformance.py", "--topic", source, "--size", str(count), "--rate", "200")
        assert sent.returncode == 0, sent.stderr
        stdout, stderr = consumer.communicate(timeout=TIMEOUT_S)
    assert consumer.returncode == 0, stderr
    summary = result_file(scripts, "c.json")["summary"]
    visible, delta, wait = summary["visible_ms"], summary["delta_ms"], summary["append_to_visible_ms"]
    results = cluster.read(output, count)
    assert_distribution(delta, [delta_of(message) for message in results])
    committed_ms = [moment_ms for moment_ms, written in operator.commits for _ in range(written)]
    # nobody could see a message before its commit began
    least_ms = [moment - message.timestamp()[1] for moment, message in zip(committed_ms, results, strict=True)]
    assert visible["count"] == wait["count"] == count
    assert wait["mean"] >= statistics.fmean(least_ms) - 2
    assert wait["max"] >= max(least_ms) - 2
    assert visible["mean"] == pytest.approx(delta["mean"] + wait["mean"])
    assert visible["p50"] > visible_ms
    assert wait["p50"] > visible_ms / 2
    assert re.search(r"\n  delta \(ms\)\n(    .*\n)+  visible \(ms\)\n", stdout), stdout
    if commit_every_s > 1:  # shorter ones are no longer than what a busy machine may need for the pipeline itself
        assert delta["p50"] < visible["p50"] / 2


@pytest.mark.parametrize("rate", ["0", "500"])
def test_acknowledgements_are_timed_on_a_schedule(scripts: Scripts, cluster: Cluster, rate: str) -> None:
    """Send→ack has a sample for each message with --rate, and is n/a at full speed, as is the lateness."""
    flags = ("--topic", cluster.create_topic(), "--size", "500", "--rate", rate, "--result", "p.json")
    done = scripts.run("ProducerPerformance.py", *flags)
    assert done.returncode == 0, done.stderr
    summary = result_file(scripts, "p.json")["summary"]
    for name in ("ack", "lateness"):
        distribution = summary[f"{name}_ms"]
        if rate == "0":
            assert distribution["count"] == 0
            assert distribution["mean"] is None and distribution["p99"] is None
            assert re.search(rf"{name} \(ms\) +n/a\n", done.stdout)
        else:
            assert distribution["count"] == 500
            assert 0 <= distribution["min"] <= distribution["p50"] <= distribution["max"]
    if rate != "0":
        assert summary["ack_ms"]["p50"] > 0


# Clock error


def test_clock_offset_against_the_broker(scripts: Scripts, cluster: Cluster) -> None:
    """The broker's clock is ours, so the interval holds 0; and only the data set is in the user's topics."""
    clock, source, output = f"{cluster.create_topic()}-clock", cluster.create_topic(), cluster.create_topic()
    made = scripts.run("PerfTopics.py", "clock", clock)
    assert (made.returncode, made.stdout) == (0, f"created: {clock}\n")
    again = scripts.run("PerfTopics.py", "clock", clock)
    assert (again.returncode, again.stdout) == (0, f"there already: {clock}\n")
    assert scripts.run("ProducerPerformance.py", "--topic", source, "--size", "100").returncode == 0
    operate(cluster, source, output, 100)
    done, summary = consume(scripts, output, 100, "--clock-topic", clock)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"clock offset vs broker (\d+) +([+-]\d+\.\d) ms ± (\d+\.\d) ms\n", done.stdout)
    assert [int(broker) for broker, _, _ in printed] == [found["broker"] for found in summary["clock"]] == [1]
    for (_, offset, bound), found in zip(printed, summary["clock"], strict=True):
        assert -found["bound_ms"] <= found["offset_ms"] <= found["bound_ms"]
        assert (offset, bound) == (f"{found['offset_ms']:+.1f}", f"{found['bound_ms']:.1f}")
    assert end_offsets(cluster, clock) > 0
    assert end_offsets(cluster, source) == end_offsets(cluster, output) == 100


def test_clock_error_without_its_topic(scripts: Scripts, cluster: Cluster) -> None:
    """Without the clock topic the error is n/a, with the reason, and no topic is made."""
    topic, absent = cluster.create_topic(timestamp_type="CreateTime"), f"{cluster.create_topic()}-absent-clock"
    cluster.produce(topic, [b'{"timestamp_start":%d}' % STAMP_MS] * 10, timestamp=STAMP_MS + 5)
    done, summary = consume(scripts, topic, 10, "--clock-topic", absent)
    assert done.returncode == 0
    assert summary["clock"] == []
    assert re.search(r"clock offset vs brokers +n/a\n", done.stdout)
    assert re.search(rf"the clock error is n/a: .*\b{absent}\b", done.stderr)
    assert absent not in cluster.topics()


def test_clock_topic_must_be_append_time(scripts: Scripts, cluster: Cluster) -> None:
    """A CreateTime clock topic is refused with the reason, gets no probe, and the error is n/a."""
    topic, clock = (cluster.create_topic(timestamp_type="CreateTime", name_end=end) for end in ("", "-clock"))
    cluster.produce(topic, [b'{"timestamp_start":%d}' % STAMP_MS] * 10, timestamp=STAMP_MS + 5)
    done, summary = consume(scripts, topic, 10, "--clock-topic", clock)
    assert done.returncode == 0
    assert summary["clock"] == []
    assert re.search(r"clock offset vs brokers +n/a\n", done.stdout)
    assert re.search(rf"n/a: the clock topic {clock} is not LogAppendTime", done.stderr)
    assert end_offsets(cluster, clock) == 0


def test_probes_never_go_to_the_measured_topic(scripts: Scripts, cluster: Cluster) -> None:
    """Named as the clock topic by mistake, the output topic gets no probe: exit code 2."""
    source, output = cluster.create_topic(), cluster.create_topic(name_end="-clock")
    cluster.produce(source, [b'{"n":1}'] * 20)
    operate(cluster, source, output, 20)
    done = scripts.run("PerfConsumer.py", "--topic", output, "--count", "20", "--clock-topic", output)
    assert (done.returncode, end_offsets(cluster, output)) == (2, 20)
    assert scripts.run("PerfConsumer.py", "--topic", output, "--clock-topic", source).returncode == 2


# Warm-up, time series, partitions


def _known(cluster: Cluster, count: int, *, partitions: int = 1) -> tuple[str, list[Record], list[int]]:
    """A topic of known deltas: `count` messages, 4 ms apart, over the partitions in turn."""
    topic = cluster.create_topic(partitions=partitions, timestamp_type="CreateTime")
    deltas = [(number * 7919) % 1_999 + (60_000 if number % 500 == 3 else 0) for number in range(count)]
    records = [
        Record(
            value=b'{"n":%d,"timestamp_start":%d}' % (number, STAMP_MS + 4 * number - delta),
            partition=number % partitions,
            timestamp_ms=STAMP_MS + 4 * number,
        )
        for number, delta in enumerate(deltas)
    ]
    write(cluster.brokers, topic, records)
    return topic, records, deltas


def _assert_warm(done: subprocess.CompletedProcess[str], summary: dict[str, Any], deltas: list[int], cold: int) -> None:
    """The first `cold` messages are counted as warm-up and are in no figure."""
    warm = deltas[cold:]
    assert done.returncode == 0, done.stderr
    assert summary["not_measured"]["warmup"] == cold
    assert summary["measured"] == len(warm)
    assert summary["messages_read"] == len(deltas) == summary["measured"] + sum(summary["not_measured"].values())
    assert_distribution(summary["delta_ms"], warm)
    means = [statistics.fmean(warm[end - 100 : end]) for end in range(100, len(warm) + 1, 100)]
    assert [float(text) for text in re.findall(r"\[STAT 100\] - Average (\S+)", done.stdout)] == means
    assert (summary["first_record_ms"], summary["last_record_ms"]) == (
        STAMP_MS + 4 * cold,
        STAMP_MS + 4 * (len(deltas) - 1),
    )
    assert sum(row["count"] for row in summary["series"]) == len(warm)
    assert sum(row["count"] for row in summary["partitions"]) == len(warm)
    assert summary["timestamp_types"] == {"CreateTime": len(warm)}
    assert re.search(rf"warmup +{cold}\n", done.stdout)


@pytest.mark.parametrize(("warmup", "cold"), [("750", 750), ("1K", 1_000), ("3s", 750), ("1500ms", 375)])
def test_warmup_is_in_no_figure(scripts: Scripts, cluster: Cluster, warmup: str, cold: int) -> None:
    """--warmup, by messages or by seconds of record time, is excluded everywhere and counted as warmup."""
    topic, _, deltas = _known(cluster, 2_000)
    done, summary = consume(scripts, topic, 2_000, WARMUP=warmup)
    _assert_warm(done, summary, deltas, cold)


def test_warmup_of_several_partitions(scripts: Scripts, cluster: Cluster) -> None:
    """Where partitions are read one after the other, early messages of each belong to the warm-up, whenever read."""
    topic, _, deltas = _known(cluster, 3_000, partitions=3)
    _, summary = consume(scripts, topic, 3_000, "--warmup", "6s")
    cold = summary["not_measured"]["warmup"]
    assert 1_500 <= cold <= 1_502  # the first message read is the first of one of the partitions, 4 ms apart
    assert_distribution(summary["delta_ms"], deltas[cold:])
    assert summary["first_record_ms"] == STAMP_MS + 4 * cold


def test_a_run_of_nothing_but_warmup(scripts: Scripts, cluster: Cluster) -> None:
    """Where the warm-up takes every message, nothing is measured: n/a, exit code 5."""
    topic, _, _ = _known(cluster, 200)
    done, summary = consume(scripts, topic, 200, "--warmup", "10K")
    assert done.returncode == 5
    assert (summary["measured"], summary["not_measured"]["warmup"]) == (0, 200)
    assert re.search(r"delta \(ms\) +n/a\n", done.stdout)


def test_rows_equal_an_independent_computation(scripts: Scripts, cluster: Cluster) -> None:
    """Each row per second and per partition has the exact count, mean and max, and percentiles within 1 %."""
    topic, _, deltas = _known(cluster, 3_000, partitions=3)
    done, summary = consume(scripts, topic, 3_000)
    assert done.returncode == 0, done.stderr
    seconds: dict[int, list[int]] = defaultdict(list)
    partitions: dict[int, list[int]] = defaultdict(list)
    for message in cluster.read(topic, 3_000, partitions=3):
        seconds[message.timestamp()[1] // 1000].append(delta_of(message))
        partitions[message.partition() or 0].append(delta_of(message))
    assert [(row["start_ms"], row["width_s"]) for row in summary["series"]] == [
        (second * 1000, 1) for second in sorted(seconds)
    ]
    assert [row["partition"] for row in summary["partitions"]] == [0, 1, 2]
    expected = [seconds[number] for number in sorted(seconds)] + [partitions[number] for number in range(3)]
    for row, values in zip([*summary["series"], *summary["partitions"]], expected, strict=True):
        assert row["count"] == len(values)
        assert row["mean_ms"] == statistics.fmean(values)
        assert row["max_ms"] == max(values)
        assert row["p50_ms"] == pytest.approx(nearest_rank(values, 50), rel=0.01)
        assert row["p99_ms"] == pytest.approx(nearest_rank(values, 99), rel=0.01)
    assert_distribution(summary["delta_ms"], deltas)


# Limits


def _flags(limits: Sequence[str]) -> list[str]:
    return [flag for limit in limits for flag in ("--fail-if", limit)]


def _digits(value: float) -> str:
    return str(value).removesuffix(".0")


def _assert_limits(done: subprocess.CompletedProcess[str], result: dict[str, Any], expected: Sequence[str]) -> None:
    """Every limit's sentence is printed and in the result, in the order given."""
    assert done.returncode == result["exit_code"] == 6
    assert result["limits"] == list(expected)
    assert done.stdout.endswith("\nLimits\n" + "".join(f"  {sentence}\n" for sentence in expected))


def test_limits_of_the_consumer(scripts: Scripts, cluster: Cluster) -> None:
    """Each form of a limit is judged with its value; one that cannot be judged counts as exceeded."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    values = [b'{"timestamp_start":%d}' % (STAMP_MS - delta) for delta in range(1, 101)] + [b"{}"] * 3
    cluster.produce(topic, values, timestamp=STAMP_MS)
    judged = {
        "p99 > 98ms": "p99 is 99 ms: exceeded",
        "p99 > 0.099s": "p99 is 99 ms: holds",
        "delta p50 >= 50": "delta p50 is 50 ms: exceeded",
        "mean > 1s": "mean is 50.5 ms: holds",
        "mean < 50501us": "mean is 50.5 ms: exceeded",
        "max <= 99": "max is 100 ms: holds",
        "min == 1ms": "min is 1 ms: exceeded",
        "min != 1ms": "min is 1 ms: holds",
        "p90 > 1.5*p50": "p90 is 90 ms, p50 is 50 ms: exceeded",
        "p99.9 > 1m": "p99.9 is 100 ms: holds",
        "no_timestamp_start > 2": "no_timestamp_start is 3: exceeded",
        "not_measured > 3": "not_measured is 3: holds",
        "measured < 100": "measured is 100: holds",
    }
    unknown = {
        "lost > 0": "lost is n/a (not measured in this run)",
        "visible p99 > 1s": "visible p99 is n/a (no value)",
        "rate < 0.99*target": "rate is n/a (not measured in this run), target is n/a (not measured in this run)",
    }
    expected = [f"{limit}: {sentence}" for limit, sentence in judged.items()]
    expected += [f"{limit}: {sentence}, which cannot be judged: exceeded" for limit, sentence in unknown.items()]
    done, _ = consume(scripts, topic, len(values), *_flags([*judged, *unknown]))
    _assert_limits(done, result_file(scripts, "c.json"), expected)
    kept, _ = consume(scripts, topic, len(values), FAIL_IF="p99 > 1s; lost >= 0 ;max > 100ms")
    assert kept.returncode == 6
    assert result_file(scripts, "c.json")["limits"] == [
        "p99 > 1s: p99 is 99 ms: holds",
        "lost >= 0: lost is n/a (not measured in this run), which cannot be judged: exceeded",
        "max > 100ms: max is 100 ms: holds",
    ]
    good, _ = consume(scripts, topic, len(values), FAIL_IF="p99 > 1s; negative > 0")
    assert good.returncode == 0


def test_limits_of_the_producer(scripts: Scripts, cluster: Cluster) -> None:
    """The producer's rates, counts and stages are judged; without --rate they cannot be, which counts as exceeded."""
    topic = cluster.create_topic()
    flags = ("--topic", topic, "--result", "p.json")
    limits = ["rate < 0.99*target", "rate < 2*target", "failed > 0", "unknown != 0", "acknowledged == 300"]
    limits += ["ack p50 > 0us", "lateness max < 10m", "target != 300/s"]
    done = scripts.run("ProducerPerformance.py", *flags, "--size", "300", "--rate", "300", *_flags(limits))
    result = result_file(scripts, "p.json")
    summary = result["summary"]
    rate, ack, late = summary["send_rate_per_s"], summary["ack_ms"]["p50"], summary["lateness_ms"]["max"]
    both = f"rate is {_digits(round(rate, 3))}/s, target is 300/s"
    slow = "exceeded" if rate < 0.99 * 300 else "holds"
    _assert_limits(
        done,
        result,
        [
            f"rate < 0.99*target: {both}: {slow}",
            f"rate < 2*target: {both}: exceeded",
            "failed > 0: failed is 0: holds",
            "unknown != 0: unknown is 0: holds",
            "acknowledged == 300: acknowledged is 300: exceeded",
            f"ack p50 > 0us: ack p50 is {_digits(round(ack, 3))} ms: exceeded",
            f"lateness max < 10m: lateness max is {_digits(round(late, 3))} ms: exceeded",
            "target != 300/s: target is 300/s: holds",
        ],
    )
    fast = scripts.run("ProducerPerformance.py", *flags, FAIL_IF="rate < 0.99*target;ack p99 > 60m")
    assert fast.returncode == 6
    assert "target is n/a (no value), which cannot be judged: exceeded" in fast.stdout
    assert "ack p99 is n/a (no value), which cannot be judged: exceeded" in fast.stdout
    good = scripts.run("ProducerPerformance.py", *flags, FAIL_IF="failed > 0; unknown > 0")
    assert good.returncode == 0


@pytest.mark.parametrize("limit", ["p99", "p99 > ten", "p100 > 1", "p99 > 1s; __import__('os')", "lost > 1ms"])
@pytest.mark.parametrize("script", ["PerfConsumer.py", "ProducerPerformance.py"])
def test_limits_that_are_none(scripts: Scripts, script: str, limit: str) -> None:
    """What is no limit is refused with what is allowed before anything is measured; exit code 2."""
    done = scripts.run(script, FAIL_IF=limit)
    assert done.returncode == 2
    assert "FAIL_IF: " in done.stderr


# One run, several processes


class GroupRun(NamedTuple):
    """A run of two producers at once, an operator with known faults, and two consumers of one group at once."""

    scripts: Scripts
    cluster: Cluster
    output: str
    written: int
    faults: Faults


EACH, PARTITIONS = 2_000, 4
PRODUCED, CONSUMED = ("p1.json", "p2.json"), ("c1.json", "c2.json")


@pytest.fixture(scope="module")
def group_run(brokers: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GroupRun]:
    """The results of such a run."""
    scripts = Scripts(brokers, tmp_path_factory.mktemp("group"))
    try:
        yield _group_run(scripts, cluster)
    finally:
        scripts.close()


def _group_run(scripts: Scripts, cluster: Cluster) -> GroupRun:
    source, output = (cluster.create_topic(partitions=PARTITIONS) for _ in range(2))
    flags = ("--topic", source, "--size", str(EACH), "--rate", "4000", "--trace", "field:mark")
    producers = [scripts.start("ProducerPerformance.py", *flags, "--result", name) for name in PRODUCED]
    # each of the two gets two partitions, and all partitions get as many messages
    messages_each = str(EACH + _balance())
    reading = ("--topic", output, "--group", output, "--count", messages_each, "--trace", "field:mark")
    consumers = [scripts.start("PerfConsumer.py", *reading, "--result", name) for name in CONSUMED]
    for process in producers:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, stderr
    for process in consumers:
        assert process.stderr is not None
        assert any(re.search(r"holding partitions \[\d, \d\]", line) for line in process.stderr)
    read = cluster.read(source, 2 * EACH, partitions=PARTITIONS)
    messages, faults = misbehave(read, _mark_of("field:mark"))
    write(cluster.brokers, output, [result_of(m, partition=m.partition() or 0) for m in messages])
    for process in consumers:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, stderr
    return GroupRun(scripts, cluster, output, len(messages), faults)


def _balance() -> int:
    """How many messages more than it read `misbehave` writes to two of the partitions."""
    per_origin = len(range(0, EACH // PARTITIONS - 12, 40))
    return 2 * 2 * per_origin  # two origins in each of two partitions; one dropped, two doubled


def test_the_ledger_of_several_processes(group_run: GroupRun) -> None:
    """Over two producers and two consumers the known faults are counted exactly; one consumer alone knows less."""
    scripts, faults = group_run.scripts, group_run.faults
    report = scripts.run("PerfReport.py", *PRODUCED, *CONSUMED, "--fail-if", "lost > 0")
    assert report.returncode == 6
    assert ledger_of(report.stdout) == expected_ledger(2 * EACH, faults)
    assert f"lost > 0: lost is {faults.dropped}: exceeded" in report.stdout
    for name in CONSUMED:
        ledger = result_file(scripts, name)["summary"]["ledger"]
        assert ledger["lost"] is None, "a consumer alone cannot know what was sent"
        assert ledger["unique"] < 2 * EACH - faults.dropped
    other_order = scripts.run("PerfReport.py", *reversed([*PRODUCED, *CONSUMED]), "--fail-if", "lost > 0")
    assert ledger_of(other_order.stdout) == ledger_of(report.stdout)


def _figures(report: str, title: str) -> dict[str, str]:
    """The figures of a printed summary: name → number; those of a distribution as `delta p99`."""
    found: dict[str, str] = {}
    stage = ""
    for line in report.partition(title)[2].partition("\n\n")[0].splitlines()[1:]:
        if match := re.fullmatch(r"  (\S.*?) \(ms\)(.*)", line):
            stage = f"{match[1]} "
        elif match := re.fullmatch(r"    ([a-z]\S*(?: \S+)*?) +([\d.]+|n/a)", line):
            found[stage + match[1]] = match[2]
        elif match := re.fullmatch(r"  (\S.*?) {2,}(\S.*)", line):
            stage = ""
            found[match[1]] = match[2]
    return found


def test_merged_results_equal_the_whole_topic(group_run: GroupRun) -> None:
    """Merged counters, mean and percentiles of a group's consumers are those of an own read of the whole topic."""
    scripts, cluster, output, written, _ = group_run
    report = scripts.run("PerfReport.py", *PRODUCED, *CONSUMED)
    assert report.returncode == 0, report.stderr
    messages = cluster.read(output, written, partitions=PARTITIONS)
    deltas = [delta_of(message) for message in messages]
    consumers = _figures(report.stdout, "Summary of 2 consumers")
    assert int(consumers["messages read"]) == int(consumers["measured"]) == written
    assert int(consumers["bytes"]) == sum(map(len, messages))
    assert consumers["delta mean"] == f"{statistics.fmean(deltas):.3f}".rstrip("0").rstrip(".")
    assert (float(consumers["delta min"]), float(consumers["delta max"])) == (min(deltas), max(deltas))
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99.9", 99.9)):
        assert float(consumers[f"delta {name}"]) == pytest.approx(nearest_rank(deltas, percent), rel=0.001)
    rows = re.findall(r"^    +(\d) +(\d+) +([\d.]+) ", report.stdout.partition("  partitions (ms)\n")[2], re.MULTILINE)
    by_partition = [[delta_of(m) for m in messages if m.partition() == number] for number in range(PARTITIONS)]
    assert [(int(number), int(count), float(mean)) for number, count, mean in rows[:PARTITIONS]] == [
        (number, len(values), round(statistics.fmean(values), 3)) for number, values in enumerate(by_partition)
    ]
    producers = _figures(report.stdout, "Summary of 2 producers")
    assert int(producers["messages"]) == int(producers["acknowledged"]) == int(producers["lateness count"]) == 2 * EACH
    assert float(producers["target rate"].split()[0]) == 8_000


@pytest.mark.parametrize("code", [1, 3, 6])
@pytest.mark.parametrize("name", [PRODUCED[0], CONSUMED[0]])
def test_a_report_ends_as_its_processes_did(group_run: GroupRun, tmp_path: Path, name: str, code: int) -> None:
    """A process that ended badly is named, and its exit code is the report's, whatever the merged figures say."""
    result = {**result_file(group_run.scripts, name), "exit_code": code}
    (tmp_path / "bad.json").write_text(json.dumps(result))
    others = [other for other in (*PRODUCED, *CONSUMED) if other != name]
    report = group_run.scripts.run("PerfReport.py", *others, str(tmp_path / "bad.json"))
    assert report.returncode == code
    assert f"ended with exit code {code}" in report.stderr


def test_a_run_is_refused_where_it_does_not_belong(group_run: GroupRun, tmp_path: Path) -> None:
    """What is no result, and none at all, is told with its name; never a traceback, never exit code 0."""
    (tmp_path / "other.json").write_text('{"kind":"consumer"}')
    done = group_run.scripts.run("PerfReport.py", *CONSUMED, str(tmp_path / "other.json"))
    assert done.returncode == 2
    assert "other.json is no result file" in done.stderr
    missing = group_run.scripts.run("PerfReport.py", str(tmp_path / "missing.json"))
    assert missing.returncode == 2
    assert "missing.json: No such file" in missing.stderr
