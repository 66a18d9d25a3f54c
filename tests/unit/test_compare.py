"""Two sets of runs: what differs, with which interval, and when nothing can be said. Figures: docs/compare.md."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
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
    judged,
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
    interval = (math.expm1(ratio - margin), math.expm1(ratio + margin))
    assert (found.low, found.high) == pytest.approx(interval, rel=1e-4)
    assert found.base == pytest.approx(math.exp(statistics.fmean(logs[0])))


# --------------------------------------------------------------------------------------------------- whole milliseconds


def tied(*levels_ms: float, seconds: int = 1, per_second: int = 100) -> list[Report]:
    """Runs whose deltas are all the same whole millisecond, that nearest to the run's true level."""
    return [
        report_of(
            [consumer([(1_000 * at // per_second, round(level_ms)) for at in range(seconds * per_second)])],
            sources=["tied"],
        )
        for level_ms in levels_ms
    ]


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_a_step_of_the_clock_is_no_difference(runs: int) -> None:
    """3 ms in each run, then 4 ms: from 3.49 to 3.51 it may have been, and more runs of that kind tell no more."""
    found = by_name(compare(tied(*[3.0] * runs), tied(*[4.0] * runs)))
    for name in DELTAS:
        low, high = found[name].low, found[name].high
        assert low is not None and high is not None
        assert low < 0.02 / 3.49 < found[name].change < high  # type: ignore[operator]
        assert found[name].outcome == "none"


def test_a_step_of_the_clock_is_no_difference_of_single_runs() -> None:
    """The same with one run on each side, whose rows are all alike."""
    found = by_name(compare(tied(3.0, seconds=60), tied(4.0, seconds=60)))
    assert {found[name].outcome for name in ("mean", "p50", "p90", "p99")} == {"none"}
    assert all((found[name].low or 0) < 0.006 for name in ("mean", "p50", "p90", "p99"))


@pytest.mark.parametrize("sides", [(3, 1), (1, 60)])
def test_equal_values_are_no_difference_and_not_certain(sides: tuple[int, int]) -> None:
    """Runs that are alike to the millisecond: none, in an interval that says what a millisecond hides."""
    runs, seconds = sides
    side = tied(*[20.0] * runs, seconds=seconds)
    found = by_name(compare(side, side))
    for name in ("mean", "p50", "p90", *(("max", "visible p99", "throughput") if runs > 1 else ())):
        low, high = found[name].low, found[name].high
        assert found[name].outcome == "none" and found[name].change == 0, name
        assert low is not None and high is not None and low < 0 < high


def test_large_differences_of_tied_runs_are_found() -> None:
    """20 ms in each run, then 22: more than rounding can do."""
    found = by_name(compare(tied(20.0, 20.0, 20.0), tied(22.0, 22.0, 22.0)))
    assert {found[name].outcome for name in (*DELTAS, "max")} == {"higher"}


@pytest.mark.parametrize(("runs", "spread_ms"), [(3, 0.01), (3, 0.3), (5, 0.1)])
def test_intervals_of_rounded_runs_hold_the_truth(runs: int, spread_ms: float) -> None:
    """Like `make calibrate`, with runs that are one whole millisecond each: the truth is outside in 5 % at most."""
    generator = random.Random(7)
    trials, missed = 40, Counter[str]()
    for _ in range(trials):
        base_ms = generator.uniform(3, 40)
        new_ms = base_ms + generator.choice((0.0, 0.1, 0.5))
        base, new = (
            tied(*(generator.gauss(level_ms, spread_ms) for _ in range(runs)), per_second=3)
            for level_ms in (base_ms, new_ms)
        )
        differences = by_name(compare(base, new))
        for name in ("p50", "max"):
            found = differences[name]
            assert found.low is not None and found.high is not None
            missed[name] += not found.low <= new_ms / base_ms - 1 <= found.high
    assert missed["p50"] <= 3 and missed["max"] <= 6  # of 1 % and of 5 % of 40, more come once in 100 times at most


Quantiles = Callable[[float], float]  # share of deltas → the delta in ms below which so many are


def constant(delta_ms: float) -> Quantiles:
    """All deltas alike."""
    return lambda _: delta_ms


def from_on(least_ms: float, mean_ms: float) -> Quantiles:
    """A least delta, and more that is exponential."""
    return lambda share: least_ms - mean_ms * math.log(1 - share)


def lognormal(typical_ms: float, spread: float) -> Quantiles:
    """Most about as large as the typical one, few much larger."""
    return lambda share: typical_ms * math.exp(spread * statistics.NormalDist().inv_cdf(share))


def true_figures(quantiles: Quantiles) -> dict[str, float]:
    """Mean and percentiles without any stamp."""
    mean = statistics.fmean(quantiles((at + 0.5) / 10_000) for at in range(10_000))
    return {"mean": mean, **{name: quantiles(float(name[1:]) / 100) for name in DELTAS if name != "mean"}}


def stamped(generator: random.Random, quantiles: Quantiles, *, seconds: int, per_second: int) -> Report:
    """A run whose two stamps are whole milliseconds, rounded down, of moments that know nothing of milliseconds."""
    samples = []
    for at in range(seconds * per_second):
        sent_ms = 1_000 * at // per_second + generator.random()
        result_ms = sent_ms + quantiles(generator.uniform(1e-9, 1 - 1e-9))
        samples.append((math.floor(result_ms), math.floor(result_ms) - math.floor(sent_ms)))
    return report_of([consumer(samples)], sources=["stamped"])


def stamped_sides(
    generator: random.Random, sides: tuple[Quantiles, Quantiles], runs: int
) -> tuple[list[Report], list[Report]]:
    """As many runs on each side: a single one is long enough for p99.9."""
    size = {"seconds": 120, "per_second": 175} if runs == 1 else {"seconds": 20, "per_second": 50}
    base, new = ([stamped(generator, side, **size) for _ in range(runs)] for side in sides)
    return base, new


def holds(found: Difference, truth: float) -> bool:
    """Whether the interval of a difference does."""
    assert found.low is not None and found.high is not None, found.why
    return found.low <= truth <= found.high


NARROW = {
    "3.02 and 3.08 ms": (constant(3.02), constant(3.08)),
    "1.02 and 1.08 ms": (constant(1.02), constant(1.08)),
    "3.02 and 3.6 ms": (constant(3.02), constant(3.6)),
    "3 ms and a little": (from_on(3, 0.3), from_on(3.18, 0.318)),
    "3 ms and up to several": (from_on(3, 1), from_on(3.3, 1.1)),
    "nearly 3 ms": (lognormal(3, 0.1), lognormal(3.3, 0.1)),
    "about 3 ms": (lognormal(3, 0.4), lognormal(3.3, 0.4)),
    "4.1 ms, then a tail": (constant(4.1), from_on(2, 2.5)),
    "a tail, then 4.1 ms": (from_on(2, 2.5), constant(4.1)),
    "two heaps": (lambda share: 3.5 if share < 0.505 else 3.5 - 20 * math.log((1 - share) / 0.495), constant(3.9)),
}


@pytest.mark.parametrize(("runs", "trials"), [(1, 2), (3, 4), (5, 3)])
def test_intervals_of_stamped_runs_hold_the_truth(runs: int, trials: int) -> None:
    """Deltas of few milliseconds: all five intervals together hold the truth in 95 % of comparisons."""
    generator, missed = random.Random(11), Counter[str]()
    for name, sides in NARROW.items():
        base_ms, new_ms = map(true_figures, sides)
        for _ in range(trials):
            differences = by_name(compare(*stamped_sides(generator, sides, runs)))
            missed[name] += not all(
                holds(differences[figure], new_ms[figure] / base_ms[figure] - 1) for figure in DELTAS
            )
    assert missed.total() <= 5, missed  # of 5 % of 40, more come once in 70 times; of 20, once in 3,000
    assert max(missed.values()) <= 2, missed


@pytest.mark.parametrize("runs", [1, 3, 5])
@pytest.mark.parametrize(("base_ms", "new_ms", "limit"), [(3.02, 3.08, 5), (1.02, 1.08, 8)])
def test_a_limit_above_the_truth_is_not_exceeded(base_ms: float, new_ms: float, limit: int, runs: int) -> None:
    """2 % and 6 % slower: where the percentile lies among whole milliseconds is chance, no reason for exit code 6."""
    sides = stamped_sides(random.Random(runs), (constant(base_ms), constant(new_ms)), runs)
    comparison = compare(*sides, [parse(f"{name} > +{limit}%") for name in DELTAS])
    assert comparison.exit_code == 0, comparison.limits


@pytest.mark.parametrize("runs", [1, 3, 5])
def test_the_mean_tells_parts_of_a_millisecond(runs: int) -> None:
    """3.02, then 3.6 ms, by random phases: their mean is that of the true deltas, and its interval is narrow."""
    found = by_name(compare(*stamped_sides(random.Random(runs), (constant(3.02), constant(3.6)), runs)))["mean"]
    assert found.low is not None and found.high is not None
    assert 0.1 < found.low < 3.6 / 3.02 - 1 < found.high < 0.3


def test_the_mean_of_deltas_nearly_all_alike_may_hide_half_a_millisecond() -> None:
    """3 ms, then 4, and one slow result on each side: no phase told where between two milliseconds they are."""
    sides = [[*[(20 * at, delta_ms) for at in range(3_000)], (60_000, 60)] for delta_ms in (3, 4)]
    base, new = (report_of([consumer(side)], sources=["x"]) for side in sides)
    found = by_name(compare([base], [new]))["mean"]
    assert found.low is not None and found.low <= 0 < found.change  # type: ignore[operator]


def test_wide_buckets_hide_no_more_than_their_width() -> None:
    """300 ms throughout lies in a bucket of 2 ms: percentiles are known to 1 ms, and 304 ms is more."""
    found = by_name(compare(tied(300.0, 300.0, 300.0), tied(304.0, 304.0, 304.0)))
    assert found["p50"].low == pytest.approx(303.5 / 301.5 - 1)
    assert found["p50"].outcome == "higher"


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
    assert by_name(comparison)["p50"].why.endswith(" seconds")


def test_too_little_data_is_told_in_seconds() -> None:
    """A long run's rows are wider than a second: what is there and what is needed are given as time all the same."""
    long = Simulation(seed=3)
    found = by_name(compare([long.run(seconds=60)], [long.run(seconds=1_300)]))
    assert found["mean"].why.startswith("too little data: 60 of ")
    sides = [long.run(seconds=1_300) for _ in range(2)]
    rows = Rows(TimeSeries.from_state(sides[0].consumer.series)) if sides[0].consumer else None
    assert rows is not None and rows.width_s > 1


@pytest.mark.parametrize(
    ("outcomes", "status", "said"),
    [
        ("nnnnn", "same", "No difference was shown; the widest"),
        ("nnnnu", "same", "No difference was shown in the 4 of 5 figures that could be judged (not p99.9: too few)"),
        ("nnuuu", "unknown", "in the 2 of 5 figures that could be judged (not p90, p99, p99.9: too few)"),
        ("uuuun", "unknown", "in the 1 of 5 figures that could be judged"),
        ("uuuuu", "unknown", "Nothing can be said: too few."),
        ("uhuuu", "slower", "The new side is slower: p50"),
    ],
)
def test_same_is_said_only_of_what_could_be_judged(outcomes: str, status: str, said: str) -> None:
    """Without p50 and p99 nothing is called the same; what could not be judged is named."""
    words = {"n": "none", "u": "unknown", "h": "higher"}
    found = [
        Difference(metric=name, base=1, new=1, change=0.1, low=-0.1, high=0.2, outcome=words[letter], why="too few")
        for name, letter in zip(DELTAS, outcomes, strict=True)
    ]
    assert judged(found, [], [])[0] == status
    assert said in judged(found, [], [])[1]


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


@pytest.mark.parametrize("side", ["base", "new"])
def test_no_limit_holds_where_results_are_missing(usual: Report, slower: Report, side: str) -> None:
    """Missing results may be the slowest: exit code 5 and why, unless the limit is exceeded anyway."""
    cut = {"base": usual, "new": slower} | {side: msgspec.structs.replace(usual, status="incomplete")}
    within, beyond = parse("p50 > +90%"), parse("p50 > -90%")
    found = compare([cut["base"]], [cut["new"]], [within])
    assert (found.status, found.exit_code, found.limits[0].outcome) == ("unknown", 5, "unknown")
    name = "the base" if side == "base" else "the new side"
    assert found.verdict.endswith(f": cannot be judged, as results of {name} are missing.")
    assert compare([cut["base"]], [cut["new"]]).exit_code == 0
    assert compare([cut["base"]], [cut["new"]], [within, beyond]).exit_code == 6
    assert compare([usual], [slower], [within]).exit_code == 0


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


@pytest.mark.parametrize("broken", ["c.json", "c.html"])
@pytest.mark.parametrize(("limit", "code"), [("p99 > +1%", 6), ("visible p99 > +10%", 5), ("p99 > +60%", 1)])
def test_a_file_that_cannot_be_written_comes_last(folder: Path, limit: str, code: int, broken: str) -> None:
    """The comparison is printed, its own exit code counts before 1, and the other file is written."""
    files = {name: f"/proc/{name}" if name == broken else name for name in ("c.json", "c.html")}
    flags = ("--json", files["c.json"], "--html", files["c.html"], "--fail-if", limit)
    done = script(folder, "base.json", "--", "new.json", *flags)
    assert done.returncode == code
    assert limit in done.stdout
    assert done.stderr.startswith(f"error: the file /proc/{broken} was not written: ")
    assert done.stderr.count("\n") == 1
    assert [name for name in files if (folder / name).is_file()] == [name for name in files if name != broken]


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


def test_a_file_that_is_not_there_is_a_usage_error(folder: Path) -> None:
    """A wrong name ends in exit code 2, in a sentence with the name."""
    done = script(folder, "base.json", "--", "nwe.json")
    assert done.returncode == 2
    assert "nwe.json: No such file" in done.stderr


def test_the_readable_table(folder: Path) -> None:
    """One line per figure with base, new, difference and interval; other figures say why they have none."""
    lines = script(folder, "base.json", "--", "new.json").stdout.splitlines()
    table = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert set(DELTAS) <= set(table)
    assert table["p99"].endswith("higher")
    assert table["max"].endswith("n/a  one run: no interval")
