"""Topics with limits of their own, and topics that are deleted, made anew or grow while they are worked with."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewPartitions, NewTopic  # type: ignore[attr-defined]
from harness import TIMEOUT_S, Cluster, Scripts, summary_of

pytestmark = pytest.mark.integration

STAMP_MS = 1_795_000_000_000
Wait = Callable[[Callable[[], bool]], None]


def topic_with(cluster: Cluster, name: str, **configuration: str) -> str:
    """A topic of that name with properties of its own (_ for .)."""
    config = {key.replace("_", "."): value for key, value in configuration.items()}
    cluster.admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(TIMEOUT_S)
    return name


def delete(cluster: Cluster, name: str) -> None:
    """Delete a topic."""
    cluster.admin.delete_topics([name])[name].result(TIMEOUT_S)


@pytest.mark.parametrize("rate", ["0", "5000"])
def test_row_12_a_message_larger_than_the_topic_takes(scripts: Scripts, cluster: Cluster, rate: str) -> None:
    """It alone fails, counted and named, exit code 4; the small ones do not go down with it in a batch."""
    topic = topic_with(cluster, f"{cluster.create_topic()}-small", max_message_bytes="2000")
    lines = [json.dumps({"n": number, "text": "x" * (5_000 if number == 7 else 80)}) for number in range(100)]
    (scripts.folder / "data.ndjson").write_text("\n".join(lines))
    flags = ("--topic", topic, "--file", "data.ndjson", "--size", "1000", "--rate", rate, "--result", "p.json")
    done = scripts.run("ProducerPerformance.py", *flags)
    assert done.returncode == 4, done.stderr
    found = summary_of(scripts, "p.json")
    assert (found["acknowledged"], found["failed"], found["unknown"]) == (990, {"MSG_SIZE_TOO_LARGE": 10}, 0)
    assert re.search(r"a message of \d+ bytes was not accepted by topic", done.stderr)


def test_row_12_a_topic_that_takes_large_messages_gets_them(scripts: Scripts, cluster: Cluster) -> None:
    """The client's own limit of a million bytes follows the topic's."""
    topic = topic_with(cluster, f"{cluster.create_topic()}-large", max_message_bytes="5000000")
    (scripts.folder / "data.json").write_text(json.dumps({"text": "x" * 3_000_000}))
    done = scripts.run("ProducerPerformance.py", "--topic", topic, "--file", "data.json", "--size", "3")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("anew", [False, True], ids=["deleted", "made anew"])
def test_row_23_a_topic_deleted_under_the_consumer(scripts: Scripts, cluster: Cluster, anew: bool) -> None:
    """It is named within seconds, with the report of what was read; exit code 3."""
    topic = topic_with(cluster, f"{cluster.create_topic()}-d", message_timestamp_type="CreateTime")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % (STAMP_MS - 5)] * 100, timestamp=STAMP_MS)
    consumer = scripts.start("PerfConsumer.py", "--topic", topic, "--result", "c.json")
    assert consumer.stdout is not None and "Average 5.0" in consumer.stdout.readline()
    delete(cluster, topic)
    if anew:
        topic_with(cluster, topic)
    stdout, stderr = consumer.communicate(timeout=TIMEOUT_S)
    assert consumer.returncode == 3, stderr
    assert topic in stderr and ("deleted" in stderr or "does not exist" in stderr or "Unknown" in stderr)
    assert re.search(r"messages read +100\n", stdout)


@pytest.mark.parametrize("anew", [False, True], ids=["deleted", "made anew"])
def test_row_23_a_topic_deleted_under_the_producer(
    scripts: Scripts, cluster: Cluster, await_condition: Wait, anew: bool
) -> None:
    """What was acknowledged is gone with it: named, partial report, exit code 4, and no wait for time-outs."""
    topic = topic_with(cluster, f"{cluster.create_topic()}-d")
    flags = ("--topic", topic, "--rate", "200", "--size", "1M", "--result", "p.json")
    producer = scripts.start("ProducerPerformance.py", *flags)
    await_condition(lambda: bool(cluster.read(topic, 1)))
    delete(cluster, topic)
    if anew:
        with contextlib.suppress(KafkaException):  # the producer may have had it made anew already
            topic_with(cluster, topic)
    _, stderr = producer.communicate(timeout=TIMEOUT_S)
    assert producer.returncode == 4, stderr
    assert f"the topic {topic} was deleted" in stderr
    found = summary_of(scripts, "p.json")
    assert found["acknowledged"] > 0
    assert found["messages"] == found["acknowledged"] + sum(found["failed"].values()) + found["unknown"]


def test_row_23_partitions_that_are_added_are_read(scripts: Scripts, cluster: Cluster) -> None:
    """They are noticed, said, and read from their first message."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    consumer = scripts.start("PerfConsumer.py", "--topic", topic, "--count", "300", "--result", "c.json")
    scripts.wait_for(consumer, "read as it comes")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % (STAMP_MS - 5)] * 100, timestamp=STAMP_MS)
    cluster.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(TIMEOUT_S)
    scripts.wait_for(consumer, "has got partitions: now 3")
    for partition in (1, 2):
        cluster.produce(topic, [b'{"timestamp_start":%d}' % (STAMP_MS - 5)] * 100, partition, timestamp=STAMP_MS)
    _, stderr = consumer.communicate(timeout=TIMEOUT_S)
    assert consumer.returncode == 0, stderr
    found = summary_of(scripts, "c.json")
    assert [(row["partition"], row["count"]) for row in found["partitions"]] == [(0, 100), (1, 100), (2, 100)]


def test_a_watched_topic_that_stays_is_left_alone(scripts: Scripts, cluster: Cluster) -> None:
    """A run of several looks at an unchanged topic ends as it would without them."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    consumer = scripts.start("PerfConsumer.py", "--topic", topic, "--idle-timeout", "8s")
    _, stderr = consumer.communicate(timeout=TIMEOUT_S)
    assert consumer.returncode == 5
    assert "deleted" not in stderr and "partitions: now" not in stderr
