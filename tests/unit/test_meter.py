"""PerfConsumer's Meter: messages → deltas → statistics, and what is said about the odd ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import cycle

import pytest
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from perf.payload import DAY_MS, PayloadReader, Rejection
from perf.settings import Settings
from perf.stats import Event, Statistics, TotalRead, WindowAverage
from PerfConsumer import Meter

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
    """A meter with small windows."""
    return Meter(PayloadReader(["timestamp_start"]), Statistics(windows), Settings(topic="t"))


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
    subject.measure([message(b'{"timestamp_start":1794999999990}', stamp=(0, -1))])
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
    assert summary.throughput_mb_per_s == pytest.approx(2.0)
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
