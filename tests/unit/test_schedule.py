"""Due times against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.schedule import Schedule

NS_PER_S = 10**9

rates = st.floats(1e-6, 1e9) | st.sampled_from([0.1, 0.5, 1.0, 3.0, 7.0, 1_000.0, 1e6, 1e9])
indices = st.integers(0, 10**9)
moments_ns = st.integers(0, 10**15)


def exact_ns(rate_per_s: float, index: int) -> Fraction:
    """Message i is due i / rate seconds after the start."""
    return index / Fraction(rate_per_s) * NS_PER_S


@given(rates, indices)
def test_a_message_is_due_at_its_place_in_the_sequence(rate_per_s: float, index: int) -> None:
    """`due_ns` is i / rate in whole nanoseconds, rounded down, however large i is."""
    assert Schedule.at_rate(rate_per_s).due_ns(index) == math.floor(exact_ns(rate_per_s, index))


@given(rates, moments_ns)
def test_due_count_is_how_many_due_times_have_come(rate_per_s: float, elapsed_ns: int) -> None:
    """The last message counted is due by now, and the next one is not."""
    schedule = Schedule.at_rate(rate_per_s)
    due = schedule.due_count(elapsed_ns)
    assert due >= 1
    assert schedule.due_ns(due - 1) <= elapsed_ns < schedule.due_ns(due)


@given(rates, indices)
def test_a_message_is_counted_from_its_due_time_on(rate_per_s: float, index: int) -> None:
    """At its due time message i is among the due ones; a nanosecond earlier it is not."""
    schedule = Schedule.at_rate(rate_per_s)
    due_ns = schedule.due_ns(index)
    assert schedule.due_count(due_ns) >= index + 1
    assert schedule.due_count(due_ns - 1) <= index
    if schedule.due_ns(index + 1) > due_ns:
        assert schedule.due_count(due_ns) == index + 1


@given(rates, moments_ns, moments_ns)
def test_waiting_never_makes_messages_undue(rate_per_s: float, one_ns: int, other_ns: int) -> None:
    """More time, at least as many messages."""
    schedule = Schedule.at_rate(rate_per_s)
    earlier, later = sorted((one_ns, other_ns))
    assert schedule.due_count(earlier) <= schedule.due_count(later)


def test_the_first_message_is_due_at_once_and_none_before() -> None:
    """At the start one message is due; before it none."""
    schedule = Schedule.at_rate(1_000)
    assert (schedule.due_count(-1), schedule.due_count(0)) == (0, 1)


@pytest.mark.parametrize("rate_per_s", [3.0, 1_000.0, 1e6, 48_000.5, 0.5])
def test_the_schedule_does_not_slip_over_a_thousand_million_messages(rate_per_s: float) -> None:
    """Message 10**9 is due to the nanosecond when arithmetic with whole numbers says."""
    numerator, denominator = rate_per_s.as_integer_ratio()
    assert Schedule.at_rate(rate_per_s).due_ns(10**9) == 10**9 * NS_PER_S * denominator // numerator


def test_a_rate_without_an_exact_float_slips_less_than_a_microsecond() -> None:
    """One message in ten seconds: after 10**9 of them (317 years) the float's own error is under 1 µs."""
    schedule = Schedule.at_rate(0.1)
    assert abs(schedule.due_ns(1) - 10 * NS_PER_S) <= 1
    assert abs(schedule.due_ns(10**9) - 10**10 * NS_PER_S) < 1_000


@pytest.mark.parametrize(
    ("rate_per_s", "elapsed_s", "expected"),
    [(1_000.0, 1, 1_001), (1e6, 2, 2_000_001), (3.0, 10, 31), (0.5, 7, 4), (200_000.0, 60, 12_000_001)],
)
def test_the_count_is_the_rate_times_the_time(rate_per_s: float, elapsed_s: int, expected: int) -> None:
    """After a whole number of seconds rate × seconds messages have come, and the one due right now."""
    assert Schedule.at_rate(rate_per_s).due_count(elapsed_s * NS_PER_S) == expected


def test_messages_closer_than_a_nanosecond_come_together() -> None:
    """At 4 × 10**9 messages/s four are due in each nanosecond."""
    schedule = Schedule.at_rate(4e9)
    assert [schedule.due_count(elapsed_ns) for elapsed_ns in range(4)] == [4, 8, 12, 16]
    assert [schedule.due_ns(index) for index in range(6)] == [0, 0, 0, 0, 1, 1]
