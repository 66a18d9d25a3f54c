"""The results of all processes of one run → a Report: merged, with what was lost, the limits and a verdict.

A report is what PerfReport.py writes as JSON and what the renderers show; its schema is in docs/result.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType
from typing import cast

import msgspec

from . import result
from .limits import Limit, Outcome, metrics_of
from .process import SIGNALLED, ExitCode, first_of
from .result import VERSION, ConsumerResult, ProducerResult, Result, ResultError
from .series import BacklogRow, TimeSeries
from .trace import LedgerCounts, Origin, origin_of


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
    ended: list[str]
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
        return _of_folder(path)
    kept = result.read_as(path, Report | ConsumerResult | ProducerResult)
    if isinstance(kept, Report):
        return _results_in(kept)
    return [kept]


def _of_folder(path: Path) -> list[Result]:
    """A report has its processes' results in it, which are not to be counted twice where they lie beside it."""
    kept = [result.read_as(file, Report | ConsumerResult | ProducerResult) for file in _result_files(path)]
    reports = [one for one in kept if isinstance(one, Report)]
    if len(reports) > 1:
        raise ResultError(f"the folder {path} has several reports: give the one that is meant")
    if not kept:
        raise ResultError(f"there is no result (*.json) in the folder {path}")
    return _results_in(reports[0]) if reports else kept


def _result_files(path: Path) -> list[Path]:
    """The files *.json of a folder, without those of another kind that this tool writes."""
    return [file for file in sorted(path.glob("*.json")) if result.kind_of(file) not in ("capacity", "comparison")]


def _results_in(report: Report) -> list[Result]:
    return [one for one in (report.producer, report.consumer) if one is not None]


def report_of(
    results: Sequence[Result],
    *,
    sources: Iterable[str],
    limits: Sequence[Limit] = (),
    ended: Mapping[str, int] = MappingProxyType({}),
    consumers_known: int | None = None,
) -> Report:
    """Everything about one run. Raises ResultError for results that do not belong together, or a damaged one.

    `ended`: sentences about processes that are not in `results`, with the exit code that each leads to.
    `consumers_known`: how many there were, where the results are not one for each.
    """
    producers = [one for one in results if isinstance(one, ProducerResult)]
    consumers = [one for one in results if isinstance(one, ConsumerResult)]
    producer = cast(ProducerResult, result.merged(producers)) if producers else None
    consumer = cast(ConsumerResult, result.merged(consumers)) if consumers else None
    ledger = _ledger(producers, consumers)
    metrics: dict[str, float | None] = {}
    for found in (producer and producer.summary, consumer and consumer.summary, ledger):
        metrics |= metrics_of(found) if found is not None else {}
    judged = [_judged(limit.check(metrics)) for limit in limits]
    codes = _codes(producer, consumer, results, exceeded=any(one.exceeded for one in judged)) | set(ended.values())
    status, said = _status(consumer, codes), [*ended, *_ended(results, codes)]
    return Report(
        status=status,
        verdict=_verdict(status, producer, consumer, ledger, judged, ended=said),
        exit_code=first_of(codes),
        ended=said,
        sources=[Path(source).name for source in sources],
        producers=len(producers),
        consumers=len(consumers) if consumers_known is None else consumers_known,
        limits=judged,
        ledger=ledger,
        backlog=TimeSeries.from_state(consumer.series).backlog() if consumer is not None else [],
        producer=producer,
        consumer=consumer,
    )


def _judged(outcome: Outcome) -> JudgedLimit:
    return JudgedLimit(
        limit=outcome.limit.text, actual=outcome.actual, exceeded=outcome.exceeded, sentence=outcome.sentence
    )


def _ledger(producers: Sequence[ProducerResult], consumers: Sequence[ConsumerResult]) -> LedgerCounts | None:
    """What became of the marked messages; None where nothing was traced."""
    total = result.ledgers_of(consumers)
    if total is None:
        return None
    expected: dict[Origin, int] = {}
    for producer in producers:
        for text, count in producer.marked.items():
            origin = origin_of(text)
            if origin is not None:
                expected[origin] = expected.get(origin, 0) + count
    return total.counts(expected if producers else None, result.ledgers_of(producers))


def _codes(
    producer: ProducerResult | None, consumer: ConsumerResult | None, results: Sequence[Result], *, exceeded: bool
) -> set[int]:
    """The exit codes that the run gives reason for: those of its processes, signals aside, and what is judged anew.

    A consumer that found nothing to measure does no harm where others did.
    """
    codes = {one.exit_code for one in results if 0 < one.exit_code < SIGNALLED}
    codes.discard(ExitCode.NO_MEASUREMENT)
    if producer is not None and producer.summary.acknowledged != producer.summary.messages:
        codes.add(ExitCode.NOT_ACKNOWLEDGED)
    if consumer is not None and not consumer.summary.is_valid:
        codes.add(ExitCode.NO_MEASUREMENT)
    return codes | ({int(ExitCode.LIMIT_EXCEEDED)} if exceeded else set())


def _status(consumer: ConsumerResult | None, codes: Set[int]) -> str:
    """The worst of what is known."""
    if ExitCode.NO_MEASUREMENT in codes:
        return "invalid"
    if codes - {ExitCode.LIMIT_EXCEEDED}:
        return "incomplete"
    if codes:
        return "exceeded"
    uncertain = consumer is not None and consumer.summary.verdict.startswith("uncertain")
    return "uncertain" if uncertain else "valid"


def _ended(results: Sequence[Result], codes: Set[int]) -> list[str]:
    """Which processes ended with one of the codes that the run has from them."""
    return [
        f"the {'producer' if isinstance(one, ProducerResult) else 'consumer'} on {one.host}, topic {one.topic}, ended "
        f"with exit code {one.exit_code}"
        for one in results
        if one.exit_code in codes
    ]


def _verdict(
    status: str,
    producer: ProducerResult | None,
    consumer: ConsumerResult | None,
    ledger: LedgerCounts | None,
    limits: Sequence[JudgedLimit],
    *,
    ended: Sequence[str],
) -> str:
    """The run in one sentence, its worst first."""
    if status == "invalid" and consumer is not None:
        return f"{consumer.summary.verdict}."
    parts = []
    sent = producer.summary if producer is not None else None
    if status == "incomplete" and ended and (sent is None or sent.acknowledged == sent.messages):
        parts.append(ended[0])
    if sent is not None and sent.acknowledged != sent.messages:
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
