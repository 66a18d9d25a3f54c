"""What the integration tests share: direct access to the cluster, and the scripts as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from kafka.config import VARIABLES
from perf.settings import OPTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 60.0
_OUR_VARIABLES = {variable.name for variable in VARIABLES} | {option.variable for option in OPTIONS.values()}


class Cluster:
    """Direct access to a cluster by confluent_kafka, independent of the code under test."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self.admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})

    def create_topic(self, *, partitions: int = 1, timestamp_type: str = "LogAppendTime", name_end: str = "") -> str:
        """A new topic of an own name. It keeps what is old: tests write messages with a stamp of a fixed day."""
        name = f"test-{uuid.uuid4().hex[:12]}{name_end}"
        config = {"message.timestamp.type": timestamp_type, "retention.ms": "-1"}
        topic = NewTopic(name, partitions, 1, config=config)
        self.admin.create_topics([topic])[name].result(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while not self._knows(name):  # the controller made it, and the broker hears of it a moment later
            assert time.monotonic() < deadline, f"{name} was made, and the broker does not know it"
        return name

    def _knows(self, topic: str) -> bool:
        try:
            self.admin.describe_topics(TopicCollection([topic]))[topic].result(TIMEOUT_S)
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            return False
        return True

    def topics(self) -> set[str]:
        """All topics that there are."""
        return set(self.admin.list_topics(timeout=TIMEOUT_S).topics)

    def produce(self, topic: str, values: Sequence[bytes | None], partition: int = 0, **arguments: Any) -> None:
        """Send the values to one partition in order, all acknowledged."""
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5})
        errors: list[Any] = []
        for value in values:
            while True:
                try:
                    producer.produce(
                        topic,
                        value,
                        partition=partition,
                        on_delivery=lambda e, _: errors.append(e) if e else None,
                        **arguments,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(TIMEOUT_S) == 0
        assert not errors

    def read(self, topic: str, count: int, *, partitions: int = 1) -> list[Message]:
        """The first `count` messages (of partition 0 in order)."""
        properties = {"bootstrap.servers": self.brokers, "group.id": "independent", "enable.auto.commit": False}
        consumer = Consumer(properties)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
        messages: list[Message] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(messages) < count:
            messages += consumer.consume(count - len(messages), 0.5)
            assert time.monotonic() < deadline, f"only {len(messages)} of {count} messages in {topic}"
        consumer.close()
        assert all(message.error() is None for message in messages)
        return messages


class Scripts:
    """Runs the scripts as a user does: as processes in an empty folder, configured by variables and flags."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name not in _OUR_VARIABLES}
        self.environment["KAFKA_BROKERS"] = brokers
        self._started: list[subprocess.Popen[str]] = []

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a script with its output in pipes; a variable "" is unset."""
        command = [sys.executable, *script.split()] if script.startswith("-m") else [sys.executable, str(ROOT / script)]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def start_operator(self, source: str, output: str, *flags: str, **variables: str) -> subprocess.Popen[str]:
        """The demo's stand-in operator between two topics, once it reads."""
        flags = ("--input", source, "--output", output, *flags)
        process = self.start("-m demo.streams_operator", *flags, **variables)
        assert process.stdout is not None and process.stderr is not None
        assert "operator ready" in process.stdout.readline(), process.stderr.read()
        return process

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        process = self.start(script, *arguments, **variables)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def wait_for(self, process: subprocess.Popen[str], text: str) -> None:
        """Wait for a line on stderr that holds `text`."""
        assert process.stderr is not None
        for line in process.stderr:
            if text in line:
                return
        raise AssertionError(f"the process ended without saying {text!r}")

    def close(self) -> None:
        """End what a test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def summary_of(scripts: Scripts, name: str) -> dict[str, Any]:
    """The summary of a result file."""
    found: dict[str, Any] = json.loads((scripts.folder / name).read_text())["summary"]
    return found
