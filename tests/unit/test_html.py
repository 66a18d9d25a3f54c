"""The page: what it holds, and that no text of the user's becomes a part of it. The browser's part: test_page.py."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from simulated import consumer, producer

from perf.capacity import NOT_SUSTAINED, SUSTAINED, Capacity, Step, found
from perf.report import charts, html, html_capacity
from perf.run import Report, report_of

GOOD = [(number * 10, 5 + number % 7) for number in range(400)]
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"
REPORT_FOLDER = Path(html.__file__).parent
_MOST_BYTES = 2_000_000


class Tags(HTMLParser):
    """The tags of a page, and the text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a script."""
        self._raw = self._raw and tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += "" if self._raw else data


@pytest.fixture
def report() -> Report:
    """A run with texts from outside in all places that can have them."""
    changes: dict[str, Any] = {
        "topic": HOSTILE,
        "configuration": {HOSTILE: HOSTILE},
        "limits": [HOSTILE],
        "versions": {"tool": HOSTILE},
    }
    return report_of([consumer(GOOD, **changes), producer(20, failed=1, **changes)], sources=[f"/tmp/{HOSTILE}"])


def test_no_text_from_outside_becomes_a_tag(report: Report) -> None:
    """Topics, properties, limits and file names are shown as they are, and none of them ends a script."""
    page = Tags(html.page(report))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert page.text.count(HOSTILE) >= 6


def test_the_page_needs_no_network_and_is_small(report: Report) -> None:
    """No tag refers to anything outside of the page, which is under 2 MB with a series of 300 rows."""
    for tag, attributes in Tags(html.page(report)).tags:
        assert tag not in ("iframe", "object", "embed")
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    long = report_of([consumer([(second * 1_000, second) for second in range(300)] * 20)], sources=["r"])
    assert len(html.page(long).encode()) < _MOST_BYTES


def test_every_figure_is_that_of_the_json(report: Report) -> None:
    """Each figure of the page names its path in the JSON, where the same number stands; what is shown rounds it."""
    document = json.loads(msgspec.json.encode(report))
    page = html.page(report)
    found = re.findall(r'<data value="([^"]+)" data-path="([^"]+)">([^<]+)</data>', page)
    assert len(found) > 80
    for value, path, shown in found:
        expected = document
        for name in path.split("."):
            expected = expected[int(name)] if isinstance(expected, list) else expected[name]
        assert float(value) == expected
        assert float(shown.replace(",", "")) == pytest.approx(expected, abs=0.00051)


def test_without_a_producer_or_a_consumer_the_rest_is_shown() -> None:
    """A page of one kind of result has no part of the other, and n/a for what is not known."""
    alone = Tags(html.page(report_of([consumer(GOOD)], sources=["c"]))).text
    assert "Messages sent" not in alone and "not traced" in alone
    sent = Tags(html.page(report_of([producer(20)], sources=["p"]))).text
    assert "Output partitions" not in sent and "Messages sent" in sent
    nothing = Tags(html.page(report_of([consumer([])], sources=["c"]))).text
    assert "INVALID: nothing was measured." in nothing


def test_the_bars_add_up(report: Report) -> None:
    """Each bar of the histogram holds the deltas between its edges: small ones one by one, of either sign."""
    bars = charts.of_report(report)["histogram"].traces[0]
    assert bars["labels"] == [f"{delta_ms} ms" for delta_ms in range(5, 12)]
    assert bars["y"] == [[delta_ms for _, delta_ms in GOOD].count(delta_ms) for delta_ms in range(5, 12)]
    wide = report_of([consumer([(0, -300), (0, 0), (0, 1_000), (0, 1_023)])], sources=["r"])
    bars = charts.of_report(wide)["histogram"].traces[0]
    shown = {label: count for label, count in zip(bars["labels"], bars["y"], strict=True) if count}
    assert shown == {"-319 to -288 ms": 1, "0 ms": 1, "960 to 1023 ms": 2}


def test_plotly_is_the_published_file() -> None:
    """The vendored plotly.js is unchanged, its licence beside it; docs/report.md names version and digest."""
    documented = (REPORT_FOLDER.parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
    content = (REPORT_FOLDER / "plotly-basic.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() in documented
    version = re.search(rb"plotly.js \(basic - minified\) v([0-9.]+)", content)
    assert version and f"plotly.js-basic-dist-min {version[1].decode()}" in documented
    assert "MIT" in (REPORT_FOLDER / "plotly-LICENSE").read_text(encoding="utf-8")


def searched(*steps: tuple[float, str, str], complete: bool = True) -> Capacity:
    """What a search found whose steps had these rates, phases and outcomes."""
    held = [
        Step(rate_per_s=rate_per_s, phase=phase, outcome=outcome, reason=HOSTILE, p50_ms=3, p99_ms=9, p99_9_ms=9,
             max_ms=12, growth=0.001, growth_low=0.0, growth_high=0.002)
        for rate_per_s, phase, outcome in steps
    ]  # fmt: skip
    status, per_s, line, bounded_by = found(held, resolution=0.05, complete=complete)
    return Capacity(
        status=status, capacity_per_s=per_s, resolution=0.05, line=line, bounded_by=bounded_by, started_at="2026-11-25",
        input_topic=HOSTILE, output_topic="out", limits=[HOSTILE], ratio=1, step_s=30, steps=held,
    )  # fmt: skip


SEARCH = [
    (100, "growth", SUSTAINED), (105, "growth", NOT_SUSTAINED), (105, "recheck", NOT_SUSTAINED),
    *[(100, "confirmation", SUSTAINED)] * 3,
]  # fmt: skip


@pytest.mark.parametrize(
    ("capacity", "words"),
    [
        (searched(*SEARCH), "100 messages/s were sustained once more in 3 steps of confirmation."),
        (searched(*SEARCH[:4], complete=False), "100 messages/s were sustained once more in 1 step of confirmation."),
        (searched(*SEARCH[:3], complete=False), "No step of confirmation held 100 messages/s once more."),
        (searched((1e8, "growth", SUSTAINED)), "No step of confirmation held 1e+08 messages/s once more."),
        (searched((100, "growth", NOT_SUSTAINED)), None),
        (searched((90, "confirmation", SUSTAINED), (90, "confirmation", NOT_SUSTAINED), complete=False), None),
    ],
    ids=["found", "stopped while confirming", "stopped before", "at the highest rate", "none", "later not sustained"],
)  # fmt: skip
def test_the_page_of_a_capacity_says_what_was_confirmed(capacity: Capacity, words: str | None) -> None:
    """Only steps that were held are told of, and none where no capacity is known; no text becomes a tag."""
    page = html_capacity.page(capacity)
    text = Tags(page).text
    assert words in text if words else "once more" not in text
    assert HOSTILE not in page
