"""The soak: a steady rate through the real pipeline while the broker is killed and started again and again.

`make soak`, or `python -m benchmarks.soak`. Environment: DURATION (10m), EVERY (60s: between two kills), RATE (1000).
Only a run with these defaults is written to docs/soak.md.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import FrameType

import confluent_kafka
import msgspec
import psutil
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from demo.broker import BrokerError, EmbeddedBroker
from kafka.errors import Fault
from perf import result
from perf.result import ResultError
from perf.settings import SettingsError, checked, rate, seconds
from perf.stats import ConsumerSummary, ProducerSummary

from .__main__ import machine
from .laboratory import ROOT, BenchmarkError, Laboratory, megabytes_of, sampled
from .report import Bar, Section, Table, save

DOCUMENT = ROOT / "docs" / "soak.md"
DEFAULTS = {"DURATION": "10m", "EVERY": "60s", "RATE": "1000"}
PARTITIONS = 3
MOST_GROWTH = 0.05
# The first time down is the longest: buffers grow with what waits, and the memory that they needed is not given back to
# the system. From then on memory grows only if something leaks.
FIRST_DOWN_S = 25.0
_IDLE_TIMEOUT_S = 60  # more than any time without a broker
_READY_TIMEOUT_S = 30.0
_POLL_S = 0.2
_COUNTER = re.compile(r"^ +([a-z ]+?) +([0-9]+)$", re.MULTILINE)
_SCRIPTS = ("producer", "consumer")


class Marked(msgspec.Struct):
    """What is read of a message of either topic."""

    mark: str
    timestamp_start: int | None = None


@dataclass(frozen=True)
class Truth:
    """What a topic holds, by a client that has nothing to do with the scripts."""

    marks: Counter[str]
    deltas_ms: Sequence[int]

    @property
    def messages(self) -> int:
        """All that are in the topic."""
        return self.marks.total()

    @property
    def doubled(self) -> int:
        """Messages whose mark an earlier one has."""
        return self.marks.total() - len(self.marks)


@dataclass(frozen=True)
class Kill:
    """A kill of the broker: when, and when it served again, in seconds since the producer's start."""

    killed_s: float
    serving_s: float


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    duration_s: float
    every_s: float
    rate_per_s: float

    @property
    def messages(self) -> int:
        """All that are due."""
        return round(self.duration_s * self.rate_per_s)


@dataclass(frozen=True)
class Memory:
    """The resident MB of a process: (seconds since the producer's start, MB), once a second."""

    samples: list[tuple[float, float]]

    def between(self, start_s: float, end_s: float) -> float:
        """The median of the time; NaN where there is no sample."""
        found = [megabytes for at_s, megabytes in self.samples if start_s <= at_s < end_s]
        return median(found) if found else float("nan")


@dataclass(frozen=True)
class Seen:
    """What happened: the kills, the memory and the exit code of each process."""

    kills: Sequence[Kill]
    memory: Mapping[str, Memory]
    exit_codes: Mapping[str, int]


def main() -> int:
    """Returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores SIGINT otherwise
        signal.signal(number, _as_interrupt)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    given = {name: os.environ.get(name) or default for name, default in DEFAULTS.items()}
    try:
        duration_s, every_s = (checked(name, given[name], seconds) for name in ("DURATION", "EVERY"))
        plan = Plan(duration_s, every_s, checked("RATE", given["RATE"], rate))
        with tempfile.TemporaryDirectory(prefix="kafka-soak-") as folder, EmbeddedBroker() as broker:
            section = soak(Laboratory(broker.bootstrap_servers, Path(folder)), broker, plan)
    except KeyboardInterrupt:
        return 130
    except (BenchmarkError, BrokerError, Fault, ResultError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = f"{machine()}\n\n{section.markdown()}"
    print(f"\n{text}")
    if given == DEFAULTS:
        save(DOCUMENT, text, target="soak")
    return 0 if all(bar.met for bar in section.bars) else 1


def soak(lab: Laboratory, broker: EmbeddedBroker, plan: Plan) -> Section:
    """Run the pipeline, kill the broker meanwhile, and compare what the scripts say with what is in the topics."""
    with lab.topic(PARTITIONS) as source, lab.topic(PARTITIONS) as output:
        seen = _run(lab, broker, plan, source, output)
        bars = [
            _exit_bar(lab, seen.exit_codes),
            *_bars(lab, _truth(lab.brokers, source), _truth(lab.brokers, output), due=plan.messages),
            *(_memory_bar(name, seen.memory[name], plan) for name in _SCRIPTS),
        ]
    text = (
        f"{plan.rate_per_s:g} messages a second for {plan.duration_s:g} s; the broker killed {len(seen.kills)} times, "
        f"every {plan.every_s:g} s, and started again at once, but the first time after a while; {PARTITIONS} "
        "partitions in each topic. Times are seconds since the producer's start; memory is the median of that time."
    )
    return Section("Result", text, _figures(seen, plan), bars)


def _run(lab: Laboratory, broker: EmbeddedBroker, plan: Plan, source: str, output: str) -> Seen:
    with contextlib.ExitStack() as stack:
        operator = _start(lab, stack, "operator", "-m", "demo.streams_operator", "--input", source, "--output", output)
        _wait_for(lab, operator, "operator", "stdout", "operator ready")
        consumer = _start(
            lab, stack, "consumer", "PerfConsumer.py", "--topic", output, "--trace", "field:mark",
            "--idle-timeout", str(_IDLE_TIMEOUT_S), "--result", "consumer.json",
        )  # fmt: skip
        _wait_for(lab, consumer, "consumer", "stderr", "reading topic")
        producer = _start(
            lab, stack, "producer", "ProducerPerformance.py", "--topic", source, "--trace", "field:mark",
            "--rate", f"{plan.rate_per_s:g}", "--duration", f"{plan.duration_s:g}", "--result", "producer.json",
        )  # fmt: skip
        started_s = time.monotonic()
        with _watched({"producer": producer, "consumer": consumer}, started_s) as memory:
            kills = _kill_again_and_again(broker, producer, every_s=plan.every_s, started_s=started_s)
            codes = {"producer": producer.wait(), "consumer": consumer.wait()}
        report = _start(lab, stack, "report", "PerfReport.py", "producer.json", "consumer.json")
        return Seen(kills, memory, {**codes, "report": report.wait()})


def _start(lab: Laboratory, stack: contextlib.ExitStack, name: str, *command: str) -> subprocess.Popen[bytes]:
    program = [str(ROOT / part) if part.endswith(".py") else part for part in command]
    process = lab.start(name, [sys.executable, *program])
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _wait_for(lab: Laboratory, process: subprocess.Popen[bytes], name: str, stream: str, text: str) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while text not in lab.output(name, stream):
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise BenchmarkError(f"the {name} did not get ready:\n{lab.output(name, 'stderr')[-2000:]}")
        time.sleep(_POLL_S)


def _kill_again_and_again(
    broker: EmbeddedBroker, producer: subprocess.Popen[bytes], *, every_s: float, started_s: float
) -> list[Kill]:
    """Until the producer has ended."""
    kills: list[Kill] = []
    while producer.poll() is None:
        if time.monotonic() - started_s < every_s * (len(kills) + 1):
            time.sleep(_POLL_S)
            continue
        killed_s = time.monotonic() - started_s
        broker.kill()
        if not kills:
            time.sleep(min(FIRST_DOWN_S, every_s / 2))
        broker.start()
        kills.append(Kill(killed_s, time.monotonic() - started_s))
        print(f"{killed_s:7.1f} s: the broker was killed; {kills[-1].serving_s:.1f} s: it serves again", flush=True)
    return kills


@contextlib.contextmanager
def _watched(processes: Mapping[str, subprocess.Popen[bytes]], started_s: float) -> Iterator[Mapping[str, Memory]]:
    """The memory of the processes, which fills meanwhile."""
    memory = {name: Memory([]) for name in processes}
    watched = {name: psutil.Process(process.pid) for name, process in processes.items()}

    def sample() -> None:
        for name, process in watched.items():
            if megabytes := megabytes_of(process):
                memory[name].samples.append((time.monotonic() - started_s, megabytes))

    with sampled(1, sample):
        yield memory


def _truth(brokers: str, topic: str) -> Truth:
    client = confluent_kafka.Consumer(
        {"bootstrap.servers": brokers, "group.id": "truth", "enable.partition.eof": True, "enable.auto.commit": False}
    )
    client.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    decode = msgspec.json.Decoder(Marked).decode
    marks: Counter[str] = Counter()
    deltas_ms, ended = [], 0
    while ended < PARTITIONS:
        for message in client.consume(5_000, 1):
            if message.error() is not None:
                ended += 1
                continue
            value = decode(message.value())  # type: ignore[arg-type]
            marks[value.mark] += 1
            if value.timestamp_start is not None:
                deltas_ms.append(message.timestamp()[1] - value.timestamp_start)
    client.close()
    return Truth(marks, deltas_ms)


def _exit_bar(lab: Laboratory, codes: Mapping[str, int]) -> Bar:
    for name, code in codes.items():
        if code:
            print(f"the {name} ended with {code}:\n{lab.output(name, 'stderr')[-2000:]}", file=sys.stderr)
    measured = ", ".join(f"{name} {code}" for name, code in codes.items())
    return Bar("exit codes 0", measured, not any(codes.values()))


def _bars(lab: Laboratory, source: Truth, output: Truth, *, due: int) -> list[Bar]:
    """What the scripts say, against the topics."""
    sent, found = result.read(lab.folder / "producer.json").summary, result.read(lab.folder / "consumer.json").summary
    assert isinstance(sent, ProducerSummary) and isinstance(found, ConsumerSummary)
    ledger = {name: int(count) for name, count in _COUNTER.findall(lab.output("report").partition("Ledger:")[2])}
    delta, deltas_ms = found.delta_ms, output.deltas_ms or [0]
    shown = (round(delta.mean or 0, 6), int(delta.min or 0), int(delta.max or 0))
    recomputed = (round(sum(deltas_ms) / len(deltas_ms), 6), min(deltas_ms), max(deltas_ms))
    return [
        _equal("acknowledged = sent = due", due=due, sent=sent.messages, acknowledged=sent.acknowledged),
        _equal(
            "each is in the input topic once", sent=sent.messages, messages=source.messages, different=len(source.marks)
        ),
        _equal("each has a result in the output topic", sent=sent.messages, different=len(output.marks & source.marks)),
        _equal(
            "each message of the output topic is measured once",
            messages=output.messages, read=found.messages_read, measured=found.measured,
        ),
        Bar("mean, min and max of the deltas, computed anew", f"{shown} ms, {recomputed} ms", shown == recomputed),
        _equal("PerfReport.py: all found", sent=sent.messages, unique=ledger["unique"]),
        Bar(
            "PerfReport.py: nothing lost or out of order",
            f"lost {ledger['lost']}, out of order {ledger['out of order']}",
            ledger["lost"] == ledger["out of order"] == 0,
        ),
        _equal("PerfReport.py: what the operator doubled", duplicated=ledger["duplicated"], in_topic=output.doubled),
    ]  # fmt: skip


def _equal(text: str, **counts: int) -> Bar:
    measured = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
    return Bar(text, measured, len(set(counts.values())) == 1)


def _memory_bar(name: str, memory: Memory, plan: Plan) -> Bar:
    """From what it needs after the first and longest time without a broker, to the end."""
    every_s, end_s = plan.every_s, plan.duration_s
    first, last = memory.between(2 * every_s, 3 * every_s), memory.between(end_s - every_s, end_s)
    growth = last / first - 1
    text = f"{name}: memory grows by at most {MOST_GROWTH:.0%} once its buffers have been in use"
    return Bar(text, f"{first:.1f} MB to {last:.1f} MB: {growth:+.1%}", growth <= MOST_GROWTH)


def _figures(seen: Seen, plan: Plan) -> Table:
    """A row for each time between two kills."""
    rows = [("from", "to", "broker killed at", "serves again at", *(f"{name}, MB" for name in _SCRIPTS))]
    for number in range(math.ceil(plan.duration_s / plan.every_s)):
        start_s, end_s = number * plan.every_s, min((number + 1) * plan.every_s, plan.duration_s)
        kill = seen.kills[number - 1] if 0 < number <= len(seen.kills) else None
        times = (f"{kill.killed_s:.1f}", f"{kill.serving_s:.1f}") if kill else ("", "")
        used = (f"{seen.memory[name].between(start_s, end_s):.1f}" for name in _SCRIPTS)
        rows.append((f"{start_s:g}", f"{end_s:g}", *times, *used))
    return rows


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
