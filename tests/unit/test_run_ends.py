"""What PerfRun.py concludes from how its processes ended, without starting any."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from simulated import consumer, producer

import PerfRun
from perf.capacity import NOT_SUSTAINED, SUSTAINED, Step
from perf.children import Child
from perf.result import Result
from perf.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("name", "code", "was_stopped", "has_result", "found"),
    [
        ("consumer", 0, False, True, None),
        ("consumer", 5, False, True, None),  # which its result tells
        ("consumer", 143, True, True, None),
        ("consumer", 137, False, False, ("the consumer was ended by SIGKILL and left no result", 5)),
        ("consumer", 1, False, False, ("the consumer ended with exit code 1 and left no result", 5)),
        ("consumer", 3, False, False, ("the consumer ended with exit code 3 and left no result", 3)),
        ("consumer", 143, False, True, ("the consumer was ended by SIGTERM", 4)),
        ("producer-2", 137, False, False, ("the producer-2 was ended by SIGKILL and left no result", 4)),
        ("producer", 2, False, False, ("the producer ended with exit code 2 and left no result", 2)),
        ("producer", 255, False, False, ("the producer ended with exit code 255 and left no result", 4)),
    ],
)
def test_how_a_process_ended(
    name: str, code: int, was_stopped: bool, has_result: bool, found: tuple[str, int] | None
) -> None:
    """Nobody ends unnoticed: by a signal that was not ours, or without a result."""
    child = cast(Child, SimpleNamespace(name=name, exit_code=code, was_stopped=was_stopped))
    assert PerfRun._bad_end(child, has_result=has_result) == found


@pytest.mark.parametrize(
    ("read_for_s", "code", "early"), [(12, 0, False), (5, 0, True), (5, 3, False), (5, 143, False)]
)
def test_a_consumer_that_stops_while_messages_are_sent(read_for_s: float, code: int, early: bool) -> None:
    """Only one that ended well, and before the last of ten seconds of messages, had what it waited for too early."""
    sent = producer(1_000)
    found = consumer([(10, 5)], exit_code=code)
    found = msgspec.structs.replace(found, summary=msgspec.structs.replace(found.summary, elapsed_s=read_for_s))
    results: dict[str, Result] = {"producer.json": sent, "consumer.json": found}
    assert PerfRun._stopped_too_early(results) == early


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 10, "producers": 3}, 10),
        ({"size": 10, "rate_per_s": 5.0, "duration_s": 1.0}, 5),
        ({"rate_per_s": 10.0, "duration_s": 2.0, "expect_ratio": 2.0}, 40),
        ({"duration_s": 2.0}, None),
        ({"size": 10_000, "expect_ratio": 0.5}, 4_799),  # 4 standard deviations of 50, and one
        ({"size": 100_000, "expect_ratio": 0.999}, 99_859),
    ],
)
def test_how_many_results_surely_come(options: dict[str, Any], expected: int | None) -> None:
    """The consumer waits for as many results as the messages surely make."""
    assert PerfRun._expected_results(Settings(**options)) == expected


def test_the_messages_are_shared_out_exactly() -> None:
    """Four producers send ten messages together."""
    assert PerfRun._sizes(10, 4) == [3, 3, 2, 2]


def test_what_an_earlier_test_left_is_removed(tmp_path: Path) -> None:
    """Results and reports of another test would be taken for this one's; a user's own files stay."""
    folder = tmp_path / "run"
    os.close(PerfRun._make_empty(folder))
    for name in ("step-01-100", "step-01-setup", "report.d"):
        (folder / name).mkdir()
    (folder / "steps-of-mine").mkdir()
    for name in ("producer-2.json", "consumer.json", "report.json", "report.html", "capacity.json", "mine.json",
                 "producer-events.json", "report.docx", "step-01-100/consumer.txt"):  # fmt: skip
        (folder / name).write_text("{}")
    lock = PerfRun._make_empty(folder)
    mine = {"mine.json", "producer-events.json", "report.docx", "report.d", "step-01-setup", "steps-of-mine"}
    assert {path.name for path in folder.iterdir()} == mine
    with pytest.raises(SettingsError, match="another test is writing to the folder"):
        PerfRun._make_empty(folder)
    os.close(lock)
    os.close(PerfRun._make_empty(folder))


def test_a_dead_pipeline_is_not_a_slow_one() -> None:
    """No results at all, or twice none at a rate that was sustained, is no overload."""

    def step(per_s: float, results: int) -> Step:
        outcome = SUSTAINED if results else NOT_SUSTAINED
        return Step(rate_per_s=per_s, phase="growth", outcome=outcome, reason="", results=results)

    assert PerfRun._is_dead([], 100)
    assert PerfRun._is_dead([step(100, 0)], 50)
    assert not PerfRun._is_dead([step(100, 9)], 200)
    assert not PerfRun._is_dead([step(100, 9), step(200, 9)], 150)
    assert not PerfRun._is_dead([step(100, 9), step(200, 0)], 141)
    assert PerfRun._is_dead([step(100, 9), step(200, 0)], 100)
