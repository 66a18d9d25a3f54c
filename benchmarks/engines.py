"""The figures of docs/operators.md: `make bench-engines` measures all examples of examples/operators in one run.

Each gets a warm-up of 5 s and then 10 s at 1,000 messages a second, at least once, and exactly once where the engine
can. At least once PerfRun.py --find-capacity follows, and some messages to a CreateTime topic, for the verdict there.
The table in docs/operators.md is rewritten. With ENGINES="spark flink-sql" only these are measured, and it is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from demo.broker import BrokerError, EmbeddedBroker
from demo.operators import ENGINES, OperatorError, prepare, reading_flags, start_command
from kafka.errors import Fault

from .__main__ import machine
from .laboratory import ROOT, BenchmarkError, Laboratory, require
from .report import save

DOCUMENT = ROOT / "docs" / "operators.md"
AT_LEAST_ONCE, EXACTLY_ONCE = "at least once", "exactly once"
RATE_PER_S, WARM_UP_S, MEASURED_S, PARTITIONS = 1_000, 5, 10, 3
SEARCH = ("--rate", "1000", "--step-duration", "10s", "--warmup", "1s", "--resolution", "20%", "--fail-if", "p99 > 5s")
NEEDED_GB = 12  # a search writes millions of messages, twice
_KEYS = ("--keyname", "containerId")
_READY_TIMEOUT_S, _STOP_TIMEOUT_S, _SEARCH_TIMEOUT_S = 120.0, 60.0, 360.0
_NO_MEASUREMENT, _SIGTERM = 5, 143  # exit codes


class Row(NamedTuple):
    """One line of the table: the consumer's summary, the time from start to ready, the memory at the end of that run.

    The capacity in messages a second, and the verdict with a CreateTime output topic; both only at least once.
    """

    engine: str
    mode: str
    summary: dict[str, Any]
    start_s: float
    memory_mib: float
    capacity: str = ""
    create_time: str = ""

    def __str__(self) -> str:
        delta, visible = (self.summary[f"{name}_ms"] for name in ("delta", "visible"))
        times = [f"{times['p50']:g} / {times['p99']:g}" for times in (delta, visible)]
        ends = [self.capacity, f"{self.start_s:.1f}", f"{self.memory_mib:.0f}", self.create_time]
        return f"| {' | '.join([self.engine, self.mode, *times, *ends])} |"


class Operator(NamedTuple):
    """An example that runs between two topics; `start_s` is how long it took to get ready."""

    topics: tuple[str, str]
    start_s: float
    process: psutil.Process


class Bench:
    """The examples, one after another, in one laboratory."""

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory

    def warm_up(self) -> None:
        """Let the broker make its topics of groups and transactions, which else the first engine would wait for."""
        with self._running("confluent-kafka", EXACTLY_ONCE):
            pass

    def measure(self, engine: str, mode: str, *, capacity: bool) -> Row:
        """All figures of one line."""
        with self._running(engine, mode) as operator:
            summary = self._read(engine, operator, warm_up_s=WARM_UP_S, measured_s=MEASURED_S)
            row = Row(engine, mode, summary, operator.start_s, _memory_mib(operator.process))
            if mode == EXACTLY_ONCE:
                return row
            found = self._capacity(engine, operator) if capacity else "not searched"
        with self._running(engine, mode, timestamp_type="CreateTime") as operator:
            verdict = self._read(engine, operator, warm_up_s=1, measured_s=2, may_be_invalid=True)["verdict"]
        return row._replace(capacity=found, create_time=verdict.partition(":")[0])

    @contextlib.contextmanager
    def _running(self, engine: str, mode: str, *, timestamp_type: str = "LogAppendTime") -> Iterator[Operator]:
        """The example, which must not end by itself."""
        topic = self._laboratory.topic
        with topic(PARTITIONS) as source, topic(PARTITIONS, timestamp_type=timestamp_type) as output:
            more = ["--exactly-once"] if mode == EXACTLY_ONCE else []
            command = start_command(engine, input_topic=source, output_topic=output, more=more)
            started_s = time.monotonic()
            process = psutil.Process(self._laboratory.start("operator", command).pid)
            try:
                self._wait_for(ENGINES[engine].ready, "operator", process, _READY_TIMEOUT_S)
                yield Operator((source, output), time.monotonic() - started_s, process)
                self._require_alive("operator", process)
            finally:
                _stop(process)

    def _read(
        self, engine: str, operator: Operator, *, warm_up_s: int, measured_s: int, may_be_invalid: bool = False
    ) -> dict[str, Any]:
        """The consumer's summary of so many seconds at the fixed rate; each message must have a result."""
        source, output = operator.topics
        size, result = RATE_PER_S * (warm_up_s + measured_s), self._laboratory.folder / "consumer.json"
        reading = [sys.executable, str(ROOT / "PerfConsumer.py"), "--topic", output, "--from", "latest", "--count",
                   str(size), "--idle-timeout", "60", "--warmup", f"{warm_up_s}s", "--result", str(result),
                   *reading_flags(engine)]  # fmt: skip
        consumer = psutil.Process(self._laboratory.start("consumer", reading).pid)
        self._wait_for("reading topic", "consumer", consumer, _READY_TIMEOUT_S)
        sending = ("--topic", source, "--size", str(size), "--rate", str(RATE_PER_S), *_KEYS)
        self._laboratory.run([sys.executable, str(ROOT / "ProducerPerformance.py"), *sending])
        code = consumer.wait()
        if code and not (may_be_invalid and code == _NO_MEASUREMENT):
            raise BenchmarkError(f"the consumer ended with exit code {code}:\n{self._said('consumer')}")
        summary: dict[str, Any] = json.loads(result.read_text())["summary"]
        require(summary["messages_read"], size)
        return summary

    def _capacity(self, engine: str, operator: Operator) -> str:
        """What the search says of the operator that is warm already."""
        folder = self._laboratory.folder / f"search-{engine}"
        flags = ("--input", operator.topics[0], "--output", operator.topics[1], "--folder", str(folder), *_KEYS)
        command = [sys.executable, str(ROOT / "PerfRun.py"), *flags, "--find-capacity", *SEARCH, *reading_flags(engine)]
        search = psutil.Process(self._laboratory.start("search", command).pid)
        try:
            code = search.wait(_SEARCH_TIMEOUT_S)
        except psutil.TimeoutExpired:
            search.terminate()  # it writes what it has
            code = search.wait(_STOP_TIMEOUT_S)
        if code not in (0, _NO_MEASUREMENT, _SIGTERM):
            raise BenchmarkError(f"the search ended with exit code {code}:\n{self._said('search')}")
        found = json.loads((folder / "capacity.json").read_text())
        print(f"{engine}: {found['line']}; {found['bounded_by']}", file=sys.stderr, flush=True)
        return _cell(found)

    def _wait_for(self, text: str, name: str, process: psutil.Process, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self._said(name):
            self._require_alive(name, process)
            if time.monotonic() > deadline_s:
                raise BenchmarkError(f"the {name} did not get ready:\n{self._said(name)}")
            time.sleep(0.02)

    def _require_alive(self, name: str, process: psutil.Process) -> None:
        if not _is_alive(process):
            raise BenchmarkError(f"the {name} ended:\n{self._said(name)}")

    def _said(self, name: str) -> str:
        return self._laboratory.output(name) + self._laboratory.output(name, "stderr")


def main() -> int:
    """Measure all, or those named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measures the examples of examples/operators.")
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(ENGINES)}; default: all")
    parser.add_argument("--no-capacity", action="store_true", help="leave the capacity search out: minutes for each")
    arguments = parser.parse_args()
    try:
        lines = _run(arguments.engines or list(ENGINES), capacity=not arguments.no_capacity)
    except (OperatorError, BenchmarkError, BrokerError, Fault) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not arguments.engines and not arguments.no_capacity:
        save(DOCUMENT, "\n".join(lines), target="bench-engines")
    return 0


def _run(engines: list[str], *, capacity: bool) -> list[str]:
    """The lines of the table, each printed when it is known."""
    for engine in ("confluent-kafka", *engines):
        prepare(engine)
    lines = [_conditions(), "", *_heading()]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="engines-") as folder:
        if shutil.disk_usage(folder).free < NEEDED_GB * 1e9:
            raise BenchmarkError(f"{NEEDED_GB} GB of free disk space are needed in the folder for temporary files")
        with EmbeddedBroker() as broker:
            bench = Bench(Laboratory(broker.bootstrap_servers, Path(folder)))
            bench.warm_up()
            for engine in engines:
                for mode in (AT_LEAST_ONCE, EXACTLY_ONCE) if ENGINES[engine].exactly_once else (AT_LEAST_ONCE,):
                    lines.append(str(bench.measure(engine, mode, capacity=capacity)))
                    print(lines[-1], flush=True)
    return lines


def _conditions() -> str:
    return (
        f"{RATE_PER_S:,} messages a second for {MEASURED_S} s after a warm-up of {WARM_UP_S} s; capacity by "
        f"`--find-capacity {shlex.join(SEARCH)}`; {PARTITIONS} partitions; load average {os.getloadavg()[0]:.1f} at "
        f"the start. Engines on Java: {_java()}. Measured on {machine()}"
    )


def _java() -> str:
    """The version of the Java that the engines run on: that of the PATH."""
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return said.splitlines()[0].replace('"', "")


def _heading() -> Iterator[str]:
    names = ("engine", "mode", "delta p50 / p99, ms", "visible p50 / p99, ms", "capacity, messages/s", "start, s",
             "memory, MiB", "verdict on CreateTime")  # fmt: skip
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"


def _cell(found: dict[str, Any]) -> str:
    """The capacity, as the table has it: with the reason where it is no more than a bound."""
    if found["capacity_per_s"] is None:
        return "none"
    if found["status"] == "incomplete":
        reason = found["bounded_by"].partition(":")[0].replace(" messages/s", "")
        return f"at least {found['capacity_per_s']:g}, unconfirmed ({reason})"
    rate, reason = found["line"].removeprefix("capacity: ").partition(" messages/s")[::2]
    if found["status"] == "at_least":
        return f"{rate} ({reason.removeprefix('; ')})"
    return f"{rate}{reason}"


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _stop(process: psutil.Process) -> None:
    """End it, and wait for its children, on which Flink's and Spark's Java decides by itself."""
    if _is_alive(process):
        children = process.children(recursive=True)
        process.terminate()
        _, alive = psutil.wait_procs([process, *children], _STOP_TIMEOUT_S)
        for one in alive:
            one.kill()
        if alive:
            raise BenchmarkError(
                f"the operator did not end within {_STOP_TIMEOUT_S:g} s, beside the next one's figures"
            )


def _memory_mib(process: psutil.Process) -> float:
    """Resident memory of the process and its children."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


if __name__ == "__main__":
    sys.exit(main())
