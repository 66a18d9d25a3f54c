"""Data file → serialised messages, cycled for ever. Every lap sends the same bytes in the same order.

A JSON array gives one message per element, and an object over several lines one message: as the file writes it (1.10
stays 1.10), minified. Of NDJSON, also of a single line, each line is a message as it stands; a large file is read anew
on every lap, so that memory stays bounded.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

IN_MEMORY_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"  # JSON's; Python's strip() takes others, too

#: A key (None: no key) and a value.
KeyValue = tuple[bytes | None, bytes]


class DataError(Exception):
    """The data file cannot be used; says where."""

    exit_code = 2


@dataclass(frozen=True)
class DataSet:
    """The checked messages of a data file; `length` of them in a lap."""

    path: Path
    key_path: tuple[str, ...]
    length: int
    _loaded: Sequence[KeyValue] | None

    @classmethod
    def open(cls, path: Path, key_path: Sequence[str] = ()) -> DataSet:
        """Check the whole file, and that each record has the key attribute. Raises DataError."""
        try:
            if path.stat().st_size > IN_MEMORY_BYTES:
                with path.open("rb") as file:
                    return cls(path, tuple(key_path), sum(1 for _ in _from_lines(file, path, key_path)), None)
            records = _records(path, _content(path))
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            raise DataError(f"the data file {path}: {_reason(error)}") from error
        loaded = [_with_key(record, number, path, key_path) for number, record in enumerate(records, start=1)]
        return cls(path, tuple(key_path), len(loaded), loaded)

    def require_objects(self) -> None:
        """Raises DataError unless each record is a JSON object, which a field can be added to."""
        for number, (_, value) in enumerate(itertools.islice(self.messages(), self.length), start=1):
            if not value.startswith(b"{"):
                raise DataError(
                    f"the data file {self.path}: record {number} is no object, so --trace field:… cannot mark it"
                )

    def messages(self) -> Iterator[KeyValue]:
        """All messages, lap after lap, without end.

        A large file stays open, so that it may be deleted or replaced. Raises DataError where it is cut off or spoilt.
        """
        if self._loaded is not None:
            return itertools.cycle(self._loaded)
        try:
            return self._laps(self.path.open("rb"))
        except OSError as error:
            raise DataError(f"the data file {self.path}: {_reason(error)}") from error

    def _laps(self, file: BinaryIO) -> Iterator[KeyValue]:
        """Each lap has the messages that were checked: lines that were appended since are left out."""
        with file:
            while True:
                count = 0
                try:
                    file.seek(0)
                    for message in itertools.islice(_from_lines(file, self.path, self.key_path), self.length):
                        count += 1
                        yield message
                except (DataError, OSError) as error:
                    raise DataError(f"the data file {self.path} changed while it was sent: {_reason(error)}") from error
                if count < self.length:
                    now = f"it has {count} records, not {self.length}"
                    raise DataError(f"the data file {self.path} changed while it was sent: {now}")


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _content(path: Path) -> bytes:
    """The file without its byte order mark: UTF-8, and not empty."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"the data file {path} is not UTF-8: line {line}, byte {error.start} of the file") from error
    data = data.removeprefix(_BOM)
    if not data.strip(_BLANKS):
        raise DataError(f"the data file {path} is empty")
    return data


def _records(path: Path, data: bytes) -> list[bytes]:
    try:
        document = bytes(msgspec.json.decode(data, type=msgspec.Raw))
    except (msgspec.DecodeError, RecursionError):
        return _lines(path, data)
    if document[:1] == b"[":
        elements = [_minified(element) for element in msgspec.json.decode(document, type=list[msgspec.Raw])]
        if not elements:
            raise DataError(f"the data file {path} is an empty array: there is nothing to send")
        return elements
    if document[:1] != b"{":
        raise DataError(
            f"the data file {path} holds a single value that is no object: an array, object or NDJSON is needed"
        )
    return [_minified(msgspec.Raw(document)) if b"\n" in document else document]


def _lines(path: Path, data: bytes) -> list[bytes]:
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip(_BLANKS)]
    first = lines[0][1].strip(_BLANKS)
    if len(lines) > 1 and first[:1] + first[-1:] == b"{}" and not _is_json(first) and _is_json(lines[1][1]):
        raise _syntax_error(path, lines[0][1], first_line=lines[0][0])
    if len(lines) < 2 or not _is_json(lines[0][1]):
        raise _syntax_error(path, data, first_line=1)
    for number, line in lines:
        if not _is_json(line):
            raise _syntax_error(path, line, first_line=number)
    return [line.strip(_BLANKS) for _, line in lines]


def _from_lines(file: BinaryIO, path: Path, key_path: Sequence[str]) -> Iterator[KeyValue]:
    """The messages of a large NDJSON file, read line by line."""
    count = 0
    for number, data in enumerate(iter(lambda: file.readline(IN_MEMORY_BYTES), b""), start=1):
        line = (data.removeprefix(_BOM) if number == 1 else data).strip(_BLANKS)
        if not line:
            continue
        if not _is_json(line):
            raise _large_file_error(path, data, number)
        count += 1
        yield _with_key(line, count, path, key_path)
    if not count:
        raise DataError(f"the data file {path} is empty")


def _large_file_error(path: Path, line: bytes, number: int) -> DataError:
    if number == 1 and line.lstrip(_BOM + _BLANKS)[:1] in (b"[", b"{"):
        return DataError(
            f"the data file {path} is over {IN_MEMORY_BYTES >> 20} MiB and not NDJSON (one JSON value per line); "
            f"convert an array with: jq -c '.[]' {path} > data.ndjson"
        )
    return _syntax_error(path, line, first_line=number)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
        line.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _syntax_error(path: Path, data: bytes, *, first_line: int) -> DataError:
    """Line and column, which msgspec does not tell."""
    try:
        json.loads(data.decode("utf-8", "replace").rstrip(" \t\r\n"))
    except json.JSONDecodeError as error:
        where = f"line {first_line + error.lineno - 1}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        where = f"line {first_line}: {error}"
    else:
        where = f"line {first_line}: NaN, Infinity, a lone surrogate or invalid UTF-8"
    return DataError(f"the data file {path} is not valid JSON: {where}")


def _minified(element: msgspec.Raw) -> bytes:
    return msgspec.json.format(bytes(element), indent=-1)


def _with_key(record: bytes, number: int, path: Path, key_path: Sequence[str]) -> KeyValue:
    if not key_path:
        return None, record
    found = msgspec.Raw(record)
    try:
        for name in key_path:
            found = msgspec.json.decode(found, type=dict[str, msgspec.Raw])[name]
    except (msgspec.DecodeError, KeyError):
        found = msgspec.Raw(b"null")
    text = bytes(found).strip(_BLANKS)
    if text == b"null":
        raise DataError(f"the data file {path}: record {number} has no key attribute {'.'.join(key_path)}")
    return (msgspec.json.decode(text, type=str).encode() if text[:1] == b'"' else _minified(msgspec.Raw(text))), record
