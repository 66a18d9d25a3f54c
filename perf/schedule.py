"""Open-loop due times: pure functions of the position in the sequence, so that the schedule can never slip.

Message i is due i / rate after the start, whatever happened to the messages before it. A closed loop, which waits for
each answer, stops asking while the system stalls and so leaves the stall out ("coordinated omission").
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

_NS_PER_S = 1_000_000_000


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
