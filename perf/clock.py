"""How far a broker's clock is from ours, from probes: messages to a LogAppendTime topic that is there for nothing else.

The broker stamped a probe at some time between its sending and its acknowledgement, so its clock minus ours is the
stamp minus the middle of the two, give or take half the round trip; and one millisecond more, because a stamp is cut to
whole milliseconds. The probe with the least round trip knows best (as in NTP's clock filter, RFC 5905, section 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

STAMP_RESOLUTION_MS = 1.0


class Probe(NamedTuple):
    """One probe: sent and acknowledged by our clock, stamped by the broker's, in ms since the epoch."""

    sent_ms: float
    acknowledged_ms: float
    stamp_ms: int


class ClockOffset(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's clock minus ours: `offset_ms`, true within ± `bound_ms`."""

    broker: int
    offset_ms: float
    bound_ms: float


def offset_from(broker: int, probes: Iterable[Probe]) -> ClockOffset:
    """The offset from at least one probe."""
    best = min(probes, key=lambda probe: probe.acknowledged_ms - probe.sent_ms)
    middle_ms = (best.sent_ms + best.acknowledged_ms) / 2
    bound_ms = (best.acknowledged_ms - best.sent_ms) / 2 + STAMP_RESOLUTION_MS
    return ClockOffset(broker=broker, offset_ms=best.stamp_ms - middle_ms, bound_ms=bound_ms)


def offsets_from(found: Mapping[int, Sequence[tuple[float, float, int]]]) -> list[ClockOffset]:
    """The offset of each broker, in the order of their ids, from its probes' fields."""
    return [offset_from(broker, [Probe(*times) for times in probes]) for broker, probes in sorted(found.items())]
