"""A capacity → one HTML page that needs no network: the capacity, latency over rate, and each step of the search."""

from __future__ import annotations

import html

import msgspec

from ..capacity import SUSTAINED, Capacity
from ..growth import MOST_GROWTH
from . import charts
from .html import Figures, document, figure, pair, section, table, verdict

_LABELS = {
    "found": ("valid", "Found"),
    "at_least": ("uncertain", "At least"),
    "none": ("invalid", "None"),
    "incomplete": ("incomplete", "Incomplete"),
}


def page(capacity: Capacity) -> str:
    """The capacity and how it was found."""
    plots = charts.of_capacity(capacity)
    title = f"{capacity.input_topic} → {capacity.output_topic}"
    status, label = _LABELS[capacity.status]
    meta = f"{capacity.started_at[:19].replace('T', ' ')} UTC · {len(capacity.steps)} steps of {capacity.step_s:g} s"
    sentence = f"{capacity.line[:1].upper()}{capacity.line[1:]}. Bounded: {capacity.bounded_by}."
    head = (
        f'<header><p class="kicker">Capacity of a Kafka streams pipeline</p><h1>{html.escape(title)}</h1>'
        f'<p class="meta">{meta}</p></header>{verdict(status, label, sentence)}'
    )
    body = [head, pair(*(figure(name, plot) for name, plot in plots.items())), _steps(capacity), _meaning(capacity)]
    return document(f"Kafka capacity: {title}", body, plots)


def _steps(capacity: Capacity) -> str:
    shown = Figures(msgspec.to_builtins(capacity))
    names = ("sent_per_s", "p50_ms", "p99_ms", "p99_9_ms", "max_ms")
    rows = []
    for at, step in enumerate(capacity.steps):
        path = f"steps.{at}"
        growth = "n/a" if step.growth is None or step.growth_high is None else (
            f'<data value="{step.growth}" data-path="{path}.growth">{100 * step.growth:+.2f} %</data>, at most '
            f'<data value="{step.growth_high}" data-path="{path}.growth_high">{100 * step.growth_high:+.2f} %</data>'
        )  # fmt: skip
        told = [step.outcome.replace("_", " "), html.escape(step.reason)]
        phase = step.phase if step.times == 1 else f"{step.phase}, {step.times} × as long"
        rows.append([shown.show(f"{path}.rate_per_s"), phase, *shown.row(path, names), growth, *told])
    head = [
        "messages/s",
        "phase",
        "sent/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "backlog's growth",
        "outcome",
        "why",
    ]
    classes = ["", "text", *[""] * 6, "text", "text"]
    return section("Steps, in the order of the search", table(head, rows, name="Steps", classes=classes))


def _meaning(capacity: Capacity) -> str:
    limits = "; ".join(map(html.escape, capacity.limits)) or "none were given"
    return section(
        "What sustained means",
        f"<p>No message was lost, the backlog surely grew by less than {MOST_GROWTH:.0%} of the rate (upper 95 % bound "
        f"of its slope), the producer reached the rate, and no limit was exceeded ({limits})."
        f"{_confirmed(capacity)}</p>",
    )


def _confirmed(capacity: Capacity) -> str:
    """How often the capacity was held once more; nothing where none is known."""
    per_s = capacity.capacity_per_s
    if per_s is None:
        return ""
    confirmations = [step for step in capacity.steps if (step.rate_per_s, step.phase) == (per_s, "confirmation")]
    count = sum(step.outcome == SUSTAINED for step in confirmations)
    if not count:
        return f" No step of confirmation held {per_s:g} messages/s once more."
    steps = "1 step" if count == 1 else f"{count} steps"
    return f" {per_s:g} messages/s were sustained once more in {steps} of confirmation."
