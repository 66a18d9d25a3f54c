"""One broker, one folder for files, and processes that are watched from start to end."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from kafka.config import VARIABLES, client_config
from kafka.consumer import Consumer
from kafka.topics import Admin
from perf.settings import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
_SAMPLE_EVERY_S = 0.05
_TOTAL_LINE = re.compile(rb"messages read: ([0-9]+)\n")


class BenchmarkError(Exception):
    """A process failed, or did not do what its figure would say."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A process that ended well. `cpu_s` is the user and system time of all its threads.

    `memory` has, 20 times a second, the messages that a consumer had read (by its [TOTAL] lines) and the resident MB.
    getrusage's peak would not do: where Python starts a process, that counts Python's own memory too.
    """

    elapsed_s: float
    cpu_s: float
    output: str
    memory: Sequence[tuple[int, float]]

    @property
    def peak_mb(self) -> float:
        """The most memory seen."""
        return max(megabytes for _, megabytes in self.memory)

    def memory_after(self, messages: int) -> float:
        """The memory when `messages` had just been read, or at the end."""
        return next((megabytes for read, megabytes in self.memory if read >= messages), self.memory[-1][1])


class Laboratory:
    """The broker's address, and a folder whose files nobody needs afterwards."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self.brokers, self.folder = brokers, folder
        self._config = client_config({}, brokers=brokers)
        self._admin = Admin(self._config)
        self._topic_numbers = count(1)
        ours = {variable.name for variable in VARIABLES} | {option.variable for option in OPTIONS.values()}
        self._environment = {name: value for name, value in os.environ.items() if name not in ours}
        # Python caches compiled modules, as it does for users, but in the folder
        self._environment |= {"KAFKA_BROKERS": brokers, "PYTHONPYCACHEPREFIX": str(folder / "modules")}
        self._environment["PYTHONPATH"] = str(ROOT)
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start `command`; what it prints goes to NAME-stdout.txt and NAME-stderr.txt in the folder."""
        with self._output(name, "stdout").open("wb") as stdout, self._output(name, "stderr").open("wb") as stderr:
            return subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )

    def output(self, name: str, stream: str = "stdout") -> str:
        """What the process NAME has printed so far."""
        return self._output(name, stream).read_text(errors="replace")

    def _output(self, name: str, stream: str) -> Path:
        return self.folder / f"{name}-{stream}.txt"

    def run(self, command: Sequence[str]) -> Run:
        """Run `command` to its end. Raises BenchmarkError when it fails."""
        started_s = time.monotonic()
        process = self.start("run", command)
        with _memory_of(process.pid, self._output("run", "stdout")) as memory:
            _, status, usage = os.wait4(process.pid, 0)
            elapsed_s = time.monotonic() - started_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            last = self.output("run", "stderr")[-2000:]
            raise BenchmarkError(f"exit code {process.returncode} of {' '.join(command)}:\n{last}")
        cpu_s = usage.ru_utime + usage.ru_stime
        return Run(elapsed_s=elapsed_s, cpu_s=cpu_s, output=self.output("run"), memory=memory)

    @contextlib.contextmanager
    def topic(self, partitions: int = 1, *, timestamp_type: str = "LogAppendTime") -> Iterator[str]:
        """A new topic, deleted afterwards."""
        name = f"benchmark-{next(self._topic_numbers)}"
        self._admin.create(name, partitions=partitions, replication_factor=1, timestamp_type=timestamp_type)
        try:
            yield name
        finally:
            self._admin.delete(name)

    def require_messages(self, topic: str, expected: int) -> None:
        """Ask the broker whether `topic` holds them all. Raises BenchmarkError."""
        consumer = Consumer(self._config, topic, partitions=[0], start="earliest")
        [offsets] = consumer.offsets()
        consumer.close()
        require(offsets.end - offsets.first, expected)


def require(found: int, expected: int) -> None:
    """Raises BenchmarkError unless a program did what it was asked for."""
    if found != expected:
        raise BenchmarkError(f"{found} messages were sent or read, not {expected}: its time means nothing")


@contextlib.contextmanager
def _memory_of(pid: int, output: Path) -> Iterator[list[tuple[int, float]]]:
    """A list that fills while the process runs, for Run.memory."""
    samples: list[tuple[int, float]] = []
    process = psutil.Process(pid)

    def sample() -> None:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - 4096))
            read = _TOTAL_LINE.findall(file.read())
        if megabytes := megabytes_of(process):
            samples.append((int(read[-1]) if read else 0, megabytes))

    with sampled(_SAMPLE_EVERY_S, sample):
        yield samples


@contextlib.contextmanager
def sampled(every_s: float, sample: Callable[[], None]) -> Iterator[None]:
    """Meanwhile, and in a thread of its own, `sample` is called again and again."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(every_s):
            sample()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def megabytes_of(process: psutil.Process) -> float:
    """A process's resident memory; 0 when it has ended."""
    try:
        return process.memory_info().rss / 1e6
    except psutil.Error:
        return 0
