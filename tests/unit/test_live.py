"""Metrics and log lines while a process runs: names, snapshots under load, formats."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support import STAMP_MS

from perf import live
from perf.live import Live, Snapshot
from perf.metrics import MetricsServer
from perf.payload import Rejection
from perf.report import prometheus
from perf.settings import Settings
from perf.stats import ConsumerSummary, Histogram, ProducerSummary, Statistics
from perf.trace import Ledger

ROOT = Path(__file__).resolve().parents[2]
DELTA = "kafka_performance_consumer_delta"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def scrape(port: int) -> dict[tuple[str, str], float]:
    """(Name, value of its only label or "") → value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in families
            for sample in family.samples
        }


@given(st.lists(st.integers(-(10**7), 10**7)), st.lists(st.integers(0, 10**7), min_size=1))
def test_a_tally_has_what_the_histogram_has(values: list[int], bounds: list[int]) -> None:
    """Cumulative counts are those of the samples, within 0.1 % of a bound; sum exact; percentiles as the summary's."""
    histogram = Histogram()
    histogram.add(values)
    tally, ascending = histogram.tally(), sorted(values)
    assert (tally.samples, tally.sum) == (len(values), sum(values))
    for bound, count in zip(sorted(bounds), tally.at_most(sorted(bounds)), strict=True):
        assert bisect_right(ascending, bound) <= count <= bisect_right(ascending, bound * 1.001)
    if values:
        for percent in (50, 99, 100):
            exact = ascending[-(-percent * len(values) // 100) - 1]
            assert tally.percentile(percent) == pytest.approx(exact, rel=0.001)


@given(st.lists(st.integers(-5_000, 5_000)), st.lists(st.integers(-5_000, 5_000)))
def test_a_difference_of_tallies_is_what_came_between(before: list[int], after: list[int]) -> None:
    """What is since a tally is the tally of what was added since."""
    histogram, alone = Histogram(), Histogram()
    histogram.add(before)
    earlier = histogram.tally()
    histogram.add(after)
    alone.add(after)
    assert histogram.tally().since(earlier) == alone.tally()


@pytest.mark.parametrize(("role", "summary"), [("consumer", ConsumerSummary), ("producer", ProducerSummary)])
def test_every_counter_and_distribution_has_a_metric(role: str, summary: type[msgspec.Struct]) -> None:
    """Each count of a summary, the ledger's too, is a counter; each distribution a histogram; in base units."""
    hints = {name: str(hint) for name, hint in summary.__annotations__.items()}
    counts = {name for name, hint in hints.items() if hint in ("int", "dict[str, int]", "LedgerCounts | None")}
    assert set(prometheus.COUNTERS[role]) == counts
    distributions = {name.rpartition("_")[0] for name, hint in hints.items() if hint == "Distribution"}
    assert {name.rpartition("_")[0] for name in prometheus.HISTOGRAMS[role]} == distributions
    assert all(found.name.endswith("_seconds") for found in prometheus.HISTOGRAMS[role].values())


@pytest.mark.parametrize("role", ["consumer", "producer"])
def test_the_documents_table_is_the_codes(role: str) -> None:
    """docs/metrics.md has each metric with type, label and meaning, and no other."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    shown = [
        tuple(cell.strip().strip("`") for cell in line.split("|")[1:-1])
        for line in text.splitlines()
        if line.startswith(f"| `kafka_performance_{role}_")
    ]
    kinds = (
        ("counter", prometheus.COUNTERS), ("histogram", prometheus.HISTOGRAMS), ("counter", prometheus.BELOW_ZERO),
        ("gauge", prometheus.GAUGES),
    )  # fmt: skip
    assert shown == [
        (f"kafka_performance_{role}_{found.name}{'_total' * (kind == 'counter')}", kind, found.label, found.meaning)
        for kind, table in kinds
        for found in table[role].values()
    ]


@given(st.lists(st.lists(st.integers(-(10**6), 10**6), max_size=20), min_size=1, max_size=5))
def test_sums_never_fall(batches: list[list[int]]) -> None:
    """Prometheus takes a falling sum for a restart: negatives have a counter of their own; together they are exact."""
    statistics, before = Statistics(), (0.0, 0.0)
    for deltas in filter(None, batches):
        statistics.add(deltas, [STAMP_MS] * len(deltas), [0] * len(deltas))
        snapshot = Snapshot(statistics.counters(), statistics.tallies(), {})
        samples = {one.name: one.value for family in prometheus.families("consumer", snapshot, {})
                   for one in family.samples if "_bucket" not in one.name}  # fmt: skip
        now = samples[f"{DELTA}_seconds_sum"], samples[f"{DELTA}_below_zero_seconds_total"]
        assert now >= before and now[1] >= before[1]
        before = now
    shown = [delta for deltas in batches for delta in deltas]
    assert before[0] - before[1] == pytest.approx(sum(shown) / 1_000, abs=1e-6)
    assert before[1] == pytest.approx(-sum(delta for delta in shown if delta < 0) / 1_000, rel=0.001)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Snapshots as often as possible."""
    monkeypatch.setattr(live, "_EVERY_S", 0.0)
    monkeypatch.setattr(live, "_SHARE", 0)
    yield


@pytest.mark.usefixtures("busy")
def test_scrapes_under_load_are_of_one_moment() -> None:
    """While the main thread measures without pause, each scrape is consistent in itself, and none goes back."""
    port, statistics, done = free_port(), Statistics(), threading.Event()
    statistics.ledger = Ledger()
    server = MetricsServer("consumer", port, Settings())

    def take() -> Snapshot:
        counters = {**statistics.counters(), "ledger": Ledger().counts(None)}
        return Snapshot(counters, statistics.tallies(), {"lag": None})

    scrapes: list[dict[tuple[str, str], float]] = []

    def look() -> None:
        try:
            scrapes.extend(scrape(port) for _ in range(40))
        finally:
            done.set()

    main, scraping = Live(take, [server.publish]), threading.Thread(target=look)
    scraping.start()
    chance = random.Random(7)
    while not done.is_set():
        deltas = [int(chance.lognormvariate(4, 3)) - 1 for _ in range(500)]
        statistics.add(deltas, [STAMP_MS] * 500, [0] * 500)
        statistics.reject(Rejection.EMPTY, 3)
        main.serve()
    assert len(scrapes) == 40
    prefix, last = "kafka_performance_consumer_", 0.0
    for found in scrapes:
        read, measured = found[f"{prefix}messages_read_total", ""], found[f"{prefix}messages_measured_total", ""]
        refused = sum(value for (name, _), value in found.items() if name == f"{prefix}messages_not_measured_total")
        assert read == measured + refused
        assert found[f"{prefix}delta_seconds_count", ""] == measured == found[f"{prefix}delta_seconds_bucket", "+Inf"]
        buckets = [value for (name, _), value in found.items() if name == f"{prefix}delta_seconds_bucket"]
        assert buckets == sorted(buckets)
        assert found[f"{prefix}delta_seconds_bucket", "0.0"] >= found[f"{prefix}negative_deltas_total", ""]
        assert (f"{prefix}lag_messages", "") not in found
        assert read >= last
        last = read
    assert last > scrapes[0][f"{prefix}messages_read_total", ""]


def test_snapshots_cost_little_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a costly one took is spread over 200 times as long, but at most 5 s; without a view there is none."""
    now_s, cost_s = [0.0], [0.0]
    taken: list[float] = []

    def take() -> Snapshot:
        now_s[0] += cost_s[0]
        taken.append(now_s[0])
        return Snapshot({}, {}, {})

    for clock in ("monotonic", "thread_time"):
        monkeypatch.setattr(f"perf.live.time.{clock}", lambda: now_s[0])
    for cost_s[0], every_s in ((0.001, 0.5), (0.01, 2.0), (1.0, 5.0)):
        taken.clear()
        main, end_s = Live(take, [lambda _: None]), now_s[0] + 100
        while now_s[0] < end_s:
            now_s[0] += 0.01
            main.serve()
        assert len(taken) == pytest.approx(100 / every_s, rel=0.05)
    taken.clear()
    Live(take, []).serve()
    assert not taken


def run_script(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script with nothing but these variables in its environment."""
    command = [sys.executable, str(ROOT / script), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", ["ProducerPerformance.py", "PerfConsumer.py"])
def test_a_port_that_is_taken(script: str) -> None:
    """Exit code 2 and a sentence that names the port, before any connection."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = run_script(script, "--metrics-port", str(port), KAFKA_BROKERS="127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr == f"error: --metrics-port: port {port} cannot be opened: Address already in use\n"


@pytest.mark.parametrize(
    "script", ["ProducerPerformance.py", "PerfConsumer.py", "PerfTopics.py list", "PerfReport.py x"]
)
@pytest.mark.parametrize("flags", [["--no-such-flag"], ["--log-format", "json"]])
def test_log_lines_as_json(script: str, flags: list[str]) -> None:
    """With LOG_FORMAT=json all that stderr gets is one object a line, also where the settings themselves are wrong."""
    name, *arguments = script.split()
    done = run_script(name, *arguments, *flags, LOG_FORMAT="json", KAFKA_BROKERS="127.0.0.1:port")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode in (1, 2) and lines and done.stdout == ""
    for line in lines:
        assert list(line) == ["time", "level", "message", "script"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert (line["level"], line["script"]) == ("error", name)


def test_a_defect_in_json_has_its_exception() -> None:
    """The traceback of PERF_DEBUG is a field of the line, and text of any kind stays one line."""
    program = "from perf import process\ndef main():\n    raise ValueError('one\\ntwo \\u2028 ü')\nprocess.run(main)"
    command = [sys.executable, "-c", program]
    environment = {"PATH": "/usr/bin:/bin", "LOG_FORMAT": "json", "PERF_DEBUG": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.removesuffix("\n").split("\n")
    found = json.loads(line)
    assert "one\ntwo \u2028 ü" in found["message"] and "line 3, in main" in found["exception"]
