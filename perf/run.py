"""The results of all processes of one run → a Report: merged, with what was lost, the limits and a verdict.

A report is what PerfReport.py writes as JSON and what the renderers show; its schema is in docs/result.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, cast

import msgspec
from msgspec import UNSET, UnsetType

from . import result
from .growth import Growth, falls_behind, growth_of
from .limits import Limit, Outcome, metrics_of, parse
from .process import SIGNALLED, ExitCode, first_of
from .result import VERSION, ConsumerResult, ProducerResult, Result, ResultError, epoch_ms
from .series import BacklogRow, Row, TimeSeries
from .stats import INVALID
from .trace import LedgerCounts, Origin, origin_of

_MOST_CHANCE = 4.0  # standard deviations
_LATE_MS = 100.0
_MOST_MORE = 0.05  # of the results that are expected: duplicates, if the pipeline works at least once
_CLOCKS_S = 5.0  # so far apart may the clocks of brokers and producers be


class JudgedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of --fail-if over the whole run. `actual` in ms, per second or a count; None where it is n/a."""

    limit: str
    actual: float | None
    exceeded: bool
    sentence: str


class Report(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="report"):
    """One run. `status` is valid, uncertain, exceeded, incomplete or invalid; `verdict` says it in a sentence.

    `missing`: how many of the results that `expect_ratio` lets expect did not come; below 0 when more came. None where
    nothing was declared, or one side is not known. `growth` is that of the backlog while messages were sent at a fixed
    rate; None where there was none, or for too short a time.
    """

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
    expect_ratio: float | None = None
    missing: int | None = None
    growth: Growth | None = None


class Found(NamedTuple):
    """Results, and what a report that they come from knows beside them: arguments of `report_of`."""

    results: list[Result]
    ended: Mapping[str, int]
    expect_ratio: float | None
    limits: list[Limit]
    growth: Growth | UnsetType | None


def read(*paths: Path) -> Found:
    """The results in files: one each, those of a report, or of all files *.json of a folder. Raises ResultError."""
    kept = [one for path in paths for one in (_of_folder(path) if path.is_dir() else [_read(path)])]
    reports = [one for one in kept if isinstance(one, Report)]
    return Found(
        [part for one in kept for part in (_results_in(one) if isinstance(one, Report) else [one])],
        {sentence: report.exit_code for report in reports for sentence in report.ended},
        next((report.expect_ratio for report in reports if report.expect_ratio), None),
        [parse(one.limit) for report in reports for one in report.limits],
        UNSET if not reports else reports[0].growth if len(kept) == 1 else None,
    )


def _read(path: Path) -> Report | Result:
    found: Report | Result = result.read_as(path, Report | ConsumerResult | ProducerResult)
    return found


def _of_folder(path: Path) -> Sequence[Report | Result]:
    """A report has its processes' results in it, which are not to be counted twice where they lie beside it."""
    kept = [_read(file) for file in _result_files(path)]
    reports = [one for one in kept if isinstance(one, Report)]
    if len(reports) > 1:
        raise ResultError(f"the folder {path} has several reports: give the one that is meant")
    if not kept:
        raise ResultError(f"there is no result (*.json) in the folder {path}")
    return reports or kept


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
    expect_ratio: float | None = None,
    growth: Growth | UnsetType | None = UNSET,
    began_ms: float | None = None,
) -> Report:
    """Everything about one run. Raises ResultError for results that do not belong together, or a damaged one.

    `ended`: sentences about processes that are not in `results`, with the exit code that each leads to.
    `consumers_known`: how many there were, where the results are not one for each. `expect_ratio`: results for each
    message; where it is given, results that did not come make the run incomplete, unless a signal ended it: then they
    were not waited for. `growth`: where it is known from a report, which has the producers only as one. `began_ms`:
    when the run began, where that may have been before the results' own starts.
    """
    producers = [one for one in results if isinstance(one, ProducerResult)]
    consumers = [one for one in results if isinstance(one, ConsumerResult)]
    producer = cast(ProducerResult, result.merged(producers)) if producers else None
    consumer = cast(ConsumerResult, result.merged(consumers)) if consumers else None
    ledger = _ledger(producers, consumers)
    series = TimeSeries.from_state(consumer.series) if consumer is not None else TimeSeries()
    rows, backlog = series.rows(), series.backlog()
    stopped = any(code > SIGNALLED for code in ended.values())
    missing = None if stopped else _missing(producer, consumer, ledger, expect_ratio)
    whole = all(code > SIGNALLED for code in ended.values())  # no process is missing whose load is in the results
    doubt = _others(producer, consumer, rows, missing, began_ms=began_ms) if whole else ""
    if doubt or not whole:
        growth = None
    elif growth is UNSET:
        growth = growth_of(producers, consumer, rows, backlog, ratio=expect_ratio)
    metrics: dict[str, float | None] = {}
    for found in (producer and producer.summary, consumer and consumer.summary, ledger, growth):
        metrics |= metrics_of(found) if found is not None else {}
    judged = [_judged(limit.check(metrics)) for limit in limits]
    codes = _codes(producer, consumer, results, exceeded=any(one.exceeded for one in judged)) | set(ended.values())
    if missing and missing > 0 and ExitCode.NO_MEASUREMENT not in codes:
        codes.add(ExitCode.NOT_ACKNOWLEDGED)
    if producer is not None and whole and not doubt:
        sent_s = producer.summary.send_elapsed_s
        behind = falls_behind(growth, producers, consumer, rows, ratio=expect_ratio, sent_s=sent_s)
        if behind:
            doubt = f"the pipeline seems not to keep up: {behind}, so times depend on how long the test ran"
    status = _status(producer, consumer, codes, doubtful=bool(doubt))
    said = list(dict.fromkeys([*ended, *_ended(results, codes)]))
    return Report(
        status=status,
        verdict=_verdict(status, producer, consumer, ledger, judged, ended=said, missing=missing, doubt=doubt),
        exit_code=first_of(codes),
        ended=said,
        sources=[Path(source).name for source in sources],
        producers=len(producers),
        consumers=len(consumers) if consumers_known is None else consumers_known,
        limits=judged,
        ledger=ledger,
        backlog=backlog,
        producer=producer,
        consumer=consumer,
        expect_ratio=expect_ratio,
        missing=missing,
        growth=growth,
    )


def report_at(*paths: Path, limits: Sequence[Limit] = (), expect_ratio: float | None = None) -> Report:
    """The report of what is in files or folders; `limits` and `expect_ratio` come before those of reports in them."""
    found = read(*paths)
    other = expect_ratio is not None and expect_ratio != (found.expect_ratio or 1.0)  # than the growth was counted by
    return report_of(
        found.results,
        sources=map(str, paths),
        limits=limits or found.limits,
        ended=found.ended,
        expect_ratio=expect_ratio or found.expect_ratio,
        growth=None if other and found.growth is not UNSET else found.growth,
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


def _missing(
    producer: ProducerResult | None,
    consumer: ConsumerResult | None,
    ledger: LedgerCounts | None,
    expect_ratio: float | None,
) -> int | None:
    """See Report. Marks tell better than numbers, where each message makes a result of its own."""
    if expect_ratio is None or producer is None or consumer is None:
        return None
    if expect_ratio == 1 and ledger is not None and ledger.lost:
        return ledger.lost
    messages = producer.summary.acknowledged
    missing = round(messages * expect_ratio) - consumer.summary.messages_read
    return missing if abs(missing) > most_by_chance(messages, expect_ratio) else 0


def most_by_chance(messages: int, ratio: float) -> float:
    """By how much the number of results may differ from what is expected.

    A ratio that is no whole number is a mean: its fraction is the chance of one result more, so their number is
    binomial. And one more, for what is aggregated.
    """
    chance = ratio % 1
    return 1 + _MOST_CHANCE * math.sqrt(messages * chance * (1 - chance)) if chance else 0.0


def linger_s(ratio: float) -> float:
    """For how long results that are too many are waited for, once those that were expected are there."""
    return 1.0 if ratio.is_integer() else 10.0


def _codes(
    producer: ProducerResult | None, consumer: ConsumerResult | None, results: Sequence[Result], *, exceeded: bool
) -> set[int]:
    """The exit codes that the run gives reason for: those of its processes, signals aside, and what is judged anew.

    A consumer that found nothing to measure does no harm where others did.
    """
    codes = {one.exit_code for one in results if 0 < one.exit_code < SIGNALLED}
    codes.discard(ExitCode.NO_MEASUREMENT)
    if producer is not None and (_left_out(producer) or producer.summary.acknowledged != producer.summary.messages):
        codes.add(ExitCode.NOT_ACKNOWLEDGED)
    if consumer is not None and not consumer.summary.is_valid:
        codes.add(ExitCode.NO_MEASUREMENT)
    return codes | ({int(ExitCode.LIMIT_EXCEEDED)} if exceeded else set())


def _status(
    producer: ProducerResult | None, consumer: ConsumerResult | None, codes: Set[int], *, doubtful: bool
) -> str:
    """The worst of what is known."""
    if ExitCode.NO_MEASUREMENT in codes:
        return "invalid"
    if codes - {ExitCode.LIMIT_EXCEEDED}:
        return "incomplete"
    if codes:
        return "exceeded"
    uncertain = consumer is not None and consumer.summary.verdict.startswith("uncertain")
    return "uncertain" if uncertain or doubtful or (producer is not None and _is_late(producer)) else "valid"


def _left_out(producer: ProducerResult) -> int:
    """Messages that were due and not sent, unless because it was stopped."""
    return producer.summary.not_sent if producer.exit_code < SIGNALLED else 0


def _is_late(producer: ProducerResult) -> bool:
    """Whether the load was another than declared: a producer that is too slow falls ever further behind its schedule.

    With half of the messages later than 1 % of the time, the rate is some 2 % too low.
    """
    late_ms = producer.summary.lateness_ms.p50
    return late_ms is not None and late_ms > max(_LATE_MS, 10 * producer.summary.send_elapsed_s)


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
    missing: int | None,
    doubt: str,
) -> str:
    """The run in one sentence, its worst first."""
    sent = producer.summary if producer is not None else None
    parts = [] if sent is None or sent.acknowledged == sent.messages else [
        f"{sent.messages - sent.acknowledged:,} of {sent.messages:,} messages sent were not acknowledged"
    ]  # fmt: skip
    if producer is not None and _left_out(producer):
        parts.append(f"{_left_out(producer):,} messages that were due were not sent")
    if status == "invalid":
        return _as_sentence([*_why_invalid(producer, consumer, ended), *parts])
    if status == "incomplete" and ended and not parts:
        parts.append(ended[0])
    if missing and missing > 0:
        lost = ledger is not None and ledger.lost
        parts.append(
            f"{missing:,} {'messages were lost' if lost else 'of the results that were expected did not come'}"
        )
    broken = [one for one in limits if one.exceeded]
    if broken:
        first = broken[0].sentence.removesuffix(": exceeded")
        parts.append(f"{len(broken)} of {len(limits)} limits exceeded ({first})")
    if producer is not None and _is_late(producer):
        parts.append(
            f"the load was not as declared: half of it was over {producer.summary.lateness_ms.p50:,.4g} ms late"
        )
    if doubt:
        parts.append(doubt)
    if consumer is not None:
        parts += _of_deltas(consumer)
    elif sent is not None and status != "incomplete":
        parts.append(f"all {sent.messages:,} messages were acknowledged")
    parts += _of_results(ledger, missing, known=not ended)
    if limits and not broken:
        parts.append(f"{'the limit holds' if len(limits) == 1 else f'all {len(limits)} limits hold'}")
    return _as_sentence(parts)


def _as_sentence(parts: Sequence[str]) -> str:
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}{'' if sentence.endswith('?') else '.'}"


def _why_invalid(producer: ProducerResult | None, consumer: ConsumerResult | None, ended: Sequence[str]) -> list[str]:
    if consumer is None or consumer.summary.is_valid:
        return [f"{INVALID}: {ended[0] if ended else 'there is no measurement'}"]
    others = [one for one in ended if not one.endswith(f"exit code {int(ExitCode.NO_MEASUREMENT)}")]
    if others or producer is None or not producer.summary.acknowledged or consumer.summary.messages_read:
        return [consumer.summary.verdict, *others[:1]]
    asked = f"is the operator running, and does it read {producer.topic} and write {consumer.topic}?"
    return [f"{INVALID}: none of {producer.summary.acknowledged:,} messages had a result; {asked}"]


def _of_results(ledger: LedgerCounts | None, missing: int | None, *, known: bool) -> list[str]:
    """What became of the messages. `known`: every process told what it did, so that "none" can be said."""
    parts = []
    if ledger is not None and ledger.lost and not missing:
        parts.append(f"{ledger.lost:,} lost")
    elif ledger is not None and ledger.lost == 0 and known and not ledger.unexpected:
        parts.append("none lost")
    if missing and missing < 0:
        parts.append(f"{-missing:,} results more than were expected" if missing < -1 else "1 result more than expected")
    return parts


def _others(
    producer: ProducerResult | None,
    consumer: ConsumerResult | None,
    rows: Sequence[Row],
    missing: int | None,
    *,
    began_ms: float | None,
) -> str:
    """In words that some results are of messages that this run did not send; "" where that is not sure."""
    if producer is None or consumer is None or not rows or (missing is not None and missing >= 0):
        return ""  # where just as many came as were expected, an old stamp is a clock's
    first_ms = min(epoch_ms(producer.started_at), began_ms or math.inf)
    before_s = (first_ms - min(row.start_ms + 1_000 * row.width_s - row.max_ms for row in rows)) / 1_000
    if before_s > _CLOCKS_S:
        return (
            f"not all results are of this run: the oldest is of a message stamped {before_s:,.0f} s before the first "
            "one was sent (or the clocks of brokers and producers differ by that)"
        )
    expected = consumer.summary.messages_read + (missing or 0)
    unanswered = producer.summary.messages / max(producer.summary.acknowledged, 1)  # these may be in Kafka, too
    if missing and consumer.summary.messages_read > (1 + _MOST_MORE) * unanswered * expected:
        return "not all results are of this run, or a message has more of them than --expect-ratio says"
    return ""


def _of_deltas(consumer: ConsumerResult) -> list[str]:
    deltas, verdict = consumer.summary.delta_ms, consumer.summary.verdict
    figures = (
        f"half of {deltas.count:,} results came within {deltas.p50:,.9g} ms, 99 % within {deltas.p99:,.9g} ms, "
        f"all within {deltas.max:,.9g} ms"
    )
    return [verdict, figures] if verdict.startswith("uncertain") else [figures]
