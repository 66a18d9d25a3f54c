"""PerfConsumer's Meter: messages → deltas → statistics, and what is said about the odd ones."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle

import pytest
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from perf.clock import ClockOffset
from perf.coordination import Identity, Membership, checkpoint_prefix, checkpoints
from perf.meter import Meter, Shares
from perf.payload import DAY_MS, PayloadReader, Rejection
from perf.process import WallClock
from perf.result import ConsumerResult, merged
from perf.settings import Settings, Trace, Warmup
from perf.stats import Event, Statistics, TotalRead, WindowAverage, Windows

STAMP_MS = 1_795_000_000_000
LOG_APPEND_TIME = 2

#: What a message holds → its delta, or its counter.
CONTENTS: dict[bytes | None, int | str] = {
    b'{"timestamp_start":1794999999990}': 10,
    b'{"a":1,"timestamp_start":1795000000003}': -3,
    b'{"timestamp_start":"1794999999000"}': 1_000,
    b'{"timestamp_start":%d}' % (STAMP_MS + DAY_MS): -DAY_MS,
    b"{}": "no_timestamp_start",
    b'{"timestamp_start":null}': "invalid_timestamp_start",
    b'{"timestamp_start":1794999999}': "implausible_timestamp_start",
    b"hello": "not_json",
    b"": "empty",
    None: "empty",
}


def message(value: bytes | None, *, offset: int = 0, stamp: tuple[int, int] = (LOG_APPEND_TIME, STAMP_MS)) -> Message:
    """A message as the client hands it over."""
    return Message("t", 3, offset, None, value, timestamp=stamp)


def meter(windows: Sequence[int] = (2, 5, 1_000)) -> Meter:
    """A meter with small windows that is ready."""
    subject = Meter(
        PayloadReader(["timestamp_start"]), Statistics(Windows(windows)), Settings(topic="t"), WallClock().now_ms
    )
    subject.reached(set(range(10)))
    return subject


def measured_in_chunks(subject: Meter, messages: Sequence[Message], chunks: Sequence[int]) -> list[Event]:
    """All events of these messages, handed over in chunks of these sizes."""
    events: list[Event] = []
    sizes, start = cycle(chunks), 0
    while start < len(messages):
        size = next(sizes)
        events += subject.measure(messages[start : start + size])
        start += size
    return events


contents = st.sampled_from(list(CONTENTS))
mostly_good = st.sampled_from([next(iter(CONTENTS))] * 20 + list(CONTENTS))


@given(st.lists(contents, min_size=1, max_size=40), st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_every_message_is_counted_where_it_belongs(values: list[bytes | None], chunks: list[int]) -> None:
    """However good and bad messages are mixed and batched, events and counters are those of one message at a time."""
    subject, singly = meter(), meter()
    events = measured_in_chunks(subject, [message(value) for value in values], chunks)
    assert events == measured_in_chunks(singly, [message(value) for value in values], [1])
    deltas = [delta for delta in map(CONTENTS.__getitem__, values) if isinstance(delta, int)]
    assert [event.mean_ms for event in events if event[0] == 2 and isinstance(event, WindowAverage)] == [
        sum(deltas[place : place + 2]) / 2 for place in range(0, len(deltas) - 1, 2)
    ]
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert summary == singly.statistics.summary(elapsed_s=1.0)
    assert summary.messages_read == len(values)
    assert summary.measured == len(deltas)
    kinds = [CONTENTS[value] for value in values]
    assert summary.not_measured == {reason.value: kinds.count(reason.value) for reason in Rejection}
    assert summary.negative == sum(delta < 0 for delta in deltas)


@settings(max_examples=15, deadline=None)
@given(st.lists(mostly_good, min_size=1_000, max_size=2_500), st.sampled_from([1, 333, 2_000]))
def test_totals_count_what_was_read_until_then(values: list[bytes | None], chunk: int) -> None:
    """[TOTAL] after every 1,000th measured message says how many were read up to and including it."""
    events = measured_in_chunks(meter(), [message(value) for value in values], [chunk])
    measured = [read for read, value in enumerate(values, start=1) if isinstance(CONTENTS[value], int)]
    assert [event.messages for event in events if isinstance(event, TotalRead)] == measured[999::1_000]


def test_messages_without_kafka_timestamp_are_counted() -> None:
    """TIMESTAMP_NOT_AVAILABLE is no sample, and no record time."""
    subject = meter()
    subject.measure([message(b'{"timestamp_start":1794999999990}', stamp=(0, 0))])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert summary.not_measured["no_kafka_timestamp"] == summary.messages_read == 1
    assert summary.timestamp_types == {"none": 1}
    assert summary.first_record_ms is None


def test_sizes_and_times_are_noted() -> None:
    """The megabytes are those of the values, tombstones being nothing."""
    subject = meter()
    stamps = [(LOG_APPEND_TIME, STAMP_MS), (LOG_APPEND_TIME, STAMP_MS + 500), (LOG_APPEND_TIME, STAMP_MS + 2_000)]
    values = [b"x" * 1_000_000, None, b"x" * 3_000_000]
    subject.measure([message(value, stamp=stamp) for value, stamp in zip(values, stamps, strict=True)])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert summary.throughput_mb_per_s == pytest.approx(2.0 * 2 / 3)  # three messages, two intervals
    assert (summary.first_record_ms, summary.last_record_ms) == (STAMP_MS, STAMP_MS + 2_000)


def test_the_first_few_of_each_kind_are_shown_with_their_place(caplog: pytest.LogCaptureFixture) -> None:
    """Three of a kind are told with partition and offset, the third says that more are only counted."""
    subject = meter()
    with caplog.at_level(logging.WARNING):
        for offset in range(100):
            subject.measure([message(b"hello", offset=offset), message(b'{"timestamp_start":1794999999}')])
    lines = [line for line in caplog.messages if "not_json" in line]
    assert [line.partition("offset ")[2].partition(":")[0] for line in lines] == ["0", "1", "2"]
    assert all("partition 3, offset" in line for line in lines)
    assert ["only counted" in line for line in lines] == [False, False, True]
    seconds = [line for line in caplog.messages if "implausible_timestamp_start" in line]
    assert len(seconds) == 3
    assert "1794999999 looks like seconds: --timestamp-unit s" in seconds[0]


def test_the_first_negative_delta_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A warning with partition, offset and value, and no second one."""
    subject = meter()
    with caplog.at_level(logging.WARNING):
        for offset in range(7, 20):
            subject.measure([message(b'{"timestamp_start":1795000000003}', offset=offset)])
    assert len(caplog.messages) == 1
    assert "partition 3, offset 7 has a negative delta, -3 ms" in caplog.messages[0]


def test_a_delta_of_zero_is_not_negative(caplog: pytest.LogCaptureFixture) -> None:
    """The same millisecond is a sample like any other, also in a batch that is looked at one by one."""
    subject = meter()
    with caplog.at_level(logging.WARNING):
        subject.measure([message(b'{"timestamp_start":1795000000000}'), message(b"hello")])
    assert not any("negative" in line for line in caplog.messages)
    assert subject.statistics.summary(elapsed_s=1.0).negative == 0


def test_create_time_is_said_once_with_the_command(caplog: pytest.LogCaptureFixture) -> None:
    """A CreateTime topic is named with what makes it LogAppendTime; a LogAppendTime topic is not mentioned."""
    subject = meter()
    with caplog.at_level(logging.WARNING):
        subject.measure([message(b'{"timestamp_start":1794999999990}')])
        assert not caplog.messages
        for _ in range(3):
            subject.measure([message(b'{"timestamp_start":1794999999990}', stamp=(1, STAMP_MS))])
    assert len(caplog.messages) == 1
    assert "--entity-name t --add-config message.timestamp.type=LogAppendTime" in caplog.messages[0]


def test_create_time_is_noticed_anywhere_in_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that begins with LogAppendTime may hold CreateTime too, where the topic was changed."""
    good = b'{"timestamp_start":1794999999990}'
    with caplog.at_level(logging.WARNING):
        meter().measure([message(good), message(good, stamp=(1, STAMP_MS))])
    assert "CreateTime" in caplog.text


# -------------------------------------------------------------------------------------------------------- visible


def record(stamp_ms: int, delta_ms: int = 10, *, partition: int = 0, kind: int = LOG_APPEND_TIME) -> Message:
    """A result that was stamped then, this long after its input."""
    value = b'{"timestamp_start":%d}' % (stamp_ms - delta_ms)
    return Message("t", partition, 0, None, value, timestamp=(kind, stamp_ms))


def metered(options: Settings) -> Meter:
    """A meter with these options that is ready."""
    subject = Meter(
        PayloadReader(["timestamp_start"]),
        Statistics(Windows([2]), latency=options.latency),
        options,
        WallClock().now_ms,
    )
    subject.reached(set(range(10)))
    return subject


@pytest.mark.parametrize(("latency", "measured"), [("append", 5), ("receive", 0)])
def test_what_is_read_before_catching_up(latency: str, measured: int) -> None:
    """It waited for this consumer: no visible of it; and where receiving is measured, it is warm-up."""
    options = Settings(topic="t", latency=latency)
    subject = Meter(
        PayloadReader(["timestamp_start"]), Statistics(Windows([2]), latency=latency), options, WallClock().now_ms
    )
    subject.measure([record(int(WallClock().now_ms()) + 500) for _ in range(5)])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert (summary.messages_read, summary.measured, summary.visible_ms.count) == (5, measured, 0)
    assert summary.not_measured["warmup"] == 5 - measured


@pytest.mark.parametrize("odd", [[], [b"hello"]])
def test_visible_are_only_results_stamped_since_the_meter_was_ready(odd: list[bytes]) -> None:
    """What was in the topic before waited for this consumer; all are in the delta, also beside an odd message."""
    before_ms = int(WallClock().now_ms())
    subject = meter()
    after_ms = int(WallClock().now_ms())
    stamps_ms = [before_ms - 3_600_000, before_ms - 500, after_ms + 500, before_ms - 1_000, after_ms + 3_600_000]
    subject.measure([record(stamp_ms) for stamp_ms in stamps_ms] + [message(value) for value in odd])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert summary.delta_ms.count == 5
    assert summary.visible_ms.count == summary.append_to_visible_ms.count == 2
    waits_ms = summary.append_to_visible_ms
    assert waits_ms.min == pytest.approx(-3_600_000, abs=60_000)
    assert waits_ms.max == pytest.approx(-500, abs=60_000)
    assert waits_ms.mean is not None
    assert summary.visible_ms.mean == waits_ms.mean + 10


def test_a_partition_that_comes_back_has_a_backlog_again() -> None:
    """It is visible again from when its end was reached once more; the other partition stays visible."""
    subject = meter()
    stamp_ms = int(WallClock().now_ms()) + 60_000
    messages = [record(stamp_ms, partition=number) for number in (0, 1)]
    subject.measure(messages)
    subject.reached({0})
    subject.measure(messages)
    assert subject.statistics.summary(elapsed_s=1.0).visible_ms.count == 3
    subject.reached({0, 1})
    subject.measure(messages)
    assert subject.statistics.summary(elapsed_s=1.0).visible_ms.count == 5


def test_results_older_than_the_meter_are_not_visible() -> None:
    """A topic that is read afterwards says n/a, and not how long it lay there."""
    subject = meter()
    subject.measure([record(STAMP_MS - 400 * DAY_MS) for _ in range(5)])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert (summary.measured, summary.visible_ms.count, summary.append_to_visible_ms.count) == (5, 0, 0)


@pytest.mark.parametrize("odd", [[], [b"hello"]])
def test_receive_latency_is_up_to_the_moment_of_receiving(odd: list[bytes]) -> None:
    """With --latency receive the stamp does not matter, and visible would be the same figure again."""
    subject = metered(Settings(topic="t", latency="receive"))
    clock = WallClock()
    start_ms = int(clock.now_ms()) - 5_000
    inherited = [Message("t", 0, 0, None, b'{"timestamp_start":%d}' % start_ms, timestamp=(1, start_ms))]
    subject.measure(inherited * 200 + [message(value) for value in odd])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert (summary.measured, summary.latency, summary.visible_ms.count) == (200, "receive", 0)
    assert summary.delta_ms.min is not None and summary.delta_ms.max is not None
    assert 4_999 <= summary.delta_ms.min <= summary.delta_ms.max <= clock.now_ms() - start_ms + 1
    assert summary.verdict.startswith("valid")
    (row,) = summary.series  # of the second of receiving, as a backlog by Little's law needs it
    assert start_ms + 5_000 <= row.start_ms + 1_000 <= clock.now_ms() + 1_000


def test_partitions_and_their_rows_come_from_the_messages() -> None:
    """Fast and slow path hand each message's own partition over."""
    for odd in ([], [message(None)]):
        subject = meter()
        subject.measure([record(STAMP_MS, delta, partition=delta % 3) for delta in range(30)] + odd)
        rows = subject.statistics.summary(elapsed_s=1.0).partitions
        assert [(row.partition, row.count, row.max_ms) for row in rows] == [(0, 10, 27), (1, 10, 28), (2, 10, 29)]


# -------------------------------------------------------------------------------------------------------- warm-up

timed = st.lists(
    st.tuples(st.integers(0, 4_000), st.integers(-2, 50), st.sampled_from([None, None, None, b"{}", b"", b"hello"])),
    min_size=1,
    max_size=50,
)
warmups = st.builds(Warmup, messages=st.integers(1, 60)) | st.builds(
    Warmup, seconds=st.sampled_from([0.001, 0.5, 1.0, 2.5, 60.0])
)


@given(timed, warmups, st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_a_warm_up_does_not_depend_on_batches(
    rows: list[tuple[int, int, bytes | None]], warmup: Warmup, chunks: list[int]
) -> None:
    """The first messages, or the first time of the records, are counted as warm-up only, in any batching."""
    messages = [
        record(STAMP_MS + at_ms, delta_ms) if odd is None else message(odd, stamp=(LOG_APPEND_TIME, STAMP_MS + at_ms))
        for at_ms, delta_ms, odd in rows
    ]
    subject, singly = (metered(Settings(topic="t", warmup=warmup)) for _ in range(2))
    events = measured_in_chunks(subject, messages, chunks)
    assert events == measured_in_chunks(singly, messages, [1])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert summary == singly.statistics.summary(elapsed_s=1.0)
    end_ms = rows[0][0] + warmup.seconds * 1_000 if warmup.seconds else 0
    warm = [place < warmup.messages or at_ms < end_ms for place, (at_ms, _, _) in enumerate(rows)]
    assert summary.not_measured["warmup"] == sum(warm)
    assert summary.messages_read == summary.measured + sum(summary.not_measured.values()) == len(rows)
    deltas = [row[1] for row, is_warm in zip(rows, warm, strict=True) if not is_warm and row[2] is None]
    assert summary.measured == summary.delta_ms.count == len(deltas)
    assert summary.delta_ms.max == max(deltas, default=None)
    stamps = [STAMP_MS + row[0] for row, is_warm in zip(rows, warm, strict=True) if not is_warm]
    assert (summary.first_record_ms, summary.last_record_ms) == (min(stamps, default=None), max(stamps, default=None))


def test_a_total_does_not_count_warm_up_that_comes_later() -> None:
    """An early record behind the 1,000th measured one is not in its [TOTAL], also when it came in the same batch."""
    messages = [record(STAMP_MS)] + [record(STAMP_MS + 1_000)] * 1_000 + [record(STAMP_MS)]
    found = []
    for chunk in (1, 2_000):
        subject = metered(Settings(topic="t", warmup=Warmup(seconds=1.0)))
        found.append(
            [event for event in measured_in_chunks(subject, messages, [chunk]) if isinstance(event, TotalRead)]
        )
    assert found == [[TotalRead(1_001)]] * 2


@pytest.mark.parametrize("chunk", [1, 10])
def test_records_without_a_timestamp_are_no_warm_up(chunk: int) -> None:
    """Where Kafka gave no time a warm-up in seconds cannot hold, and the counter names the reason."""
    subject = metered(Settings(topic="t", warmup=Warmup(seconds=30.0)))
    messages = [message(b'{"timestamp_start":1794999999990}', stamp=(0, 0)) for _ in range(10)]
    measured_in_chunks(subject, messages, [chunk])
    counters = subject.statistics.summary(elapsed_s=1.0).not_measured
    assert (counters["no_kafka_timestamp"], counters["warmup"]) == (10, 0)


def test_oddities_of_the_warm_up_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A warm-up's bad, negative or CreateTime records are counted as warm-up, without a word."""
    subject = metered(Settings(topic="t", warmup=Warmup(messages=3)))
    with caplog.at_level(logging.WARNING):
        subject.measure([message(b"hello"), record(STAMP_MS, -5), record(STAMP_MS, kind=1)])
    assert not caplog.messages
    assert subject.statistics.summary(elapsed_s=1.0).timestamp_types == {}


# -------------------------------------------------------------------------------------------------------- trace


@pytest.mark.parametrize("trace", [Trace("key"), Trace("field", "mark.1"), Trace("header", "mark")])
@pytest.mark.parametrize("warmup", [Warmup(), Warmup(messages=15)])
def test_marks_are_found_where_the_trace_says(trace: Trace, warmup: Warmup) -> None:
    """Key, field and header give the same ledger, over all that was read: bad messages and the warm-up, too."""
    order = list(range(50))
    random.Random(7).shuffle(order)
    marks = [f"r/p/0/0/{seq}" if seq % 10 else None for seq in [*order, 3, 3]]
    messages = []
    for offset, mark in enumerate(marks):
        text = None if mark is None else mark.encode()
        messages.append(
            Message(
                "t", 2, offset,
                text if trace.place == "key" else b"some key",
                b'{"mark.1":"%b"}' % text if text and trace.place == "field" else b"{}" if offset % 7 else b"hello",
                [("mark", b"earlier"), ("mark", text)] if text and trace.place == "header" else None,
                timestamp=(LOG_APPEND_TIME, STAMP_MS),
            )
        )  # fmt: skip
    subject = metered(Settings(topic="t", trace=trace, warmup=warmup))
    measured_in_chunks(subject, messages, [7, 20])
    ledger = subject.statistics.summary(elapsed_s=1.0).ledger
    assert ledger is not None
    # nobody's key is no mark, as is an absent one
    assert (ledger.unique, ledger.duplicated, ledger.untraced, ledger.lost) == (45, 2, 5, None)
    highest, behind = -1, 0
    for seq in order:
        if seq % 10:
            behind, highest = behind + (seq < highest), max(seq, highest)
    assert ledger.out_of_order == behind


def test_without_a_trace_there_is_no_ledger() -> None:
    """Nothing is looked for, and the summary says n/a."""
    subject = meter()
    subject.measure([record(STAMP_MS)])
    assert subject.statistics.summary(elapsed_s=1.0).ledger is None


def test_receive_latency_has_no_row_in_1969() -> None:
    """A record without Kafka timestamp is counted as that, or measured, but has no time in the series."""
    subject = metered(Settings(topic="t", latency="receive"))
    start_ms = int(WallClock().now_ms()) - 5_000
    subject.measure([message(b'{"timestamp_start":%d}' % start_ms, stamp=(0, 0))])
    summary = subject.statistics.summary(elapsed_s=1.0)
    assert summary.messages_read == summary.measured + summary.not_measured["no_kafka_timestamp"] == 1
    assert summary.first_record_ms is None
    assert not [row for row in summary.series if row.start_ms < 0]


# ---------------------------------------------------------------------------------------------- one run, many consumers


class Kept:
    """A run's topics in memory."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}

    def announce(self, value: bytes, *, wait: bool) -> None:
        """Nobody listens."""
        del value, wait

    def announcements(self) -> list[bytes]:
        """Nobody speaks."""
        return []

    def save(
        self, shard: int, records: Mapping[str, bytes], *, wait: bool, saved: Callable[[], None] = lambda: None
    ) -> None:
        """Keep them."""
        del shard, wait
        self.records |= records
        saved()

    def saved(self, prefix: str | tuple[str, ...], shards: Iterable[int] | None = None) -> dict[str, bytes]:
        """Those that begin so."""
        del shards
        return {key: value for key, value in self.records.items() if key.startswith(prefix)}


def test_a_runs_states_know_clock_error_and_time() -> None:
    """What PerfReport.py --run merges has each consumer's clock offsets, and the time since the first one began."""
    journal, now_ms = Kept(), [float(STAMP_MS)]
    clocks = [ClockOffset(broker=1, offset_ms=offset_ms, bound_ms=1.5) for offset_ms in (0.5, 0.75)]

    def reading(index: str, partitions: Sequence[int], clock: ClockOffset, seconds: int) -> Shares:
        member = Membership(journal, "r", "consumer", Identity(index, 1), lambda: now_ms[0])
        shares = Shares(Settings(topic="t"), member, lambda: now_ms[0], [clock])
        shares.take(dict.fromkeys(partitions, 0))
        shares.measure([Message("t", number, 0, None, next(iter(CONTENTS)), timestamp=(LOG_APPEND_TIME, STAMP_MS))
                        for number in partitions])  # fmt: skip
        now_ms[0] += seconds * 1_000
        return shares

    first = reading("0", [0, 1], clocks[0], seconds=7)
    first.give_up([0], lost=False)
    second = reading("1", [0], clocks[1], seconds=5)
    for shares in (first, second):
        shares.leave(0)
    states = checkpoints(journal.saved(checkpoint_prefix("r")))
    found = merged([state.result for state in states.values()])
    assert isinstance(found, ConsumerResult)
    assert found.summary.clock == clocks
    assert found.summary.elapsed_s == 12
    assert found.started_at == "2026-11-18T11:06:40.000+00:00"
