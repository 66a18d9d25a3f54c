"""Whether the capacity search is right: operators whose capacity is known, a real broker, PerfRun.py as a user runs it.

`make capacity-proof`, or `python -m benchmarks.capacity_proof`. Environment: RUNS (10 for each service time), AT_ONCE
(1: searches side by side), STEP (12s). The table in docs/capacity.md is rewritten.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from demo.broker import EmbeddedBroker
from kafka.config import client_config
from kafka.topics import Admin
from perf.settings import checked, count_of, seconds

from .__main__ import machine
from .laboratory import ROOT, BenchmarkError
from .report import save

DOCUMENT = ROOT / "docs" / "capacity.md"
SERVICE_TIMES_MS = (5.0, 1.0, 0.2)
MOST_ERROR = 0.10
_STALL_RATE, _STALL_TIME = 500, "60s"
_LINGER_MS = "5"  # as Kafka's clients do by default: a request for each result takes as much CPU as all else together
_SEARCH_TIMEOUT_S = 1800.0
_NONE = 5  # the exit code of a search that found no rate


class Search(NamedTuple):
    """What one search said of an operator of this service time, and how long it took."""

    service_time_ms: float
    said: str
    capacity_per_s: float | None
    steps: int
    took_s: float

    @property
    def error(self) -> float | None:
        """Relative to the true capacity, 1 / service time."""
        return None if self.capacity_per_s is None else self.capacity_per_s * self.service_time_ms / 1_000 - 1


class Bench:
    """One broker, and searches on topics of their own."""

    def __init__(self, brokers: str, folder: Path, step: str) -> None:
        self._folder, self._step = folder, step
        self._environment = {**os.environ, "KAFKA_BROKERS": brokers, "PYTHONPATH": str(ROOT)}
        self._admin = Admin(client_config({}, brokers=brokers))

    def search(self, number: int, service_time_ms: float) -> Search:
        """One search, of an operator that takes so long for a message."""
        folder = self._folder / f"search-{number}"
        started_s = time.monotonic()
        try:
            self._measured(folder, ["--service-time-ms", f"{service_time_ms:g}"],
                           ["--find-capacity", "--step-duration", self._step, "--fail-if", "p99 > 5s"])  # fmt: skip
            found = msgspec.json.decode((folder / "capacity.json").read_bytes())
            said, steps = found["line"], len(found["steps"])
            capacity_per_s = found["capacity_per_s"] if found["status"] == "found" else None
        except (BenchmarkError, subprocess.TimeoutExpired) as error:  # which is a wrong answer, and no reason to stop
            said, steps, capacity_per_s = str(error), 0, None
        done = Search(service_time_ms, said, capacity_per_s, steps, time.monotonic() - started_s)
        print(f"{number:3}: {service_time_ms:g} ms: {done.said}, after {done.took_s:.0f} s", flush=True)
        return done

    def stalls(self) -> dict[str, Any]:
        """The report's JSON of a minute at half the capacity of an operator that stalls for 1 s every 10 s."""
        folder = self._folder / "stalls"
        self._measured(folder, ["--service-time-ms", "1", "--stall-ms", "1000", "--stall-every-s", "10"],
                       ["--rate", str(_STALL_RATE), "--duration", _STALL_TIME, "--warmup", "2s"])  # fmt: skip
        report: dict[str, Any] = msgspec.json.decode((folder / "report.json").read_bytes())
        return report

    def _measured(self, folder: Path, flags_of_it: Sequence[str], flags: Sequence[str]) -> None:
        topics = f"{folder.name}-in", f"{folder.name}-out"
        for topic in topics:
            self._admin.create(topic, partitions=3, replication_factor=1, timestamp_type="LogAppendTime")
        operator = subprocess.Popen(
            [sys.executable, "-m", "demo.streams_operator", "--input", topics[0], "--output", topics[1], "--linger-ms",
             _LINGER_MS, *flags_of_it],
            env=self._environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert operator.stdout is not None
            if "operator ready" not in operator.stdout.readline():
                raise BenchmarkError("the operator did not get ready")
            command = [sys.executable, str(ROOT / "PerfRun.py"), "--input", topics[0], "--output", topics[1],
                       "--folder", str(folder), *flags]  # fmt: skip
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False,
                                  timeout=_SEARCH_TIMEOUT_S)  # fmt: skip
            if done.returncode and not (done.returncode == _NONE and "--find-capacity" in flags):
                raise BenchmarkError(f"PerfRun.py ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr}")
        finally:
            operator.terminate()
            operator.wait()
            for topic in topics:
                self._admin.delete(topic)


def main() -> int:
    """Search, show, and rewrite the table; 1 unless nine of ten searches are right for each service time."""
    runs = checked("RUNS", os.environ.get("RUNS") or "10", count_of)
    at_once = checked("AT_ONCE", os.environ.get("AT_ONCE") or "1", count_of)
    step = os.environ.get("STEP") or "12s"
    checked("STEP", step, seconds)
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        bench = Bench(broker.bootstrap_servers, Path(folder), step)
        with ThreadPoolExecutor(at_once) as pool:
            times_ms = [service_time_ms for _ in range(runs) for service_time_ms in SERVICE_TIMES_MS]
            found = list(pool.map(bench.search, range(1, len(times_ms) + 1), times_ms))
        lines = list(_table(found, step=step, at_once=at_once))
        lines += _stall_lines(bench.stalls())
    print("\n".join(lines))
    save(DOCUMENT, "\n".join(lines), target="capacity-proof")
    return 0 if all(_right(found, one_ms) >= 0.9 * runs for one_ms in SERVICE_TIMES_MS) else 1


def _right(found: Sequence[Search], service_time_ms: float) -> int:
    return sum(
        one.error is not None and abs(one.error) <= MOST_ERROR
        for one in found
        if one.service_time_ms == service_time_ms
    )


def _table(found: Sequence[Search], *, step: str, at_once: int) -> Iterator[str]:
    yield f"Measured on {machine().rstrip('.')}; steps of {step}, {at_once} searches at a time.\n"
    yield "| service time | true capacity | searches | within 10 % | found, messages/s | steps | duration |"
    yield "|---|---|---|---|---|---|---|"
    for service_time_ms in SERVICE_TIMES_MS:
        those = [one for one in found if one.service_time_ms == service_time_ms]
        rates = [
            "none" if rate is None else f"{rate:g}"
            for rate in sorted((one.capacity_per_s for one in those), key=lambda rate: rate or 0.0)
        ]
        right = _right(found, service_time_ms)
        steps, took_s = [one.steps for one in those], [one.took_s for one in those]
        yield (
            f"| {service_time_ms:g} ms | {1_000 / service_time_ms:g} | {len(those)} | {right} | "
            f"{', '.join(rates)} | {min(steps)} to {max(steps)} | {min(took_s):.0f} to {max(took_s):.0f} s |"
        )


def _stall_lines(report: dict[str, Any]) -> Iterator[str]:
    delta = report["consumer"]["summary"]["delta_ms"]
    yield (
        f"\nAn operator of 1 ms service time that stalls for 1 s every 10 s, at {_STALL_RATE} messages/s for "
        f"{_STALL_TIME}: p50 {delta['p50']:g} ms, p90 {delta['p90']:g} ms, p99 {delta['p99']:g} ms, max "
        f"{delta['max']:g} ms."
    )


if __name__ == "__main__":
    sys.exit(main())
