"""Payload bytes → `timestamp_start`, and with the record's Kafka timestamp the delta. Definitions: docs/measurement.md.

The fast path decodes only the needed field of a whole batch. What it refuses is looked at again message by message,
so that every message that was read ends as exactly one delta or one `Rejection`, and none raises.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import reduce
from operator import attrgetter, sub
from typing import Any

import msgspec

DAY_MS = 86_400_000
YEAR_2000_MS = 946_684_800_000
_NUMBER = re.compile(r"\s*-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\s*", re.ASCII)
_MOST_DIGITS = 400
_MISSING = object()


class Rejection(enum.Enum):
    """Why a message that was read gave no delta. The value is the counter's name."""

    NO_TIMESTAMP_START = "no_timestamp_start"
    INVALID_TIMESTAMP_START = "invalid_timestamp_start"
    IMPLAUSIBLE_TIMESTAMP_START = "implausible_timestamp_start"
    NOT_JSON = "not_json"
    EMPTY = "empty"
    NO_KAFKA_TIMESTAMP = "no_kafka_timestamp"


class UnusualBatch(Exception):
    """A batch holds a message that the fast path cannot judge; nothing was counted."""


class Reader:
    """Reads the start stamp, whole milliseconds since 1970, at `path` (attribute names, outermost first)."""

    def __init__(self, path: Sequence[str]) -> None:
        self._path = tuple(path)
        # None, a tombstone, makes it raise TypeError
        self._decode: Callable[[bytes | None], Any] = msgspec.json.Decoder(_nested_struct(self._path)).decode  # type: ignore[assignment]
        self._get = attrgetter(".".join("inner" for _ in self._path))

    def deltas(self, values: Sequence[bytes | None], stamps_ms: Sequence[int]) -> list[int]:
        """`stamp − timestamp_start` of each message, in ms. Raises UnusualBatch unless all of them are ordinary.

        Ordinary are plausible stamps that are not later than the record's own, which a record without a Kafka
        timestamp (negative) cannot have.
        """
        try:
            starts_ms: list[int] = list(map(self._get, map(self._decode, values)))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
            raise UnusualBatch from None
        deltas_ms = list(map(sub, stamps_ms, starts_ms))
        if min(starts_ms) < YEAR_2000_MS or min(deltas_ms) < 0:
            raise UnusualBatch
        return deltas_ms

    def delta(self, value: bytes | None, stamp_ms: int) -> int | Rejection:
        """The delta of one message in ms, or why there is none. `stamp_ms` is negative where Kafka gave none."""
        if stamp_ms < 0:
            return Rejection.NO_KAFKA_TIMESTAMP
        start_ms = self.start_ms(value)
        if isinstance(start_ms, Rejection):
            return start_ms
        return stamp_ms - start_ms if is_plausible(start_ms, stamp_ms) else Rejection.IMPLAUSIBLE_TIMESTAMP_START

    def start_ms(self, value: bytes | None) -> int | Rejection:
        """`timestamp_start` in ms as the message has it, plausible or not."""
        if not value:
            return Rejection.EMPTY
        try:
            return int(self._get(self._decode(value)))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._start_ms_leniently(value)

    def hint(self, value: bytes | None, stamp_ms: int) -> str:
        """What a person should know of a message that gave no delta; may be empty."""
        start = self.start_ms(value)
        if isinstance(start, Rejection):
            return ""
        seconds = " looks like seconds; milliseconds are expected" if is_plausible(start * 1000, stamp_ms) else ""
        return f": {'.'.join(self._path)}={start}{seconds}"

    def _start_ms_leniently(self, value: bytes) -> int | Rejection:
        try:
            found = json.loads(value.decode("utf-8"), parse_int=_whole_number)
        except (ValueError, RecursionError):
            return Rejection.NOT_JSON
        if not isinstance(found, dict):
            return Rejection.NOT_JSON
        found = reduce(_member, self._path, found)
        return Rejection.NO_TIMESTAMP_START if found is _MISSING else _as_ms(found)


def is_plausible(start_ms: int, stamp_ms: int) -> bool:
    """From the year 2000 on, and at most a day after the record's own stamp."""
    return YEAR_2000_MS <= start_ms <= stamp_ms + DAY_MS


def _nested_struct(path: Sequence[str]) -> Any:
    inner: Any = int
    for name in reversed(path):
        inner = msgspec.defstruct("Level", [("inner", inner, msgspec.field(name=name))], gc=False)
    return inner


def _member(document: Any, name: str) -> Any:
    return document.get(name, _MISSING) if isinstance(document, dict) else _MISSING


def _whole_number(digits: str) -> int | float:
    """An int, or infinity where Python refuses to make one (over 4,300 digits)."""
    return int(digits) if len(digits) < _MOST_DIGITS else math.inf


def _as_ms(found: Any) -> int | Rejection:
    """Integers, finite floats and numeric text, rounded to whole ms, as Kafka's stamps are."""
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        found = float(found) if re.search("[.eE]", found) else _whole_number(found.strip())
    if isinstance(found, float) and math.isfinite(found):
        return round(found)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return Rejection.INVALID_TIMESTAMP_START
