"""Two sets of runs: what differs, with which interval, and when nothing can be said. Figures: docs/compare.md."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import consumer

from benchmarks.calibrate import Simulation, tally
from perf import result
from perf.compare import (
    DELTAS,
    ChangeLimit,
    Comparison,
    Difference,
    Rows,
    compare,
    parse,
    percent,
    student_quantile,
)
from perf.run import Report, report_of
from perf.series import TimeSeries

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pipeline() -> Simulation:
    """The simulated pipeline of docs/compare.md."""
    return Simulation(seed=99)


@pytest.fixture(scope="module")
def usual(pipeline: Simulation) -> Report:
    """A run of it."""
    return pipeline.run()


@pytest.fixture(scope="module")
def slower(pipeline: Simulation) -> Report:
    """A run of it when it is 20 % slower."""
    return pipeline.run(shift=0.2)


def by_name(comparison: Comparison) -> Mapping[str, Difference]:
    """The differences by their metrics."""
    return {found.metric: found for found in comparison.differences}


# ------------------------------------------------------------------------------------------------------- the estimates


def exact_percentile(deltas_ms: Sequence[int], share: float) -> float:
    """The value below which `share` of all lie, each whole millisecond spread evenly over its millisecond."""
    rank = share * len(deltas_ms)
    for value in sorted(set(deltas_ms)):
        below = sum(one < value for one in deltas_ms)
        same = deltas_ms.count(value)
        if below + same >= rank:
            return value - 0.5 + (rank - below) / same
    raise AssertionError


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-150, 150)), min_size=1, max_size=80))
def test_figures_of_all_rows_are_those_of_the_samples(samples: list[tuple[int, int]]) -> None:
    """Mean and percentiles out of the rows equal those computed from every single delta."""
    series = TimeSeries()
    for second, delta_ms in samples:
        series.add(second, {delta_ms: 1})
    deltas_ms = [delta_ms for _, delta_ms in samples]
    figures = Rows(series).figures()
    assert figures["mean"] == pytest.approx(statistics.fmean(deltas_ms), abs=1e-9)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)):
        assert figures[name] == pytest.approx(exact_percentile(deltas_ms, share), abs=1e-6)


@pytest.mark.parametrize(
    ("freedom", "together", "expected"),
    [(1, 1, 12.706), (2, 1, 4.303), (4, 1, 2.776), (9, 1, 2.262), (29, 1, 2.045), (8, 5, 3.355), (4, 5, 4.604)],
)
def test_quantiles_of_t_are_those_of_the_tables(freedom: int, together: int, expected: float) -> None:
    """The two-sided 95 % quantiles, and with Bonferroni's correction those of 99 %, as printed in any table."""
    assert student_quantile(freedom, together) == pytest.approx(expected, abs=0.003)


def test_several_runs_are_welchs_interval(pipeline: Simulation) -> None:
    """Three runs against four: the interval of the mean is Welch's, computed here from the runs' means."""
    sides = [[pipeline.run(seconds=20, run_spread=0.1) for _ in range(size)] for size in (3, 4)]
    logs = [[math.log(report.consumer.summary.delta_ms.mean or 0) for report in side if report.consumer]
            for side in sides]  # fmt: skip
    shares = [statistics.variance(side) / len(side) for side in logs]
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / 2 + shares[1] ** 2 / 3)
    ratio = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    margin = student_quantile(freedom, len(DELTAS)) * math.sqrt(sum(shares))
    found = by_name(compare(sides[0], sides[1]))["mean"]
    assert found.change == pytest.approx(math.expm1(ratio))
    assert (found.low, found.high) == pytest.approx((math.expm1(ratio - margin), math.expm1(ratio + margin)))
    assert found.base == pytest.approx(math.exp(statistics.fmean(logs[0])))


# ----------------------------------------------------------------------------------------------------- what it answers


def test_a_slower_pipeline_is_found(usual: Report, slower: Report) -> None:
    """20 % slower: every figure of the delta is higher, its interval holds the truth, the verdict says slower."""
    comparison = compare([usual], [slower])
    assert comparison.status == "slower"
    assert comparison.verdict.startswith("The new side is slower: p50 +")
    for name in DELTAS:
        found = by_name(comparison)[name]
        assert found.low is not None and found.high is not None
        assert found.outcome == "higher" and found.low < 0.2 < found.high


def test_swapped_sides_are_the_inverse(usual: Report, slower: Report) -> None:
    """Compared the other way round the pipeline is faster, by the inverse factor."""
    there, back = (by_name(compare([one], [other])) for one, other in ((usual, slower), (slower, usual)))
    for name in DELTAS:
        assert (1 + (there[name].change or 0)) * (1 + (back[name].change or 0)) == pytest.approx(1)
        assert back[name].outcome == "lower"


def test_the_same_results_give_the_same_answer(usual: Report, slower: Report) -> None:
    """Random numbers come from a fixed seed."""
    assert compare([usual], [slower]) == compare([usual], [slower])


def test_a_run_does_not_differ_from_itself(usual: Report) -> None:
    """No difference: each is 0 and lies inside its interval."""
    comparison = compare([usual], [usual])
    assert comparison.status == "same"
    assert comparison.verdict.startswith("No difference was shown")
    assert all(by_name(comparison)[name].change == 0 for name in DELTAS)


def test_false_alarms_and_found_shifts() -> None:
    """A small version of `make calibrate`: 20 pairs without difference, and 10 whose new side is 10 % slower."""
    assert tally(20, shift=0.0, first_seed=5_000)["any"] <= 5  # of 5 % of 20, more come once in 3,000 times
    found = tally(10, shift=0.1, first_seed=6_000)
    assert found["any"] >= 8  # of 95 % of 10, fewer come once in 90 times; but the seeds are fixed
    assert found["too little data"] == 0


# ------------------------------------------------------------------------------------------------------ too little data


def test_a_short_run_is_not_judged(pipeline: Simulation, usual: Report) -> None:
    """Thirty seconds are too few rows: it says so, with a number, and has no interval."""
    comparison = compare([usual], [pipeline.run(seconds=30)])
    assert comparison.status == "unknown"
    assert "too little data: 30 of " in comparison.verdict
    assert all(by_name(comparison)[name].low is None for name in DELTAS)


def test_rare_percentiles_need_many_results(
    pipeline: Simulation, usual: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15,000 results are enough for p99 and too few for p99.9."""
    monkeypatch.setattr("benchmarks.calibrate.PER_SECOND", 50)
    found = by_name(compare([usual], [pipeline.run()]))
    assert found["p99.9"].why == "too little data: 15,000 of 20,000 results"
    assert found["p99"].low is not None


def test_two_runs_on_a_side_are_too_few(usual: Report, slower: Report) -> None:
    """With neither one run on each side nor three, nothing is said."""
    for sides in (([usual], [slower, slower]), ([usual, usual], [slower, slower])):
        assert "one run on each side, or at least 3" in compare(*sides).verdict


def test_deltas_of_0_have_no_relative_difference() -> None:
    """Where a percentile is 0 or below there is no ratio, and no interval."""
    zero = report_of([consumer([(number * 10, -1) for number in range(40_000)])], sources=[])
    found = by_name(compare([zero], [zero]))["p50"]
    assert (found.low, found.why) == (None, "a value of 0 or below has no relative difference")


def test_a_result_that_measures_nothing_is_not_compared(usual: Report) -> None:
    """INVALID on one side makes the comparison invalid: exit code 5."""
    invalid = report_of([consumer([], exit_code=5)], sources=["x"])
    comparison = compare([usual], [invalid])
    assert (comparison.status, comparison.exit_code) == ("invalid", 5)


# --------------------------------------------------------------------------------------------------------------- limits


def difference(low: float | None, high: float | None) -> dict[str, Difference]:
    """A difference of p99 with this interval."""
    return {"p99": Difference(metric="p99", base=1.0, new=1.0, change=0.1, low=low, high=high, why="too little data")}


@pytest.mark.parametrize(
    ("text", "low", "high", "outcome"),
    [
        ("p99 > +10%", 0.11, 0.2, "exceeded"),
        ("p99 > +10%", 0.05, 0.2, "open"),
        ("p99 > +10%", 0.0, 0.1, "holds"),
        ("p99 > 10%", -0.2, 0.0999, "holds"),
        ("p99 < -5%", -0.2, -0.06, "exceeded"),
        ("delta p99 < -5 %", -0.2, 0.0, "open"),
        ("P99 <= -5%", -0.05, 0.1, "holds"),
        ("p99 > +10%", None, None, "unknown"),
    ],
)
def test_a_limit_is_exceeded_only_beyond_the_interval(
    text: str, low: float | None, high: float | None, outcome: str
) -> None:
    """Exceeded where the whole interval is beyond the limit; open where the limit lies inside."""
    assert parse(text).judge(difference(low, high)).outcome == outcome


@pytest.mark.parametrize("text", ["", "p99", "p99 > 10", "p99 > 10ms", "lost > 10%", "p99 == 10%", "p99 > ten%"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    """What is no limit on a change is refused with what is allowed."""
    with pytest.raises(ValueError, match="such as 'p99 > "):
        parse(text)


def test_percent_is_for_people() -> None:
    """A sign always, one decimal, no minus zero, and nothing beyond reason."""
    assert [percent(value) for value in (0.1234, -0.05, -0.0001, 0.0, 25.0, None)] == [
        "+12.3 %", "−5.0 %", "+0.0 %", "+0.0 %", "over +1000 %", "n/a",
    ]  # fmt: skip
    assert parse("p99 > +10%") == ChangeLimit("p99 > +10%", "p99", True, 0.1)


# ----------------------------------------------------------------------------------------------------------- the script


@pytest.fixture
def folder(tmp_path: Path, usual: Report, slower: Report) -> Path:
    """Two runs as files."""
    result.write(tmp_path / "base.json", usual)
    result.write(tmp_path / "new.json", slower)
    return tmp_path


def script(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """PerfReport.py compare as a process."""
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    command = [sys.executable, str(ROOT / "PerfReport.py"), "compare", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("limits", "code"),
    [([], 0), (["p99 > +1%"], 6), (["p99 > +20%"], 0), (["p99 > +60%"], 0), (["p50 > +1%", "max > +1%"], 6),
     (["visible p99 > +10%"], 5)],
)  # fmt: skip
def test_the_exit_code_of_a_comparison(folder: Path, limits: list[str], code: int) -> None:
    """6 only where an interval excludes the limit; 5 where a limit cannot be judged; 0 where it is undecided."""
    flags = [word for limit in limits for word in ("--fail-if", limit)]
    done = script(folder, "base.json", "--", "new.json", *flags)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith("The new side is slower: " if code != 6 else f"1 of {len(limits)} limits exceeded")


def test_what_is_written_is_what_is_shown(folder: Path) -> None:
    """The JSON has the differences of the table; flags may stand anywhere, limits may come from FAIL_IF."""
    done = script(folder, "--json", "c.json", "base.json", "--html", "c.html", "--", "new.json", FAIL_IF="p50 > +1%")
    assert done.returncode == 6
    document = json.loads((folder / "c.json").read_text())
    assert document["kind"] == "comparison"
    assert "p50 > +1%: " in document["limits"][0]["sentence"]
    for found in document["differences"]:
        if found["low"] is not None:
            assert f"{percent(found['low'])} to {percent(found['high'])}" in done.stdout


@pytest.mark.parametrize(
    "words",
    [[], ["base.json"], ["base.json", "--"], ["--", "new.json"], ["base.json", "--", "./base.json"],
     ["base.json", "--", "new.json", "--hgrm", "x"]],
)  # fmt: skip
def test_two_sides_are_needed(folder: Path, words: list[str]) -> None:
    """Anything but two different sides is a usage error."""
    done = script(folder, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_readable_table(folder: Path) -> None:
    """One line per figure with base, new, difference and interval; other figures say why they have none."""
    lines = script(folder, "base.json", "--", "new.json").stdout.splitlines()
    table = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert set(DELTAS) <= set(table)
    assert table["p99"].endswith("higher")
    assert table["max"].endswith("n/a  one run: no interval")
