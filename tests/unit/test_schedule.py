"""Due times against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.schedule import Profile, Schedule, Step, profile

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


# ------------------------------------------------------------------------------------------------------------ profiles

step_rates = st.fractions(0, 10**6, max_denominator=1_000)
steps = st.builds(Step, step_rates, step_rates, st.integers(1, 10**12))
profiles = st.lists(steps, min_size=1, max_size=4).map(tuple).map(Profile).filter(lambda found: found.mean_per_s > 0)


def messages_by(found: Profile, elapsed_ns: int) -> Fraction:
    """The area under the rate up to `elapsed_ns`: what is due by then, fractions of a message included."""
    area, left_ns = Fraction(0), elapsed_ns
    for step in found.steps:
        t_ns = min(left_ns, step.duration_ns)
        reached = step.from_per_s + (step.to_per_s - step.from_per_s) * Fraction(t_ns, step.duration_ns)
        area += (step.from_per_s + reached) / 2 * Fraction(t_ns, NS_PER_S)
        left_ns -= t_ns
    return area


@given(profiles, st.integers(0, 4 * 10**12))
def test_a_profile_has_as_many_messages_due_as_the_area_under_its_rate(found: Profile, elapsed_ns: int) -> None:
    """However the rate changes, the messages due are its exact integral over the time that has come, rounded up."""
    assert found.schedule().due_count(elapsed_ns) == math.ceil(messages_by(found, elapsed_ns + 1))


@given(profiles, st.floats(0, 1))
def test_a_message_of_a_profile_is_counted_from_its_due_time_on(found: Profile, place: float) -> None:
    """At its due time a message is among the due ones; a nanosecond earlier it is not."""
    schedule = found.schedule()
    total = schedule.due_count(10**15)
    index = int(place * (total - 1))
    assert schedule.due_count(schedule.due_ns(index)) >= index + 1
    assert schedule.due_count(schedule.due_ns(index) - 1) <= index


@given(profiles, st.integers(2, 7))
def test_producers_share_a_profile(found: Profile, producers: int) -> None:
    """Each share takes as long, and all together have its rate."""
    part = found.scaled(Fraction(1, producers))
    assert part.duration_s == found.duration_s
    assert math.isclose(part.mean_per_s * producers, found.mean_per_s)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("rate 1000 for 60s", "rate 1000 for 60s"),
        ("rate: 1K for 1m", "rate 1000 for 60s"),
        ("ramp 1000→20000 over 5m", "ramp 1000->20000 over 300s"),
        ("ramp: 0.5 -> 2.5/s over 1500ms; rate 0 for 1h", "ramp 0.5->2.5 over 1.5s, rate 0 for 3600s"),
        ("Ramp 1 to 2 over 3s\nRATE 2 FOR 1S", "ramp 1->2 over 3s, rate 2 for 1s"),
    ],
)
def test_a_profile_is_read_as_it_is_written(text: str, written: str) -> None:
    """Each way to write a step means what it says, and what is printed is read as the same again."""
    assert str(profile(text)) == written
    assert profile(str(profile(text))) == profile(text)


@pytest.mark.parametrize(
    "text", ["", "1000 for 60s", "rate 1000", "rate -1 for 1s", "rate 1 for 0s", "rate 1 for 5", "ramp 1->2 for 1s",
             "rate 0 for 5s", "rate 1e9 for 1s", "rate 2000M for 1s", "rate 1 for 1001h"],
)  # fmt: skip
def test_what_is_no_profile_is_refused(text: str) -> None:
    """A step that is not understood, takes no time, or a profile without any message is an error that says what is."""
    with pytest.raises(ValueError, match="steps such as"):
        profile(text)


def test_a_slow_profile_can_be_read_again() -> None:
    """A rate under 0.0001 messages/s is written without an exponent, which no profile has."""
    slow = profile("rate 0.00005 for 10h").scaled(Fraction(1, 2))
    assert str(slow) == "rate 0.000025 for 36000s"
    assert profile(str(slow)).schedule().due_count(36_000 * 10**9) == 1
