"""Events and summaries as lines of text."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import measure

from perf.clock import ClockOffset
from perf.limits import parse
from perf.payload import Rejection
from perf.report.text import event_line, limit_lines, summary_lines, utc, verdict_sentences, window_label
from perf.series import Row
from perf.stats import (
    ConsumerSummary,
    Distribution,
    PartitionRow,
    ProducerSummary,
    Statistics,
    TotalRead,
    WindowAverage,
)
from perf.trace import LedgerCounts

CONSUMER = ConsumerSummary(
    verdict="valid: all is well", latency="append", visible_ms=Distribution(count=0),
    append_to_visible_ms=Distribution(count=0), series=[], clock=[], ledger=None, bytes=3_000,
    partitions=[
        PartitionRow(partition=0, count=8, mean_ms=0.5, p50_ms=0.0, p99_ms=7.0, max_ms=7.0),
        PartitionRow(partition=11, count=1, mean_ms=-1.0, p50_ms=-1.0, p99_ms=-1.0, max_ms=-1.0),
    ],
    messages_read=12, measured=9, not_measured={"empty": 2, "not_json": 1, "no_kafka_timestamp": 0}, negative=1,
    timestamp_types={"CreateTime": 2, "LogAppendTime": 10}, first_record_ms=1_795_000_000_000,
    last_record_ms=1_795_000_002_000, throughput_per_s=6.0, throughput_mb_per_s=0.0015, elapsed_s=3.25,
    delta_ms=Distribution(count=9, mean=1 / 3, stdev=0.5, min=-1.0, p50=0.0, p90=7.0, p95=7.0, p99=7.0, p99_9=7.0,
                          p99_99=7.0, max=7.0),
)  # fmt: skip
CONSUMER_TEXT = """\

Summary
  verdict                          valid: all is well
  messages read                    12
  measured                         9
  not measured                     3
    empty                          2
    not_json                       1
  negative                         1
  timestamp types                  12
    CreateTime                     2
    LogAppendTime                  10
  bytes                            3000
  first record                     2026-11-18T11:06:40.000Z
  last record                      2026-11-18T11:06:42.000Z
  throughput                       6 messages/s
  throughput                       0.002 MB/s
  elapsed                          3.25 s
  latency                          append
  delta (ms)
    count                          9
    mean                           0.333
    stdev                          0.5
    min                            -1
    p50                            0
    p90                            7
    p95                            7
    p99                            7
    p99.9                          7
    p99.99                         7
    max                            7
  visible (ms)                     n/a
  append to visible (ms)           n/a
  clock offset vs brokers          n/a
  ledger                           n/a
  partitions (ms)
    partition  count  mean  p50  p99  max
            0      8   0.5    0    7    7
           11      1    -1   -1   -1   -1
"""


def producer_summary(**changes: object) -> ProducerSummary:
    """A producer's summary with these fields changed."""
    summary = ProducerSummary(not_sent=0,
        messages=0, acknowledged=0, failed={}, unknown=0, bytes=0, elapsed_s=0.0, send_elapsed_s=0.0,
        throughput_per_s=None, throughput_mb_per_s=None, send_rate_per_s=None, target_rate_per_s=None,
        stamp="send", lateness_ms=Distribution(count=0), ack_ms=Distribution(count=0),
    )  # fmt: skip
    return msgspec.structs.replace(summary, **changes)


@pytest.mark.parametrize(
    ("size", "mean_ms", "line"),
    [
        (100, 62870.0, "[STAT 100] - Average 62870.0 milliseconds / message"),
        (1_000, 48453.76, "[STAT 1K] - Average 48453.76 milliseconds / message"),
        (10_000, 1 / 3, "[STAT 10K] - Average 0.3333333333333333 milliseconds / message"),
        (100_000, -0.5, "[STAT 100K] - Average -0.5 milliseconds / message"),
        (250, 0.1 + 0.2, "[STAT 250] - Average 0.30000000000000004 milliseconds / message"),
    ],
)
def test_an_average_line_has_the_shortest_float(size: int, mean_ms: float, line: str) -> None:
    """[STAT …] lines are exactly these, so that scripts can read them."""
    assert event_line(WindowAverage(size, mean_ms)) == line


def test_a_total_line_has_the_messages_read() -> None:
    """[TOTAL] lines are exactly this."""
    assert event_line(TotalRead(100_000)) == "[TOTAL] - Total Number of messages read: 100000"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_average_can_be_read_back(mean_ms: float) -> None:
    """The printed number is the average, to the last bit."""
    line = event_line(WindowAverage(100, mean_ms))
    assert float(line.removeprefix("[STAT 100] - Average ").removesuffix(" milliseconds / message")) == mean_ms


@pytest.mark.parametrize(
    ("size", "label"),
    [(1, "1"), (100, "100"), (999, "999"), (1_000, "1K"), (1_500, "1500"), (10_000, "10K"), (100_000, "100K"),
     (1_000_000, "1M"), (1_001_000, "1001K"), (1_000_001, "1000001"), (20_000_000, "20M")],
)  # fmt: skip
def test_window_labels_are_short_where_that_is_exact(size: int, label: str) -> None:
    """Thousands and millions are K and M; other sizes are written in full."""
    assert window_label(size) == label


@given(st.integers(1, 10**9))
def test_no_two_windows_share_a_label(size: int) -> None:
    """A label says its size and no other."""
    digits, unit = re.fullmatch(r"(\d+)([KM]?)", window_label(size), re.A).groups()  # type: ignore[union-attr]
    assert int(digits) * {"": 1, "K": 1_000, "M": 1_000_000}[unit] == size


def test_a_consumer_summary_is_these_lines() -> None:
    """Every field, with its unit, in the order of the summary; counters of kinds only where there are any."""
    assert "".join(f"{line}\n" for line in summary_lines("Summary", CONSUMER)) == CONSUMER_TEXT


def test_without_data_there_is_na_and_never_zero() -> None:
    """An empty run's summary says n/a for every value that needs data."""
    lines = list(summary_lines("Summary", Statistics().summary(elapsed_s=0.0)))
    absent = [line.removesuffix("n/a").split("  ")[1] for line in lines if line.endswith("n/a")]
    assert absent == [
        "first record",
        "last record",
        "throughput",
        "throughput",
        "delta (ms)",
        "visible (ms)",
        "append to visible (ms)",
        "clock offset vs brokers",
        "ledger",
    ]
    assert not any(line.strip().startswith(("mean", "p50", "max")) for line in lines)


def test_a_producer_summary_names_its_failures() -> None:
    """Failures are summed and listed by their kind, and what has no schedule has no lateness."""
    summary = producer_summary(messages=7, failed={"MSG_SIZE_TOO_LARGE": 2, "_PURGE_QUEUE": 1}, target_rate_per_s=0.5)
    lines = list(summary_lines("P", summary))
    place = lines.index("  failed                           3")
    assert lines[place + 1 : place + 3] == [
        "    MSG_SIZE_TOO_LARGE             2",
        "    _PURGE_QUEUE                   1",
    ]
    assert "  target rate                      0.5 messages/s" in lines
    assert "  lateness (ms)                    n/a" in lines


@given(st.dictionaries(st.sampled_from(Rejection), st.integers(1, 50)), st.lists(st.integers(-50, 50)))
def test_the_shown_counters_sum_to_the_messages_read(rejected: dict[Rejection, int], deltas: list[int]) -> None:
    """In the text too, measured and not measured are all that was read."""
    statistics = Statistics()
    measure(statistics, deltas)
    for reason, count in rejected.items():
        for _ in range(count):
            statistics.reject(reason)
    rows = [line.rsplit(maxsplit=1) for line in summary_lines("S", statistics.summary(elapsed_s=1.0)) if line]
    shown = {row[0].strip(): row[1] for row in rows if len(row) == 2}
    assert int(shown["measured"]) + int(shown["not measured"]) == int(shown["messages read"])
    assert int(shown["not measured"]) == sum(int(shown[reason.value]) for reason in rejected)
    assert int(shown["negative"]) == sum(delta < 0 for delta in deltas)


@pytest.mark.parametrize(
    ("offset_ms", "bound_ms", "shown"),
    [
        (0.8, 1.6, "+0.8 ms ± 1.6 ms"),
        (-12.34, 1.0, "-12.3 ms ± 1.0 ms"),
        (0.0, 2.25, "+0.0 ms ± 2.2 ms"),
        (86_400_000.0, 1.5, "+86400000.0 ms ± 1.5 ms"),
    ],
)
def test_a_clock_offset_is_a_line_with_its_bound(offset_ms: float, bound_ms: float, shown: str) -> None:
    """Each broker's offset has its sign and its bound, the form that docs/measurement.md gives."""
    clock = [ClockOffset(broker=broker, offset_ms=offset_ms, bound_ms=bound_ms) for broker in (1, 1_001)]
    lines = [line for line in summary_lines("S", msgspec.structs.replace(CONSUMER, clock=clock)) if "clock" in line]
    assert lines == [f"  clock offset vs broker 1         {shown}", f"  clock offset vs broker 1001      {shown}"]


def test_a_ledger_has_a_row_for_each_count() -> None:
    """Counts are shown as they are, and what cannot be known without the producers' counts as n/a."""
    ledger = LedgerCounts(
        unique=100_000,
        lost=None,
        unacknowledged=None,
        duplicated=3,
        out_of_order=0,
        redelivered=7_478,
        untraced=1,
        unkept=0,
        unexpected=None,
    )
    lines = list(summary_lines("S", msgspec.structs.replace(CONSUMER, ledger=ledger)))
    place = lines.index("  ledger")
    assert lines[place + 1 : place + 10] == [
        "    unique                         100000",
        "    lost                           n/a",
        "    unacknowledged                 n/a",
        "    duplicated                     3",
        "    out of order                   0",
        "    redelivered                    7478",
        "    untraced                       1",
        "    unkept                         0",
        "    unexpected                     n/a",
    ]
    assert list(summary_lines("L", ledger))[2:4] == [
        "  unique                           100000",
        "  lost   " + " " * 26 + "n/a",
    ]


def table(count: int) -> list[str]:
    """The lines of the table of so many partitions."""
    rows = [
        PartitionRow(partition=number, count=10**number, mean_ms=None, p50_ms=-1.5, p99_ms=7.0, max_ms=1e9)
        for number in range(count)
    ]
    lines = list(summary_lines("S", msgspec.structs.replace(CONSUMER, partitions=rows)))
    return lines[lines.index("  ledger                           n/a") + 1 :]


@pytest.mark.parametrize("count", [2, 3, 19, 20, 21, 25])
def test_a_table_is_aligned_and_has_twenty_rows_at_most(count: int) -> None:
    """Each column is as wide as its widest cell and right-aligned; more rows are counted in the heading."""
    heading, *body = table(count)
    more = f", the first 20 of {count}; the result file has all" if count > 20 else ""
    assert heading == f"  partitions (ms){more}"
    assert len(body) == 1 + min(count, 20)
    assert len({len(line) for line in body}) == 1
    assert body[0].split() == ["partition", "count", "mean", "p50", "p99", "max"]
    shown = [line.split() for line in body[1:]]
    assert shown == [[str(number), str(10**number), "n/a", "-1.5", "7", "1000000000"] for number in range(len(shown))]
    ends = [match.end() for match in re.finditer(r"\S+", body[0])]
    assert all([match.end() for match in re.finditer(r"\S+", line)] == ends for line in body)


@pytest.mark.parametrize("count", [0, 1])
def test_a_table_of_one_row_is_left_out(count: int) -> None:
    """One partition's row would only repeat the summary."""
    assert table(count) == []


def test_a_series_begins_with_the_time_in_utc() -> None:
    """A row of the time series is named by the moment at which it starts."""
    rows = [
        Row(
            start_ms=1_795_000_000_000 + place,
            width_s=1,
            count=2,
            mean_ms=1 / 3,
            p50_ms=0,
            p99_ms=1,
            max_ms=1,
            min_ms=-1,
        )
        for place in (0, 1_000)
    ]
    lines = list(summary_lines("S", msgspec.structs.replace(CONSUMER, series=rows)))
    place = lines.index("  series (ms)")
    assert [line.split() for line in lines[place + 1 : place + 4]] == [
        ["start", "width", "s", "count", "mean", "p50", "p99", "max", "min"],
        ["2026-11-18T11:06:40.000Z", "1", "2", "0.333", "0", "1", "1", "-1"],
        ["2026-11-18T11:06:41.000Z", "1", "2", "0.333", "0", "1", "1", "-1"],
    ]


def test_limits_are_listed_with_their_sentences() -> None:
    """Each limit has a line in the order given; without limits there is no heading."""
    outcomes = [parse(text).check({"p99": 300.0}) for text in ("p99 > 250ms", "p99 > 1s", "lost > 0")]
    assert list(limit_lines(outcomes)) == ["", "Limits", *(f"  {outcome.sentence}" for outcome in outcomes)]
    assert list(limit_lines([])) == []


def test_every_field_of_a_summary_is_shown() -> None:
    """A renderer iterates the fields: a new one has a line without being named."""

    class Extended(ConsumerSummary, frozen=True, kw_only=True):
        brand_new_ms: float

    extended = Extended(**msgspec.structs.asdict(CONSUMER), brand_new_ms=1.5)
    assert "  brand new                        1.5 ms" in list(summary_lines("S", extended))


@pytest.mark.parametrize(
    ("stamp_ms", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_420_800_007, "2026-11-23T08:00:00.007Z"),
        (1_795_420_800_999, "2026-11-23T08:00:00.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (10**18, "1000000000000000000 ms"),
        (2**63 - 1, "9223372036854775807 ms"),
        (-(10**400), f"-1{'0' * 400} ms"),
    ],
)
def test_a_stamp_is_shown_in_utc(stamp_ms: int, expected: str) -> None:
    """Milliseconds are kept, and what no calendar reaches is shown as the number."""
    assert utc(stamp_ms) == expected


def test_a_summary_comes_to_a_few_sentences() -> None:
    """A consumer's verdict and main figures, what a producer had acknowledged, and only limits that are exceeded."""
    outcomes = [parse(text).check({"mean": 5.0}) for text in ("mean > 2ms", "mean > 9ms")]
    assert list(verdict_sentences(CONSUMER, outcomes)) == [
        "valid: all is well",
        "9 of 12 messages read were measured",
        "delta mean 0.333 ms, p50 0 ms, p99 7 ms",
        "mean > 2ms: mean is 5 ms: exceeded",
    ]
    sent = producer_summary(messages=9, acknowledged=6, failed={"MSG_SIZE_TOO_LARGE": 2})
    assert list(verdict_sentences(sent, [])) == ["6 of 9 messages acknowledged, 2 failed"]
