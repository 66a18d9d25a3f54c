"""What is measured. Each case runs its processes and returns a section of the report.

Whole processes count, start-up included. Programs that are compared run in turn (A B C A B C …), because the speed of a
shared machine drifts; each is represented by the median of its rounds.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec

from demo.broker import java_command
from perf import result
from perf.result import ConsumerResult, ProducerResult

from .laboratory import ROOT, Laboratory, Run, require
from .report import Bar, Section, all_rounds, ratio_bar, speed_table

ROUNDS, RATE_ROUNDS = 5, 3
MESSAGES, MANY_MESSAGES = 2_000_000, 10_000_000
FAST, SLOW, RATE_SECONDS = 50_000, 1_000, 20
MOST_MEMORY_MB, MOST_GROWTH = 250, 0.05
KCAT, JAVA_CONSUMER, JAVA_PRODUCER = "kcat", "Kafka's ConsumerPerformance", "Kafka's ProducerPerformance"
HAS_KCAT = shutil.which(KCAT) is not None
_NO_KCAT = "" if HAS_KCAT else " kcat is not installed (Debian's package kcat): its figures are n/a."
_SAFE = ("acks=all", "enable.idempotence=true", "linger.ms=5")  # what our script does; linger is everybody's default
_T = TypeVar("_T")


def consumer(lab: Laboratory) -> Section:
    """PerfConsumer.py, which decodes and measures, against readers that only read."""
    with lab.topic() as topic:
        _send(lab, _data_file(lab, size_bytes=300), MESSAGES, topic)
        readers = {"PerfConsumer.py": _read, JAVA_CONSUMER: _read_with_java, KCAT: _read_with_kcat}
        runs = _in_turn({name: partial(reader, lab, topic, MESSAGES) for name, reader in readers.items()})
    return Section(
        "Consumer",
        f"{MESSAGES:,} JSON messages of 300 bytes (the default data set's, cut) in one partition. PerfConsumer.py "
        f"decodes timestamp_start and computes all windows and percentiles; the others only read.{_NO_KCAT}",
        speed_table(MESSAGES, runs),
        [ratio_bar(1.5, JAVA_CONSUMER, runs), ratio_bar(0.5, KCAT, runs)],
    )


def producer(lab: Laboratory) -> Section:
    """ProducerPerformance.py at full speed against producers with the same guarantees."""
    data, lines = _data_file(lab, size_bytes=100), lab.folder / "lines.txt"
    lap = data.read_bytes()
    with lines.open("wb") as file:
        file.writelines(itertools.repeat(lap, MESSAGES // lap.count(b"\n")))
    senders = {
        "ProducerPerformance.py": partial(_send, lab, data, MESSAGES),
        JAVA_PRODUCER: partial(_send_with_java, lab),
        KCAT: partial(_send_with_kcat, lab, lines),
    }
    runs = _in_turn({name: partial(_into_new_topic, lab, sender) for name, sender in senders.items()})
    return Section(
        "Producer at full speed",
        f"{MESSAGES:,} messages of 100 bytes with {', '.join(_SAFE)}, a new topic of one partition each time, which "
        f"must hold them all afterwards.{_NO_KCAT}",
        speed_table(MESSAGES, runs),
        [
            ratio_bar(3, JAVA_PRODUCER, runs),
            ratio_bar(0.8, KCAT, runs),
            _peak_bar("peak memory", *runs["ProducerPerformance.py"]),
        ],
    )


def rate(lab: Laboratory) -> Section:
    """ProducerPerformance.py on a schedule: does it keep it, and at what cost?"""
    targets = {f"--rate {target}": partial(_send_at_rate, lab, target) for target in (FAST, SLOW)}
    columns = [tuple(zip(*runs, strict=True)) for runs in _in_turn(targets, RATE_ROUNDS, warm_up=False).values()]
    (deviation, late_ms, _), (_, _, cpu) = [[median(rounds) for rounds in of_one] for of_one in columns]
    return Section(
        "Producer on a schedule",
        f"ProducerPerformance.py --duration {RATE_SECONDS}s with the default data set. Medians (rounds).",
        [
            ("", "deviation of the rate, %", "lateness p99, ms", "processor, % of a core"),
            *[
                (name, all_rounds(deviations, 4), all_rounds(lateness_ms, 3), all_rounds(shares, 1))
                for name, (deviations, lateness_ms, shares) in zip(targets, columns, strict=True)
            ],
        ],
        [
            Bar(f"--rate {FAST}: within 0.05 % of it", f"{deviation:.4f} %", deviation <= 0.05),
            Bar(f"--rate {FAST}: lateness p99 below 1 ms", f"{late_ms:.3f} ms", late_ms < 1),
            Bar(f"--rate {SLOW}: below 15 % of a core", f"{cpu:.1f} %", cpu < 15),
        ],
    )


def memory(lab: Laboratory) -> Section:
    """The memory of both scripts over many messages."""
    with lab.topic() as topic:
        sent = _send(lab, _data_file(lab, size_bytes=60), MANY_MESSAGES, topic)
        read = _read(lab, topic, MANY_MESSAGES)
    marks = range(MESSAGES, MANY_MESSAGES + 1, MESSAGES)
    growth = read.memory_after(MANY_MESSAGES) / read.memory_after(MESSAGES) - 1
    return Section(
        "Memory",
        f"{MANY_MESSAGES:,} JSON messages of 60 bytes through both scripts.",
        [
            ("messages read", *[f"{mark:,}" for mark in marks]),
            ("consumer's resident memory, MB", *[f"{read.memory_after(mark):.1f}" for mark in marks]),
        ],
        [
            _peak_bar("producer: peak memory", sent),
            _peak_bar("consumer: peak memory", read),
            Bar(f"consumer: growth below {MOST_GROWTH:.0%}", f"{growth:+.1%}", growth < MOST_GROWTH),
        ],
    )


def _in_turn(
    contenders: Mapping[str, Callable[[], _T]], number: int = ROUNDS, *, warm_up: bool = True
) -> dict[str, list[_T]]:
    """Each contender's runs. The first round, which warms the broker up, is not counted."""
    runs: dict[str, list[_T]] = {name: [] for name in contenders}
    for _ in range(number + warm_up):
        for name, run in contenders.items():
            if name != KCAT or HAS_KCAT:
                runs[name].append(run())
    return {name: of_one[warm_up:] for name, of_one in runs.items()}


def _peak_bar(text: str, *runs: Run) -> Bar:
    peak_mb = max(run.peak_mb for run in runs)
    return Bar(f"{text} below {MOST_MEMORY_MB} MB", f"{peak_mb:.0f} MB", peak_mb < MOST_MEMORY_MB)


def _data_file(lab: Laboratory, *, size_bytes: int) -> Path:
    """The events of the default data set, cut or padded to that size.

    Their start stamps lie in the last 100 ms, so that deltas spread by that much, and grow while the laps are sent: as
    with an operator that falls behind.
    """
    path, now_ms = lab.folder / "data.ndjson", int(time.time() * 1000)
    events = json.loads((ROOT / "data" / "data.json").read_text(encoding="utf-8"))
    lines = [_event(event, now_ms - number % 100, size_bytes) for number, event in enumerate(events)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def _event(attributes: Mapping[str, object], start_ms: int, size_bytes: int) -> bytes:
    left = list(attributes)
    while True:
        event = {**{name: attributes[name] for name in left}, "padding": "", "timestamp_start": start_ms}
        missing_bytes = size_bytes - len(msgspec.json.encode(event))
        if missing_bytes >= 0:
            return msgspec.json.encode({**event, "padding": "x" * missing_bytes})
        left.pop()


def _script(name: str, topic: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / name), "--topic", topic, *arguments]


def _read(lab: Laboratory, topic: str, messages: int) -> Run:
    path = lab.folder / "consumer.json"
    run = lab.run(_script("PerfConsumer.py", topic, "--count", str(messages), "--result", str(path)))
    found = result.read(path)
    assert isinstance(found, ConsumerResult)
    require(found.summary.measured, messages)
    return run


def _read_with_java(lab: Laboratory, topic: str, messages: int) -> Run:
    arguments = ("--bootstrap-server", lab.brokers, "--topic", topic, "--num-records", str(messages))
    run = lab.run(java_command("org.apache.kafka.tools.ConsumerPerformance", *arguments))
    require(int(run.output.splitlines()[-1].split(",")[4]), messages)  # data.consumed.in.nMsg
    return run


def _read_with_kcat(lab: Laboratory, topic: str, messages: int) -> Run:
    arguments = ("-C", "-t", topic, "-o", "beginning", "-e", "-q", "-c", str(messages), "-f", "\\n")
    run = lab.run([KCAT, "-b", lab.brokers, *arguments])
    require(run.output.count("\n"), messages)
    return run


def _send(lab: Laboratory, data: Path, messages: int, topic: str) -> Run:
    run = lab.run(_script("ProducerPerformance.py", topic, "--file", str(data), "--size", str(messages)))
    lab.require_messages(topic, messages)
    return run


def _send_with_java(lab: Laboratory, topic: str) -> Run:
    properties = ("--command-property", f"bootstrap.servers={lab.brokers}", *_SAFE)
    amount = ("--num-records", str(MESSAGES), "--record-size", "100", "--throughput", "-1")
    run = lab.run(java_command("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, *amount, *properties))
    lab.require_messages(topic, MESSAGES)
    return run


def _send_with_kcat(lab: Laboratory, lines: Path, topic: str) -> Run:
    properties = [word for name in _SAFE for word in ("-X", name)]
    run = lab.run([KCAT, "-b", lab.brokers, "-P", "-t", topic, "-l", *properties, str(lines)])
    lab.require_messages(topic, MESSAGES)
    return run


def _into_new_topic(lab: Laboratory, send: Callable[[str], Run]) -> Run:
    with lab.topic() as topic:
        return send(topic)


def _send_at_rate(lab: Laboratory, rate_per_s: int) -> tuple[float, float, float]:
    """Deviation from the rate in percent, lateness p99 in ms, processor time in percent of a core."""
    path, duration = lab.folder / "producer.json", f"{RATE_SECONDS}s"
    with lab.topic() as topic:
        schedule = ("--rate", str(rate_per_s), "--duration", duration, "--file", str(ROOT / "data" / "data.json"))
        run = lab.run(_script("ProducerPerformance.py", topic, *schedule, "--result", str(path)))
    found = result.read(path)
    assert isinstance(found, ProducerResult)
    sent = found.summary
    require(sent.acknowledged, sent.messages)
    assert sent.send_rate_per_s is not None and sent.lateness_ms.p99 is not None
    deviation = abs(sent.send_rate_per_s / rate_per_s - 1)
    return deviation * 100, sent.lateness_ms.p99, run.cpu_s / run.elapsed_s * 100
