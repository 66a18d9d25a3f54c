"""The producer's schedule on the wall clock, with a client that keeps what it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kafka.producer import Outgoing
from perf import process, settings
from perf.progress import Progress
from perf.schedule import Schedule
from ProducerPerformance import Sending


class Client:
    """Takes messages, with the time at which it got each one, and acknowledges nothing."""

    def __init__(self) -> None:
        self.queued = 0
        self.taken: list[tuple[int, float]] = []
        self.timestamp_types: set[int] = set()

    def send_outgoing(self, batch: Sequence[Outgoing], _stopped: Callable[[], bool]) -> int:
        """Keep the stamps."""
        now_ms = time.time() * 1_000
        self.taken += [(message.timestamp_ms, now_ms) for message in batch]
        self.queued += len(batch)
        return len(batch)

    def take_ack_us(self) -> list[int]:
        """None."""
        return []

    def take_unacknowledged(self) -> list[bytes]:
        """None."""
        return []

    def serve(self) -> None:
        """There is nothing to do."""


def test_no_intended_stamp_lies_in_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule begins on the wall clock when it begins on the monotonic one, however long the preparations take.

    A later start would make every stamp too late, and every delta too small, by what lies between.
    """
    made: Callable[[Any, float], Schedule] = Schedule.at_rate.__func__  # type: ignore[attr-defined]

    def slowly(cls: Any, rate_per_s: float) -> Schedule:
        time.sleep(0.2)
        return made(cls, rate_per_s)

    monkeypatch.setattr(Schedule, "at_rate", classmethod(slowly))
    options = settings.Settings(size=200, rate_per_s=1_000.0, stamp="intended")
    client: Any = Client()
    messages = ((None, b"{}") for _ in range(200))
    Sending(client, messages, options, Progress(200, wanted=False), partitions=1).run(process.Stop())
    assert len(client.taken) == 200
    assert all(stamp_ms <= now_ms for stamp_ms, now_ms in client.taken)
    assert client.taken[0][1] - client.taken[0][0] < 50  # nor far in the past
