"""What every script does as a process: exit codes, signals, stdout that may go away.

A run goes on until something says stop; `Stop` holds what it was. Exceptions that carry an `exit_code` are sentences
for the user; any other is a defect of this tool and says so, without a bare traceback.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import fcntl
import io
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from . import settings

if TYPE_CHECKING:
    from .coordination import Identity, Journal, Membership
    from .live import Snapshot
    from .result import Result
    from .settings import Settings
    from .stats import ConsumerSummary, Histogram, ProducerSummary

log = logging.getLogger("perf")
_MOST_TERMINATION_BYTES = 4096  # Kubernetes cuts what is longer
_MOST_SENTENCES = 20
_LEVEL_WORDS = {"--": logging.INFO, "warning:": logging.WARNING, "error:": logging.ERROR}  # that a line begins with
_LEVEL_SIGNS = {"✗": logging.ERROR, "!": logging.WARNING}  # of PerfTopics.py check
_LEVELS = {logging.WARNING: "warning", logging.ERROR: "error", logging.CRITICAL: "error"}

FLUSH_GRACE_S = 20.0
_M_ARENA_MAX = -8  # malloc.h
SIGNALLED = 128  # and the signal's number: an exit code


class ExitCode(enum.IntEnum):
    """README.md, "Exit codes". A signal ends in 128 + its number."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    CONNECTION = 3
    NOT_ACKNOWLEDGED = 4
    NO_MEASUREMENT = 5
    LIMIT_EXCEEDED = 6


class Interrupted(BaseException):
    """SIGINT or SIGTERM before there was anything to report."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class Stop:
    """Whether to stop, and by which signal. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal_number = 0
        self.requested = False

    def request(self) -> None:
        """Stop for a reason other than a signal."""
        self.requested = True

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.requested

    def listen(self) -> Stop:
        """From now on signals set this flag instead of raising Interrupted."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            os._exit(SIGNALLED + number)
        self.signal_number = number
        self.requested = True


class Output:
    """stdout, a line group at a time. When it goes away (`| head -1`, a full disk) the rest goes to stderr."""

    def __init__(self, stop: Stop, write: Callable[[str], object] | None = None) -> None:
        self._stop = stop
        self._write = write or _write_stdout
        self.lost = False

    def lines(self, lines: Iterable[str]) -> None:
        """Write the lines and flush them; the first failure asks the run to stop."""
        text = "".join(f"{line}\n" for line in lines)
        if not text:
            return
        if not self.lost:
            try:
                self._write(text)
                return
            except OSError as error:
                self.lost = True
                self._stop.request()
                log.error("stdout cannot be written (%s): the report follows here", os.strerror(error.errno or 0))
        sys.stderr.write(text)


class LastWords(logging.Handler):
    """What a process has to say at its end in one line: its errors, and the verdict that `report` adds."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one of the first errors."""
        if len(self.sentences) < _MOST_SENTENCES:
            self.sentences.append(record.getMessage())

    def write(self, path: Path) -> None:
        """Write them to the file that Kubernetes shows as the reason why a container ended."""
        line = "; ".join(dict.fromkeys(self.sentences)).replace("\n", " ")
        try:
            path.write_bytes(line.encode("utf-8", "backslashreplace")[:_MOST_TERMINATION_BYTES])
        except OSError as error:
            log.warning("the termination message cannot be written to %s: %s", path, error.strerror)


class JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self._script = script

    def format(self, record: logging.LogRecord) -> str:
        """The record: time (ISO 8601, UTC), level, message, script; and exception, where it has one."""
        import json

        at = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _LEVELS.get(record.levelno, "info"),
            "message": record.getMessage(),
            "script": self._script,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


_last_words = LastWords()


def run(main: Callable[[], int]) -> None:
    """Run a script's `main` as a process: logging, signals, exceptions, exit code, termination message."""
    for name, level in _LEVEL_WORDS.items():
        logging.addLevelName(level, name)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_interrupted)
    _make_streams_usable()
    _use_one_heap()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    if settings.early("log_format", sys.argv[1:]) == "json":
        logging.getLogger().handlers[0].setFormatter(JsonLines(Path(sys.argv[0]).name))
    termination_message = settings.early("termination_message", sys.argv[1:])
    logging.getLogger().addHandler(_last_words)
    code = _guarded(main)
    if termination_message is not None:
        _last_words.write(Path(termination_message))
    _discard_broken(sys.stdout)
    sys.exit(code)


def _guarded(main: Callable[[], int]) -> int:
    try:
        return main()
    except Interrupted as interrupted:
        log.error("stopped before anything was done")
        return SIGNALLED + interrupted.signal_number
    except Exception as error:
        if isinstance(error.__cause__, Interrupted):  # raised inside a C function, which makes it a SystemError
            log.error("stopped before anything was done")
            return SIGNALLED + error.__cause__.signal_number
        return failure(error)


def failure(error: Exception) -> int:
    """Say what went wrong; returns the exit code that it leads to."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        log.error("%s", error)
        return int(code)
    debug = bool(os.environ.get("PERF_DEBUG"))
    hint = "" if debug else "; with PERF_DEBUG=1 it shows where"
    log.error("unexpected %s: %s (a defect of this tool%s)", type(error).__name__, error, hint, exc_info=debug)
    return ExitCode.UNEXPECTED


def pass_on(name: str, line: str) -> None:
    """Say on stderr what the child process `name` said in a line: as it is, or as a record where those are JSON."""
    if not any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        sys.stderr.write(f"{name:>8} | {line}\n")
        sys.stderr.flush()
        return
    word, _, rest = line.partition(" ")
    level = {**_LEVEL_WORDS, **_LEVEL_SIGNS}.get(word)
    log.log(level or logging.INFO, "%s: %s", name, (line if level is None else rest).strip())


def also(code: int, action: Callable[[], object]) -> int:
    """Do something more before the end; `code`, or where that is 0 what the failure of `action` leads to."""
    try:
        action()
    except Exception as error:
        failed = failure(error)
        return code or failed
    return code


def written(*writes: Callable[[], object]) -> bool:
    """Do each of `writes`, whatever becomes of the others; whether all could be done. What could not is said.

    Print first: the exit code of what is printed comes before the 1 of a file (`exit_code`).
    """
    return first_of([also(0, write) for write in writes]) == 0


def identity(environment: Mapping[str, str]) -> Identity:
    """This process among those of its run: Kubernetes' completion index, else host and process number."""
    from .coordination import Identity

    return Identity(environment.get("JOB_COMPLETION_INDEX") or f"{platform.node()}-{os.getpid()}", time.time_ns())


def join(role: str, options: Settings, open_journal: Callable[..., Journal]) -> Membership | None:
    """This process's part in the run of RUN_ID; None without one. Raises RunError when the run has ended.

    `open_journal` gets the names of the run's topics, and what it raises is raised.
    """
    if not options.run_id:
        return None
    from .coordination import Membership

    journal = open_journal(announcements=options.runs_topic, results=options.results_topic)
    return Membership.joined(journal, options.run_id, role, identity(options.environment), WallClock().now_ms)


class WallClock:
    """The wall clock of the start, carried on by the monotonic one: a clock that is stepped mid-run does no harm."""

    def __init__(self) -> None:
        self._base_ms = time.time() * 1000 - time.monotonic() * 1000

    def now_ms(self) -> float:
        """Milliseconds since the epoch."""
        return self._base_ms + time.monotonic() * 1000


def lock(path: Path) -> int:
    """Keep others who ask for it out of `path` until the descriptor returned is closed. Raises BlockingIOError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # some file systems know no locks
        pass
    return descriptor


def now() -> str:
    """The wall clock as ISO 8601, to name a run by; durations never come from it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def metrics_views(role: str, options: Settings) -> list[Callable[[Snapshot], None]]:
    """Where snapshots go when --metrics-port is given: to a server, which this opens. Raises SettingsError."""
    if options.metrics_port is None:
        return []
    from .metrics import MetricsServer

    server = MetricsServer(role, options.metrics_port, options)
    log.info("metrics for Prometheus: port %d, /metrics", options.metrics_port)
    return [server.publish]


def report(
    title: str,
    summary: ConsumerSummary | ProducerSummary,
    *,
    options: Settings,
    config: Mapping[str, str],
    histograms: Mapping[str, Histogram],
    started_at: str,
    stop: Stop,
    outcome: int,
    output: Output | None = None,
    versions: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
    publish: Callable[[Result], None] | None = None,
) -> int:
    """Print the summary and the limits, write the result file if one is asked for, and return the exit code.

    `versions` are those of what the script uses; this tool's and Python's are added. `publish` gets the result, too;
    what it raises is said, and leads to exit code 1 where there is no other.
    """
    from . import __version__, result
    from .limits import metrics_of
    from .report.text import limit_lines, summary_lines, verdict_sentences

    output = output or Output(stop)
    output.lines(summary_lines(title, summary))
    outcomes = [limit.check(metrics_of(summary)) for limit in options.fail_if]
    output.lines(limit_lines(outcomes))
    _last_words.sentences += verdict_sentences(summary, outcomes)
    if stop.signal_number:
        _last_words.sentences.append(f"stopped by {signal.Signals(stop.signal_number).name}")
    if any(checked.exceeded for checked in outcomes):
        outcome = outcome or ExitCode.LIMIT_EXCEEDED
    code = exit_code(stop, outcome, written=not output.lost)
    if options.result is None and publish is None:
        return code
    found = result.of(
        summary,
        topic=options.topic,
        configuration=config,
        histograms=histograms,
        started_at=started_at,
        exit_code=code,
        limits=[checked.sentence for checked in outcomes],
        versions={"tool": __version__, "python": platform.python_version(), **(versions or {})},
        details=details or {},
    )
    writes: list[Callable[[], object]] = []
    if options.result is not None:
        writes.append(partial(result.write, options.result, found))
    if publish is not None:
        writes.append(partial(publish, found))
    return exit_code(stop, outcome, written=written(*writes) and not output.lost)


def exit_code(stop: Stop, outcome: int, *, written: bool) -> int:
    """The signal comes first, then `outcome` (3 to 6), then a report that could not be written."""
    if stop.signal_number:
        return SIGNALLED + stop.signal_number
    return outcome or (ExitCode.DONE if written else ExitCode.UNEXPECTED)


def first_of(codes: Iterable[int]) -> int:
    """The exit code where several apply: the lowest, but a report that could not be written (1) comes last."""
    return min((code for code in codes if code), key=lambda code: (code == ExitCode.UNEXPECTED, code), default=0)


class _ClosedStream(io.TextIOBase):
    """What stands for a stream that the caller closed (>&-)."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _make_streams_usable() -> None:
    """A closed stream is one that cannot be written, and a narrow encoding is no reason to fail."""
    if sys.stdout is None:
        sys.stdout = _ClosedStream()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _use_one_heap() -> None:
    """glibc's heaps of each thread keep what a backlog once took, and grow with each one (docs/soak.md)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has none
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _write_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _raise_interrupted(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)


def _discard_broken(stream: TextIO) -> None:
    """A stdout that cannot be flushed would make Python complain, and exit with 120, at the very end."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
