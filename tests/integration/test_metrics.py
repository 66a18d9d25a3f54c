"""Metrics of a real producer and a real consumer: what they say, and that the dashboard finds them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import ROOT, TIMEOUT_S, Cluster, Scripts
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.integration

DASHBOARD = json.loads((ROOT / "dashboards" / "grafana.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
CONSUMER, PRODUCER = "kafka_performance_consumer_", "kafka_performance_producer_"
RATE, TOO_LARGE = 500, 2_000_000
Await = Callable[[Callable[[], bool]], None]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def scrape(port: int) -> list[Any]:
    """The samples that a process exposes."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def total(port: int, name: str) -> float:
    """The sum of all series of a metric."""
    return float(sum(sample.value for sample in scrape(port) if sample.name == name))


class Pair(NamedTuple):
    """A producer that sends until it is stopped, a consumer, the operator between them, and their ports."""

    producer: subprocess.Popen[str]
    consumer: subprocess.Popen[str]
    operator: subprocess.Popen[str]
    producer_port: int
    consumer_port: int
    output: str
    result: Path


@pytest.fixture
def pair(scripts: Scripts, cluster: Cluster, tmp_path: Path, await_condition: Await) -> Iterator[Pair]:
    """Both in full swing, with something of everything: marks, failures, what cannot be measured, clock offsets."""
    source, output = cluster.create_topic(), cluster.create_topic()
    clock = f"{output}-clock"
    assert scripts.run("PerfTopics.py", "clock", "--clock-topic", clock).returncode == 0
    data = tmp_path / "data.ndjson"
    data.write_text('{"id":1}\n' * 499 + '{"id":"%s"}\n' % ("x" * TOO_LARGE))
    operator = scripts.start_operator(source, output)
    ports, result, trace = (free_port(), free_port()), tmp_path / "consumer.json", ("--trace", "field:mark")
    reading = ("--topic", output, "--clock-topic", clock, "--result", str(result), *trace)
    consumer = scripts.start("PerfConsumer.py", *reading, METRICS_PORT=str(ports[1]))
    scripts.wait_for(consumer, "at the end of topic")
    cluster.produce(output, [b"{}"] * 3)
    sending = ("--topic", source, "--file", str(data), "--rate", str(RATE), "--duration", "5m", *trace)
    producer = scripts.start("ProducerPerformance.py", *sending, METRICS_PORT=str(ports[0]))
    scripts.wait_for(producer, "sending to topic")
    await_condition(lambda: total(ports[1], f"{CONSUMER}messages_measured_total") > 2 * RATE)
    await_condition(lambda: total(ports[0], f"{PRODUCER}messages_failed_total") > 0)
    yield Pair(producer, consumer, operator, *ports, output, result)
    operator.send_signal(signal.SIGTERM)


def asked_for(query: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that a query names, and their labels: those that it selects or sums by."""
    labels = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(", *", group)}
    for name, selected in re.findall(r"\b((?:kafka_performance|process)_\w+)(?:\{([^}]*)\})?", query):
        own = set(re.findall(r"(\w+)=~?\"", selected or ""))
        yield name, (labels | own) - {"instance"}  # which Prometheus adds


def test_every_query_of_the_dashboard_names_a_series(pair: Pair) -> None:
    """Each metric and label that the dashboard asks for is exposed by a real producer or consumer."""
    exposed: dict[str, set[str]] = {}
    for sample in [*scrape(pair.producer_port), *scrape(pair.consumer_port)]:
        exposed.setdefault(sample.name, set()).update(sample.labels)
    variables = [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    wanted = [found for query in (*QUERIES, *variables) for found in asked_for(query)]
    assert len(wanted) >= len(QUERIES)
    for name, labels in wanted:
        assert labels <= exposed.get(name, set()) or (name not in exposed and not labels), name
        assert name in exposed, name
    shown = {name for name, _ in wanted}
    ours = {re.sub("_(bucket|count|sum)$", "_bucket", name) for name in exposed if name.startswith("kafka_performance")}
    assert {name for name in ours if not name.endswith("messages_measured_total")} <= shown


def ask(port: int, query: str) -> list[Any]:
    """What Prometheus answers to a query as Grafana would send it."""
    query = query.replace("$__rate_interval", "5s").replace("$instance", ".*")
    text = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{text}", timeout=10) as answer:
        return list(json.load(answer)["data"]["result"])


@pytest.fixture
def prometheus(pair: Pair, tmp_path: Path) -> Iterator[int]:
    """The port of a real Prometheus, of Debian's package, that scrapes the pair."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (Debian's package prometheus)")
    port, configuration = free_port(), tmp_path / "prometheus.yml"
    targets = [f"127.0.0.1:{number}" for number in (pair.producer_port, pair.consumer_port)]
    job = {"job_name": "run", "scrape_interval": "500ms", "static_configs": [{"targets": targets}]}
    configuration.write_text(json.dumps({"scrape_configs": [job]}))
    flags = (f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    with (tmp_path / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            [program, *flags, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log, cwd=tmp_path
        )
    yield port
    server.terminate()
    server.wait(TIMEOUT_S)


def test_every_query_of_the_dashboard_has_an_answer(pair: Pair, prometheus: int, await_condition: Await) -> None:
    """A real Prometheus answers each query of the dashboard with a number, and its count is the producer's."""

    def answers(query: str) -> bool:
        try:
            found = ask(prometheus, query)
        except OSError:  # it has only just been started
            return False
        return bool(found) and all(one["value"][1] != "NaN" for one in found)

    for query in QUERIES:
        await_condition(lambda query=query: answers(query))  # type: ignore[misc]
    name = f"{PRODUCER}messages_sent_total"
    before = total(pair.producer_port, name)
    await_condition(lambda: float(ask(prometheus, name)[0]["value"][1]) > before)
    assert float(ask(prometheus, name)[0]["value"][1]) <= total(pair.producer_port, name)


def test_a_scrape_equals_the_topic(pair: Pair, cluster: Cluster, await_condition: Await) -> None:
    """Counters and buckets are those of the messages in the topic, read independently, and of the result file."""
    pair.producer.send_signal(signal.SIGINT)
    stdout, stderr = pair.producer.communicate(timeout=TIMEOUT_S)
    assert pair.producer.returncode == 130, stderr
    acknowledged = int(re.findall(r"^  acknowledged +(\d+)$", stdout, re.MULTILINE)[0])
    await_condition(lambda: total(pair.consumer_port, f"{CONSUMER}messages_read_total") == acknowledged + 3)
    samples = scrape(pair.consumer_port)
    found = {sample.name: sample.value for sample in samples if not sample.labels}
    messages = cluster.read(pair.output, acknowledged + 3)
    contents = [(message.timestamp()[1], json.loads(message.value() or b"")) for message in messages]
    deltas = [stamp_ms - content["timestamp_start"] for stamp_ms, content in contents if "timestamp_start" in content]
    assert found[f"{CONSUMER}messages_measured_total"] == found[f"{CONSUMER}delta_seconds_count"] == len(deltas)
    sums = found[f"{CONSUMER}delta_seconds_sum"], found[f"{CONSUMER}delta_below_zero_seconds_total"]
    assert sums == (pytest.approx(sum(deltas) / 1_000), 0)
    assert found[f"{CONSUMER}lag_messages"] == 0
    assert found[f"{CONSUMER}read_bytes_total"] == sum(map(len, messages))
    assert max(deltas) < 2_000  # where buckets are exact
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("delta_seconds_bucket")}
    assert len(buckets) > 30
    for bound, count in buckets.items():
        assert count == sum(delta_ms <= float(bound) * 1_000 for delta_ms in deltas), bound
    pair.consumer.send_signal(signal.SIGINT)
    pair.consumer.communicate(timeout=TIMEOUT_S)
    summary = json.loads(pair.result.read_text())["summary"]
    assert found[f"{CONSUMER}messages_read_total"] == summary["messages_read"]
    reasons = {s.labels["reason"]: s.value for s in samples if s.name == f"{CONSUMER}messages_not_measured_total"}
    assert reasons == summary["not_measured"] and reasons["no_timestamp_start"] == 3
    marks = {sample.labels["outcome"]: sample.value for sample in samples if sample.name == f"{CONSUMER}marks_total"}
    assert marks == {name: count for name, count in summary["ledger"].items() if count is not None}
    assert marks["unique"] == acknowledged
