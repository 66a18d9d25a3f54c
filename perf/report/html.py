"""A report → one HTML page that needs no network. Every figure is looked up by its path in the report's JSON.

The plots are drawn by plotly.js (page.js), whose basic bundle stands in the page; page.css has the look.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources
from string import Template
from typing import Any

import msgspec

from ..run import Report
from . import charts
from .text import label_and_unit, number, utc

_HEADLINE = ("p50", "p99", "max", "mean")
_PERCENTILES = ("p50", "p90", "p99", "p99_9", "p99_99")
_STATUS = {
    "valid": "Valid",
    "uncertain": "Uncertain",
    "exceeded": "Limit exceeded",
    "incomplete": "Incomplete",
    "invalid": "Invalid",
}
_STAGES = (
    ("producer.summary.lateness_ms", "schedule → send", "how late the producer was against its own schedule"),
    ("producer.summary.ack_ms", "send → ack", "from handing a message to the Kafka client to Kafka's answer"),
    ("consumer.summary.delta_ms", "pipeline (delta)", "from the input's Kafka timestamp to the result's"),
    ("consumer.summary.append_to_visible_ms", "append → visible", "from the result's stamp to its being received"),
    ("consumer.summary.visible_ms", "visible", "delta and append → visible together: when a reader has the result"),
)
_SENT = ("messages", "acknowledged", "unknown", "not_sent")
_REASONS = {
    "no_timestamp_start": "the result has no such attribute or header",
    "invalid_timestamp_start": "the attribute is no timestamp: null, text, an object",
    "implausible_timestamp_start": "before 2000, or over a day after the result: mostly another unit",
    "not_json": "not JSON, or no object",
    "empty": "no value, or one of zero bytes",
    "no_kafka_timestamp": "the record has no Kafka timestamp",
    "warmup": "read during the warm-up that was asked for",
}


def page(report: Report) -> str:
    """The report of one run."""
    shown = Figures(msgspec.to_builtins(report))
    plots = charts.of_report(report)
    title = " → ".join(one.topic for one in (report.producer, report.consumer) if one is not None)
    drawn = {name: figure(name, plot) for name, plot in plots.items()}
    body = [
        _head(report, title),
        _cards(shown),
        drawn.pop("time", ""),
        pair(*drawn.values()),
        _stages(shown),
        _limits(report),
        _not_measured(shown),
        pair(_ledger(shown), _sent(shown), _partitions(shown), _clock(shown)),
        _series(shown),
        _configuration(report),
        _terms(),
    ]
    return document(f"Kafka latency: {title}", body, plots)


def document(title: str, body: Iterable[str], plots: dict[str, charts.Plot]) -> str:
    """A whole page; the parts of `body` are HTML."""
    files = resources.files(__package__)
    parts = {name: files.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    data = msgspec.json.encode({name: plot.drawn() for name, plot in plots.items()}).decode()
    return Template(parts["html"]).substitute(
        title=html.escape(title),
        body="\n".join(filter(None, body)),
        style=parts["css"],
        script=parts["js"],
        plotly=files.joinpath("plotly-basic.min.js").read_text(encoding="utf-8"),
        charts=data.replace("<", "\\u003c"),  # a text of the user's must not end the script
    )


class Figures:
    """The figures of a report's JSON, by their paths such as consumer.summary.delta_ms.p99."""

    def __init__(self, document: Any) -> None:
        self._document = document

    def find(self, path: str) -> Any:
        """What stands at the path; None where there is nothing."""
        found = self._document
        for name in path.split("."):
            if found is None:
                return None
            found = found[int(name)] if isinstance(found, list) else found.get(name)
        return found

    def show(self, path: str) -> str:
        """The figure at the path, as HTML that keeps it unrounded."""
        value = self.find(path)
        if value is None:
            return "n/a"
        return f'<data value="{value}" data-path="{path}">{number(value, thousands=True)}</data>'

    def row(self, path: str, names: Iterable[str]) -> list[str]:
        """The figures of an object's fields."""
        return [self.show(f"{path}.{name}") for name in names]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, name: str, classes: Sequence[str] = ()) -> str:
    """A table; cells are HTML, and the first of a row is its heading. It scrolls by itself where it is too wide."""
    kinds = [f' class="{kind}"' if kind else "" for kind in classes or [""] * len(head)]
    heads = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell, kind in zip(head, kinds, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    inner = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(name)}">{inner}</div>'


def section(title: str, *content: str) -> str:
    """A part of the page under a heading; nothing without content."""
    inner = "".join(content)
    return f"<section><h2>{title}</h2>{inner}</section>" if inner else ""


def pair(*parts: str) -> str:
    """Parts side by side where there is room."""
    inner = "".join(parts)
    return f'<div class="pair">{inner}</div>' if inner else ""


def verdict(status: str, label: str, sentence: str) -> str:
    """The banner that comes first."""
    return f'<p class="verdict {status}"><strong>{label}</strong>{html.escape(sentence)}</p>'


def _head(report: Report, title: str) -> str:
    several = [one for one in (report.producer, report.consumer) if one is not None]
    started = min(one.started_at for one in several)
    counts = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in
              (("producer", report.producers), ("consumer", report.consumers)) if count]  # fmt: skip
    elapsed = max(one.summary.elapsed_s for one in several)
    meta = f"{started[:19].replace('T', ' ')} UTC · {elapsed:,.0f} s · {' and '.join(counts)}"
    return (
        f'<header><p class="kicker">Latency of a Kafka streams pipeline</p><h1>{html.escape(title)}</h1>'
        f'<p class="meta">{meta}</p></header>{verdict(report.status, _STATUS[report.status], report.verdict)}'
    )


def _cards(shown: Figures) -> str:
    read, sent = "consumer.summary", "producer.summary"
    cards = []
    if shown.find("consumer") is not None:
        cards += [_card(f"Delta, {name}", shown.show(f"{read}.delta_ms.{name}"), "ms") for name in _HEADLINE]
        more = f"of {shown.show(f'{read}.messages_read')} read"
        cards.append(_card("Measured", shown.show(f"{read}.measured"), "", more))
        grown, low, high = shown.row("growth", ("growth_per_s", "growth_low_per_s", "growth_high_per_s"))
        more = f"backlog grew by {grown} /s ({low} to {high})" if shown.find("growth") else ""
        cards.append(_card("Results", shown.show(f"{read}.throughput_per_s"), "/s", more))
    if shown.find("producer") is not None:
        target = f"{sent}.target_rate_per_s"
        more = f"asked for: {shown.show(target)}" if shown.find(target) else "as fast as possible"
        cards.append(_card("Sent", shown.show(f"{sent}.send_rate_per_s"), "/s", more))
    cards.append(_card("Lost", shown.show("ledger.lost"), "", "" if shown.find("ledger") else "not traced"))
    return f'<dl class="cards">{"".join(cards)}</dl>'


def _card(label: str, figure: str, unit: str, more: str = "") -> str:
    unit = f" <small>{unit}</small>" if unit and figure != "n/a" else ""
    return f"<div><dt>{label}</dt><dd>{figure}{unit}</dd>{more and f'<dd class=more>{more}</dd>'}</div>"


def figure(name: str, plot: charts.Plot) -> str:
    """A plot with its legend, whose boxes page.js listens to."""
    entries = []
    for label, line, numbers, shown in plot.legend():
        box = f'<input type="checkbox"{" checked" if shown else ""} data-traces="{",".join(map(str, numbers))}">'
        entries.append(f'<label>{box}<i style="{line}"></i>{html.escape(label)}</label>')
    if plot.scale:
        entries.append(f'<label class="scale"><input type="checkbox" data-scale="{plot.scale}">log scale</label>')
    legend = f"<legend>Shown in: {plot.title}</legend>{''.join(entries)}"
    return (
        f"<figure><figcaption><h2>{plot.title}</h2><p>{plot.caption}</p></figcaption>"
        f'<fieldset class="legend" data-plot="{name}">{legend}</fieldset>'
        f'<div class="plot {plot.size}" id="{name}" role="group" aria-label="Plot: {plot.title}"></div></figure>'
    )


def _stages(shown: Figures) -> str:
    head = ["stage (ms)", "count", "mean", *(label_and_unit(name)[0] for name in _PERCENTILES), "max", "what it is"]
    rows = [
        [label, *shown.row(path, ("count", "mean", *_PERCENTILES, "max")), meaning]
        for path, label, meaning in _STAGES
        if shown.find(f"{path}.count")
    ]
    return section(
        "Stages", table(head, rows, name="Stages", classes=[""] * (len(head) - 1) + ["text"]) if rows else ""
    )


def _limits(report: Report) -> str:
    several = [one for one in (report.producer, report.consumer) if one is not None]
    earlier = sorted({sentence for one in several for sentence in one.limits})
    judged = [(one.sentence, one.exceeded) for one in report.limits]
    judged += [(sentence, sentence.endswith("exceeded")) for sentence in earlier]
    items = [
        f'<tr><td class="text">{html.escape(sentence)}</td><td class="{"exceeded" if exceeded else "holds"}">'
        f"{'exceeded' if exceeded else 'holds'}</td></tr>"
        for sentence, exceeded in judged
    ]
    return section("Limits", f"<table><tbody>{''.join(items)}</tbody></table>" if items else "")


def _not_measured(shown: Figures) -> str:
    if shown.find("consumer") is None:
        return ""
    base = "consumer.summary"
    rows = [[name, shown.show(f"{base}.not_measured.{name}"), meaning] for name, meaning in _REASONS.items()]
    rows.append(["negative", shown.show(f"{base}.negative"), "below 0: measured, and in all figures; clocks differ"])
    measured, read = shown.row(base, ("measured", "messages_read"))
    note = f"<p class=note>{measured} of {read} messages read were measured; the others by reason:</p>"
    head = ["reason", "messages", "meaning"]
    return section("What was not measured, and why", note, table(head, rows, name="Reasons", classes=["", "", "text"]))


def _ledger(shown: Figures) -> str:
    if shown.find("ledger") is None:
        return ""
    rows = [[name.replace("_", " "), shown.show(f"ledger.{name}")] for name in shown.find("ledger")]
    return section("Lost, doubled, out of order", table(["marked messages", "count"], rows, name="Ledger"))


def _sent(shown: Figures) -> str:
    if shown.find("producer") is None:
        return ""
    base = "producer.summary"
    rows = [[name.replace("_", " "), shown.show(f"{base}.{name}")] for name in _SENT]
    failed = shown.find(f"{base}.failed")
    rows += [[f"failed: {html.escape(name)}", shown.show(f"{base}.failed.{name}")] for name in failed]
    return section("Messages sent", table(["messages", "count"], rows, name="Messages sent"))


def _partitions(shown: Figures) -> str:
    names = ("count", "mean_ms", "p50_ms", "p99_ms", "max_ms")
    base = "consumer.summary.partitions"
    rows = [
        [shown.show(f"{base}.{at}.partition"), *shown.row(f"{base}.{at}", names)]
        for at in range(len(shown.find(base) or []))
    ]
    head = ["partition", *(" ".join(label_and_unit(name)).strip() for name in names)]
    return section("Output partitions", table(head, rows, name="Output partitions") if rows else "")


def _clock(shown: Figures) -> str:
    base = "consumer.summary.clock"
    if shown.find("consumer") is None:
        return ""
    rows = [
        [f"broker {one['broker']}", *shown.row(f"{base}.{at}", ("offset_ms", "bound_ms"))]
        for at, one in enumerate(shown.find(base))
    ]
    missing = "<p>The clocks' offset is n/a: <code>PerfTopics.py clock</code> makes the topic that it needs.</p>"
    note = (
        "<p class=note>Kafka's timestamps are whole milliseconds, and the messages of one batch share one: the delta's "
        "resolution is 1 ms. “Visible” crosses from a broker's clock to the consumer's.</p>"
    )
    clock = table(["clock offset", "ms", "± ms"], rows, name="Clocks") if rows else missing
    return section("Clock error", clock, note)


def _series(shown: Figures) -> str:
    base = "consumer.summary.series"
    names = ("count", "mean_ms", "p50_ms", "p99_ms", "max_ms", "min_ms")
    rows = [
        [utc(one["start_ms"])[:19].replace("T", " "), *shown.row(f"{base}.{at}", names)]
        for at, one in enumerate(shown.find(base) or [])
    ]
    head = ["from (UTC)", *(" ".join(label_and_unit(name)).strip() for name in names)]
    inner = table(head, rows, name="Time series")
    heading = "<summary>The time series as a table</summary>"
    return f'<section><details class="block">{heading}{inner}</details></section>' if rows else ""


def _configuration(report: Report) -> str:
    parts = []
    for name, one in (("Consumer", report.consumer), ("Producer", report.producer)):
        if one is None:
            continue
        entries = {"topic": one.topic, "host": one.host, "started at": one.started_at, **one.configuration}
        entries |= {f"version of {what}": which for what, which in one.versions.items()}
        rows = [[html.escape(key), html.escape(value)] for key, value in entries.items()]
        parts += [f"<h3>{name}</h3>", table(["property", "value"], rows, name=name, classes=["", "text"])]
    sources = ", ".join(html.escape(source) for source in report.sources)
    return section("Configuration", *parts, f"<p class=note>Secrets are left out. Made from: {sources}.</p>")


def _terms() -> str:
    terms = {
        "delta": "Kafka timestamp of the result, minus that of the input message (<code>timestamp_start</code>).",
        "p99": "99 % of the results took at most so long; exact rank, value within 0.1 %.",
        "backlog": "Messages between their input's stamp and their result's: mean number, from the deltas alone "
                   "(Little's law). Messages that never came out are not in it.",
        "n/a": "There is no value. It never means 0.",
    }  # fmt: skip
    entries = "".join(f"<dt>{term}</dt><dd>{meaning}</dd>" for term, meaning in terms.items())
    return f'<section><h2>Terms</h2><dl class="terms">{entries}</dl></section>'
