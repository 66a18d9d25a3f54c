"""A report → what its plots show: traces of numbers for page.js. Colours are names of page.css."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ..capacity import SUSTAINED, Capacity, Step
from ..compare import Comparison, Difference, percent
from ..growth import MOST_GROWTH
from ..result import ConsumerResult
from ..run import Report
from ..series import BacklogRow, Row, bucket_of, highest_in
from ..stats import Histogram
from .hdr import ticks

_Row = Row | BacklogRow
_PER_DOUBLING, _MOST_LABELS = 8, 10  # bars of the histogram for each doubling of the delta
_LINES = {"solid": "solid", "dash": "dashed", "dashdot": "dashed", "dot": "dotted"}
_RATIO_TICKS = [2, 10, 100, 1_000, 10_000, 100_000, 1_000_000]
_RATIO_LABELS = ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A plot. `scale` names the axis that can be switched to a logarithmic one."""

    title: str
    caption: str
    size: str
    traces: list[dict[str, Any]]
    axes: dict[str, Any]
    layout: dict[str, Any] = {}
    scale: str = ""

    def legend(self) -> Iterator[tuple[str, str, list[int], bool]]:
        """(name, CSS of its line, numbers of the traces, whether shown at first) of each entry."""
        for name in dict.fromkeys(trace["name"] for trace in self.traces):
            numbers = [at for at, trace in enumerate(self.traces) if trace["name"] == name]
            first = self.traces[numbers[0]]
            line = _LINES[first.get("dash", "solid")]
            yield (
                name,
                f"border-color:var(--{first['colour']});border-top-style:{line}",
                numbers,
                not first.get("hidden"),
            )

    def drawn(self) -> dict[str, Any]:
        """What page.js draws."""
        return {"traces": self.traces, "axes": self.axes, "layout": self.layout}


def of_report(report: Report) -> dict[str, Plot]:
    """The plots of one run, by their names; none without a measured delta."""
    if report.consumer is None or not report.consumer.summary.measured:
        return {}
    return {
        "time": _over_time(report.consumer, report.backlog),
        "percentiles": percentiles(_distributions(report)),
        "histogram": _histogram(report.consumer),
    }


def percentiles(distributions: Iterable[tuple[str, str, str, Histogram, int]]) -> Plot:
    """Percentile curves of (name, colour, dash, histogram, divisor to ms) on HdrHistogram's axis."""
    traces = []
    for name, colour, dash, histogram, divisor in distributions:
        found = [tick for tick in ticks(histogram.cells()) if tick[1] < 1]
        traces.append({
            "name": name, "colour": colour, "dash": dash, "hidden": divisor > 1,
            "x": [1 / (1 - share) for _, share, _ in found],
            "y": [value / divisor for value, _, _ in found],
            "labels": [f"{100 * share:.6g}" for _, share, _ in found],
            "hover": f"{name}: %{{y}} ms at %{{customdata}} %<extra></extra>",
        })  # fmt: skip
    return Plot(
        title="Percentiles",
        caption="The further right, the rarer: from the median to the slowest of 10,000 and more.",
        size="short",
        traces=traces,
        axes={
            "xaxis": {"type": "log", "tickvals": _RATIO_TICKS, "ticktext": _RATIO_LABELS, "hoverformat": ",.0f"},
            "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
        },
        layout={"hovermode": "closest"},
        scale="yaxis",
    )


def of_comparison(comparison: Comparison, base: Sequence[Report], new: Sequence[Report]) -> dict[str, Plot]:
    """The plots of a comparison: intervals, percentiles and time, the two sides over each other."""
    sides = (("base", "blue", "dash", base), ("new", "orange", "solid", new))
    consumers = [
        (name, colour, dash, report.consumer)
        for name, colour, dash, reports in sides
        for report in reports
        if report.consumer is not None and report.consumer.summary.measured
    ]
    if not consumers:
        return {}
    curves = [(name, colour, dash, Histogram.from_state(consumer.histograms["delta_ms"]), 1)
              for name, colour, dash, consumer in consumers]  # fmt: skip
    over_time = []
    for name, colour, _, consumer in consumers:
        rows = consumer.summary.series
        for figure, width in (("p99", 2.5), ("p50", 1.2)):
            over_time.append(time_trace(
                rows, values=[getattr(row, f"{figure}_ms") for row in rows], since_ms=rows[0].start_ms, width=width,
                name=f"{name} {figure}", colour=colour, hover=f"{name} {figure} %{{y}} ms<extra></extra>",
            ))  # fmt: skip
    known = [found for found in comparison.differences if found.low is not None]
    return {**({"intervals": _intervals(known)} if known else {}), "percentiles": percentiles(curves),
            "time": _overlaid(over_time)}  # fmt: skip


def of_capacity(capacity: Capacity) -> dict[str, Plot]:
    """Latency, and growth of the backlog, over the rate."""
    steps = sorted((step for step in capacity.steps if step.p99_ms is not None), key=lambda step: step.rate_per_s)
    if not steps:
        return {}
    latency = [
        _over_rate(steps, f"{field}_ms", name=name, colour=colour, unit="ms")
        for name, field, colour in (("max", "max", "grey"), ("p99", "p99", "orange"), ("p50", "p50", "blue"))
    ]
    known = [step for step in steps if step.growth is not None]
    growth = [_over_rate(known, "growth", name="growth", colour="violet", unit="%", factor=100)]
    limit = [{"name": f"limit, {MOST_GROWTH:.0%}", "colour": "grey", "dash": "dash", "y": [100 * MOST_GROWTH] * 2,
              "x": [steps[0].rate_per_s, steps[-1].rate_per_s], "hover": "%{y} %<extra></extra>"}]  # fmt: skip
    rates = {"type": "log", "title": {"text": "messages/s"}}
    return {
        "latency": Plot(
            title="Latency over rate", caption="Each point is a step of the search; large: sustained.", size="short",
            traces=latency, axes={"xaxis": rates, "yaxis": {"title": {"text": "delta, ms"}, "type": "log"}},
            layout={"hovermode": "closest"},
        ),
        "growth": Plot(
            title="Growth of the backlog", caption="In percent of the rate: above 0 the pipeline falls behind.",
            size="short", traces=[*growth, *limit], axes={"xaxis": rates, "yaxis": {"title": {"text": "%"}}},
            layout={"hovermode": "closest"},
        ),
    }  # fmt: skip


def _over_rate(
    steps: Sequence[Step], field: str, *, name: str, colour: str, unit: str, factor: int = 1
) -> dict[str, Any]:
    return {
        "name": name, "colour": colour, "mode": "lines+markers", "x": [step.rate_per_s for step in steps],
        "y": [factor * (getattr(step, field) or 0) for step in steps],
        "sizes": [10 if step.outcome == SUSTAINED else 5 for step in steps],
        "labels": [step.outcome.replace("_", " ") for step in steps],
        "hover": f"{name} %{{y:.4g}} {unit} at %{{x:,}} messages/s: %{{customdata}}<extra></extra>",
    }  # fmt: skip


def _overlaid(traces: list[dict[str, Any]]) -> Plot:
    return Plot(
        title="Over time",
        caption="Second by second since each run's first result, by Kafka's timestamps.",
        size="short",
        traces=traces,
        axes={"xaxis": {"title": {"text": "s"}}, "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"}},
        scale="yaxis",
    )


def _intervals(known: Sequence[Difference]) -> Plot:
    traces = []
    for found in known:
        low, change, high = (100 * (value or 0) for value in (found.low, found.change, found.high))
        colour = {"higher": "orange", "lower": "teal"}.get(found.outcome, "grey")
        words = f"{found.metric}: {percent(found.change)}, {percent(found.low)} to {percent(found.high)}<extra></extra>"
        traces.append({"name": found.metric, "colour": colour, "x": [low, change, high], "y": [found.metric] * 3,
                       "mode": "lines+markers", "width": 4, "sizes": [0, 13, 0], "hover": words})  # fmt: skip
    return Plot(
        title="Differences",
        caption="New against base, in percent; a line that crosses 0 shows no difference.",
        size="short",
        traces=traces,
        axes={
            "xaxis": {"title": {"text": "change, %"}, "zeroline": True, "rangemode": "tozero"},
            "yaxis": {"type": "category", "autorange": "reversed"},
        },
        layout={"hovermode": "closest"},
    )


def _distributions(report: Report) -> Iterator[tuple[str, str, str, Histogram, int]]:
    wanted = (
        (report.consumer, "delta_ms", "delta", "blue", "solid", 1),
        (report.consumer, "visible_ms", "visible", "orange", "dash", 1),
        (report.consumer, "append_to_visible_ms", "append → visible", "grey", "dot", 1),
        (report.producer, "ack_us", "send → ack", "teal", "dashdot", 1_000),
    )
    for result, field, name, colour, dash, divisor in wanted:
        if result is not None and result.histograms[field].count:
            yield name, colour, dash, Histogram.from_state(result.histograms[field]), divisor


def _over_time(consumer: ConsumerResult, backlog: Sequence[BacklogRow]) -> Plot:
    rows = consumer.summary.series
    traces = [
        time_trace(rows, name=name, colour=colour, dash=dash, values=[getattr(row, field) for row in rows], hover=hover)
        for name, field, colour, dash in (
            ("max", "max_ms", "grey", "solid"),
            ("p99", "p99_ms", "orange", "solid"),
            ("mean", "mean_ms", "violet", "dot"),
            ("p50", "p50_ms", "blue", "solid"),
        )
        for hover in (f"{name} %{{y}} ms<extra></extra>",)
    ]
    per_second = [row.count / row.width_s for row in rows]
    traces.append(time_trace(rows, name="results/s", colour="teal", values=per_second, absent=0, axis="y2", fill=True,
                             hover="%{y:,.6g} results/s<extra></extra>"))  # fmt: skip
    traces.append(time_trace(backlog, name="backlog", colour="violet", values=[row.messages for row in backlog],
                             axis="y3", fill=True, hover="backlog %{y:,.4g}<extra></extra>"))  # fmt: skip
    return Plot(
        title="Delta over time",
        caption=f"A point is {_width(rows)} of results, by Kafka's timestamps. Drag to zoom; double-click to go back.",
        size="tall",
        traces=traces,
        axes={
            "xaxis": {"type": "date", "anchor": "y3"},
            "yaxis": {"title": {"text": "delta, ms"}, "domain": [0.46, 1], "rangemode": "tozero"},
            "yaxis2": {"title": {"text": "results/s"}, "domain": [0.235, 0.4], "rangemode": "tozero", "nticks": 4},
            "yaxis3": {"title": {"text": "backlog"}, "domain": [0, 0.175], "rangemode": "tozero", "nticks": 4},
        },
        scale="yaxis",
    )


def time_trace(
    rows: Sequence[_Row], *, values: Sequence[float], absent: float | None = None, since_ms: int = 0, **look: Any
) -> dict[str, Any]:
    """A line over the rows' times, in ms or, after `since_ms`, in s; it is `absent` (None: broken) between far rows."""
    moments: list[float] = []
    shown: list[float | None] = []
    ended_ms = rows[0].start_ms if rows else 0
    for row, value in zip(rows, values, strict=True):
        if row.start_ms > ended_ms:
            moments += [ended_ms, row.start_ms - 1]
            shown += [absent, absent]
        moments.append(row.start_ms)
        shown.append(value)
        ended_ms = row.start_ms + row.width_s * 1_000
    if since_ms:
        moments = [(moment - since_ms) / 1_000 for moment in moments]
    return {"x": moments, "y": shown, **look}


def _histogram(consumer: ConsumerResult) -> Plot:
    bars: Counter[int] = Counter()
    for value, count in Histogram.from_state(consumer.histograms["delta_ms"]).cells():
        bars[bucket_of(value, _PER_DOUBLING)] += count
    numbers = range(min(bars), max(bars) + 1)
    lowest = [highest_in(number - 1, _PER_DOUBLING) + 1 for number in numbers]
    highest = [highest_in(number, _PER_DOUBLING) for number in numbers]
    labels = [f"{low} ms" if low == high else f"{low} to {high} ms" for low, high in zip(lowest, highest, strict=True)]
    marked = range(0, len(numbers), max(1, math.ceil(len(numbers) / _MOST_LABELS)))
    trace = {
        "name": "delta", "type": "bar", "colour": "blue", "x": list(range(len(numbers))),
        "y": [bars[number] for number in numbers], "labels": labels,
        "hover": "%{customdata}: %{y:,} messages<extra></extra>",
    }  # fmt: skip
    ticks_shown = {"tickvals": list(marked), "ticktext": [str(lowest[at]) for at in marked], "tickangle": 0}
    return Plot(
        title="Histogram",
        caption=f"How many of {sum(bars.values()):,} deltas were how long; bars widen with the delta.",
        size="short",
        traces=[trace],
        axes={"xaxis": {**ticks_shown, "title": {"text": "ms"}}, "yaxis": {"title": {"text": "messages"}}},
        layout={"bargap": 0.08, "hovermode": "closest"},
        scale="yaxis",
    )


def _width(rows: Sequence[Row]) -> str:
    return "a second" if not rows or rows[0].width_s == 1 else f"{rows[0].width_s} s"
