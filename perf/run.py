"""The results of all processes of one run → a Report: merged, with what was lost, the limits and a verdict.

A report is what PerfReport.py writes as JSON and what the renderers show; its schema is in docs/result.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import msgspec

from . import result
from .limits import Limit, Outcome, metrics_of
from .process import ExitCode
from .result import VERSION, ConsumerResult, ProducerResult, Result, ResultError
from .series import BacklogRow, TimeSeries
from .trace import Ledger, LedgerCounts, Origin, origin_of


class JudgedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of --fail-if over the whole run. `actual` in ms, per second or a count; None where it is n/a."""

    limit: str
    actual: float | None
    exceeded: bool
    sentence: str


class Report(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="report"):
    """One run. `status` is valid, uncertain, exceeded, incomplete or invalid; `verdict` says it in a sentence."""

    version: int = VERSION
    status: str
    verdict: str
    exit_code: int
    sources: list[str]
    producers: int
    consumers: int
    limits: list[JudgedLimit]
    ledger: LedgerCounts | None
    backlog: list[BacklogRow]
    producer: ProducerResult | None
    consumer: ConsumerResult | None


def read(path: Path) -> list[Result]:
    """The results in a file: one, those of a report, or those of all files *.json of a folder. Raises ResultError."""
    if path.is_dir():
        found = [one for file in sorted(path.glob("*.json")) for one in read(file)]
        if not found:
            raise ResultError(f"there is no result (*.json) in the folder {path}")
        return found
    kept = result.read_as(path, Report | ConsumerResult | ProducerResult)
    if isinstance(kept, Report):
        return [one for one in (kept.producer, kept.consumer) if one is not None]
    return [kept]


def report_of(results: Sequence[Result], *, sources: Iterable[str], limits: Sequence[Limit] = ()) -> Report:
    """Everything about one run. Raises ResultError for results that do not belong together, or a damaged one."""
    producers = [one for one in results if isinstance(one, ProducerResult)]
    consumers = [one for one in results if isinstance(one, ConsumerResult)]
    producer = cast(ProducerResult, result.merged(producers)) if producers else None
    consumer = cast(ConsumerResult, result.merged(consumers)) if consumers else None
    ledger = _ledger(producers, consumers)
    metrics: dict[str, float | None] = {}
    for found in (producer and producer.summary, consumer and consumer.summary, ledger):
        metrics |= metrics_of(found) if found is not None else {}
    judged = [_judged(limit.check(metrics)) for limit in limits]
    incomplete = producer is not None and _is_incomplete(producer, producers)
    status, code = _status(consumer, incomplete=incomplete, exceeded=any(one.exceeded for one in judged))
    return Report(
        status=status,
        verdict=_verdict(status, producer, consumer, ledger, judged),
        exit_code=code,
        sources=[Path(source).name for source in sources],
        producers=len(producers),
        consumers=len(consumers),
        limits=judged,
        ledger=ledger,
        backlog=TimeSeries.from_state(consumer.series).backlog() if consumer is not None else [],
        producer=producer,
        consumer=consumer,
    )


def write_json(path: Path, report: msgspec.Struct) -> None:
    """Write a report as JSON. Raises ResultError."""
    result.write_file(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _judged(outcome: Outcome) -> JudgedLimit:
    return JudgedLimit(
        limit=outcome.limit.text, actual=outcome.actual, exceeded=outcome.exceeded, sentence=outcome.sentence
    )


def _ledger(producers: Sequence[ProducerResult], consumers: Sequence[ConsumerResult]) -> LedgerCounts | None:
    """What became of the marked messages; None where nothing was traced."""
    ledgers = [result.ledger_of(consumer) for consumer in consumers]
    traced = [ledger for ledger in ledgers if ledger is not None]
    if not traced:
        return None
    total = Ledger()
    for ledger in traced:
        total.merge(ledger)
    expected: dict[Origin, int] = {}
    for producer in producers:
        for text, count in producer.marked.items():
            origin = origin_of(text)
            if origin is not None:
                expected[origin] = expected.get(origin, 0) + count
    return total.counts(expected if producers else None)


def _is_incomplete(whole: ProducerResult, several: Sequence[ProducerResult]) -> bool:
    """Whether not all was acknowledged, or a producer ended so."""
    ended = any(one.exit_code == ExitCode.NOT_ACKNOWLEDGED for one in several)
    return ended or whole.summary.acknowledged != whole.summary.messages


def _status(consumer: ConsumerResult | None, *, incomplete: bool, exceeded: bool) -> tuple[str, int]:
    """The worst of what is known, and its exit code."""
    invalid = consumer is not None and not consumer.summary.is_valid
    if incomplete:
        return ("invalid" if invalid else "incomplete"), ExitCode.NOT_ACKNOWLEDGED
    if invalid:
        return "invalid", ExitCode.NO_MEASUREMENT
    if exceeded:
        return "exceeded", ExitCode.LIMIT_EXCEEDED
    uncertain = consumer is not None and consumer.summary.verdict.startswith("uncertain")
    return ("uncertain" if uncertain else "valid"), 0


def _verdict(
    status: str,
    producer: ProducerResult | None,
    consumer: ConsumerResult | None,
    ledger: LedgerCounts | None,
    limits: Sequence[JudgedLimit],
) -> str:
    """The run in one sentence, its worst first."""
    if status == "invalid" and consumer is not None:
        return f"{consumer.summary.verdict}."
    parts = []
    if status == "incomplete" and producer is not None:
        sent = producer.summary
        parts.append(f"{sent.messages - sent.acknowledged:,} of {sent.messages:,} messages sent were not "
                     "acknowledged")  # fmt: skip
    broken = [one for one in limits if one.exceeded]
    if broken:
        first = broken[0].sentence.removesuffix(": exceeded")
        parts.append(f"{len(broken)} of {len(limits)} limits exceeded ({first})")
    if consumer is not None:
        parts += _of_deltas(consumer, uncertain=status == "uncertain")
    elif producer is not None and status != "incomplete":
        parts.append(f"all {producer.summary.messages:,} messages were acknowledged")
    if ledger is not None and ledger.lost is not None:
        parts.append(f"{ledger.lost:,} lost" if ledger.lost else "none lost")
    if limits and not broken:
        parts.append(f"{'the limit holds' if len(limits) == 1 else f'all {len(limits)} limits hold'}")
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _of_deltas(consumer: ConsumerResult, *, uncertain: bool) -> list[str]:
    deltas = consumer.summary.delta_ms
    figures = (
        f"half of {deltas.count:,} results came within {deltas.p50:,.9g} ms, 99 % within {deltas.p99:,.9g} ms, "
        f"all within {deltas.max:,.9g} ms"
    )
    return [consumer.summary.verdict, figures] if uncertain else [figures]
