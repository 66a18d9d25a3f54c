"""The whole measurement, shown on this machine: `make demo`, or `python -m demo`; with `capacity` the capacity search.

Environment: SIZE, RATE and DELAY_MS (SERVICE_TIME_MS for the search); OPERATOR=NAME runs an engine of
examples/operators instead of the stand-in; with KAFKA_BROKERS (and its credentials, which no engine here knows) that
Kafka is used instead of an embedded broker. All output of the processes goes to the folder demo-output.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from kafka.config import VARIABLES, client_config
from kafka.errors import Fault
from kafka.topics import Admin
from perf.process import lock
from perf.settings import OPTIONS, SettingsError, checked, count_of, merged_environment, rate

from .broker import KAFKA_VERSION, BrokerError, EmbeddedBroker
from .operators import ENGINES, OperatorError, prepare, reading_flags, require_known, start_command

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
_SHOWN_LINES = 12
_READY_TIMEOUT_S = 120.0
_FIRST_LINES_OF_RUN = 26  # the check's and some averages
_STEP, _FIRST_PER_S, _RESOLUTION = "9s", "400", "10%"
_STOP_TIMEOUT_S = 30.0
_PARTITIONS = 3
EMBEDDED = "PERF_DEMO_EMBEDDED"


class DemoError(Exception):
    """A step of the demo failed; says which."""


class Child:
    """A process whose output goes to a file; the screen shows its first and last dozen lines and its summary."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, shown_lines: int = _SHOWN_LINES
    ) -> None:
        self.name = name
        self._most_first = shown_lines
        self.path = OUTPUT / f"{name}.txt"
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_SHOWN_LINES)
        self._summary: list[str] = []
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._terminated = False
        print(f"    $ {_as_typed(command)}", flush=True)
        self.process = subprocess.Popen(
            command,
            cwd=_folder(environment),
            env={**environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches only the demo, which stops its children in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Wait until a line holds `text`. Raises DemoError when the process ends before, or takes too long."""
        with self._news:
            self._news.wait_for(
                lambda: any(text in line for line in self._lines) or not self._reader.is_alive(), _READY_TIMEOUT_S
            )
            found = any(text in line for line in self._lines)
        if not found:
            raise DemoError(f"the {self.name} did not get ready; its output is above and in {_shown(self.path)}")

    def finish(self) -> None:
        """Wait for its end and show the rest. Raises DemoError unless it succeeded."""
        code = self.process.wait()
        self._reader.join()
        left_out = len(self._lines) - len(self._first) - len(self._last) - len(self._summary)
        if left_out:
            print(f"    {self.name:>8} | … {left_out} more lines in {_shown(self.path)}")
        for line in (*self._last, *self._summary):
            print(f"    {self.name:>8} | {line}")
        if code:
            raise DemoError(f"the {self.name} ended with exit code {code}; all it said is in {_shown(self.path)}")

    def terminate(self) -> None:
        """Ask it to end, once: a second signal would end it without its report."""
        if not self._terminated and self.process.poll() is None:
            self.process.terminate()
        self._terminated = True

    def stop(self) -> None:
        """End the process: it may flush and report first."""
        self.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.path.open("w", encoding="utf-8") as file:
            for line in map(str.rstrip, self.process.stdout):
                file.write(f"{line}\n")
                file.flush()
                with self._news:
                    self._take(line)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _take(self, line: str) -> None:
        self._lines.append(line)
        if self._summary or line.startswith("Summary of"):
            self._summary.append(line)
        elif len(self._first) < self._most_first:
            self._first.append(line)
            print(f"    {self.name:>8} | {line}", flush=True)
        else:
            self._last.append(line)


def main() -> int:
    """Set up, measure, show, and stop everything; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background job ignores SIGINT otherwise
        signal.signal(number, _as_interrupt)
    OUTPUT.mkdir(exist_ok=True)
    try:
        held = lock(Path(__file__))  # noqa: F841 (until the end; OUTPUT's own is PerfRun.py's)
    except BlockingIOError:
        print(f"Another demo is running, and writes to {_shown(OUTPUT)}.", file=sys.stderr)
        return 2
    for path in filter(Path.is_file, OUTPUT.iterdir()):  # of another demo
        path.unlink()
    try:
        size = checked("SIZE", os.environ.get("SIZE") or "100000", count_of)
        rate_per_s = checked("RATE", os.environ.get("RATE") or "10000", rate)
        delay_ms = checked("DELAY_MS", os.environ.get("DELAY_MS") or "5", _delay)
        service_time_ms = checked("SERVICE_TIME_MS", os.environ.get("SERVICE_TIME_MS") or "1", _delay)
        if engine := os.environ.get("OPERATOR"):
            _refuse_credentials(engine)
            require_known(engine)
            _say(f"Making ready examples/operators/{engine} (the first time its libraries are downloaded).")
            prepare(engine)
        with _cluster() as environment, _topics(environment) as topics:
            if sys.argv[1:] == ["capacity"]:
                _search(environment, topics, service_time_ms=service_time_ms)
            else:
                _measure(environment, topics, size=size, rate_per_s=rate_per_s, delay_ms=delay_ms)
    except KeyboardInterrupt:
        found = OUTPUT / "run.txt"
        more = f" What was measured until then is in {_shown(found)}." if found.exists() else ""
        print(f"\nStopped.{more}", flush=True)
        return 130
    except (BrokerError, DemoError, Fault, OperatorError, SettingsError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(f"\nAll of it is in {_shown(OUTPUT)}: the scripts' whole output (*.txt) and their results (*.json).")
    print("\n".join(_search_ending(service_time_ms) if sys.argv[1:] == ["capacity"] else _ending(rate_per_s)))
    return 0


def _refuse_credentials(engine: str) -> None:
    """The examples know none, and would wait in vain. Raises SettingsError, or ConfigError for credentials in error."""
    given = merged_environment(os.environ, ROOT / ".env")
    if not (brokers := given.get("KAFKA_BROKERS")):
        return
    protocol = client_config(given, brokers=brokers).properties["security.protocol"]
    if protocol.upper() != "PLAINTEXT":
        raise SettingsError(
            f"OPERATOR={engine} cannot be used with the Kafka of KAFKA_BROKERS: the examples know no credentials "
            f"and certificates, which security.protocol={protocol} needs (see examples/operators/README.md)"
        )


def _measure(
    environment: Mapping[str, str], topics: tuple[str, str], *, size: int, rate_per_s: float, delay_ms: float
) -> None:
    """A stand-in with a delay, and a run of fixed size."""
    pace = f"{rate_per_s:g} a second" if rate_per_s else "as fast as possible"
    with _children(environment) as start:
        told = (
            f"holds each message for {delay_ms:g} ms, and copies",
            "the message's Kafka timestamp as timestamp_start.",
        )
        _start_operator(start, topics, told, "--delay-ms", f"{delay_ms:g}")
        _say(f"Sending {size} messages to the input topic, {pace}, and measuring the output topic.")
        run = start("run", *_run(topics), "--size", str(size), "--rate", f"{rate_per_s:g}", "--keyname", "containerId",
                    shown_lines=_FIRST_LINES_OF_RUN)  # fmt: skip
        run.finish()


def _search(environment: Mapping[str, str], topics: tuple[str, str], *, service_time_ms: float) -> None:
    """A stand-in of known capacity, and the search for it."""
    with _children(environment) as start:
        known = f"{1_000 / service_time_ms:g}" if service_time_ms else "unlimited"
        told = (
            f"needs {service_time_ms:g} ms for each message: its",
            f"capacity is {known} a second (the search is not told).",
        )
        _start_operator(start, topics, told, "--service-time-ms", f"{service_time_ms:g}")
        _say("Searching the highest rate that it sustains: each line is a rate that was held for some seconds.")
        run = start(
            "run", *_run(topics), "--find-capacity", "--rate", _FIRST_PER_S, "--step-duration", _STEP, "--warmup", "1s",
            "--resolution", _RESOLUTION, "--fail-if", "p99 > 2s", shown_lines=1_000,
        )  # fmt: skip
        run.finish()


def _run(topics: tuple[str, str]) -> Sequence[str]:
    engine = os.environ.get("OPERATOR")
    return (
        sys.executable,
        str(ROOT / "PerfRun.py"),
        "--input",
        topics[0],
        "--output",
        topics[1],
        "--folder",
        str(OUTPUT),
        *(reading_flags(engine) if engine else ()),
    )


def _start_operator(start: Callable[..., Child], topics: tuple[str, str], told: tuple[str, str], *flags: str) -> None:
    """The engine that OPERATOR names, else the stand-in with these flags, of which `told` says what it does."""
    if engine := os.environ.get("OPERATOR"):
        _say(f"Starting an operator on {engine}, which copies the message's Kafka timestamp as timestamp_start.")
        command = start_command(engine, input_topic=topics[0], output_topic=topics[1])
        start("operator", *command).wait_for(ENGINES[engine].ready)
        return
    _say(f"Starting a stand-in for your streams operator: it {told[0]}")
    _say(told[1], more=True)
    command = [sys.executable, "-m", "demo.streams_operator", "--input", topics[0], "--output", topics[1], *flags]
    start("operator", *command).wait_for("operator ready")


@contextlib.contextmanager
def _children(environment: Mapping[str, str]) -> Iterator[Callable[..., Child]]:
    """Starts processes by name and command; all have ended afterwards."""
    children: list[Child] = []

    def start(name: str, *command: str, **how: int) -> Child:
        children.append(Child(name, list(command), environment, **how))
        return children[-1]

    try:
        yield start
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the children's reports are on their way: seconds at most
        for child in reversed(children):
            child.terminate()
        for child in reversed(children):
            child.stop()


def _ending(rate_per_s: float) -> Iterator[str]:
    """Where the report is, what it says, and which figure to quote."""
    report = _read("report.json")
    p99_ms = report["consumer"]["summary"]["delta_ms"]["p99"]
    at = f"at {rate_per_s:g} messages/s" if rate_per_s else "at full speed, which is mostly the wait in the input topic"
    yield f"The report is {_shown(OUTPUT / 'report.html')}. Its verdict: {report['verdict']}"
    yield f"Quote the p99 together with the rate, here {p99_ms:,g} ms {at}; a mean hides the results that came late."


def _search_ending(service_time_ms: float) -> Iterator[str]:
    found = _read("capacity.json")
    yield f"The report is {_shown(OUTPUT / 'capacity.html')}. Its verdict: {found['line']}."
    if service_time_ms and not os.environ.get("OPERATOR"):
        yield f"The stand-in's true capacity is {1_000 / service_time_ms:g} messages/s."
    yield "Quote the capacity together with its limit (p99 > 2s), and measure latency at a rate well below it."


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((OUTPUT / name).read_bytes())
    return found


@contextlib.contextmanager
def _cluster() -> Iterator[dict[str, str]]:
    """The environment of the child processes: with the user's Kafka, or an embedded broker's address."""
    given = merged_environment(os.environ, ROOT / ".env")
    own = {variable.name for variable in VARIABLES} | {option.variable for option in OPTIONS.values()}
    clean = {name: value for name, value in given.items() if name not in own}
    if given.get("KAFKA_BROKERS"):
        _say(f"Using the Kafka of KAFKA_BROKERS: {given['KAFKA_BROKERS']}")
        connection = {variable.name for variable in VARIABLES} | {"KAFKA_BROKERS"}
        yield clean | {name: value for name, value in given.items() if name in connection}
        return
    _say(f"Starting a real Apache Kafka {KAFKA_VERSION} broker on this machine (the first time it is downloaded).")
    with EmbeddedBroker() as broker:
        yield clean | {"KAFKA_BROKERS": broker.bootstrap_servers, EMBEDDED: "1"}
        _say("Stopping the broker.")


@contextlib.contextmanager
def _topics(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """An input and an output topic of this run's own, removed afterwards."""
    names = tuple(f"perf-demo-{time.time_ns() // 1_000_000}-{side}" for side in ("input", "output"))
    _say("Creating an input and an output topic, both with message.timestamp.type=LogAppendTime.")
    command = [sys.executable, str(ROOT / "PerfTopics.py"), "create", *names, "--partitions", str(_PARTITIONS)]
    print(f"    $ {_as_typed(command)}", flush=True)
    try:
        if subprocess.run(command, env=dict(environment), cwd=_folder(environment), check=False).returncode:
            raise DemoError("the topics were not created")
        yield names[0], names[1]
    finally:
        admin = Admin(client_config(environment, brokers=environment["KAFKA_BROKERS"]))
        for name in names:
            with contextlib.suppress(Fault):
                admin.delete(name)


def _folder(environment: Mapping[str, str]) -> Path:
    """Where the processes run: with the user's Kafka beside their .env, which is not for the embedded broker."""
    return OUTPUT if EMBEDDED in environment else ROOT


def _say(text: str, *, more: bool = False) -> None:
    print(f"{'   ' if more else chr(10) + '==>'} {text}", flush=True)


def _as_typed(command: Sequence[str]) -> str:
    """The command as a user in the repository's folder would type it."""
    return shlex.join(part.replace(sys.executable, "python").replace(f"{ROOT}{os.sep}", "") for part in command)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _delay(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 30_000:
        raise ValueError("milliseconds from 0 to 30000, such as 5 or 0.5")
    return value


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
