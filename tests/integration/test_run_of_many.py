"""One run of many processes, which find each other through Kafka: the barrier, a killed consumer, one merged result."""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from harness import TIMEOUT_S, Cluster, Scripts

from demo.broker import EmbeddedBroker

pytestmark = pytest.mark.integration

PARTITIONS, PRODUCERS, CONSUMERS, EACH = 6, 4, 3, 5_000


class Run:
    """A run of its own topics, and its processes."""

    def __init__(self, scripts: Scripts, cluster: Cluster) -> None:
        self.scripts, self.cluster = scripts, cluster
        self.name = f"run-{uuid.uuid4().hex[:8]}"
        self.source, self.output = (cluster.create_topic(partitions=PARTITIONS) for _ in range(2))
        topics = ("--runs-topic", f"{self.name}-runs", "--results-topic", f"{self.name}-results")
        made = scripts.run("PerfTopics.py", "runs", *topics)
        assert made.returncode == 0, made.stderr
        self.variables = {
            "RUN_ID": self.name,
            "RUNS_TOPIC": topics[1],
            "RESULTS_TOPIC": topics[3],
            "TRACE": "field:mark",
            "WAIT_FOR": f"producers:{PRODUCERS},consumers:{CONSUMERS}",
        }

    def producer(self, index: int, *flags: str, **variables: str) -> subprocess.Popen[str]:
        """Start a producer."""
        common = ("--topic", self.source, "--size", str(EACH), "--rate", "1000")
        return self._start("ProducerPerformance.py", index, *common, *flags, **variables)

    def consumer(self, index: int, *flags: str, **variables: str) -> subprocess.Popen[str]:
        """Start a consumer whose session ends soon when it is killed."""
        session = ("--config", "session.timeout.ms=6000", "--config", "heartbeat.interval.ms=500")
        common = ("--topic", self.output, "--expect-ratio", "1", "--idle-timeout", "20s")
        return self._start("PerfConsumer.py", index, *common, *session, *flags, **variables)

    def report(self, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The run's merged report."""
        return self.scripts.run("PerfReport.py", "--run", self.name, *flags, **{**self.variables, **variables})

    def end_offsets(self) -> list[Any]:
        """The end of each partition of the output topic."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(self.output, number): latest for number in range(PARTITIONS)}
        return [future.result(TIMEOUT_S) for future in self.cluster.admin.list_offsets(asked).values()]

    def _start(self, script: str, index: int, *flags: str, **variables: str) -> subprocess.Popen[str]:
        chosen = {**self.variables, "JOB_COMPLETION_INDEX": str(index), **variables}
        return self.scripts.start(script, *flags, **chosen)


@pytest.fixture
def run(scripts: Scripts, cluster: Cluster) -> Iterator[Run]:
    """A run with its operator."""
    made = Run(scripts, cluster)
    operator = scripts.start_operator(made.source, made.output)
    yield made
    operator.send_signal(signal.SIGTERM)


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must end with 0; returns its stderr."""
    _, stderr = process.communicate(timeout=2 * TIMEOUT_S)
    assert process.returncode == 0, stderr
    return stderr


def figure(report: str, name: str) -> str:
    """The first figure of that name in a report."""
    found = re.search(rf"^ +{name} +(\S+)", report, re.MULTILINE)
    assert found, report
    return found[1]


@pytest.mark.slow
def test_a_killed_consumer_costs_nothing(run: Run) -> None:
    """Four producers, three consumers, one of which is killed and comes back: the merged result equals the topic."""
    consumers = [run.consumer(index) for index in range(CONSUMERS)]
    producers = [run.producer(index) for index in range(PRODUCERS)]
    victim = consumers[0]
    assert victim.stdout is not None
    for _ in range(8):  # well under way, and past its last checkpoint
        assert victim.stdout.readline()
    victim.kill()
    victim.communicate()
    run.scripts.wait_for(consumers[1], "holding partitions")
    back = run.consumer(0)
    for process in (*producers, back, *consumers[1:]):
        ended(process)
    total = PRODUCERS * EACH
    messages = run.cluster.read(run.output, total, partitions=PARTITIONS)
    deltas = [message.timestamp()[1] - json.loads(message.value() or b"")["timestamp_start"] for message in messages]
    report = run.report("--fail-if", "lost > 0", "--fail-if", "duplicated > 0", "--fail-if", f"unique != {total}")
    assert report.returncode == 0, report.stdout + report.stderr
    section = report.stdout.partition(f"Summary of {CONSUMERS} consumers")[2]
    assert int(figure(section, "messages read")) == int(figure(section, "measured")) == total
    assert int(figure(section, "bytes")) == sum(map(len, messages))
    assert figure(section, "mean") == f"{statistics.fmean(deltas):.3f}".rstrip("0").rstrip(".")
    assert (float(figure(section, "min")), float(figure(section, "max"))) == (min(deltas), max(deltas))
    assert figure(section, "redelivered") == "0"
    rows = re.findall(r"^    +(\d) +(\d+) ", section.partition("  partitions (ms)\n")[2], re.MULTILINE)
    assert {int(number): int(count) for number, count in rows[:PARTITIONS]} == {
        number: sum(message.partition() == number for message in messages) for number in range(PARTITIONS)
    }
    assert "consumer 0 was started 2 times" in report.stderr


@pytest.mark.slow
def test_a_frozen_consumer_costs_nothing(run: Run) -> None:
    """Expelled from the group and back again, alone, it goes on from its last state: nothing is missing or twice.

    Nor is there anything of what was in the topic before the run.
    """
    alone = {"WAIT_FOR": "producers:1,consumers:1"}
    run.cluster.produce(run.output, [b'{"timestamp_start":1795000000000}'] * 50)
    consumer = run.consumer(0, **alone)
    producer = run.producer(0, **alone)
    assert consumer.stdout is not None
    for _ in range(30):  # well past its last checkpoint
        assert consumer.stdout.readline()
    consumer.send_signal(signal.SIGSTOP)
    time.sleep(9)  # the fault itself: longer than its session
    consumer.send_signal(signal.SIGCONT)
    ended(producer)
    assert "lost partitions" in ended(consumer)
    report = run.report(
        "--fail-if", "lost > 0", "--fail-if", "duplicated > 0", "--fail-if", f"measured != {EACH}", **alone
    )
    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.slow
def test_a_restarted_producer_ends_no_run_early(run: Run) -> None:
    """What its killed attempt sent after its last word is read, too: the end comes by idleness, not by a count."""
    alone = {"WAIT_FOR": "producers:1,consumers:1"}
    consumer = run.consumer(0, **alone)
    killed = run.producer(0, "--rate", "2000", "--size", "1M", **alone)
    assert consumer.stdout is not None
    for _ in range(20):
        assert consumer.stdout.readline()
    killed.kill()
    killed.communicate()
    ended(run.producer(0, "--size", "1000", **alone))
    assert "no message for 20 s" in ended(consumer)
    total = sum(entry.offset for entry in run.end_offsets())
    report = run.report("--fail-if", f"measured != {total}", **alone)
    assert report.returncode == 0, report.stdout + report.stderr
    assert "producer 0 was started 2 times" in report.stderr


def test_doubled_results_do_not_take_the_place_of_late_ones(scripts: Scripts, cluster: Cluster) -> None:
    """Without marks nobody sees that some results are repeated: all are read, and that they are too many is said.

    The results come late, so that as many as are expected are there while more are on their way.
    """
    alone = {"WAIT_FOR": "producers:1,consumers:1", "TRACE": ""}
    run = Run(scripts, cluster)
    scripts.start_operator(run.source, run.output, "--ratio", "1.5", "--delay-ms", "2000")
    consumer = run.consumer(0, **alone)
    ended(run.producer(0, **alone))
    assert "results of the run are read" in ended(consumer)
    total = sum(entry.offset for entry in run.end_offsets())
    assert total > 1.3 * EACH
    report = run.report("--expect-ratio", "1", "--fail-if", f"measured != {total}", **alone)
    assert report.returncode == 0, report.stdout + report.stderr
    assert f"{total - EACH:,} results more than were expected" in report.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_stop_does_not_wait_for_brokers_that_are_gone(scripts: Scripts, own_broker: EmbeddedBroker) -> None:
    """What a run would keep in Kafka is given up soon after a signal, before Kubernetes kills; both report, and end."""
    scripts.environment["KAFKA_BROKERS"] = own_broker.bootstrap_servers
    run = Run(scripts, Cluster(own_broker.bootstrap_servers))
    alone = {"WAIT_FOR": "producers:1,consumers:1"}
    processes = [run.consumer(0, **alone), run.producer(0, "--size", "1M", "--rate", "100", **alone)]
    run.scripts.wait_for(processes[0], "holding partitions")
    assert len(run.cluster.read(run.source, 10, partitions=PARTITIONS)) == 10
    own_broker.kill()
    start_s = time.monotonic()
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        stdout, stderr = process.communicate(timeout=2 * TIMEOUT_S)
        assert process.returncode == 143, stderr
        assert "Summary of the" in stdout
    assert time.monotonic() - start_s < 38, "Kubernetes would have killed them after 40 s"


def test_producers_wait_for_consumers_that_hold_their_partitions(run: Run) -> None:
    """Nothing is sent before all are ready; who is missing at the end of the wait is named, exit code 3."""
    producer = run.producer(0, "--wait-timeout", "3s")
    _, stderr = producer.communicate(timeout=TIMEOUT_S)
    assert producer.returncode == 3
    assert f"missing: {PRODUCERS - 1} of {PRODUCERS} producers, {CONSUMERS} of {CONSUMERS} consumers" in stderr
    assert run.cluster.read(run.source, 0) == []


def test_a_run_that_has_ended_takes_nobody(run: Run) -> None:
    """Its id is refused with exit code 2, before anything is sent or read; its report has clock error and time."""
    alone = {"WAIT_FOR": "producers:1,consumers:1"}
    clocked = f"{run.name}-clock"
    assert run.scripts.run("PerfTopics.py", "clock", clocked).returncode == 0
    consumer = run.consumer(0, "--clock-topic", clocked, **alone)
    ended(run.producer(0, "--size", "3000", **alone))
    ended(consumer)
    merged = run.report(**alone).stdout.partition("Summary of the consumer")[2]
    assert re.search(r"clock offset vs broker \d+ +[-+]", merged), merged
    assert 3 < float(figure(merged, "elapsed")) < TIMEOUT_S  # 3,000 messages at 1,000 a second
    for late in (run.producer(1, **alone), run.consumer(1, **alone)):
        _, stderr = late.communicate(timeout=TIMEOUT_S)
        assert late.returncode == 2
        assert f"the run {run.name} has ended" in stderr


def test_a_producer_that_crashed_is_named(run: Run) -> None:
    """A producer without a result leaves messages of which nobody knows: named, exit code 4."""
    alone = {"WAIT_FOR": "producers:1,consumers:1"}
    consumer = run.consumer(0, "--count", "100", **alone)
    producer = run.producer(0, **alone)
    assert consumer.stdout is not None and consumer.stdout.readline()
    producer.kill()
    producer.communicate()
    ended(consumer)
    report = run.report(**alone)
    assert report.returncode == 4, report.stderr
    assert "producer 0 crashed, or still runs: it left no result" in report.stderr


def test_a_run_needs_its_topics(scripts: Scripts, cluster: Cluster) -> None:
    """Where they are missing, the command that makes them is named; exit code 3."""
    done = scripts.run("PerfConsumer.py", "--topic", cluster.create_topic(), RUN_ID="r", RUNS_TOPIC="no-such-topic")
    assert done.returncode == 3
    assert "PerfTopics.py runs" in done.stderr
