"""The highest rate that a pipeline sustains: which rate to try next, and what a step at it showed.

Pure functions of what was measured: nothing here waits, looks at a clock or sends. docs/capacity.md says it for users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise, takewhile
from statistics import NormalDist, linear_regression
from typing import NamedTuple

import msgspec

from .payload import Rejection
from .result import VERSION, ProducerResult
from .run import Report
from .series import BacklogRow
from .stats import ConsumerSummary, ProducerSummary

MOST_GROWTH = 0.01  # of the rate: by so much the backlog of a sustained rate may surely not grow
CONFIRMATIONS = 3
_MOST_RECHECKS = 3
_FACTOR = 2.0
_LEAST_REACHED = 0.99  # of the rate: below it the producer was too slow
_HICCUP_S = 0.5  # of the last answer: by so little it may be late in any case
_LEAST_ROWS = 5
MOST_STEPS = 100  # of a search
_LEAST_PER_S, _MOST_PER_S = 0.1, 1e8
_MOST_CORRELATION = 0.9

SUSTAINED, NOT_SUSTAINED, UNDECIDED, GENERATOR = "sustained", "not_sustained", "undecided", "generator"
#: These tell more of the machine's noise than of the pipeline: so often in turn they are believed.
_ATTEMPTS = {UNDECIDED: 3, GENERATOR: 2}


class Growth(NamedTuple):
    """How fast the backlog grew, in messages per second: the slope and its one-sided 95 % bounds."""

    per_s: float
    low_per_s: float
    high_per_s: float


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


class Sent(NamedTuple):
    """How the producers of a step sent together: the sums of their rates, and how far apart they began.

    `answered_per_s` is the rate at which Kafka took what was sent.
    """

    rate_per_s: float
    skew_s: float
    answered_per_s: float


def sent_by(producers: Sequence[ProducerResult]) -> Sent:
    """The merged result spreads all messages over the time from the first one's start to the last one's end."""
    starts_s = [datetime.fromisoformat(one.started_at).timestamp() for one in producers]
    sent_per_s = sum(one.summary.send_rate_per_s or 0 for one in producers)
    return Sent(sent_per_s, max(starts_s) - min(starts_s), sum(_answered_per_s(one.summary) for one in producers))


def _answered_per_s(summary: ProducerSummary) -> float:
    """Messages by the time until the last answer, less what an answer takes at least, and a hiccup at the end.

    What the client cannot get rid of waits in its queue, and is sent late: a load that the pipeline never had.
    """
    late_s = summary.elapsed_s - summary.send_elapsed_s - (summary.ack_ms.min or 0.0) / 1_000
    spent_s = summary.send_elapsed_s + (late_s if late_s > _HICCUP_S else 0.0)
    return summary.messages / spent_s if spent_s > 0 else math.inf


def judge(report: Report, plan: Plan, sent: Sent) -> Step:
    """What one step showed: a report of all its processes, whose limits are those that a sustained rate must keep."""
    assert report.producer is not None and report.consumer is not None
    read = report.consumer.summary
    rows = backlog_while_sending(report, skew_s=sent.skew_s)
    growth = growth_of(rows)
    results_per_s = plan.rate_per_s * (report.expect_ratio or 1) * _share_measured(read)
    shares = [value / results_per_s for value in growth] if growth is not None else [None] * 3
    outcome, reason = _outcome(report, plan, sent, shares[1:])
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
        growth=shares[0],
        growth_low=shares[1],
        growth_high=shares[2],
        **{f"{name}_ms": getattr(read.delta_ms, name) for name in ("p50", "p99", "p99_9", "max")},
    )


def _share_measured(read: ConsumerSummary) -> float:
    """Of the results after the warm-up: the backlog is made of these only."""
    known = read.messages_read - read.not_measured.get(Rejection.WARMUP.value, 0)
    return read.measured / known if read.measured else 1.0


def _outcome(report: Report, plan: Plan, sent: Sent, bounds: Sequence[float | None]) -> tuple[str, str]:
    """The outcome of a step with its reason, the surest first."""
    assert report.producer is not None and report.consumer is not None
    reached_per_s = min(sent.rate_per_s, sent.answered_per_s)
    if report.producer.summary.not_sent or reached_per_s < _LEAST_REACHED * plan.rate_per_s:
        return GENERATOR, _too_slow(report.producer.summary, sent)
    low, high = bounds
    failed = [*_missing(report), *(one.sentence for one in report.limits if one.exceeded)]
    if not report.consumer.summary.measured:
        failed.insert(0, "nothing could be measured")
    if low is not None and low >= MOST_GROWTH:
        failed.insert(0, f"the backlog grew by at least {low:.1%} of the rate")
    if failed:
        return NOT_SUSTAINED, "; ".join(failed)
    if high is None:
        return UNDECIDED, "too few seconds were measured to judge the backlog"
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


def backlog_while_sending(report: Report, *, skew_s: float = 0.0) -> list[BacklogRow]:
    """The rows of the backlog in which messages were sent all the time, by Kafka's timestamps alone.

    The first row is partial, and what was in flight during the warm-up is missing there. A row that ends at E and has
    the least delta d tells that a message was sent at E - d at the latest; the greatest of these is at most a row
    behind the last message sent. Producers that began `skew_s` apart end so, too; their beginnings are in the warm-up.
    """
    assert report.consumer is not None
    rows = report.consumer.summary.series
    if not rows or not report.backlog:
        return []
    width_ms = 1_000 * max(rows[0].width_s, report.backlog[0].width_s)
    first_ms = rows[0].start_ms + width_ms
    last_ms = max(row.start_ms + 1_000 * row.width_s - row.min_ms for row in rows) - width_ms
    last_ms -= math.ceil(1_000 * skew_s)
    return [row for row in report.backlog if row.start_ms >= first_ms and row.start_ms + width_ms <= last_ms]


def growth_of(rows: Sequence[BacklogRow]) -> Growth | None:
    """The slope of the backlog by least squares; None with fewer than five rows.

    A backlog is no white noise: what is in it now is mostly still there a moment later. So the error is widened by what
    the residuals' correlation r from row to row makes of it, (1 + r) / (1 - r) for the variance (as of a first-order
    autoregressive process: effective sample size). Of n residuals about a line, r comes out too small by some
    (2 + 4 r) / n, which is put back (test_capacity.py simulates what remains).
    """
    if len(rows) < _LEAST_ROWS:
        return None
    times_s = [row.start_ms / 1_000 - rows[0].start_ms / 1_000 for row in rows]
    messages = [row.messages for row in rows]
    slope, intercept = linear_regression(times_s, messages)
    residuals = [value - intercept - slope * time_s for time_s, value in zip(times_s, messages, strict=True)]
    squares = sum(residual * residual for residual in residuals)
    mean_s = sum(times_s) / len(times_s)
    spread = sum((time_s - mean_s) ** 2 for time_s in times_s)
    r = sum(one * other for one, other in pairwise(residuals)) / squares if squares > 0 else 0.0
    r = min(max(r + (2 + 4 * max(r, 0.0)) / len(rows), 0.0), _MOST_CORRELATION)
    freedom = len(rows) - 2
    error = _t_95(freedom) * math.sqrt(squares / freedom / spread * (1 + r) / (1 - r))
    return Growth(slope, slope - error, slope + error)


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


def _t_95(freedom: int) -> float:
    """The 95 % quantile of Student's t, by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5)."""
    z: float = NormalDist().inv_cdf(0.95)
    terms: tuple[float, ...] = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))
