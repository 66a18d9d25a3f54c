"""Events and summaries as lines of text. A summary's fields are rendered by their names, so a new one needs no line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from ..capacity import Capacity
from ..clock import ClockOffset
from ..compare import ChangeOutcome, Comparison, percent
from ..limits import Outcome
from ..live import RECENT_S, RecentFigures
from ..run import JudgedLimit, Report
from ..stats import ConsumerSummary, Distribution, Event, ProducerSummary, WindowAverage

_NONE = "n/a"
_UNITS = (("_mb_per_s", "MB/s"), ("_per_s", "messages/s"), ("_ms", "ms"), ("_s", "s"))
_LABEL_WIDTH = 32
_LEAST_ROWS, _MOST_ROWS = 2, 20


def event_line(event: Event) -> str:
    """A [STAT …] or [TOTAL] line."""
    if isinstance(event, WindowAverage):
        return f"[STAT {window_label(event.size)}] - Average {event.mean_ms} milliseconds / message"
    return f"[TOTAL] - Total Number of messages read: {event.messages}"


def window_label(size: int) -> str:
    """100, 1K, 10K, 1M; other sizes in full."""
    for unit, name in ((1_000_000, "M"), (1_000, "K")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def recent_line(backlog: int | None, recent: RecentFigures) -> str:
    """Messages that wait to be read, and the deltas of the last seconds, for a terminal."""
    p50, p99, most = (number(recent.tally.percentile(percent)) for percent in (50, 99, 100))
    return (
        f"backlog {number(backlog, thousands=True)}; last {RECENT_S:g} s: {number(recent.rate_per_s, thousands=True)} "
        f"messages/s, p50 {p50}, p99 {p99}, max {most} ms"
    )


def summary_lines(title: str, summary: msgspec.Struct) -> Iterator[str]:
    """The summary, a line per value; `n/a` where there is none."""
    yield ""
    yield f"{title}"
    for name in summary.__struct_fields__:
        yield from _field_lines(name, getattr(summary, name))


def limit_lines(outcomes: Sequence[Outcome | JudgedLimit | ChangeOutcome]) -> Iterator[str]:
    """Each limit with its value."""
    if outcomes:
        yield ""
        yield "Limits"
        yield from (f"  {outcome.sentence}" for outcome in outcomes)


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The differences as a table, what makes them doubtful, and the limits."""
    share = f"{comparison.confidence:.0%} interval"
    rows = [["", "base", "new", "difference", share, ""]]
    for found in comparison.differences:
        if found.base is not None or found.new is not None:
            interval = "n/a" if found.low is None else f"{percent(found.low)} to {percent(found.high)}"
            told = {"none": "no difference shown", "unknown": found.why}.get(found.outcome, found.outcome)
            rows.append([found.metric, number(found.base), number(found.new), percent(found.change), interval, told])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield from (comparison.verdict, "", f"Method: {comparison.method}.", "Times in ms, throughput in messages/s.", "")
    for label, *figures, told in rows:
        cells = "  ".join(f"{cell:>{width}}" for cell, width in zip(figures, widths[1:-1], strict=True))
        yield f"  {label:{widths[0]}}  {cells}  {told}".rstrip()
    yield from (f"  warning: {note}" for note in comparison.notes)
    yield from limit_lines(comparison.limits)


def verdict_sentences(summary: ConsumerSummary | ProducerSummary, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What a summary comes to, for where there is room for one line."""
    if isinstance(summary, ProducerSummary):
        failed = sum(summary.failed.values())
        yield f"{summary.acknowledged} of {summary.messages} messages acknowledged, {failed} failed"
    else:
        delta = summary.delta_ms
        yield summary.verdict
        yield f"{summary.measured} of {summary.messages_read} messages read were measured"
        yield f"delta mean {number(delta.mean)} ms, p50 {number(delta.p50)} ms, p99 {number(delta.p99)} ms"
    yield from (outcome.sentence for outcome in outcomes if outcome.exceeded)


def report_lines(report: Report) -> Iterator[str]:
    """The merged summaries of a run, what became of marked messages, the limits, and the verdict."""
    for name, count, whole in (
        ("producer", report.producers, report.producer),
        ("consumer", report.consumers, report.consumer),
    ):
        if whole is not None:
            several = f"the {name}" if count == 1 else f"{count} {name}s"
            yield from summary_lines(f"Summary of {several}, topic {whole.topic}", whole.summary)
    if report.ledger is not None:
        yield from summary_lines("Ledger: messages marked by producers, found by consumers", report.ledger)
    if report.growth is not None:
        title = "Backlog while messages were sent: its growth, at least and at most (95 % each)"
        yield from summary_lines(title, report.growth)
    elif report.producer is not None and report.producer.steady and report.consumer is not None:
        yield from ("", "Backlog while messages were sent: its growth is n/a (docs/report.md, Backlog, says when)")
    yield from limit_lines(report.limits)
    yield from ("", report.verdict)


def capacity_lines(capacity: Capacity) -> Iterator[str]:
    """Latency and growth of the backlog over the rate, in the order of rates; then the capacity."""
    yield from ("", "Steps of the search, by rate (delta in ms; growth of the backlog in % of the rate)")
    rows = [["messages/s", "outcome", "p50", "p99", "p99.9", "max", "growth", "at most"]]
    for step in sorted(capacity.steps, key=lambda step: step.rate_per_s):
        shares = (step.growth, step.growth_high)
        growth = [_NONE if share is None else f"{round(100 * share, 2) + 0.0:+.2f}" for share in shares]
        delta = (number(value) for value in (step.p50_ms, step.p99_ms, step.p99_9_ms, step.max_ms))
        rows.append([f"{step.rate_per_s:g}", step.outcome.replace("_", " "), *delta, *growth])
    yield from _aligned(rows, "  ")
    yield from ("", capacity.line, f"bounded by: {capacity.bounded_by}")


def utc(stamp_ms: int) -> str:
    """A Kafka timestamp as ISO 8601 in UTC, or the bare number where a calendar does not reach."""
    try:
        moment = datetime.fromtimestamp(stamp_ms // 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{stamp_ms} ms"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{stamp_ms % 1000:03d}Z"


def label_and_unit(name: str) -> tuple[str, str]:
    """A field's name for people, and its unit."""
    for suffix, unit in _UNITS:
        if name.endswith(suffix):
            return name.removesuffix(suffix).replace("_", " "), unit
    return name.replace("p99_", "p99.").replace("_", " "), ""


def number(value: float | None, *, thousands: bool = False) -> str:
    """At most three decimals; `n/a` for None."""
    if value is None:
        return _NONE
    comma = "," if thousands else ""
    return f"{value:{comma}.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:{comma}}"


def _field_lines(name: str, value: Any) -> Iterator[str]:
    label, unit = label_and_unit(name)
    if isinstance(value, list) and name == "clock":
        yield from _clock_lines(value)
    elif isinstance(value, Distribution):
        yield f"  {label + ' (' + unit + ')':{_LABEL_WIDTH}} {_NONE if value.count == 0 else ''}".rstrip()
        if value.count:
            yield from (_row(label_and_unit(key)[0], getattr(value, key)) for key in value.__struct_fields__)
    elif isinstance(value, msgspec.Struct):
        yield f"  {label}"
        yield from (_row(key.replace("_", " "), getattr(value, key)) for key in value.__struct_fields__)
    elif isinstance(value, list):
        yield from _table_lines(label, value)
    elif isinstance(value, dict):
        shown = {key: count for key, count in value.items() if count}
        yield f"  {label:{_LABEL_WIDTH}} {sum(shown.values())}"
        yield from (_row(key, count) for key, count in shown.items())
    elif name.endswith("_record_ms"):
        yield f"  {label:{_LABEL_WIDTH}} {_NONE if value is None else utc(value)}"
    else:
        yield f"  {label:{_LABEL_WIDTH}} {number(value)}{' ' + unit if unit and value is not None else ''}"


def _clock_lines(clock: list[ClockOffset]) -> Iterator[str]:
    if not clock:
        yield f"  {'clock offset vs brokers':{_LABEL_WIDTH}} {_NONE}"
    for found in clock:
        label = f"clock offset vs broker {found.broker}"
        yield f"  {label:{_LABEL_WIDTH}} {found.offset_ms:+.1f} ms ± {found.bound_ms:.1f} ms"


def _table_lines(label: str, rows: list[msgspec.Struct]) -> Iterator[str]:
    """At most so many rows; the result file has them all."""
    if len(rows) < _LEAST_ROWS:
        return
    more = f", the first {_MOST_ROWS} of {len(rows)}; the result file has all" if len(rows) > _MOST_ROWS else ""
    yield f"  {label} (ms){more}"
    names = rows[0].__struct_fields__
    table = [[name.removesuffix("_ms").replace("_", " ") for name in names]]
    table += [[_cell(name, getattr(row, name)) for name in names] for row in rows[:_MOST_ROWS]]
    yield from _aligned(table, "    ")


def _aligned(rows: Sequence[Sequence[str]], indent: str) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield indent + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def _cell(name: str, value: Any) -> str:
    return utc(value) if name == "start_ms" else number(value)


def _row(label: str, value: Any) -> str:
    return f"    {label:{_LABEL_WIDTH - 2}} {number(value)}"
