"""Windows, histograms and counters, each recomputed another way."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import cycle, groupby
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import STAMP_MS, measure

from perf.clock import ClockOffset
from perf.payload import Rejection
from perf.report.text import event_line
from perf.series import TimeSeries
from perf.stats import (
    _MOST_PENDING,
    DEFAULT_WINDOWS,
    HIGHEST_TRACKABLE,
    Distribution,
    Event,
    Histogram,
    HistogramState,
    Statistics,
    TotalRead,
    WindowAverage,
    Windows,
    _runs,
    per_second,
)
from perf.trace import Ledger

Item = int | Rejection

PERCENTILES = {"p50": "50", "p90": "90", "p95": "95", "p99": "99", "p99_9": "99.9", "p99_99": "99.99"}
GOLDEN_AVERAGES = (62870.0, 13550.8, 60351.8, 60223.4, 53522.0, 53336.4, 49312.8, 46505.2, 45093.4, 39771.8)
GOLDEN_OUTPUT = """\
[STAT 100] - Average 62870.0 milliseconds / message
[STAT 100] - Average 13550.8 milliseconds / message
[STAT 100] - Average 60351.8 milliseconds / message
[STAT 100] - Average 60223.4 milliseconds / message
[STAT 100] - Average 53522.0 milliseconds / message
[STAT 100] - Average 53336.4 milliseconds / message
[STAT 100] - Average 49312.8 milliseconds / message
[STAT 100] - Average 46505.2 milliseconds / message
[STAT 100] - Average 45093.4 milliseconds / message
[STAT 100] - Average 39771.8 milliseconds / message
[STAT 1K] - Average 48453.76 milliseconds / message
[TOTAL] - Total Number of messages read: 1000
"""

deltas = st.integers(-5_000, 5_000) | st.integers(0, 10**6) | st.integers(-HIGHEST_TRACKABLE, HIGHEST_TRACKABLE)
any_deltas = deltas | st.integers(-(2**63), 2**63)
window_sizes = st.sets(st.sampled_from([1, 2, 7, 10, 100, 999, 1_000, 10_000]) | st.integers(1, 1_500), min_size=1)
chunk_sizes = st.lists(st.integers(1, 700), min_size=1, max_size=5)


@st.composite
def sequences(draw: st.DrawFn) -> list[Item]:
    """Up to a few thousand messages: runs of deltas that climb or fall, and runs of rejections between them."""
    run_of_deltas = st.tuples(deltas, st.integers(-1_000, 1_000), st.integers(1, 700))
    run_of_rejections = st.tuples(st.sampled_from(Rejection), st.just(0), st.integers(1, 3))
    items: list[Item] = []
    for start, step, length in draw(st.lists(run_of_deltas | run_of_rejections, max_size=10)):
        if isinstance(start, Rejection):
            items += [start] * length
        else:
            items += [start + step * index for index in range(length)]
    return items


def expected_events(items: Iterable[Item], windows: Iterable[int]) -> list[Event]:
    """The definition, word for word: after every N-th measured message the mean of the last N; [TOTAL] at 1,000."""
    events: list[Event] = []
    measured: list[int] = []
    sizes = set(windows)
    for messages_read, item in enumerate(items, start=1):
        if isinstance(item, Rejection):
            continue
        measured.append(item)
        for size in sorted(sizes | {1_000}):
            if len(measured) % size == 0:
                if size in sizes:
                    events.append(WindowAverage(size, float(Fraction(sum(measured[-size:]), size))))
                if size == 1_000:
                    events.append(TotalRead(messages_read))
    return events


def feed(statistics: Statistics, items: Sequence[Item], chunks: Iterable[int]) -> list[Event]:
    """Hand `items` over in chunks of these sizes (as a consumer would), and return all events."""
    events: list[Event] = []
    pending: list[int] = []
    sizes: Iterator[int] = cycle(chunks)
    room = next(sizes)
    for item in items:
        if isinstance(item, Rejection):
            events += measure(statistics, pending)
            pending = []
            statistics.reject(item)
            continue
        pending.append(item)
        room -= 1
        if room == 0:
            events += measure(statistics, pending)
            pending, room = [], next(sizes)
    return events + measure(statistics, pending)


def batch_with_average(average: float, size: int = 100) -> list[int]:
    """`size` whole numbers, not all the same, whose mean is exactly `average`."""
    low, extra = divmod(round(average * size), size)
    return [low] * (size - extra) + [low + 1] * extra


def histogram_of(*batches: Iterable[int]) -> Histogram:
    """A histogram to which these batches were added."""
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def merged(*histograms: Histogram) -> HistogramState:
    """The state of an empty histogram into which these were merged in turn; they themselves stay as they are."""
    total = Histogram()
    for histogram in histograms:
        total.merge(Histogram.from_state(histogram.state()))
    return total.state()


def nearest_rank(values: Iterable[int], percentile: str) -> int:
    """The value of rank ceil(p / 100 × count) in ascending order."""
    ascending = sorted(values)
    return ascending[math.ceil(Fraction(percentile) / 100 * len(ascending)) - 1]


def standard_deviation(values: Sequence[int]) -> float:
    """Of the population, in two exact passes."""
    mean = Fraction(sum(values), len(values))
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


# ----------------------------------------------------------------------------------------------------------- windows


@given(items=sequences(), windows=window_sizes, chunks=chunk_sizes)
@example(items=[*range(999), Rejection.EMPTY, 7, Rejection.NOT_JSON], windows={100, 1_000}, chunks=[300])
@example(items=[*range(3_000)], windows={500, 2_000}, chunks=[1])
def test_events_equal_the_definition_however_the_messages_are_chunked(
    items: list[Item], windows: set[int], chunks: list[int]
) -> None:
    """Window averages and totals are those of a naive recomputation, in the same order, for any chunking."""
    assert feed(Statistics(Windows(sorted(windows))), items, chunks) == expected_events(items, windows)


@pytest.mark.parametrize("chunk", [1, 7, 100, 999, 2_000])
def test_golden_case_prints_exactly_these_lines(chunk: int) -> None:
    """Ten 100-batches of known averages have the 1K average 48453.76 (and not the 3977.18 of a known tool)."""
    values = [delta for average in GOLDEN_AVERAGES for delta in batch_with_average(average)]
    events = feed(Statistics(), values, [chunk])
    assert "".join(f"{event_line(event)}\n" for event in events) == GOLDEN_OUTPUT


def test_a_hundred_thousand_messages_complete_all_four_windows_in_order() -> None:
    """At a count that all windows divide the order is 100, 1K, [TOTAL], 10K, 100K."""
    statistics = Statistics()
    events: list[Event] = []
    for start in range(0, 100_000, 2_000):
        events += measure(statistics, range(start, start + 2_000))
    assert [event_line(event) for event in events[-5:]] == [
        "[STAT 100] - Average 99949.5 milliseconds / message",
        "[STAT 1K] - Average 99499.5 milliseconds / message",
        "[TOTAL] - Total Number of messages read: 100000",
        "[STAT 10K] - Average 94999.5 milliseconds / message",
        "[STAT 100K] - Average 49999.5 milliseconds / message",
    ]
    assert len(events) == 1_000 + 100 + 100 + 10 + 1


def test_a_total_counts_the_messages_that_were_not_measured() -> None:
    """[TOTAL] comes after 1,000 measured messages and says how many were read until then, not after."""
    items: list[Item] = [Rejection.EMPTY, *([5] * 1_000), Rejection.NOT_JSON, *([5] * 1_000)]
    events = feed(Statistics(Windows([1_000])), items, [2_000])
    assert [event for event in events if isinstance(event, TotalRead)] == [TotalRead(1_001), TotalRead(2_002)]


def test_averages_of_huge_deltas_are_exact() -> None:
    """A mean is rounded once, from the exact sum: no digit is lost where floats would have summed."""
    assert measure(Statistics(Windows([3])), [2**62, 1, -(2**62)]) == [WindowAverage(3, 1 / 3)]


# --------------------------------------------------------------------------------------------------------- histogram


def check_distribution(found: Distribution, values: Sequence[int]) -> None:
    """`found` against statistics of the sorted list."""
    assert (found.count, found.min, found.max) == (len(values), float(min(values)), float(max(values)))
    assert found.mean == float(Fraction(sum(values), len(values)))
    assert found.stdev == pytest.approx(standard_deviation(values), rel=1e-12)
    assert found.min is not None and found.max is not None
    for name, percentile in PERCENTILES.items():
        exact = nearest_rank(values, percentile)
        approximate = getattr(found, name)
        assert found.min <= approximate <= found.max
        if abs(exact) <= HIGHEST_TRACKABLE:
            assert abs(approximate - exact) <= abs(exact) / 1_000, name


@given(st.lists(deltas, min_size=1, max_size=300))
@example([0])
@example([-1, 0, 1])
@example([-HIGHEST_TRACKABLE, HIGHEST_TRACKABLE])
def test_a_distribution_equals_the_sorted_list(values: list[int]) -> None:
    """Count, min, max, mean and deviation are exact, percentiles within 0.1 % and never outside min..max."""
    check_distribution(histogram_of(values).distribution(), values)


@pytest.mark.parametrize(
    "values", [[2**60, 2**60 + 1], [-(2**60), -(2**60) - 1], [-(2**63), 5, 2**63], [2**53 + 1], [1, 2**62]]
)
def test_values_beyond_the_histograms_range_stay_within_min_and_max(values: list[int]) -> None:
    """Deltas over 2**53 (stamps in nanoseconds) never raise, nor give a percentile that no sample could have."""
    check_distribution(histogram_of(values).distribution(), values)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 99, 100, 101, 999, 1_000, 1_001, 9_999, 10_000, 10_001])
@pytest.mark.parametrize("shift", [0, -500, -20_000])
def test_percentiles_hit_the_rank_at_round_counts(count: int, shift: int) -> None:
    """The 99.9th percentile of 1,000 is the 999th value, and not the 1,000th as with floating-point ranks."""
    values = [shift + value for value in range(count)]
    random.Random(count).shuffle(values)
    check_distribution(histogram_of(values).distribution(), values)


def test_small_values_have_exact_percentiles() -> None:
    """Up to 2,047 ms (and as far below 0) a percentile is the value itself."""
    values = list(range(-2_047, 2_048))
    found = histogram_of(values).distribution()
    assert [getattr(found, name) for name in PERCENTILES] == [nearest_rank(values, p) for p in PERCENTILES.values()]


def test_many_distinct_values_are_kept_exactly() -> None:
    """More distinct values than are held back at once give the same state and distribution as one batch."""
    values = random.Random(1).sample(range(-(10**9), 10**9), 5 * _MOST_PENDING)
    in_chunks = histogram_of(*(values[start : start + 2_000] for start in range(0, len(values), 2_000)))
    assert in_chunks.state() == histogram_of(sorted(values)).state()
    check_distribution(in_chunks.distribution(), values)


def test_an_empty_histogram_has_no_values() -> None:
    """Without a sample everything but the count is None, never 0."""
    empty = Histogram()
    assert empty.distribution() == Distribution(count=0)
    assert empty.negative() == 0
    assert {getattr(empty.distribution(), name) for name in PERCENTILES} == {None}


@given(st.lists(any_deltas))
def test_negative_samples_are_counted(values: list[int]) -> None:
    """`negative` is the number of samples below 0."""
    assert histogram_of(values).negative() == sum(value < 0 for value in values)


@given(st.lists(deltas, min_size=1), st.lists(st.integers(1, 50), min_size=1))
def test_asking_in_between_changes_nothing(values: list[int], chunks: list[int]) -> None:
    """A histogram that is read while it fills ends in the same state as one that is not."""
    asked = Histogram()
    sizes, start = cycle(chunks), 0
    while start < len(values):
        step = next(sizes)
        asked.add(values[start : start + step])
        asked.distribution()
        asked.state()
        start += step
    assert asked.state() == histogram_of(values).state()


def test_a_scale_converts_every_value_and_not_the_count() -> None:
    """Microseconds times 0.001 are milliseconds in all fields but the count."""
    values = [0, 400, 1_250, 2_000]
    plain, scaled = histogram_of(values).distribution(), histogram_of(values).distribution(divisor=1_000)
    assert scaled.count == plain.count
    for name in ("mean", "stdev", "min", "max", *PERCENTILES):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name) / 1_000)


@given(st.lists(any_deltas, max_size=60), st.lists(any_deltas, max_size=60), st.lists(any_deltas, max_size=60))
def test_merging_is_associative_and_commutative(one: list[int], two: list[int], three: list[int]) -> None:
    """However three results are merged, the state is that of one histogram of all samples."""
    a, b, c = histogram_of(one), histogram_of(two), histogram_of(three)
    everything = histogram_of(one, two, three).state()
    assert merged(a, b, c) == everything
    assert merged(c, b, a) == everything
    assert merged(a, Histogram.from_state(merged(b, c))) == everything
    assert merged(Histogram.from_state(merged(a, b)), c) == everything


@given(st.lists(any_deltas))
def test_merging_with_nothing_gives_it_back(values: list[int]) -> None:
    """The empty histogram is the identity on both sides."""
    histogram = histogram_of(values)
    assert merged(Histogram(), histogram) == merged(histogram, Histogram()) == histogram.state()


@given(st.lists(any_deltas, max_size=60), st.lists(any_deltas, max_size=60))
def test_merging_leaves_the_other_histogram_as_it_was(one: list[int], two: list[int]) -> None:
    """A histogram that was merged into another can be used on."""
    into, other = histogram_of(one), histogram_of(two)
    into.merge(other)
    assert other.state() == histogram_of(two).state()
    assert into.state() == histogram_of(one, two).state()


@given(st.lists(any_deltas))
def test_a_state_survives_json(values: list[int]) -> None:
    """State → JSON → state → histogram gives the same state, distribution and number of negatives."""
    histogram = histogram_of(values)
    text = msgspec.json.encode(histogram.state())
    restored = Histogram.from_state(msgspec.json.decode(text, type=HistogramState))
    assert restored.state() == histogram.state()
    assert restored.distribution() == histogram.distribution()
    assert restored.negative() == histogram.negative()


# ----------------------------------------------------------------------------------------------- counters and summary


@given(items=sequences(), chunks=chunk_sizes)
def test_the_summary_counts_every_message_once(items: list[Item], chunks: list[int]) -> None:
    """Measured and the six other counters sum to the messages read, each being what was handed in."""
    statistics = Statistics()
    feed(statistics, items, chunks)
    summary = statistics.summary(elapsed_s=1.0)
    measured = [item for item in items if not isinstance(item, Rejection)]
    assert summary.messages_read == statistics.read == len(items)
    assert summary.measured == summary.delta_ms.count == len(measured)
    assert summary.not_measured == {reason.value: items.count(reason) for reason in Rejection}
    assert summary.negative == sum(delta < 0 for delta in measured)
    if measured:
        check_distribution(summary.delta_ms, measured)


def test_rejections_are_numbered_by_kind() -> None:
    """`reject` returns how many there are of that kind, so that the first few can be shown."""
    statistics = Statistics()
    kinds = [Rejection.EMPTY, Rejection.NOT_JSON, Rejection.EMPTY, Rejection.EMPTY]
    assert [statistics.reject(kind) for kind in kinds] == [1, 1, 2, 3]


records = st.lists(st.tuples(st.integers(-1, 2**62), st.sampled_from([0, 1, 2])), min_size=1, max_size=50)


@given(st.lists(records, min_size=1, max_size=5))
def test_records_give_the_first_and_last_stamp_and_the_types(batches: list[list[tuple[int, int]]]) -> None:
    """First and last record times are the least and greatest known stamp, and each type is counted."""
    statistics = Statistics()
    for batch in batches:
        statistics.records([stamp for stamp, _ in batch], [kind for _, kind in batch], 10)
    summary = statistics.summary(elapsed_s=0.0)
    known = [stamp for batch in batches for stamp, _ in batch if stamp >= 0]
    kinds = [kind for batch in batches for _, kind in batch]
    names = {0: "none", 1: "CreateTime", 2: "LogAppendTime"}
    assert (summary.first_record_ms, summary.last_record_ms) == (min(known, default=None), max(known, default=None))
    assert summary.timestamp_types == {names[kind]: kinds.count(kind) for kind in set(kinds)}


def test_throughput_comes_from_the_records_own_times() -> None:
    """3,001 messages of 500 bytes over two seconds of stamps are 1,500 messages/s and 0.75 MB/s."""
    statistics = Statistics()
    stamps_ms = [1_000_000 + index % 2_001 for index in range(3_001)]
    statistics.records(stamps_ms, [2] * 3_001, 500 * 3_001)
    measure(statistics, [1] * 3_000)
    statistics.reject(Rejection.EMPTY)
    summary = statistics.summary(elapsed_s=99.0)
    assert (summary.throughput_per_s, summary.throughput_mb_per_s) == (1_500.0, 0.75)
    assert summary.elapsed_s == 99.0


def test_throughput_is_not_above_the_pace_of_sending() -> None:
    """Messages 100 ms apart are 10 a second, however few: the first one opens the time that is divided by."""
    for count in (2, 3, 10):
        statistics = Statistics()
        statistics.records([STAMP_MS + 100 * number for number in range(count)], [APPEND] * count, 1_000 * count)
        measure(statistics, [1] * count)
        summary = statistics.summary(elapsed_s=9.0)
        assert summary.throughput_per_s == pytest.approx(10)
        assert summary.throughput_mb_per_s == pytest.approx(0.01)


def test_nothing_read_has_no_times_and_no_throughput() -> None:
    """An empty run has None where there is no data, and zero in every counter."""
    summary = Statistics().summary(elapsed_s=3.0)
    assert summary.messages_read == summary.measured == summary.negative == 0
    assert set(summary.not_measured.values()) == {0}
    assert (summary.first_record_ms, summary.last_record_ms) == (None, None)
    assert (summary.throughput_per_s, summary.throughput_mb_per_s) == (None, None)
    assert summary.delta_ms == Distribution(count=0)


def test_the_summarys_histogram_is_the_one_in_the_result() -> None:
    """The histogram written to a result file gives the summary's distribution."""
    statistics = Statistics()
    measure(statistics, [3, -4, 70_000])
    assert statistics.histograms()["delta_ms"].distribution() == statistics.summary(elapsed_s=1.0).delta_ms


@pytest.mark.parametrize(("amount", "elapsed_s", "expected"), [(10, 2.0, 5.0), (10, 0.0, None), (0, 4.0, 0.0)])
def test_a_rate_needs_time_to_have_passed(amount: float, elapsed_s: float, expected: float | None) -> None:
    """An amount over no time is no rate, rather than 0 or an error."""
    assert per_second(amount, elapsed_s) == expected


def test_the_default_windows_are_the_documented_ones() -> None:
    """Without --windows the averages are over 100, 1K, 10K and 100K messages."""
    assert DEFAULT_WINDOWS == (100, 1_000, 10_000, 100_000)


# ----------------------------------------------------------------------------------------- partitions, series, verdict

readings = st.lists(
    st.tuples(
        st.integers(-3_000, 200_000),  # delta
        st.integers(-2_500, 2_500).map(lambda more_ms: STAMP_MS + more_ms),
        st.sampled_from([0, 0, 0, 1, 7, 11]),
    ),
    min_size=1,
    max_size=60,
)


def by_key(rows: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int], list[int]]:
    """The deltas of each partition and second."""
    found: dict[tuple[int, int], list[int]] = {}
    for delta, stamp, partition in rows:
        found.setdefault((partition, stamp // 1_000), []).append(delta)
    return found


@given(readings)
def test_runs_are_what_shares_partition_and_second(rows: list[tuple[int, int, int]]) -> None:
    """The runs are those of a plain grouping, in the order read, and none holds more or less."""
    runs = list(_runs(*zip(*rows, strict=True)))
    expected = [
        (partition, second, Counter(delta for delta, _, _ in same))
        for (partition, second), same in groupby(rows, lambda row: (row[2], row[1] // 1_000))
    ]
    assert runs == expected


@given(readings, chunk_sizes)
def test_partition_rows_and_series_equal_a_recomputation(rows: list[tuple[int, int, int]], chunks: list[int]) -> None:
    """Each partition's and each second's count, mean and max are exact, percentiles within 1 %, in any batching."""
    statistics = Statistics()
    sizes, start = cycle(chunks), 0
    while start < len(rows):
        size = next(sizes)
        statistics.add(*zip(*rows[start : start + size], strict=True))
        start += size
    summary = statistics.summary(elapsed_s=1.0)
    partitions = sorted({partition for _, _, partition in rows})
    assert [row.partition for row in summary.partitions] == partitions
    for row in summary.partitions:
        values = [delta for delta, _, partition in rows if partition == row.partition]
        assert (row.count, row.mean_ms, row.max_ms) == (len(values), sum(values) / len(values), max(values))
        for found, percentile in ((row.p50_ms, "50"), (row.p99_ms, "99")):
            exact = nearest_rank(values, percentile)
            assert found == pytest.approx(exact, rel=0.01)
    assert sum(row.count for row in summary.partitions) == summary.measured == len(rows)
    seconds = sorted({stamp // 1_000 for _, stamp, _ in rows})
    assert [(row.start_ms, row.width_s) for row in summary.series] == [(second * 1_000, 1) for second in seconds]
    for second, line in zip(seconds, summary.series, strict=True):
        values = [delta for delta, stamp, _ in rows if stamp // 1_000 == second]
        assert (line.count, line.mean_ms) == (len(values), sum(values) / len(values))
        assert (line.min_ms, line.max_ms) == (min(values), max(values))
        assert line.p50_ms == pytest.approx(nearest_rank(values, "50"), rel=0.01)


@given(readings, st.integers(STAMP_MS - 5_000, STAMP_MS + 5_000))
def test_visible_is_the_delta_and_the_wait(rows: list[tuple[int, int, int]], received_ms: int) -> None:
    """Receive − start and receive − stamp, both exact, and negative where the clocks differ."""
    statistics = Statistics()
    deltas_ms, stamps_ms, _ = zip(*rows, strict=True)
    statistics.add_visible(deltas_ms, stamps_ms, received_ms)
    summary = statistics.summary(elapsed_s=1.0)
    check_distribution(summary.append_to_visible_ms, [received_ms - stamp for stamp in stamps_ms])
    check_distribution(summary.visible_ms, [received_ms - (stamp - delta) for delta, stamp, _ in rows])


def verdict_of(deltas_ms: Sequence[int], types: Sequence[int], *, latency: str = "append") -> str:
    """The verdict over these deltas, of records with these types of timestamps."""
    statistics = Statistics(latency=latency)
    statistics.records([STAMP_MS] * len(types), types, 0)
    measure(statistics, deltas_ms)
    verdict = statistics.verdict()
    summary = statistics.summary(elapsed_s=1.0)
    assert summary.verdict == verdict
    assert summary.is_valid is not verdict.startswith("INVALID")
    return verdict.partition(":")[0]


CREATE, APPEND = 1, 2


@pytest.mark.parametrize(
    ("zeros", "others", "expected"),
    [
        (99, 0, "uncertain"),
        (100, 0, "INVALID"),
        (99, 1, "uncertain"),
        (998, 2, "uncertain"),
        (999, 1, "INVALID"),
        (1_000, 0, "INVALID"),
        (9_989, 11, "uncertain"),
        (9_990, 10, "INVALID"),
        (0, 1_000, "uncertain"),
    ],
)
@pytest.mark.parametrize("other", [1, -1, 100_000])
def test_inherited_stamps_are_found_out(zeros: int, others: int, expected: str, other: int) -> None:
    """CreateTime with at least 99.9 % of at least 100 deltas exactly 0 means nothing; one less is only uncertain."""
    deltas_ms = [0] * zeros + [other] * others
    assert verdict_of(deltas_ms, [CREATE] * len(deltas_ms)) == expected
    assert verdict_of(deltas_ms, [APPEND] * len(deltas_ms)) == "valid"
    assert verdict_of(deltas_ms, [CREATE] * len(deltas_ms), latency="receive") == "valid"


@settings(max_examples=30)
@given(st.integers(1, 50_000), st.integers(0, 60))
def test_the_share_of_inherited_stamps_is_exact(measured: int, others: int) -> None:
    """No rounding of floats moves the limit of 99.9 %."""
    others = min(measured, others)
    expected = "INVALID" if measured >= 100 and 1_000 * (measured - others) >= 999 * measured else "uncertain"
    statistics = Statistics()
    statistics.records([STAMP_MS], [CREATE], 0)
    measure(statistics, [0] * (measured - others) + [5] * others)
    assert statistics.verdict().partition(":")[0] == expected


def test_without_a_measurement_there_is_no_valid_verdict() -> None:
    """Nothing read, or nothing measured, is INVALID, whatever the types and the latency."""
    for latency in ("append", "receive"):
        statistics = Statistics(latency=latency)
        assert statistics.verdict() == "INVALID: nothing was measured"
        statistics.records([STAMP_MS], [APPEND], 9)
        statistics.reject(Rejection.EMPTY)
        assert statistics.verdict() == "INVALID: nothing was measured"
        assert not statistics.summary(elapsed_s=1.0).is_valid


def test_one_record_of_create_time_makes_it_uncertain() -> None:
    """A topic that was changed mid-run has stamps of both types, and no verdict of valid."""
    assert verdict_of([5] * 200, [APPEND] * 199 + [CREATE]) == "uncertain"
    assert verdict_of([0] * 200, [APPEND, CREATE] * 100) == "INVALID"
    assert verdict_of([5] * 200, [APPEND] * 199 + [0]) == "valid"


def test_throughput_leaves_the_warm_up_out() -> None:
    """What was read within the warm-up counts as read, and is in no rate."""
    statistics = Statistics()
    statistics.reject(Rejection.WARMUP, 5_000)
    statistics.records([STAMP_MS, STAMP_MS + 2_000], [APPEND] * 2, 4_040_000)
    measure(statistics, [1] * 91)
    statistics.reject(Rejection.NOT_JSON, 10)
    summary = statistics.summary(elapsed_s=9.0)
    assert (summary.throughput_per_s, summary.throughput_mb_per_s) == (50.0, 2.0)
    assert (summary.messages_read, summary.measured, summary.not_measured["warmup"]) == (5_101, 91, 5_000)


# ------------------------------------------------------------------------------------------------------------- restored


@st.composite
def filled(draw: st.DrawFn, *, traced: bool = True) -> Statistics:
    """Statistics that measured, rejected and traced all sorts of things."""
    statistics = Statistics()
    for rows in draw(st.lists(readings, max_size=2)):
        deltas_ms, stamps_ms, partitions = zip(*rows, strict=True)
        types = draw(st.sampled_from([[0], [CREATE], [APPEND], [APPEND, CREATE]]))
        statistics.records(stamps_ms, [kind for kind, _ in zip(cycle(types), stamps_ms, strict=False)], len(rows) * 9)
        statistics.add(deltas_ms, stamps_ms, partitions)
        statistics.add_visible(deltas_ms, stamps_ms, STAMP_MS + 3_000)
    for reason in draw(st.lists(st.sampled_from(Rejection), max_size=5)):
        statistics.reject(reason, 2)
    offsets = st.builds(
        ClockOffset, broker=st.integers(1, 3), offset_ms=st.sampled_from([-0.5, 0.25]), bound_ms=st.just(1.5)
    )
    statistics.clock = sorted(draw(st.sets(offsets, max_size=3)), key=lambda one: (one.broker, one.offset_ms))
    if traced and draw(st.booleans()):
        statistics.ledger = Ledger()
        marks = draw(st.lists(st.integers(0, 5).map(lambda seq: f"r/p/0/0/{seq}") | st.none(), max_size=8))
        statistics.ledger.record_all(marks, [0] * len(marks), range(len(marks)))
    return statistics


def restored(statistics: Statistics) -> Statistics:
    """What a file of these statistics gives back."""
    histograms = {name: Histogram.from_state(one.state()) for name, one in statistics.histograms().items()}
    ledger = Ledger.from_state(statistics.ledger.state()) if statistics.ledger is not None else None
    series = TimeSeries.from_state(statistics.series.state())
    return Statistics.restored(statistics.summary(elapsed_s=1.0), histograms, series, ledger)


@settings(max_examples=15)
@given(filled())
def test_restored_statistics_have_the_same_summary(statistics: Statistics) -> None:
    """Summary, histograms, series and ledger give back what they were taken of."""
    found = restored(statistics)
    assert found.summary(elapsed_s=1.0) == statistics.summary(elapsed_s=1.0)
    assert found.details() == statistics.details()
    assert {name: one.state() for name, one in found.histograms().items()} == {
        name: one.state() for name, one in statistics.histograms().items()
    }


@settings(max_examples=6)
@given(filled())
def test_statistics_merged_with_nothing_are_the_same(statistics: Statistics) -> None:
    """Empty statistics are the identity on both sides."""
    empty, found = Statistics(), restored(statistics)
    empty.merge(restored(statistics))
    found.merge(Statistics())
    assert empty.summary(elapsed_s=1.0) == found.summary(elapsed_s=1.0) == statistics.summary(elapsed_s=1.0)
    assert empty.details() == found.details() == statistics.details()


@settings(max_examples=10)
@given(readings, readings)
def test_merging_equals_measuring_everything_at_once(one: list[Any], two: list[Any]) -> None:
    """Two consumers' statistics merge into those of a consumer that read it all."""
    parts = [Statistics(), Statistics()]
    everything = Statistics()
    for part, rows in zip(parts, (one, two), strict=True):
        for statistics in (part, everything):
            statistics.records([stamp for _, stamp, _ in rows], [APPEND] * len(rows), 7)
            statistics.add(*zip(*rows, strict=True))
            statistics.add_visible([delta for delta, _, _ in rows], [stamp for _, stamp, _ in rows], STAMP_MS)
    parts[0].merge(parts[1])
    assert parts[0].summary(elapsed_s=1.0) == everything.summary(elapsed_s=1.0)
