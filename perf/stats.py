"""Windows, histograms and counters → Summary. `add` is cheap, `summary()` computes, renderers only format.

A new statistic is a field of ConsumerSummary or ProducerSummary and the line here that computes it: the renderers
iterate the fields. Definitions: docs/measurement.md.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from hdrh.histogram import HdrHistogram

from .clock import ClockOffset
from .payload import Rejection
from .series import Row, TimeSeries
from .trace import Ledger, LedgerCounts

SIGNIFICANT_DIGITS, PARTITION_DIGITS = 3, 2
HIGHEST_TRACKABLE = 2**53
DEFAULT_WINDOWS = (100, 1_000, 10_000, 100_000)
TOTAL_EVERY = 1_000
_MOST_PENDING = 8_192
_TIMESTAMP_TYPES = {0: "none", 1: "CreateTime", 2: "LogAppendTime"}
_CREATE_TIME = 1
_PARTITION = "partition_ms/"  # and its number: a partition's histogram in a result
_INHERITED_SHARE, _INHERITED_LEAST = 0.999, 100


#: How a verdict begins that makes the measurement worthless.
INVALID = "INVALID"


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


class PartitionRow(msgspec.Struct, frozen=True, kw_only=True):
    """The deltas of one output partition; percentiles within 1 %."""

    partition: int
    count: int
    mean_ms: float | None
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class ConsumerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer measured. The counters of `not_measured` and `measured` sum to `messages_read`.

    `delta_ms` is measured to the output record's stamp with `latency` "append", to the moment of receiving it with
    "receive". `visible_ms` (receive − timestamp_start) and `append_to_visible_ms` (receive − stamp) are of the records
    appended after this consumer was ready; they cross from a broker's clock to ours, hence `clock`.
    """

    verdict: str
    messages_read: int
    measured: int
    not_measured: dict[str, int]
    negative: int
    timestamp_types: dict[str, int]
    bytes: int
    first_record_ms: int | None
    last_record_ms: int | None
    throughput_per_s: float | None
    throughput_mb_per_s: float | None
    elapsed_s: float
    latency: str
    delta_ms: Distribution
    visible_ms: Distribution
    append_to_visible_ms: Distribution
    clock: list[ClockOffset]
    ledger: LedgerCounts | None
    partitions: list[PartitionRow]
    series: list[Row]

    @property
    def is_valid(self) -> bool:
        """Whether the deltas mean something."""
        return not self.verdict.startswith(INVALID)


class ProducerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer sent. `messages` = `acknowledged` + `failed` + `unknown`.

    `not_sent` were due within the duration, but could not be sent in time; their lateness up to the end is counted.
    `throughput_per_s` is what was acknowledged over all the time until the last answer; `send_rate_per_s` is taken from
    the first message sent to the last, and compares with the target. `ack_ms` is from produce to acknowledgement; it
    and lateness are n/a without a schedule. `stamp` is "send" or "intended": what stands in the messages' timestamps.
    """

    messages: int
    not_sent: int
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
    stamp: str
    lateness_ms: Distribution
    ack_ms: Distribution


class HistogramState(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram for a file: exact sums as decimal text, HdrHistogram V2 (compressed, base64) of both signs."""

    count: int
    sum: str
    sum_of_squares: str
    min: int | None
    max: int | None
    positive: str
    negative: str


class Tally(NamedTuple):
    """What a Histogram of 3 digits held at a moment: the exact sum, and how often each bucket occurred.

    A bucket is its index in HdrHistogram, with a minus for negative samples; they ascend as the values do.
    """

    sum: int = 0
    buckets: Mapping[int, int] = MappingProxyType({})

    @property
    def samples(self) -> int:
        """How many."""
        return sum(self.buckets.values())

    @property
    def below_zero(self) -> int:
        """The sum of the negative samples' sizes, or up to 0.1 % more: then what is left of `sum` never falls."""
        return sum(count * _highest_in(-bucket) for bucket, count in self.buckets.items() if bucket < 0)

    def since(self, earlier: Tally) -> Tally:
        """What came after `earlier`, a tally of the same histogram."""
        left = {bucket: count - earlier.buckets.get(bucket, 0) for bucket, count in self.buckets.items()}
        return Tally(self.sum - earlier.sum, {bucket: count for bucket, count in left.items() if count})

    def at_most(self, bounds: Sequence[int]) -> list[int]:
        """How many samples are not above each of the ascending `bounds` (0 or more), within 0.1 % of the bound."""
        ascending = sorted(self.buckets)
        up_to = [0, *accumulate(self.buckets[bucket] for bucket in ascending)]
        return [up_to[bisect_left(ascending, _buckets_to(bound))] for bound in bounds]

    def percentile(self, percent: int) -> int | None:
        """The value of rank ceil(percent / 100 × count), within 0.1 %; None without a sample."""
        ascending = sorted(self.buckets)
        up_to = list(accumulate(self.buckets[bucket] for bucket in ascending))
        if not up_to:
            return None
        bucket = ascending[bisect_left(up_to, -(-percent * up_to[-1] // 100))]
        if bucket < 0:
            return -int(_LAYOUT.get_value_from_index(-bucket))
        return _highest_in(bucket)


class Histogram:
    """Integer samples of either sign: exact sums, and HdrHistograms of 3 significant digits for the percentiles.

    Merging is associative and commutative. Recording goes through a plain count of values (fast, in C), emptied into
    the HdrHistograms when it has many distinct ones.
    """

    def __init__(self, significant_digits: int = SIGNIFICANT_DIGITS) -> None:
        self._pending: Counter[int] = Counter()
        self._positive = HdrHistogram(1, HIGHEST_TRACKABLE, significant_digits)
        self._negative = HdrHistogram(1, HIGHEST_TRACKABLE, significant_digits)
        self._count = self._sum = self._sum_of_squares = 0
        self._min: int | None = None
        self._max: int | None = None

    def add(self, values: Iterable[int] | Mapping[int, int]) -> None:
        """Record each of `values`, or each key of a mapping as often as its value says."""
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

    def zeros(self) -> int:
        """How many samples are exactly 0."""
        self._settle()
        return int(self._positive.get_count_at_value(0))

    def negative(self) -> int:
        """How many samples are below 0."""
        self._settle()
        return int(self._negative.get_total_count())

    def cells(self) -> list[tuple[int, int]]:
        """(value, how often) in ascending order; a value is the highest that its bucket of 3 digits stands for."""
        self._settle()
        below = [(-value, count) for value, count in _recorded(self._negative, lowest=True)]
        return below[::-1] + _recorded(self._positive)

    def tally(self) -> Tally:
        """All of it at this moment, made fast: see perf/live.py."""
        self._settle()
        buckets: dict[int, int] = {}
        for sign, hdr, most in ((-1, self._negative, -(self._min or 0)), (1, self._positive, self._max or 0)):
            if hdr.get_total_count():
                counts = hdr.counts[: _buckets_to(most)]
                buckets |= {sign * bucket: count for bucket, count in enumerate(counts) if count}
        return Tally(self._sum, buckets)

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
        """The histogram that `state` was made of. Raises ValueError for a damaged one."""
        histogram = cls()
        try:
            histogram._positive = HdrHistogram.decode(state.positive)
            histogram._negative = HdrHistogram.decode(state.negative)
        except Exception as error:  # the library lets exceptions of many kinds through
            raise ValueError(f"a damaged histogram: {error}") from error
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


_LAYOUT = HdrHistogram(1, HIGHEST_TRACKABLE, SIGNIFICANT_DIGITS)  # empty: which bucket stands for which values


def _highest_in(bucket: int) -> int:
    return int(_LAYOUT.get_highest_equivalent_value(_LAYOUT.get_value_from_index(bucket)))


@lru_cache(1_024)
def _buckets_to(value: int) -> int:
    """How many buckets there are up to the one that `value` (0 or more) belongs to."""
    return bisect_right(range(_LAYOUT.counts_len), value, key=_LAYOUT.get_value_from_index)


class WindowAverage(NamedTuple):
    """The exact mean of the last `size` deltas, in ms."""

    size: int
    mean_ms: float


class TotalRead(NamedTuple):
    """Messages read so far, measured or not."""

    messages: int


#: What a batch may complete, in the order to print.
Event = WindowAverage | TotalRead


class Windows:
    """Averages over the last `sizes` measured messages. They tumble, in the order read."""

    def __init__(self, sizes: Sequence[int] = DEFAULT_WINDOWS) -> None:
        self._sums = dict.fromkeys(sorted(set(sizes)), 0)
        self._boundaries = sorted({*self._sums, TOTAL_EVERY})
        self._measured = self._rejected = 0

    def add(self, deltas_ms: Sequence[int]) -> list[Event]:
        """Take in consecutive measured messages; returns what they completed, in order."""
        events: list[Event] = []
        done = 0
        while done < len(deltas_ms):
            step = min(self._until_boundary(), len(deltas_ms) - done)
            segment_sum = sum(deltas_ms[done : done + step])
            for size in self._sums:
                self._sums[size] += segment_sum
            done += step
            self._measured += step
            events += self._completed()
        return events

    def reject(self, count: int) -> None:
        """Count messages that were read and not measured."""
        self._rejected += count

    def _until_boundary(self) -> int:
        return min(size - self._measured % size for size in self._boundaries)

    def _completed(self) -> list[Event]:
        events: list[Event] = []
        for size in self._boundaries:
            if self._measured % size:
                continue
            if size in self._sums:
                events.append(WindowAverage(size, self._sums[size] / size))
                self._sums[size] = 0
            if size == TOTAL_EVERY:
                events.append(TotalRead(self._measured + self._rejected))
        return events


class Statistics:
    """A consumer's statistics. Several may share one `windows`, which then run over the messages of all of them."""

    def __init__(self, windows: Windows | None = None, *, latency: str = "append") -> None:
        self.windows = windows or Windows()
        self._rejections: Counter[Rejection] = Counter()
        self._timestamp_types: Counter[int] = Counter()
        self._latency = latency
        self._deltas, self._visible, self._append_to_visible = Histogram(), Histogram(), Histogram()
        self._partitions: dict[int, Histogram] = {}
        self.series = TimeSeries()
        self.clock: list[ClockOffset] = []
        self.ledger: Ledger | None = None
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._bytes = 0
        self.measured = 0

    @property
    def read(self) -> int:
        """Messages read: the sum of all counters."""
        return self.measured + self._rejections.total()

    @property
    def has_create_time(self) -> bool:
        """Whether a record was stamped by its producer."""
        return self._timestamp_types[_CREATE_TIME] > 0

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

    def add(self, deltas_ms: Sequence[int], stamps_ms: Sequence[int], partitions: Sequence[int]) -> list[Event]:
        """Measure consecutive messages; returns what they completed, in order."""
        for partition, second, counts in _runs(deltas_ms, stamps_ms, partitions):
            self._deltas.add(counts)
            self.series.add(second, counts)
            if partition not in self._partitions:
                self._partitions[partition] = Histogram(PARTITION_DIGITS)
            self._partitions[partition].add(counts)
        self.measured += len(deltas_ms)
        return self.windows.add(deltas_ms)

    def add_visible(self, deltas_ms: Sequence[int], stamps_ms: Sequence[int], received_ms: int) -> None:
        """Note when messages were received, of which `deltas_ms` are to their stamps."""
        waits_ms = [received_ms - stamp_ms for stamp_ms in stamps_ms]
        self._append_to_visible.add(waits_ms)
        self._visible.add([delta_ms + wait_ms for delta_ms, wait_ms in zip(deltas_ms, waits_ms, strict=True)])

    def reject(self, reason: Rejection, count: int = 1) -> int:
        """Count messages that gave no delta; returns how many there are of their kind."""
        self._rejections[reason] += count
        self.windows.reject(count)
        return self._rejections[reason]

    def summary(self, *, elapsed_s: float) -> ConsumerSummary:
        """The statistics so far; `elapsed_s` is how long the consumer has been reading."""
        span_s = ((self._last_ms or 0) - (self._first_ms or 0)) / 1000
        read = self.read - self._rejections[Rejection.WARMUP]
        intervals = max(0, read - 1)  # the first message opens the span
        return ConsumerSummary(
            **self.counters(),
            verdict=self.verdict(),
            first_record_ms=self._first_ms,
            last_record_ms=self._last_ms,
            throughput_per_s=per_second(intervals, span_s),
            throughput_mb_per_s=per_second(self._bytes / max(1, read) * intervals / 1e6, span_s),
            elapsed_s=elapsed_s,
            latency=self._latency,
            delta_ms=self._deltas.distribution(),
            visible_ms=self._visible.distribution(),
            append_to_visible_ms=self._append_to_visible.distribution(),
            clock=self.clock,
            ledger=self.ledger.counts(None) if self.ledger is not None else None,
            partitions=[_partition_row(number, histogram) for number, histogram in sorted(self._partitions.items())],
            series=self.series.rows(),
        )

    def counters(self) -> dict[str, Any]:
        """The summary's counters so far, by field."""
        return {
            "messages_read": self.read,
            "measured": self.measured,
            "not_measured": {reason.value: self._rejections[reason] for reason in Rejection},
            "negative": self._deltas.negative(),
            "timestamp_types": {_TIMESTAMP_TYPES[kind]: count for kind, count in sorted(self._timestamp_types.items())},
            "bytes": self._bytes,
        }

    def tallies(self) -> dict[str, Tally]:
        """The histograms behind the summary's distributions at this moment, by field."""
        return {
            "delta_ms": self._deltas.tally(),
            "visible_ms": self._visible.tally(),
            "append_to_visible_ms": self._append_to_visible.tally(),
        }

    @property
    def last_record_ms(self) -> int | None:
        """The latest Kafka timestamp."""
        return self._last_ms

    @classmethod
    def restored(
        cls, summary: ConsumerSummary, histograms: Mapping[str, Histogram], series: TimeSeries, ledger: Ledger | None
    ) -> Statistics:
        """The statistics that these were taken of, windows aside, to be merged."""
        found = cls(latency=summary.latency)
        found.measured, found._bytes = summary.measured, summary.bytes
        found._rejections.update({Rejection(name): count for name, count in summary.not_measured.items() if count})
        kinds = {name: kind for kind, name in _TIMESTAMP_TYPES.items()}
        found._timestamp_types.update({kinds[name]: count for name, count in summary.timestamp_types.items()})
        found._first_ms, found._last_ms = summary.first_record_ms, summary.last_record_ms
        found._deltas, found._visible = histograms["delta_ms"], histograms["visible_ms"]
        found._append_to_visible = histograms["append_to_visible_ms"]
        for name, histogram in histograms.items():
            if name.startswith(_PARTITION):
                found._partitions[int(name.removeprefix(_PARTITION))] = histogram
        found.series, found.ledger, found.clock = series, ledger, list(summary.clock)
        return found

    def merge(self, other: Statistics) -> None:
        """Add all that `other` counted and measured, windows aside. Associative and commutative."""
        self.measured += other.measured
        self._bytes += other._bytes
        self._rejections.update(other._rejections)
        self._timestamp_types.update(other._timestamp_types)
        self._first_ms, self._last_ms = (
            _least(self._first_ms, other._first_ms),
            _greatest(self._last_ms, other._last_ms),
        )
        self._deltas.merge(other._deltas)
        self._visible.merge(other._visible)
        self._append_to_visible.merge(other._append_to_visible)
        for number, histogram in other._partitions.items():
            self._partitions.setdefault(number, Histogram(PARTITION_DIGITS)).merge(histogram)
        self.series.merge(other.series)
        if other.ledger is not None:
            self.ledger = self.ledger or Ledger()
            self.ledger.merge(other.ledger)
        self.clock = sorted(
            {*self.clock, *other.clock}, key=lambda found: (found.broker, found.bound_ms, found.offset_ms)
        )

    def verdict(self) -> str:
        """Whether the deltas mean something, in words: see docs/measurement.md, "Which clock stamped it"."""
        if not self.measured:
            return f"{INVALID}: nothing was measured"
        created = self._timestamp_types[_CREATE_TIME]
        if self._latency == "receive":
            return "valid: from timestamp_start to the moment of receiving, by this machine's clock"
        if not created:
            return "valid: the broker stamped every result (LogAppendTime)"
        inherited = self._deltas.zeros() >= _INHERITED_SHARE * self.measured
        if inherited and self.measured >= _INHERITED_LEAST:
            return (
                f"{INVALID}: the results carry their inputs' timestamps (CreateTime, deltas of exactly 0), and so mean "
                "nothing; make the output topic LogAppendTime, or use --latency receive"
            )
        return "uncertain: the operator's side stamped results (CreateTime), by a clock that this tool does not know"

    def histograms(self) -> Mapping[str, Histogram]:
        """The histograms behind the summary's distributions, by field name."""
        return {
            "delta_ms": self._deltas,
            "visible_ms": self._visible,
            "append_to_visible_ms": self._append_to_visible,
            **{f"{_PARTITION}{number}": histogram for number, histogram in self._partitions.items()},
        }

    def details(self) -> dict[str, Any]:
        """What a result holds beside summary and histograms, for merging."""
        return {"series": self.series.state(), "ledger": self.ledger.state() if self.ledger is not None else None}


def _runs(
    deltas_ms: Sequence[int], stamps_ms: Sequence[int], partitions: Sequence[int]
) -> Iterator[tuple[int, int, Counter[int]]]:
    """(partition, second of the output's stamp, how often each delta) of consecutive messages that share both."""
    for partition, start, end in _same_partition(partitions):
        deltas, stamps = deltas_ms[start:end], stamps_ms[start:end]
        second = _second_of(min(stamps))
        if _second_of(max(stamps)) == second:
            yield partition, second, Counter(deltas)
            continue
        at = 0
        for second, same in groupby(stamps, _second_of):
            size = len(list(same))
            yield partition, second, Counter(deltas[at : at + size])
            at += size


def _same_partition(partitions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(partition, start, end) of each run of one partition."""
    if partitions and partitions.count(partitions[0]) == len(partitions):  # much faster than groupby
        yield partitions[0], 0, len(partitions)
        return
    start = 0
    for partition, group in groupby(partitions):
        end = start + len(list(group))
        yield partition, start, end
        start = end


def _second_of(stamp_ms: int) -> int:
    return stamp_ms // 1000


def _partition_row(partition: int, histogram: Histogram) -> PartitionRow:
    found = histogram.distribution()
    return PartitionRow(
        partition=partition,
        count=found.count,
        mean_ms=found.mean,
        p50_ms=found.p50,
        p99_ms=found.p99,
        max_ms=found.max,
    )


def per_second(amount: float, elapsed_s: float) -> float | None:
    """A rate, or None where no time has passed."""
    return amount / elapsed_s if elapsed_s > 0 else None


def _value_at_rank(hdr: HdrHistogram, rank: int) -> int:
    # the library takes a percentile and rounds it to the nearest rank
    return int(hdr.get_value_at_percentile(100 * rank / hdr.get_total_count()))


def _recorded(hdr: HdrHistogram, *, lowest: bool = False) -> list[tuple[int, int]]:
    """(value, count) of each bucket with a sample: its highest value, or its lowest."""
    edge = hdr.get_lowest_equivalent_value if lowest else hdr.get_highest_equivalent_value
    return [
        (int(edge(item.value_iterated_to)), int(item.count_added_in_this_iter_step))
        for item in hdr.get_recorded_iterator()
    ]


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _greatest(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
