"""Two sets of runs → what differs, each difference with an interval. docs/compare.md gives the reasons and figures.

One run on each side: block bootstrap over the rows of the two time series. Several on each side: Welch's t over runs.
Differences are relative, and their logarithms are what is estimated. Nothing here knows a clock or a file; the random
numbers come from a seed, so that the same results always give the same answer.
"""

from __future__ import annotations

import math
import random
import re
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import sub
from typing import NamedTuple

import msgspec

from .limits import metrics_of
from .process import ExitCode
from .result import VERSION
from .run import Report
from .series import TimeSeries, highest_in

CONFIDENCE = 0.95
REPLICATES = 1_000
SEED = 1
LEAST_RUNS = 3
_MOST_SHOWN = 10
_LEAST_BLOCKS = 10
_LEAST_BLOCK_ROWS = 5
_BLOCK_PER_CORRELATION = 4  # rows of a block for each row of correlation time
_LOST_AT_EDGES = 1 / 8  # of the variance, at most, where blocks of that length cut an AR(1) process: docs/compare.md
_LEAST_BEYOND = 20  # samples above a percentile
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
DELTAS = ("mean", *_PERCENTILES)
#: What is compared beside the delta: an interval of these needs several runs.
OTHERS = ("max", "visible p50", "visible p99", "append_to_visible p99", "ack p99", "lateness p99", "throughput")
_JUDGED_AT_LEAST = {"p50", "p99"}  # before two sides are called the same
_LEAST_SCALE = 2.0  # buckets over which a tail e-folds, before its percentile is read between them: one delta makes two
_MOST_ALIKE = 0.99  # share of deltas in one bucket, beyond which the stamps' phases told nothing
_LEAST_LEFT = 1e-3  # of a figure, where less than all of it may be due to whole milliseconds: logarithms need some
_STEP_MS = {"ack p99": 0.001, "lateness p99": 0.001}  # the others are whole milliseconds
_CHANGE = re.compile(r"([a-z][a-z0-9_. ]*?) ?(>=?|<=?) ?([+-]?[0-9]*\.?[0-9]+) ?%")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How a figure of the new runs stands to that of the base: `change` is new / base − 1, within `low` and `high`.

    `outcome`: higher, lower, none (an interval that holds 0), or unknown, and then `why`.
    """

    metric: str
    base: float | None
    new: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    outcome: str = "unknown"
    why: str = ""


class ChangeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A limit on a change: exceeded, holds, open (the interval holds the limit) or unknown (exit code 5)."""

    limit: str
    outcome: str
    sentence: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="comparison"):
    """What PerfReport.py compare writes. `status`: same, slower, faster, differs, unknown, exceeded or invalid."""

    version: int = VERSION
    status: str
    verdict: str
    exit_code: int
    method: str
    confidence: float = CONFIDENCE
    seed: int = SEED
    base: list[list[str]]
    new: list[list[str]]
    notes: list[str]
    differences: list[Difference]
    limits: list[ChangeOutcome]


@dataclass(frozen=True)
class ChangeLimit:
    """A change that a good run does not make; `bound` is relative."""

    text: str
    metric: str
    above: bool
    bound: float

    def judge(self, differences: Mapping[str, Difference], incomplete: str = "") -> ChangeOutcome:
        """Exceeded only where the interval excludes the limit.

        `incomplete` names a side some of whose results are missing: they may be the slowest, so that no limit holds.
        """
        found = differences[self.metric]
        if found.low is None or found.high is None:
            outcome, seen = "unknown", found.why
        else:
            beyond, within = found.low > self.bound, found.high <= self.bound
            if not self.above:
                beyond, within = found.high < self.bound, found.low >= self.bound
            outcome = "exceeded" if beyond else "holds" if within else "open"
            seen = f"{percent(found.change)}, between {percent(found.low)} and {percent(found.high)}"
        why = f", as results of {incomplete} are missing" if incomplete else ""
        if incomplete and outcome != "exceeded":
            outcome = "unknown"
        words = {"open": "not decided, as the interval holds the limit", "unknown": f"cannot be judged{why}"}
        return ChangeOutcome(
            limit=self.text, outcome=outcome, sentence=f"{self.text}: {seen}: {words.get(outcome, outcome)}"
        )


def parse(text: str) -> ChangeLimit:
    """The limit that `text` declares. Raises ValueError that says what is allowed."""
    words = " ".join(text.split())
    match = _CHANGE.fullmatch(words.lower())
    metric = match[1].removeprefix("delta ") if match else ""
    if match is None or metric not in (*DELTAS, *OTHERS):
        raise ValueError(
            f"METRIC > +N% or METRIC < -N%, such as 'p99 > +10%'; metrics are {', '.join(DELTAS + OTHERS)}"
        )
    return ChangeLimit(words, metric, match[2].startswith(">"), float(match[3]) / 100)


def compare(base: Sequence[Report], new: Sequence[Report], limits: Sequence[ChangeLimit] = ()) -> Comparison:
    """What differs between two sets of runs, each a run's report."""
    differences, method = _differences(base, new)
    by_name = {found.metric: found for found in differences}
    outcomes = [limit.judge(by_name, _incomplete(base, new)) for limit in limits]
    invalid = [report.verdict for report in (*base, *new) if report.status == "invalid"]
    status, verdict, code = judged(differences, outcomes, invalid)
    return Comparison(
        status=status,
        verdict=verdict,
        exit_code=code,
        method=method,
        base=[report.sources for report in base],
        new=[report.sources for report in new],
        notes=list(_notes(base, new)),
        differences=differences,
        limits=outcomes,
    )


def percent(change: float | None) -> str:
    """A relative change for people."""
    if change is None:
        return "n/a"
    if change > _MOST_SHOWN:
        return f"over +{_MOST_SHOWN:.0%}".replace("%", " %")
    return f"{round(100 * change, 1) + 0.0:+.1f} %".replace("-", "−")


# ------------------------------------------------------------------------------------------------------- differences


def _differences(base: Sequence[Report], new: Sequence[Report]) -> tuple[list[Difference], str]:
    figures = [[_figures(report) for report in side] for side in (base, new)]
    if len(base) == len(new) == 1:
        method = "one run on each side: block bootstrap over the rows of the time series"
        estimates = _of_one_run(*(_series(side[0]) for side in (base, new)))
        why = "one run: no interval"
    elif min(len(base), len(new)) >= LEAST_RUNS:
        method = f"{len(base)} and {len(new)} runs: Welch's t over runs"
        estimates = _of_several_runs(base, new, figures)
        why = ""
    else:
        method, estimates = "none", {}
        why = f"too little data: one run on each side, or at least {LEAST_RUNS}"
    return [
        _difference(name, [_middle(one.get(name) for one in side) for side in figures], estimates.get(name), why)
        for name in (*DELTAS, *OTHERS)
    ], method


class Estimate(NamedTuple):
    """The logarithm of new / base and its interval; or why there is none."""

    log_ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    why: str = ""


class Figure(NamedTuple):
    """A figure of one run, and between which values the true one lies: steps of a unit hide where."""

    value: float
    low: float
    high: float

    @classmethod
    def within(cls, value: float, below: float, above: float) -> Figure:
        """A figure that may be so much less or more."""
        return cls(value, max(value - below, value * _LEAST_LEFT), value + above)


def _difference(metric: str, sides: Sequence[float | None], estimate: Estimate | None, why_without: str) -> Difference:
    base, new = sides
    if estimate is None or estimate.why:
        change = new / base - 1 if base and new and base > 0 and new > 0 else None
        why = estimate.why if estimate else why_without if sides != [None, None] else "not measured"
        return Difference(metric=metric, base=base, new=new, change=change, why=why)
    low, change, high = map(math.expm1, (estimate.low, estimate.log_ratio, estimate.high))
    outcome = "higher" if low > 0 else "lower" if high < 0 else "none"
    return Difference(metric=metric, base=base, new=new, change=change, low=low, high=high, outcome=outcome)


def _figures(report: Report) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    for found in (report.producer, report.consumer):  # a consumer's throughput comes last, and counts
        metrics |= metrics_of(found.summary) if found is not None else {}
    return metrics


def _middle(values: Iterable[float | None]) -> float | None:
    """One figure for several runs: the geometric mean, whose changes are those that are estimated."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return known[0] if known else None
    return statistics.geometric_mean(known) if min(known) > 0 else statistics.fmean(known)


def _series(report: Report) -> TimeSeries:
    return TimeSeries.from_state(report.consumer.series) if report.consumer is not None else TimeSeries()


# --------------------------------------------------------------------------------------- one run on each side: blocks


class Rows:
    """The rows of a time series, summed up in blocks of neighbours, to draw from.

    A percentile is interpolated inside its bucket, where deltas are taken to be spread evenly: whole milliseconds would
    otherwise hide a change, or make a small one look like a whole step.
    """

    def __init__(self, series: TimeSeries) -> None:
        self._cells = series.buckets()
        rows = series.rows()
        self._counts = [row.count for row in rows]
        self._sums = [row.mean_ms * row.count for row in rows]
        self._columns = sorted({bucket for cells in self._cells for bucket in cells})
        self.size = len(rows)
        self.width_s = rows[0].width_s if rows else 1
        self.count = sum(self._counts)
        held = Counter[int]()
        for cells in self._cells:
            held.update(cells)
        self._most_alike = max(held.values(), default=0)
        self._up_to = list(accumulate(held[bucket] for bucket in self._columns))
        self._all = _Blocks(self, self.size or 1)

    def figures(self) -> dict[str, float]:
        """The mean and the interpolated percentiles of all rows."""
        return self._all.figures([0])

    def known(self) -> dict[str, Figure]:
        """Mean and percentiles, each with what whole milliseconds leave open. docs/compare.md derives the bounds.

        The mean has no error, as the stamps' phases even out, unless nearly all deltas are alike: then they may stand.
        """
        open_ms = self._open() / 2
        mean = sum(self._sums) / self.count
        return {
            "mean": Figure.within(mean, open_ms, open_ms),
            **{name: self._percentile(share) for name, share in _PERCENTILES.items()},
        }

    def _percentile(self, share: float) -> Figure:
        """Interpolated where the deltas spread around it; else the middle of all values that would be seen so.

        An observed delta is floor(true + phase), so the number of those up to n ms is the mean of the number of true
        ones up to x, for x from n to n + 1. Which x may have `share` below it, then, follows from the neighbours.
        """
        rank = share * self.count
        bucket = self._columns[bisect_left(self._up_to, rank)]
        lower, upper = highest_in(bucket - 1) + 0.5, highest_in(bucket) + 0.5
        width = upper - lower
        value, above, below = map(
            self._at, (share, 1 - (1 - share) / math.e, max(1 - (1 - share) * math.e, share / math.e))
        )
        scale = min(above - value, value - below) / width
        if scale >= _LEAST_SCALE:
            bias = width / (6 * scale)
            return Figure.within(value, bias, bias)
        least, less, up_to, more = (self._number_up_to(bucket + by) for by in (-2, -1, 0, 1))
        down = (less - least) / (rank - least)
        up = (more - up_to) / (more - rank) if more > up_to else 0.0
        reach = (down + up + self._open(width)) / 2
        return Figure.within((lower + upper + width * (up - down)) / 2, width * reach, width * reach)

    def _open(self, width: float = 1) -> float:
        """The share of a bucket's width that is open whatever its neighbours hold, as no phase moves deltas there."""
        return float(width > 1 or self._most_alike >= _MOST_ALIKE * self.count)

    def _at(self, share: float) -> float:
        return self._all._value_at(share * self.count, [0])

    def _number_up_to(self, bucket: int) -> int:
        return self._up_to[at - 1] if (at := bisect_right(self._columns, bucket)) else 0

    def block_rows(self, figures: Mapping[str, float]) -> dict[str, int]:
        """For each figure, how long blocks must be to keep what lasts from row to row."""
        lasting = {name: _correlation_time(values) for name, values in self._influences(figures)}
        return {
            name: max(_LEAST_BLOCK_ROWS, math.ceil(_BLOCK_PER_CORRELATION * rows)) for name, rows in lasting.items()
        }

    def blocks(self, rows: int) -> _Blocks:
        """All blocks of so many neighbours; the last row is followed by the first."""
        return _Blocks(self, rows)

    def _influences(self, figures: Mapping[str, float]) -> Iterator[tuple[str, list[float]]]:
        """For each figure, how far each row pulls it."""
        for name, value in figures.items():
            if name == "mean":
                yield name, [total - value * count for total, count in zip(self._sums, self._counts, strict=True)]
            else:
                share = _PERCENTILES[name]
                below = [sum(n for bucket, n in cells.items() if highest_in(bucket) <= value) for cells in self._cells]
                yield name, [under - share * count for under, count in zip(below, self._counts, strict=True)]

    def _columns_up_to(self) -> Iterator[list[int]]:
        """For each bucket in ascending order, how many deltas of each row are in it or below."""
        by_bucket: dict[int, list[tuple[int, int]]] = {bucket: [] for bucket in self._columns}
        for number, cells in enumerate(self._cells):
            for bucket, count in cells.items():
                by_bucket[bucket].append((number, count))
        column = [0] * self.size
        for bucket in self._columns:
            for number, count in by_bucket[bucket]:
                column[number] += count
            yield column


class _Blocks:
    def __init__(self, rows: Rows, length: int) -> None:
        self.number = -(-rows.size // length)  # blocks that make a replicate
        self.starts = range(rows.size)
        self._sums = _circular_sums(rows._sums, length)
        self._up_to = [_circular_sums(column, length) for column in rows._columns_up_to()]
        self._edges = [(highest_in(bucket - 1) + 0.5, highest_in(bucket) + 0.5) for bucket in rows._columns]

    def figures(self, starts: Sequence[int]) -> dict[str, float]:
        """The mean and the percentiles of the blocks that start there."""
        count = self._up_to_column(-1, starts)
        found = {"mean": sum(map(self._sums.__getitem__, starts)) / count}
        for name, share in _PERCENTILES.items():
            found[name] = self._value_at(share * count, starts)
        return found

    def _up_to_column(self, column: int, starts: Sequence[int]) -> float:
        return sum(map(self._up_to[column].__getitem__, starts))

    def _value_at(self, rank: float, starts: Sequence[int]) -> float:
        low, high = 0, len(self._up_to) - 1
        while low < high:
            middle = (low + high) // 2
            if self._up_to_column(middle, starts) >= rank:
                high = middle
            else:
                low = middle + 1
        before = self._up_to_column(low - 1, starts) if low else 0
        lower, upper = self._edges[low]
        return lower + (upper - lower) * (rank - before) / (self._up_to_column(low, starts) - before)


def _circular_sums(values: Sequence[float], length: int) -> list[float]:
    up_to = [0, *accumulate([*values, *values[: length - 1]])]
    return list(map(sub, up_to[length:], up_to))


def _of_one_run(base: TimeSeries, new: TimeSeries) -> dict[str, Estimate]:
    sides = [Rows(base), Rows(new)]
    if not all(side.count for side in sides):
        return {}
    figures = [side.figures() for side in sides]
    lengths = [side.block_rows(found) for side, found in zip(sides, figures, strict=True)]
    known = [side.known() for side in sides]
    values = [*figures, *({name: one.value for name, one in side.items()} for side in known)]
    unknown = {name: Estimate(why=why) for name in DELTAS if (why := _reason(name, sides, values, lengths))}
    usable = [name for name in DELTAS if name not in unknown]
    if not usable:
        return unknown
    blocks = [side.blocks(max(rows[name] for name in usable)) for side, rows in zip(sides, lengths, strict=True)]
    margins = _margins(blocks, usable)
    for name in usable:
        old, now = ([one[name]] for one in known)
        unknown[name] = _estimate(old, now, margins[name]) if name in margins else Estimate(why=_NOT_POSITIVE)
    return unknown


def _estimate(base: Sequence[Figure], new: Sequence[Figure], margin: float) -> Estimate:
    """The ratio of two sides' runs in an interval that goes `margin` beyond what their steps leave open.

    That is a bound and no standard error, alike in runs that are alike: it is added, and not less with more runs.
    """
    old, old_low, old_high = (statistics.fmean(map(math.log, values)) for values in zip(*base, strict=True))
    now, low, high = (statistics.fmean(map(math.log, values)) for values in zip(*new, strict=True))
    found = Estimate(now - old, low - old_high - margin, high - old_low + margin)
    return found if found.low < found.high else Estimate(why=_ALIKE)


_NOT_POSITIVE = "a value of 0 or below has no relative difference"
_ALIKE = "the runs of a side are all alike, which tells nothing of their spread"


def _reason(
    name: str,
    sides: Sequence[Rows],
    figures: Sequence[Mapping[str, float]],
    lengths: Sequence[Mapping[str, int]],
) -> str:
    """Why there is no interval for a figure, if so."""
    if any(found[name] <= 0 for found in figures):
        return _NOT_POSITIVE
    if name in _PERCENTILES:
        needed, fewest = math.ceil(_LEAST_BEYOND / (1 - _PERCENTILES[name])), min(side.count for side in sides)
        if fewest < needed:
            return f"too little data: {fewest:,} of {needed:,} results"
    for side, rows in zip(sides, lengths, strict=True):
        if side.size < _LEAST_BLOCKS * rows[name]:
            seconds, needed = (count * side.width_s for count in (side.size, _LEAST_BLOCKS * rows[name]))
            return f"too little data: {seconds:,} of {needed:,} seconds"
    return ""


def _margins(blocks: Sequence[_Blocks], names: Sequence[str]) -> dict[str, float]:
    """How far each interval goes, so that all of them together hold the truth with CONFIDENCE."""
    generator = random.Random(SEED)  # noqa: S311 (no secret)
    replicates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(REPLICATES):
        base, new = (side.figures(generator.choices(side.starts, k=side.number)) for side in blocks)
        for name, values in replicates.items():
            if base[name] > 0 and new[name] > 0:
                values.append(math.log(new[name] / base[name]))
    complete = {name: values for name, values in replicates.items() if len(values) == REPLICATES}
    errors = {name: statistics.stdev(values) for name, values in complete.items()}
    fewest = min(side.number for side in blocks)
    wider = (
        math.sqrt(fewest / (fewest - 1) / (1 - _LOST_AT_EDGES))
        * _together(complete, errors)
        / student_quantile(math.inf)
    )
    return {name: error * wider * student_quantile(fewest - 1) for name, error in errors.items()}


def _together(replicates: Mapping[str, Sequence[float]], errors: Mapping[str, float]) -> float:
    """How many standard errors hold all figures of a replicate at once, in CONFIDENCE of them."""
    spread = [(values, statistics.fmean(values), errors[name]) for name, values in replicates.items() if errors[name]]
    furthest = sorted(
        max(abs(values[at] - mean) / error for values, mean, error in spread) for at in range(REPLICATES)
    ) if spread else [0.0]  # fmt: skip
    return furthest[math.ceil(CONFIDENCE * len(furthest)) - 1]


def _correlation_time(values: Sequence[float]) -> float:
    """1 + 2 × the sum of the autocorrelations, as far as they stand out from noise (Politis 2003's rule)."""
    size = len(values)
    mean = statistics.fmean(values)
    around = [value - mean for value in values]
    power = sum(value * value for value in around)
    noise = 2 * math.sqrt(math.log10(size) / size) if size > 1 else 1.0
    total = 1.0
    for lag in range(1, size // 2):
        correlation = sum(one * other for one, other in zip(around, around[lag:], strict=False)) / power if power else 0
        if correlation < noise:
            break
        total += 2 * correlation
    return total


# ------------------------------------------------------------------------------------------------------- several runs


def _of_several_runs(
    base: Sequence[Report], new: Sequence[Report], figures: Sequence[Sequence[Mapping[str, float | None]]]
) -> dict[str, Estimate]:
    sides = [
        [_with_rounding(report, found) for report, found in zip(reports, side, strict=True)]
        for reports, side in zip((base, new), figures, strict=True)
    ]
    return {name: _over_runs(name, [[found.get(name) for found in side] for side in sides])
            for name in (*DELTAS, *OTHERS)}  # fmt: skip


def _with_rounding(report: Report, figures: Mapping[str, float | None]) -> dict[str, Figure]:
    """A run's figures, those of the delta interpolated."""
    found = {}
    for name, value in figures.items():
        if value is not None:
            half = _resolution(name, value, report) / 2
            found[name] = Figure.within(value, half, half)
    rows = Rows(_series(report))
    return found | rows.known() if rows.count else found


def _resolution(name: str, value: float, report: Report) -> float:
    """The step in which a figure is known: its unit, or that of a histogram of 3 digits, or of the stamps around it."""
    if name == "throughput":
        summary = report.consumer.summary if report.consumer is not None else None
        span_ms = (summary.last_record_ms or 0) - (summary.first_record_ms or 0) if summary is not None else 0
        return value / span_ms if span_ms else 0.0
    return max(_STEP_MS.get(name, 1.0), value * 0.001)


def _over_runs(name: str, sides: Sequence[Sequence[Figure | None]]) -> Estimate:
    known = [[figure for figure in side if figure is not None] for side in sides]
    if any(len(found) < len(side) for found, side in zip(known, sides, strict=True)):
        return Estimate(why="not in every run")
    if any(figure.value <= 0 for side in known for figure in side):
        return Estimate(why=_NOT_POSITIVE)
    base, new = known
    return _estimate(base, new, _welchs_margin(name, *([math.log(one.value) for one in side] for side in known)))


def _welchs_margin(name: str, base: Sequence[float], new: Sequence[float]) -> float:
    shares = [statistics.variance(side) / len(side) for side in (base, new)]
    if not sum(shares):
        return 0.0
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(side) - 1) for share, side in zip(shares, (base, new), strict=True)
    )
    return math.sqrt(sum(shares)) * student_quantile(freedom, _together_with(name))


def _together_with(name: str) -> int:
    """How many figures are judged at once with this one."""
    return len(DELTAS) if name in DELTAS else 1


def student_quantile(freedom: float, together: int = 1) -> float:
    """How many standard errors a two-sided t interval of CONFIDENCE goes; `together`: Bonferroni for so many."""
    if freedom == math.inf:
        return statistics.NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / together / 2)
    steps = 4_000
    width = math.pi / 2 / steps  # with t = sqrt(freedom) tan(angle), the density is cos(angle) ** (freedom − 1)
    areas = list(accumulate(math.cos((at + 0.5) * width) ** (freedom - 1) for at in range(steps)))
    wanted = (1 - (1 - CONFIDENCE) / together) * areas[-1]
    at = bisect_left(areas, wanted)
    before = areas[at - 1] if at else 0.0
    return math.sqrt(freedom) * math.tan((at + (wanted - before) / (areas[at] - before)) * width)


# ----------------------------------------------------------------------------------------------------------- in words


def judged(
    differences: Sequence[Difference], limits: Sequence[ChangeOutcome], invalid: Sequence[str]
) -> tuple[str, str, int]:
    """Status, verdict and exit code; `invalid` has the verdicts of runs that measured nothing."""
    deltas = {found.metric: found for found in differences if found.metric in DELTAS}
    outcomes, limited = {found.outcome for found in deltas.values()}, {found.outcome for found in limits}
    code = ExitCode.NO_MEASUREMENT if "unknown" in limited else ExitCode.DONE
    if invalid:
        return "invalid", invalid[0], ExitCode.NO_MEASUREMENT
    said = _verdict(deltas, limits)
    if "exceeded" in limited:
        return "exceeded", said, ExitCode.LIMIT_EXCEEDED
    if code:
        return "unknown", f"{said} {next(one.sentence for one in limits if one.outcome == 'unknown')}.", code
    if outcomes >= {"higher", "lower"}:
        status = "differs"
    elif outcomes & {"higher", "lower"}:
        status = "slower" if "higher" in outcomes else "faster"
    else:
        status = "same" if all(deltas[name].outcome == "none" for name in _JUDGED_AT_LEAST) else "unknown"
    return status, said, code


def _verdict(differences: Mapping[str, Difference], limits: Sequence[ChangeOutcome]) -> str:
    deltas = [differences[name] for name in ("p50", "p99", *sorted({*DELTAS} - {"p50", "p99"}))]
    shown = [found for found in deltas if found.outcome in ("higher", "lower")]
    exceeded = [found.sentence for found in limits if found.outcome == "exceeded"]
    if exceeded:
        return f"{len(exceeded)} of {len(limits)} limits exceeded ({exceeded[0].removesuffix(': exceeded')})."
    if shown:
        word = "/".join(dict.fromkeys("slower" if found.outcome == "higher" else "faster" for found in shown))
        return f"The new side is {word}: {' and '.join(map(_in_words, shown[:2]))}."
    known = [found for found in deltas if found.outcome == "none"]
    if known:
        widest = max(known, key=lambda found: (found.high or 0) - (found.low or 0))
        return f"No difference was shown{_as_far_as(differences)}; the widest interval is that of {_in_words(widest)}."
    return f"Nothing can be said: {deltas[0].why}."


def _as_far_as(differences: Mapping[str, Difference]) -> str:
    missing = [name for name in DELTAS if differences[name].outcome == "unknown"]
    if not missing:
        return ""
    known = len(DELTAS) - len(missing)
    why = differences[missing[0]].why
    return f" in the {known} of {len(DELTAS)} figures that could be judged (not {', '.join(missing)}: {why})"


def _in_words(found: Difference) -> str:
    return f"{found.metric} {percent(found.change)} (between {percent(found.low)} and {percent(found.high)})"


def _incomplete(base: Sequence[Report], new: Sequence[Report]) -> str:
    for name, side in (("the base", base), ("the new side", new)):
        if any(report.status == "incomplete" for report in side):
            return name
    return ""


def _notes(base: Sequence[Report], new: Sequence[Report]) -> Iterator[str]:
    """What makes the two sides hard to compare."""
    for word, reports in (("base", base), ("new", new)):
        bad = [report for report in reports if report.status in ("invalid", "uncertain", "incomplete")]
        if bad:
            yield f"{len(bad)} of {len(reports)} runs ({word}) are no valid, complete measurement: {bad[0].verdict}"
    rates = [_middle([_figures(report).get("throughput") for report in side]) for side in (base, new)]
    if rates[0] and rates[1] and abs(rates[1] / rates[0] - 1) > 0.02:
        yield f"the load was not the same: {rates[0]:,.6g} and {rates[1]:,.6g} results/s"
    if len({one.consumer.summary.latency for one in (*base, *new) if one.consumer is not None}) > 1:
        yield "some measure to the append stamp, others to the moment of receiving"
