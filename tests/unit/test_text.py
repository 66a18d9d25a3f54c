"""Events and summaries as lines of text."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import measure

from perf.payload import Rejection
from perf.report.text import event_line, summary_lines, utc, window_label
from perf.stats import (
    ConsumerSummary,
    Distribution,
    PartitionRow,
    ProducerSummary,
    Statistics,
    TotalRead,
    WindowAverage,
)

CONSUMER = ConsumerSummary(
    verdict="valid: all is well", latency="append", visible_ms=Distribution(count=0),
    append_to_visible_ms=Distribution(count=0), series=[],
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
  partitions (ms)
    partition  count  mean  p50  p99  max
            0      8   0.5    0    7    7
           11      1    -1   -1   -1   -1
"""


def producer_summary(**changes: object) -> ProducerSummary:
    """A producer's summary with these fields changed."""
    summary = ProducerSummary(
        messages=0, acknowledged=0, failed={}, unknown=0, bytes=0, elapsed_s=0.0, send_elapsed_s=0.0,
        throughput_per_s=None, throughput_mb_per_s=None, send_rate_per_s=None, target_rate_per_s=None,
        lateness_ms=Distribution(count=0),
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
