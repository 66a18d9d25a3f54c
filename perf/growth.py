"""Whether a pipeline kept up with a fixed rate: what was sent, and how fast the backlog grew.

From results alone, after the run. docs/report.md says it for users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist, linear_regression
from typing import NamedTuple

import msgspec

from .payload import Rejection
from .result import ConsumerResult, ProducerResult, epoch_ms
from .series import BacklogRow, Row
from .stats import ConsumerSummary, ProducerSummary

MOST_GROWTH = 0.01  # of the rate: by so much the backlog of a sustained rate may surely not grow
LEAST_ROWS = 5
_LEAST_REACHED = 0.99  # of the rate: below it the producer was too slow
_HICCUP_S = 0.5  # of the last answer: by so little it may be late in any case
_MOST_OFF = 0.1  # by so much the number of results may differ from what is expected, to be judged
_MOST_DRAIN = 3.0  # times the time of sending


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the backlog grew: its slope and the one-sided 95 % bounds of that, in messages per second."""

    growth_per_s: float
    growth_low_per_s: float
    growth_high_per_s: float


class Sent(NamedTuple):
    """How several producers sent together. `answered_per_s` is the rate at which Kafka took what was sent."""

    rate_per_s: float
    answered_per_s: float

    def reached(self, rate_per_s: float) -> bool:
        """Whether the load was of this rate; else the load generator, or what took its messages, was the limit."""
        return min(self) >= _LEAST_REACHED * rate_per_s


def sent_by(producers: Sequence[ProducerResult]) -> Sent:
    """The sums of their rates: a merged result spreads all messages from the first start to the last end."""
    return Sent(
        sum(one.summary.send_rate_per_s or 0 for one in producers),
        sum(_answered_per_s(one.summary) for one in producers),
    )


def _answered_per_s(summary: ProducerSummary) -> float:
    """Messages by the time until the last answer, less what an answer takes at least, and a hiccup at the end.

    What the client cannot get rid of waits in its queue, and is sent late: a load that the pipeline never had.
    """
    late_s = summary.elapsed_s - summary.send_elapsed_s - (summary.ack_ms.min or 0.0) / 1_000
    spent_s = summary.send_elapsed_s + (late_s if late_s > _HICCUP_S else 0.0)
    return summary.messages / spent_s if spent_s > 0 else math.inf


def growth_of(
    producers: Sequence[ProducerResult],
    consumer: ConsumerResult | None,
    series: Sequence[Row],
    backlog: Sequence[BacklogRow],
    *,
    ratio: float | None,
) -> Growth | None:
    """That of a run's backlog, in messages of the input: `ratio` results are for each, about one if that is None.

    None where the backlog is not the pipeline's alone (`_is_pipelines`), where the load did not reach its rate, and
    with too few seconds in which all producers sent.
    """
    producers = [one for one in producers if one.summary.messages]
    if consumer is None or not _is_pipelines(producers, consumer.summary, ratio):
        return None
    read, ratio = consumer.summary, ratio or 1.0
    rate_per_s = sum(one.summary.target_rate_per_s or 0 for one in producers)
    if not sent_by(producers).reached(rate_per_s):
        return None
    warmup = read.not_measured.get(Rejection.WARMUP.value, 0)
    starts_ms = [epoch_ms(one.started_at) for one in producers]
    ends_ms = [start + 1_000 * one.summary.send_elapsed_s for start, one in zip(starts_ms, producers, strict=True)]
    began_ms = max(starts_ms) - min(starts_ms) - 1_000 * warmup / (ratio * rate_per_s)
    rows = rows_while_sending(series, backlog, skew_ms=(max(began_ms, 0.0), max(ends_ms) - min(ends_ms)))
    # of the results after the warm-up: the backlog is made of these only
    share_measured = read.measured / max(read.messages_read - warmup, read.measured)
    return slope_of(rows, each=ratio * share_measured)


def falls_behind(
    growth: Growth | None,
    producers: Sequence[ProducerResult],
    consumer: ConsumerResult | None,
    series: Sequence[Row],
    *,
    ratio: float | None,
    sent_s: float,
) -> str:
    """In words that the pipeline fell behind the rate of what was sent in `sent_s`; "" where that is not sure."""
    producers = [one for one in producers if one.summary.messages]
    rate_per_s = sum(one.summary.target_rate_per_s or 0 for one in producers)
    if growth is not None and rate_per_s:
        share = growth.growth_low_per_s / rate_per_s
        return f"its backlog grew by at least {share:.1%} of the rate" if share >= MOST_GROWTH else ""
    if consumer is None or not series or not _is_pipelines(producers, consumer.summary, ratio):
        return ""
    # so long after the input that the rows of the series, which grew with it, are too wide for a slope
    took_s = (series[-1].start_ms - series[0].start_ms) / 1_000
    if series[0].width_s == 1 or took_s < _MOST_DRAIN * sent_s:
        return ""
    return f"messages were sent for {sent_s:.0f} s, and their results took {took_s:.0f} s"


def _is_pipelines(producers: Sequence[ProducerResult], read: ConsumerSummary, ratio: float | None) -> bool:
    """Whether the backlog of the deltas is what a steady load made of the pipeline, and nothing else.

    With intended stamps it has the producer's lateness in it, with the moment of receiving the consumer's. Where there
    are more results than expected, or fewer and the ratio is not declared, nobody knows which load they are of.
    """
    steady = all(
        one.steady and (one.summary.target_rate_per_s or 0) > 0 and one.summary.stamp == "send" for one in producers
    )
    if not producers or not steady or read.latency != "append" or not read.is_valid or not read.measured:
        return False
    expected = (ratio or 1.0) * sum(one.summary.acknowledged for one in producers)
    more = read.messages_read - expected
    return more <= _MOST_OFF * expected and (ratio is not None or -more <= _MOST_OFF * expected)


def rows_while_sending(
    series: Sequence[Row], backlog: Sequence[BacklogRow], *, skew_ms: tuple[float, float] = (0, 0)
) -> list[BacklogRow]:
    """The rows of the backlog in which all producers sent.

    The first row is partial, and what was in flight during the warm-up is missing there. A row that ends at E and has
    the least delta d tells that a message was sent at E - d at the latest; the greatest of these is at most a row
    behind the last message sent. `skew_ms`: how far apart the producers began (beyond the warm-up) and ended.
    """
    if not series or not backlog:
        return []
    width_ms = 1_000 * max(series[0].width_s, backlog[0].width_s)
    first_ms = series[0].start_ms + width_ms + skew_ms[0]
    last_ms = max(row.start_ms + 1_000 * row.width_s - max(row.min_ms, 0) for row in series) - width_ms - skew_ms[1]
    return [row for row in backlog if row.start_ms >= first_ms and row.start_ms + width_ms <= last_ms]


def slope_of(rows: Sequence[BacklogRow], *, each: float = 1.0) -> Growth | None:
    """The slope of the backlog by least squares, where `each` results are a message; None with fewer than five rows.

    A backlog is no white noise: what is in it now is mostly still there a moment later. So the error is widened by what
    the residuals' correlation r from row to row makes of it, (1 + r) / (1 - r) for the variance (as of a first-order
    autoregressive process: effective sample size). Of n residuals about a line, r comes out too small by some
    (2 + 4 r) / n, which is put back (test_growth.py simulates what remains).
    """
    if len(rows) < LEAST_ROWS:
        return None
    times_s = [(row.start_ms - rows[0].start_ms) / 1_000 for row in rows]
    messages = [row.messages / each for row in rows]
    slope, intercept = linear_regression(times_s, messages)
    residuals = [value - intercept - slope * time_s for time_s, value in zip(times_s, messages, strict=True)]
    squares = sum(residual * residual for residual in residuals)
    mean_s = sum(times_s) / len(times_s)
    spread = sum((time_s - mean_s) ** 2 for time_s in times_s)
    r = sum(one * other for one, other in pairwise(residuals)) / squares if squares > 0 else 0.0
    r = min(max(r + (2 + 4 * max(r, 0.0)) / len(rows), 0.0), _most_correlation(len(rows)))
    freedom = len(rows) - 2
    error = _t_95(freedom) * math.sqrt(squares / freedom / spread * (1 + r) / (1 - r))
    return Growth(growth_per_s=slope, growth_low_per_s=slope - error, growth_high_per_s=slope + error)


def _most_correlation(rows: int) -> float:
    """So much can be told apart from a slope, by that many rows."""
    return max(0.9, 1 - 3 / rows)


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
