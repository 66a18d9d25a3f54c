"""Results as versioned JSON files. The schema is described in docs/result.md.

A file is written beside its name and renamed, so that a half-written one is never seen.
"""

from __future__ import annotations

import os
import platform
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from .series import SeriesState, TimeSeries
from .stats import ConsumerSummary, Histogram, HistogramState, ProducerSummary, Statistics, per_second
from .trace import Ledger, LedgerState

VERSION = 1
#: What reading the states in a damaged result raises.
_DAMAGE = (ValueError, KeyError, zlib.error, msgspec.MsgspecError)


class ResultError(Exception):
    """A file that was given is no result, or does not go with the others."""

    exit_code = 2


class NotWrittenError(ResultError):
    """A result cannot be written."""

    exit_code = 1


class _Kind(msgspec.Struct):
    kind: str


class _Versioned(msgspec.Struct):
    version: int


class _Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    version: int = VERSION
    started_at: str
    exit_code: int
    host: str = msgspec.field(default_factory=platform.node)
    topic: str
    configuration: dict[str, str]
    histograms: dict[str, HistogramState]
    limits: list[str]
    versions: dict[str, str] = {}


class ConsumerResult(_Result, frozen=True, kw_only=True, tag="consumer"):
    """What PerfConsumer.py writes."""

    summary: ConsumerSummary
    series: SeriesState
    ledger: LedgerState | None


class ProducerResult(_Result, frozen=True, kw_only=True, tag="producer"):
    """What ProducerPerformance.py writes. `marked`: how many messages of each origin got a trace mark.

    `unacknowledged` has the marks of those that failed or got no answer; None where there are none. `steady`: whether
    it kept to one rate, neither at full speed nor by a profile that changes it.
    """

    summary: ProducerSummary
    marked: dict[str, int]
    steady: bool = False
    unacknowledged: LedgerState | None = None


#: Either kind of result.
Result = ConsumerResult | ProducerResult


def of(
    summary: ConsumerSummary | ProducerSummary,
    *,
    topic: str,
    configuration: Mapping[str, str],
    histograms: Mapping[str, Histogram],
    started_at: str,
    exit_code: int,
    limits: Sequence[str] = (),
    versions: Mapping[str, str] = MappingProxyType({}),
    details: Mapping[str, Any],
) -> Result:
    """The result that holds `summary`, and its kind's own fields from `details`. `configuration` must be redacted."""
    common: dict[str, Any] = {
        "topic": topic,
        "configuration": dict(configuration),
        "histograms": {name: histogram.state() for name, histogram in histograms.items()},
        "started_at": started_at,
        "exit_code": exit_code,
        "limits": list(limits),
        "versions": dict(versions),
        **details,
    }
    if isinstance(summary, ConsumerSummary):
        return ConsumerResult(summary=summary, **common)
    return ProducerResult(summary=summary, **common)


def of_statistics(statistics: Statistics, *, topic: str, started_ms: float, now_ms: float) -> ConsumerResult:
    """The state of `statistics` as a result, for a checkpoint: read from `started_ms` to `now_ms` since the epoch."""
    found = of(
        statistics.summary(elapsed_s=round((now_ms - started_ms) / 1_000, 6)),
        topic=topic,
        configuration={},
        histograms=statistics.histograms(),
        started_at=datetime.fromtimestamp(started_ms / 1_000, timezone.utc).isoformat(timespec="milliseconds"),
        exit_code=0,
        details=statistics.details(),
    )
    assert isinstance(found, ConsumerResult)
    return found


def write(path: Path, result: msgspec.Struct) -> None:
    """Write a result, or a report of several, to `path` as JSON. Raises NotWrittenError."""
    write_file(path, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is never seen half-written. Raises NotWrittenError."""
    path = path.resolve()  # a link stays a link
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise NotWrittenError(f"the file {path} was not written: {os.strerror(error.errno or 0)}") from error


def read(path: Path) -> Result:
    """Read a result file. Raises ResultError."""
    found: Result = read_as(path, ConsumerResult | ProducerResult)
    return found


def kind_of(path: Path) -> str:
    """The `kind` that a file says it is of; "" where it says none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kind).kind
    except (OSError, msgspec.MsgspecError, RecursionError):
        return ""


def read_as(path: Path, kinds: Any) -> Any:
    """Read a file that holds one of these (tagged) structs. Raises ResultError, for damage within it, too."""
    try:
        found = decoded(path.read_bytes(), str(path), kinds)
    except OSError as error:
        raise ResultError(f"cannot read the result file {path}: {os.strerror(error.errno or 0)}") from error
    for one in (found, getattr(found, "producer", None), getattr(found, "consumer", None)):  # those of a report
        if isinstance(one, _Result):
            _require_intact(one, str(path))
    return found


def decoded(content: bytes, name: str, kinds: Any) -> Any:
    """The struct of `kinds` (tagged) in `content`, which the errors call `name`. Raises ResultError."""
    try:
        version = msgspec.json.decode(content, type=_Versioned).version
        if version != VERSION:
            raise ResultError(f"{name} has version {version} of the result's format; this tool reads {VERSION}")
        return msgspec.json.decode(content, type=kinds)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ResultError(f"{name} is no result file of this tool: {error}") from error


def merged(results: Sequence[Result]) -> Result:
    """One result for several of a kind: counters and histograms add up, everything else is computed anew from them.

    Percentiles are never averaged. Associative and commutative; one result alone comes back as it is. Raises
    ResultError for results that do not belong together, or a damaged one.
    """
    try:
        if len(results) == 1:
            _require_intact(results[0], f"the result of host {results[0].host}")
            return results[0]
        return _merged(results)
    except _DAMAGE as error:
        raise ResultError(f"these results cannot be merged: {error}") from error


def _require_intact(result: _Result, name: str) -> None:
    """Raises ResultError, which calls the result `name`, unless all its packed states can be read."""
    try:
        epoch_ms(result.started_at)
        if isinstance(result, ConsumerResult):
            statistics_of(result)
        elif isinstance(result, ProducerResult):
            for state in result.histograms.values():
                Histogram.from_state(state)
            ledger_of(result)
    except (*_DAMAGE, ResultError) as error:
        raise ResultError(f"{name} is damaged: {error}") from error


def _merged(results: Sequence[Result]) -> Result:
    starts_ms = [epoch_ms(result.started_at) for result in results]
    first_ms = min(starts_ms)
    spans_s = [
        round((start_ms - first_ms) / 1000 + result.summary.elapsed_s, 6)
        for start_ms, result in zip(starts_ms, results, strict=True)
    ]
    common: dict[str, Any] = {
        "started_at": results[starts_ms.index(first_ms)].started_at,
        "exit_code": max(result.exit_code for result in results),
        "host": _joined(result.host for result in results),
        "topic": _joined(result.topic for result in results),
        "configuration": dict(set.intersection(*(set(result.configuration.items()) for result in results))),
        "limits": sorted({sentence for result in results for sentence in result.limits}),
        "versions": _versions([result.versions for result in results]),
    }
    consumers = [result for result in results if isinstance(result, ConsumerResult)]
    if len(consumers) == len(results):
        return _merged_consumers(consumers, common, elapsed_s=max(spans_s))
    producers = [result for result in results if isinstance(result, ProducerResult)]
    sends_s = [
        round((start_ms - first_ms) / 1000 + result.summary.send_elapsed_s, 6)
        for start_ms, result in zip(starts_ms, producers, strict=True)
    ]
    return _merged_producers(producers, common, elapsed_s=max(spans_s), send_elapsed_s=max(sends_s))


def ledger_of(result: Result) -> Ledger | None:
    """A consumer's ledger (None without --trace); of a producer, what was not acknowledged. Raises ResultError."""
    state = result.ledger if isinstance(result, ConsumerResult) else result.unacknowledged
    try:
        return Ledger.from_state(state) if state is not None else None
    except ValueError as error:
        raise ResultError(f"a result of host {result.host}: {error}") from error


def ledgers_of(results: Iterable[Result]) -> Ledger | None:
    """The ledgers of several results as one; None where none has any. Raises ResultError."""
    total: Ledger | None = None
    for ledger in map(ledger_of, results):
        if ledger is not None:
            total = total or Ledger()
            total.merge(ledger)
    return total


def statistics_of(result: ConsumerResult) -> Statistics:
    """The consumer's statistics, to be merged. Raises ResultError, ValueError or KeyError for a damaged result."""
    histograms = {name: Histogram.from_state(state) for name, state in result.histograms.items()}
    return Statistics.restored(result.summary, histograms, TimeSeries.from_state(result.series), ledger_of(result))


def _merged_consumers(results: Sequence[ConsumerResult], common: dict[str, Any], *, elapsed_s: float) -> ConsumerResult:
    if len({result.summary.latency for result in results}) > 1:
        raise ValueError("some measure to the append stamp, others to the moment of receiving")
    total = statistics_of(results[0])
    for result in results[1:]:
        total.merge(statistics_of(result))
    histograms = {name: histogram.state() for name, histogram in sorted(total.histograms().items())}
    return ConsumerResult(
        summary=total.summary(elapsed_s=elapsed_s), histograms=histograms, **common, **total.details()
    )


def _merged_producers(
    results: Sequence[ProducerResult], common: dict[str, Any], *, elapsed_s: float, send_elapsed_s: float
) -> ProducerResult:
    histograms: dict[str, Histogram] = {"lateness_us": Histogram(), "ack_us": Histogram()}
    failed: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    for result in results:
        for name, histogram in histograms.items():
            histogram.merge(Histogram.from_state(result.histograms[name]))
        failed.update(result.summary.failed)
        marked.update(result.marked)
    unacknowledged = ledgers_of(results)
    summaries = [result.summary for result in results]
    messages, acknowledged = (sum(getattr(s, name) for s in summaries) for name in ("messages", "acknowledged"))
    size_bytes = sum(summary.bytes for summary in summaries)
    targets = [summary.target_rate_per_s for summary in summaries]
    return ProducerResult(
        summary=ProducerSummary(
            messages=messages,
            not_sent=sum(summary.not_sent for summary in summaries),
            acknowledged=acknowledged,
            failed=dict(sorted(failed.items())),
            unknown=sum(summary.unknown for summary in summaries),
            bytes=size_bytes,
            elapsed_s=elapsed_s,
            send_elapsed_s=send_elapsed_s,
            throughput_per_s=per_second(acknowledged, elapsed_s),
            throughput_mb_per_s=per_second(size_bytes / max(1, messages) * acknowledged / 1e6, elapsed_s),
            send_rate_per_s=per_second(messages - 1, send_elapsed_s) if messages > 1 else None,
            target_rate_per_s=sum(target or 0 for target in targets) if all(targets) else None,
            stamp=_joined(summary.stamp for summary in summaries),
            lateness_ms=histograms["lateness_us"].distribution(divisor=1_000),
            ack_ms=histograms["ack_us"].distribution(divisor=1_000),
        ),
        marked=dict(sorted(marked.items())),
        steady=all(result.steady for result in results),
        unacknowledged=unacknowledged.state() if unacknowledged is not None else None,
        histograms={name: histogram.state() for name, histogram in histograms.items()},
        **common,
    )


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(sorted({part for text in texts for part in text.split(", ")}))


def _versions(several: Sequence[Mapping[str, str]]) -> dict[str, str]:
    names = sorted({name for versions in several for name in versions})
    return {name: _joined(versions[name] for versions in several if name in versions) for name in names}


def epoch_ms(moment: str) -> int:
    """A `started_at` in milliseconds since the epoch."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
