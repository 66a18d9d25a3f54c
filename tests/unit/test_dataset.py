"""Data file → messages: the same bytes on every lap, and errors that say where."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf import dataset
from perf.dataset import DataError, DataSet, KeyValue
from perf.settings import DEFAULT_DATA_FILES

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
line_ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"])
boms = st.sampled_from([b"", b"\xef\xbb\xbf"])

NUMBERS = '[{"a":1.10,"b":1e400,"c":-0,"d":1E+2,"e":123456789012345678901234567890,"f":0.1000}, {"a":1, "a":2}]'


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example of a property overwrites."""
    return tmp_path_factory.mktemp("data") / "data.json"


def written(path: Path, content: str | bytes) -> Path:
    """`path`, with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def laps(data: DataSet, count: int = 3) -> list[KeyValue]:
    """The messages of so many laps."""
    return list(islice(data.messages(), count * data.length))


def opened(path: Path, key_path: Sequence[str] = (), *, in_memory_bytes: int | None = None) -> DataSet:
    """The data set, as if files over `in_memory_bytes` were large."""
    with pytest.MonkeyPatch.context() as patch:
        if in_memory_bytes is not None:
            patch.setattr(dataset, "IN_MEMORY_BYTES", in_memory_bytes)
        data = DataSet.open(path, key_path)
        data.messages()
        return data


def refusal(path: Path, key_path: Sequence[str] = (), *, in_memory_bytes: int | None = None) -> str:
    """What the user is told of a file that cannot be used."""
    with pytest.raises(DataError) as caught:
        opened(path, key_path, in_memory_bytes=in_memory_bytes)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------------- laps


@given(
    documents=st.lists(values, min_size=1, max_size=8),
    ascii_only=st.booleans(),
    indent=st.none() | st.just(2),
    bom=boms,
)
def test_an_array_gives_its_elements_minified_on_every_lap(
    file: Path, documents: list[Any], ascii_only: bool, indent: int | None, bom: bytes
) -> None:
    """Each element is one message without blanks, its escapes as in the file, in the same order lap after lap."""
    written(file, bom + json.dumps(documents, ensure_ascii=ascii_only, indent=indent).encode())
    minified = [json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode() for value in documents]
    assert laps(DataSet.open(file)) == [(None, value) for value in minified] * 3


@given(
    documents=st.lists(values, min_size=2, max_size=8),
    ascii_only=st.booleans(),
    line_end=line_ends,
    ended=st.booleans(),
    bom=boms,
    large=st.booleans(),
)
@example(documents=[[], []], ascii_only=True, line_end="\n", ended=True, bom=b"", large=True)
def test_ndjson_gives_its_lines_verbatim_on_every_lap(  # noqa: PLR0917 (hypothesis gives them by name)
    file: Path, documents: list[Any], ascii_only: bool, line_end: str, ended: bool, bom: bytes, large: bool
) -> None:
    """Each line is one message as it stands, whether the file fits into memory or is read anew on every lap."""
    lines = [json.dumps(value, ensure_ascii=ascii_only).encode() for value in documents]
    content = bom + line_end.encode().join(lines) + line_end.encode() * ended
    written(file, content)
    longest = max(len(line) for line in content.split(b"\n")) + 1
    data = opened(file, in_memory_bytes=min(longest, len(content) - 1) if large else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "IN_MEMORY_BYTES", longest)
        assert laps(data) == [(None, line) for line in lines] * 3


def test_numbers_and_doubled_keys_stay_as_they_are(tmp_path: Path) -> None:
    """1.10, 1e400, -0, thirty digits and a key given twice are sent as the file writes them."""
    data = DataSet.open(written(tmp_path / "data.json", NUMBERS))
    assert [value for _, value in laps(data, 1)] == [
        b'{"a":1.10,"b":1e400,"c":-0,"d":1E+2,"e":123456789012345678901234567890,"f":0.1000}',
        b'{"a":1,"a":2}',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1.50,\r\n "b": [1, 2]}', b'{"a":1.50,"b":[1,2]}'),
        ('\ufeff\n {"a":1.50, "b":[1,2]}\r\n\n', b'{"a":1.50, "b":[1,2]}'),
    ],
)
def test_a_single_object_is_one_message(tmp_path: Path, content: str, message: bytes) -> None:
    """An object alone in the file is a lap of one message: minified from several lines, on one line as it stands."""
    data = DataSet.open(written(tmp_path / "data.json", content))
    assert data.length == 1
    assert laps(data) == [(None, message)] * 3


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("blank", ["\v", "\f", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000"])
def test_only_blanks_of_json_are_left_out(tmp_path: Path, blank: str, large: bool) -> None:
    """Found by fuzzing: what Python calls white space, but JSON does not, is refused and not cut from a record."""
    for line in (blank, f'{blank}{{"a":2}}', f'{{"a":2}}{blank}'):
        content = f'{{"a":1}}\n{line}\n{{"a":3}}\n'
        assert "line 2" in refusal(written(tmp_path / "data.ndjson", content), in_memory_bytes=17 if large else None)


def test_a_null_character_in_the_name_is_told(tmp_path: Path) -> None:
    """A name that no file can have, as a .env file may give, is refused like a missing file."""
    assert "null" in refusal(tmp_path / "a\0b")


def test_a_file_that_fits_into_memory_takes_a_few_times_its_size(tmp_path: Path) -> None:
    """What is kept has about the file's size, also with wide characters, which Python's texts hold in 4 bytes each."""
    path = tmp_path / "data.ndjson"
    line = json.dumps({"a": "🚢" + "x" * 400}, ensure_ascii=False).encode()
    path.write_bytes((line + b"\n") * (4_000_000 // len(line)))
    tracemalloc.start()
    try:
        data = DataSet.open(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.length
    assert kept < 1.5 * path.stat().st_size
    assert peak < 7 * path.stat().st_size


def large(path: Path, count: int = 1_000) -> DataSet:
    """A file of so many lines that is read anew on every lap."""
    written(path, "".join(f'{{"number":{number:06}}}\n'.replace(":0", ":1") for number in range(count)))
    return opened(path, in_memory_bytes=100)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_large_file_that_is_deleted_or_replaced_is_sent_on(tmp_path: Path, replaced: bool) -> None:
    """The file that was checked stays open: what becomes of its name does not matter."""
    data = large(tmp_path / "data.ndjson")
    messages = data.messages()
    first = list(islice(messages, data.length))
    (tmp_path / "data.ndjson").unlink()
    if replaced:
        written(tmp_path / "data.ndjson", "[]")
    assert list(islice(messages, 2 * data.length)) == first * 2


def test_lines_appended_to_a_large_file_are_left_out(tmp_path: Path) -> None:
    """Every lap sends the records that were checked."""
    data = large(tmp_path / "data.ndjson")
    messages = data.messages()
    first = list(islice(messages, data.length))
    with data.path.open("a") as file:
        file.write('{"more":1}\nnot JSON\n')
    assert list(islice(messages, 2 * data.length)) == first * 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: os.truncate(path, 0), "is empty"),
        (lambda path: os.truncate(path, 18 * 40), "40 records, not 1000"),
        (lambda path: os.truncate(path, 18 * 40 - 5), "line 40"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"{", b"[")), "not NDJSON"),
    ],
)
def test_a_large_file_that_changes_is_told(tmp_path: Path, change: Callable[[Path], None], expected: str) -> None:
    """A file that is cut off or spoilt while it is sent ends in an error that says so, after whole records only."""
    data = large(tmp_path / "data.ndjson")
    messages = data.messages()
    first = list(islice(messages, data.length))
    change(data.path)
    sent = []
    with pytest.raises(DataError, match=f"changed while it was sent: .*{expected}"):
        for message in messages:
            sent.append(message)
    assert sent == first[: len(sent)]


def test_letters_are_sent_as_the_file_writes_them(tmp_path: Path) -> None:
    """UTF-8 stays UTF-8, an escape stays an escape, and line separators inside text split nothing."""
    lines = ['{"a":"Πειραιάς 🚢"}', '{"a":"\\u03a0\\ud83d\\udea2"}', '{"a":"\u2028\u0085 x"}']
    for content in ("\n".join(lines), f"[{','.join(lines)}]"):
        data = DataSet.open(written(tmp_path / "data.json", content))
        assert laps(data, 1) == [(None, line.encode()) for line in lines]


def test_a_large_file_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking and sending two laps of 8 MB of NDJSON takes well under a tenth of that."""
    monkeypatch.setattr(dataset, "IN_MEMORY_BYTES", 100_000)
    path = tmp_path / "data.ndjson"
    line = json.dumps({"a": "x" * 400})
    with path.open("w") as file:
        file.writelines(f"{line}\n" for _ in range(20_000))
    tracemalloc.start()
    try:
        data = DataSet.open(path)
        sent = sum(len(value) for _, value in islice(data.messages(), 2 * data.length))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.length == 20_000
    assert sent == 2 * 20_000 * len(line)
    assert peak < path.stat().st_size / 10


def test_the_default_data_set_is_usable() -> None:
    """data/data.json has a thousand events, each with the key attribute of the examples."""
    data = DataSet.open(DEFAULT_DATA_FILES[-1], ["containerId"])
    keys = {key for key, _ in laps(data, 1)}
    assert data.length == 1_000
    assert None not in keys and len(keys) > 1


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("\ufeff \r\n\t", "is empty"),
        ("[]", "empty array"),
        ("[ \n ]", "empty array"),
        ("5", "single value that is no object"),
        ('"text"', "single value that is no object"),
        ("null", "single value that is no object"),
        ("hello", "line 1, column 1"),
        ('[{"a":1},\n {"a":2},\n {"a" 3}]', "line 3, column 7"),
        ('[{"a":1},\n {"a":2}', "line 2, column 9"),
        ('[{"a":1}\n {"a":2}]', "line 2, column 2"),
        ('[{"a":1},]', "line 1, column"),
        ('{"a":1}\n{"a":2}\n\n{"a":}\n', "line 4, column 6"),
        ('{"a":1}\r\n{"a":2\r\n', "line 2, column 7"),
        ('{"a":1}\n   {"a":}\n', "line 2, column 9"),
        ('{"a":1}\nhello\n{"a":2}', "line 2, column 1"),
        ('{"a":1}{"a":2}', "line 1, column 8"),
        ('{"a":NaN}', "line 1: NaN"),
        ('{"a":1}\n{"a":Infinity}', "line 2: NaN, Infinity"),
        ('{"a":1}\n{"a":"\\ud800"}', "line 2: NaN, Infinity, a lone surrogate"),
        ('{"a":1}\n{"a":"\t"}', "line 2, column 7"),
        ("[" * 100_000, "not valid JSON: line 1"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON: line 1"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, content: str, expected: str) -> None:
    """An unusable file is refused with its path, and with line and column where there is one."""
    message = refusal(written(tmp_path / "data.json", content))
    assert expected in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [(b'{"a":"\xff"}', 1, 6), (b'[\n{"a":1},\n{"a":"\xc3"}]', 3, 17), (b"\xff\xfe{\0}\0", 1, 0)],
)
def test_a_file_that_is_not_utf8_says_where(tmp_path: Path, content: bytes, line: int, byte: int) -> None:
    """Bytes that are no UTF-8 (Latin-1, UTF-16) are named by line and offset."""
    message = refusal(written(tmp_path / "data.json", content))
    assert f"not UTF-8: line {line}, byte {byte} " in message


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    """The operating system's reason stands behind the path."""
    assert "No such file or directory" in refusal(tmp_path / "absent.json")
    assert "Is a directory" in refusal(tmp_path)
    assert "Not a directory" in refusal(written(tmp_path / "file", "{}") / "data.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"a":1},\n{"a":2}]', "jq -c '.[]'"),
        ("[\n1111,\n22222,\n33333]", "jq -c '.[]'"),
        ('[{"a":1}, {"a":2}]', "jq -c '.[]'"),
        ('{\n"a": 1,\n"b": 2\n}', "not NDJSON"),
        ('{"a":1}\n{"a":2}\n{"a":}\n', "line 3, column 6"),
        ('{"a":1}\n{"a":NaN}\n', "line 2: NaN"),
        ("hello\nyou\n", "line 1, column 1"),
        (" \n\n  \n\n\n      ", "is empty"),
        (b'{"a":1}\n{"a":"\xff"}\n', "line 2: NaN, Infinity, a lone surrogate or invalid UTF-8"),
        ('{"a":1}\n{"a":"a line over the limit"}\n', "line 2, column"),
    ],
)
def test_a_large_file_that_cannot_be_used_says_where(tmp_path: Path, content: str | bytes, expected: str) -> None:
    """A large file that is no NDJSON is refused with its line, and a large array with the command that converts it."""
    assert expected in refusal(written(tmp_path / "data.json", content), in_memory_bytes=12)


# --------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("attribute", "key"),
    [
        ("7", b"7"),
        ("1.10", b"1.10"),
        ("-0", b"-0"),
        ("1e400", b"1e400"),
        ('"text"', b"text"),
        ('""', b""),
        ('"7"', b"7"),
        ('"null"', b"null"),
        ('"Π\\u03b1\\n\\"\\ud83d\\udea2"', 'Πα\n"🚢'.encode()),
        ("true", b"true"),
        ('[1, "a b"]', b'[1,"a b"]'),
        ('{"x": 1.50}', b'{"x":1.50}'),
    ],
)
def test_the_attribute_becomes_the_key(tmp_path: Path, attribute: str, key: bytes, large: bool) -> None:
    """Text is the key as UTF-8 without quotes, a number keeps its digits, anything else is its JSON."""
    lines = [f'{{"other":0,"id":{attribute}}}', f'{{"id":{attribute},"z":"id"}}']
    path = written(tmp_path / "data.ndjson", "\n".join(lines))
    data = opened(path, ["id"], in_memory_bytes=len(max(lines)) + 10 if large else None)
    assert laps(data, 2) == [(key, line.encode()) for line in lines] * 2


@given(
    keys=st.lists(texts, min_size=1, max_size=5),
    names=st.lists(texts.filter(bool), min_size=1, max_size=3),
    ascii_only=st.booleans(),
)
def test_keys_are_found_at_any_depth_and_in_any_script(
    file: Path, keys: list[str], names: list[str], ascii_only: bool
) -> None:
    """The path leads through nested objects; names and text of any letters are the same escaped or not."""
    documents: list[Any] = []
    for key in keys:
        document: Any = key
        for name in reversed(names):
            document = {"": 1, name: document}
        documents.append(document)
    written(file, json.dumps(documents, ensure_ascii=ascii_only))
    assert [key for key, _ in laps(DataSet.open(file, names), 1)] == [key.encode() for key in keys]


def test_the_last_of_two_equal_attributes_is_the_key(tmp_path: Path) -> None:
    """A key attribute given twice counts as JSON parsers take it: the last one."""
    path = written(tmp_path / "data.json", '[{"id":1,"id":2}]')
    assert laps(DataSet.open(path, ["id"]), 1) == [(b"2", b'{"id":1,"id":2}')]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "record",
    ["{}", '{"a":{}}', '{"a":{"id":null}}', '{"a":5}', '{"a":[{"id":1}]}', '{"a.id":1}', "5", "[]", '"a"', '{"id":1}'],
)
def test_a_record_without_the_key_is_named(tmp_path: Path, record: str, large: bool) -> None:
    """Before anything is sent, the first record whose key attribute is absent or null is told by its number."""
    path = written(tmp_path / "data.ndjson", f'{{"a":{{"id":1}}}}\n\n{{"a":{{"id":2}}}}\n{record}\n{{}}\n')
    message = refusal(path, ["a", "id"], in_memory_bytes=20 if large else None)
    assert "record 3 has no key attribute a.id" in message
