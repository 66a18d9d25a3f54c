"""A message's payload (or headers) → `timestamp_start`, and with the record's Kafka timestamp the delta.

Definitions: docs/measurement.md. The fast path decodes only the needed field of a whole batch. What it refuses is
looked at again message by message, so that every message that was read ends as exactly one delta or one `Rejection`,
and none raises.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import reduce
from operator import attrgetter, sub
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from .settings import Settings

DAY_MS = 86_400_000
YEAR_2000_MS = 946_684_800_000
_NUMBER = re.compile(r"\s*-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\s*", re.ASCII)
_POSITION = re.compile(r"[0-9]{1,9}", re.ASCII)
_MOST_DIGITS = 400
_BINARY_BYTES = 8
_SHOWN_CHARACTERS = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MISSING = object()
#: What decoding and converting raise for a message that is not ordinary.
_UNUSUAL = (msgspec.MsgspecError, TypeError, ValueError, IndexError, ArithmeticError, RecursionError)


class Rejection(enum.Enum):
    """Why a message that was read gave no delta. The value is the counter's name."""

    NO_TIMESTAMP_START = "no_timestamp_start"
    INVALID_TIMESTAMP_START = "invalid_timestamp_start"
    IMPLAUSIBLE_TIMESTAMP_START = "implausible_timestamp_start"
    NOT_JSON = "not_json"
    EMPTY = "empty"
    NO_KAFKA_TIMESTAMP = "no_kafka_timestamp"
    WARMUP = "warmup"


class UnusualBatch(Exception):
    """A batch holds a message that the fast path cannot judge; nothing was counted."""


class Unit(NamedTuple):
    """How start stamps are written: the JSON type to decode, and that type → ms, rounded because Kafka's are whole."""

    name: str
    decoded: Any
    to_ms: Callable[[Any], int]


#: The units of --timestamp-unit. A further one is an entry here.
UNITS: Mapping[str, Unit] = {
    "ms": Unit("milliseconds", int, round),
    "s": Unit("seconds", int | float, lambda value: round(value * 1000)),
    "us": Unit("microseconds", int | float, lambda value: int((value + 500) // 1_000)),
    "ns": Unit("nanoseconds", int | float, lambda value: int((value + 500_000) // 1_000_000)),
    "iso8601": Unit(
        "ISO 8601", datetime, lambda value: (value - _EPOCH + timedelta(microseconds=500)) // timedelta(milliseconds=1)
    ),
}


class Reader:
    """Reads start stamps in `unit` from the `source` of a message, one of confluent_kafka.Message's methods."""

    source: str

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def starts_ms(self, sources: Sequence[Any]) -> list[int]:
        """The start stamps of ordinary messages; raises one of `_UNUSUAL` when there is another."""
        raise NotImplementedError

    def start_ms(self, source: Any) -> int | Rejection:
        """A message's start stamp in ms, plausible or not."""
        found = self.found(source)
        return found if isinstance(found, Rejection) else _in_unit(found, self._unit)

    def found(self, source: Any) -> Any:
        """What stands where the start stamp should be, or the Rejection when nothing does."""
        raise NotImplementedError

    def deltas(self, sources: Sequence[Any], stamps_ms: Sequence[int]) -> list[int]:
        """`stamp − timestamp_start` of each message, in ms. Raises UnusualBatch unless all of them are ordinary.

        Ordinary are plausible stamps that are not later than the record's own, which a record without a Kafka
        timestamp (negative) cannot have.
        """
        try:
            starts_ms = self.starts_ms(sources)
        except _UNUSUAL:
            raise UnusualBatch from None
        deltas_ms = list(map(sub, stamps_ms, starts_ms))
        if min(starts_ms) < YEAR_2000_MS or min(deltas_ms) < 0:
            raise UnusualBatch
        return deltas_ms

    def delta(self, source: Any, stamp_ms: int) -> int | Rejection:
        """The delta of one message in ms, or why there is none. `stamp_ms` is negative where Kafka gave none."""
        if stamp_ms < 0:
            return Rejection.NO_KAFKA_TIMESTAMP
        start_ms = self.start_ms(source)
        if isinstance(start_ms, Rejection):
            return start_ms
        return stamp_ms - start_ms if is_plausible(start_ms, stamp_ms) else Rejection.IMPLAUSIBLE_TIMESTAMP_START

    def hint(self, source: Any, stamp_ms: int) -> str:
        """What a person should know of a message that gave no delta: its stamp, and the unit that it looks like."""
        found = self.found(source)
        if isinstance(found, Rejection):
            return ""
        for unit in UNITS:
            start_ms = _in_unit(found, unit)
            if unit != self._unit and isinstance(start_ms, int) and is_plausible(start_ms, stamp_ms):
                return f": {_shown(found)} looks like {UNITS[unit].name}: --timestamp-unit {unit}"
        return f": {_shown(found)}"


class PayloadReader(Reader):
    """Reads the start stamp of a JSON payload at `path`: attribute names and array positions, outermost first."""

    source = "value"

    def __init__(self, path: Sequence[str], unit: str = "ms") -> None:
        super().__init__(unit)
        self._path = tuple(path)
        self._extract = _extractor(self._path, UNITS[unit].decoded)

    def starts_ms(self, sources: Sequence[bytes | None]) -> list[int]:
        """See Reader."""
        starts = self._extract(sources)
        return starts if self._unit == "ms" else list(map(UNITS[self._unit].to_ms, starts))

    def start_ms(self, source: bytes | None) -> int | Rejection:
        """See Reader. What the fast path takes counts, whatever stands elsewhere in the payload."""
        try:
            return self.starts_ms([source])[0]
        except _UNUSUAL:
            return super().start_ms(source)

    def found(self, source: bytes | None) -> Any:
        """See Reader."""
        if not source:
            return Rejection.EMPTY
        document = _document(source)
        if not isinstance(document, dict):
            return Rejection.NOT_JSON
        found = reduce(_member, self._path, document)
        return Rejection.NO_TIMESTAMP_START if found is _MISSING else found


class HeaderReader(Reader):
    """Reads the start stamp of a message header: text, or 8 bytes big-endian. The last of a name counts."""

    source = "headers"

    def __init__(self, name: str, unit: str = "ms") -> None:
        super().__init__(unit)
        self._name = name

    def starts_ms(self, sources: Sequence[Any]) -> list[int]:
        """See Reader."""
        starts = [self.start_ms(source) for source in sources]
        if any(isinstance(start, Rejection) for start in starts):
            raise ValueError
        return starts  # type: ignore[return-value]

    def found(self, source: Iterable[tuple[str, bytes | str | None]] | None) -> Any:
        """See Reader."""
        values = [value for name, value in source or () if name == self._name]
        if not values:
            return Rejection.NO_TIMESTAMP_START
        value = values[-1].encode() if isinstance(values[-1], str) else values[-1]
        if value is None:
            return None
        text = value.decode("utf-8", "replace")
        is_binary = len(value) == _BINARY_BYTES and not _NUMBER.fullmatch(text)
        return int.from_bytes(value, "big", signed=True) if is_binary else text


def reader_for(options: Settings) -> Reader:
    """The reader that the user asked for."""
    if options.timestamp_header is not None:
        return HeaderReader(options.timestamp_header, options.timestamp_unit)
    return PayloadReader(options.timestamp_field, options.timestamp_unit)


class MarkReader:
    """Reads the text of a top-level attribute, such as a trace mark; None where there is none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._extract = _extractor((name,), str)

    def texts(self, values: Sequence[bytes | None]) -> list[str | None]:
        """The attribute of each payload."""
        try:
            return self._extract(values)
        except _UNUSUAL:
            return [self._text(value) for value in values]

    def _text(self, value: bytes | None) -> str | None:
        try:
            return str(self._extract([value])[0])
        except _UNUSUAL:
            document = _document(value or b"")
            found = document.get(self._name) if isinstance(document, dict) else None
            return found if isinstance(found, str) else None


def is_plausible(start_ms: int, stamp_ms: int) -> bool:
    """From the year 2000 on, and at most a day after the record's own stamp."""
    return YEAR_2000_MS <= start_ms <= stamp_ms + DAY_MS


def _extractor(path: Sequence[str], leaf: Any) -> Callable[[Sequence[bytes | None]], list[Any]]:
    """Payloads → the values of type `leaf` at `path`; digits behind the first name are a position in an array."""
    position = next((number for number, name in enumerate(path) if number and _POSITION.fullmatch(name)), None)
    if position is not None:
        outer = _extractor(path[:position], list[msgspec.Raw])
        inner = _extractor(path[position + 1 :], leaf)
        index = int(path[position])
        return lambda values: inner([elements[index] for elements in outer(values)])
    if not path:
        decode_leaf = msgspec.json.Decoder(leaf).decode
        return lambda values: list(map(decode_leaf, values))  # type: ignore[arg-type]
    struct = leaf
    for name in reversed(path):
        struct = msgspec.defstruct("Level", [("inner", struct, msgspec.field(name=name))], gc=False)
    decode, get = msgspec.json.Decoder(struct).decode, attrgetter(".".join("inner" for _ in path))
    return lambda values: list(map(get, map(decode, values)))  # type: ignore[arg-type]  # None raises TypeError


def _document(value: bytes) -> Any:
    """The whole JSON document as Python has it (the last of two equal keys counts), or _MISSING."""
    try:
        return json.loads(value.decode("utf-8"), parse_int=_whole_number)
    except (ValueError, RecursionError):
        return _MISSING


def _member(document: Any, name: str) -> Any:
    if isinstance(document, list) and _POSITION.fullmatch(name) and int(name) < len(document):
        return document[int(name)]
    return document.get(name, _MISSING) if isinstance(document, dict) else _MISSING


def _whole_number(digits: str) -> int | float:
    """An int, or infinity where Python refuses to make one (over 4,300 digits)."""
    return int(digits) if len(digits) < _MOST_DIGITS else math.inf


def _in_unit(found: Any, unit: str) -> int | Rejection:
    """What was found as ms: a number (also as text) in `unit`, or ISO 8601 text with an offset from UTC."""
    try:
        if unit == "iso8601":
            return UNITS[unit].to_ms(msgspec.convert(found, datetime))
        if isinstance(found, str) and _NUMBER.fullmatch(found):
            found = float(found) if re.search("[.eE]", found) else _whole_number(found.strip())
        if isinstance(found, int | float) and not isinstance(found, bool):
            return UNITS[unit].to_ms(found)
    except _UNUSUAL:
        pass
    return Rejection.INVALID_TIMESTAMP_START


def _shown(found: Any) -> str:
    try:
        text = json.dumps(found, ensure_ascii=False)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
