"""A producer that knows what became of every message."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from .config import ClientConfig
from .errors import ErrorLog, FatalClientError, cause, new_client

log = logging.getLogger("kafka")

#: A key (None: no key) and a value.
KeyValue = tuple[bytes | None, bytes]


class Outgoing(NamedTuple):
    """A message with more than key and value. Timestamp 0 is the moment of sending, partition -1 the key's choice."""

    key: bytes | None
    value: bytes
    partition: int = -1
    timestamp_ms: int = 0
    headers: list[tuple[str, str | bytes | None]] | None = None


#: No answer came: such a message may or may not be in the topic.
_UNKNOWN_OUTCOME = frozenset(
    {KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT, KafkaError._PURGE_INFLIGHT}
)
_SHOWN_FAILURES = 3
_ROOM_POLL_S = 0.05
_FLUSH_SLICE_S = 0.2

_PROPERTIES = {
    "acks": "all",
    "enable.idempotence": "true",
    # librdkafka's default of 1 GiB would let a stalled broker fill the memory
    "queue.buffering.max.kbytes": "65536",
}


class Producer:
    """Sends to one topic and counts `acknowledged`, `failed` (by error name) and `unknown`.

    With `acknowledge_each` every message calls back (needed to time acknowledgements); without it only failures
    do, which is a third faster, and the acknowledged are known once `flush` has emptied the queue. `properties` are the
    caller's defaults, behind those of `config`.
    """

    def __init__(
        self,
        config: ClientConfig,
        topic: str,
        *,
        acknowledge_each: bool,
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._topic = topic
        self._each = acknowledge_each
        self._errors = ErrorLog()
        self._acknowledged = 0
        self._left = 0
        self.queued = 0
        self.queued_bytes = 0
        self.timestamp_types: set[int] = set()
        self._ack_us: list[int] = []
        self.failed: Counter[str] = Counter()
        self._timed_out = 0
        self._client = new_client(
            confluent_kafka.Producer,
            {
                **_PROPERTIES,
                **properties,
                **config.properties,
                "delivery.report.only.error": not acknowledge_each,
                "on_delivery": self._on_delivery,
                "error_cb": self._errors,
            },
        )

    @property
    def unknown(self) -> int:
        """Messages without an answer: timed out, or still queued when `flush` gave up."""
        return self._timed_out + self._left

    @property
    def acknowledged(self) -> int:
        """Messages that the broker confirmed; without `acknowledge_each` known only after `flush`."""
        return self._acknowledged if self._each else self.queued - self.failed.total() - self.unknown

    def send(self, batch: Sequence[KeyValue], stopped: Callable[[], bool]) -> int:
        """Queue the messages of `batch` in order; waits while the queue is full.

        Returns how many were queued: all of them, unless `stopped()` became true while the queue was full.
        Raises FatalClientError.
        """
        produce, topic = self._client.produce, self._topic
        done = 0
        try:
            for key, value in batch:
                try:
                    produce(topic, value, key)
                except (BufferError, KafkaException) as error:
                    if not self._resolve(error, Outgoing(key, value), stopped):
                        break
                done += 1
        finally:
            self.queued += done
            self.queued_bytes += sum([len(value) for _, value in batch[:done]])
        self._client.poll(0)
        return done

    def send_outgoing(self, batch: Sequence[Outgoing], stopped: Callable[[], bool]) -> int:
        """As `send`, for messages with a partition, timestamp or headers of their own."""
        done = 0
        try:
            for message in batch:
                try:
                    self._produce(message)
                except (BufferError, KafkaException) as error:
                    if not self._resolve(error, message, stopped):
                        break
                done += 1
        finally:
            self.queued += done
            self.queued_bytes += sum([len(message.value) for message in batch[:done]])
        self._client.poll(0)
        return done

    def take_ack_us(self) -> list[int]:
        """The times from produce to acknowledgement, in microseconds, that came since the last call."""
        taken, self._ack_us = self._ack_us, []
        return taken

    def serve(self) -> None:
        """Take in the acknowledgements that have come; `send` and `flush` do it too."""
        self._client.poll(0)

    def flush(self, *, stopped: Callable[[], bool], grace_s: float) -> None:
        """Wait until every message has its answer: at most the delivery time-out, or `grace_s` once `stopped()`."""
        deadline = None
        while len(self._client) and not self._errors.fatal:
            if deadline is None and stopped():
                deadline = time.monotonic() + grace_s
                log.info(
                    "waiting up to %g s for the answers to %d messages; a second signal ends at once",
                    grace_s,
                    len(self._client),
                )
            if deadline is not None and time.monotonic() > deadline:
                break
            self._client.flush(_FLUSH_SLICE_S)
        self._left = len(self._client)
        if self._left:
            log.warning("no answer for %d messages: they may or may not be in the topic %s", self._left, self._topic)
            self._client.purge()

    def _produce(self, message: Outgoing) -> None:
        self._client.produce(
            self._topic,
            message.value,
            message.key,
            message.partition,
            timestamp=message.timestamp_ms,
            headers=message.headers,
        )

    def _resolve(self, error: BufferError | KafkaException, message: Outgoing, stopped: Callable[[], bool]) -> bool:
        """Deal with a message that produce() refused. False: `stopped()` while waiting for room."""
        while isinstance(error, BufferError):
            if stopped():
                return False
            self._client.poll(_ROOM_POLL_S)
            try:
                self._produce(message)
                return True
            except (BufferError, KafkaException) as again:
                error = again
        reason: KafkaError = error.args[0]
        if reason.fatal() or reason.code() == KafkaError._FATAL:
            raise FatalClientError(f"the producer cannot go on: {cause(self._errors.fatal or reason)}")
        self._count_failure(reason, f"a message of {len(message.value)} bytes")
        return True

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._acknowledged += 1
            self.timestamp_types.add(message.timestamp()[0])
            self._ack_us.append(int((message.latency() or 0.0) * 1e6))
        elif error.code() in _UNKNOWN_OUTCOME:
            self._timed_out += 1
        else:
            self._count_failure(error, f"a message of {len(message)} bytes")

    def _count_failure(self, error: KafkaError, what: str) -> None:
        name = error.name()
        self.failed[name] += 1
        if self.failed[name] <= _SHOWN_FAILURES:
            log.error("%s was not accepted by topic %s: %s", what, self._topic, cause(error))
