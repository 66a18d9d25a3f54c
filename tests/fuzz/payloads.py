"""Bytes → a batch of messages → deltas: compared with the definition, on exact decimals.

The first byte chooses the reader, the second the record's stamp; the messages come behind, with 0x1e between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from functools import reduce
from itertools import product
from typing import Any

from perf.payload import DAY_MS, UNITS, YEAR_2000_MS, HeaderReader, MarkReader, PayloadReader, Reader, Rejection
from perf.payload import UnusualBatch as Unusual
from perf.trace import Ledger

STAMP_MS = 1_795_000_000_000
STAMPS_MS = (STAMP_MS, STAMP_MS - 1_000, STAMP_MS + DAY_MS, 0, -1, 2**63 - 1)
PATHS = (("t",), ("m", "t"), ("m", "0", "t"), ("t", "1"), ("0",), ("é x",))
HEADER = "t"
READERS: Sequence[tuple[Reader, Sequence[str], str]] = [
    *((PayloadReader(path, unit), path, unit) for path, unit in product(PATHS, UNITS)),
    *((HeaderReader(HEADER, unit), (), unit) for unit in UNITS),
]
SEEDS = [
    bytes([number, 0]) + text
    for number in range(len(READERS))
    for text in (
        b'{"a":[1,null],"t":1794999999000,"m":{"t":"1794999999000"}}\x1e{"t":1.795e9}\x1e'
        b'{"t":"2026-11-22 23:45:18.83Z"}',
        b'{"m":[{"t":1794999999000000}],"t":[0,1794999999],"0":1794999999000000000}\x1e'
        b'{"\\u00e9 x":-0.5E+3}\x1e\x1e{"t":',
        b"=1794999999000\x1e=2026-11-22T23:59:14.527+01:00\x1e=\0\0\x01\xa1\xec\x49\x3d\x18\x1e!\x1e?other",
    )
]
WORDS = [
    '"t":', '"m":', '"0":', "1794999999000", "1794999999", "1.794999999e9", '"2026-11-22T23:59:14.527Z"', "null",
    "true", "NaN", "1e400", "-0", '"', "{", "}", "[", "]", ",", "\\ud800", "\\u0074", "\x1e", '"t":{"t":',
    "9223372036854775808",
]  # fmt: skip
_SCALE = {"ms": Decimal(1), "s": Decimal(1000), "us": Decimal("1e-3"), "ns": Decimal("1e-6")}
_ROUNDING = Decimal("0.501")  # half a millisecond, and what a double cannot hold …
_OF_DOUBLES = Decimal(2) ** -52  # … of times in millions of years
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})"
)
_HUGE = Decimal("1e1000")
_ABSENT = object()


def check(data: bytes) -> None:
    """Raises for a message that is not counted once and as defined."""
    if len(data) < 2:
        return
    (reader, path, unit), stamp_ms = READERS[data[0] % len(READERS)], STAMPS_MS[data[1] % len(STAMPS_MS)]
    parts = data[2:].split(b"\x1e")
    is_header = isinstance(reader, HeaderReader)
    sources: list[Any] = (
        [_headers(parts)] if is_header else [part or (None if len(parts) % 2 else b"") for part in parts]
    )
    singly = [reader.delta(source, stamp_ms) for source in sources]
    for source, found in zip(sources, singly, strict=True):
        assert type(found) in (int, Rejection)
        assert isinstance(reader.hint(source, stamp_ms), str)
        place = _in_headers(source) if is_header else _in_payload(source, path)
        _compare(found, place, source, unit=unit, stamp_ms=stamp_ms)
    try:
        together = reader.deltas(sources, [stamp_ms] * len(sources))
    except Unusual:
        pass
    else:
        assert together == singly, "the fast path differs"
    if not is_header:
        _check_marks(sources)


def _compare(found: int | Rejection, place: Any, source: Any, *, unit: str, stamp_ms: int) -> None:
    """What was found against what stands at the place: a value, or the Rejection that is right."""
    if stamp_ms < 0:
        assert found is Rejection.NO_KAFKA_TIMESTAMP
        return
    if place is Rejection.NOT_JSON and isinstance(source, bytes) and not _is_utf8(source):
        return  # measured where the field itself is in order
    exact_ms = place if isinstance(place, Rejection) else _exact_ms(place, unit)
    if isinstance(exact_ms, Rejection):
        assert found is exact_ms, f"{found}, not {exact_ms}"
        return
    earliest, latest = YEAR_2000_MS, stamp_ms + DAY_MS
    if isinstance(found, int):
        assert abs(stamp_ms - found - exact_ms) <= _ROUNDING + exact_ms * _OF_DOUBLES, (
            f"start {stamp_ms - found}, not {exact_ms}"
        )
        assert earliest <= stamp_ms - found <= latest
    elif found is Rejection.INVALID_TIMESTAMP_START:
        assert abs(exact_ms) > 10**200, "a number is refused"  # beyond what a double holds
    else:
        assert found is Rejection.IMPLAUSIBLE_TIMESTAMP_START
        assert not earliest + 1 <= exact_ms <= latest - 1, "a plausible stamp is refused"


def _exact_ms(value: Any, unit: str) -> Decimal | Rejection:
    if unit == "iso8601":
        return _iso_ms(value) if isinstance(value, str) else Rejection.INVALID_TIMESTAMP_START
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip(" \t\n\r\f\v")):
        value = _decimal(value.strip(" \t\n\r\f\v"))
    if isinstance(value, Decimal):
        return value * _SCALE[unit]
    return Rejection.INVALID_TIMESTAMP_START


def _decimal(text: str) -> Decimal:
    """Exact as far as a stamp could be meant: beyond 1,000 digits before or behind the point it does not matter."""
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent of more digits than a decimal has
        return Decimal(0) if "e-" in text.lower() else _HUGE
    return value if abs(value.adjusted()) < 1_000 else Decimal(0) if value.adjusted() < 0 else _HUGE


def _iso_ms(text: str) -> Decimal | Rejection:
    if not _RFC_3339.fullmatch(text):
        return Rejection.INVALID_TIMESTAMP_START
    try:
        moment = datetime.fromisoformat(text.upper())
        since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    except (ValueError, TypeError, OverflowError):
        return Rejection.INVALID_TIMESTAMP_START
    return Decimal(since.days * 86_400_000 + since.seconds * 1000) + Decimal(since.microseconds) / 1000


def _in_payload(value: bytes | None, path: Sequence[str]) -> Any:
    if not value:
        return Rejection.EMPTY
    try:
        document = json.loads(value.decode(), parse_int=_decimal, parse_float=_decimal)
    except ValueError:
        return Rejection.NOT_JSON
    if not isinstance(document, dict):
        return Rejection.NOT_JSON
    found = reduce(_member, path, document)
    return Rejection.NO_TIMESTAMP_START if found is _ABSENT else found


def _member(document: Any, name: str) -> Any:
    if isinstance(document, list) and name.isascii() and name.isdigit():
        return document[int(name)] if int(name) < len(document) else _ABSENT
    return document.get(name, _ABSENT) if isinstance(document, dict) else _ABSENT


def _headers(parts: Sequence[bytes]) -> list[tuple[str, bytes | str | None]]:
    """A first character "=" makes bytes of the name that is read, "!" none, anything else another name."""
    values: dict[bytes, Any] = {b"=": lambda part: part, b"!": lambda _: None}
    return [
        (HEADER, values[part[:1]](part[1:])) if part[:1] in values else (part.decode("latin-1"), part) for part in parts
    ]


def _in_headers(headers: Sequence[tuple[str, bytes | str | None]]) -> Any:
    values = [value for name, value in headers if name == HEADER]
    if not values:
        return Rejection.NO_TIMESTAMP_START
    value = values[-1]
    if not isinstance(value, bytes):
        return value
    text = value.decode("utf-8", "replace")
    if len(value) == 8 and not _NUMBER.fullmatch(text.strip(" \t\n\r\f\v")):
        return Decimal(int.from_bytes(value, "big", signed=True))
    return text


def _check_marks(values: Sequence[bytes | None]) -> None:
    """MarkReader gives each message's text or None, alone as in a batch, and a ledger takes all of them."""
    reader = MarkReader("t")
    texts = reader.texts(values)
    assert texts == [reader.texts([value])[0] for value in values]
    for value, text in zip(values, texts, strict=True):
        if value and _is_utf8(value):
            found = _in_payload(value, ("t",))
            assert text == (found if isinstance(found, str) else None)
    ledger = Ledger()
    ledger.record_all(texts, [0] * len(texts), range(len(texts)))
    counts = ledger.counts(None)
    assert counts.unique + counts.duplicated + counts.untraced == len(texts)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
