"""Processes that a test is made of: started, listened to, waited for, and stopped in order; none is left running.

Their output goes to files, which are read from here: so a child never waits for this process, nor dies with it halfway.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from .process import SIGNALLED, ExitCode

_LOOK_EVERY_S = 0.05
_KILL_AFTER_S = 40.0  # a producer flushes for at most 20 s after a signal
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)


class ChildError(Exception):
    """A child did not do what it must; `exit_code` is its own where it has one of the table."""

    def __init__(self, sentence: str, exit_code: int = ExitCode.UNEXPECTED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Child:
    """A process whose output (stdout and stderr) goes to a file."""

    def __init__(self, name: str, command: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
        self.name, self.output, self.was_stopped = name, output, False
        with output.open("wb") as file:
            self._process = subprocess.Popen(  # noqa: S603 (our own scripts)
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C reaches only the parent, which stops its children in order
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (there are no threads here)
            )
        self._reader = output.open("rb")
        self._rest = b""
        self._said: list[str] = []

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + its number after a signal."""
        code = self._process.poll()
        return SIGNALLED - code if code is not None and code < 0 else code

    def new_lines(self) -> list[str]:
        """What it has said since the last call, in whole lines."""
        *whole, self._rest = (self._rest + self._reader.read()).split(b"\n")
        lines = [line.decode(errors="replace") for line in whole]
        self._said += [line for line in lines if not line.startswith("[")]
        return lines

    def has_said(self, text: str) -> bool:
        """Whether a line other than [STAT …] holds the text."""
        return any(text in line for line in self._said)

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._process.poll() is None:
            self.was_stopped = True
            self._process.send_signal(number)

    def end(self) -> None:
        """Wait for its end, which was asked for, and see to it if it does not come."""
        try:
            self._process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.close()


class _Stopping(Protocol):
    signal_number: int

    def __call__(self) -> bool: ...


class Children:
    """The children of one test. `hear` gets each new line with the child's name."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        hear: Callable[[str, str], None],
        stop: _Stopping,
    ) -> None:
        self._folder, self._environment, self._hear, self._stop = folder, environment, hear, stop
        self._all: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for child in self._all:
            child.close()

    def start(self, name: str, *command: str) -> Child:
        """Start a script of ours; its output goes to NAME.txt."""
        child = Child(name, command, self._folder / f"{name}.txt", self._environment)
        self._all.append(child)
        return child

    def wait(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait, passing on what the children say, until the condition holds (True), time is up or a signal comes."""
        end_s = time.monotonic() + timeout_s if timeout_s is not None else None
        while True:
            self._listen()
            if condition():
                self._listen()
                return True
            if self._stop() or (end_s is not None and time.monotonic() >= end_s):
                return False
            time.sleep(_LOOK_EVERY_S)

    def stop(self, children: Sequence[Child], number: int = signal.SIGTERM) -> None:
        """End these children, which report first."""
        for child in children:
            child.send(number)
        for child in children:
            child.end()
        self._listen()

    def _listen(self) -> None:
        for child in self._all:
            for line in child.new_lines():
                self._hear(child.name, line)


def _end_with_parent() -> None:
    with contextlib.suppress(AttributeError):  # other systems than Linux have no such call
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
