"""Units and places of start stamps: every unit in each way of writing it, arrays, headers, marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf import settings
from perf.payload import (
    DAY_MS,
    UNITS,
    YEAR_2000_MS,
    HeaderReader,
    MarkReader,
    PayloadReader,
    Reader,
    Rejection,
    UnusualBatch,
    reader_for,
)
from perf.settings import OPTIONS, Settings

STAMP_MS = 1_795_000_000_000
START_MS = 1_794_999_999_527
DELTA_MS = STAMP_MS - START_MS
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ZONES = [timezone.utc, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9, minutes=-30))]

#: A unit → how many of it a millisecond has.
PER_MS = {"s": Fraction(1, 1_000), "ms": Fraction(1), "us": Fraction(1_000), "ns": Fraction(1_000_000)}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "iso8601": "ISO 8601"}


def payload(found: object, field: str = "timestamp_start") -> bytes:
    """A message with this stamp and another field."""
    return json.dumps({"id": 7, field: found}).encode()


def outcome(reader: Reader, source: Any, stamp_ms: int = STAMP_MS) -> int | str:
    """The delta, or the counter's name; never an exception, and what the fast path says is the same."""
    found = reader.delta(source, stamp_ms)
    assert isinstance(reader.hint(source, stamp_ms), str)
    with suppress(UnusualBatch):
        assert reader.deltas([source, source], [stamp_ms] * 2) == [found] * 2
    return found.value if isinstance(found, Rejection) else found


def fast(reader: Reader, *sources: Any) -> list[int]:
    """The deltas from the fast path alone."""
    return reader.deltas(sources, [STAMP_MS] * len(sources))


def written(moment_ms: int, unit: str) -> object:
    """A moment as JSON has it in that unit: a whole number where it can be one."""
    if unit == "iso8601":
        return iso(moment_ms)
    exact = moment_ms * PER_MS[unit]
    return int(exact) if exact.denominator == 1 else float(exact)


def iso(moment_ms: int, zone: timezone = timezone.utc) -> str:
    """Spark's shape, with the offset of `zone`."""
    return (EPOCH + timedelta(milliseconds=moment_ms)).astimezone(zone).isoformat(timespec="milliseconds")


# ------------------------------------------------------------------------------------------------------------- numbers


def test_every_unit_is_tested_and_can_be_chosen() -> None:
    """UNITS, --timestamp-unit and the tables of this file have the same units."""
    assert UNITS.keys() == NAMES.keys() == PER_MS.keys() | {"iso8601"}
    assert {name: unit.name for name, unit in UNITS.items()} == NAMES
    for name in UNITS:
        assert OPTIONS["timestamp_unit"].parse(name) == name


@pytest.mark.parametrize("unit", UNITS)
def test_the_usual_form_of_each_unit_takes_the_fast_path(unit: str) -> None:
    """What an operator of that unit writes never falls back to the slow path."""
    reader = PayloadReader(["timestamp_start"], unit)
    found = written(START_MS, unit)
    assert fast(reader, payload(found), payload(found)) == [DELTA_MS] * 2
    assert outcome(reader, payload(found)) == DELTA_MS


@pytest.mark.parametrize("unit", PER_MS)
@pytest.mark.parametrize("form", [int, float, str, lambda n: repr(float(n)), lambda n: f" {n}\n", lambda n: f"{n}.0"])
def test_integers_floats_and_texts_are_the_same_moment(unit: str, form: Any) -> None:
    """A whole second, written as any kind of number or as its text, has one delta in each unit."""
    whole_s = STAMP_MS - 5_000
    assert outcome(PayloadReader(["timestamp_start"], unit), payload(form(int(whole_s * PER_MS[unit])))) == 5_000
    assert outcome(HeaderReader("t", unit), [("t", str(form(int(whole_s * PER_MS[unit]))).encode())]) == 5_000


@given(st.sampled_from(sorted(PER_MS)), st.integers(YEAR_2000_MS, STAMP_MS), st.fractions(0, 1).filter(lambda f: f < 1))
def test_a_number_is_rounded_to_the_nearest_millisecond(unit: str, whole_ms: int, more: Fraction) -> None:
    """A finer number is at most half a millisecond away from what is measured, as number and as text, fast or slow."""
    number = int((whole_ms + more) * PER_MS[unit]) if unit in ("us", "ns") else float((whole_ms + more) * PER_MS[unit])
    exact_ms = Fraction(number) / PER_MS[unit]
    reader = PayloadReader(["timestamp_start"], unit)
    start_ms = reader.start_ms(payload(number))
    assert isinstance(start_ms, int)
    assert abs(start_ms - exact_ms) <= Fraction(1, 2) + Fraction(1, 1_000)  # floats of seconds are no finer
    for other in (payload(str(number)), payload(repr(number))):
        assert reader.start_ms(other) == start_ms
    assert outcome(reader, payload(number), whole_ms + 10) == whole_ms + 10 - start_ms


odd_values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [None, True, False, float("nan"), float("inf"), float("-inf"), "", "NaN", "inf", "null", "true", [], {}]
    ),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from(["1e400", "-1e400", "9" * 5_000, "1" + "0" * 399, "-", ".", "1.", "1e", "0x1", "1_0", "٣", "²"]),
    st.text(max_size=30),
)


@given(st.sampled_from(sorted(UNITS)), odd_values)
@example("ns", 10**308)
@example("us", -(10**308))
@example("s", 1.7e308)
@example("s", "1.7e308")
def test_odd_values_are_counted_and_never_raise(unit: str, value: object) -> None:
    """Booleans, null, NaN, infinities and numbers of any size give a delta or a counter in every unit."""
    found = outcome(PayloadReader(["timestamp_start"], unit), payload(value))
    if value is None or isinstance(value, bool | list | dict) or value != value:  # noqa: PLR0124 (NaN)
        assert found == "invalid_timestamp_start"
    assert isinstance(found, int) or found in ("invalid_timestamp_start", "implausible_timestamp_start")


@pytest.mark.parametrize("unit", UNITS)
def test_a_number_is_never_taken_in_another_unit(unit: str) -> None:
    """A stamp in another unit than declared is implausible, or invalid; the message says which unit it looks like."""
    reader = PayloadReader(["timestamp_start"], unit)
    for other in UNITS.keys() - {unit}:
        found = payload(written(START_MS, other))
        counter = "invalid" if "iso8601" in (unit, other) else "implausible"
        assert outcome(reader, found) == f"{counter}_timestamp_start"
        assert reader.hint(found, STAMP_MS).endswith(f" looks like {NAMES[other]}: --timestamp-unit {other}")


@given(st.sampled_from(sorted(PER_MS)), st.sampled_from(sorted(PER_MS)), st.integers(YEAR_2000_MS, STAMP_MS + DAY_MS))
def test_no_moment_is_plausible_in_two_units(unit: str, other: str, moment_ms: int) -> None:
    """From 2000 to a day after the record, no number is a plausible stamp in more than one unit."""
    found = outcome(PayloadReader(["timestamp_start"], unit), payload(written(moment_ms, other)))
    assert found == (STAMP_MS - moment_ms if unit == other else "implausible_timestamp_start")


def test_what_looks_like_no_unit_is_only_shown() -> None:
    """Without a plausible unit the hint has the value, cut where it is long, and no advice."""
    reader = PayloadReader(["timestamp_start"])
    assert reader.hint(payload(5), STAMP_MS) == ": 5"
    assert reader.hint(payload("x" * 1_000), STAMP_MS) == ': "' + "x" * 59 + "…"
    assert reader.hint(b"{}", STAMP_MS) == reader.hint(None, STAMP_MS) == reader.hint(b"hello", STAMP_MS) == ""


# ------------------------------------------------------------------------------------------------------------ ISO 8601


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        ("2026-11-22 23:45:18.83Z", 1_795_391_118_830),  # Flink
        ("2026-11-22 23:45:18Z", 1_795_391_118_000),
        ("2026-11-22 23:45:18.8Z", 1_795_391_118_800),
        ("2026-11-22T23:59:14.527Z", 1_795_391_954_527),  # Spark
        ("2026-11-22t23:59:14.527z", 1_795_391_954_527),
        ("2026-11-23T00:59:14.527+01:00", 1_795_391_954_527),
        ("2026-11-22 14:29:14.527-09:30", 1_795_391_954_527),
        ("2026-11-22T23:59:14.527000Z", 1_795_391_954_527),
        ("2026-11-22T23:59:14.527123456Z", 1_795_391_954_527),
        ("2026-11-22T23:59:14.527499Z", 1_795_391_954_527),
        ("2026-11-22T23:59:14.5275Z", 1_795_391_954_528),
        ("2026-11-22T23:59:14.9999999Z", 1_795_391_955_000),
    ],
)
def test_iso_8601_is_read_in_both_shapes(text: str, moment_ms: int) -> None:
    """Blank or T, any number of digits behind the point, Z or an offset; the fast path takes them all."""
    reader = PayloadReader(["timestamp_start"], "iso8601")
    stamp_ms = moment_ms + 1_000
    assert reader.deltas([payload(text)], [stamp_ms]) == [1_000]
    assert outcome(HeaderReader("t", "iso8601"), [("t", text.encode())], stamp_ms) == 1_000
    slow = payload(text)[:-1] + b',"a":NaN}'  # what msgspec refuses
    assert outcome(reader, slow, stamp_ms) == 1_000


@pytest.mark.parametrize(
    "found",
    [
        "2026-11-22T23:59:14.527",
        "2026-11-22 23:59:14",
        "2026-11-22",
        "2026-13-22T23:59:14Z",
        "2026-11-22T25:59:14Z",
        "yesterday",
        "",
        "1794999999527",
        1_794_999_999_527,
        1_794_999_999.5,
        None,
        True,
        [],
        {"$date": "2026-11-22T23:59:14.527Z"},
    ],
)
def test_what_is_no_moment_is_invalid(found: object) -> None:
    """A time without offset could be anyone's noon, and a number is no ISO 8601."""
    assert outcome(PayloadReader(["timestamp_start"], "iso8601"), payload(found)) == "invalid_timestamp_start"


@given(st.integers(YEAR_2000_MS, STAMP_MS + DAY_MS), st.sampled_from(ZONES), st.booleans(), st.booleans())
def test_any_moment_comes_back_to_the_millisecond(moment_ms: int, zone: timezone, blank: bool, cut: bool) -> None:
    """Written in any zone, in either shape, with trailing zeros or without, a moment is read as it was."""
    text = iso(moment_ms, zone)
    text = text.replace("T", " ") if blank else text
    if cut:
        body, offset = text[:-6], text[-6:]
        text = body.rstrip("0").rstrip(".") + offset if "." in body else text
    text = text.replace("+00:00", "Z")
    assert outcome(PayloadReader(["timestamp_start"], "iso8601"), payload(text)) == STAMP_MS - moment_ms


@pytest.mark.parametrize("year", ["0001", "1969", "1999", "9999"])
def test_a_year_far_away_is_implausible(year: str) -> None:
    """Any calendar year is read, and judged like a number."""
    for offset in ("Z", "+14:00", "-14:00"):
        text = f"{year}-01-02T00:00:00{offset}"
        assert outcome(PayloadReader(["timestamp_start"], "iso8601"), payload(text)) == "implausible_timestamp_start"


# -------------------------------------------------------------------------------------------------- arrays and objects


@pytest.mark.parametrize(
    ("path", "document", "expected"),
    [
        ("a.1", {"a": [5, START_MS]}, DELTA_MS),
        ("a.0", {"a": [START_MS, "x", None, {}]}, DELTA_MS),
        ("a.1.t", {"a": [None, {"t": START_MS}]}, DELTA_MS),
        ("a.0.b.1.t", {"a": [{"b": ["x", {"t": START_MS}], "c": 1}]}, DELTA_MS),
        ("a.1.0", {"a": [0, [START_MS]]}, DELTA_MS),
        ("a.0", {"a": {"0": START_MS}}, DELTA_MS),
        ("a.0.t", {"a": {"0": {"t": START_MS}}}, DELTA_MS),
        ("0", {"0": START_MS}, DELTA_MS),
        ("payload.after.ts", {"payload": {"before": None, "after": {"ts": START_MS}}}, DELTA_MS),
        (r"a\.b.c\.d", {"a.b": {"c.d": START_MS}, "a": {"b": 1}}, DELTA_MS),
        (r"a\.0", {"a.0": START_MS}, DELTA_MS),
        ("a.2", {"a": [START_MS, START_MS]}, "no_timestamp_start"),
        ("a.99999999999999999999", {"a": [START_MS]}, "no_timestamp_start"),
        ("a.-1", {"a": [START_MS]}, "no_timestamp_start"),
        ("a.0", {"a": []}, "no_timestamp_start"),
        ("a.0", {"a": "1794999999527"}, "no_timestamp_start"),
        ("a.0", {"a": START_MS}, "no_timestamp_start"),
        ("a.0", {"a": None}, "no_timestamp_start"),
        ("a.t", {"a": [{"t": START_MS}]}, "no_timestamp_start"),
        ("a.0", {}, "no_timestamp_start"),
        ("a.0", {"a": [None]}, "invalid_timestamp_start"),
        ("a.0", {"a": [[START_MS]]}, "invalid_timestamp_start"),
        ("a.0", [[START_MS]], "not_json"),
        ("0", [START_MS], "not_json"),
    ],
)
def test_a_path_leads_into_arrays_and_objects(path: str, document: object, expected: int | str) -> None:
    """Digits are a position in an array, or a name where there is an object; what is not there is not found."""
    reader = PayloadReader(settings.field_path(path))
    assert outcome(reader, json.dumps(document).encode()) == expected
    assert outcome(reader, json.dumps(document)[:-1].encode()) == "not_json"


def test_arrays_take_the_fast_path() -> None:
    """A position in an array is decoded by msgspec, too, and the other elements are not looked at."""
    values = [b'{"x":[],"a":["\xff",{"b":0,"t":%d}]}' % (START_MS + step) for step in range(3)]
    assert fast(PayloadReader(["a", "1", "t"]), *values) == [DELTA_MS, DELTA_MS - 1, DELTA_MS - 2]


leaves = st.none() | st.integers(START_MS, STAMP_MS) | st.text(max_size=3)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("01ab"), inner, max_size=3)
)


def at(document: Any, path: Sequence[str]) -> Any:
    """The definition: names in objects, positions in arrays; a Rejection where there is nothing."""
    for name in path:
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name in "01" and int(name) < len(document):
            document = document[int(name)]
        else:
            return Rejection.NO_TIMESTAMP_START
    return document


@given(
    st.dictionaries(st.sampled_from("01ab"), trees, max_size=3),
    st.lists(st.sampled_from("01ab"), min_size=1, max_size=4),
)
def test_any_path_into_any_document(document: dict[str, Any], path: list[str]) -> None:
    """What is found equals a walk over the parsed document, through fast and slow path alike."""
    found, value = at(document, path), json.dumps(document).encode()
    result = outcome(PayloadReader(path), value)
    if isinstance(found, Rejection):
        assert result == found.value
    elif isinstance(found, int):
        assert result == STAMP_MS - found
    else:
        assert result in ("invalid_timestamp_start", "implausible_timestamp_start")


@given(st.lists(st.text("0٣²½a.é", min_size=1, max_size=3), min_size=1, max_size=3))
@example(["a", "²"])
@example(["a", "٣"])
def test_every_path_that_is_taken_can_be_read(names: list[str]) -> None:
    """No field name, of whatever digits, breaks the reader; names that are no plain number are names."""
    path = settings.field_path(".".join(name.replace(".", "\\.") for name in names))
    document: Any = START_MS
    for name in reversed(path):
        document = {name: document}
    reader = PayloadReader(path)
    assert outcome(reader, json.dumps(document).encode()) == DELTA_MS
    assert outcome(reader, json.dumps({path[0]: [1, 2]}).encode()) in {reason.value for reason in Rejection}


# ------------------------------------------------------------------------------------------------------------- headers


def big_endian(number: int) -> bytes:
    """As Java's ByteBuffer.putLong writes it."""
    return number.to_bytes(8, "big", signed=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("t", b"1794999999527")], DELTA_MS),
        ([("t", b" 1794999999527\n")], DELTA_MS),
        ([("t", b"1794999999527.2")], DELTA_MS),
        ([("t", "1794999999527")], DELTA_MS),
        ([("t", big_endian(START_MS))], DELTA_MS),
        ([("x", b"1"), ("t", b"1"), ("t", b"1794999999527"), ("y", None)], DELTA_MS),
        ([("t", b"1794999999527"), ("t", b"1")], "implausible_timestamp_start"),
        ([("t", b"1794999999527"), ("t", None)], "invalid_timestamp_start"),
        ([("t", big_endian(-START_MS))], "implausible_timestamp_start"),
        ([("t", big_endian(-1))], "implausible_timestamp_start"),
        ([("t", bytes(8))], "implausible_timestamp_start"),
        ([("t", b"12345678")], "implausible_timestamp_start"),
        ([("t", None)], "invalid_timestamp_start"),
        ([("t", b"")], "invalid_timestamp_start"),
        ([("t", b"hello")], "invalid_timestamp_start"),
        ([("t", b"\xff\xfe")], "invalid_timestamp_start"),
        ([("t", START_MS.to_bytes(7, "big"))], "invalid_timestamp_start"),
        ([("t", START_MS.to_bytes(9, "big"))], "invalid_timestamp_start"),
        ([("T", b"1794999999527")], "no_timestamp_start"),
        ([], "no_timestamp_start"),
        (None, "no_timestamp_start"),
    ],
)
def test_a_header_holds_text_or_eight_bytes(headers: list[tuple[str, Any]] | None, expected: int | str) -> None:
    """Numeric text, also as str, or 8 bytes big-endian; the last of a repeated name counts."""
    reader = HeaderReader("t")
    assert outcome(reader, headers) == expected
    if isinstance(expected, int):
        assert fast(reader, headers, headers) == [expected] * 2


def test_eight_digits_are_text() -> None:
    """12345678 is a number in text and not eight bytes: the hint shows it as it stands."""
    reader = HeaderReader("t", "s")
    assert reader.start_ms([("t", b"12345678")]) == 12_345_678_000
    assert reader.hint([("t", b"12345678")], STAMP_MS) == ': "12345678"'
    assert reader.hint([("t", b"1794999999527")], STAMP_MS).endswith("looks like milliseconds: --timestamp-unit ms")
    assert reader.hint([("t", big_endian(START_MS))], STAMP_MS).endswith("--timestamp-unit ms")
    assert reader.hint([("x", b"1")], STAMP_MS) == ""


@given(st.sampled_from(sorted(PER_MS)), st.integers(YEAR_2000_MS // 1_000, STAMP_MS // 1_000))
def test_eight_bytes_are_read_in_every_unit(unit: str, moment_s: int) -> None:
    """A binary long and its text are the same moment."""
    number = int(moment_s * 1_000 * PER_MS[unit])
    for value in (big_endian(number), str(number).encode()):
        assert outcome(HeaderReader("t", unit), [("t", value)]) == STAMP_MS - moment_s * 1_000


@given(
    st.sampled_from(sorted(UNITS)),
    st.none() | st.lists(st.tuples(st.sampled_from("tx"), st.none() | st.binary(max_size=10))),
)
def test_headers_of_any_bytes_are_only_counted(unit: str, headers: list[tuple[str, bytes | None]] | None) -> None:
    """No header raises, whatever it holds."""
    found = outcome(HeaderReader("t", unit), headers)
    assert isinstance(found, int) or found in {reason.value for reason in Rejection}


def test_one_odd_header_leaves_the_batch_to_the_slow_path() -> None:
    """The fast path judges whole batches only."""
    good: list[tuple[str, bytes | None]] = [("t", b"1794999999527")]
    for odd in (None, [], [("t", None)], [("t", b"5")], [("t", b"x")], [("t", b"1795000000001")]):
        with pytest.raises(UnusualBatch):
            fast(HeaderReader("t"), good, odd, good)


def test_the_reader_is_the_one_asked_for() -> None:
    """A header's name comes before the payload's field, and the unit goes to either."""
    payload_reader = reader_for(Settings(timestamp_field=("a", "t"), timestamp_unit="s"))
    assert payload_reader.source == "value"
    assert outcome(payload_reader, b'{"a":{"t":1794999999.527}}') == DELTA_MS
    header_reader = reader_for(Settings(timestamp_header="h", timestamp_unit="us"))
    assert header_reader.source == "headers"
    assert outcome(header_reader, [("h", str(START_MS * 1_000).encode())]) == DELTA_MS
    assert isinstance(reader_for(Settings()), PayloadReader)
    assert outcome(reader_for(Settings()), payload(START_MS)) == DELTA_MS


# --------------------------------------------------------------------------------------------------------------- marks

MARKS: dict[bytes | None, str | None] = {
    b'{"id":1,"mark":"r/p/0/0/7"}': "r/p/0/0/7",
    b'{"mark":"a","mark":"b"}': "b",
    '{"mark":"Größe ⏱"}'.encode(): "Größe ⏱",
    b'{"m\\u0061rk":"\\u0041"}': "A",
    b'{"mark":""}': "",
    b'{"mark":"x","a":NaN}': "x",
    b'{"mark":5}': None,
    b'{"mark":null}': None,
    b'{"mark":["x"]}': None,
    b'{"inner":{"mark":"x"}}': None,
    b"{}": None,
    b"[]": None,
    b'["mark"]': None,
    b'"mark"': None,
    b'{"mark":"x"': None,
    b"\xff": None,
    b"[" * 10_000: None,
    b"": None,
    None: None,
}


@pytest.mark.parametrize("value", MARKS)
def test_a_mark_is_the_text_of_its_field(value: bytes | None) -> None:
    """Text is found by fast and slow path; anything else is no mark and never raises."""
    good, reader = b'{"mark":"good"}', MarkReader("mark")
    assert reader.texts([value]) == [MARKS[value]]
    assert reader.texts([good, value, good]) == ["good", MARKS[value], "good"]


@pytest.mark.parametrize("name", ["mark", "a.b", "0", "é", "²", "with blank"])
def test_a_mark_has_a_name_of_its_own(name: str) -> None:
    """A name with a dot is one name, and digits are no position; a payload that is an array has no field."""
    reader = MarkReader(name)
    assert reader.texts([payload("m", name)]) == ["m"]
    assert reader.texts([payload("m", name), b'{"a":{"b":"x"}}']) == ["m", None]
    assert reader.texts([b'["x","y"]', b"[]", b"x"]) == [None, None, None]


@given(st.lists(st.sampled_from(sorted(MARKS, key=repr)), max_size=6))
def test_marks_do_not_depend_on_the_batch(values: list[bytes | None]) -> None:
    """A batch gives the marks of its single messages."""
    assert MarkReader("mark").texts(values) == [MARKS[value] for value in values]
