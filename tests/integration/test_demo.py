"""`make demo` as a user runs it: it shows the whole measurement, and stops all that it started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import ROOT, Scripts

pytestmark = pytest.mark.integration


@pytest.fixture
def demo(scripts: Scripts) -> Iterator[subprocess.Popen[str]]:
    """The demo with 2,000 messages, its own broker unless KAFKA_BROKERS is set, and its end whatever happens."""
    variables = {"SIZE": "2000", "RATE": "1000", "DELAY_MS": "3"}
    given = {name: os.environ[name] for name in ("KAFKA_BROKERS",) if name in os.environ}
    environment = {name: value for name, value in scripts.environment.items() if name != "KAFKA_BROKERS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**environment, **given, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_the_demo_shows_a_whole_measurement(demo: subprocess.Popen[str]) -> None:
    """It ends with 0, shows what the scripts printed, and its results hold every message, delayed as asked."""
    stdout, _ = demo.communicate(timeout=100)
    assert demo.returncode == 0, stdout
    assert re.search(r"run \| \[STAT 100\] - Average \S+ milliseconds / message", stdout)
    assert re.search(r"run \| \[TOTAL\] - Total Number of messages read: 2000", stdout)
    assert re.search(r"run \| +acknowledged +2000", stdout)
    summary = json.loads((ROOT / "demo-output" / "consumer.json").read_text())["summary"]
    assert summary["measured"] == 2000
    assert summary["delta_ms"]["min"] >= 3
    assert "report.html. Its verdict: Half of 2,000 results came within" in stdout
    assert "Quote the p99 together with the rate" in stdout
    assert (ROOT / "demo-output" / "consumer.txt").read_text().count("[STAT 100]") == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_all_that_it_started(demo: subprocess.Popen[str], number: signal.Signals) -> None:
    """Interrupted while it measures, the demo ends with 130 and leaves no process and no data, but what was
    measured. A second one, which would write to the same folder, is refused meanwhile."""
    assert demo.stdout is not None
    assert next(line for line in demo.stdout if line.startswith("==>"))  # from then on, and seconds before its end
    second = subprocess.run([sys.executable, "-m", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (second.returncode, second.stderr) == (2, "Another demo is running, and writes to demo-output.\n")
    for line in demo.stdout:
        if "[STAT 100]" in line:
            break
    started = psutil.Process(demo.pid).children(recursive=True)
    assert len(started) >= 3
    demo.send_signal(number)
    stdout, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, stdout
    assert "Traceback" not in stdout
    assert "Stopped. What was measured until then is in demo-output/run.txt." in stdout
    assert "Stopped by SIG" in (ROOT / "demo-output" / "run.txt").read_text()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def test_a_failed_step_is_said(scripts: Scripts) -> None:
    """A value that is not allowed ends the demo with one sentence before anything is started."""
    command = [sys.executable, "-m", "demo"]
    environment = {**scripts.environment, "SIZE": "many"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "SIZE: many is not allowed" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_example_is_refused_a_secured_kafka(tmp_path: Path) -> None:
    """OPERATOR with credentials ends the demo with one sentence before anything is built, downloaded or reached."""
    environment = Scripts("broker.invalid:9093", tmp_path).environment
    environment |= {"OPERATOR": "kafka-streams", "KAFKA_APIKEY": "not-shown"}
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "the examples know no credentials" in done.stderr
    assert "security.protocol=SASL_SSL" in done.stderr
    assert "not-shown" not in done.stdout + done.stderr
    assert "==>" not in done.stdout
