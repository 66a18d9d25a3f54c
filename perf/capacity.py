"""The highest rate that a pipeline sustains: which rate to try next, and what a step at it showed.

Pure functions of what was measured: nothing here waits, looks at a clock or sends. docs/capacity.md says it for users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

import msgspec

from .growth import MOST_GROWTH, Sent
from .result import VERSION
from .run import Report
from .stats import ProducerSummary

CONFIRMATIONS = 3
_MOST_RECHECKS = 3
_FACTOR = 2.0
MOST_STEPS = 100  # of a search
_LEAST_PER_S, _MOST_PER_S = 0.1, 1e8

SUSTAINED, NOT_SUSTAINED, UNDECIDED, GENERATOR = "sustained", "not_sustained", "undecided", "generator"
#: These tell more of the machine's noise than of the pipeline: so often in turn they are believed.
_ATTEMPTS = {UNDECIDED: 3, GENERATOR: 2}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A rate that was held for a while: `times` the duration of a step.

    `outcome` is sustained, not_sustained, undecided, or generator: the producer did not reach the rate. Growth is in
    shares of the rate, with its lower and upper 95 % bound; None where too little was measured. `doubt` is the verdict
    of the consumer where the deltas may mean little.
    """

    rate_per_s: float
    phase: str
    times: int = 1
    outcome: str
    reason: str
    sent_per_s: float | None = None
    acknowledged: int = 0
    results: int = 0
    growth: float | None = None
    growth_low: float | None = None
    growth_high: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_9_ms: float | None = None
    max_ms: float | None = None
    doubt: str = ""


class Plan(NamedTuple):
    """What to do next: hold this rate for so many times a step's usual duration.

    `phase` is growth, bisection, recheck (of the upper end) or confirmation (of the lower one).
    """

    rate_per_s: float
    phase: str
    times: int = 1


class Capacity(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="capacity"):
    """What a search found. `status` is found, at_least (no higher rate was shown to fail), none or incomplete."""

    version: int = VERSION
    status: str
    capacity_per_s: float | None
    resolution: float
    line: str
    bounded_by: str
    started_at: str
    input_topic: str
    output_topic: str
    limits: list[str]
    ratio: float
    step_s: float
    steps: list[Step]


def next_step(steps: Sequence[Step], *, first_per_s: float, resolution: float) -> Plan | None:
    """The step that follows those that were done; None when the search is complete.

    The rate doubles while it is sustained (or halves until it is), then the gap between the highest sustained rate and
    the lowest other one above it is halved (as factors), then both ends are confirmed: the upper one fails a second
    time (else a third hold decides), the lower one is sustained three times more. What did not decide is held again,
    each time for twice as long; a rate that fails later counts as not sustained, and the next is a little below it.
    """
    if not steps:
        return Plan(first_per_s, "growth")
    last = steps[-1]
    if last.outcome in _ATTEMPTS and last.rate_per_s not in _failed(steps):
        return Plan(last.rate_per_s, last.phase, 2 ** len(_open(steps)))
    low, high = bounds(steps)
    if low is None or math.isinf(high):
        rate_per_s = _rounded(high / _FACTOR if low is None else low * _FACTOR, resolution)
        return Plan(rate_per_s, "growth") if _LEAST_PER_S <= rate_per_s <= _MOST_PER_S else None
    middle = math.sqrt(low * high)
    if _count(steps, high, outcome=SUSTAINED):  # it is nearer to the truth than what is far below it
        middle = max(middle, high / (1 + resolution) ** 2)
    middle = _rounded(middle, resolution)
    if high > low * (1 + resolution) and low < middle < high:
        return Plan(middle, "bisection")
    if _may_be_a_hiccup(steps, high):
        return Plan(high, "recheck", 2 ** _count(steps, high, phase="recheck", outcome=UNDECIDED))
    confirmed = _count(steps, low, phase="confirmation", outcome=SUSTAINED)
    return Plan(low, "confirmation") if confirmed < CONFIRMATIONS else None


def bounds(steps: Sequence[Step]) -> tuple[float | None, float]:
    """The highest rate that was sustained below all that were not (None: no such), and the lowest that was not."""
    high = min(_failed(steps), default=math.inf)
    return max(
        (one.rate_per_s for one in steps if one.outcome == SUSTAINED and one.rate_per_s < high), default=None
    ), high


def judge(report: Report, plan: Plan, sent: Sent) -> Step:
    """What one step showed: a report of all its processes, whose limits are those that a sustained rate must keep."""
    assert report.producer is not None and report.consumer is not None
    read = report.consumer.summary
    growth = report.growth and [value / plan.rate_per_s for value in msgspec.structs.astuple(report.growth)]
    share, low, high = growth or (None, None, None)
    outcome, reason = _outcome(report, plan, sent, low, high)
    return Step(
        rate_per_s=plan.rate_per_s,
        phase=plan.phase,
        times=plan.times,
        doubt=read.verdict if read.verdict.startswith("uncertain") else "",
        outcome=outcome,
        reason=reason,
        sent_per_s=sent.rate_per_s,
        acknowledged=report.producer.summary.acknowledged,
        results=read.messages_read,
        growth=share,
        growth_low=low,
        growth_high=high,
        **{f"{name}_ms": getattr(read.delta_ms, name) for name in ("p50", "p99", "p99_9", "max")},
    )


def _outcome(report: Report, plan: Plan, sent: Sent, low: float | None, high: float | None) -> tuple[str, str]:
    """The outcome of a step with its reason, the surest first. `low`, `high`: bounds of the growth, as shares."""
    assert report.producer is not None and report.consumer is not None
    if report.producer.summary.not_sent or not sent.reached(plan.rate_per_s):
        return GENERATOR, _too_slow(report.producer.summary, sent)
    failed = [*_missing(report), *(one.sentence for one in report.limits if one.exceeded)]
    if not report.consumer.summary.measured:
        failed.insert(0, "nothing could be measured")
    if low is not None and low >= MOST_GROWTH:
        failed.insert(0, f"the backlog grew by at least {low:.1%} of the rate")
    if failed:
        return NOT_SUSTAINED, "; ".join(failed)
    if high is None:
        return UNDECIDED, "too few seconds were measured to judge the backlog, or not all results are of this step"
    if high >= MOST_GROWTH:
        return UNDECIDED, f"not decided: the backlog may have grown by up to {high:.1%} of the rate"
    return SUSTAINED, f"the backlog grew by less than {max(high, 0.0005):.1%} of the rate"


def _too_slow(summary: ProducerSummary, sent: Sent) -> str:
    """Whether it waits for itself or for the brokers is for the reader to see, by the acknowledgements."""
    waited = "" if summary.ack_ms.p99 is None else f", 99 % acknowledged within {summary.ack_ms.p99:.4g} ms"
    taken = f", and Kafka took {sent.answered_per_s:.6g}" if sent.answered_per_s < sent.rate_per_s else ""
    return f"the load generator is the limit: it sent {sent.rate_per_s:.6g} messages/s{taken}{waited}"


def _missing(report: Report) -> Iterator[str]:
    """What was sent and did not get through."""
    assert report.producer is not None
    sent = report.producer.summary
    if sent.acknowledged != sent.messages:
        yield f"{sent.messages - sent.acknowledged} messages were not acknowledged"
    if report.missing and report.missing > 0:
        lost = report.ledger is not None and report.ledger.lost
        yield f"{report.missing} {'messages were lost' if lost else 'results did not come'}"


def found(steps: Sequence[Step], *, resolution: float, complete: bool) -> tuple[str, float | None, str, str]:
    """Status, capacity, its line and what bounded it.

    The margin is the resolution, or more where the next rate that was surely not sustained is further away: between
    the two are rates of which nothing could be said.
    """
    low, high = bounds(steps)
    failed = [one for one in steps if one.rate_per_s == high and one.outcome != SUSTAINED]
    bounded_by = f"at {high:g} messages/s {failed[-1].reason}" if failed else "nothing yet"
    if not complete:
        known = "no rate is known to be sustained" if low is None else f"{low:g} messages/s were sustained"
        return "incomplete", low, f"capacity: not found, as the search did not end; {known}", bounded_by
    if low is None:
        return "none", None, "capacity: none: no rate was sustained", bounded_by
    doubt = next((f"; {one.doubt}" for one in steps if one.rate_per_s == low and one.doubt), "")
    surely_not = [one.rate_per_s for one in steps if one.rate_per_s > low and _surely_fails(steps, one.rate_per_s)]
    if not surely_not:
        why = _why_no_bound(failed[-1].outcome if failed else "", high)
        return "at_least", low, f"capacity: at least {low:g} messages/s; {why}{doubt}", bounded_by
    margin = max(resolution, MOST_GROWTH)  # so much may a sustained rate be above what the pipeline carries
    if min(surely_not) != high:
        margin = max(margin, min(surely_not) / low - 1)
    return "found", low, f"capacity: {low:g} messages/s ± {100 * margin:.3g} %{doubt}", bounded_by


def _why_no_bound(outcome: str, per_s: float) -> str:
    if outcome == GENERATOR:
        return "the load generator is the limit"
    if outcome == UNDECIDED:
        return f"whether {per_s:g} messages/s are sustained could not be decided"
    return "higher rates are not tried"


def _failed(steps: Sequence[Step]) -> set[float]:
    """The rates that were not sustained (nor more often so when held again), or not decided in any attempt."""
    return {
        one.rate_per_s
        for at, one in enumerate(steps, 1)
        if [step.outcome for step in _open(steps[:at])].count(one.outcome) >= _ATTEMPTS.get(one.outcome, math.inf)
        or (one.outcome == NOT_SUSTAINED and not _is_overturned(steps, one.rate_per_s))
    }


def _may_be_a_hiccup(steps: Sequence[Step], rate_per_s: float) -> bool:
    """Whether it failed once only, before there was anything to confirm."""
    failures = [one for one in steps if one.rate_per_s == rate_per_s and one.outcome == NOT_SUSTAINED]
    rechecks = _count(steps, rate_per_s, phase="recheck")
    return len(failures) == 1 and failures[0].phase != "confirmation" and rechecks < _MOST_RECHECKS


def _is_overturned(steps: Sequence[Step], rate_per_s: float) -> bool:
    """Whether a failure was a hiccup of the machine, which the majority of at least three holds shows."""
    again = _count(steps, rate_per_s, phase="recheck", outcome=SUSTAINED)
    return again > _count(steps, rate_per_s, outcome=NOT_SUSTAINED)


def _surely_fails(steps: Sequence[Step], rate_per_s: float) -> bool:
    """Whether it failed more often than not, and a second time if it was held again for that."""
    failures, successes = (_count(steps, rate_per_s, outcome=name) for name in (NOT_SUSTAINED, SUSTAINED))
    return failures > successes and (failures > 1 or not _count(steps, rate_per_s, phase="recheck"))


def _count(steps: Sequence[Step], rate_per_s: float, **fields: str) -> int:
    """How many steps of that rate have these values."""
    those = (one for one in steps if one.rate_per_s == rate_per_s)
    return sum(all(getattr(one, name) == value for name, value in fields.items()) for one in those)


def _open(steps: Sequence[Step]) -> list[Step]:
    """The last steps at the last one's rate that did not decide, since it was decided or another was held."""
    rate_per_s = steps[-1].rate_per_s
    return list(takewhile(lambda one: one.rate_per_s == rate_per_s and one.outcome in _ATTEMPTS, reversed(steps)))


def _rounded(rate_per_s: float, resolution: float) -> float:
    """A rate that can be quoted: three digits, or five for a fine resolution."""
    return float(f"{rate_per_s:.{3 if resolution >= MOST_GROWTH else 5}g}")
