"""A consumer's deltas in HdrHistogram's text formats, which its plotters and Java tools read: docs/report.md.

HdrHistograms hold no negative values. The percentile text has none of that limit: it lists values of either sign. In a
log, deltas below 0 stand by their size in lines of the tag "negative".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from hdrh.histogram import HdrHistogram

from ..result import ConsumerResult
from ..series import TimeSeries, highest_in
from ..stats import HIGHEST_TRACKABLE, PARTITION_DIGITS, Histogram

_TICKS_PER_HALF_DISTANCE = 5


def percentiles(result: ConsumerResult) -> str:
    """The deltas' percentile distribution (.hgrm), in milliseconds."""
    histogram = Histogram.from_state(result.histograms["delta_ms"])
    found = histogram.distribution()
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for value, share, total in ticks(histogram.cells()):
        inverse = f"{1 / (1 - share):14.2f}" if share < 1 else ""
        lines.append(f"{value:12.3f} {share:2.12f} {total:10d} {inverse}".rstrip())
    lines.append(f"#[Mean    = {found.mean or 0:12.3f}, StdDeviation   = {found.stdev or 0:12.3f}]")
    lines.append(f"#[Max     = {found.max or 0:12.3f}, Total count    = {found.count:12d}]")
    return "\n".join(lines) + "\n"


def log(result: ConsumerResult) -> str:
    """The deltas as a V2 log (.hlog), in whole milliseconds.

    Lines without a tag: one for each row of the time series, within 1 %. Lines with the tag of a distribution: all of
    the run with 3 digits.
    """
    rows = TimeSeries.from_state(result.series)
    base_ms = rows.rows()[0].start_ms if rows.rows() else 0
    lines = [
        "#[Values are whole milliseconds: outputValueUnitRatio 1; deltas below 0 by their size, with the tag negative]",
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {base_ms / 1000:.3f} (seconds since epoch)]",
        f"#[BaseTime: {base_ms / 1000:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for row, buckets in zip(rows.rows(), rows.buckets(), strict=True):
        since_s = (row.start_ms - base_ms) / 1000
        lines += _interval(_hdr(buckets, sign=1), since_s, row.width_s)
        lines += _interval(_hdr(buckets, sign=-1), since_s, row.width_s, "negative")
    length_s = sum((row.start_ms - base_ms) / 1000 + row.width_s for row in rows.rows()[-1:])
    for name, state in result.histograms.items():
        if "/" not in name:  # a partition's
            stage = name.removesuffix("_ms")
            lines += _interval(HdrHistogram.decode(state.positive), 0, length_s, stage)
            lines += _interval(HdrHistogram.decode(state.negative), 0, length_s, f"{stage}_negative")
    return "\n".join(lines) + "\n"


def ticks(cells: list[tuple[int, int]]) -> Iterator[tuple[int, float, int]]:
    """(value, share, count up to it) at HdrHistogram's steps: five for each halving of the distance to 100 %."""
    totals = list(accumulate(count for _, count in cells))
    if not cells:
        return
    level, at = 0.0, 0
    while True:
        while 100 * totals[at] / totals[-1] < level:
            at += 1
        if totals[at] == totals[-1]:
            yield cells[at][0], min(level / 100, 1.0), totals[at]
            break
        yield cells[at][0], level / 100, totals[at]
        halvings = int(math.log2(100 / (100 - level))) + 1
        level += 100 / (_TICKS_PER_HALF_DISTANCE * 2**halvings)
    yield cells[-1][0], 1.0, totals[-1]


def _interval(hdr: HdrHistogram, start_s: float, length_s: float, tag: str = "") -> list[str]:
    """The line of an interval, none without a sample."""
    if not hdr.get_total_count():
        return []
    prefix = f"Tag={tag}," if tag else ""
    return [f"{prefix}{start_s:.3f},{length_s:.3f},{float(hdr.get_max_value()):.3f},{hdr.encode().decode()}"]


def _hdr(buckets: dict[int, int], *, sign: int) -> HdrHistogram:
    hdr = HdrHistogram(1, HIGHEST_TRACKABLE, PARTITION_DIGITS)
    for bucket, count in buckets.items():
        if (bucket >= 0) == (sign > 0):
            hdr.record_value(abs(highest_in(bucket)), count)
    return hdr
