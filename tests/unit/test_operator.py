"""The stand-in operator: what it writes, and when a message is complete."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from demo import streams_operator
from demo.streams_operator import StreamsOperator, with_timestamp_start
from kafka.consumer import Consumer
from kafka.producer import KeyValue, Producer
from perf.payload import PayloadReader

STAMP_MS = 1_795_000_000_000
READER = PayloadReader(["timestamp_start"])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


# -------------------------------------------------------------------------------------------------------- the message


@given(st.dictionaries(texts, values, max_size=5), st.booleans(), st.none() | st.just(1), texts.map(lambda _: " \n"))
def test_an_object_keeps_its_fields_and_gets_the_stamp_last(
    document: dict[str, Any], ascii_only: bool, indent: int | None, blank: str
) -> None:
    """The result is the same object with timestamp_start as its last field, and gives the right delta."""
    text = blank + json.dumps(document, ensure_ascii=ascii_only, indent=indent) + blank
    result = with_timestamp_start(text.encode(), STAMP_MS)
    pairs = json.loads(result, object_pairs_hook=list)
    assert pairs == [
        *json.loads(text, object_pairs_hook=list),
        ("timestamp_start", STAMP_MS),
    ]
    assert READER.delta(result, STAMP_MS + 7) == 7


@given(values.filter(lambda value: not isinstance(value, dict)))
def test_any_other_value_is_wrapped(value: object) -> None:
    """Arrays, text, numbers and null become the field `value` of an object."""
    result = with_timestamp_start(json.dumps(value).encode(), STAMP_MS)
    assert json.loads(result) == {"value": value, "timestamp_start": STAMP_MS}
    assert list(json.loads(result)) == ["value", "timestamp_start"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{}", b'{"timestamp_start":5}'),
        (b" { } ", b'{ "timestamp_start":5}'),
        (b'{"a":1.10}', b'{"a":1.10,"timestamp_start":5}'),
        (b'{"a":{}}', b'{"a":{},"timestamp_start":5}'),
        (b'{"timestamp_start":1}', b'{"timestamp_start":1,"timestamp_start":5}'),
        (b'"{}"', b'{"value":"{}","timestamp_start":5}'),
        (b"[1, 2]", b'{"value":[1, 2],"timestamp_start":5}'),
        (b"null", b'{"value":null,"timestamp_start":5}'),
    ],
)
def test_the_bytes_of_the_message_stay_as_they_are(value: bytes, expected: bytes) -> None:
    """Nothing is parsed and written anew: the stamp is put behind what is there."""
    assert with_timestamp_start(value, 5) == expected


def test_a_stamp_that_was_there_already_does_not_count() -> None:
    """Of two equal keys the last counts, so the operator's own stamp is measured."""
    assert READER.delta(with_timestamp_start(b'{"timestamp_start":1794000000000}', STAMP_MS), STAMP_MS + 1) == 1


# ---------------------------------------------------------------------------------------------------------- the times


class Line:
    """Both ends of the operator in a world whose clock moves only while somebody waits.

    A message arrives at its time; `read` waits for the first one, at most the time-out, and takes all that are there.
    """

    def __init__(self, arrivals_s: Sequence[float], value: bytes | None = b'{"n":1}') -> None:
        self.now_s = 0.0
        self._value = value
        self._arrivals = deque(enumerate(sorted(arrivals_s)))
        self.read_s: list[float] = []
        self.sent: list[tuple[float, KeyValue]] = []

    def monotonic(self) -> float:
        """The time in this world."""
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        """Time passes."""
        assert duration_s > 0
        self.now_s += duration_s

    def read(self, most: int, timeout_s: float) -> list[Message]:
        """As Consumer.read."""
        end_s = self.now_s + timeout_s
        if self._arrivals and self._arrivals[0][1] <= end_s:
            self.now_s = max(self.now_s, self._arrivals[0][1])
        else:
            self.now_s = end_s
        messages: list[Message] = []
        while self._arrivals and self._arrivals[0][1] <= self.now_s and len(messages) < most:
            index, _ = self._arrivals.popleft()
            self.read_s.append(self.now_s)
            messages.append(Message("in", 0, index, b"%d" % index, self._value, timestamp=(2, 1_000 + index)))
        return messages

    def send(self, batch: Sequence[KeyValue], stopped: Callable[[], bool]) -> int:
        """As Producer.send."""
        assert not stopped()
        self.sent += [(self.now_s, message) for message in batch]
        return len(batch)


def departures(arrivals_s: Sequence[float], *, delay_s: float, service_time_s: float) -> Line:
    """The world after the operator has sent a result for every message."""
    line = Line(arrivals_s)
    worker = StreamsOperator(cast(Consumer, line), cast(Producer, line), delay_s=delay_s, service_time_s=service_time_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams_operator, "time", SimpleNamespace(monotonic=line.monotonic, sleep=line.sleep))
        for _ in range(20 * len(arrivals_s) + 1_000):
            worker.step(lambda: False)
            if len(line.sent) == len(arrivals_s):
                break
    return line


milliseconds = st.integers(0, 400).map(lambda number: number / 1_000)
arrival_times = st.lists(st.floats(0, 2), min_size=1, max_size=30)


@given(arrival_times, milliseconds, st.sampled_from([0.0, 0.0002, 0.001, 0.0045, 0.05]))
def test_a_message_leaves_when_its_delay_and_service_are_over(
    arrivals_s: list[float], delay_s: float, service_time_s: float
) -> None:
    """Message i leaves at max(arrival + delay, the completion before it) + service time, not before and not late."""
    line = departures(arrivals_s, delay_s=delay_s, service_time_s=service_time_s)
    assert len(line.sent) == len(arrivals_s)
    completed_s = 0.0
    for read_s, (sent_s, _) in zip(line.read_s, line.sent, strict=True):
        completed_s = max(read_s + delay_s, completed_s) + service_time_s
        assert sent_s == pytest.approx(completed_s, abs=1e-6)


@given(arrival_times, milliseconds)
def test_an_arrival_is_noticed_at_once(arrivals_s: list[float], delay_s: float) -> None:
    """While messages wait for their completion, the next arrival is not read later than a millisecond after it."""
    line = departures(arrivals_s, delay_s=delay_s, service_time_s=0.0)
    for arrival_s, read_s in zip(sorted(arrivals_s), line.read_s, strict=True):
        assert arrival_s <= read_s <= arrival_s + 0.001


@given(arrival_times, milliseconds, milliseconds)
def test_every_message_leaves_once_and_in_order(arrivals_s: list[float], delay_s: float, service_time_s: float) -> None:
    """Keys and order are kept, and each result has its own input's Kafka timestamp."""
    line = departures(arrivals_s, delay_s=delay_s, service_time_s=service_time_s)
    assert [message for _, message in line.sent] == [
        (b"%d" % index, b'{"n":1,"timestamp_start":%d}' % (1_000 + index)) for index in range(len(arrivals_s))
    ]


def test_the_service_time_limits_the_throughput() -> None:
    """A thousand messages at once through a service of 2 ms take two seconds."""
    line = departures([0.0] * 1_000, delay_s=0.0, service_time_s=0.002)
    assert line.sent[-1][0] == pytest.approx(2.0)
    assert line.sent[499][0] == pytest.approx(1.0)


def test_a_tombstone_is_stamped_as_null() -> None:
    """A message without value is no reason to lose its stamp."""
    line = Line([0.0], value=None)
    worker = StreamsOperator(cast(Consumer, line), cast(Producer, line), delay_s=0.0, service_time_s=0.0)
    worker.step(lambda: False)
    assert [message for _, message in line.sent] == [(b"0", b'{"value":null,"timestamp_start":1000}')]
