"""Operators for the tests, on confluent_kafka alone: they copy, misbehave as told, or write in transactions."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an operator writes. Timestamp 0 is the moment of writing."""

    value: bytes | None
    key: bytes | None = None
    headers: Any = None
    partition: int = 0
    timestamp_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What `misbehave` did: how many messages it dropped, wrote twice, and put behind their successor."""

    dropped: int
    doubled: int
    swapped: int


def write(brokers: str, topic: str, records: Sequence[Record]) -> None:
    """Write the records in order (per partition), all acknowledged."""
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5})
    errors: list[Any] = []
    for record in records:
        producer.produce(
            topic,
            record.value,
            record.key,
            record.partition,
            on_delivery=lambda error, _: errors.append(error) if error else None,
            timestamp=record.timestamp_ms,
            headers=record.headers,
        )
        producer.poll(0)
    assert producer.flush(_TIMEOUT_S) == 0
    assert not errors


def result_of(message: Message, *, partition: int = 0, timestamp_ms: int = 0) -> Record:
    """The message with its Kafka timestamp as timestamp_start; key and headers stay."""
    value = message.value() or b""
    assert value.startswith(b"{") and value.endswith(b"}")
    value = b'%b,"timestamp_start":%d}' % (value[:-1], message.timestamp()[1])
    return Record(
        value=value, key=message.key(), headers=message.headers(), partition=partition, timestamp_ms=timestamp_ms
    )


def misbehave(messages: Sequence[Message], mark_of: Callable[[Message], str]) -> tuple[list[Message], Faults]:
    """Drop, double and swap some messages of every origin; returns what is left to write, and what was done.

    Half of the doubled ones come twice in a row, the others again at the very end.
    """
    by_origin: dict[str, list[int]] = defaultdict(list)
    for at, message in enumerate(messages):
        by_origin[mark_of(message).rpartition("/")[0]].append(at)
    found: list[list[Message]] = [[message] for message in messages]
    dropped, doubled, swapped, again = 0, 0, 0, []
    for places in by_origin.values():
        for start in range(0, len(places) - 12, 40):
            found[places[start + 1]] = []
            found[places[start + 3]] *= 2
            again += [messages[places[start + 5]]]
            one, two = places[start + 8], places[start + 9]
            found[one], found[two] = found[two], found[one]
            dropped, doubled, swapped = dropped + 1, doubled + 2, swapped + 1
    assert dropped
    written = [message for several in found for message in several] + again
    return written, Faults(dropped=dropped, doubled=doubled, swapped=swapped)


class TransactionalOperator(threading.Thread):
    """Copies `source` to `output` in transactions, each open for `commit_every_s`: an exactly-once operator.

    `commits` tells when each began to commit (ms since the epoch), before which nobody can see its messages, and how
    many they were.
    """

    def __init__(self, brokers: str, source: str, output: str, *, commit_every_s: float) -> None:
        super().__init__(daemon=True)
        self._consumer = Consumer({"bootstrap.servers": brokers, "group.id": "unused", "fetch.wait.max.ms": 20})
        self._producer = Producer({"bootstrap.servers": brokers, "transactional.id": output, "linger.ms": 0})
        self._source, self._output = source, output
        self._commit_every_s = commit_every_s
        self._stopping = threading.Event()
        self.ready = threading.Event()
        self.commits: list[tuple[float, int]] = []

    def __enter__(self) -> TransactionalOperator:
        self.start()
        assert self.ready.wait(_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join(_TIMEOUT_S)

    def run(self) -> None:
        """Read, write and commit until stopped."""
        self._producer.init_transactions(_TIMEOUT_S)
        self._consumer.assign([TopicPartition(self._source, 0, OFFSET_BEGINNING)])
        self.ready.set()
        opened_s, written = None, 0
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.01):
                if opened_s is None:
                    self._producer.begin_transaction()
                    opened_s, written = time.monotonic(), 0
                record = result_of(message)
                self._producer.produce(self._output, record.value, record.key)
                written += 1
            self._producer.poll(0)
            if opened_s is not None and time.monotonic() >= opened_s + self._commit_every_s:
                self._producer.flush(_TIMEOUT_S)
                self.commits.append((time.time() * 1000, written))
                self._producer.commit_transaction(_TIMEOUT_S)
                opened_s = None
        if opened_s is not None:
            self._producer.abort_transaction(_TIMEOUT_S)
        self._consumer.close()
