"""The figures of docs/operators.md: `make bench-engines` prints its table, for all examples of examples/operators.

Each example gets a warm-up of 5 s and then 10 s at 1,000 messages a second, first at least once, then exactly once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from demo.broker import EmbeddedBroker
from demo.operators import ENGINES, start_command

ROOT = Path(__file__).resolve().parent.parent
RATE_PER_S, WARM_UP_S, MEASURED_S, PARTITIONS = 1_000, 5, 10, 3
_READY_TIMEOUT_S = 120.0


class Row(NamedTuple):
    """One line of the table: the consumer's summary, the time from start to ready, and the memory at the end."""

    engine: str
    mode: str
    summary: dict[str, Any]
    start_s: float
    memory_mib: float

    def __str__(self) -> str:
        delta, visible = (self.summary[f"{name}_ms"] for name in ("delta", "visible"))
        times = " | ".join(f"{times['p50']:g} / {times['p99']:g}" for times in (delta, visible))
        return f"| {self.engine} | {self.mode} | {times} | {self.start_s:.1f} | {self.memory_mib:.0f} |"


def main() -> None:
    """Measure all, or those named on the command line."""
    print("| engine | mode | delta p50 / p99, ms | visible p50 / p99, ms | start, s | memory, MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    with EmbeddedBroker() as broker:
        for engine in sys.argv[1:] or ENGINES:
            for mode in ("at least once", "exactly once"):
                print(_measure(broker.bootstrap_servers, engine, mode), flush=True)


def _measure(brokers: str, engine: str, mode: str) -> Row:
    environment = {**os.environ, "KAFKA_BROKERS": brokers}
    topics = [f"engines-{time.time_ns()}-{side}" for side in ("input", "output")]
    with tempfile.TemporaryDirectory(prefix="engines-") as name:
        folder = Path(name)
        _script("PerfTopics.py", "create", *topics, "--partitions", str(PARTITIONS), environment=environment)
        more = ["--exactly-once"] if mode == "exactly once" else []
        command = start_command(engine, input_topic=topics[0], output_topic=topics[1], more=more)
        started_s = time.monotonic()
        with (folder / "operator.txt").open("w") as file:
            operator = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            _wait_for(ENGINES[engine].ready, folder / "operator.txt", operator)
            start_s = time.monotonic() - started_s
            summary = _run(environment, topics, folder / "consumer.json")
            return Row(engine, mode, summary, start_s, _memory_mib(operator.pid))
        finally:
            operator.terminate()
            operator.wait()


def _run(environment: dict[str, str], topics: list[str], result: Path) -> dict[str, Any]:
    size = RATE_PER_S * (WARM_UP_S + MEASURED_S)
    consumer = subprocess.Popen(
        [sys.executable, str(ROOT / "PerfConsumer.py"), "--topic", topics[1], "--from", "latest", "--count", str(size),
         "--idle-timeout", "60", "--warmup", f"{WARM_UP_S}s", "--result", str(result)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert consumer.stderr is not None
    while "reading topic" not in (line := consumer.stderr.readline()):
        if not line:
            raise RuntimeError("the consumer did not get ready")
    flags = ("--topic", topics[0], "--size", str(size), "--rate", str(RATE_PER_S), "--keyname", "containerId")
    _script("ProducerPerformance.py", *flags, environment=environment)
    if consumer.wait():
        raise RuntimeError(f"the consumer ended with exit code {consumer.returncode}: {consumer.stderr.read()}")
    summary: dict[str, Any] = json.loads(result.read_text())["summary"]
    return summary


def _script(script: str, *arguments: str, environment: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], env=environment, check=True, capture_output=True, text=True
    )


def _wait_for(text: str, path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while text not in path.read_text():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"the operator did not get ready:\n{path.read_text()}")
        time.sleep(0.02)


def _memory_mib(pid: int) -> float:
    """Resident memory of the process and its children."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


if __name__ == "__main__":
    main()
