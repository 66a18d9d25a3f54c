"""Bytes → the text of an option, a limit or a .env file: a value that means what the text says, or SettingsError.

The first byte chooses the option; behind the last one come .env files.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

from perf import limits
from perf.limits import Limit
from perf.payload import MarkReader, PayloadReader
from perf.settings import OPTIONS, Settings, SettingsError, Trace, Warmup, checked, load
from perf.trace import with_field

FIELDS = list(OPTIONS)
SEEDS = [
    *(
        bytes([number]) + text.encode()
        for number, field in enumerate(FIELDS)
        for text in (
            {"fail_if": ("p99 > 250ms", "rate < 0.99*target", "lost > 0", "visible p99.9 >= 1.5s")}.get(field)
            or {"start": ("2026-11-23T08:00:00Z", "2026-11-23 09:00:00.5+0100", "latest")}.get(field)
            or {"trace": ("field:mark", "header:x", "key")}.get(field)
            or ("100K", "1.5", "30s", "500ms", "a.b\\.c", "'x'", "K=V", "send", "ms", "earliest", "a-clock", "100,1K")
        )
    ),
    *(
        bytes([len(FIELDS)]) + text
        for text in (b'SIZE=100K\nRATE="5"\n', b"export FROM='latest' # c\nTOPIC_NAME=\\x", b'A\nB="\n')
    ),
]
WORDS = [
    "K", "M", "ms", "s", "m", "h", "e5", "1", ".", "-", "+", "field:", "header:", "key", "p99", "p99.9", "visible ",
    "ack ", " > ", "<=", "!=", "*", "target", "rate", "lost", "2026-11-23", "T08:00", ":30", ".5", "Z", "+0100", "\\.",
    ",", "=", "\n", '"', "'", "\\", "SIZE=", "export ", "#", "${A}", "_", "٣",
]  # fmt: skip
STAMP_MS = 1_795_000_000_000
_UNITS = {"ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "": Decimal(1)}
_COUNT = {"": 1, "k": 1_000, "m": 1_000_000}
_PATH = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.env"


def check(data: bytes) -> None:
    """Raises for an option that ends in another exception than SettingsError, or in a value that is not the text's."""
    if not data:
        return
    if data[0] >= len(FIELDS):
        _check_dotenv(data[1:])
        return
    option, text = OPTIONS[FIELDS[data[0]]], os.fsdecode(data[1:])
    try:
        value = checked(option.flag, text, option.parse)
    except SettingsError as error:
        assert str(error).startswith(f"{option.flag}: ")
        return
    _MEANT.get(option.field, _is_text)(text, value)


def _check_dotenv(content: bytes) -> None:
    _PATH.write_bytes(content)
    logging.getLogger("dotenv").setLevel(logging.ERROR)  # it warns of each line that it cannot read
    arguments = Namespace(**dict.fromkeys(FIELDS))
    try:
        options = load(arguments, FIELDS, {"KAFKA_BROKERS": "host:9092"}, _PATH)
    except SettingsError:
        return
    finally:
        _PATH.unlink()
    assert isinstance(options, Settings)
    assert options.brokers == "host:9092"
    for option in OPTIONS.values():  # what was read is what the option's own parser makes of it
        given = options.environment.get(option.variable)
        if given and not option.repeats and option.field != "brokers":
            assert getattr(options, option.field) == option.parse(given)


def _is_text(text: str, value: Any) -> None:
    assert value == text, f"{value!r}, not {text!r}"


def _is_sendable(text: str, value: Any) -> None:
    _is_text(text, value)
    value.encode()  # as Kafka's client needs it


def _is_count(text: str, value: Any) -> None:
    match = re.fullmatch(r"\s*0*([0-9]+)([km]?)\s*", text.lower())
    assert match and value == int(match[1]) * _COUNT[match[2]]
    assert type(value) is int and 1 <= value < 2**63


def _is_rate(text: str, value: Any) -> None:
    match = re.fullmatch(r"([0-9.e+-]+)([km]?)", text.strip().lower())
    assert match and _near(value, Decimal(match[1]) * _COUNT[match[2]])
    assert 0 <= value <= 1e9


def _is_time(text: str, value: Any) -> None:
    match = re.fullmatch(r"([0-9.e+-]+)\s*(ms|s|m|h|)", text.strip().lower())
    assert match and _near(value, Decimal(match[1]) * _UNITS[match[2]])
    assert 0 < value < 1e9


def _near(value: float, exact: Decimal) -> bool:
    return abs(Decimal(value) - exact) <= abs(exact) * Decimal("1e-12")


def _is_start(text: str, value: Any) -> None:
    if isinstance(value, str):
        assert value == text.strip().lower() and value in ("earliest", "latest")
        return
    moment = datetime.fromisoformat(text.strip().upper())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert value == since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def _is_path(text: str, value: Any) -> None:
    assert all(value) and ".".join(name.replace(".", "\\.") for name in value) == text


def _is_readable_path(text: str, value: Any) -> None:
    """Wherever it leads, the payload's reader goes there."""
    _is_path(text, value)
    document: Any = STAMP_MS - 7
    for name in reversed(value):
        document = {name: document}
    assert PayloadReader(value).delta(json.dumps(document, ensure_ascii=False).encode(), STAMP_MS) == 7


def _are_windows(text: str, value: Any) -> None:
    assert list(value) == sorted(set(value))
    parts = text.split(",")
    for window in value:
        assert any(_holds(_is_count, part, window) for part in parts)
    assert len(value) <= len(parts)


def _holds(check_one: Callable[[str, Any], None], text: str, value: Any) -> bool:
    try:
        check_one(text, value)
    except AssertionError:
        return False
    return True


def _is_warmup(text: str, value: Any) -> None:
    assert isinstance(value, Warmup) and bool(value.messages) != bool(value.seconds)
    if value.messages:
        _is_count(text, value.messages)
    else:
        assert text.strip()[-1] in "smhSMH"
        _is_time(text, value.seconds)


def _is_trace(text: str, value: Any) -> None:
    """And its mark is found where it was put."""
    assert isinstance(value, Trace)
    if value.place == "field":
        assert MarkReader(value.name).texts([with_field(b'{"a":1}', value.name, b"R/P/1/0/0")]) == ["R/P/1/0/0"]
    value.name.encode()  # as a header's name
    assert text == (value.place if value.place == "key" else f"{value.place}:{value.name}")


def _is_pair(text: str, value: Any) -> None:
    name, _, rest = text.partition("=")
    assert value == (name.strip(), rest.strip()) and value[0]


def _is_file(text: str, value: Any) -> None:
    assert value == Path(text)
    assert value.absolute().parent.is_dir()


def _is_limit(text: str, value: Any) -> None:
    """It says the same again, and judges a value on each side of the bound."""
    assert isinstance(value, Limit)
    assert limits.parse(value.text) == value
    assert value.check({}).exceeded, "a limit that cannot be judged does not hold"
    for actual in (0.0, value.quantity, value.quantity * 2 + 1):
        metrics = {value.metric: actual} if value.reference is None else {value.metric: actual, value.reference: 1.0}
        if value.reference == value.metric:
            continue
        expected = {
            ">": actual > value.quantity,
            ">=": actual >= value.quantity,
            "<": actual < value.quantity,
            "<=": actual <= value.quantity,
            "==": actual == value.quantity,
            "!=": actual != value.quantity,
        }
        assert value.check(metrics).exceeded is expected[value.comparison]
    match = re.search(r"([0-9]*\.?[0-9]+) ?(us|ms|s|m|/s|)$", " ".join(text.lower().split()))
    if match and value.reference is None:
        scale = {"us": "1e-3", "ms": "1", "s": "1e3", "m": "6e4"}.get(match[2], "1")
        assert _near(value.quantity, Decimal(match[1]) * Decimal(scale))


def _is_port(text: str, value: Any) -> None:
    assert 0 < int(text) == value < 2**16


def _are_roles(text: str, value: Any) -> None:
    roles = dict(part.split(":") for part in re.sub(r"\s", "", text).split(","))
    assert {name.removesuffix("s"): int(count) for name, count in roles.items()} == value


def _is_switch(text: str, value: Any) -> None:
    assert value is (text.strip().lower() in {"yes", "true", "1"})


def _is_profile(text: str, value: Any) -> None:
    assert text and value == OPTIONS["profile"].parse(str(value))
    assert value.duration_s > 0 and value.mean_per_s > 0


_MEANT: Mapping[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("size", "count", "partitions", "replication_factor", "producers"), _is_count),
    **dict.fromkeys(("duration_s", "idle_timeout_s", "linger_s", "drain_timeout_s", "step_s"), _is_time),
    **dict.fromkeys(("group", "timestamp_header", "topic"), _is_sendable),
    "brokers": lambda text, value: _is_sendable(",".join(place.strip() for place in text.split(",")), value),
    "keyname": _is_path,
    "timestamp_field": _is_readable_path,
    "rate_per_s": _is_rate,
    "start": _is_start,
    "windows": _are_windows,
    "warmup": _is_warmup,
    "trace": _is_trace,
    "config": _is_pair,
    **dict.fromkeys(("result", "html", "json", "hgrm", "hlog"), _is_file),
    **dict.fromkeys(("create_topics", "find_capacity"), _is_switch),
    "profile": _is_profile,
    "resolution": lambda text, value: _is_rate(text.strip().removesuffix("%"), 100 * value),
    **dict.fromkeys(("scenario", "folder"), lambda text, value: _is_text(str(Path(text)), str(value))),
    "file": lambda text, value: _is_text(text, str(value)) if text == os.path.normpath(text) else None,
    "fail_if": _is_limit,
    "wait_timeout_s": _is_time,
    "expect_ratio": _is_rate,
    "wait_for": _are_roles,
    "metrics_port": _is_port,
    "termination_message": _is_file,
}
