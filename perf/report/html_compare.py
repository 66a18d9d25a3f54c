"""A comparison → one HTML page that needs no network, with the plots of both sides over each other."""

from __future__ import annotations

import html
from collections.abc import Sequence

import msgspec

from ..compare import Comparison, percent
from ..run import Report
from . import charts
from .html import Figures, document, figure, pair, section, table, verdict

_LABELS = {
    "same": ("valid", "No difference shown"),
    "faster": ("valid", "Faster"),
    "slower": ("uncertain", "Slower"),
    "differs": ("uncertain", "Different"),
    "unknown": ("uncertain", "Cannot be judged"),
    "exceeded": ("exceeded", "Limit exceeded"),
    "invalid": ("invalid", "Invalid"),
}
_TOLD = {"none": "no difference shown", "higher": "higher", "lower": "lower"}


def page(comparison: Comparison, base: Sequence[Report], new: Sequence[Report]) -> str:
    """The comparison of two sets of runs."""
    plots = charts.of_comparison(comparison, base, new)
    drawn = {name: figure(name, plot) for name, plot in plots.items()}
    body = [
        _head(comparison),
        _differences(comparison),
        section("Mind", "".join(f"<p>{html.escape(note)}</p>" for note in comparison.notes)),
        section("Limits", _limits(comparison)),
        pair(drawn.pop("intervals", ""), drawn.pop("percentiles", "")),
        *drawn.values(),
        _sources(comparison),
    ]
    return document("Kafka latency: comparison", body, plots)


def _head(comparison: Comparison) -> str:
    status, label = _LABELS[comparison.status]
    return (
        '<header><p class="kicker">Latency of a Kafka streams pipeline</p><h1>Base and new, compared</h1>'
        f'<p class="meta">{html.escape(comparison.method)}</p></header>{verdict(status, label, comparison.verdict)}'
    )


def _differences(comparison: Comparison) -> str:
    shown = Figures(msgspec.to_builtins(comparison))
    rows = []
    for at, found in enumerate(comparison.differences):
        if found.base is None and found.new is None:
            continue
        path = f"differences.{at}"
        cells = shown.row(path, ("base", "new"))
        cells += [_share(f"{path}.{name}", getattr(found, name)) for name in ("change", "low", "high")]
        told = _TOLD.get(found.outcome) or html.escape(found.why)
        rows.append([found.metric, *cells, told])
    head = ["delta and others", "base", "new", "difference", "from", "to", "outcome"]
    note = (
        "<p class=note>Times in ms, throughput in messages/s. The true differences of the delta lie between “from” and "
        f"“to”, all of them together in {comparison.confidence:.0%} of comparisons. Of several runs, base and new are "
        "the geometric mean.</p>"
    )
    return section("Differences", table(head, rows, name="Differences", classes=[""] * 6 + ["text"]), note)


def _share(path: str, value: float | None) -> str:
    return "n/a" if value is None else f'<data value="{value}" data-path="{path}">{percent(value)}</data>'


def _limits(comparison: Comparison) -> str:
    items = [
        f'<tr><td class="text">{html.escape(one.sentence)}</td><td class="{one.outcome}">{one.outcome}</td></tr>'
        for one in comparison.limits
    ]
    return f"<table><tbody>{''.join(items)}</tbody></table>" if items else ""


def _sources(comparison: Comparison) -> str:
    rows = [
        [name, html.escape("; ".join(", ".join(files) for files in side))]
        for name, side in (("base", comparison.base), ("new", comparison.new))
    ]
    return section("Runs", table(["side", "made from"], rows, name="Runs", classes=["", "text"]))
