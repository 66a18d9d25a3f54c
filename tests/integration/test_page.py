"""The HTML report in a real headless Chromium: no errors, no network, right numbers, for the eye, for all, on paper."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from harness import ROOT
from playwright.sync_api import Browser, Page, sync_playwright
from simulated import consumer, producer

from benchmarks.calibrate import Simulation
from perf import result

CHROMIUM = which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]
# 12 s at 100 a second, with a gap of 2 s, an outlier and deltas of either sign
SAMPLES = [(second * 1_000 + 10 * number, 5 + (number * 7 + second) % 40) for second in (*range(5), *range(7, 12))
           for number in range(100)] + [(11_990, 2_500), (11_991, -2)]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report and a comparison, as PerfReport.py writes them."""
    folder = tmp_path_factory.mktemp("pages")
    marks = [b"r/p/0/0/%d" % number for number in range(len(SAMPLES))]
    result.write(folder / "consumer.json", consumer(SAMPLES, marks=marks, limits=["p99 > 1s: p99 is 44 ms: holds"]))
    result.write(folder / "producer.json", producer(len(SAMPLES) + 1, marked={"r/p/0/0": len(SAMPLES) + 1}))
    simulation = Simulation(seed=3)
    for name, shift in (("base", 0.0), ("new", 0.2)):
        result.write(folder / f"{name}.json", simulation.run(shift=shift))
    report = [
        "consumer.json",
        "producer.json",
        "--html",
        "report.html",
        "--json",
        "report.json",
        "--fail-if",
        "lost > 5",
    ]
    both = ["compare", "base.json", "--", "new.json", "--html", "comparison.html", "--json", "comparison.json"]
    for words in (report, both):
        subprocess.run([sys.executable, str(ROOT / "PerfReport.py"), *words], cwd=folder, check=True, timeout=100)
    return folder


class Seen:
    """A page that was opened, and what went wrong on it."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", lambda request: self._note(request.url, file.as_uri()))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=30_000)

    def _note(self, url: str, allowed: str) -> None:
        if url != allowed and not url.startswith("data:"):
            self.problems.append(f"request: {url}")


@pytest.fixture(params=["report", "comparison"])
def name(request: pytest.FixtureRequest) -> str:
    """Each of the two pages."""
    return str(request.param)


@pytest.fixture(params=["light", "dark", "phone"])
def seen(request: pytest.FixtureRequest, browser: Browser, folder: Path, name: str) -> Iterator[Seen]:
    """A page, in light and dark and on a phone."""
    width = 390 if request.param == "phone" else 1280
    scheme: Literal["dark", "light"] = "dark" if request.param == "dark" else "light"
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    yield Seen(context.new_page(), folder / f"{name}.html")
    context.close()


@pytest.fixture
def report(browser: Browser, folder: Path) -> Iterator[Seen]:
    """The report of one run on a wide screen."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield Seen(context.new_page(), folder / "report.html")
    context.close()


_TICKS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(
    (plot) => [...plot.querySelectorAll('.xtick text')].map((one) => one.getBoundingClientRect())
                  .map(({ left, right }) => [left, right]))"""


def test_labels_of_an_axis_do_not_touch(seen: Seen) -> None:
    """Each label below a plot ends, by a blank's width, before the next one begins, on a phone too."""
    plots = seen.page.evaluate(_TICKS)
    assert any(plots)
    for boxes in plots:
        for (_, right), (left, _) in pairwise(sorted(box for box in boxes if box[1] > box[0])):
            assert right + 3 < left


def test_it_opens_without_error_or_request(seen: Seen) -> None:
    """No message on the console, no exception, no request but for the file; nothing is wider than the screen."""
    assert seen.problems == []
    overflow = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


def test_axe_finds_nothing(seen: Seen) -> None:
    """axe-core finds no violation of any of its rules: contrast, names, structure, keyboard."""
    found = Axe().run(seen.page)
    assert found.violations_count == 0, found.generate_report()


def test_every_figure_in_the_dom_is_the_jsons(seen: Seen, folder: Path, name: str) -> None:
    """What the browser shows as a figure is the number at its path in the JSON that --json wrote."""
    document = json.loads((folder / f"{name}.json").read_text())
    script = "[...document.querySelectorAll('data')].map(one => [one.dataset.path, one.value, one.textContent])"
    figures = seen.page.evaluate(script)
    assert len(figures) > (80 if name == "report" else 30)
    for path, value, shown in figures:
        expected = document
        for part in path.split("."):
            expected = expected[int(part)] if isinstance(expected, list) else expected[part]
        assert float(value) == expected
        if "%" in shown:
            expected *= 100
        number = float(shown.replace(",", "").replace("−", "-").replace("%", "").replace(" ", ""))
        assert number == pytest.approx(expected, abs=0.051 if "%" in shown else 0.00051)


def plotted(page: Page, plot: str) -> list[dict[str, Any]]:
    """The traces of a plot as plotly has them."""
    script = (
        "id => document.getElementById(id).data.map(({name, x, y, visible}) => ({name, x: [...x], y: [...y], visible}))"
    )
    traces: list[dict[str, Any]] = page.evaluate(script, plot)
    return traces


def test_the_plots_show_the_jsons_numbers(report: Seen, folder: Path) -> None:
    """The points of the plots over time are the rows of the series and of the backlog; gaps are gaps."""
    document = json.loads((folder / "report.json").read_text())
    rows = document["consumer"]["summary"]["series"]
    traces = {trace["name"]: trace for trace in plotted(report.page, "time")}
    for name, field in (("p50", "p50_ms"), ("p99", "p99_ms"), ("max", "max_ms"), ("mean", "mean_ms")):
        points = list(zip(traces[name]["x"], traces[name]["y"], strict=True))
        assert [(x, y) for x, y in points if y is not None] == [(row["start_ms"], row[field]) for row in rows]
        assert [y for _, y in points].count(None) == 2  # the gap's two ends
    assert [y for y in traces["results/s"]["y"] if y] == [row["count"] for row in rows]
    assert traces["results/s"]["y"].count(0) == 2
    assert traces["backlog"]["y"] == [row["messages"] for row in document["backlog"]]
    bars = plotted(report.page, "histogram")[0]
    assert sum(bars["y"]) == document["consumer"]["summary"]["measured"]


def test_the_legend_toggles_by_mouse_and_keyboard(report: Seen) -> None:
    """A box takes its line away and brings it back, and so does the space bar; the log scale changes the axis."""
    page = report.page
    line = page.locator("#time .scatterlayer .trace").filter(has=page.locator("path.js-line"))
    shown = line.count()
    box = page.get_by_label("p99", exact=True).first
    box.uncheck()
    page.wait_for_function("document.getElementById('time').data.find(one => one.name === 'p99').visible === false")
    assert line.count() == shown - 1
    box.focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.getElementById('time').data.find(one => one.name === 'p99').visible === true")
    assert line.count() == shown
    page.locator("fieldset[data-plot=time]").get_by_label("log scale").check()
    page.wait_for_function("document.getElementById('time').layout.yaxis.type === 'log'")
    assert report.problems == []


def test_a_plot_can_be_zoomed_and_hovered(report: Seen) -> None:
    """Dragging narrows the time shown, a double click widens it again, hovering shows the values under the mouse."""
    page = report.page
    whole = page.evaluate("document.getElementById('time')._fullLayout.xaxis.range.map(at => +new Date(at))")
    page.locator("#time").scroll_into_view_if_needed()
    area = page.locator("#time .nsewdrag").first.bounding_box()
    assert area is not None
    middle = area["y"] + area["height"] / 2
    page.mouse.move(area["x"] + area["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, middle, steps=5)
    page.mouse.up()
    narrowed = f"(([a, b]) => new Date(b) - new Date(a) < {(whole[1] - whole[0]) / 2})"
    page.wait_for_function(f"{narrowed}(document.getElementById('time')._fullLayout.xaxis.range)")
    page.mouse.dblclick(area["x"] + area["width"] * 0.5, middle)
    page.wait_for_function(f"!{narrowed}(document.getElementById('time')._fullLayout.xaxis.range)")
    page.mouse.move(area["x"] + area["width"] * 0.2, middle)
    page.wait_for_selector("#time .hoverlayer text")
    assert "p99" in (page.locator("#time .hoverlayer").text_content() or "")


def test_the_verdict_comes_first(report: Seen) -> None:
    """Before any figure or plot stands one sentence with the status, as --json has it; it is seen without scrolling."""
    verdict = report.page.locator(".verdict")
    assert verdict.inner_text().startswith("VALID\nHalf of 1,002 results came within ")
    assert "1 lost; the limit holds." in verdict.inner_text()
    box = verdict.bounding_box()
    assert box is not None and box["y"] + box["height"] < 400


def test_it_prints_on_paper_in_light_colours(browser: Browser, folder: Path) -> None:
    """Printed from a dark screen the page is white, and its plots are as wide as the paper."""
    context = browser.new_context(color_scheme="dark", viewport={"width": 1280, "height": 800})
    seen = Seen(context.new_page(), folder / "report.html")
    seen.page.evaluate("""addEventListener('beforeprint', () => { window.printed = {
        width: document.getElementById('time').querySelector('.main-svg').clientWidth } })""")
    pdf = seen.page.pdf(format="A4")
    assert seen.page.evaluate("window.printed.width") <= 700
    assert 2 <= pdf.count(b"/Type /Page\n") <= 10
    seen.page.emulate_media(media="print")
    colours = seen.page.evaluate("(one => [one.backgroundColor, one.color])(getComputedStyle(document.body))")
    assert colours == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    context.close()
