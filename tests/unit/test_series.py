"""The time series of deltas, each row recomputed from the samples themselves."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perf.series import MOST_BUCKETS, MOST_ROWS, Row, SeriesState, TimeSeries, bucket_of, highest_in

Samples = Sequence[tuple[int, Mapping[int, int]]]

NOW_S = 1_790_000_001
deltas = st.integers(-300, 300) | st.integers(0, 10**10) | st.integers(-(2**63), 2**63)
counts = st.dictionaries(deltas, st.integers(1, 4) | st.integers(1, 2**40), max_size=4)
stamps = st.integers(NOW_S, NOW_S + 20) | st.integers(NOW_S - 2_000, NOW_S + 2_000) | st.integers(-5, 2**53)


@st.composite
def samples(draw: st.DrawFn) -> list[tuple[int, dict[int, int]]]:
    """Single seconds, and runs of up to 400 seconds one or more apart, forwards or backwards, as deltas climb."""
    result = draw(st.lists(st.tuples(stamps, counts), max_size=10))
    runs = st.tuples(stamps, st.integers(-3, 3) | st.integers(-900, 900), st.integers(1, 400), deltas)
    for stamp_s, step_s, length, delta_ms in draw(st.lists(runs, max_size=3)):
        result += [(stamp_s + step_s * index, {delta_ms + index: 1 + index % 3}) for index in range(length)]
    return result


def series_of(*batches: Samples) -> TimeSeries:
    """A series to which these were added in turn."""
    series = TimeSeries()
    for batch in batches:
        for stamp_s, values in batch:
            series.add(stamp_s, values)
    return series


def merged(*series: TimeSeries) -> TimeSeries:
    """An empty series into which these were merged in turn."""
    total = TimeSeries()
    for one in series:
        total.merge(one)
    return total


def expected_width_s(batch: Samples) -> int:
    """The least power of two with which these fit, word for word."""
    width_s = 1
    while len({stamp_s // width_s for stamp_s, values in batch if values}) > MOST_ROWS:
        width_s *= 2
    return width_s


def nearest_rank(values: Mapping[int, int], percent: int) -> int:
    """The value of rank ceil(percent / 100 × count) in ascending order."""
    rank = math.ceil(Fraction(percent, 100) * sum(values.values()))
    for value in sorted(values):
        rank -= values[value]
        if rank <= 0:
            return value
    raise AssertionError("no values")


def check_row(row: Row, values: Mapping[int, int]) -> None:
    """`row` against the values themselves."""
    count = sum(values.values())
    assert (row.count, row.min_ms, row.max_ms) == (count, min(values), max(values))
    assert row.mean_ms == float(Fraction(sum(value * times for value, times in values.items()), count))
    for percent, found in ((50, row.p50_ms), (99, row.p99_ms)):
        exact = nearest_rank(values, percent)
        assert exact <= found <= row.max_ms
        assert (found - exact) * 100 <= abs(exact)


def check_rows(rows: Sequence[Row], batch: Samples, *, width_s: int) -> None:
    """`rows` against the samples, sorted into rows of this width."""
    expected: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for stamp_s, values in batch:
        if values:
            expected[stamp_s // width_s * width_s * 1_000].update(values)
    assert [row.start_ms for row in rows] == sorted(expected)
    assert {row.width_s for row in rows} <= {width_s}
    for row in rows:
        check_row(row, expected[row.start_ms])


def wide_samples(seconds: int) -> Samples:
    """The same 300 deltas of both signs in every second, and 700 new ones, over ten decades."""
    chance = random.Random(1)
    same = [chance.choice((1, -1)) * int(10 ** chance.uniform(0, 10)) for _ in range(300)]
    return [
        (NOW_S + second, Counter(same) + Counter(int(10 ** chance.uniform(0, 10)) for _ in range(700)))
        for second in range(seconds)
    ]


# ---------------------------------------------------------------------------------------------------------------- rows


@settings(deadline=None)
@given(samples())
@example([(NOW_S + second, {second: 1}) for second in range(MOST_ROWS)])
@example([(NOW_S + second, {second: 1}) for second in range(MOST_ROWS + 1)])
@example([(NOW_S, {1: 98, 2: 1, 3: 1}), (NOW_S + 1, {1: 99, 3: 1}), (NOW_S + 2, {1: 1, 2: 1})])
def test_rows_equal_a_naive_recomputation(batch: Samples) -> None:
    """Count, mean, min and max are exact and percentiles within 1 %, in the narrowest rows of which 300 are enough."""
    check_rows(series_of(batch).rows(), batch, width_s=expected_width_s(batch))


@settings(deadline=None)
@given(samples(), st.randoms(use_true_random=False))
def test_the_order_of_adding_changes_nothing(batch: list[tuple[int, dict[int, int]]], chance: random.Random) -> None:
    """Seconds may come in any order, and their deltas together or one by one."""
    pieces = [(stamp_s, {value: times}) for stamp_s, values in batch for value, times in values.items()]
    chance.shuffle(pieces)
    assert series_of(pieces).state() == series_of(batch).state()


@settings(deadline=None)
@given(samples(), st.sets(st.integers(0, 500)))
def test_asking_in_between_changes_nothing(batch: Samples, asked_at: set[int]) -> None:
    """A series that is read while it fills ends in the same state as one that is not."""
    series = TimeSeries()
    for index, (stamp_s, values) in enumerate(batch):
        series.add(stamp_s, values)
        if index in asked_at:
            assert len(series.rows()) <= MOST_ROWS
            series.state()
    assert series.state() == series_of(batch).state()


def test_the_callers_counts_are_copied() -> None:
    """A mapping that its owner goes on with does not change what was recorded."""
    values = {5: 1}
    series = series_of([(NOW_S, values)])
    values[6] = 1
    series.add(NOW_S, {7: 1})
    assert values == {5: 1, 6: 1}
    assert [(row.count, row.max_ms) for row in series.rows()] == [(2, 7)]


def test_nothing_added_has_no_rows() -> None:
    """Neither an empty series nor a second without a delta makes a row."""
    assert TimeSeries().rows() == []
    assert TimeSeries().buckets() == []
    assert series_of([(NOW_S, {})]).state() == TimeSeries().state()


def test_gaps_make_no_rows() -> None:
    """Three seconds that are years apart stay three rows of one second."""
    rows = series_of([(NOW_S, {1: 1}), (0, {2: 1}), (10**12, {3: 1})]).rows()
    assert [(row.start_ms, row.width_s, row.max_ms) for row in rows] == [
        (0, 1, 2),
        (NOW_S * 1_000, 1, 1),
        (10**15, 1, 3),
    ]


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("seconds", "width_s", "rows"), [(300, 1, 300), (301, 2, 151), (598, 2, 300), (600, 4, 151), (100_000, 512, 197)]
)
def test_the_width_doubles_when_there_would_be_more_than_300_rows(seconds: int, width_s: int, rows: int) -> None:
    """Rows begin at multiples of their width since the epoch, also when the first second is an odd one."""
    found = series_of([(NOW_S + second, {7: 2}) for second in range(seconds)]).rows()
    assert len(found) == rows <= MOST_ROWS
    assert {(row.width_s, row.start_ms % (1_000 * width_s)) for row in found} == {(width_s, 0)}
    assert sum(row.count for row in found) == 2 * seconds


def test_widely_spread_deltas_widen_the_rows_and_keep_their_precision() -> None:
    """With too many buckets for rows of a second there are fewer rows, exact and within 1 % as ever."""
    batch = wide_samples(100)
    series = series_of(batch)
    rows = series.rows()
    assert 1 < rows[0].width_s < 16
    assert MOST_BUCKETS / 4 < sum(map(len, series.buckets())) <= MOST_BUCKETS
    check_rows(rows, batch, width_s=rows[0].width_s)


def test_widely_spread_deltas_give_the_same_series_in_any_order() -> None:
    """The limit on buckets depends on the samples alone, neither on their order nor on how they were merged."""
    batch = list(wide_samples(100))
    state = series_of(batch).state()
    assert merged(series_of(batch[50:]), series_of(batch[:10]), series_of(batch[10:50])).state() == state
    random.Random(2).shuffle(batch)
    assert series_of(batch).state() == state


def handful(second: int, _chance: random.Random) -> dict[int, int]:
    """A steady pipeline: 10,000 messages of five deltas."""
    return {5: 9_000, 6: 500, 8: 400, 100: 99, second % 2_000: 1}


def varied(_second: int, chance: random.Random) -> dict[int, int]:
    """About 400,000 messages of 40 deltas around half a second."""
    return {round(chance.lognormvariate(6.2, 0.8)): 9_000 + int(3_000 * chance.random()) for _ in range(40)}


def worst(_second: int, chance: random.Random) -> dict[int, int]:
    """About 7,000,000 messages of 500 deltas over ten decades and both signs."""
    values = [int(10 ** (10 * chance.random())) for _ in range(500)]
    return {value * (-1) ** index: 10_000 + value % 8_999 for index, value in enumerate(values)}


@pytest.mark.parametrize(("make", "seconds"), [(handful, 100_000), (varied, 2_500), (worst, 150)])
def test_a_thousand_million_samples_stay_under_a_megabyte(
    make: Callable[[int, random.Random], dict[int, int]], seconds: int
) -> None:
    """Even at its peak, packing and widening included, the series takes less than 1 MB."""
    chance = random.Random(3)
    tracemalloc.start()
    try:
        series = TimeSeries()
        for second in range(seconds):
            series.add(NOW_S + second, make(second, chance))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert sum(row.count for row in series.rows()) > 0.9e9


# ------------------------------------------------------------------------------------------------------------- buckets


@given(st.integers(-(2**63), 2**63))
@example(199)
@example(200)
@example(-200)
@example(201)
@example(399)
def test_a_bucket_is_at_most_one_percent_wide(delta_ms: int) -> None:
    """The highest delta of a bucket is in it, its successor is not, and none in it is over 1 % away."""
    highest = highest_in(bucket_of(delta_ms))
    assert delta_ms <= highest
    assert (highest - delta_ms) * 100 <= abs(delta_ms)
    assert bucket_of(highest) == bucket_of(delta_ms) == bucket_of(highest + 1) - 1


def test_small_deltas_have_a_bucket_each() -> None:
    """Below 200 ms, of either sign, percentiles are exact."""
    assert [bucket_of(delta_ms) for delta_ms in range(-199, 200)] == list(range(-199, 200))
    assert [highest_in(bucket) for bucket in range(-199, 200)] == list(range(-199, 200))


@given(counts)
def test_the_histogram_of_a_row_holds_all_of_its_samples(values: Mapping[int, int]) -> None:
    """`buckets` gives, in step with `rows`, how often each bucket occurred."""
    expected: Counter[int] = Counter()
    for value, times in values.items():
        expected[bucket_of(value)] += times
    assert series_of([(NOW_S, values)]).buckets() == ([dict(expected)] if values else [])


# ------------------------------------------------------------------------------------------------------------- merging


@settings(deadline=None)
@given(samples(), samples(), samples())
def test_merging_is_associative_and_commutative(one: Samples, two: Samples, three: Samples) -> None:
    """However three series of any widths are merged, the result is the series of all samples."""
    a, b, c = series_of(one), series_of(two), series_of(three)
    everything = series_of(one, two, three).state()
    assert merged(a, b, c).state() == everything
    assert merged(c, b, a).state() == everything
    assert merged(a, merged(b, c)).state() == everything
    assert merged(merged(a, b), c).state() == everything


@settings(deadline=None)
@given(samples())
def test_merging_with_nothing_gives_it_back(batch: Samples) -> None:
    """The empty series is the identity on both sides."""
    series = series_of(batch)
    state = series.state()
    assert merged(TimeSeries(), series, TimeSeries()).state() == state
    series.merge(TimeSeries())
    assert series.state() == state


@settings(deadline=None)
@given(samples(), samples())
def test_merging_leaves_the_other_series_as_it_was(one: Samples, two: Samples) -> None:
    """A series that was merged into another can be used on, and neither sees what the other gets later."""
    into, other = series_of(one), series_of(two)
    into.merge(other)
    into.merge(into)
    assert other.state() == series_of(two).state()
    assert into.state() == series_of(one, two, one, two).state()
    other.add(NOW_S, {5: 1})
    assert into.state() == series_of(one, two, one, two).state()


@pytest.mark.parametrize("order", [1, -1])
def test_the_coarser_width_wins(order: int) -> None:
    """A short series joins the rows of a long one at multiples of their width, whichever comes first."""
    coarse = series_of([(NOW_S + second, {1: 1}) for second in range(1_000)])
    fine = series_of([(NOW_S + 500, {9: 1}), (NOW_S + 501, {9: 1})])
    rows = merged(*[coarse, fine][::order]).rows()
    assert {(row.width_s, row.start_ms % 4_000) for row in rows} == {(4, 0)}
    assert [row.count for row in rows if row.max_ms == 9] in ([6], [5, 5])
    assert sum(row.count for row in rows) == 1_002


# --------------------------------------------------------------------------------------------------------------- state


@settings(deadline=None)
@given(samples())
def test_a_state_survives_json(batch: Samples) -> None:
    """State → JSON → state → series gives the same state and rows, and goes on as the original would."""
    series = series_of(batch)
    text = msgspec.json.encode(series.state())
    restored = TimeSeries.from_state(msgspec.json.decode(text, type=SeriesState))
    assert restored.state() == series.state()
    assert restored.rows() == series.rows()
    restored.add(NOW_S, {5: 1})
    assert restored.state() == series_of(batch, [(NOW_S, {5: 1})]).state()


@pytest.mark.parametrize(("median_ms", "sigma"), [(5, 0.3), (20, 0.5), (500, 0.5)])
def test_a_state_is_compact_in_a_result_file(median_ms: float, sigma: float) -> None:
    """300 seconds of 1,000 log-normally distributed deltas take less than 100 KB, indented as result files are."""
    chance = random.Random(4)
    series = TimeSeries()
    for second in range(300):
        values = Counter(round(chance.lognormvariate(math.log(median_ms), sigma)) for _ in range(1_000))
        series.add(NOW_S + second, values)
    assert len(msgspec.json.format(msgspec.json.encode(series.state()), indent=2)) < 100_000


@pytest.mark.parametrize("width_s", [0, -1, 3, 6])
def test_a_width_that_is_no_power_of_two_is_refused(width_s: int) -> None:
    """Rows of such a width could not be merged exactly, so a file that claims one is not read."""
    text = msgspec.json.encode({"width_s": width_s, "rows": TimeSeries().state().rows})
    with pytest.raises(msgspec.ValidationError, match="power of two"):
        msgspec.json.decode(text, type=SeriesState)
