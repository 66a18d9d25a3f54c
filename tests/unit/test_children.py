"""Child processes: heard, waited for, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from perf.children import Children
from perf.process import Stop

SLEEPS = "import time\nprint('ready', flush=True)\ntime.sleep(60)"


def children(folder: Path, heard: list[tuple[str, str]]) -> Children:
    """Children whose lines are kept."""
    return Children(folder, os.environ, lambda name, line: heard.append((name, line)), Stop())


def test_what_a_child_says_is_heard_and_kept(tmp_path: Path) -> None:
    """Whole lines of stdout and stderr come in order with the child's name, and stand in its file."""
    heard: list[tuple[str, str]] = []
    code = "import sys; print('one\\n[STAT]', flush=True); print('error: two', file=sys.stderr); sys.exit(3)"
    with children(tmp_path, heard) as all_of_them:
        child = all_of_them.start("speaker", "-c", code)
        assert all_of_them.wait(lambda: child.exit_code is not None, 30)
        assert child.exit_code == 3
        assert child.has_said("one") and not child.has_said("[STAT]")
    assert heard == [("speaker", "one"), ("speaker", "[STAT]"), ("speaker", "error: two")]
    assert (tmp_path / "speaker.txt").read_text() == "one\n[STAT]\nerror: two\n"


def test_a_wait_ends_when_time_is_up(tmp_path: Path) -> None:
    """A condition that does not come true is not waited for longer than was said."""
    with children(tmp_path, []) as all_of_them:
        start_s = time.monotonic()
        assert not all_of_them.wait(lambda: False, 0.2)
        assert time.monotonic() - start_s < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_child_that_is_stopped_has_ended(tmp_path: Path, number: signal.Signals) -> None:
    """After a stop the process is gone, and its exit code tells the signal."""
    with children(tmp_path, []) as all_of_them:
        child = all_of_them.start("sleeper", "-c", f"import signal; signal.signal(2, signal.SIG_DFL)\n{SLEEPS}")
        assert all_of_them.wait(lambda: child.has_said("ready"), 30)
        all_of_them.stop([child], number)
        assert child.exit_code == 128 + number


def test_nothing_is_left_running_however_it_ends(tmp_path: Path) -> None:
    """An exception ends the children; so does the death of the parent by SIGKILL."""
    parent = (
        "import os, sys\nfrom pathlib import Path\nfrom perf.children import Children\nfrom perf.process import Stop\n"
        f"with Children(Path({str(tmp_path)!r}), os.environ, lambda *_: None, Stop()) as c:\n"
        f"    one = c.start('sleeper', '-c', {SLEEPS!r})\n"
        "    c.wait(lambda: one.has_said('ready'))\n"
        "    print(one._process.pid, flush=True)\n"
        "    c.wait(lambda: os.path.exists('never'))\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    child.wait(timeout=20)
    with pytest.raises(RuntimeError), children(tmp_path, []) as all_of_them:
        started = all_of_them.start("sleeper", "-c", SLEEPS)
        raise RuntimeError
    assert started.exit_code == 128 + signal.SIGKILL
