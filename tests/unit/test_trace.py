"""Marks, and the ledger against a naive model with sets and lists, and against operators whose faults are known."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import KafkaError, Message, Producer
from hypothesis import example, given
from hypothesis import strategies as st

from perf import trace
from perf.trace import (
    Ledger,
    LedgerCounts,
    LedgerState,
    Mark,
    Marker,
    Origin,
    origin_of,
    parse,
    partition_for,
    with_field,
)

ROOT = Path(__file__).parents[2]
CHUNK = 8_192  # messages in one chunk of the bitmap
HIGHEST_SEQ = 2**40 - 1
ORIGIN = Origin("run-1", "pod-0", 3, 5)

#: What looks like a mark, and is none.
NO_MARKS: dict[str, Any] = {
    "nothing": None,
    "empty text": "",
    "empty bytes": b"",
    "a word": "hello",
    "a number": "17",
    "slashes": "/////",
    "too few parts": "run-1/pod-0/3/5",
    "too many parts": "run-1/pod-0/3/5/6/7",
    "no run": "/pod-0/3/5/17",
    "no producer": "run-1//3/5/17",
    "no attempt": "run-1/pod-0//5/17",
    "no partition": "run-1/pod-0/3//17",
    "no seq": "run-1/pod-0/3/5/",
    "seq with a sign": "run-1/pod-0/3/5/+17",
    "seq below 0": "run-1/pod-0/3/5/-17",
    "minus zero": "run-1/pod-0/3/5/-0",
    "seq with a leading zero": "run-1/pod-0/3/5/017",
    "seq with an underscore": "run-1/pod-0/3/5/1_7",
    "seq with a blank": "run-1/pod-0/3/5/ 17",
    "seq with a line end": "run-1/pod-0/3/5/17\n",
    "seq in Arabic digits": "run-1/pod-0/3/5/١٧",
    "seq in full-width digits": "run-1/pod-0/3/5/１７",
    "seq with a fraction": "run-1/pod-0/3/5/17.0",
    "seq in hexadecimal": "run-1/pod-0/3/5/0x11",
    "seq one too high": f"run-1/pod-0/3/5/{HIGHEST_SEQ + 1}",
    "seq of 10^15": "run-1/pod-0/3/5/1000000000000000",
    "seq of 900 digits": "run-1/pod-0/3/5/" + "9" * 900,
    "seq of 1,000,000 digits": "run-1/pod-0/3/5/" + "9" * 1_000_000,
    "attempt with a leading zero": "run-1/pod-0/03/5/17",
    "attempt below 0": "run-1/pod-0/-3/5/17",
    "attempt in Arabic digits": "run-1/pod-0/٣/5/17",
    "attempt partly in Arabic digits": "run-1/pod-0/1٣/5/17",
    "partition below 0": "run-1/pod-0/3/-1/17",
    "partition is a word": "run-1/pod-0/3/five/17",
    "partition of 21 digits": f"run-1/pod-0/3/{10**20}/17",
    "quote in the run": 'run"1/pod-0/3/5/17',
    "quote in the producer": "run-1/pod'0/3/5/17",
    "backslash": "run\\1/pod-0/3/5/17",
    "control character": "run-1/pod\x000/3/5/17",
    "line end before it": "\nrun-1/pod-0/3/5/17",
    "half a character": "run-1/pod-\ud800/3/5/17",
    "name of 101 characters": "r" * 101 + "/pod-0/3/5/17",
    "1 MB": "r" * 1_000_000 + "/pod-0/3/5/17",
    "bytes that are no UTF-8": b"run-1/pod-\xff/3/5/17",
    "UTF-16": "run-1/pod-0/3/5/17".encode("utf-16"),
    "an int": 17,
    "a float": float("nan"),
    "true": True,
    "a list": ["run-1/pod-0/3/5/17"],
    "an object": {"run": "run-1"},
    "a bytearray": bytearray(b"run-1/pod-0/3/5/17"),
    "a memoryview": memoryview(b"run-1/pod-0/3/5/17"),
}

#: Run ids and producer names that cannot stand in a mark.
BAD_NAMES = ["", "a/b", "a\nb", "a\x00", "\x7f", "\x85", 'a"', "a'", "a\\b", "\ud800", "x" * 101]

names = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\"'\\"), min_size=1, max_size=100)
origins = st.builds(Origin, names, names, st.integers(0, 10**20 - 1), st.integers(0, 10**20 - 1))
seqs = st.integers(0, 30) | st.integers(CHUNK - 3, CHUNK + 3) | st.sampled_from([5 * CHUNK, HIGHEST_SEQ])
json_objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
blanks = st.text(" \t\r\n", max_size=3)


class Record(NamedTuple):
    """A record of the output topic, as a consumer reads it."""

    mark: Mark
    partition: int
    offset: int


class Model:
    """The definitions word for word, with sets and lists."""

    def __init__(self) -> None:
        self.offsets: list[tuple[int, int]] = []
        self.recorded: list[tuple[Origin, int, int]] = []
        self.redelivered = self.untraced = self.duplicated = self.out_of_order = 0

    def read(self, records: Sequence[Record]) -> Model:
        """Judge `records` in the order read."""
        for record in records:
            self._read(record)
        return self

    def _read(self, record: Record) -> None:
        if any(partition == record.partition and offset >= record.offset for partition, offset in self.offsets):
            self.redelivered += 1
            return
        self.offsets.append((record.partition, record.offset))
        found = parse(record.mark)
        if found is None:
            self.untraced += 1
            return
        origin, seq = found
        if found in self.seen:
            self.duplicated += 1
        elif any(a > seq and (o, p) == (origin, record.partition) for o, a, p in self.recorded):
            self.out_of_order += 1
        self.recorded.append((origin, seq, record.partition))

    @property
    def seen(self) -> set[tuple[Origin, int]]:
        """The different messages."""
        return {(origin, seq) for origin, seq, _ in self.recorded}

    def counts(self, expected: Mapping[Origin, int] | None, refused: Sequence[tuple[Origin, int]] = ()) -> LedgerCounts:
        """What the ledger should say."""
        marked = {(origin, seq) for origin, count in (expected or {}).items() for seq in range(count)}
        open_ = (marked & set(refused)) - self.seen
        return LedgerCounts(
            unique=len(self.seen),
            lost=None if expected is None else len(marked - self.seen - open_),
            unacknowledged=None if expected is None else len(open_),
            duplicated=self.duplicated,
            out_of_order=self.out_of_order,
            redelivered=self.redelivered,
            untraced=self.untraced,
            unkept=0,
            unexpected=None if expected is None else len(self.seen - marked),
        )


def mark_of(origin: Origin, seq: int) -> str:
    """A mark, made without a Marker."""
    return "/".join(map(str, [*origin, seq]))


def record(ledger: Ledger, records: Sequence[Record]) -> None:
    """Let `ledger` note `records`."""
    ledger.record_all(
        [record.mark for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
    )


def recorded(*reads: Sequence[Record]) -> Ledger:
    """The ledger of one consumer that reads one batch after the other."""
    ledger = Ledger()
    for records in reads:
        record(ledger, records)
    return ledger


def merged(*ledgers: Ledger) -> Ledger:
    """A new ledger of all of them."""
    result = Ledger()
    for ledger in ledgers:
        result.merge(ledger)
    return result


def contents(ledger: Ledger) -> tuple[Any, ...]:
    """All that a ledger holds; the order in which it came does not matter."""
    state = ledger.state()
    tracks = msgspec.msgpack.decode(zlib.decompress(state.tracks), strict=False)
    return tracks, state.offsets, {kind: count for kind, count in state.tally.items() if count}


def through_json(ledger: Ledger) -> Ledger:
    """The ledger that another process makes of this one's checkpoint."""
    return Ledger.from_state(msgspec.json.decode(msgspec.json.encode(ledger.state()), type=LedgerState))


def of_one_partition(marks: Sequence[Mark]) -> list[Record]:
    """`marks` in output partition 0, one after the other."""
    return [Record(mark, 0, offset) for offset, mark in enumerate(marks)]


few_origins = st.builds(
    Origin, st.sampled_from("ab"), st.sampled_from("pq"), st.sampled_from([0, 1]), st.sampled_from([0, 1])
)


@st.composite
def records(draw: st.DrawFn, max_size: int = 40) -> list[Record]:
    """Any records in any order: few messages, partitions and offsets, so that they meet often."""
    marks: st.SearchStrategy[Mark] = st.builds(mark_of, few_origins, seqs)
    marks = marks | marks.map(str.encode) | st.sampled_from([None, "", "x", "a/p/0/0/-1", b"a/p/0/0/\xff"])  # type: ignore[arg-type]
    one = st.builds(Record, marks, st.integers(0, 2), st.integers(0, 60))
    found = draw(st.lists(one, max_size=max_size))
    return sorted(found, key=lambda record: record.offset) if draw(st.booleans()) else found


expectations = st.none() | st.dictionaries(
    st.builds(Origin, st.sampled_from("abz"), st.sampled_from("pq"), st.sampled_from([0, 1]), st.sampled_from([0, 1])),
    st.integers(0, 40) | st.integers(CHUNK - 2, CHUNK + 2),
)


class TestMarks:
    """Made by the producer, parsed by the consumer."""

    def test_counts_each_partition_from_zero(self) -> None:
        """SEQ is 0, 1, 2, … for each input partition by itself."""
        marker = Marker(run="run-1", producer="pod-0", attempt=3)
        assert [marker.mark(partition) for partition in (5, 2, 5, 5)] == [
            b"run-1/pod-0/3/5/0",
            b"run-1/pod-0/3/2/0",
            b"run-1/pod-0/3/5/1",
            b"run-1/pod-0/3/5/2",
        ]

    @given(st.lists(st.integers(0, 5)))
    def test_counts_are_what_was_marked(self, partitions: list[int]) -> None:
        """`counts` agrees with the marks themselves, and has no origin without one."""
        marker = Marker(run="r", producer="p", attempt=0)
        found = [parse(marker.mark(partition)) for partition in partitions]
        expected = {Origin("r", "p", 0, partition): partitions.count(partition) for partition in set(partitions)}
        assert marker.counts() == expected
        assert sorted(mark for mark in found if mark) == [
            (origin, seq) for origin in sorted(expected) for seq in range(expected[origin])
        ]

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_refuses_names_that_cannot_stand_in_a_mark(self, name: str) -> None:
        """A ValueError that says which of the two it is."""
        with pytest.raises(ValueError, match="cannot be the run id"):
            Marker(run=name, producer="p", attempt=0)
        with pytest.raises(ValueError, match="cannot be the producer"):
            Marker(run="r", producer=name, attempt=0)

    @pytest.mark.parametrize("attempt", [-1, 10**20])
    def test_refuses_attempts_that_cannot_stand_in_a_mark(self, attempt: int) -> None:
        """A ValueError that names the attempt."""
        with pytest.raises(ValueError, match="cannot be the attempt"):
            Marker(run="r", producer="p", attempt=attempt)

    @given(origins, st.integers(0, HIGHEST_SEQ))
    @example(ORIGIN, HIGHEST_SEQ)
    @example(Origin("𝕏" * 100, "𝕏" * 100, 10**20 - 1, 10**20 - 1), HIGHEST_SEQ)
    def test_parses_every_mark(self, origin: Origin, seq: int) -> None:
        """As text and as bytes, what was put in comes out."""
        mark = mark_of(origin, seq)
        assert parse(mark) == parse(mark.encode()) == (origin, seq)

    @given(origins)
    def test_parses_what_a_marker_makes(self, origin: Origin) -> None:
        """Every name that a Marker takes survives the way through a mark."""
        marker = Marker(run=origin.run, producer=origin.producer, attempt=origin.attempt)
        assert [parse(marker.mark(origin.partition)) for _ in range(2)] == [(origin, 0), (origin, 1)]
        assert origin_of(str(origin)) == origin

    @pytest.mark.parametrize("mark", NO_MARKS.values(), ids=NO_MARKS)
    def test_knows_what_is_no_mark(self, mark: Any) -> None:
        """None, never an exception, and the ledger counts it as untraced."""
        assert parse(mark) is None
        ledger = recorded([Record(mark, 0, 0)])
        assert ledger.counts({}).untraced == 1
        assert ledger.counts({}).unique == 0

    @given(st.text() | st.binary() | st.from_regex(r"[ab]?/p?/-?[0-9]{1,3}/[0-9]{0,2}/[+-]?[0-9_]*\n?"))
    def test_parses_nothing_else(self, text: str | bytes) -> None:
        """Whatever is parsed is, made again from its parts, the same text."""
        found = parse(text)
        if found is not None:
            assert mark_of(*found) == (text.decode() if isinstance(text, bytes) else text)


class TestPartition:
    """The input partition that the producer chooses."""

    def test_goes_in_turn_without_key(self) -> None:
        """No key and an empty one give 0, 1, 2, 0, 1, 2, …"""
        for key in (None, b""):
            assert [partition_for(key, turn, 3) for turn in range(7)] == [0, 1, 2, 0, 1, 2, 0]

    @pytest.mark.parametrize(("key", "crc32"), [(b"123456789", 0xCBF43926), (b"a", 0xE8B7BE43), (b"\x00", 0xD202EF8D)])
    def test_goes_by_the_key(self, key: bytes, crc32: int) -> None:
        """CRC32 of the key modulo the number of partitions, whatever the turn."""
        assert {partition_for(key, turn, 1_000) for turn in range(5)} == {crc32 % 1_000}

    def test_agrees_with_librdkafka(self) -> None:
        """librdkafka's own default partitioner, on its mock broker, sends each key to the same partition."""
        producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
        delivered: dict[bytes, int] = {}

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            assert error is None
            delivered[bytes(message.key() or b"")] = message.partition() or 0

        keys = [b"%d" % number for number in range(100)] + [b"\x00", b" ", b"\xff" * 50, "schlüssel".encode()]
        for key in keys:
            producer.produce("topic", b"", key=key, on_delivery=on_delivery)
        assert producer.flush(30) == 0
        partitions = len(producer.list_topics("topic", 30).topics["topic"].partitions)
        assert partitions > 1
        assert delivered == {key: partition_for(key, 0, partitions) for key in keys}


class TestWithField:
    """The mark as a JSON object's last field."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b"{}", b'{"trace":"r/p/0/0/0"}'),
            (b" { \n } \n", b' { \n "trace":"r/p/0/0/0"} \n'),
            (b'{"a":1.10}', b'{"a":1.10,"trace":"r/p/0/0/0"}'),
            (b'{"a":1e400 }\r\n', b'{"a":1e400 ,"trace":"r/p/0/0/0"}\r\n'),
            (b'\t{"a":{}}', b'\t{"a":{},"trace":"r/p/0/0/0"}'),
            (b'{"a":"\\ud800}"}', b'{"a":"\\ud800}","trace":"r/p/0/0/0"}'),
            (b'{"a":1,"a":2}', b'{"a":1,"a":2,"trace":"r/p/0/0/0"}'),
            (b'{"trace":"old"}', b'{"trace":"old","trace":"r/p/0/0/0"}'),
        ],
    )
    def test_leaves_every_other_byte(self, value: bytes, expected: bytes) -> None:
        """Numbers, doubled keys and white space stay as the data set has them."""
        assert with_field(value, "trace", b"r/p/0/0/0") == expected

    @given(json_objects, st.sampled_from([None, 0, 2]), st.booleans(), blanks, blanks, st.text(max_size=5), origins)
    def test_adds_the_field(  # noqa: PLR0917
        self,
        document: dict[str, Any],
        indent: int | None,
        escaped: bool,
        before: str,
        after: str,
        name: str,
        origin: Origin,
    ) -> None:
        """Any object, however written, decodes to itself with the mark as its last field."""
        value = (before + json.dumps(document, indent=indent, ensure_ascii=escaped) + after).encode()
        mark = mark_of(origin, 7)
        found = json.loads(with_field(value, name, mark.encode()))
        document.pop(name, None)
        assert json.loads(json.dumps(document)) | {name: mark} == found
        assert parse(found[name]) == (origin, 7)

    @pytest.mark.parametrize(
        "value",
        [b"", b" ", b"[]", b"[{}]", b"1", b"null", b'"{}"', b'"', b"{", b"}", b"}{", b'"a":1}', b'{"a":1', b"hello"],
    )
    def test_refuses_what_is_no_object(self, value: bytes) -> None:
        """A ValueError, whether it is JSON or not."""
        with pytest.raises(ValueError, match="only a JSON object"):
            with_field(value, "trace", b"r/p/0/0/0")


class TestLedgerAgainstTheModel:
    """Any records, in any order."""

    @given(records(), expectations, st.lists(st.tuples(few_origins, seqs), max_size=20))
    def test_counts(
        self, read: list[Record], expected: dict[Origin, int] | None, refused: list[tuple[Origin, int]]
    ) -> None:
        """Each count is what sets and lists give, and each record read is in exactly one of five."""
        unacknowledged = recorded(of_one_partition([mark_of(*message) for message in refused]))
        counts = recorded(read).counts(expected, unacknowledged if refused else None)
        assert counts == Model().read(read).counts(expected, refused)
        assert len(read) == (counts.unique + counts.duplicated + counts.redelivered + counts.untraced + counts.unkept)
        if expected is not None:
            assert counts.lost is not None
            assert counts.unexpected is not None
            assert counts.unacknowledged is not None
            accounted = counts.unique + counts.lost + counts.unacknowledged - counts.unexpected
            assert accounted == sum(expected.values())

    @given(records(), st.integers(0, 40), st.integers(0, 40))
    def test_batches_do_not_matter(self, read: list[Record], one: int, other: int) -> None:
        """The same records in other batches give the same ledger."""
        cut, end = sorted((one, other))
        assert contents(recorded(read[:cut], read[cut:end], read[end:])) == contents(recorded(read))

    @given(records(), st.integers(0, 40), expectations)
    def test_goes_on_from_a_checkpoint(self, read: list[Record], cut: int, expected: dict[Origin, int] | None) -> None:
        """A ledger that went through JSON is the same one, and whoever takes over tells redeliveries as before."""
        before = recorded(read[:cut])
        after = through_json(before)
        assert after.state() == before.state()
        record(after, read[cut:])
        assert contents(after) == contents(recorded(read))
        assert after.counts(expected) == recorded(read).counts(expected)

    @given(records(), records(), records(), expectations)
    def test_merging_is_associative_and_commutative(
        self, one: list[Record], two: list[Record], three: list[Record], expected: dict[Origin, int] | None
    ) -> None:
        """Any order and any grouping give one result, nothing merged gives itself, and what was merged stays."""
        a, b, c = recorded(one), recorded(two), recorded(three)
        states = [ledger.state() for ledger in (a, b, c)]
        together = merged(a, b, c)
        for other in (merged(c, b, a), merged(a, merged(b, c)), merged(merged(c, a), b), merged(through_json(b), c, a)):
            assert contents(other) == contents(together)
            assert other.counts(expected) == together.counts(expected)
        assert contents(merged(a, Ledger())) == contents(merged(Ledger(), a)) == contents(a)
        assert [ledger.state() for ledger in (a, b, c)] == states

    @given(records(max_size=60), expectations)
    def test_merging_the_output_partitions(self, read: list[Record], expected: dict[Origin, int] | None) -> None:
        """One ledger for each output partition gives all counts of a single one, but for order across duplicates."""
        parts = [[record for record in read if record.partition == partition] for partition in range(3)]
        counts, single = merged(*map(recorded, parts)).counts(expected), recorded(read).counts(expected)
        assert msgspec.structs.replace(counts, out_of_order=0) == msgspec.structs.replace(single, out_of_order=0)
        assert counts.out_of_order == sum(Model().read(part).out_of_order for part in parts)
        if not single.duplicated:
            assert counts == single

    @given(records(), st.integers(0, 40))
    def test_merging_a_hand_over_with_an_empty_ledger(self, read: list[Record], cut: int) -> None:
        """Two consumers that read one partition one after the other, each record once: only the order is not judged."""
        read = [record._replace(partition=0, offset=offset) for offset, record in enumerate(read)]
        counts, single = merged(recorded(read[:cut]), recorded(read[cut:])).counts(None), recorded(read).counts(None)
        assert msgspec.structs.replace(counts, out_of_order=0) == msgspec.structs.replace(single, out_of_order=0)

    @given(records())
    def test_what_is_recorded_after_merging(self, read: list[Record]) -> None:
        """A merged ledger goes on like one that had read everything itself, and leaves the merged ones alone."""
        half = [record for record in read if record.partition == 0]
        rest = [record for record in read if record.partition != 0]
        first = recorded(half)
        ledger = merged(first)
        record(ledger, rest)
        assert contents(first) == contents(recorded(half))
        assert contents(ledger) == contents(recorded(half, rest))


class Faults(NamedTuple):
    """How likely an operator, or the consumer that reads again, does what to a message."""

    drop: float = 0.0
    strip: float = 0.0
    swap: float = 0.0
    double: float = 0.0
    reread: float = 0.0


class Run:
    """Producers, an operator with known faults, and consumers; `known` is counted by those who did it.

    The operator reads each input partition in order but all of them interleaved, and writes to any output partition.
    """

    def __init__(self, seed: int, faults: Faults, *, messages: int, producers: int, inputs: int, outputs: int) -> None:
        self._random = random.Random(seed)
        self._faults = faults
        self.marked, logs = self._produce(messages, producers, inputs)
        self.dropped = self.stripped = self.swapped = self.doubled = self.reread = 0
        self._outputs: list[list[Mark]] = [[] for _ in range(outputs)]
        for mark in self._interleaved(logs):
            if self._happens(faults.drop):
                self.dropped += 1
            else:
                self._random.choice(self._outputs).append(mark)
        for output in self._outputs:
            self._strip(output)
            self._swap(output)
            self._double(output)

    def consumed(self, consumers: int) -> Ledger:
        """The merged ledger of some consumers, each of which stops and goes on from its checkpoint once."""
        readings: list[list[list[Record]]] = [[] for _ in range(consumers)]
        for partition, output in enumerate(self._outputs):
            readings[partition % consumers].append(list(self._read(partition, output)))
        ledgers = []
        for reading in readings:
            found = list(self._interleaved(reading))
            cut = self._random.randint(0, len(found))
            ledger = through_json(recorded(found[:cut]))
            record(ledger, found[cut:])
            ledgers.append(ledger)
        return merged(*ledgers)

    def known(self) -> LedgerCounts:
        """What was done, as the ledger should tell it."""
        lost = self.dropped + self.stripped
        return LedgerCounts(
            unique=sum(self.marked.values()) - lost,
            lost=lost,
            unacknowledged=0,
            duplicated=self.doubled,
            out_of_order=self.swapped,
            redelivered=self.reread,
            untraced=self.stripped,
            unkept=0,
            unexpected=0,
        )

    def _produce(self, messages: int, producers: int, inputs: int) -> tuple[dict[Origin, int], list[list[Mark]]]:
        markers = [Marker(run="run", producer=f"pod-{number // 2}", attempt=number % 2) for number in range(producers)]
        logs: list[list[Mark]] = [[] for _ in range(inputs)]
        for _ in range(messages):
            partition = self._random.randrange(inputs)
            logs[partition].append(self._random.choice(markers).mark(partition))
        return dict(chain.from_iterable(marker.counts().items() for marker in markers)), logs

    def _strip(self, output: list[Mark]) -> None:
        for index in range(len(output)):
            if self._happens(self._faults.strip):
                output[index] = self._random.choice([None, "", "another field", "run/pod-0/0/0/-1"])
                self.stripped += 1

    def _swap(self, output: list[Mark]) -> None:
        """Swap neighbours of one origin, each message at most once: the earlier one is then out of order."""
        places: dict[Origin, list[int]] = {}
        for index, mark in enumerate(output):
            if found := parse(mark):
                places.setdefault(found[0], []).append(index)
        for indices in places.values():
            for one, other in zip(indices[::2], indices[1::2], strict=False):
                if self._happens(self._faults.swap):
                    output[one], output[other] = output[other], output[one]
                    self.swapped += 1

    def _double(self, output: list[Mark]) -> None:
        for index in reversed(range(len(output))):
            if parse(output[index]) and self._happens(self._faults.double):
                output.insert(self._random.randint(index + 1, len(output)), output[index])
                self.doubled += 1

    def _read(self, partition: int, output: list[Mark]) -> Iterator[Record]:
        """The output partition, its offsets with gaps; now and then the consumer goes back and reads again."""
        log, offset = [], -1
        for mark in output:
            offset += self._random.choice([1, 1, 2, 100])
            log.append(Record(mark, partition, offset))
        for index, at_first in enumerate(log):
            yield at_first
            if self._happens(self._faults.reread):
                again = log[self._random.randint(0, index) : index + 1]
                self.reread += len(again)
                yield from again

    def _interleaved(self, logs: Sequence[Sequence[Any]]) -> Iterator[Any]:
        turns = [index for index, log in enumerate(logs) for _ in log]
        self._random.shuffle(turns)
        readers = [iter(log) for log in logs]
        return (next(readers[index]) for index in turns)

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability


probabilities = st.sampled_from([0.0, 0.02, 0.3, 1.0])
few = st.integers(1, 6)


class TestLedgerOfKnownOperators:
    """The counts are those of the one who did it."""

    @given(
        st.integers(0, 2**32),
        st.builds(
            Faults, drop=probabilities, strip=probabilities, swap=probabilities, double=probabilities,
            reread=st.sampled_from([0.0, 0.02, 0.1]),
        ),
        st.integers(0, 300), few, few, few, few,
    )  # fmt: skip
    def test_any_faults(  # noqa: PLR0917
        self, seed: int, faults: Faults, messages: int, producers: int, inputs: int, outputs: int, consumers: int
    ) -> None:
        """Dropped, stripped, swapped, doubled and read again, through several pods, partitions and consumers."""
        run = Run(seed, faults, messages=messages, producers=producers, inputs=inputs, outputs=outputs)
        assert run.consumed(consumers).counts(run.marked) == run.known()

    @pytest.mark.parametrize(
        "faults",
        [
            Faults(),
            Faults(drop=0.01),
            Faults(strip=0.01),
            Faults(swap=0.01),
            Faults(double=0.01),
            Faults(reread=0.0005),
        ],
    )
    def test_one_fault_at_a_time(self, faults: Faults) -> None:
        """Over several chunks of each bitmap, only the counts of that fault are above 0."""
        run = Run(1, faults, messages=60_000, producers=2, inputs=1, outputs=3)
        counts = run.consumed(2).counts(run.marked)
        assert counts == run.known()
        found = (counts.lost, counts.untraced, counts.out_of_order, counts.duplicated, counts.redelivered)
        wanted = (faults.drop or faults.strip, faults.strip, faults.swap, faults.double, faults.reread)
        assert [bool(count) for count in found] == [bool(probability) for probability in wanted]

    def test_a_faithful_operator_interleaves(self) -> None:
        """Six input partitions into one output partition: nothing is out of order."""
        run = Run(2, Faults(), messages=5_000, producers=3, inputs=6, outputs=1)
        counts = run.consumed(1).counts(run.marked)
        assert (counts.unique, counts.lost, counts.duplicated, counts.out_of_order) == (5_000, 0, 0, 0)

    def test_a_gap_is_not_out_of_order(self) -> None:
        """What comes after lost messages is in order; what comes late is not, and is not lost."""
        marks = [mark_of(ORIGIN, seq) for seq in (0, 1, 5, 6, 3, 9)]
        counts = recorded(of_one_partition(marks)).counts({ORIGIN: 10})
        assert (counts.unique, counts.lost, counts.out_of_order) == (6, 4, 1)

    def test_order_is_judged_within_one_output_partition(self) -> None:
        """An origin's messages may overtake each other on different output partitions."""
        marks = [mark_of(ORIGIN, seq) for seq in (3, 2, 1, 0)]
        spread = [Record(mark, partition, 0) for partition, mark in enumerate(marks)]
        assert recorded(spread).counts(None).out_of_order == 0
        assert recorded(of_one_partition(marks)).counts(None).out_of_order == 3

    def test_a_crash_that_repeats_thousands(self) -> None:
        """An at-least-once engine that writes 7,478 of 10,000 again: duplicates, and nothing out of order."""
        marks = [mark_of(ORIGIN, seq) for seq in [*range(10_000), *range(10_000 - 7_478, 10_000)]]
        counts = recorded(of_one_partition(marks)).counts({ORIGIN: 10_000})
        assert (counts.unique, counts.lost, counts.duplicated, counts.out_of_order) == (10_000, 0, 7_478, 0)

    def test_a_redelivery_is_no_duplicate(self) -> None:
        """The same output partition and offset again is the consumer's doing, a new offset the operator's."""
        read = of_one_partition([mark_of(ORIGIN, seq) for seq in range(10)])
        again, doubled = read[4:], [Record(mark_of(ORIGIN, 9), 0, 10), Record(mark_of(ORIGIN, 9), 1, 3)]
        counts = recorded(read, again, doubled, [Record(None, 0, 10)]).counts({ORIGIN: 10})
        assert (counts.unique, counts.redelivered, counts.duplicated, counts.untraced) == (10, 7, 2, 0)

    def test_a_restarted_producer_is_another_origin(self) -> None:
        """Its SEQ starts at 0 again without a duplicate."""
        marks = [mark_of(ORIGIN._replace(attempt=attempt), seq) for attempt in (0, 1) for seq in range(5)]
        expected = {ORIGIN._replace(attempt=attempt): 5 for attempt in (0, 1)}
        counts = recorded(of_one_partition(marks)).counts(expected)
        assert (counts.unique, counts.lost, counts.duplicated, counts.out_of_order) == (10, 0, 0, 0)

    def test_what_nobody_marked_hides_no_loss(self) -> None:
        """Another run's messages, and SEQs beyond what was marked, are unexpected; unseen origins count whole."""
        other = ORIGIN._replace(run="yesterday")
        marks = [mark_of(ORIGIN, seq) for seq in (0, 1, 4, 100)] + [mark_of(other, seq) for seq in range(3)]
        counts = recorded(of_one_partition(marks)).counts({ORIGIN: 5, ORIGIN._replace(producer="never"): 7})
        assert (counts.unique, counts.lost, counts.unexpected) == (7, 2 + 7, 1 + 3)

    def test_without_knowing_what_was_marked(self) -> None:
        """Lost and unexpected are not known; an empty ledger has lost all that was marked."""
        counts = recorded(of_one_partition([mark_of(ORIGIN, 0)])).counts(None)
        assert (counts.unique, counts.lost, counts.unexpected) == (1, None, None)
        assert Ledger().counts({ORIGIN: 5}).lost == 5
        assert Ledger().counts({}).lost == 0

    def test_refuses_columns_of_different_lengths(self) -> None:
        """A ValueError, because a message without offset cannot be judged."""
        with pytest.raises(ValueError, match="shorter"):
            Ledger().record_all([None, None], [0, 0], [0])


def _state(tracks: Any) -> LedgerState:
    return LedgerState(tracks=zlib.compress(msgspec.msgpack.encode(tracks)), offsets={}, tally={})


class TestState:
    """Checkpoints and results."""

    def test_full_and_empty(self) -> None:
        """A full chunk and its neighbour's first bit survive; so does a ledger of nothing."""
        ledger = recorded(of_one_partition([mark_of(ORIGIN, seq) for seq in range(CHUNK + 1)]))
        assert through_json(ledger).counts({ORIGIN: CHUNK + 3}).lost == 2
        assert contents(through_json(Ledger())) == contents(Ledger())

    def test_faithful_ledgers_are_small(self) -> None:
        """100,000 messages in order make a checkpoint of under 1 kB."""
        ledger = recorded(of_one_partition([mark_of(ORIGIN, seq) for seq in range(100_000)]))
        assert len(msgspec.json.encode(ledger.state())) < 1_000

    @pytest.mark.parametrize(
        "state",
        [
            LedgerState(tracks=b"", offsets={}, tally={}),
            LedgerState(tracks=b"garbage", offsets={}, tally={}),
            LedgerState(tracks=zlib.compress(b"garbage" * 99)[:-5], offsets={}, tally={}),
            LedgerState(tracks=zlib.compress(b"garbage"), offsets={}, tally={}),
            _state([]),
            _state({"r/p/0/0": {"recorded": "many"}}),
            _state({"r/p/0/0": {"recorded": 1, "highest": {0: 0}, "chunks": {0: b"\x01"}}}),
            _state({"r/p/0/0": {"recorded": 1, "highest": {0: 0}, "chunks": {0: b"\x01" * 1_025}}}),
        ],
    )
    def test_refuses_damaged_ones(self, state: LedgerState) -> None:
        """A ValueError that says so."""
        with pytest.raises(ValueError, match="state is damaged"):
            Ledger.from_state(state)


EVERY_FOURTH_OF_TEN_MILLION = """
import psutil
from perf.trace import Ledger, Origin
origins = [Origin("run-2026-11-23", f"pod-{index // 5}", 1795000000, index % 5) for index in range(20)]
ledger = Ledger()
for start in range(0, 500_000, 400):
    marks = [f"{origin}/{seq}" for origin in origins for seq in range(start, start + 400, 4)]
    ledger.record_all(marks, [0] * 2_000, range(start * 5, start * 5 + 2_000))
counts = ledger.counts(dict.fromkeys(origins, 500_000))
print(counts.unique, counts.lost, counts.duplicated, counts.out_of_order, psutil.Process().memory_info().rss)
"""


class TestBounds:
    """Memory, whatever comes."""

    def test_ten_million_messages(self) -> None:
        """10,000,000 messages, three of four lost, are told exactly by a whole process of less than 100 MB.

        The memory is the same if all of them arrive: a chunk has a bit for each. This is a quarter of the time.
        """
        command = [sys.executable, "-c", EVERY_FOURTH_OF_TEN_MILLION]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        unique, lost, duplicated, out_of_order, rss_bytes = map(int, done.stdout.split())
        assert (unique, lost, duplicated, out_of_order) == (2_500_000, 7_500_000, 0, 0)
        assert rss_bytes < 100_000_000

    def test_many_short_origins(self) -> None:
        """1,000 pods or partitions with a few messages each take at most 3 kB each."""
        read = of_one_partition(
            [mark_of(ORIGIN._replace(partition=index % 1_000), index // 1_000) for index in range(5_000)]
        )
        tracemalloc.start()
        try:
            ledger = recorded(read)
            assert tracemalloc.get_traced_memory()[0] < 3_000_000
        finally:
            tracemalloc.stop()
        assert ledger.counts(None).unique == 5_000

    @pytest.mark.parametrize("seq", [HIGHEST_SEQ + 1, 10**15, 10**18])
    def test_forged_seqs_take_no_memory(self, seq: int) -> None:
        """A SEQ far ahead is no mark of ours."""
        read = of_one_partition([mark_of(ORIGIN, seq + index * CHUNK) for index in range(2_000)])
        tracemalloc.start()
        try:
            counts = recorded(read).counts({ORIGIN: 3})
            assert tracemalloc.get_traced_memory()[1] < 300_000
        finally:
            tracemalloc.stop()
        assert (counts.untraced, counts.unique, counts.lost) == (2_000, 0, 3)

    @pytest.mark.parametrize(
        "forged", [lambda index: mark_of(ORIGIN, index * CHUNK), lambda index: f"r/p{index}/0/0/0"]
    )
    def test_the_room_is_bounded(self, forged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Marks all over the place are kept while there is room; the rest is counted, and the loss is not known."""
        monkeypatch.setattr(trace, "_MOST_CHUNKS", 10)
        ledger = recorded(of_one_partition([forged(index) for index in range(25)]))
        ledger.record_all([forged(3), forged(20), "no mark"], [0] * 3, [100, 101, 102])
        counts = ledger.counts({ORIGIN: 3})
        assert (counts.unique, counts.unkept, counts.duplicated, counts.untraced) == (10, 16, 1, 1)
        assert (counts.lost, counts.unexpected) == (None, None)
        again = through_json(ledger)
        again.record_all([forged(21)], [0], [103])
        assert (again.counts(None).unique, again.counts(None).unkept) == (10, 17)
        more = recorded(of_one_partition([f"r/other{index}/0/0/0" for index in range(5)]))
        for full in (merged(ledger), merged(ledger, more)):
            assert full.counts({}).lost is None
            full.record_all([forged(21)], [0], [103])
            assert full.counts(None).unkept == 17
