"""What a person at a terminal sees: a progress line that does not tear the product's lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from harness import ROOT, Cluster, Scripts

pytestmark = pytest.mark.integration


def run_in_terminal(scripts: Scripts, *command: str) -> str:
    """Everything that the process writes to a terminal of 120 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *command], stdout=slave, stderr=slave, env=scripts.environment, cwd=scripts.folder
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # Linux's end of a terminal
            data = b""
        if not data:
            break
        seen += data
    os.close(master)
    assert process.wait(30) == 0
    return seen.decode()


def test_progress_line_on_a_terminal(scripts: Scripts, cluster: Cluster) -> None:
    """On a terminal the consumer shows messages, rate, average and lag on one line, and every STAT line whole."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    stamp_ms = 1_795_000_000_000
    cluster.produce(topic, [b'{"timestamp_start":%d}' % (stamp_ms - 7)] * 2_000, timestamp=stamp_ms)
    flags = ("--topic", topic, "--idle-timeout", "2s")
    seen = run_in_terminal(scripts, str(ROOT / "PerfConsumer.py"), *flags)
    assert re.search(r"\r2\.00k messages \[00:0\d, \S+ messages/s, average 7\.0 ms, lag 0\]", seen)
    # what a line feed leaves on the screen is what stands after the last carriage return before it
    lines = [line.rstrip("\r").rpartition("\r")[2].lstrip() for line in seen.split("\n")]
    assert lines.count("[STAT 100] - Average 7.0 milliseconds / message") == 20
    assert lines.count("[TOTAL] - Total Number of messages read: 2000") == 1


def test_no_progress_line_elsewhere(scripts: Scripts, cluster: Cluster) -> None:
    """Without a terminal stderr holds log lines only."""
    topic = cluster.create_topic()
    cluster.produce(topic, [b"{}"])
    done = scripts.run("PerfConsumer.py", "--topic", topic, "--idle-timeout", "1s")
    assert all(re.match(r"(--|warning:|error:) ", line) for line in done.stderr.splitlines()), done.stderr
