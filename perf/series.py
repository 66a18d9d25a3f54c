"""A time series of deltas by output time: one row per second, in bounded memory however long the run.

When there would be too many rows, the row width doubles (1 s, 2 s, 4 s, …) and neighbours merge. The same happens when
the rows' histograms together would have too many occupied buckets: widely spread deltas cost resolution in time, never
precision. Both limits depend on the samples alone, so that the series is the same in whatever order they came.
"""

from __future__ import annotations

import base64
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from copy import deepcopy
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import msgspec

MOST_ROWS = 300
MOST_BUCKETS = 50_000  # of all rows together, at 10 bytes each: 166 per row when there are 300
_PRECISION = 100  # buckets per power of two: a bucket is at most 1 % of its values wide
_MOST_BACKLOG_ROWS = 1_000
_MOST_PENDING = 1_536  # values
_PENDING_ROW = 4  # the memory of a pending row beside its values, in values
_RowsState = list[tuple[int, str, int, int, list[int], list[int]]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The deltas of messages stamped from `start_ms` (since the epoch) until `width_s` later.

    Count, mean, min and max are exact; a percentile is at most 1 % above the delta of rank ceil(p / 100 × count).
    """

    start_ms: int
    width_s: int
    count: int
    mean_ms: float
    p50_ms: int
    p99_ms: int
    max_ms: int
    min_ms: int


class BacklogRow(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the measured messages were in the pipeline, on average, from `start_ms` until `width_s` later."""

    start_ms: int
    width_s: int
    messages: float


class SeriesState(msgspec.Struct, frozen=True, kw_only=True):
    """A series for a file. `rows` is base64 of zlib-compressed JSON: a file with a line for each number would be huge.

    The JSON is [[start in widths since the epoch, sum as text, min, max, [bucket, …], [how often, …]], …].
    """

    width_s: int
    rows: str

    def __post_init__(self) -> None:
        if self.width_s < 1 or self.width_s & (self.width_s - 1):
            raise ValueError(f"the width of a row is a power of two seconds, not {self.width_s}")


class _Cells(NamedTuple):
    """A row's samples: exact sum, min and max, its occupied buckets in ascending order and their counts."""

    sum: int
    min: int
    max: int
    buckets: array[int]
    counts: array[int]


class TimeSeries:
    """Deltas by the second of the output record's Kafka timestamp. A row without a sample does not exist.

    Merging is associative and commutative. What is added waits in plain dicts (fast), and is packed when there is much.
    """

    def __init__(self) -> None:
        self._width_s = 1
        self._rows: dict[int, _Cells] = {}  # by start in widths since the epoch
        self._pending: dict[int, dict[int, int]] = {}
        self._pending_size = 0

    def add(self, stamp_s: int, counts: Mapping[int, int]) -> None:
        """Record the deltas (ms → how often, at least once) of messages stamped in second `stamp_s` since the epoch."""
        number = stamp_s // self._width_s
        pending = self._pending.get(number)
        if pending is None:
            self._pending[number] = dict(counts)
            self._pending_size += len(counts) + _PENDING_ROW
        else:
            self._pending_size -= len(pending)
            for delta_ms, count in counts.items():
                pending[delta_ms] = pending.get(delta_ms, 0) + count
            self._pending_size += len(pending)
        if self._pending_size > _MOST_PENDING:
            self._settle()

    def merge(self, other: TimeSeries) -> None:
        """Add all of `other`'s samples to this one. The wider rows win."""
        self._settle()
        other._settle()
        self._include(deepcopy(other._rows), other._width_s)

    def rows(self) -> list[Row]:
        """The rows in time order."""
        self._settle()
        return [_row(number, self._width_s, cells) for number, cells in sorted(self._rows.items())]

    def backlog(self) -> list[BacklogRow]:
        """The mean number of messages between their input's stamp and their result's, without gaps from row to row.

        By Little's law, from the deltas alone; within its row a result is taken to come in the middle.
        """
        self._settle()
        first, last = (min(self._rows), max(self._rows)) if self._rows else (0, -1)
        merge = max(1, -(-(last - first + 1) // _MOST_BACKLOG_ROWS))  # a long gap costs resolution, never memory
        width_s, start_s = self._width_s * merge, first * self._width_s
        occupancy = _Occupancy((last - first) // merge + 1)
        for number, cells in self._rows.items():
            end = (number - first + 0.5) / merge
            for bucket, count in zip(cells.buckets, cells.counts, strict=True):
                if bucket > 0:
                    occupancy.add(end - highest_in(bucket) / (1_000 * width_s), end, count)
        return [
            BacklogRow(start_ms=(start_s + at * width_s) * 1_000, width_s=width_s, messages=messages)
            for at, messages in enumerate(occupancy.means())
        ]

    def buckets(self) -> list[dict[int, int]]:
        """The histogram of each row of `rows()`: bucket → how often. See `bucket_of` and `highest_in`."""
        self._settle()
        return [dict(zip(cells.buckets, cells.counts, strict=True)) for _, cells in sorted(self._rows.items())]

    def state(self) -> SeriesState:
        """All of it, for a result file."""
        self._settle()
        rows: _RowsState = [
            (number, str(cells.sum), cells.min, cells.max, list(cells.buckets), list(cells.counts))
            for number, cells in sorted(self._rows.items())
        ]
        text = base64.b64encode(zlib.compress(msgspec.json.encode(rows))).decode()
        return SeriesState(width_s=self._width_s, rows=text)

    @classmethod
    def from_state(cls, state: SeriesState) -> TimeSeries:
        """The series that `state` was made of."""
        series = cls()
        text = zlib.decompress(base64.b64decode(state.rows))
        rows = {
            number: _Cells(int(total), least, greatest, array("h", buckets), array("Q", counts))
            for number, total, least, greatest, buckets, counts in msgspec.json.decode(text, type=_RowsState)
        }
        series._include(rows, state.width_s)
        return series

    def _settle(self) -> None:
        rows = {number: _cells(values) for number, values in self._pending.items() if values}
        self._pending.clear()
        self._pending_size = 0
        self._include(rows, self._width_s)

    def _include(self, rows: dict[int, _Cells], width_s: int) -> None:
        if width_s > self._width_s:
            self._widen(width_s)
        self._put(rows, width_s)
        while len(self._rows) > MOST_ROWS or sum(len(cells.buckets) for cells in self._rows.values()) > MOST_BUCKETS:
            self._widen(self._width_s * 2)

    def _widen(self, width_s: int) -> None:
        rows, narrow_s = self._rows, self._width_s
        self._rows, self._width_s = {}, width_s
        self._put(rows, narrow_s)

    def _put(self, rows: dict[int, _Cells], width_s: int) -> None:
        while rows:  # emptied on the way, so that no sample is in memory twice
            number, cells = rows.popitem()
            wide = number * width_s // self._width_s
            self._rows[wide] = _joined(self._rows[wide], cells) if wide in self._rows else cells


class _Occupancy:
    """The mean number of intervals that cover each of `size` bins of width 1 from 0 on."""

    def __init__(self, size: int) -> None:
        self._partial = [0.0] * size  # of intervals that begin or end in the bin
        self._jumps = [0] * (size + 1)  # change in the number of those that cover the bin wholly

    def add(self, begin: float, end: float, count: int) -> None:
        """Add `count` intervals that end in one of the bins; what is before the first one is cut."""
        begin = max(begin, 0.0)
        first, last = int(begin), int(end)
        if first == last:
            self._partial[first] += count * (end - begin)
            return
        self._partial[first] += count * (first + 1 - begin)
        self._partial[last] += count * (end - last)
        self._jumps[first + 1] += count
        self._jumps[last] -= count

    def means(self) -> list[float]:
        return [part + whole for part, whole in zip(self._partial, accumulate(self._jumps), strict=False)]


def bucket_of(delta_ms: int, precision: int = _PRECISION) -> int:
    """The bucket of a delta: its own below 200 ms, and above that 100 buckets per power of two; negatives mirror."""
    magnitude = abs(delta_ms)
    if magnitude < 2 * precision:
        return delta_ms
    shift = (magnitude // precision).bit_length() - 1
    bucket = precision * shift + (magnitude >> shift)
    return bucket if delta_ms >= 0 else -bucket


def highest_in(bucket: int, precision: int = _PRECISION) -> int:
    """The highest delta of a bucket: at most 1 % above any other of it."""
    shift = max(abs(bucket) // precision - 1, 0)
    lowest = (abs(bucket) - precision * shift) << shift
    return lowest + (1 << shift) - 1 if bucket >= 0 else -lowest


def _cells(counts: Mapping[int, int]) -> _Cells:
    cells: dict[int, int] = {}
    for delta_ms, count in counts.items():
        bucket = bucket_of(delta_ms)
        cells[bucket] = cells.get(bucket, 0) + count
    buckets = array("h", sorted(cells))
    total = sum(map(mul, counts.keys(), counts.values()))
    packed = buckets, array("Q", map(cells.__getitem__, buckets))
    return _Cells(total, min(counts), max(counts), *packed)


def _joined(one: _Cells, two: _Cells) -> _Cells:
    buckets, counts = one.buckets, one.counts  # changed in place: fast where there are few to add to many
    for bucket, count in zip(two.buckets, two.counts, strict=True):
        at = bisect_left(buckets, bucket)
        if at < len(buckets) and buckets[at] == bucket:
            counts[at] += count
        else:
            buckets.insert(at, bucket)
            counts.insert(at, count)
    return _Cells(one.sum + two.sum, min(one.min, two.min), max(one.max, two.max), buckets, counts)


def _row(number: int, width_s: int, cells: _Cells) -> Row:
    up_to = list(accumulate(cells.counts))

    def percentile(percent: int) -> int:
        rank = -(-percent * up_to[-1] // 100)
        return min(highest_in(cells.buckets[bisect_left(up_to, rank)]), cells.max)

    return Row(
        start_ms=number * width_s * 1_000,
        width_s=width_s,
        count=up_to[-1],
        mean_ms=cells.sum / up_to[-1],
        p50_ms=percentile(50),
        p99_ms=percentile(99),
        max_ms=cells.max,
        min_ms=cells.min,
    )
