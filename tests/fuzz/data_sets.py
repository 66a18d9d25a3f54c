"""Bytes → a data file → messages: compared with the standard library's JSON, and with the file's own bytes.

The first byte chooses the key attribute, and whether the file counts as a large one.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from perf import dataset
from perf.dataset import DataError, DataSet

KEYS: Sequence[tuple[str, ...]] = ((), ("k",), ("o", "k"))
SEEDS = [
    bytes([number]) + text
    for number in range(2 * len(KEYS))
    for text in (
        b'[{"k":1.10, "o":{"k":"a"}},\n {"k":"\\u00e9", "o":{"k":[1, 2]}}]',
        b'{"k":1.10, "o":{"k":"a"}}\r\n\n {"k":"\xc3\xa9","o":{"k":{"a": 1e400}}}\n',
        b'\xef\xbb\xbf{"k":true,\n"o":{"k":-0}}',
        b'{"k":1}\n{"k" 2}\n',
        b"[]",
    )
]
WORDS = [
    '{"k":', '"o":{"k":', "}\n{", "\r\n", "null", "true", "1.10", "1e400", "-0", '"', "\\u00e9", "\\ud800", "NaN", "[",
    "]", ",", "\xef\xbb\xbf", "}", " ", "\t",
]  # fmt: skip
_BLANKS = b" \t\r\n"
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[ \t\r\n]+|[^" \t\r\n]+', re.DOTALL)
_PATH = Path(tempfile.gettempdir()) / f"fuzz-data-{os.getpid()}.json"
_IN_MEMORY_BYTES = dataset.IN_MEMORY_BYTES


class _Refused(Exception):
    """The definition does not allow the file."""


def check(data: bytes) -> None:
    """Raises for a file that is not refused with its place, or whose messages are not its own records."""
    if not data:
        return
    key_path, content = KEYS[data[0] % len(KEYS)], data[1:]
    limit_bytes = len(content) - 1  # no line of a large file may be longer
    is_large = data[0] // len(KEYS) % 2 == 1 and max(map(len, content.split(b"\n"))) < limit_bytes
    with _file(content), _in_memory(limit_bytes if is_large else _IN_MEMORY_BYTES):
        try:
            data_set = DataSet.open(_PATH, key_path)
        except DataError as error:
            _check_refusal(str(error), content, key_path, is_large=is_large)
            return
        found = list(islice(data_set.messages(), 2 * data_set.length))
    expected = _records(content, lines_only=is_large)
    assert [value for _, value in found] == expected * 2
    assert [key for key, _ in found] == [_key(value, key_path) for value in expected] * 2


def _check_refusal(sentence: str, content: bytes, key_path: Sequence[str], *, is_large: bool) -> None:
    assert str(_PATH) in sentence
    assert re.search(r"line \d+|record \d+|is empty|is an empty array|a single value|not NDJSON", sentence), sentence
    assert len(sentence) < 500
    try:
        records = _records(content, lines_only=is_large)
        for value in records:
            _key(value, key_path)
    except _Refused:
        return
    raise AssertionError(f"a good file is refused: {sentence}")


def _records(content: bytes, *, lines_only: bool) -> list[bytes]:
    """What the definition makes of the file: see perf/dataset.py."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    document = None if lines_only else _parsed(content)
    if document is not None:
        if document[0] == "array" and document[1]:
            return _elements(content)
        if document[0] == "object":
            text = content.strip(_BLANKS)
            return [_minified(text) if b"\n" in text else text]
        raise _Refused
    lines = [line.strip(_BLANKS) for line in content.split(b"\n")]
    lines = [line for line in lines if line]
    if not lines or any(_parsed(line) is None for line in lines):
        raise _Refused
    return lines


def _parsed(text: bytes) -> tuple[str, Any] | None:
    """The kind and value of a JSON document; None where it is none, or has a lone surrogate."""
    try:
        value = json.loads(
            text.decode(),
            parse_int=str,
            parse_float=str,
            parse_constant=_no_number,
            object_pairs_hook=lambda pairs: pairs,
        )
        repr(value).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    first = text.strip(_BLANKS)[:1]
    return {b"[": "array", b"{": "object"}.get(first, "scalar"), value


def _no_number(text: str) -> None:
    raise ValueError(text)


def _minified(text: bytes) -> bytes:
    return b"".join(token for token in _TOKENS.findall(text) if token[:1] not in b" \t\r\n")


def _elements(text: bytes) -> list[bytes]:
    """The elements of an array, cut at the commas between them."""
    inside, depth, elements = _minified(text)[1:-1], 0, [b""]
    for token in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]|[^"\[\]{},]+', inside, re.DOTALL):
        depth += (token in (b"[", b"{")) - (token in (b"]", b"}"))
        if token == b"," and depth == 0:
            elements.append(b"")
        else:
            elements[-1] += token
    return elements


def _key(value: bytes, key_path: Sequence[str]) -> bytes | None:
    """The attribute, as the file writes it."""
    if not key_path:
        return None
    for name in key_path:
        pairs = _pairs(value) if value[:1] == b"{" else {}
        if name not in pairs:
            raise _Refused
        value = pairs[name]
    if value == b"null":
        raise _Refused
    return str(json.loads(value)).encode() if value[:1] == b'"' else _minified(value)


def _pairs(text: bytes) -> dict[str, bytes]:
    """The attributes of an object; the last of two equal ones counts."""
    members = _elements(b"[" + _minified(text)[1:-1] + b"]")
    found = {}
    for member in members:
        if match := re.match(rb'("(?:[^"\\]|\\.)*"):', member, re.DOTALL):
            found[json.loads(match[1])] = member[match.end() :]
    return found


@contextmanager
def _file(content: bytes) -> Iterator[None]:
    _PATH.write_bytes(content)
    try:
        yield
    finally:
        _PATH.unlink()


@contextmanager
def _in_memory(limit_bytes: int) -> Iterator[None]:
    """Files above so many bytes are read anew on every lap."""
    before, dataset.IN_MEMORY_BYTES = dataset.IN_MEMORY_BYTES, limit_bytes
    try:
        yield
    finally:
        dataset.IN_MEMORY_BYTES = before
