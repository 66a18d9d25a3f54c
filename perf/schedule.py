"""Open-loop due times: pure functions of the position in the sequence, so that the schedule can never slip.

Message i is due i / rate after the start, whatever happened to the messages before it. A closed loop, which waits for
each answer, stops asking while the system stalls and so leaves the stall out ("coordinated omission").
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_NS_PER_S = 1_000_000_000
_NUMBER = r"[0-9]*\.?[0-9]+"
_STEP = re.compile(
    rf"rate ?:? ?({_NUMBER}[km]?)(?:/s)? for ({_NUMBER}(?:ms|s|m|h))|"
    rf"ramp ?:? ?({_NUMBER}[km]?) ?(?:→|->|to) ?({_NUMBER}[km]?)(?:/s)? over ({_NUMBER}(?:ms|s|m|h))"
)
_TIME_UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_RATE_UNITS = {"k": 1_000, "m": 1_000_000}
_MOST_PER_S, _LONGEST_NS = 10**9, 1000 * 3600 * 10**9
_ALLOWED = "steps such as 'rate 1000 for 60s' and 'ramp 1000->20000 over 5m', separated by commas, not all of rate 0"


@dataclass(frozen=True)
class Schedule:
    """A constant rate in messages per second. Times are nanoseconds since the start, rounded down."""

    ns_per_message: Fraction

    @classmethod
    def at_rate(cls, rate_per_s: float) -> Schedule:
        """A schedule of `rate_per_s` > 0 messages per second, exact for the float given."""
        return cls(_NS_PER_S / Fraction(rate_per_s))

    def due_ns(self, index: int) -> int:
        """When message `index` (from 0) is due."""
        return index * self.ns_per_message.numerator // self.ns_per_message.denominator

    def due_count(self, elapsed_ns: int) -> int:
        """How many messages are due by `elapsed_ns`: the indices whose due_ns is not later."""
        # the largest i with floor(i * step) <= elapsed, plus one, is the smallest i with i * step >= elapsed + 1
        return -(-(elapsed_ns + 1) * self.ns_per_message.denominator // self.ns_per_message.numerator)


@dataclass(frozen=True)
class Step:
    """A part of a load profile: the rate goes evenly from the one value to the other (the same: constant)."""

    from_per_s: Fraction
    to_per_s: Fraction
    duration_ns: int

    def scaled(self, factor: Fraction) -> Step:
        """The same with other rates."""
        return Step(self.from_per_s * factor, self.to_per_s * factor, self.duration_ns)

    def __str__(self) -> str:
        rates = [_plain(rate) for rate in (self.from_per_s, self.to_per_s)]
        duration = f"{Decimal(self.duration_ns).scaleb(-9):f}".rstrip("0").rstrip(".")
        if self.from_per_s == self.to_per_s:
            return f"rate {rates[0]} for {duration}s"
        return f"ramp {rates[0]}->{rates[1]} over {duration}s"


@dataclass(frozen=True)
class Profile:
    """A load profile: steps one after another."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.steps))

    @property
    def duration_s(self) -> float:
        """How long all steps take."""
        return sum(step.duration_ns for step in self.steps) / _NS_PER_S

    @property
    def mean_per_s(self) -> float:
        """The mean rate."""
        areas = (step.duration_ns * (step.from_per_s + step.to_per_s) / 2 for step in self.steps)
        return float(sum(areas) / sum(step.duration_ns for step in self.steps))

    @property
    def is_constant(self) -> bool:
        """Whether all of it is one rate."""
        return len({rate for step in self.steps for rate in (step.from_per_s, step.to_per_s)}) == 1

    def scaled(self, factor: Fraction) -> Profile:
        """The same with other rates: the share of one of several producers."""
        return Profile(tuple(step.scaled(factor) for step in self.steps))

    def schedule(self) -> PiecewiseSchedule:
        """When each message is due."""
        return PiecewiseSchedule(self)


def profile(text: str) -> Profile:
    """The load profile that `text` declares. Raises ValueError that says what is allowed."""
    words = [" ".join(part.split()).lower() for part in re.split(r"[,;\n]", text)]
    steps = tuple(_step(part) for part in words if part)
    if not any(step.from_per_s or step.to_per_s for step in steps):
        raise ValueError(_ALLOWED)
    return Profile(steps)


def _step(text: str) -> Step:
    match = _STEP.fullmatch(text)
    if match is None:
        raise ValueError(_ALLOWED)
    constant, constant_time, first, last, ramp_time = match.groups()
    time = re.fullmatch(r"(.*?)(ms|s|m|h)", constant_time or ramp_time)
    assert time is not None
    duration_ns = math.floor(Fraction(time[1]) * _TIME_UNITS_NS[time[2]])
    rates = [_per_s(rate) for rate in ((constant, constant) if constant else (first, last))]
    if not 0 < duration_ns <= _LONGEST_NS or max(rates) > _MOST_PER_S:
        raise ValueError(f"{_ALLOWED}; up to 1000 hours each, and 10^9 messages/s")
    return Step(rates[0], rates[1], duration_ns)


def _plain(per_s: Fraction) -> str:
    """A rate as `profile` takes it, without an exponent."""
    return f"{Decimal(f'{float(per_s):.12g}'):f}"


def _per_s(text: str) -> Fraction:
    factor = _RATE_UNITS.get(text[-1], 1)
    return Fraction(text.rstrip("km")) * factor


class PiecewiseSchedule:
    """The due times of a profile, exact in whole numbers. Times are nanoseconds since the start, rounded down.

    After t ns of a step that begins with `base` messages and changes its rate evenly from a to b in T ns, there are
    N(t) = base + a·t + (b - a)·t² / 2T messages, and message i is due when N gets beyond i. All is multiplied by the
    rates' common denominator, so that nothing is ever rounded but the result.
    """

    def __init__(self, profile: Profile) -> None:
        per_ns = [(step.from_per_s / _NS_PER_S, step.to_per_s / _NS_PER_S) for step in profile.steps]
        self._scale = 2 * math.lcm(*(rate.denominator for pair in per_ns for rate in pair))
        self._pieces: list[tuple[int, int, int, int]] = []  # start, T, a and b - a, these two times the scale
        self._starts_ns, self._bases = [0], [0]  # of each piece, and of what is behind the last; bases times the scale
        for (first, last), step in zip(per_ns, profile.steps, strict=True):
            a, b = int(first * self._scale), int(last * self._scale)
            self._pieces.append((self._starts_ns[-1], step.duration_ns, a, b - a))
            self._starts_ns.append(self._starts_ns[-1] + step.duration_ns)
            self._bases.append(self._bases[-1] + (a + b) * step.duration_ns // 2)

    def due_ns(self, index: int) -> int:
        """When message `index` (from 0) is due; behind the last one that is never, but the profile's end is given."""
        piece = bisect_right(self._bases, index * self._scale) - 1
        if piece >= len(self._pieces):
            return self._starts_ns[-1]
        start_ns, duration_ns, a, change = self._pieces[piece]
        wanted = index * self._scale - self._bases[piece]  # the largest t with change·t² + 2T·a·t <= 2T·wanted
        if not change:
            return start_ns + wanted // a
        half = duration_ns * a
        square = half * half + 2 * duration_ns * wanted * change
        if change > 0:
            return start_ns + (math.isqrt(square) - half) // change
        root = math.isqrt(square - 1) + 1 if square else 0
        return start_ns + (half - root) // -change

    def due_count(self, elapsed_ns: int) -> int:
        """How many messages are due by `elapsed_ns`: the indices whose due_ns is not later."""
        moment_ns = min(elapsed_ns + 1, self._starts_ns[-1])  # as in Schedule
        if moment_ns <= 0:
            return 0
        piece = bisect_right(self._starts_ns, moment_ns - 1) - 1
        start_ns, duration_ns, a, change = self._pieces[piece]
        t = moment_ns - start_ns
        whole = 2 * duration_ns
        count = whole * (self._bases[piece] + a * t) + change * t * t
        return -(-count // (whole * self._scale))
