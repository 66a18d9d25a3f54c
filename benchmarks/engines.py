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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from demo.broker import EmbeddedBroker
from demo.operators import ENGINES, prepare, reading_flags, start_command
from kafka.config import client_config
from kafka.topics import Admin

from .__main__ import machine
from .laboratory import ROOT, BenchmarkError
from .report import save

DOCUMENT = ROOT / "docs" / "operators.md"
AT_LEAST_ONCE, EXACTLY_ONCE = "at least once", "exactly once"
RATE_PER_S, WARM_UP_S, MEASURED_S, PARTITIONS = 1_000, 5, 10, 3
SEARCH = ("--rate", "1000", "--step-duration", "10s", "--warmup", "1s", "--resolution", "20%", "--fail-if", "p99 > 5s")
_READY_TIMEOUT_S, _STOP_TIMEOUT_S, _SEARCH_TIMEOUT_S = 120.0, 60.0, 240.0
_INVALID = 5  # the exit code of a measurement that means nothing


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
    """One broker, and a folder for files."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "KAFKA_BROKERS": brokers, "PYTHONPATH": str(ROOT)}
        self._admin = Admin(client_config({}, brokers=brokers))

    def measure(self, engine: str, mode: str, *, capacity: bool) -> Row:
        """All figures of one line."""
        with self._running(engine, mode) as operator:
            summary = self._read(engine, operator, warm_up_s=WARM_UP_S, measured_s=MEASURED_S)
            row = Row(engine, mode, summary, operator.start_s, _memory_mib(operator.process))
            if mode == EXACTLY_ONCE:
                return row
            found = self._capacity(engine, operator) if capacity else "not searched"
        with self._running(engine, mode, timestamp_type="CreateTime") as operator:
            verdict = self._read(engine, operator, warm_up_s=1, measured_s=2)["verdict"]
        return row._replace(capacity=found, create_time=verdict.partition(":")[0])

    @contextlib.contextmanager
    def _running(self, engine: str, mode: str, *, timestamp_type: str = "LogAppendTime") -> Iterator[Operator]:
        names = tuple(f"engines-{time.time_ns()}-{side}" for side in ("input", "output"))
        for name, stamps in zip(names, ("LogAppendTime", timestamp_type), strict=True):
            self._admin.create(name, partitions=PARTITIONS, replication_factor=1, timestamp_type=stamps)
        more = ["--exactly-once"] if mode == EXACTLY_ONCE else []
        command = start_command(engine, input_topic=names[0], output_topic=names[1], more=more)
        log = self._folder / "operator.txt"
        started_s = time.monotonic()
        with log.open("w") as file:
            process = psutil.Popen(
                command, cwd=self._folder, env=self._environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            _wait_for(ENGINES[engine].ready, log, process)
            yield Operator((names[0], names[1]), time.monotonic() - started_s, process)
        finally:
            process.terminate()
            process.wait(_STOP_TIMEOUT_S)

    def _read(self, engine: str, operator: Operator, *, warm_up_s: int, measured_s: int) -> dict[str, Any]:
        """The consumer's summary of so many seconds at the fixed rate."""
        source, output = operator.topics
        size, result = str(RATE_PER_S * (warm_up_s + measured_s)), self._folder / "consumer.json"
        consumer = subprocess.Popen(
            [sys.executable, str(ROOT / "PerfConsumer.py"), "--topic", output, "--from", "latest", "--count", size,
             "--idle-timeout", "60", "--warmup", f"{warm_up_s}s", "--result", str(result), *reading_flags(engine)],
            env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert consumer.stderr is not None
        said = ""
        while "reading topic" not in (line := consumer.stderr.readline()):
            said += line
            if not line:
                raise BenchmarkError(f"the consumer did not get ready: {said}")
        flags = ("--topic", source, "--size", size, "--rate", str(RATE_PER_S), "--keyname", "containerId")
        self._script("ProducerPerformance.py", *flags)
        said += consumer.stderr.read()
        if consumer.wait() not in (0, _INVALID):
            raise BenchmarkError(f"the consumer ended with exit code {consumer.returncode}: {said}")
        summary: dict[str, Any] = json.loads(result.read_text())["summary"]
        return summary

    def _capacity(self, engine: str, operator: Operator) -> str:
        """What the search says of the operator that is warm already."""
        folder = self._folder / f"search-{engine}"
        flags = ("--input", operator.topics[0], "--output", operator.topics[1], "--folder", str(folder))
        command = [sys.executable, str(ROOT / "PerfRun.py"), *flags, "--find-capacity", *SEARCH, *reading_flags(engine)]
        with (self._folder / "search.txt").open("w") as file:
            search = subprocess.Popen(command, env=self._environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            search.wait(_SEARCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            search.terminate()  # it writes what it has
            search.wait(_STOP_TIMEOUT_S)
        if not (folder / "capacity.json").exists():
            raise BenchmarkError(f"the search failed:\n{(self._folder / 'search.txt').read_text()}")
        found = json.loads((folder / "capacity.json").read_text())
        print(f"{engine}: {found['line']}; {found['bounded_by']}", file=sys.stderr, flush=True)
        return _cell(found)

    def _script(self, script: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *arguments], env=self._environment, check=False, capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode:
            raise BenchmarkError(f"{script} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Measure all, or those named on the command line."""
    parser = argparse.ArgumentParser(description="Measures the examples of examples/operators.")
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(ENGINES)}; default: all")
    parser.add_argument("--no-capacity", action="store_true", help="leave the capacity search out: minutes for each")
    arguments = parser.parse_args()
    engines = arguments.engines or list(ENGINES)
    for engine in engines:
        prepare(engine)
    lines = [_conditions(), "", *_heading()]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="engines-") as folder, EmbeddedBroker() as broker:
        bench = Bench(broker.bootstrap_servers, Path(folder))
        for engine in engines:
            for mode in (AT_LEAST_ONCE, EXACTLY_ONCE) if ENGINES[engine].exactly_once else (AT_LEAST_ONCE,):
                lines.append(str(bench.measure(engine, mode, capacity=not arguments.no_capacity)))
                print(lines[-1], flush=True)
    if not arguments.engines and not arguments.no_capacity:
        save(DOCUMENT, "\n".join(lines), target="bench-engines")


def _conditions() -> str:
    return (
        f"{RATE_PER_S:,} messages a second for {MEASURED_S} s after a warm-up of {WARM_UP_S} s; capacity by "
        f"`--find-capacity {shlex.join(SEARCH)}`; {PARTITIONS} partitions; load average {os.getloadavg()[0]:.1f} at "
        f"the start. Measured on {machine()}"
    )


def _heading() -> Iterator[str]:
    names = ("engine", "mode", "delta p50 / p99, ms", "visible p50 / p99, ms", "capacity, messages/s", "start, s",
             "memory, MiB", "verdict on CreateTime")  # fmt: skip
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"


def _cell(found: dict[str, Any]) -> str:
    """The capacity, as the table has it."""
    if found["capacity_per_s"] is None:
        return "none"
    rate = f"{found['capacity_per_s']:.0f}"
    if found["status"] == "incomplete":
        return f"at least {rate} (not found in {_SEARCH_TIMEOUT_S / 60:.0f} minutes)"
    return f"at least {rate}" if found["status"] == "at_least" else rate


def _wait_for(text: str, path: Path, process: psutil.Popen) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while text not in path.read_text():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise BenchmarkError(f"the operator did not get ready:\n{path.read_text()}")
        time.sleep(0.02)


def _memory_mib(process: psutil.Process) -> float:
    """Resident memory of the process and its children."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


if __name__ == "__main__":
    main()
