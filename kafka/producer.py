"""A producer that knows what became of every message."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from .config import ClientConfig
from .errors import ErrorLog, FatalClientError, Fault, TopicError, cause, new_client

log = logging.getLogger("kafka")

#: A key (None: no key) and a value.
KeyValue = tuple[bytes | None, bytes]


class Outgoing(NamedTuple):
    """A message with more than key and value. Timestamp 0 is the moment of sending, partition -1 the key's choice.

    `mark` goes nowhere: it names the message in `Producer.take_unacknowledged`.
    """

    key: bytes | None
    value: bytes
    partition: int = -1
    timestamp_ms: int = 0
    headers: list[tuple[str, str | bytes | None]] | None = None
    mark: bytes | None = None


#: No answer came: such a message may or may not be in the topic.
_UNKNOWN_OUTCOME = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,  # it may have been sent before, and queued again
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
_FATAL_GRACE_S = 5.0
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
        self._acknowledged = self._seen_acknowledged = 0
        self._left = 0
        self.queued = 0
        self.queued_bytes = 0
        self.timestamp_types: set[int] = set()
        self._ack_us: list[int] = []
        self._unacknowledged: list[bytes] = []
        self.failed: Counter[str] = Counter()
        self._timed_out = 0
        self.fault: Fault | None = None
        self._errors = ErrorLog()
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

    @property
    def unanswered(self) -> int:
        """Messages that have no answer yet."""
        known = self.failed.total() + self._timed_out
        if self._each:
            return self.queued - self._acknowledged - known
        return min(len(self._client), self.queued - known)  # the length may count other events, too

    @property
    def acknowledged_so_far(self) -> int:
        """As `acknowledged`, but never too many, and never falling, while messages wait for their answer."""
        known = self._acknowledged if self._each else self.acknowledged - self.unanswered
        self._seen_acknowledged = max(self._seen_acknowledged, known)
        return self._seen_acknowledged

    def send(self, batch: Sequence[KeyValue], stopped: Callable[[], bool]) -> int:
        """Queue the messages of `batch` in order; waits while the queue is full.

        Returns how many were queued: all of them, unless `stopped()` became true while the queue was full.
        Raises FatalClientError, or TopicError where the topic may not be written to.
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
        self.serve()
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
        self.serve()
        return done

    def fail(self, fault: Fault) -> None:
        """The next call of `send` or `serve` raises it, and `flush` waits no longer than for a fatal error."""
        self.fault = self.fault or fault

    def take_ack_us(self) -> list[int]:
        """The times from produce to acknowledgement, in microseconds, that came since the last call."""
        taken, self._ack_us = self._ack_us, []
        return taken

    def take_unacknowledged(self) -> list[bytes]:
        """The marks of the messages that ended as failed or unknown since the last call; complete after `flush`."""
        taken, self._unacknowledged = self._unacknowledged, []
        return taken

    def serve(self) -> None:
        """Take in the acknowledgements that have come; `send` and `flush` do it too. Raises what `send` raises."""
        self._poll(0)
        if self.fault is not None:
            raise self.fault

    def _poll(self, timeout_s: float) -> None:
        """Serve callbacks. The client lets a fatal error out here, not through error_cb."""
        try:
            self._client.poll(timeout_s)
        except KafkaException as error:
            self.fault = self._fatal(error.args[0])
        self.fault = self.fault or self._errors.fault("producer")

    def flush(self, *, stopped: Callable[[], bool], grace_s: float) -> None:
        """Wait until every message has its answer: at most the delivery time-out, or `grace_s` once `stopped()`."""
        deadline_s: float | None = None
        while len(self._client):
            if deadline_s is None and (self.fault is not None or stopped()):
                wait_s = _FATAL_GRACE_S if self.fault is not None else grace_s
                deadline_s = time.monotonic() + wait_s
                waiting = "waiting up to %g s for the answers to %d messages; a second signal ends at once"
                log.info(waiting, wait_s, len(self._client))
            if deadline_s is not None and time.monotonic() > deadline_s:
                break
            self._flush_slice()
        if unanswered := self.unanswered:
            log.warning("no answer for %d messages: they may or may not be in the topic %s", unanswered, self._topic)
            self._client.purge()
            self._flush_slice()  # the purged ones call back
            self._left = self.unanswered

    def _flush_slice(self) -> None:
        known = self.fault
        try:
            self._client.flush(_FLUSH_SLICE_S)
        except KafkaException as error:  # a fatal error; the other reports are still to come
            self.fault = self.fault or self._fatal(error.args[0])
        self.fault = self.fault or self._errors.fault("producer")
        if self.fault is not known:
            log.error("%s", self.fault)

    def _produce(self, message: Outgoing) -> None:
        self._client.produce(
            self._topic,
            message.value,
            message.key,
            message.partition,
            timestamp=message.timestamp_ms,
            headers=message.headers,
            **({"on_delivery": partial(self._on_delivery, mark=message.mark)} if message.mark else {}),
        )

    def _resolve(self, error: BufferError | KafkaException, message: Outgoing, stopped: Callable[[], bool]) -> bool:
        """Deal with a message that produce() refused. False: `stopped()` while waiting for room."""
        while isinstance(error, BufferError):
            if stopped():
                return False
            if not len(self._client):  # the queue is empty, and still too small for it
                self._count("_QUEUE_FULL", len(message.value), "it is larger than the queue", message.mark)
                return True
            self._poll(_ROOM_POLL_S)
            if self.fault is not None:
                raise self.fault
            try:
                self._produce(message)
                return True
            except (BufferError, KafkaException) as again:
                error = again
        reason: KafkaError = error.args[0]
        if reason.fatal() or reason.code() == KafkaError._FATAL:
            self._poll(0)  # has what happened, where produce() only says that it was fatal
            self.fault = self.fault or self._fatal(reason)
            raise self.fault
        self._count_failure(reason, len(message.value), message.mark)
        return True

    def _on_delivery(self, error: KafkaError | None, message: Message, *, mark: bytes | None = None) -> None:
        if error is None:
            self._acknowledged += 1
            self.timestamp_types.add(message.timestamp()[0])
            self._ack_us.append(int((message.latency() or 0.0) * 1e6))
        elif error.code() in _UNKNOWN_OUTCOME and not self._was_refused(error):
            self._timed_out += 1
            self._note(mark)
        else:
            self._count_failure(error, len(message), mark)

    def _was_refused(self, error: KafkaError) -> bool:
        """Whether a message never left the queue because nothing may be written to the topic."""
        return error.code() == KafkaError._PURGE_QUEUE and isinstance(self.fault, TopicError)

    def _fatal(self, error: KafkaError) -> Fault:
        if error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:  # no producer id for who may write to no topic
            return TopicError(
                f"not authorised to write to the topic {self._topic}, or, before Kafka 2.8, to use "
                f"IdempotentWrite on the cluster (--config enable.idempotence=false does without it): {cause(error)}"
            )
        return FatalClientError(f"the producer cannot go on: {cause(error)}")

    def _count_failure(self, error: KafkaError, size_bytes: int, mark: bytes | None) -> None:
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and self.fault is None:
            self.fault = TopicError(f"not authorised to write to the topic {self._topic}")
        self._count(error.name(), size_bytes, cause(error), mark)

    def _count(self, name: str, size_bytes: int, reason: str, mark: bytes | None) -> None:
        self.failed[name] += 1
        self._note(mark)
        if self.failed[name] <= _SHOWN_FAILURES:
            log.error("a message of %d bytes was not accepted by topic %s: %s", size_bytes, self._topic, reason)

    def _note(self, mark: bytes | None) -> None:
        if mark is not None:
            self._unacknowledged.append(mark)
