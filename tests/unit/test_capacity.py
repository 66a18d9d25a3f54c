"""The capacity search, with simulated pipelines whose capacity is known."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import pipeline, report

from perf import capacity
from perf.capacity import GENERATOR, NOT_SUSTAINED, SUSTAINED, UNDECIDED, Plan, Step
from perf.growth import sent_by
from perf.run import Report, report_of


def judged(found: Report, plan: Plan) -> Step:
    """What the step of one producer showed."""
    assert found.producer is not None
    return capacity.judge(found, plan, sent_by([found.producer]))


def held(plan: Plan, **pipeline_is: object) -> Step:
    """A step of the search on a simulated pipeline."""
    samples = list(pipeline(plan.rate_per_s, **pipeline_is))  # type: ignore[arg-type]
    return judged(report(samples, rate_per_s=plan.rate_per_s), plan)


def search(hold: Callable[[Plan, int], Step], *, first_per_s: float = 100, resolution: float = 0.05) -> list[Step]:
    """All steps of a search."""
    steps: list[Step] = []
    while (plan := capacity.next_step(steps, first_per_s=first_per_s, resolution=resolution)) is not None:
        steps.append(hold(plan, len(steps)))
    return steps


def outcome(plan: Plan, name: str) -> Step:
    """A step that ended so."""
    return Step(rate_per_s=plan.rate_per_s, phase=plan.phase, outcome=name, reason="as told")


# ----------------------------------------------------------------------------------------------------- a whole search


@pytest.mark.parametrize("service_ms", [4.0, 40.0])
def test_the_capacity_of_a_queue_is_found(service_ms: float) -> None:
    """For a service time t the search finds 1 / t within ten percent, and says what bounded it."""
    steps = search(lambda plan, number: held(plan, service_ms=service_ms, seed=number))
    status, per_s, line, bounded_by = capacity.found(steps, resolution=0.05, complete=True)
    assert status == "found"
    assert per_s == pytest.approx(1_000 / service_ms, rel=0.1)
    assert line == f"capacity: {per_s:g} messages/s ± 5 %"
    assert "the backlog" in bounded_by


def test_a_stalling_pipeline_sustains_what_its_mean_allows() -> None:
    """A stall of 1 s every 10 s costs a tenth of the capacity; the p99 of a rate that is sustained shows the stalls."""
    steps = search(
        lambda plan, number: held(plan, service_ms=20, stall=(1, 10), seconds=90 * plan.times, seed=number),
        first_per_s=20,
    )
    _, per_s, line, _ = capacity.found(steps, resolution=0.05, complete=True)
    assert per_s == pytest.approx(45, rel=0.1)
    assert line == f"capacity: {per_s:g} messages/s ± 5 %"
    sustained = [step for step in steps if step.outcome == SUSTAINED]
    assert all(step.p99_ms is not None and step.p99_ms >= 850 for step in sustained)


@given(st.floats(1, 1e6), st.floats(1, 1e5), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_last_rates_are_as_near_as_asked(true_per_s: float, first_per_s: float, resolution: float) -> None:
    """Wherever the search begins, the capacity is within the resolution below the truth, and confirmed three times."""
    steps = search(
        lambda plan, _: outcome(plan, SUSTAINED if plan.rate_per_s <= true_per_s else NOT_SUSTAINED),
        first_per_s=float(f"{first_per_s:.3g}"), resolution=resolution,
    )  # fmt: skip
    low, high = capacity.bounds(steps)
    assert low is not None and low <= true_per_s < high
    assert high <= low * (1 + resolution) * 1.01  # rates have three digits
    assert [step.phase for step in steps[-3:]] == ["confirmation"] * 3
    assert {step.rate_per_s for step in steps[-3:]} == {low}


def test_a_rate_that_fails_when_confirmed_is_not_the_capacity() -> None:
    """Three steps at the rate found must be sustained; when one is not, the search goes on below it."""

    def hold(plan: Plan, _: int) -> Step:
        lucky = plan.phase != "confirmation" and plan.rate_per_s <= 1_000
        return outcome(plan, SUSTAINED if lucky or plan.rate_per_s <= 800 else NOT_SUSTAINED)

    steps = search(hold)
    low, high = capacity.bounds(steps)
    assert low is not None and 760 <= low <= 800 < high
    failed = [(step.phase, step.outcome) for step in steps].index(("confirmation", NOT_SUSTAINED))
    assert min(step.rate_per_s for step in steps[failed:]) == low  # down in small steps, not half-way to 400


def test_a_hiccup_of_the_machine_does_not_bound_the_capacity() -> None:
    """A rate that failed once is held again before it bounds the result: sustained twice then, it is sustained."""
    seen: dict[float, int] = {}

    def hold(plan: Plan, _: int) -> Step:
        seen[plan.rate_per_s] = seen.get(plan.rate_per_s, 0) + 1
        hiccup = plan.rate_per_s == 566 and seen[566] == 1
        return outcome(plan, SUSTAINED if plan.rate_per_s <= 1_000 and not hiccup else NOT_SUSTAINED)

    low, high = capacity.bounds(search(hold, first_per_s=566))
    assert seen[566] == 3
    assert low is not None and 950 <= low <= 1_000 < high


def test_what_is_undecided_is_held_again_and_longer() -> None:
    """Hiccups do not halve the capacity; what stays undecided counts as not sustained."""
    seen: list[Plan] = []

    def hold(plan: Plan, number: int) -> Step:
        seen.append(plan)
        return outcome(plan, UNDECIDED if number in {1, 2} or plan.rate_per_s > 500 else SUSTAINED)

    low, high = capacity.bounds(search(hold))
    assert seen[1:4] == [Plan(200, "growth", 1), Plan(200, "growth", 2), Plan(200, "growth", 4)]
    assert low is not None and 475 <= low <= 500 < high


def test_a_producer_that_is_too_slow_is_said() -> None:
    """When the load generator cannot reach a rate that the pipeline might take, the capacity is a lower bound."""
    steps = search(lambda plan, _: outcome(plan, SUSTAINED if plan.rate_per_s < 5_000 else GENERATOR))
    status, per_s, line, _ = capacity.found(steps, resolution=0.05, complete=True)
    assert status == "at_least" and per_s is not None and 4_700 < per_s < 5_000
    assert "the load generator is the limit" in line


def test_an_upper_bound_is_claimed_only_where_a_rate_failed() -> None:
    """Above 490 nothing decides: a lower bound, or a margin as wide as the way to the next rate that surely fails."""
    steps = search(lambda plan, _: outcome(plan, SUSTAINED if plan.rate_per_s <= 490 else UNDECIDED))
    status, per_s, line, _ = capacity.found(steps, resolution=0.05, complete=True)
    low, high = capacity.bounds(steps)
    assert (status, per_s) == ("at_least", low)
    assert (
        line == f"capacity: at least {low:g} messages/s; whether {high:g} messages/s are sustained could not be decided"
    )

    def hold(plan: Plan, _: int) -> Step:
        return outcome(
            plan, SUSTAINED if plan.rate_per_s <= 490 else UNDECIDED if plan.rate_per_s <= 580 else NOT_SUSTAINED
        )

    steps = search(hold)
    status, per_s, line, _ = capacity.found(steps, resolution=0.05, complete=True)
    above = min(step.rate_per_s for step in steps if step.outcome == NOT_SUSTAINED)
    assert status == "found" and per_s is not None
    assert line == f"capacity: {per_s:g} messages/s ± {100 * (above / per_s - 1):.3g} %"


HIGH = 500.0


@pytest.mark.parametrize(
    ("rechecks", "line"),
    [
        ([NOT_SUSTAINED], "capacity: 490 messages/s ± 5 %"),
        ([SUSTAINED, NOT_SUSTAINED], "capacity: 490 messages/s ± 5 %"),
        ([SUSTAINED, UNDECIDED, UNDECIDED], "capacity: 490 messages/s ± 22.4 %"),
        ([UNDECIDED, UNDECIDED, UNDECIDED], "capacity: 490 messages/s ± 22.4 %"),
    ],
)
def test_the_margin_is_that_of_the_next_rate_that_surely_fails(rechecks: list[str], line: str) -> None:
    """An upper end that failed once and not again bounds nothing: the next higher rate that failed does."""
    steps = [
        outcome(Plan(490, "growth"), SUSTAINED),
        outcome(Plan(600, "growth"), NOT_SUSTAINED),
        outcome(Plan(HIGH, "bisection"), NOT_SUSTAINED),
    ]
    for name in rechecks:
        plan = capacity.next_step(steps, first_per_s=490, resolution=0.05)
        assert plan is not None and (plan.rate_per_s, plan.phase) == (HIGH, "recheck")
        steps.append(outcome(plan, name))
    following = capacity.next_step(steps, first_per_s=490, resolution=0.05)
    assert following == Plan(490, "confirmation")
    assert capacity.found(steps, resolution=0.05, complete=True)[2] == line


def test_a_failure_that_was_overturned_bounds_nothing() -> None:
    """566 failed once and was sustained three times, and nothing above it decides: only a lower bound is known."""
    told = [(566, "growth", NOT_SUSTAINED), (542, "growth", SUSTAINED), *[(566, "recheck", SUSTAINED)] * 3,
            *[(580, "bisection", UNDECIDED)] * 3, *[(566, "confirmation", UNDECIDED)] * 3]  # fmt: skip
    steps = [outcome(Plan(per_s, phase), name) for per_s, phase, name in told]
    status, per_s, line, _ = capacity.found(steps, resolution=0.05, complete=True)
    assert (status, per_s) == ("at_least", 542)
    assert "could not be decided" in line


def test_attempts_end_however_they_alternate() -> None:
    """A machine whose producer is sometimes too slow, and else leaves it open, does not keep a search at one rate."""
    steps = search(lambda plan, number: outcome(plan, GENERATOR if number % 2 else UNDECIDED))
    assert len([step for step in steps if step.rate_per_s == 100]) <= 4


def test_a_search_that_goes_on_is_not_complete() -> None:
    """However many steps were done: the next one is there as long as something is open."""
    steps = [outcome(Plan(100, "growth"), SUSTAINED), outcome(Plan(200, "growth"), NOT_SUSTAINED)] * 60
    assert len(steps) > capacity.MOST_STEPS
    assert capacity.next_step(steps, first_per_s=100, resolution=0.05) is not None


@pytest.mark.parametrize("complete", [True, False])
def test_no_capacity_is_said(complete: bool) -> None:
    """A pipeline that sustains nothing has none; a search that was stopped claims none."""
    steps = search(lambda plan, _: outcome(plan, NOT_SUSTAINED))
    status, per_s, line, _ = capacity.found(steps if complete else [], resolution=0.05, complete=complete)
    assert (status, per_s) == ("none" if complete else "incomplete", None)
    assert line.startswith("capacity: no")


# ------------------------------------------------------------------------------------------------------------ one step


def test_what_makes_a_step_not_sustained() -> None:
    """Loss, a limit, missing acknowledgements and a slow producer each show, with their figures."""
    good, plan = list(pipeline(100, service_ms=5)), Plan(100, "growth")

    def told(**sent: object) -> tuple[str, str]:
        step = judged(report(good, rate_per_s=100, **sent), plan)  # type: ignore[arg-type]
        return step.outcome, step.reason

    assert told()[0] == SUSTAINED
    assert told(messages=2_010, acknowledged=2_010) == (NOT_SUSTAINED, "3 results did not come")  # 7 in the warm-up
    assert told(messages=2_010) == (NOT_SUSTAINED, "10 messages were not acknowledged")
    assert told(limits=("p50 > 1ms",)) == (NOT_SUSTAINED, "p50 > 1ms: p50 is 5 ms: exceeded")
    assert told(send_rate_per_s=98.0)[0] == told(not_sent=1)[0] == GENERATOR
    assert told(elapsed_s=30.0)[0] == GENERATOR  # they waited in the client's queue, so the load was another
    assert "it sent 100 messages/s, and Kafka took 66." in told(elapsed_s=30.0)[1]
    assert told(elapsed_s=20.4)[0] == SUSTAINED  # a hiccup at the end
    assert "it sent 98 messages/s, 99 % acknowledged within " in told(send_rate_per_s=98.0)[1]


def test_a_step_in_which_nothing_was_measured_is_not_sustained() -> None:
    """A rate at which no result comes in time is too high."""
    step = judged(report([], rate_per_s=100, messages=500, acknowledged=500), Plan(100, "growth"))
    assert step.outcome == NOT_SUSTAINED
    assert step.reason == "nothing could be measured; 493 results did not come"


def test_a_single_stall_is_no_growth() -> None:
    """One second in which nothing was done leaves a slope behind, at a rate that is sustained: it is held again.

    Hardly ever is the slope taken for growth, wherever the stall was: and then the rate is held again, too.
    """
    outcomes = []
    for second in range(2, 24):
        samples = list(pipeline(185, service_ms=5, stall=(1, second), seconds=2 * second))
        stalled = [sample for sample in samples if sample[0] - sample[1] < 24_000 and sample[0] < 2_000 * second]
        outcomes.append(judged(report(stalled, rate_per_s=185), Plan(185, "growth")).outcome)
    assert outcomes.count(NOT_SUSTAINED) <= 2
    assert outcomes.count(UNDECIDED) >= 15


def test_a_random_filter_is_sustained() -> None:
    """A filter that lets 48 or 52 of 100 through drops nothing that it should not; one that lets 30 through does."""
    for share, outcome_name in ((0.48, SUSTAINED), (0.52, SUSTAINED), (0.3, NOT_SUSTAINED)):
        chance = random.Random(7)
        samples = [sample for sample in pipeline(100, service_ms=5) if chance.random() < share]
        found = report(samples, rate_per_s=100, ratio=0.5, messages=2_000, acknowledged=2_000)
        assert judged(found, Plan(100, "growth")).outcome == outcome_name


def test_a_step_of_a_few_seconds_is_not_judged() -> None:
    """With fewer than five whole seconds nothing is said of the backlog."""
    samples = list(pipeline(100, service_ms=5, seconds=5))
    step = judged(report(samples, rate_per_s=100), Plan(100, "growth"))
    assert (step.outcome, step.growth) == (UNDECIDED, None)


def test_results_that_are_not_measured_do_not_dilute_the_growth() -> None:
    """Where one result in ten has a stamp, the backlog of these is judged by a tenth of the rate."""
    samples = list(pipeline(100, service_ms=10.5))  # grows by 4.8 % of the rate
    tenth = [sample for number, sample in enumerate(samples) if number % 10 == 0]
    found = report(tenth, rate_per_s=100, messages=2_000, acknowledged=2_000, elapsed_s=20.0)
    read = found.consumer
    assert read is not None and found.producer is not None
    unstamped = {**read.summary.not_measured, "no_timestamp_start": 1_800}
    summary = msgspec.structs.replace(read.summary, messages_read=2_007, not_measured=unstamped)
    whole = report_of(
        [found.producer, msgspec.structs.replace(read, summary=summary)],
        sources=[],
        expect_ratio=1.0,
    )
    step = judged(msgspec.structs.replace(whole, missing=0), Plan(100, "growth"))
    assert step.growth == pytest.approx(1 - 1 / 1.05, abs=0.01)
    assert step.outcome == NOT_SUSTAINED


def test_doubts_about_the_stamps_are_in_the_line() -> None:
    """A capacity from results with CreateTime stamps says so: their deltas may mean little."""
    steps = search(
        lambda plan, _: msgspec.structs.replace(
            outcome(plan, SUSTAINED if plan.rate_per_s <= 500 else NOT_SUSTAINED), doubt="uncertain: CreateTime"
        )
    )
    line = capacity.found(steps, resolution=0.05, complete=True)[2]
    assert re.fullmatch(r"capacity: \d+ messages/s ± 5 %; uncertain: CreateTime", line)
    endless = search(lambda plan, _: msgspec.structs.replace(outcome(plan, SUSTAINED), doubt="uncertain: CreateTime"))
    assert capacity.found(endless, resolution=0.05, complete=True)[2].endswith("; uncertain: CreateTime")
    plain = [msgspec.structs.replace(step, doubt="") for step in steps]
    assert ";" not in capacity.found(plain, resolution=0.001, complete=True)[2]
    assert "± 1 %" in capacity.found(plain, resolution=0.001, complete=True)[2]  # what "sustained" itself leaves open


def test_results_for_several_inputs_count_by_the_ratio() -> None:
    """With two results for each message the backlog is one of results, and its growth a share of their rate."""
    samples = [sample for sample in pipeline(100, service_ms=12) for _ in range(2)]
    step = judged(report(samples, rate_per_s=100, ratio=2.0, messages=2_000, acknowledged=2_000), Plan(100, "growth"))
    assert step.growth == pytest.approx(1 - 1_000 / 12 / 100, abs=0.01)
