"""test.py: single messages for the eye."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from perf.payload import PayloadReader

STAMP_MS = 1_795_000_000_000
ROOT = Path(__file__).resolve().parents[2]

# a module called `test` is the standard library's
lines: Callable[[Message, PayloadReader], list[str]] = runpy.run_path(str(ROOT / "test.py"), run_name="look")["_lines"]


def shown(value: bytes | None, stamp: tuple[int, int] = (2, STAMP_MS)) -> list[str]:
    """The lines for a message of partition 1, offset 42."""
    return lines(Message("t", 1, 42, None, value, timestamp=stamp), PayloadReader(["timestamp_start"]))


def test_a_message_is_shown_with_both_stamps_and_their_difference() -> None:
    """Place, content, both times in UTC, and the difference in milliseconds and minutes."""
    assert shown(b'{"timestamp_start":1794999940000}') == [
        'partition 1, offset 42: {"timestamp_start":1794999940000}',
        "  Kafka timestamp  1795000000000 = 2026-11-18T11:06:40.000Z LogAppendTime",
        "  timestamp_start  1794999940000 = 2026-11-18T11:05:40.000Z",
        "  difference       60000 ms = 1.0000 minutes",
        "",
    ]


def test_a_difference_of_over_a_minute_is_whole() -> None:
    """62,870 ms are shown as that, and not as the 870 ms beyond the minute."""
    assert "62870 ms = 1.0478 minutes" in shown(b'{"timestamp_start":1794999937130}')[3]


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (b"{}", "no_timestamp_start"),
        (b"hello", "not_json"),
        (b'{"timestamp_start":null}', "invalid_timestamp_start"),
        (None, "empty"),
        (b"", "empty"),
        (b"\xff\xfe", "not_json"),
    ],
)
def test_a_message_without_stamp_says_why(value: bytes | None, start: str) -> None:
    """The counter's name stands where the stamp would, and there is no difference."""
    found = shown(value)
    assert found[2] == f"  timestamp_start  {start}"
    assert found[3] == "  difference       n/a"


@pytest.mark.parametrize("start", ["0", "-1", "1794999999", "1" * 30, "7" * 350, "1e300", '"' + "9" * 5_000 + '"'])
def test_stamps_of_any_size_can_be_looked_at(start: str) -> None:
    """What the consumer would call implausible is shown as it is, without an error."""
    assert len(shown(b'{"timestamp_start":%b}' % start.encode())) == 5


def test_without_kafka_timestamp_there_is_no_difference() -> None:
    """TIMESTAMP_NOT_AVAILABLE is said: it is no date of 1969, and not the fault of timestamp_start."""
    found = shown(b'{"timestamp_start":1794999940000}', (0, 0))
    assert "not available" in found[1] and "1969" not in found[1]
    assert found[3].startswith("  difference       n/a") and "timestamp_start" not in found[3]


def test_long_messages_are_cut() -> None:
    """A megabyte does not flood the screen, the cut is visible, and the end is shown, where the stamp mostly stands."""
    text: Any = shown(b'{"a":"' + "ä".encode() * 500_000 + b'","timestamp_start":1794999940000}')[0]
    assert "ää … ää" in text
    assert text.endswith('"timestamp_start":1794999940000}')
    assert len(text) < 1_000
