"""How often `PerfReport.py compare` is wrong, on simulated runs whose truth is known: `make calibrate`.

The model: in each second the pipeline is slower or faster by a factor exp(x), where x follows an AR(1) process (each
second keeps CORRELATION of the one before; standard deviation LEVEL_SPREAD). Each of PER_SECOND messages takes
TYPICAL_MS × exp(x) × exp(MESSAGE_SPREAD × a standard normal number). Its stamps are whole milliseconds, as Kafka's are.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Sequence

from perf.compare import DELTAS, Difference, compare
from perf.result import ConsumerResult
from perf.run import Report, report_of
from perf.stats import Statistics

CORRELATION, LEVEL_SPREAD = 0.7, 0.1
TYPICAL_MS, MESSAGE_SPREAD, PER_SECOND, SECONDS = 20.0, 0.4, 200, 300
RUN_SPREAD, SHORT_SECONDS = 0.02, 120  # between runs, where there are several on a side
_POOL = 20_000
_STAMP_MS = 1_795_000_000_000


class Simulation:
    """Runs of a pipeline that is `shift` slower than the typical one (0.1: 10 %)."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pool = [math.exp(MESSAGE_SPREAD * self._random.gauss(0, 1)) for _ in range(_POOL)]

    def run(self, *, shift: float = 0.0, seconds: int = SECONDS, run_spread: float = 0.0) -> Report:
        """A run's report."""
        statistics = Statistics()
        level = self._random.gauss(0, LEVEL_SPREAD)
        typical_ms = TYPICAL_MS * (1 + shift) * math.exp(self._random.gauss(0, run_spread))
        for second in range(seconds):
            level = CORRELATION * level + self._random.gauss(0, LEVEL_SPREAD * math.sqrt(1 - CORRELATION**2))
            factor = typical_ms * math.exp(level)
            deltas_ms = [
                int(factor * one + self._random.random()) for one in self._random.choices(self._pool, k=PER_SECOND)
            ]
            stamps_ms = [_STAMP_MS + 1_000 * second] * PER_SECOND
            statistics.records(stamps_ms, [2] * PER_SECOND, PER_SECOND)
            statistics.add(deltas_ms, stamps_ms, [0] * PER_SECOND)
        return report_of([_result(statistics)], sources=["simulated"])


def found_by_comparing(base: Sequence[Report], new: Sequence[Report]) -> dict[str, Difference]:
    """What compare says about the delta's figures."""
    return {found.metric: found for found in compare(base, new).differences if found.metric in DELTAS}


def trial(seed: int, *, shift: float, runs: int = 1) -> dict[str, Difference]:
    """Simulate both sides and compare them."""
    simulation = Simulation(seed)
    spread, seconds = (0.0, SECONDS) if runs == 1 else (RUN_SPREAD, SHORT_SECONDS)
    sides = [[simulation.run(shift=by, run_spread=spread, seconds=seconds) for _ in range(runs)] for by in (0.0, shift)]
    return found_by_comparing(*sides)


def tally(trials: int, *, shift: float, runs: int = 1, first_seed: int = 0) -> Counter[str]:
    """In how many trials each figure was called different, `any` of them, or none of them could be judged."""
    counted: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + trials):
        differences = trial(seed, shift=shift, runs=runs)
        seen = [name for name, found in differences.items() if found.outcome in ("higher", "lower")]
        counted.update(seen)
        counted["any"] += bool(seen)
        counted["too little data"] += all(found.outcome == "unknown" for found in differences.values())
    return counted


def _result(statistics: Statistics) -> ConsumerResult:
    return ConsumerResult(
        summary=statistics.summary(elapsed_s=1.0),
        histograms={name: histogram.state() for name, histogram in statistics.histograms().items()},
        started_at="2026-11-23T08:00:00.000+00:00",
        exit_code=0,
        topic="simulated",
        configuration={},
        limits=[],
        **statistics.details(),
    )


def main() -> None:
    """Print the table of docs/compare.md."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    print(f"{'of ' + str(trials) + ' trials':32} any   " + "  ".join(f"{name:>5}" for name in DELTAS) + "  too little")
    for runs in (1, 3, 5):
        for shift in (0.0, 0.1):
            counted = tally(trials, shift=shift, runs=runs)
            name = f"{runs} run{'s' if runs > 1 else ''} a side, {shift:.0%} slower"
            figures = "  ".join(f"{counted[figure]:5}" for figure in DELTAS)
            print(f"{name:32} {counted['any']:4}  {figures}  {counted['too little data']:10}", flush=True)


if __name__ == "__main__":
    main()
