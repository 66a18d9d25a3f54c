"""Where a run stands while it goes on: snapshots that the main loop takes now and then, for a terminal and Prometheus.

The statistics belong to the main thread, which changes them all the time; others see only the last snapshot, which
nobody changes any more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .stats import Tally

RECENT_S = 10.0
_EVERY_S, _SELDOM_S = 0.5, 5.0
_SHARE = 200  # of the time goes to snapshots one part in so many, unless that made them too rare


class Snapshot(NamedTuple):
    """What a script has counted so far. `counters` have the names of its summary's fields, `tallies` those of its
    histograms; a gauge may have several values, by label, or be None: unknown.
    """  # fmt: skip

    counters: Mapping[str, Any]
    tallies: Mapping[str, Tally]
    gauges: Mapping[str, Any]


class Live:
    """Hands a snapshot to each of `views` twice a second, and more seldom, to every 5 s, where it is costly."""

    def __init__(self, take: Callable[[], Snapshot], views: Sequence[Callable[[Snapshot], None]]) -> None:
        self._take, self._views = take, views
        self._next_s = 0.0
        self.serve()

    def serve(self) -> None:
        """The main loop calls it at every turn."""
        if not self._views:
            return
        start_s = time.monotonic()
        if start_s < self._next_s:
            return
        before_s = time.thread_time()  # on a busy machine another clock would count what others do
        snapshot = self._take()
        for view in self._views:
            view(snapshot)
        cost_s = time.thread_time() - before_s
        self._next_s = start_s + min(max(_EVERY_S, _SHARE * cost_s), _SELDOM_S)


class RecentFigures(NamedTuple):
    """The last seconds: messages read per second, and what was tallied of them."""

    rate_per_s: float | None
    tally: Tally


class Recent:
    """The difference between now and `RECENT_S` ago, or the start."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, Tally]] = deque()

    def add(self, at_s: float, read: int, tally: Tally) -> RecentFigures:
        """Take in what was read and tallied in all until `at_s`."""
        points = self._points
        points.append((at_s, read, tally))
        while len(points) > 2 and points[1][0] <= at_s - RECENT_S:
            points.popleft()
        from_s, read_before, before = points[0]
        rate_per_s = (read - read_before) / (at_s - from_s) if at_s > from_s else None
        return RecentFigures(rate_per_s, tally.since(before))
