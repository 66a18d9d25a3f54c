"""Payload bytes → delta or the counter that docs/measurement.md names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import measure

from perf.payload import DAY_MS, YEAR_2000_MS, PayloadReader, Rejection, UnusualBatch, is_plausible
from perf.settings import OPTIONS, SettingsError, checked
from perf.stats import Statistics

STAMP_MS = 1_795_000_000_000
START_MS = STAMP_MS - 1_000
READER = PayloadReader(["timestamp_start"])
NESTED = PayloadReader(["meta", "time"])

DEEP = 10_000

#: What a message holds → its delta in ms, or its counter.
PAYLOADS: dict[str, tuple[bytes | None, int | str]] = {
    # measured
    "a plain number": (b'{"timestamp_start":1794999999000}', 1_000),
    "blanks and other fields": (b' \t{ "a" : [1, {"b":null}], "timestamp_start" : 1794999999000 } \r\n', 1_000),
    "the same moment": (b'{"timestamp_start":1795000000000}', 0),
    "later than the result": (b'{"timestamp_start":1795000000007}', -7),
    "exactly a day later": (b'{"timestamp_start":%d}' % (STAMP_MS + DAY_MS), -DAY_MS),
    "the first moment of 2000": (b'{"timestamp_start":946684800000}', STAMP_MS - 946_684_800_000),
    "numeric text": (b'{"timestamp_start":"1794999999000"}', 1_000),
    "numeric text with blanks": (b'{"timestamp_start":" 1794999999000\\n"}', 1_000),
    "numeric text with a fraction": (b'{"timestamp_start":"1794999999000.0"}', 1_000),
    "a float": (b'{"timestamp_start":1.795e12}', 0),
    "a float 1.7e12": (b'{"timestamp_start":1.7e12}', 95_000_000_000),
    "a fraction of a millisecond": (b'{"timestamp_start":1794999999000.4}', 1_000),
    "over half a millisecond": (b'{"timestamp_start":1794999998999.6}', 1_000),
    "doubled key, the last is good": (b'{"timestamp_start":null,"timestamp_start":1794999999000}', 1_000),
    "doubled key, both are good": (b'{"timestamp_start":1794999990000,"timestamp_start":1794999999000}', 1_000),
    "an escaped key": (b'{"timestamp\\u005fstart":1794999999000}', 1_000),
    "bare NaN in another field": (b'{"a":NaN,"timestamp_start":1794999999000}', 1_000),
    "bare -Infinity in another field": (b'{"timestamp_start":1794999999000,"a":[-Infinity]}', 1_000),
    "a lone surrogate in another field": (b'{"a":"\\ud800","timestamp_start":1794999999000}', 1_000),
    "bad UTF-8 in another field": (b'{"a":"\xff\xfe","timestamp_start":1794999999000}', 1_000),
    "bad UTF-8 in another key": (b'{"\xff":1,"timestamp_start":1794999999000}', 1_000),
    "1 MB before the field": (b'{"a":"' + b"x" * 1_000_000 + b'","timestamp_start":1794999999000}', 1_000),
    "1 MB after the field": (b'{"timestamp_start":1794999999000,"a":[' + b"1," * 500_000 + b"1]}", 1_000),
    "1e400 in another field": (b'{"a":1e400,"timestamp_start":1794999999000}', 1_000),
    # without the field
    "an empty object": (b"{}", "no_timestamp_start"),
    "another field only": (b'{"timestamp":1794999999000}', "no_timestamp_start"),
    "other capitals": (b'{"Timestamp_Start":1794999999000}', "no_timestamp_start"),
    "the field deeper inside": (b'{"meta":{"timestamp_start":1794999999000}}', "no_timestamp_start"),
    "1 MB without the field": (b'{"a":"' + b"x" * 1_000_000 + b'"}', "no_timestamp_start"),
    # no number
    "null": (b'{"timestamp_start":null}', "invalid_timestamp_start"),
    "true": (b'{"timestamp_start":true}', "invalid_timestamp_start"),
    "false": (b'{"timestamp_start":false}', "invalid_timestamp_start"),
    "NaN": (b'{"timestamp_start":NaN}', "invalid_timestamp_start"),
    "Infinity": (b'{"timestamp_start":Infinity}', "invalid_timestamp_start"),
    "-Infinity": (b'{"timestamp_start":-Infinity}', "invalid_timestamp_start"),
    "1e400": (b'{"timestamp_start":1e400}', "invalid_timestamp_start"),
    "text": (b'{"timestamp_start":"yesterday"}', "invalid_timestamp_start"),
    "empty text": (b'{"timestamp_start":""}', "invalid_timestamp_start"),
    "NaN as text": (b'{"timestamp_start":"NaN"}', "invalid_timestamp_start"),
    "inf as text": (b'{"timestamp_start":"inf"}', "invalid_timestamp_start"),
    "1e400 as text": (b'{"timestamp_start":"1e400"}', "invalid_timestamp_start"),
    "a date": (b'{"timestamp_start":"2026-11-22T23:59:14.527Z"}', "invalid_timestamp_start"),
    "hexadecimal text": (b'{"timestamp_start":"0x1a1d8d5f0c0"}', "invalid_timestamp_start"),
    "underscores in text": (b'{"timestamp_start":"1_794_999_999_000"}', "invalid_timestamp_start"),
    "Arabic digits": ('{"timestamp_start":"١٧٩٤٩٩٩٩٩٩٠٠٠"}'.encode(), "invalid_timestamp_start"),
    "an object": (b'{"timestamp_start":{"$date":1794999999000}}', "invalid_timestamp_start"),
    "an array": (b'{"timestamp_start":[1794999999000]}', "invalid_timestamp_start"),
    "doubled key, the last is null": (
        b'{"timestamp_start":1794999999000,"timestamp_start":null}',
        "invalid_timestamp_start",
    ),
    # no such moment
    "zero": (b'{"timestamp_start":0}', "implausible_timestamp_start"),
    "negative": (b'{"timestamp_start":-1794999999000}', "implausible_timestamp_start"),
    "seconds": (b'{"timestamp_start":1794999999}', "implausible_timestamp_start"),
    "microseconds": (b'{"timestamp_start":1794999999000000}', "implausible_timestamp_start"),
    "just before 2000": (b'{"timestamp_start":946684799999}', "implausible_timestamp_start"),
    "over a day later": (b'{"timestamp_start":%d}' % (STAMP_MS + DAY_MS + 1), "implausible_timestamp_start"),
    "2**63": (b'{"timestamp_start":9223372036854775808}', "implausible_timestamp_start"),
    "2**64": (b'{"timestamp_start":18446744073709551616}', "implausible_timestamp_start"),
    "300 digits": (b'{"timestamp_start":' + b"1" * 300 + b"}", "implausible_timestamp_start"),
    "300 digits as text": (b'{"timestamp_start":"' + b"1" * 300 + b'"}', "implausible_timestamp_start"),
    "1e300": (b'{"timestamp_start":1e300}', "implausible_timestamp_start"),
    # no JSON object
    "text that is no JSON": (b"hello", "not_json"),
    "cut off": (b'{"timestamp_start":17949999', "not_json"),
    "something behind it": (b'{"timestamp_start":1794999999000}x', "not_json"),
    "two objects": (b'{"timestamp_start":1794999999000}{"timestamp_start":1794999999000}', "not_json"),
    "leading zero": (b'{"timestamp_start":01794999999000}', "not_json"),
    "a comma too many": (b'{"timestamp_start":1794999999000,}', "not_json"),
    "single quotes": (b"{'timestamp_start':1794999999000}", "not_json"),
    "a number": (b"1794999999000", "not_json"),
    "JSON text": (b'"timestamp_start"', "not_json"),
    "JSON null": (b"null", "not_json"),
    "an array of objects": (b'[{"timestamp_start":1794999999000}]', "not_json"),
    "blanks": (b" \n", "not_json"),
    "byte order mark": (b'\xef\xbb\xbf{"timestamp_start":1794999999000}', "not_json"),
    "UTF-16": ('{"timestamp_start":1794999999000}'.encode("utf-16"), "not_json"),
    "bytes of no meaning": (b"\x00\x01\xff\xfe", "not_json"),
    "an Avro record": (b"\x00\x00\x00\x00\x07\x02\x90\xb6", "not_json"),
    "10,000 levels of arrays": (
        b'{"a":' + b"[" * DEEP + b"]" * DEEP + b',"timestamp_start":1794999999000}',
        "not_json",
    ),
    "10,000 levels of objects": (
        b'{"timestamp_start":1794999999000,"a":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        "not_json",
    ),
    "10,000 levels, not closed": (b"[" * DEEP, "not_json"),
    # nothing
    "a tombstone": (None, "empty"),
    "zero bytes": (b"", "empty"),
}


def outcome(reader: PayloadReader, value: bytes | None, stamp_ms: int = STAMP_MS) -> int | str:
    """The delta, or the counter's name."""
    found = reader.delta(value, stamp_ms)
    return found.value if isinstance(found, Rejection) else found


# ------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_ends_as_its_delta_or_in_its_counter(name: str) -> None:
    """Each kind of good and bad message gives the delta or the counter of docs/measurement.md."""
    value, expected = PAYLOADS[name]
    assert outcome(READER, value) == expected


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_fast_path_agrees_about_a_single_message(name: str) -> None:
    """The fast path gives the same delta, or leaves the message to the slow one."""
    value, expected = PAYLOADS[name]
    try:
        found = READER.deltas([value], [STAMP_MS])
    except UnusualBatch:
        return
    assert found == [expected]


@pytest.mark.parametrize("name", PAYLOADS)
def test_without_a_kafka_timestamp_nothing_is_measured(name: str) -> None:
    """A record without a Kafka timestamp is counted as that, whatever it holds."""
    assert outcome(READER, PAYLOADS[name][0], -1) == "no_kafka_timestamp"


def test_the_counters_of_the_whole_table_sum_to_the_messages_read() -> None:
    """After every kind of bad input the counters and the measured messages are all that was read."""
    statistics = Statistics()
    expected = dict.fromkeys((reason.value for reason in Rejection), 0)
    for value, counter in PAYLOADS.values():
        found = READER.delta(value, STAMP_MS)
        if isinstance(found, Rejection):
            statistics.reject(found)
        else:
            measure(statistics, [found])
        if isinstance(counter, str):
            expected[counter] += 1
    summary = statistics.summary(elapsed_s=1.0)
    assert summary.not_measured == expected
    assert summary.measured + sum(summary.not_measured.values()) == summary.messages_read == len(PAYLOADS)


@pytest.mark.parametrize("digits", [400, 4_301, 100_000])
@pytest.mark.parametrize("quote", ['"', ""])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_any_length_is_only_counted(digits: int, quote: str, sign: str) -> None:
    """Numbers beyond Python's limit for digits, plain or as text, do not end the run."""
    value = f'{{"timestamp_start":{quote}{sign}{"7" * digits}{quote}}}'.encode()
    assert outcome(READER, value) in ("implausible_timestamp_start", "invalid_timestamp_start")
    assert isinstance(READER.hint(value, STAMP_MS), str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"meta":{"time":1794999999000}}', 1_000),
        (b'{"meta":{"a":[],"time":"1794999999000"},"time":3}', 1_000),
        (b'{"meta":{"time":1},"meta":{"time":1794999999000}}', 1_000),
        (b'{"meta":{"time":1794999999000},"meta":{}}', "no_timestamp_start"),
        (b'{"meta":{"time":null}}', "invalid_timestamp_start"),
        (b'{"meta":{}}', "no_timestamp_start"),
        (b'{"meta":null}', "no_timestamp_start"),
        (b'{"meta":[{"time":1794999999000}]}', "no_timestamp_start"),
        (b'{"meta":1794999999000}', "no_timestamp_start"),
        (b'{"meta.time":1794999999000}', "no_timestamp_start"),
        (b'{"time":1794999999000}', "no_timestamp_start"),
    ],
)
def test_a_path_leads_into_nested_objects(value: bytes, expected: int | str) -> None:
    """With the path meta.time the stamp is taken from inside, and anything on the way that is no object ends it."""
    assert outcome(NESTED, value) == expected


@pytest.mark.parametrize("name", ["Zeit ⏱", "a.b", "with space", "inner", "type", "class", "é"])
@pytest.mark.parametrize("outer", [(), ("meta",), ("inner", "inner")])
def test_any_attribute_name_can_hold_the_stamp(name: str, outer: tuple[str, ...]) -> None:
    """Names with dots, blanks or letters of any script are found, nested or not."""
    path = (*outer, name)
    document: Any = START_MS
    for part in reversed(path):
        document = {part: document}
    for ascii_only in (True, False):
        value = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert PayloadReader(path).deltas([value], [STAMP_MS]) == [1_000]
        assert outcome(PayloadReader(path), value.replace(b"1794999999000", b"null")) == "invalid_timestamp_start"


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "line\nend", "tab\t", "nul\x00"])
def test_names_that_msgspec_cannot_take_are_refused_or_read(name: str) -> None:
    """A field name with quotes or control characters is read, or refused as a setting: never a defect of the tool."""
    option = OPTIONS["timestamp_field"]
    try:
        path = checked(option.flag, name, option.parse)
    except SettingsError:
        return
    assert outcome(PayloadReader(path), json.dumps({path[0]: START_MS}).encode()) == 1_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"timestamp_start":1794999999}', "1794999999 looks like seconds: --timestamp-unit s"),
        (b'{"timestamp_start":-5}', ": -5"),
        (b'{"timestamp_start":"x"}', ': "x"'),
        (b'{"timestamp_start":"2026-11-18 10:06:38.83Z"}', "looks like ISO 8601: --timestamp-unit iso8601"),
        (b'{"timestamp_start":1794999999000000}', "looks like microseconds: --timestamp-unit us"),
        (b"", ""),
    ],
)
def test_the_hint_shows_the_value_and_spots_seconds(value: bytes, expected: str) -> None:
    """A person is told what stands in the message, and that it looks like seconds where it does."""
    hint = READER.hint(value, STAMP_MS)
    assert expected in hint
    assert ("seconds" in hint) == ("seconds" in expected)
    assert bool(hint) == bool(expected)


@pytest.mark.parametrize(
    ("start_ms", "expected"),
    [
        (YEAR_2000_MS - 1, False),
        (YEAR_2000_MS, True),
        (STAMP_MS, True),
        (STAMP_MS + DAY_MS, True),
        (STAMP_MS + DAY_MS + 1, False),
    ],
)
def test_plausible_is_from_2000_to_a_day_after_the_record(start_ms: int, expected: bool) -> None:
    """Both limits belong to the plausible range."""
    assert is_plausible(start_ms, STAMP_MS) is expected


# --------------------------------------------------------------------------------------------------------- properties

stamps = st.integers(STAMP_MS - 10, STAMP_MS + 10) | st.integers(-1, 2**63 - 1)
numbers_near = st.integers(START_MS - 20, STAMP_MS + 20) | st.sampled_from([YEAR_2000_MS, STAMP_MS + DAY_MS])
numeric_texts = st.one_of(
    numbers_near.map(str),
    st.decimals(0, 10**13, places=2).map(str),
    st.floats(0, 1e13).map(repr),
    st.integers().map(str),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), numbers_near, numeric_texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
documents = st.one_of(
    values,
    st.fixed_dictionaries({}, optional={"a": values, "timestamp_start": scalars, "meta": values}),
    st.fixed_dictionaries({"timestamp_start": numbers_near | numeric_texts}, optional={"a": values, "z": values}),
    st.fixed_dictionaries({"meta": st.fixed_dictionaries({}, optional={"time": values, "x": values})}),
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes | None:
    """JSON of all sorts, whole, cut off or spoilt, and bytes that never were JSON."""
    kind = draw(st.sampled_from(["whole", "whole", "whole", "cut", "spoilt", "bytes", "none"]))
    if kind == "none":
        return None
    if kind == "bytes":
        return draw(st.binary(max_size=40))
    text = json.dumps(draw(documents), ensure_ascii=draw(st.booleans()))
    data = text.encode("utf-8", "surrogatepass")
    if kind == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if kind == "spoilt":
        place = draw(st.integers(0, len(data)))
        return data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place:]
    return data


ordinary = st.builds(
    lambda start, more: json.dumps({"a": more, "timestamp_start": start}).encode(),
    st.integers(START_MS - 10, STAMP_MS - 20),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
messages = st.lists(st.tuples(ordinary | ordinary | ordinary | payloads(), stamps), min_size=1, max_size=8)


@settings(max_examples=300)
@given(payloads(), stamps)
@example(b'{"timestamp_start":1e999999999}', STAMP_MS)
@example(b'{"timestamp_start":"-0e-0"}', 0)
def test_every_message_gives_a_delta_or_a_rejection(value: bytes | None, stamp_ms: int) -> None:
    """`delta`, `start_ms` and `hint` never raise, whatever the bytes."""
    for reader in (READER, NESTED):
        assert type(reader.delta(value, stamp_ms)) in (int, Rejection)
        assert type(reader.start_ms(value)) in (int, Rejection)
        assert isinstance(reader.hint(value, stamp_ms), str)


@settings(max_examples=200)
@given(messages)
def test_the_fast_path_gives_what_single_messages_give(batch: Sequence[tuple[bytes | None, int]]) -> None:
    """`deltas` either leaves the whole batch alone or equals `delta` of each message."""
    for reader in (READER, NESTED):
        try:
            found = reader.deltas([value for value, _ in batch], [stamp for _, stamp in batch])
        except UnusualBatch:
            continue
        assert found == [reader.delta(value, stamp) for value, stamp in batch]


@given(st.lists(ordinary, min_size=1, max_size=8))
def test_ordinary_messages_take_the_fast_path(batch: Sequence[bytes]) -> None:
    """Plain JSON with a plausible stamp never falls back to the slow path."""
    stamps_ms = [STAMP_MS] * len(batch)
    assert READER.deltas(batch, stamps_ms) == [STAMP_MS - json.loads(value)["timestamp_start"] for value in batch]


def expected_outcome(document: object, path: Sequence[str], stamp_ms: int) -> int | str:  # noqa: PLR0911
    """The definition of docs/measurement.md, on the parsed document and with decimal arithmetic."""
    if stamp_ms < 0:
        return "no_kafka_timestamp"
    if not isinstance(document, dict):
        return "not_json"
    found: Any = document
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return "no_timestamp_start"
        found = found[name]
    if isinstance(found, bool) or not isinstance(found, (int, float, str)):
        return "invalid_timestamp_start"
    if isinstance(found, str) and not (found.isascii() and set(found) <= set("0123456789.eE+- \t\n\r\f\v")):
        return "invalid_timestamp_start"
    try:
        number = Decimal(found.strip() if isinstance(found, str) else found)
        nearest = number if number == number.to_integral_value() else Decimal(float(number)).to_integral_value()
    except InvalidOperation:
        return "invalid_timestamp_start"
    if not number.is_finite():
        return "invalid_timestamp_start"
    if not YEAR_2000_MS <= nearest <= stamp_ms + DAY_MS:
        return "implausible_timestamp_start"
    return stamp_ms - int(nearest)


@settings(max_examples=200)
@given(documents, stamps, st.booleans())
def test_a_json_document_is_classified_as_defined(document: object, stamp_ms: int, ascii_only: bool) -> None:
    """For any JSON document the outcome equals a recomputation from the parsed value."""
    text = json.dumps(document, ensure_ascii=ascii_only)
    try:
        value = text.encode()
    except UnicodeEncodeError:
        value = json.dumps(document).encode()
    for reader, path in ((READER, ["timestamp_start"]), (NESTED, ["meta", "time"])):
        assert outcome(reader, value, stamp_ms) == expected_outcome(document, path, stamp_ms)
