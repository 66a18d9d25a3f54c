"""What several unit tests need."""

from __future__ import annotations

from collections.abc import Iterable

from perf.stats import Event, Statistics

STAMP_MS = 1_795_000_000_000


def measure(statistics: Statistics, deltas_ms: Iterable[int]) -> list[Event]:
    """Measure messages of one partition that were all stamped in one millisecond."""
    deltas_ms = list(deltas_ms)
    return statistics.add(deltas_ms, [STAMP_MS] * len(deltas_ms), [0] * len(deltas_ms))
