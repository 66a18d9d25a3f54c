"""The offset of a broker's clock, against simulated clocks whose true offset is known; and the wall clock."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf.clock import ClockOffset, Probe, offset_from
from perf.process import WallClock

NOW_MS = 1_795_000_000_000
EIGHTHS = 8  # times in eighths of a millisecond are exact in floats, so that no tolerance is needed


class Journey(NamedTuple):
    """A probe's way: when it was sent, until the broker stamped it, and until we had the answer; in 1/8 ms."""

    sent: int
    there: int
    back: int


eighths = st.integers(0, 40) | st.integers(0, 5_000 * EIGHTHS)
journeys = st.builds(Journey, st.integers(0, 60_000 * EIGHTHS), eighths, eighths)
offsets = st.integers(-50, 50) | st.integers(-(10**9) * EIGHTHS, 10**9 * EIGHTHS)


def probe(journey: Journey, offset: int) -> Probe:
    """What we see of a probe where the broker's clock is ahead by `offset` eighths, its stamp cut to whole ms."""
    sent_ms = NOW_MS + journey.sent / EIGHTHS
    stamped = NOW_MS * EIGHTHS + journey.sent + journey.there + offset
    return Probe(sent_ms, sent_ms + (journey.there + journey.back) / EIGHTHS, stamped // EIGHTHS)


@given(st.lists(journeys, min_size=1, max_size=15), offsets)
@example([Journey(0, 0, 0)], 7)
@example([Journey(3, 0, 4_000)], 0)
@example([Journey(3, 4_000, 0)], -1)
def test_the_interval_contains_the_true_offset(ways: list[Journey], offset: int) -> None:
    """However unequal the ways there and back, the true offset is within ± the bound."""
    found = offset_from(7, [probe(way, offset) for way in ways])
    assert abs(found.offset_ms - offset / EIGHTHS) <= found.bound_ms
    assert found.broker == 7


@given(st.lists(journeys, min_size=1, max_size=15), offsets)
def test_the_least_round_trip_wins(ways: list[Journey], offset: int) -> None:
    """The bound is half of the quickest probe's round trip and a millisecond, and the offset is that probe's."""
    probes = [probe(way, offset) for way in ways]
    found = offset_from(1, iter(probes))
    quickest = min(way.there + way.back for way in ways)
    assert found.bound_ms == quickest / EIGHTHS / 2 + 1
    alone = [offset_from(1, [one]) for one, way in zip(probes, ways, strict=True) if way.there + way.back == quickest]
    assert found in alone


def test_an_offset_by_hand() -> None:
    """Sent at 100, acknowledged at 104, stamped 112: ten milliseconds ahead, give or take three."""
    slow = Probe(0.0, 50.0, 0)
    expected = ClockOffset(broker=2, offset_ms=10.0, bound_ms=3.0)
    assert offset_from(2, [slow, Probe(100.0, 104.0, 112), slow]) == expected


def test_clocks_on_one_machine_agree() -> None:
    """Probes stamped by this machine's own clock have an interval that contains 0."""
    probes = []
    for _ in range(5):
        sent_ms = time.time() * 1000
        stamp_ms = int(time.time() * 1000)
        probes.append(Probe(sent_ms, time.time() * 1000, stamp_ms))
    found = offset_from(1, probes)
    assert abs(found.offset_ms) <= found.bound_ms


def test_the_wall_clock_never_goes_back() -> None:
    """It is the time of day at its start, and carried on by a clock that nobody sets."""
    clock = WallClock()
    times_ms = [clock.now_ms() for _ in range(1_000)]
    assert times_ms == sorted(times_ms)
    assert math.isclose(times_ms[-1], time.time() * 1000, abs_tol=5_000)
    assert not any(math.isclose(now_ms, time.monotonic() * 1000, rel_tol=0.5) for now_ms in times_ms)


def test_a_stepped_time_of_day_does_not_reach_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the machine's clock is set back an hour mid-run, ours goes on."""
    clock = WallClock()
    before_ms = clock.now_ms()
    monkeypatch.setattr(time, "time", lambda: before_ms / 1000 - 3_600)
    assert 0 <= clock.now_ms() - before_ms < 60_000
