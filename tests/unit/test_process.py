"""What every script does as a process: exit codes, signals, stdout that goes away."""

from __future__ import annotations

import errno
import logging
import os
import platform
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import measure

from perf import process, result
from perf.limits import Limit, parse
from perf.process import ExitCode, Output, Stop, exit_code, report
from perf.settings import Settings
from perf.stats import Statistics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def signals() -> Iterator[None]:
    """Puts the signal handlers back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stopped_by(number: int) -> Stop:
    """A Stop that this signal has reached."""
    stop = Stop().listen()
    signal.raise_signal(number)
    return stop


def run_python(code: str, *, stdout: int | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """`code`, which has `process` imported, as a process of its own."""
    program = "import os, signal, sys, time\nfrom perf import process\n" + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )


class Pipe:
    """A stdout that takes so many writes and is broken from then on."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[str] = []
        self.calls = 0

    def write(self, text: str) -> None:
        """Take `text`, or fail as a closed pipe does."""
        self.calls += 1
        if len(self.taken) == self.room:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.taken.append(text)


# ------------------------------------------------------------------------------------------------------------- output


def test_lines_are_written_as_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    """A group of lines is one write, and an empty group none."""
    pipe = Pipe(10)
    output = Output(Stop(), pipe.write)
    output.lines(["one", "two"])
    output.lines([])
    output.lines(iter(["three"]))
    assert pipe.taken == ["one\ntwo\n", "three\n"]
    assert capsys.readouterr() == ("", "")
    assert not output.lost


def test_stdout_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without another sink the lines go to stdout."""
    Output(Stop()).lines(["hello"])
    assert capsys.readouterr().out == "hello\n"


def test_when_stdout_goes_away_the_rest_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The group that could not be written and all later ones are on stderr, and the run is asked to stop."""
    stop, pipe = Stop(), Pipe(1)
    output = Output(stop, pipe.write)
    output.lines(["one"])
    assert not stop()
    output.lines(["two"])
    assert stop() and output.lost
    output.lines(["three"])
    assert capsys.readouterr().err == "two\nthree\n"
    assert pipe.calls == 2
    assert caplog.text.count("stdout cannot be written (Broken pipe)") == 1


# --------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("outcome", [0, 3, 4, 5, 6])
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize(("number", "code"), [(0, None), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("signals")
def test_the_signal_comes_first_then_the_outcome_then_the_report(
    outcome: int, written: bool, number: int, code: int | None
) -> None:
    """130 or 143 after a signal, else 3 to 6, else 1 for a report that was not written, else 0."""
    stop = stopped_by(number) if number else Stop()
    assert exit_code(stop, outcome, written=written) == (code or outcome or (0 if written else 1))


def test_the_exit_codes_are_the_documented_ones() -> None:
    """Kubernetes manifests rely on these numbers."""
    assert [code.value for code in ExitCode] == list(range(7))
    assert ExitCode.LIMIT_EXCEEDED.value == 6
    assert (ExitCode.USAGE, ExitCode.CONNECTION, ExitCode.NOT_ACKNOWLEDGED, ExitCode.NO_MEASUREMENT) == (2, 3, 4, 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("signals")
def test_a_first_signal_asks_to_stop(number: int) -> None:
    """The signal sets the flag, and its number is kept for the exit code."""
    stop = Stop().listen()
    assert not stop()
    signal.raise_signal(number)
    assert stop()
    assert stop.signal_number == number


def test_stopping_for_another_reason_is_no_signal() -> None:
    """A stop without a signal leaves the exit code to the outcome."""
    stop = Stop()
    stop.request()
    assert stop()
    assert exit_code(stop, 5, written=True) == 5


RAISING = "\ndef main(): raise Error('SIZE')\nprocess.run(main)"


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        ("process.run(lambda: 0)", 0, ""),
        ("process.run(lambda: process.ExitCode.NO_MEASUREMENT)", 5, ""),
        (f"from perf.settings import SettingsError as Error{RAISING}", 2, "error: SIZE\n"),
        (f"from perf.result import ResultError as Error{RAISING}", 2, "error: SIZE\n"),
        (f"from perf.result import NotWrittenError as Error{RAISING}", 1, "error: SIZE\n"),
        ("process.run(lambda: 1 // 0)", 1, "error: unexpected ZeroDivisionError: "),
        ("process.run(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9))", 143, "error: stopped before"),
        ("process.run(lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(9))", 130, "error: stopped before"),
    ],
)  # fmt: skip
def test_a_process_ends_with_a_code_and_a_sentence(code: str, expected: int, said: str) -> None:
    """Whatever ends `main`, there is the exit code of the table and one line, never a traceback."""
    done = run_python(code)
    assert (done.returncode, done.stdout) == (expected, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)
    assert "Traceback" not in done.stderr


def test_a_defect_can_be_traced() -> None:
    """With PERF_DEBUG=1 an unexpected error shows where it comes from."""
    done = run_python("process.run(lambda: 1 // 0)", PERF_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


def test_a_second_signal_ends_the_process_at_once() -> None:
    """Where the first signal is being obeyed too slowly, the second one does not wait."""
    done = run_python("""
        def main():
            stop = process.Stop().listen()
            os.kill(os.getpid(), signal.SIGTERM)
            print("stopping", stop(), flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(9)
            print("never")
        process.run(main)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (130, "stopping True\n", "")


REPORTING = """
    def main():
        stop = process.Stop()
        output = process.Output(stop)
        for number in range(3):
            output.lines([f"line {number}"])
        return process.exit_code(stop, 0, written=not output.lost)
    process.run(main)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_moves_the_report_to_stderr() -> None:
    """All lines are on stderr, the exit code is 1, and Python has nothing to complain about at the end."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run_python(REPORTING, stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 1
    assert done.stderr == (
        "error: stdout cannot be written (No space left on device): the report follows here\nline 0\nline 1\nline 2\n"
    )


def test_a_closed_pipe_behind_stdout_moves_the_report_to_stderr() -> None:
    """As with `| head -1` once it has gone: the lines are on stderr, and the exit code is 1."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_python(REPORTING, stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout cannot be written (Broken pipe)")
    assert done.stderr.endswith("line 0\nline 1\nline 2\n")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


# -------------------------------------------------------------------------------------------------------------- files


def test_what_can_be_written_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be written, or whose content cannot be made, is said, and the others are still written."""
    absent, last = tmp_path / "absent" / "a.json", tmp_path / "b.json"
    with caplog.at_level(logging.ERROR):
        assert not process.written(
            lambda: result.write_file(absent, b"a"), [].pop, lambda: result.write_file(last, b"b")
        )
    assert last.read_bytes() == b"b"
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"the file {absent} was not written: No such file or directory"
    assert said[1].startswith("unexpected IndexError") and len(said) == 2


def test_nothing_to_write_is_written() -> None:
    """Without a file that is asked for nothing is missing."""
    assert process.written()
    assert process.written(lambda: False)


# ------------------------------------------------------------------------------------------------------------- report


def reported(
    path: Path | None,
    *,
    stop: Stop | None = None,
    outcome: int = 0,
    output: Output | None = None,
    fail_if: tuple[Limit, ...] = (),
    publish: Callable[[result.Result], None] | None = None,
) -> int:
    """The exit code of a report of three samples."""
    statistics = Statistics()
    measure(statistics, [1, 2, 3])
    return report(
        "Summary of the test",
        statistics.summary(elapsed_s=1.0),
        options=Settings(topic="t", result=path, fail_if=fail_if),
        config={"bootstrap.servers": "b:1"},
        histograms=statistics.histograms(),
        started_at=process.now(),
        stop=stop or Stop(),
        outcome=outcome,
        output=output,
        details=statistics.details(),
        publish=publish,
    )


def test_a_report_is_on_stdout_and_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary is printed, and the file holds it with the exit code of the process."""
    path = tmp_path / "result.json"
    assert reported(path, outcome=5) == 5
    assert "Summary of the test\n  verdict                          valid: " in capsys.readouterr().out
    found = result.read(path)
    assert (found.exit_code, found.topic, found.configuration) == (5, "t", {"bootstrap.servers": "b:1"})
    assert found.summary.delta_ms.mean == 2.0 if isinstance(found, result.ConsumerResult) else False


@pytest.mark.usefixtures("signals")
def test_a_result_that_cannot_be_written_leaves_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The summary is still on stdout, the reason is said, and the exit code is 1, unless something worse happened."""
    path = tmp_path / "absent" / "result.json"
    with caplog.at_level(logging.ERROR):
        assert reported(path) == 1
    assert "Summary of the test" in capsys.readouterr().out
    assert f"{path} was not written" in caplog.text
    assert reported(path, outcome=4) == 4
    assert reported(path, stop=stopped_by(signal.SIGTERM)) == 143


def test_a_result_that_cannot_be_written_is_still_published(tmp_path: Path) -> None:
    """Other processes of the run get it all the same."""
    published: list[result.Result] = []
    assert reported(tmp_path / "absent" / "result.json", publish=published.append) == 1
    assert len(published) == 1


def test_a_report_without_stdout_is_on_stderr_and_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lost stdout makes the exit code 1, also in the result file, and the summary is on stderr."""
    path, stop = tmp_path / "result.json", Stop()
    assert reported(path, stop=stop, output=Output(stop, Pipe(0).write)) == 1
    assert "Summary of the test" in capsys.readouterr().err
    assert result.read(path).exit_code == 1


EXCEEDED, HOLDS = parse("p99 > 2ms"), parse("mean > 1s")


def test_limits_stand_under_the_summary_and_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each limit is said with its value; one that is exceeded makes the exit code 6, also in the result."""
    path = tmp_path / "result.json"
    sentences = ["mean > 1s: mean is 2 ms: holds", "p99 > 2ms: p99 is 3 ms: exceeded"]
    assert reported(path, fail_if=(HOLDS, EXCEEDED)) == ExitCode.LIMIT_EXCEEDED
    assert capsys.readouterr().out.endswith("\nLimits\n" + "".join(f"  {sentence}\n" for sentence in sentences))
    found = result.read(path)
    assert (found.exit_code, found.limits) == (6, sentences)
    assert reported(path, fail_if=(HOLDS,)) == 0
    assert result.read(path).limits == sentences[:1]


@pytest.mark.parametrize("outcome", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("number", "code"), [(0, None), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("signals")
def test_a_limit_comes_behind_a_signal_and_a_worse_outcome(outcome: int, number: int, code: int | None) -> None:
    """A run that failed is not judged by its numbers, although they are said."""
    stop = stopped_by(number) if number else Stop()
    assert reported(None, outcome=outcome, stop=stop, fail_if=(EXCEEDED,)) == (code or outcome)
    assert reported(None, stop=stop, fail_if=(EXCEEDED,)) == (code or 6)


def test_a_limit_comes_before_a_report_that_was_not_written(tmp_path: Path) -> None:
    """6 says more than 1, whether stdout or the file is lost."""
    stop = Stop()
    assert reported(None, stop=stop, output=Output(stop, Pipe(0).write), fail_if=(EXCEEDED,)) == 6
    assert reported(tmp_path / "absent" / "result.json", fail_if=(EXCEEDED,)) == 6


def test_a_limit_that_cannot_be_judged_is_exceeded(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on what was not measured never passes silently."""
    assert reported(None, fail_if=(parse("lost > 0"),)) == 6
    assert "lost > 0: lost is n/a" in capsys.readouterr().out


def test_the_time_that_names_a_run_is_utc() -> None:
    """ISO 8601 with milliseconds and the offset of UTC."""
    assert process.now().endswith("+00:00")
    assert len(process.now()) == len("2026-11-23T08:00:00.000+00:00")


# ------------------------------------------------------------------------------------------------ termination message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SettingsError('RATE: x is not allowed')", "RATE: x is not allowed"),
        ("raise ValueError('odd\\nlines')", "unexpected ValueError: odd lines (a defect of this tool"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "stopped before anything was done"),
        ("return 0", ""),
    ],
)
def test_an_early_end_is_said_in_the_termination_message(tmp_path: Path, code: str, message: str) -> None:
    """What ends a process before it has anything to report stands in the file, as one line."""
    path = tmp_path / "message"
    run_python(
        f"""
        from perf.settings import SettingsError
        def main():
            {code}
        process.run(main)
        """,
        TERMINATION_MESSAGE_PATH=str(path),
    )
    assert path.read_text().startswith(message)
    assert "\n" not in path.read_text()


def test_a_report_is_said_in_the_termination_message(tmp_path: Path) -> None:
    """Errors come before the verdict, each sentence once, at most 4096 bytes; a flag serves as the variable does."""
    path = tmp_path / "message"
    run_python(
        """
        def main():
            process.log.error("first")
            process._last_words.sentences += ["verdict", "first", "ä" * 5000]
            return 0
        sys.argv = ["x", "--other", "--termination-message", os.environ["HERE"]]
        process.run(main)
        """,
        HERE=str(path),
    )
    assert path.read_bytes() == "; ".join(["first", "verdict", "ä" * 5000]).encode()[:4096]


def test_a_termination_message_that_cannot_be_written_is_only_a_warning(tmp_path: Path) -> None:
    """The exit code tells how the run ended."""
    done = run_python("process.run(lambda: 0)", TERMINATION_MESSAGE_PATH=str(tmp_path))
    assert done.returncode == 0
    assert f"warning: the termination message cannot be written to {tmp_path}: Is a directory" in done.stderr


HEAPS = """
import ctypes, threading
from perf import process

def main():
    kept, done = [], threading.Barrier(5)
    def work():
        kept.append(ctypes.CDLL(None).malloc(100_000))
        done.wait()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    done.wait()
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
    libc.fflush(None)
    return 0

RUN
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap for each thread")
@pytest.mark.parametrize(("run", "several"), [("process.run(main)", False), ("main()", True)])
def test_all_threads_share_one_heap(run: str, several: bool) -> None:
    """What a backlog once took is used again, by whatever thread; else threads have heaps of their own."""
    done = subprocess.run(
        [sys.executable, "-c", HEAPS.replace("RUN", run)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout.count("<heap nr=") > 1) is several
