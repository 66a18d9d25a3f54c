"""Marks in messages, and the ledger that tells from them what was lost, doubled or put out of order.

A mark is `RUN/PRODUCER/ATTEMPT/PARTITION/SEQ`. SEQ counts 0, 1, 2, … per origin, which is what stands before it.
The ledger keeps one bit per message. Definitions: docs/measurement.md.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

_SEQ_BITS = 40
_LONGEST_MARK = 1_000  # bytes: two names in UTF-8 and three numbers
_MOST_PREFIXES = 2**14
_NAME = re.compile(r"""[^/"'\\\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,100}""")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")
_NO_MARK = ("", 0)
_BLANKS = b" \t\r\n"
_CLOSING_BRACE = ord("}")
_CHUNK_BYTES = 1_024
_CHUNK_BITS = 8 * _CHUNK_BYTES
# 1.07 billion messages in 160 MB; made-up marks, each of which may ask for a chunk, shall not take more
_MOST_CHUNKS = 2**17

_Chunk = Annotated[bytearray, msgspec.Meta(min_length=_CHUNK_BYTES, max_length=_CHUNK_BYTES)]

#: A mark as a consumer finds it: JSON text, the bytes of a key or header, or none.
Mark = str | bytes | None


class Origin(NamedTuple):
    """Where one sequence of messages comes from. `partition` is the input partition that the producer chose."""

    run: str
    producer: str
    attempt: int
    partition: int

    def __str__(self) -> str:
        """The mark without its SEQ, which `origin_of` reads again."""
        return f"{self.run}/{self.producer}/{self.attempt}/{self.partition}"


class Marker:
    """Makes the marks of one producer process. No two processes may share run, producer and attempt."""

    def __init__(self, *, run: str, producer: str, attempt: int) -> None:
        """Raises ValueError for what cannot stand in a mark."""
        for what, name in (("run id", run), ("producer", producer)):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot be the {what} in a mark: 1 to 100 characters are needed, and none of them a "
                    "slash, a quote, a backslash or a control character"
                )
        if not _NUMBER.fullmatch(str(attempt)):
            raise ValueError(f"{attempt} cannot be the attempt in a mark: it is 0 or more, of at most 20 digits")
        self._process = (run, producer, attempt)
        self._prefix = f"{run}/{producer}/{attempt}".encode()
        self._counts: dict[int, int] = {}

    def mark(self, partition: int) -> bytes:
        """The next mark for the input partition `partition`."""
        seq = self._counts.get(partition, 0)
        self._counts[partition] = seq + 1
        return b"%b/%d/%d" % (self._prefix, partition, seq)

    def counts(self) -> dict[Origin, int]:
        """How many marks were made."""
        return {Origin(*self._process, partition): count for partition, count in self._counts.items()}


def partition_for(key: bytes | None, turn: int, partitions: int) -> int:
    """The partition that librdkafka's default (`consistent_random`) chooses by key: CRC32 modulo `partitions`.

    Where that one draws lots, without a key and for an empty one, it goes by `turn` (0, 1, 2, …).
    """
    return (zlib.crc32(key) if key else turn) % partitions


def with_field(value: bytes, name: str, mark: bytes) -> bytes:
    """The JSON object `value` with `mark` as its last field, every other byte as it was.

    Raises ValueError where `value`, which must be valid JSON, is no object.
    """
    end = len(value.rstrip(_BLANKS)) - 1
    inside = value[:end].strip(_BLANKS)
    if not inside.startswith(b"{") or value[end] != _CLOSING_BRACE:
        raise ValueError("only a JSON object can take a field")
    comma = b"" if inside == b"{" else b","
    return b"".join((value[:end], comma, _json(name), b':"', mark, b'"', value[end:]))


def parse(mark: Mark) -> tuple[Origin, int] | None:
    """The origin and SEQ of a mark; None, and never an exception, for anything that no Marker made."""
    prefix, seq = _split(mark)
    origin = origin_of(prefix)
    return None if origin is None else (origin, seq)


@lru_cache(_MOST_PREFIXES)
def origin_of(prefix: str) -> Origin | None:
    """The origin whose text is `prefix`; None for any other text."""
    parts = prefix.split("/")
    if len(parts) == 4 and all(map(_NAME.fullmatch, parts[:2])) and all(map(_NUMBER.fullmatch, parts[2:])):
        return Origin(parts[0], parts[1], int(parts[2]), int(parts[3]))
    return None


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger for a file. `tracks` is MessagePack, compressed by zlib (base64 in JSON)."""

    tracks: bytes
    offsets: dict[int, int]
    tally: dict[str, int]


class LedgerCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the marked messages; `unique + lost + unacknowledged - unexpected` is how many were marked.

    Each record read is one of unique, duplicated, redelivered, untraced (no mark of ours) and unkept (no room for its
    mark); those out of order are unique, too. `unexpected` ones are unique, but no producer told of them.
    `unacknowledged` ones, which Kafka may never have had, are not called lost: they failed or got no answer, and were
    not found. These two and `lost` are None where it is not known what was marked, or if there are unkept ones.
    """

    unique: int
    lost: int | None
    unacknowledged: int | None
    duplicated: int
    out_of_order: int
    redelivered: int
    untraced: int
    unkept: int
    unexpected: int | None


class _Track(msgspec.Struct, gc=False):
    """One origin's records, duplicates counted, the highest SEQ of each output partition, and a bit for each SEQ."""

    recorded: int = 0
    highest: dict[int, int] = {}
    chunks: dict[int, _Chunk] = {}

    def unique(self, below: int = 2**_SEQ_BITS) -> int:
        """How many different SEQs under `below` were recorded."""
        total = 0
        for number, chunk in self.chunks.items():
            wanted = min(max(below - number * _CHUNK_BITS, 0), _CHUNK_BITS)
            total += (int.from_bytes(chunk, "little") & ((1 << wanted) - 1)).bit_count()
        return total


class Ledger:
    """Which marked messages were read.

    A record is redelivered, and nothing else, if its offset is not above the highest one recorded of its output
    partition. It is duplicated if its message was recorded before, else unique; and out of order if a higher SEQ of
    its origin was recorded of the same output partition.
    """

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._offsets: dict[int, int] = {}
        self._tally: Counter[str] = Counter()
        self._room = _MOST_CHUNKS

    def record_all(self, marks: Iterable[Mark], partitions: Iterable[int], offsets: Iterable[int]) -> None:
        """Note records in the order read: the mark, the output partition and the offset of each."""
        tracks, highest_offsets, tally = self._tracks, self._offsets, self._tally
        for mark, partition, offset in zip(marks, partitions, offsets, strict=True):
            if offset <= highest_offsets.get(partition, -1):
                tally["redelivered"] += 1
                continue
            highest_offsets[partition] = offset
            prefix, seq = _split(mark)
            track = tracks.get(prefix)
            if track is None or (chunk := track.chunks.get(seq // _CHUNK_BITS)) is None:
                if (opened := self._open(prefix, seq)) is None:
                    continue
                track, chunk = opened
            track.recorded += 1
            highest = track.highest.get(partition, -1)
            at, bit = seq % _CHUNK_BITS >> 3, 1 << (seq & 7)
            if not chunk[at] & bit:
                chunk[at] |= bit
                if seq < highest:
                    tally["out_of_order"] += 1
            if seq > highest:
                track.highest[partition] = seq

    def counts(self, expected: Mapping[Origin, int] | None, unacknowledged: Ledger | None = None) -> LedgerCounts:
        """What became of the messages. `expected`: how many were marked, the `Marker.counts` of all producers.

        `unacknowledged`: what the producers marked, and know not to be in Kafka, or do not know to be there.
        """
        tally, tracks = self._tally, self._tracks.values()
        unique = sum(track.unique() for track in tracks)
        lost = unexpected = open_ = None
        if expected is not None and not tally["unkept"]:
            marked = {str(origin): count for origin, count in expected.items()}
            found, accounted = self._unique_of(marked), self._unique_of(marked, unacknowledged)
            lost, unexpected, open_ = sum(marked.values()) - accounted, unique - found, accounted - found
        return LedgerCounts(
            unique=unique,
            lost=lost,
            unacknowledged=open_,
            duplicated=sum(track.recorded for track in tracks) - unique,
            out_of_order=tally["out_of_order"],
            redelivered=tally["redelivered"],
            untraced=tally["untraced"],
            unkept=tally["unkept"],
            unexpected=unexpected,
        )

    def _unique_of(self, marked: Mapping[str, int], further: Ledger | None = None) -> int:
        """How many of the marked messages this ledger has, or `further` has."""
        both = self
        if further is not None:
            both = Ledger()
            both.merge(self)
            both.merge(further)
        return sum(track.unique(marked.get(prefix, 0)) for prefix, track in both._tracks.items())

    def merge(self, other: Ledger) -> None:
        """Add what `other` recorded; it stays as it is. Merging is associative and commutative.

        Exact where each output record was recorded once, by one ledger: a message in both is a duplicate. What is out
        of order is judged within each ledger and adds up.
        """
        for prefix, theirs in other._tracks.items():
            track = self._tracks.setdefault(prefix, _Track())
            track.recorded += theirs.recorded
            _raise_to(track.highest, theirs.highest)
            for number, chunk in theirs.chunks.items():
                track.chunks[number] = _either(chunk, track.chunks.get(number, b""))
        _raise_to(self._offsets, other._offsets)
        self._tally.update(other._tally)
        self._measure_room()

    def state(self) -> LedgerState:
        """All of it, for a checkpoint or a result: the ledger that is made from it goes on where this one is."""
        tracks = zlib.compress(
            msgspec.msgpack.encode(dict(sorted(self._tracks.items()))), 1
        )  # higher levels gain 1 % for six times the time
        return LedgerState(tracks=tracks, offsets=dict(self._offsets), tally=dict(self._tally))

    @classmethod
    def from_state(cls, state: LedgerState) -> Ledger:
        """The ledger that `state` was made of. Raises ValueError for a damaged one."""
        ledger = cls()
        try:
            ledger._tracks = msgspec.msgpack.decode(zlib.decompress(state.tracks), type=dict[str, _Track])
        except (zlib.error, msgspec.MsgspecError) as error:
            raise ValueError(f"the ledger's state is damaged: {error}") from error
        ledger._offsets, ledger._tally = dict(state.offsets), Counter(state.tally)
        ledger._measure_room()
        return ledger

    def _open(self, prefix: str, seq: int) -> tuple[_Track, bytearray] | None:
        """The new chunk that `seq` needs; or None, and the record is counted as what it is."""
        if origin_of(prefix) is None or self._room <= 0:
            self._tally["unkept" if origin_of(prefix) else "untraced"] += 1
            return None
        self._room -= 1
        track = self._tracks.setdefault(prefix, _Track())
        chunk = track.chunks[seq // _CHUNK_BITS] = bytearray(_CHUNK_BYTES)
        return track, chunk

    def _measure_room(self) -> None:
        self._room = _MOST_CHUNKS - sum(len(track.chunks) for track in self._tracks.values())


def _split(mark: Mark) -> tuple[str, int]:
    """What stands before the last slash, and the SEQ behind it; if that cannot be ours, what no origin has."""
    try:
        if not mark or len(mark) > _LONGEST_MARK:
            return _NO_MARK
        prefix, _, digits = (mark.decode() if isinstance(mark, bytes) else mark).rpartition("/")
        seq = int(digits)
    except (AttributeError, TypeError, ValueError):
        return _NO_MARK
    # the shift finds negative ones, too; int() also takes "+1", "007", "1_0" and the digits of any script
    return _NO_MARK if seq >> _SEQ_BITS or str(seq) != digits else (prefix, seq)


@lru_cache(16)
def _json(name: str) -> bytes:
    return msgspec.json.encode(name)


def _either(one: bytes | bytearray, other: bytes | bytearray) -> bytearray:
    bits = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return bytearray(bits.to_bytes(_CHUNK_BYTES, "little"))


def _raise_to(highest: dict[int, int], others: Mapping[int, int]) -> None:
    for partition, value in others.items():
        highest[partition] = max(value, highest.get(partition, value))
