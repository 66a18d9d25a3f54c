"""What a person at a terminal sees: progress and the last seconds, which do not tear the product's lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pyte
import pytest
from harness import ROOT, TIMEOUT_S, Cluster, Scripts

pytestmark = pytest.mark.integration

COLUMNS, ROWS = 120, 60
STAMP_MS = 1_795_000_000_000
VIEW = re.compile(r"backlog 0; last 10 s: [\d,.]+ messages/s, p50 7, p99 7, max 7 ms")


class Terminal:
    """A process in a terminal, and what stands on its screen."""

    def __init__(self, scripts: Scripts, *command: str, **variables: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**scripts.environment, "TERM": "xterm", **variables}
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=slave, stderr=slave, env=environment, cwd=scripts.folder
        )
        os.close(slave)
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""

    def read(self) -> bool:
        """Take in what the process wrote; False at the end."""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's end of a terminal
            data = b""
        self.written += data
        self._stream.feed(data)
        return bool(data)

    @property
    def lines(self) -> list[str]:
        """The screen's lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def wait_for(self, shown: Callable[[list[str]], object]) -> None:
        """Until the screen is as wanted."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not shown(self.lines):
            assert self.read() and time.monotonic() < deadline_s, self.lines

    def end(self) -> int:
        """Stop the process as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        while self.read():
            pass
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def consumer(scripts: Scripts, cluster: Cluster) -> Iterator[Callable[..., Terminal]]:
    """Starts consumers in terminals, of 2,000 messages with a delta of 7 ms."""
    started: list[Terminal] = []

    def start(**variables: str) -> Terminal:
        topic = cluster.create_topic(timestamp_type="CreateTime")
        values: list[bytes | None] = [b'{"timestamp_start":%d}' % (STAMP_MS - 7)] * 2_000
        cluster.produce(topic, values, timestamp=STAMP_MS)
        started.append(Terminal(scripts, str(ROOT / "PerfConsumer.py"), "--topic", topic, **variables))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def test_live_view_on_a_terminal(consumer: Callable[..., Terminal]) -> None:
    """Messages and rate, under them backlog and the last 10 s; above, all product and log lines whole, and it goes."""
    terminal = consumer()
    counted = re.compile(r"2\.00k messages \[00:0\d, \S+ ?messages/s\]")  # the two lines are not drawn at once
    terminal.wait_for(lambda lines: len(lines) > 1 and VIEW.fullmatch(lines[-1]) and counted.match(lines[-2]))
    above = terminal.lines[:-2]
    assert above.count("[STAT 100] - Average 7.0 milliseconds / message") == 20
    assert above.count("[TOTAL] - Total Number of messages read: 2000") == 1
    assert sum(line.startswith(("warning: the topic", "-- reading topic")) for line in above) == 2
    assert terminal.end() == 130
    assert "Summary of the consumer" in " ".join(terminal.lines)
    assert not [line for line in terminal.lines if "messages [" in line or "backlog" in line]


def test_what_just_came_is_shown_only_while_it_is_recent() -> None:
    """The last seconds are the difference between now and 10 s ago: what came before is in none of their figures."""
    from perf.live import Recent
    from perf.stats import Histogram

    histogram, recent = Histogram(), Recent()
    recent.add(0.0, 0, histogram.tally())
    histogram.add([5_000] * 100)
    assert recent.add(5.0, 100, histogram.tally()).tally.percentile(100) == pytest.approx(5_000, rel=0.001)
    histogram.add([-3, 8, 9])
    found = recent.add(15.0, 103, histogram.tally())
    assert found.rate_per_s == pytest.approx(0.3)
    assert [found.tally.percentile(percent) for percent in (1, 50, 100)] == [-3, 8, 9]
    assert recent.add(26.0, 103, histogram.tally()).tally.percentile(50) is None


@pytest.mark.parametrize(("variables", "dimmed"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_no_color(consumer: Callable[..., Terminal], variables: dict[str, str], dimmed: bool) -> None:
    """NO_COLOR and a dumb terminal get no colours or other attributes of characters."""
    terminal = consumer(**variables)
    terminal.wait_for(lambda lines: lines and VIEW.fullmatch(lines[-1]))
    assert bool(re.search(rb"\x1b\[[0-9;]*m", terminal.written)) is dimmed
    assert terminal.end() == 130


def test_json_on_a_terminal(consumer: Callable[..., Terminal]) -> None:
    """Log lines for a collector are not mixed with progress, be it a terminal that they are written to."""
    terminal = consumer(LOG_FORMAT="json")
    terminal.wait_for(lambda lines: "[TOTAL] - Total Number of messages read: 2000" in lines)
    assert terminal.end() == 130
    assert b"messages/s]" not in terminal.written and b"\x1b" not in terminal.written


def test_no_progress_line_elsewhere(scripts: Scripts, cluster: Cluster) -> None:
    """Without a terminal stderr holds log lines only."""
    topic = cluster.create_topic()
    cluster.produce(topic, [b"{}"])
    done = scripts.run("PerfConsumer.py", "--topic", topic, "--idle-timeout", "1s")
    assert all(re.match(r"(--|warning:|error:) ", line) for line in done.stderr.splitlines()), done.stderr
