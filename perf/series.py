"""A time series of deltas by output time: one row per second, in bounded memory however long the run.

When there would be too many rows the row width doubles (1 s, 2 s, 4 s, …) and neighbours merge. The same happens when the
rows' histograms together would have too many occupied buckets: widely spread deltas cost resolution in time, never
precision. Both limits depend on the samples alone, so the series is the same in whatever order it was added or merged.
"""

from __future__ import annotations

import base64
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import msgspec

MOST_ROWS = 300
MOST_BUCKETS = 60_000  # of all rows together, 10 bytes each: 200 per row when there are 300
_PRECISION = 100  # buckets per power of two: a bucket is at most 1 % of its values wide
_MOST_PENDING = 2_048
_PENDING_ROW = 4  # what a pending row costs beside its values, in values


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


class SeriesState(msgspec.Struct, frozen=True, kw_only=True):
    """A series for a file. `rows` is compressed JSON in base64, because 60,000 numbers on a line each fill a file.

    Each row is [start in widths since the epoch, sum as text, min, max, [bucket, …], [count, …]].
    """

    width_s: int
    rows: str

    def __post_init__(self) -> None:
        if self.width_s < 1 or self.width_s & (self.width_s - 1):
            raise ValueError(f"the width of a row is a power of two seconds, not {self.width_s}")


class _RowState(msgspec.Struct, frozen=True, array_like=True):
    number: int
    sum: str
    min: int
    max: int
    buckets: list[int]
    counts: list[int]


class _Cells(NamedTuple):
    """A row's samples: exact sum, min and max, its occupied buckets in ascending order and their counts. Immutable."""

    sum: int
    min: int
    max: int
    buckets: array[int]
    counts: array[int]


class TimeSeries:
    """Deltas by the second of the output record's Kafka timestamp. A row without a sample does not exist.

    Merging is associative and commutative. What is added waits in plain dicts (fast) and is packed now and then.
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
            self._pending_size += _PENDING_ROW
        else:
            for delta_ms, count in counts.items():
                pending[delta_ms] = pending.get(delta_ms, 0) + count
        self._pending_size += len(counts)
        if self._pending_size > _MOST_PENDING:
            self._settle()

    def merge(self, other: TimeSeries) -> None:
        """Add all of `other`'s samples to this one. The wider rows win."""
        self._settle()
        other._settle()
        self._put(dict(other._rows), other._width_s)

    def rows(self) -> list[Row]:
        """The rows in time order."""
        self._settle()
        return [_row(number, self._width_s, cells) for number, cells in sorted(self._rows.items())]

    def buckets(self) -> list[dict[int, int]]:
        """The histogram of each row of `rows()`: bucket → how often. See `bucket_of` and `highest_in`."""
        self._settle()
        return [dict(zip(cells.buckets, cells.counts)) for _, cells in sorted(self._rows.items())]

    def state(self) -> SeriesState:
        """All of it, for a result file."""
        self._settle()
        rows = [
            _RowState(number, str(cells.sum), cells.min, cells.max, list(cells.buckets), list(cells.counts))
            for number, cells in sorted(self._rows.items())
        ]
        return SeriesState(
            width_s=self._width_s,
            rows=base64.b64encode(zlib.compress(msgspec.json.encode(rows))).decode(),
        )

    @classmethod
    def from_state(cls, state: SeriesState) -> TimeSeries:
        """The series that `state` was made of."""
        series = cls()
        rows = msgspec.json.decode(zlib.decompress(base64.b64decode(state.rows)), type=list[_RowState])
        series._put(
            {
                row.number: _Cells(int(row.sum), row.min, row.max, array("h", row.buckets), array("Q", row.counts))
                for row in rows
            },
            state.width_s,
        )
        return series

    def _settle(self) -> None:
        rows = {number: _cells(values) for number, values in self._pending.items() if values}
        self._pending.clear()
        self._pending_size = 0
        self._put(rows, self._width_s)

    def _put(self, rows: Mapping[int, _Cells], width_s: int) -> None:
        """Add `rows` of this width, then widen while there is too much. Nothing may be pending."""
        self._widen(max(width_s, self._width_s))
        for number, cells in rows.items():
            wide = number * width_s // self._width_s
            self._rows[wide] = _joined(self._rows[wide], cells) if wide in self._rows else cells
        while len(self._rows) > MOST_ROWS or sum(len(cells.buckets) for cells in self._rows.values()) > MOST_BUCKETS:
            self._widen(self._width_s * 2)

    def _widen(self, width_s: int) -> None:
        ...


def bucket_of(delta_ms: int) -> int:
    """The bucket of a delta: its own below 200 ms, and above that 100 buckets per power of two; negatives mirror."""
    magnitude = abs(delta_ms)
    shift = max((magnitude // _PRECISION).bit_length() - 1, 0)
    bucket = _PRECISION * shift + (magnitude >> shift)
    return bucket if delta_ms >= 0 else -bucket


def highest_in(bucket: int) -> int:
    """The highest delta of a bucket."""
    shift = max(abs(bucket) // _PRECISION - 1, 0)
    lowest = (abs(bucket) - _PRECISION * shift) << shift
    return lowest + (1 << shift) - 1 if bucket >= 0 else -lowest
