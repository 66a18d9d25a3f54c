"""How large a run may be: the states of many simulated pods, merged. `python -m benchmarks.scaling [pods]`.

Each pod holds one partition and measured a million results of its own distribution, with a mark in each. Prints what
docs/scaling.md has.
"""

from __future__ import annotations

import math
import random
import resource
import sys
import time
from collections import Counter

from perf import coordination, result
from perf.coordination import Checkpoint
from perf.run import report_of
from perf.stats import Statistics, Windows
from perf.trace import Ledger

SAMPLES = 1_000_000
SECONDS = 600
_STAMP_S = 1_795_000_000


def main() -> int:
    """Make the states, merge them, print the figures."""
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    records: dict[str, bytes] = {}
    encode_s = 0.0
    for number in range(pods):
        statistics = _measured(number)
        start_s = time.process_time()
        checkpoint = Checkpoint(
            partition=number,
            epoch=0,
            number=1,
            next_offset=SAMPLES,
            owner=(str(number), 1),
            result=result.of_statistics(statistics, topic="output", started_ms=0, now_ms=0),
        )
        records |= coordination.checkpoint_records("run", f"{number}.1", checkpoint)
        encode_s += time.process_time() - start_s
    sizes = [len(value) for value in records.values()]
    before_mb = _peak_mb()
    start_s = time.process_time()
    states = coordination.checkpoints(records)
    read_s = time.process_time() - start_s
    report = report_of([state.result for state in states.values()], sources=["run"])
    merge_s = time.process_time() - start_s
    assert report.consumer is not None and report.consumer.summary.measured == pods * SAMPLES
    for name, value in (
        ("pods, each of one partition and 1,000,000 samples", f"{pods:,}"),
        ("records, and the largest", f"{len(sizes):,}, {max(sizes):,} bytes"),
        ("a partition's state, mean", f"{sum(sizes) / pods:,.0f} bytes"),
        ("all states", f"{sum(sizes) / 1e6:,.1f} MB"),
        ("to save one", f"{1000 * encode_s / pods:,.1f} ms of a processor"),
        ("to read and merge all", f"{merge_s:,.1f} s of a processor, of which {read_s:,.1f} s to unpack"),
        ("peak memory before and after merging", f"{before_mb:,.0f} MB, {_peak_mb():,.0f} MB"),
        ("p99 of all, ms", f"{report.consumer.summary.delta_ms.p99:,.0f}"),
    ):
        print(f"| {name} | {value} |", flush=True)
    return 0


def _measured(seed: int) -> Statistics:
    """A pod's statistics: log-normal deltas of a median of its own, spread over ten minutes."""
    chooser = random.Random(seed)
    median_ms, total = chooser.uniform(5, 50), 0
    statistics = Statistics(Windows([SAMPLES]))
    for second in range(SECONDS):
        wanted = SAMPLES * (second + 1) // SECONDS - total
        deltas = Counter(round(median_ms * math.exp(chooser.gauss(0, 0.7))) for _ in range(wanted // 10))
        several = [delta for delta, count in deltas.items() for _ in range(count * 10)]
        several += [round(median_ms)] * (wanted - len(several))
        total += wanted
        statistics.add(several, [(_STAMP_S + second) * 1000] * wanted, [seed] * wanted)
    statistics.ledger = _all_found(seed)
    return statistics


def _all_found(producer: int) -> Ledger:
    ledger = Ledger()
    prefix = f"run/{producer}/1/0/"
    ledger.record_all((prefix + str(seq) for seq in range(SAMPLES)), [producer] * SAMPLES, range(SAMPLES))
    return ledger


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
