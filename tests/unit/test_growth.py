"""How fast the backlog grew, with simulated pipelines and backlogs whose growth is known."""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import linear_regression

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import START_MS, STEP_S, consumer, pipeline, producer, report

from perf import growth, result, schedule
from perf.growth import rows_while_sending, slope_of
from perf.limits import parse
from perf.result import ProducerResult, Result
from perf.run import Report, report_at, report_of
from perf.series import BacklogRow


def growing(found: Report) -> float:
    """The slope that the report has."""
    assert found.growth is not None
    return found.growth.growth_per_s


def test_only_time_in_which_messages_were_sent_counts() -> None:
    """While an overloaded pipeline drains its backlog falls: these seconds are left out, and the growth is right."""
    found = report(list(pipeline(200, service_ms=10)), rate_per_s=200)  # 100/s too many, drains for 20 s
    assert found.consumer is not None
    rows = rows_while_sending(found.consumer.summary.series, found.backlog)
    assert len(found.backlog) >= 39 and 16 <= len(rows) <= 19
    assert rows[-1].start_ms + 1_000 <= START_MS + 1_000 * STEP_S
    assert growing(found) == pytest.approx(100, rel=0.03)


def side_by_side(*offsets_s: int, seconds: int = STEP_S) -> list[ProducerResult]:
    """Producers of 50 messages a second that began one after another."""
    one = producer(50 * seconds)
    times = {"send_rate_per_s": 50.0, "target_rate_per_s": 50.0, "send_elapsed_s": float(seconds)}
    return [
        msgspec.structs.replace(
            one,
            started_at=f"2026-11-23T08:00:{at:02d}.000+00:00",
            summary=msgspec.structs.replace(one.summary, **times),
        )
        for at in offsets_s
    ]


def test_only_time_in_which_all_producers_sent_counts() -> None:
    """One producer too few for 6 s at each end: the backlog of an overloaded pipeline is that of both."""
    load = [1_000 * number / 50 for number in range(50 * 20)]
    arrivals_ms = sorted([*load, *(6_000 + at_ms for at_ms in load)])
    completed_ms, samples = 0.0, []
    for arrived_ms in arrivals_ms:
        completed_ms = max(arrived_ms, completed_ms) + 12.5  # 80/s: two are 20/s too many
        samples.append((int(completed_ms), int(completed_ms) - int(arrived_ms)))
    found = report_of([*side_by_side(0, 6), consumer(samples)], sources=[])
    assert growing(found) == pytest.approx(20, rel=0.05)


def test_the_warm_up_covers_how_far_apart_producers_began() -> None:
    """Where the results of the time in which not all sent are not measured, no more of the beginning is left out."""
    read = consumer(list(pipeline(100, service_ms=5, seconds=9)))
    sending = side_by_side(0, 1, seconds=10)
    without = report_of([*sending, read], sources=[], expect_ratio=1.0)
    assert without.growth is None  # 9 s less a partial one and 1 s at each end
    warmed = {**read.summary.not_measured, "warmup": 100}
    summary = msgspec.structs.replace(read.summary, not_measured=warmed, messages_read=1_000)
    several: list[Result] = [*sending, msgspec.structs.replace(read, summary=summary)]
    assert report_of(several, sources=[], expect_ratio=1.0).growth is not None


def changed(found: Report, *, read: dict[str, object] | None = None, sent: dict[str, object] | None = None) -> Report:
    """The report of the same results with other values in their summaries, and no ratio declared."""
    assert found.consumer is not None and found.producer is not None
    return report_of(
        [
            msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, **(values or {})))
            for one, values in ((found.producer, sent), (found.consumer, read))
        ],
        sources=[],
    )


@pytest.mark.parametrize(
    ("read", "sent"),
    [({"latency": "receive"}, {}), ({"messages_read": 7_000}, {}), ({"messages_read": 1_500}, {}),
     ({}, {"target_rate_per_s": None}), ({}, {"stamp": "intended"}), ({}, {"send_rate_per_s": 95.0}),
     ({}, {"elapsed_s": 24.0})],
)  # fmt: skip
def test_a_backlog_that_is_not_the_pipelines_alone_is_not_judged(
    read: dict[str, object], sent: dict[str, object]
) -> None:
    """What a consumer, a producer or its client's queue delay, and results that are not one for each message, tell
    nothing of how fast the pipeline falls behind; without any of it the same run does."""
    behind = report(list(pipeline(100, service_ms=12.5)), rate_per_s=100)
    assert "keep up" in changed(behind).verdict
    found = changed(behind, read=read, sent=sent)
    assert found.growth is None
    assert "keep up" not in found.verdict


@pytest.mark.parametrize("profile", ["rate 100 for 10s, rate 200 for 10s", "ramp 100->200 over 20s"])
def test_a_load_that_changes_makes_a_backlog_that_grows(profile: str) -> None:
    """A backlog is rate times latency: with a profile its growth tells nothing of the pipeline; a constant one is as
    good as a rate."""
    assert not schedule.profile(profile).is_constant
    assert schedule.profile("rate 100 for 10s, rate 100 for 1m").is_constant
    behind = report(list(pipeline(100, service_ms=12.5)), rate_per_s=100)
    assert behind.producer is not None
    changing = msgspec.structs.replace(behind.producer, steady=False)
    assert behind.consumer is not None
    assert behind.growth is not None
    assert report_of([changing, behind.consumer], sources=[]).growth is None


def test_producers_whose_results_are_missing_leave_the_growth_unknown() -> None:
    """Their load is in the results, and their rate is not known; a run that a signal ended has all of them."""
    behind = report(list(pipeline(100, service_ms=12.5)), rate_per_s=100)
    both = [one for one in (behind.producer, behind.consumer) if one is not None]
    assert report_of(both, sources=[], ended={"the producer-2 left no result": 4}, expect_ratio=1.0).growth is None
    stopped = report_of(both, sources=[], ended={"stopped by SIGINT": 130}, expect_ratio=10.0)
    assert stopped.missing is None  # nobody waited for them
    assert growing(stopped) == pytest.approx(growing(behind) / 10)


def test_a_report_that_is_read_again_keeps_its_growth(tmp_path: Path) -> None:
    """It knows of its producers only together, so the growth is not computed anew: beside others, or for another ratio,
    it is not known."""
    sending = side_by_side(0, 6)
    first = report_of([*sending, consumer(list(pipeline(100, service_ms=12.5)))], sources=["a"], expect_ratio=1.0)
    file, other = tmp_path / "report.json", tmp_path / "producer.json"
    result.write(file, first)
    result.write(other, producer(1))
    assert report_at(file).growth == first.growth
    assert first.growth is not None
    assert report_at(file, other).growth is None
    assert report_at(file, expect_ratio=2.0).growth is None


def test_results_that_come_long_after_the_input_are_told() -> None:
    """Where the time to drain made the rows of the series too wide for a slope, the times themselves tell."""
    found = report(list(pipeline(100, service_ms=1_000, seconds=10)), rate_per_s=100)
    assert found.growth is None
    told = "The pipeline seems not to keep up: messages were sent for 10 s, and their results took 996 s, so times"
    assert found.verdict.startswith(told)
    assert found.status == "uncertain"
    both = [one for one in (found.producer, found.consumer) if one is not None]
    without = report_of(both, sources=[], ended={"the producer-2 left no result": 4})  # it may have sent for longer
    assert "keep up" not in without.verdict


def test_producers_one_after_another_are_no_overload() -> None:
    """Four that each sent for 100 s, one after another, had results for 400 s: that is as long as all of them sent."""
    sending = side_by_side(*range(0, 8, 2), seconds=100)
    sending = [
        msgspec.structs.replace(one, started_at=f"2026-11-23T08:{at // 60:02d}:{at % 60:02d}.000+00:00")
        for one, at in zip(sending, range(0, 400, 100), strict=True)
    ]
    found = report_of([*sending, consumer(list(pipeline(50, service_ms=5, seconds=400)))], sources=[])
    assert (found.status, found.growth) == ("valid", None)


def test_an_invalid_run_tells_no_growth() -> None:
    """Deltas of 0, because the inputs' stamps were passed on, make an empty backlog: that does not grow, and means
    nothing, so a limit on it is exceeded."""
    samples = [(stamp_ms, 0) for stamp_ms, _ in pipeline(100, service_ms=5)]
    found = report_of(
        [producer(2_000), consumer(samples, kind=1)], sources=[], limits=[parse("growth_high > 0.01*target")]
    )
    assert (found.status, found.growth) == ("invalid", None)
    assert found.limits[0].exceeded


def test_a_pipeline_that_falls_behind_is_told_in_the_verdict() -> None:
    """Its deltas are those of a backlog: the verdict says so first; of one that keeps up nothing is said."""
    behind = report(list(pipeline(100, service_ms=12.5)), rate_per_s=100)
    assert behind.verdict.startswith("The pipeline seems not to keep up: its backlog grew by at least 1")
    assert "so times depend on how long the test ran; half of 2,000 results" in behind.verdict
    assert (behind.status, behind.exit_code) == ("uncertain", 0)
    assert "keep up" not in report(list(pipeline(100, service_ms=5)), rate_per_s=100).verdict


@pytest.mark.parametrize(("service_ms", "exceeded"), [(5, False), (12.5, True)])
def test_a_limit_on_the_growth(service_ms: float, exceeded: bool) -> None:
    """`growth_high > 0.01*target` holds where the pipeline surely keeps up, `growth_low` is surely exceeded."""
    limits = ("growth_high > 0.01*target", "growth_low > 0.01*target", "growth low > 1/s")
    found = report(list(pipeline(100, service_ms=service_ms)), rate_per_s=100, limits=limits)
    assert [one.exceeded for one in found.limits] == [exceeded] * 3
    assert found.exit_code == (6 if exceeded else 0)


# ----------------------------------------------------------------------------------------------------------- the slope


def rows_of(messages: list[float]) -> list[BacklogRow]:
    """A row for each second."""
    return [BacklogRow(start_ms=START_MS + 1_000 * at, width_s=1, messages=value) for at, value in enumerate(messages)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=50))
def test_the_slope_is_the_least_squares_line(messages: list[float]) -> None:
    """The growth is the least-squares slope, and lies between its bounds."""
    found = slope_of(rows_of(messages))
    assert found is not None
    slope = linear_regression(range(len(messages)), messages).slope
    assert math.isclose(found.growth_per_s, slope, rel_tol=1e-6, abs_tol=1e-6)
    assert found.growth_low_per_s <= found.growth_per_s <= found.growth_high_per_s


@pytest.mark.parametrize(
    ("rows", "correlation", "least"),
    [(60, 0.0, 0.94), (60, 0.5, 0.93), (60, 0.8, 0.90), (22, 0.0, 0.94), (22, 0.5, 0.92), (22, 0.8, 0.88),
     (8, 0.0, 0.94), (8, 0.5, 0.88), (8, 0.8, 0.82), (300, 0.95, 0.90), (300, 0.98, 0.85)],
)  # fmt: skip
def test_the_upper_bound_holds_in_95_percent(rows: int, correlation: float, least: float) -> None:
    """Of many backlogs with noise around a known slope, some 95 % have it below the bound; fewer where noise persists.

    The shorter the hold and the longer the noise persists, the less of it can be known: docs/capacity.md.
    """
    chance, below, total = random.Random(3), 0, 2_000
    for _ in range(total):
        noise, messages = chance.gauss(0, 5) / math.sqrt(1 - correlation**2), []
        for at in range(rows):
            noise = correlation * noise + chance.gauss(0, 5)
            messages.append(2.0 * at + noise)
        found = slope_of(rows_of(messages))
        assert found is not None
        below += found.growth_high_per_s >= 2.0
    assert least <= below / total <= 0.98


@pytest.mark.parametrize(
    ("seconds", "jump_s", "period_s", "grows"),
    [(60, 0.3, 1, False), (60, 5.0, 1, True), (60, 0, 6, False), (60, 0, 30, False), (300, 0, 150, False),
     (60, 0, 60, True)],
)  # fmt: skip
def test_a_jump_or_a_period_is_taken_for_growth_only_where_it_is_long(
    seconds: int, jump_s: float, period_s: int, grows: bool
) -> None:
    """At 100 messages/s: a latency that jumps by less than a hundredth of the time is no growth, nor are windows of
    which two passed; a jump of seconds in a minute, and a single window, cannot be told from it."""
    backlog = [100.0 * (at % period_s + (jump_s if at > seconds / 2 else 0)) for at in range(seconds)]
    found = slope_of(rows_of(backlog))
    assert found is not None
    assert (found.growth_low_per_s >= 1.0) == grows


@pytest.mark.parametrize(("freedom", "expected"), [(3, 2.353), (5, 2.015), (10, 1.812), (30, 1.697), (1_000, 1.646)])
def test_the_quantile_is_students(freedom: int, expected: float) -> None:
    """The quantiles are those of the printed tables, within half a percent."""
    assert growth._t_95(freedom) == pytest.approx(expected, rel=0.005)
