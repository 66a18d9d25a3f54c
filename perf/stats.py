"""Windows, histograms and counters → Summary. `add` is cheap, `summary()` computes, renderers only format.

A new statistic is a field of ConsumerSummary or ProducerSummary and the line here that computes it: the renderers
iterate the fields. Definitions: docs/measurement.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from hdrh.histogram import HdrHistogram

from .payload import Rejection

SIGNIFICANT_DIGITS = 3
HIGHEST_TRACKABLE = 2**53
DEFAULT_WINDOWS = (100, 1_000, 10_000, 100_000)
TOTAL_EVERY = 1_000
_MOST_PENDING = 8_192
_TIMESTAMP_TYPES = {0: "none", 1: "CreateTime", 2: "LogAppendTime"}


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Exact count, mean, standard deviation (of the population), min and max; percentiles within 0.1 %.

    A percentile p is the value of rank ceil(p / 100 × count) in ascending order. Without a sample all are None.
    """

    count: int
    mean: float | None = None
    stdev: float | None = None
    min: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    p99_99: float | None = None
    max: float | None = None


class ConsumerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer measured. The counters of `not_measured` and `measured` sum to `messages_read`."""

    messages_read: int
    measured: int
    not_measured: dict[str, int]
    negative: int
    timestamp_types: dict[str, int]
    first_record_ms: int | None
    last_record_ms: int | None
    throughput_per_s: float | None
    throughput_mb_per_s: float | None
    elapsed_s: float
    delta_ms: Distribution


class ProducerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer sent. `messages` = `acknowledged` + `failed` + `unknown`.

    `throughput_per_s` is what was acknowledged over all the time until the last answer; `send_rate_per_s` is taken from
    the first message sent to the last, and compares with the target. Lateness is n/a without a schedule.
    """

    messages: int
    acknowledged: int
    failed: dict[str, int]
    unknown: int
    bytes: int
    elapsed_s: float
    send_elapsed_s: float
    throughput_per_s: float | None
    throughput_mb_per_s: float | None
    send_rate_per_s: float | None
    target_rate_per_s: float | None
    lateness_ms: Distribution


class HistogramState(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram for a file: exact sums as decimal text, HdrHistogram V2 (compressed, base64) of both signs."""

    count: int
    sum: str
    sum_of_squares: str
    min: int | None
    max: int | None
    positive: str
    negative: str


class Histogram:
    """Integer samples of either sign: exact sums, and HdrHistograms of 3 significant digits for the percentiles.

    Merging is associative and commutative. Recording goes through a plain count of values (fast, in C), emptied into
    the HdrHistograms when it has many distinct ones.
    """

    def __init__(self) -> None:
        self._pending: Counter[int] = Counter()
        self._positive, self._negative = _hdr(), _hdr()
        self._count = self._sum = self._sum_of_squares = 0
        self._min: int | None = None
        self._max: int | None = None

    def add(self, values: Iterable[int]) -> None:
        """Record each of `values`."""
        self._pending.update(values)
        if len(self._pending) > _MOST_PENDING:
            self._settle()

    def merge(self, other: Histogram) -> None:
        """Add all of `other`'s samples to this one."""
        self._settle()
        other._settle()
        self._positive.add(other._positive)
        self._negative.add(other._negative)
        self._count += other._count
        self._sum += other._sum
        self._sum_of_squares += other._sum_of_squares
        self._min = _least(self._min, other._min)
        self._max = _greatest(self._max, other._max)

    def negative(self) -> int:
        """How many samples are below 0."""
        self._settle()
        return int(self._negative.get_total_count())

    def distribution(self, *, divisor: int = 1) -> Distribution:
        """The distribution, each value divided by `divisor` (to convert units)."""
        self._settle()
        if self._count == 0 or self._min is None or self._max is None:
            return Distribution(count=0)
        variance_numerator = self._count * self._sum_of_squares - self._sum**2
        return Distribution(
            count=self._count,
            mean=self._sum / (self._count * divisor),
            stdev=math.sqrt(variance_numerator) / (self._count * divisor),
            min=self._min / divisor,
            p50=self._percentile(5000) / divisor,
            p90=self._percentile(9000) / divisor,
            p95=self._percentile(9500) / divisor,
            p99=self._percentile(9900) / divisor,
            p99_9=self._percentile(9990) / divisor,
            p99_99=self._percentile(9999) / divisor,
            max=self._max / divisor,
        )

    def state(self) -> HistogramState:
        """All of it, for a result file."""
        self._settle()
        return HistogramState(
            count=self._count,
            sum=str(self._sum),
            sum_of_squares=str(self._sum_of_squares),
            min=self._min,
            max=self._max,
            positive=self._positive.encode().decode(),
            negative=self._negative.encode().decode(),
        )

    @classmethod
    def from_state(cls, state: HistogramState) -> Histogram:
        """The histogram that `state` was made of."""
        histogram = cls()
        histogram._positive.decode_and_add(state.positive)
        histogram._negative.decode_and_add(state.negative)
        histogram._count, histogram._min, histogram._max = state.count, state.min, state.max
        histogram._sum, histogram._sum_of_squares = int(state.sum), int(state.sum_of_squares)
        return histogram

    def _settle(self) -> None:
        if not self._pending:
            return
        for value, count in self._pending.items():
            hdr = self._positive if value >= 0 else self._negative
            hdr.record_value(min(abs(value), HIGHEST_TRACKABLE), count)
            self._count += count
            self._sum += value * count
            self._sum_of_squares += value * value * count
        self._min = _least(self._min, min(self._pending))
        self._max = _greatest(self._max, max(self._pending))
        self._pending.clear()

    def _percentile(self, hundredths: int) -> int:
        """The percentile `hundredths` / 100; in whole numbers, because floats miss the rank of 99.9 % of 1,000."""
        rank = -(-hundredths * self._count // 10_000)
        negatives = self._negative.get_total_count()
        if rank <= negatives:
            value = -_value_at_rank(self._negative, negatives - rank + 1)
        else:
            value = _value_at_rank(self._positive, rank - negatives)
        return min(max(value, self._min or 0), self._max or 0)


class WindowAverage(NamedTuple):
    """The exact mean of the last `size` deltas, in ms."""

    size: int
    mean_ms: float


class TotalRead(NamedTuple):
    """Messages read so far, measured or not."""

    messages: int


#: What a batch may complete, in the order to print.
Event = WindowAverage | TotalRead


class Statistics:
    """The consumer's statistics. Windows tumble over the measured messages in the order read."""

    def __init__(self, windows: Sequence[int] = DEFAULT_WINDOWS) -> None:
        self._window_sums = dict.fromkeys(sorted(set(windows)), 0)
        self._boundaries = sorted({*self._window_sums, TOTAL_EVERY})
        self._rejections: Counter[Rejection] = Counter()
        self._timestamp_types: Counter[int] = Counter()
        self._deltas = Histogram()
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._bytes = 0
        self.measured = 0
        self.current_average_ms: float | None = None  # of the smallest window

    @property
    def read(self) -> int:
        """Messages read: the sum of all counters."""
        return self.measured + self._rejections.total()

    def records(self, stamps_ms: Sequence[int], types: Sequence[int], size_bytes: int) -> None:
        """Note the Kafka timestamps, their types (as Message.timestamp() gives them) and the size of a batch."""
        if types.count(types[0]) == len(types):  # the usual case, and much faster than counting
            self._timestamp_types[types[0]] += len(types)
        else:
            self._timestamp_types.update(types)
        known = stamps_ms if min(stamps_ms) >= 0 else [stamp for stamp in stamps_ms if stamp >= 0]
        if known:
            self._first_ms = _least(self._first_ms, min(known))
            self._last_ms = _greatest(self._last_ms, max(known))
        self._bytes += size_bytes

    def add(self, deltas_ms: Sequence[int]) -> list[Event]:
        """Measure consecutive messages; returns what they completed, in order."""
        self._deltas.add(deltas_ms)
        events: list[Event] = []
        done = 0
        while done < len(deltas_ms):
            step = min(self._until_boundary(), len(deltas_ms) - done)
            segment_sum = sum(deltas_ms[done : done + step])
            for size in self._window_sums:
                self._window_sums[size] += segment_sum
            done += step
            self.measured += step
            events += self._completed()
        return events

    def reject(self, reason: Rejection) -> int:
        """Count a message that gave no delta; returns how many there are of its kind."""
        self._rejections[reason] += 1
        return self._rejections[reason]

    def summary(self, *, elapsed_s: float) -> ConsumerSummary:
        """The statistics so far; `elapsed_s` is how long the consumer has been reading."""
        span_s = ((self._last_ms or 0) - (self._first_ms or 0)) / 1000
        return ConsumerSummary(
            messages_read=self.read,
            measured=self.measured,
            not_measured={reason.value: self._rejections[reason] for reason in Rejection},
            negative=self._deltas.negative(),
            timestamp_types={_TIMESTAMP_TYPES[kind]: count for kind, count in sorted(self._timestamp_types.items())},
            first_record_ms=self._first_ms,
            last_record_ms=self._last_ms,
            throughput_per_s=per_second(self.read, span_s),
            throughput_mb_per_s=per_second(self._bytes / 1e6, span_s),
            elapsed_s=elapsed_s,
            delta_ms=self._deltas.distribution(),
        )

    def histograms(self) -> Mapping[str, Histogram]:
        """The histograms behind the summary's distributions, by field name."""
        return {"delta_ms": self._deltas}

    def _until_boundary(self) -> int:
        return min(size - self.measured % size for size in self._boundaries)

    def _completed(self) -> list[Event]:
        events: list[Event] = []
        for size in self._boundaries:
            if self.measured % size:
                continue
            if size in self._window_sums:
                average = WindowAverage(size, self._window_sums[size] / size)
                events.append(average)
                self._window_sums[size] = 0
                if size == min(self._window_sums):
                    self.current_average_ms = average.mean_ms
            if size == TOTAL_EVERY:
                events.append(TotalRead(self.read))
        return events


def per_second(amount: float, elapsed_s: float) -> float | None:
    """A rate, or None where no time has passed."""
    return amount / elapsed_s if elapsed_s > 0 else None


def _hdr() -> HdrHistogram:
    return HdrHistogram(1, HIGHEST_TRACKABLE, SIGNIFICANT_DIGITS)


def _value_at_rank(hdr: HdrHistogram, rank: int) -> int:
    # the library takes a percentile and rounds it to the nearest rank
    return int(hdr.get_value_at_percentile(100 * rank / hdr.get_total_count()))


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _greatest(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
