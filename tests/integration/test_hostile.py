"""Faults that a hostile reviewer made happen: each had lost a report, a number or the exit code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from harness import ROOT, TIMEOUT_S, Cluster, Scripts, summary_of

from demo.broker import EmbeddedBroker

pytestmark = pytest.mark.integration

STAMP_MS = 1_795_000_000_000


@pytest.mark.parametrize("rate", ["0", "2000"])
def test_a_fatal_producer_error_leaves_a_report(scripts: Scripts, cluster: Cluster, rate: str) -> None:
    """A fatal client error ends in a full report whose counts add up, with exit code 3 or 4."""
    name = f"{cluster.create_topic()}-small"
    small = NewTopic(name, 1, 1, config={"max.message.bytes": "2000"})
    cluster.admin.create_topics([small])[name].result(TIMEOUT_S)
    gapless = (
        "--config",
        "enable.idempotence=true",
        "--config",
        "enable.gapless.guarantee=true",
        "--config",
        "linger.ms=500",
        "--config",
        "batch.size=1000000",  # larger than the topic takes
        "--config",
        "message.max.bytes=1000000",
    )
    flags = ("--topic", name, "--size", "20K", "--rate", rate, "--result", "p.json")
    done = scripts.run("ProducerPerformance.py", *flags, *gapless)
    assert done.returncode in (3, 4), done.stderr
    assert "the producer cannot go on" in done.stderr
    found = summary_of(scripts, "p.json")
    counts = [found["acknowledged"], found["unknown"], sum(found["failed"].values())]
    assert sum(counts) == found["messages"]
    assert all(count >= 0 for count in counts)


def test_a_fenced_consumer_ends(scripts: Scripts, cluster: Cluster) -> None:
    """A consumer whose group.instance.id another one takes over ends with its report and exit code 3."""
    topic = cluster.create_topic()
    flags = ("--topic", topic, "--group", f"g-{topic}", "--config", "group.instance.id=same")
    first = scripts.start("PerfConsumer.py", *flags)
    scripts.wait_for(first, "holding partitions")
    second = scripts.start("PerfConsumer.py", *flags)
    scripts.wait_for(second, "holding partitions")
    stdout, stderr = first.communicate(timeout=TIMEOUT_S)
    assert first.returncode == 3, stderr
    assert "the consumer cannot go on" in stderr
    assert "messages read" in stdout


def test_a_member_that_lost_its_partitions_counts_nothing_twice(scripts: Scripts, cluster: Cluster) -> None:
    """Expelled from its group before it had committed, it goes on where it was, once it is back."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % (STAMP_MS - 1_000)] * 500, timestamp=STAMP_MS)
    flags = ("--topic", topic, "--group", f"g-{topic}", "--count", "600", "--result", "c.json")
    session = ("--config", "session.timeout.ms=6000", "--config", "heartbeat.interval.ms=500")
    consumer = scripts.start("PerfConsumer.py", *flags, *session)
    assert consumer.stdout is not None
    for _ in range(5):
        assert "[STAT 100] - Average 1000.0" in consumer.stdout.readline()
    consumer.send_signal(signal.SIGSTOP)
    time.sleep(8)  # the fault itself: longer than its session
    consumer.send_signal(signal.SIGCONT)
    scripts.wait_for(consumer, "lost partitions [0]")
    scripts.wait_for(consumer, "holding partitions [0]")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % (STAMP_MS - 7)] * 100, timestamp=STAMP_MS)
    _, stderr = consumer.communicate(timeout=TIMEOUT_S)
    assert consumer.returncode == 0, stderr
    delta = summary_of(scripts, "c.json")["delta_ms"]
    assert (delta["count"], delta["mean"]) == (600, (500 * 1_000 + 100 * 7) / 600)


def test_a_group_from_latest_reads_all_that_follows(scripts: Scripts, own_broker: EmbeddedBroker) -> None:
    """Although the group takes seconds to form, all messages sent after "reading topic" are read."""
    own_broker.kill()
    own_broker.properties["group.initial.rebalance.delay.ms"] = "3000"
    own_broker.start()
    cluster = Cluster(own_broker.bootstrap_servers)
    topic = cluster.create_topic(partitions=2)
    address = {"KAFKA_BROKERS": own_broker.bootstrap_servers}
    flags = ("--topic", topic, "--group", "late", "--from", "latest", "--timestamp-field", "eventTime")
    readers = [
        scripts.start("PerfConsumer.py", *flags, "--idle-timeout", "15s", "--result", f"{number}.json", **address)
        for number in range(2)
    ]
    for reader in readers:
        scripts.wait_for(reader, "reading topic")
    sent = scripts.run("ProducerPerformance.py", "--topic", topic, "--size", "3000", "--rate", "1000", **address)
    assert sent.returncode == 0, sent.stderr
    for reader in readers:
        reader.communicate(timeout=TIMEOUT_S)
    read = [summary_of(scripts, f"{number}.json")["messages_read"] for number in range(2)]
    assert sum(read) == 3000


def test_what_was_due_within_the_duration_is_sent(scripts: Scripts, cluster: Cluster) -> None:
    """A producer that stood still near the end of --duration sends all that was due, with its lateness."""
    topic = cluster.create_topic()
    flags = ("--topic", topic, "--rate", "500", "--duration", "4s", "--result", "p.json")
    producer = scripts.start("ProducerPerformance.py", *flags)
    scripts.wait_for(producer, "sending to topic")
    time.sleep(2.5)  # the stall is to lie at the end of the duration, so this is no wait for a condition
    producer.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    producer.send_signal(signal.SIGCONT)
    producer.communicate(timeout=TIMEOUT_S)
    assert producer.returncode == 0
    found = summary_of(scripts, "p.json")
    assert (found["acknowledged"], found["not_sent"]) == (2000, 0)
    assert found["lateness_ms"]["p90"] > 500


def test_a_rate_beyond_reach_is_told(scripts: Scripts, cluster: Cluster) -> None:
    """Messages that were due but could never be sent in time are counted, with their lateness, and warned of."""
    topic = cluster.create_topic()
    flags = ("--topic", topic, "--rate", "20000000", "--duration", "500ms", "--result", "p.json")
    done = scripts.run("ProducerPerformance.py", *flags)
    found = summary_of(scripts, "p.json")
    assert found["not_sent"] > 0
    assert found["messages"] + found["not_sent"] == 10_000_000
    assert found["lateness_ms"]["count"] == 10_000_000
    assert f"{found['not_sent']} messages were due" in done.stderr


@pytest.mark.parametrize("limit", ["--size=1000000", "--duration=1h"])
def test_what_was_due_when_a_signal_came_is_told(scripts: Scripts, own_broker: EmbeddedBroker, limit: str) -> None:
    """Where the queue was full when a signal came, what was due is in not_sent, and in the lateness."""
    topic = Cluster(own_broker.bootstrap_servers).create_topic()
    flags = ("--topic", topic, "--rate", "5000", limit, "--config", "queue.buffering.max.messages=100")
    variables = {"KAFKA_BROKERS": own_broker.bootstrap_servers}
    producer = scripts.start("ProducerPerformance.py", *flags, "--result", "p.json", **variables)
    scripts.wait_for(producer, "sending to topic")
    own_broker.pause()
    time.sleep(2)  # how long the queue is full is what is measured
    producer.send_signal(signal.SIGINT)
    time.sleep(0.2)
    own_broker.resume()
    _, stderr = producer.communicate(timeout=TIMEOUT_S)
    assert producer.returncode == 130, stderr
    found = summary_of(scripts, "p.json")
    assert found["not_sent"] > 2_000
    assert found["lateness_ms"]["count"] == found["messages"] + found["not_sent"]
    assert found["lateness_ms"]["max"] > 1_000


def test_duration_ends_with_the_broker_gone(scripts: Scripts, own_broker: EmbeddedBroker) -> None:
    """With a full queue and no broker --duration still ends the sending."""
    topic = Cluster(own_broker.bootstrap_servers).create_topic()
    limits = ("--config", "queue.buffering.max.messages=1000", "--config", "message.timeout.ms=3000")
    flags = ("--topic", topic, "--duration", "4s", "--result", "p.json")
    variables = {"KAFKA_BROKERS": own_broker.bootstrap_servers}
    producer = scripts.start("ProducerPerformance.py", *flags, *limits, **variables)
    scripts.wait_for(producer, "sending to topic")
    own_broker.pause()
    _, stderr = producer.communicate(timeout=TIMEOUT_S)
    own_broker.resume()
    assert producer.returncode == 4, stderr
    assert summary_of(scripts, "p.json")["send_elapsed_s"] < 6


def test_a_message_larger_than_the_queue_fails_alone(scripts: Scripts, cluster: Cluster) -> None:
    """It is counted as failed and named, and does not hang the producer; exit code 4."""
    (scripts.folder / "data.ndjson").write_text('{"a":1}\n{"a":"%s"}\n' % ("x" * 3_000))
    flags = ("--topic", cluster.create_topic(), "--file", "data.ndjson", "--size", "10")
    done = scripts.run("ProducerPerformance.py", *flags, "--config", "queue.buffering.max.kbytes=2")
    assert done.returncode == 4
    assert re.search(r"_QUEUE_FULL +5\n", done.stdout), done.stdout


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream(scripts: Scripts, cluster: Cluster, closed: str) -> None:
    """Started with stdout or stderr closed (>&-), the report reaches the other one, without a traceback."""
    command = f"exec {sys.executable} {ROOT / 'ProducerPerformance.py'} --topic {cluster.create_topic()} {closed}>&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=scripts.environment, cwd=scripts.folder, capture_output=True, text=True
    )
    seen = done.stderr if closed == "1" else done.stdout
    assert re.search(r"acknowledged +10\n", seen)
    assert "Traceback" not in seen
    assert done.returncode == (1 if closed == "1" else 0)


@pytest.mark.parametrize("script", ["ProducerPerformance.py", "PerfTopics.py"])
def test_a_signal_inside_a_call_of_the_client(scripts: Scripts, own_broker: EmbeddedBroker, script: str) -> None:
    """While it waits for brokers that stand still, a signal ends a script with 143, wherever in the client it hits."""
    own_broker.pause()
    arguments = ("create", "some") if script == "PerfTopics.py" else ()
    for delay_s in (0.2, 0.3, 0.5, 0.8):
        process = scripts.start(script, *arguments, KAFKA_BROKERS=own_broker.bootstrap_servers)
        time.sleep(delay_s)  # any moment will do
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode in (143, -signal.SIGTERM), stderr  # the latter: before Python had started
    own_broker.resume()


@pytest.mark.parametrize("encoding", ["ascii"])
def test_a_narrow_encoding(scripts: Scripts, cluster: Cluster, encoding: str) -> None:
    """Where the terminal cannot show a character it is escaped: no script fails for it."""
    topic = cluster.create_topic()
    cluster.produce(topic, ['{"a":"é漢"}'.encode()])
    for arguments in (("test.py", "--topic", topic, "--count", "1"), ("PerfConsumer.py", "--help")):
        assert scripts.run(*arguments, PYTHONIOENCODING=encoding).returncode == 0


def test_credentials_in_a_file_are_never_sent_in_clear(scripts: Scripts, cluster: Cluster) -> None:
    """A user and password that only KAFKA_CONFIG_FILE has make the connection SASL_SSL: a plain listener refuses it."""
    (scripts.folder / "client.properties").write_text(
        "sasl.mechanism=PLAIN\nsasl.username=token\nsasl.password=a-secret\n"
    )
    done = scripts.run("PerfConsumer.py", "--topic", cluster.create_topic(), KAFKA_CONFIG_FILE="client.properties")
    assert done.returncode == 3, done.stderr
    assert "cannot connect" in done.stderr
