"""Results as the scripts would write them, for tests of what is made of results."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perf.limits import parse
from perf.payload import Rejection
from perf.result import ConsumerResult, ProducerResult
from perf.run import Report, report_of
from perf.stats import Histogram, ProducerSummary, Statistics, per_second
from perf.trace import Ledger

START_MS = 1_795_420_800_000  # the moment STARTED_AT
STARTED_AT = "2026-11-23T08:00:00.000+00:00"
STEP_S = 20
Sample = tuple[int, int]  # stamp of the result in ms after START_MS, and its delta in ms


def consumer(
    samples: Sequence[Sample], *, marks: Sequence[bytes] | None = None, kind: int = 2, **changes: Any
) -> ConsumerResult:
    """What a consumer would write that read these results, in turn from two partitions."""
    statistics = Statistics()
    if samples:
        stamps_ms = [START_MS + stamp_ms for stamp_ms, _ in samples]
        deltas_ms = [delta_ms for _, delta_ms in samples]
        statistics.records(stamps_ms, [kind] * len(samples), 100 * len(samples))
        statistics.add(deltas_ms, stamps_ms, [number % 2 for number in range(len(samples))])
        statistics.add_visible(deltas_ms, stamps_ms, max(stamps_ms) + 3)
    statistics.reject(Rejection.WARMUP, 7)
    if marks is not None:
        statistics.ledger = Ledger()
        statistics.ledger.record_all(marks, [0] * len(marks), range(len(marks)))
    fields: dict[str, Any] = {"exit_code": 0, "topic": "results", "configuration": {"client.id": "c"}, "limits": []}
    return ConsumerResult(
        started_at=STARTED_AT,
        summary=statistics.summary(elapsed_s=2.5),
        histograms={name: histogram.state() for name, histogram in statistics.histograms().items()},
        **{**fields, **changes},
        **statistics.details(),
    )


def producer(messages: int, *, failed: int = 0, marked: dict[str, int] | None = None, **changes: Any) -> ProducerResult:
    """What a producer would write that sent so many messages at 100 a second."""
    lateness, ack = Histogram(), Histogram()
    lateness.add(range(messages))
    ack.add(range(500, 500 + messages))
    fields: dict[str, Any] = {"exit_code": 0, "topic": "inputs", "configuration": {"client.id": "p"}, "limits": []}
    return ProducerResult(
        started_at=STARTED_AT,
        summary=ProducerSummary(
            messages=messages, not_sent=0, acknowledged=messages - failed,
            failed={"MSG_SIZE_TOO_LARGE": failed} if failed else {}, unknown=0, bytes=100 * messages,
            elapsed_s=messages / 100, send_elapsed_s=messages / 100,
            throughput_per_s=per_second(messages - failed, messages / 100), throughput_mb_per_s=0.01,
            send_rate_per_s=per_second(messages - 1, messages / 100), target_rate_per_s=100.0, stamp="send",
            lateness_ms=lateness.distribution(divisor=1_000), ack_ms=ack.distribution(divisor=1_000),
        ),
        marked=marked or {},
        steady=True,
        histograms={"lateness_us": lateness.state(), "ack_us": ack.state()},
        **{**fields, **changes},
    )  # fmt: skip


def pipeline(
    rate_per_s: float,
    *,
    service_ms: float,
    stall: tuple[float, float] = (0, 10),
    seed: int = 0,
    seconds: float = STEP_S,
) -> Iterator[Sample]:
    """Results of a queue: complete at max(arrival, previous completion) + service time, give or take a fifth.

    For `stall[0]` s every `stall[1]` s nothing is done. Stamp after the start and delta, in whole ms as Kafka has them.
    """
    chance, completed_ms = random.Random(seed), 0.0
    length_ms, every_ms = 1_000 * stall[0], 1_000 * stall[1]
    for number in range(round(rate_per_s * seconds)):
        arrived_ms = 1_000 * number / rate_per_s
        completed_ms = max(arrived_ms, completed_ms) + service_ms * chance.uniform(0.8, 1.2)
        if length_ms and completed_ms >= every_ms and completed_ms % every_ms < length_ms:
            completed_ms += length_ms - completed_ms % every_ms
        yield int(completed_ms), int(completed_ms) - int(arrived_ms)


def report(
    samples: list[Sample], *, rate_per_s: float, limits: tuple[str, ...] = (), ratio: float = 1.0, **sent: Any
) -> Report:
    """The report of a step at this rate."""
    sending = producer(len(samples))
    took_s = sent.get("messages", len(samples)) / rate_per_s
    figures = {
        "send_rate_per_s": rate_per_s, "target_rate_per_s": rate_per_s, "elapsed_s": took_s, "send_elapsed_s": took_s,
        **sent,
    }  # fmt: skip
    sending = msgspec.structs.replace(sending, summary=msgspec.structs.replace(sending.summary, **figures))
    declared = [parse(text) for text in limits]
    return report_of([sending, consumer(samples)], sources=[], limits=declared, expect_ratio=ratio)
