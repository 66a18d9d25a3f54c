"""Administration: the connection check that names the cause, and the topics."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from .config import ClientConfig
from .errors import ConnectError, ErrorLog, TopicError, TopicMissingError, cause, new_client

CONNECT_TIMEOUT_S = 6.0
_POLL_S = 0.05
_TIMESTAMP_TYPE = "message.timestamp.type"

#: No retry helps against these.
_FINAL_ERRORS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._FATAL})


@dataclass(frozen=True)
class TopicDescription:
    """A topic as the cluster describes it; `leaders` is partition → broker id.

    `timestamp_type` is None where the topic's configuration may not be read, or was not asked for.
    """

    name: str
    topic_id: str
    leaders: Mapping[int, int]
    timestamp_type: str | None = None

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions' numbers."""
        return tuple(sorted(self.leaders))


class Admin:
    """One administrative connection. Raises ConfigError for properties that librdkafka refuses."""

    def __init__(self, config: ClientConfig) -> None:
        self._brokers = config.properties["bootstrap.servers"]
        self._errors = ErrorLog()
        self._client = new_client(AdminClient, {**config.properties, "error_cb": self._errors})

    def describe(self, topic: str, *, with_configuration: bool = False) -> TopicDescription:
        """The topic's id and partitions; never creates it, unlike a metadata request for its name.

        Raises ConnectError that names the cause, or TopicError when the topic is missing or not authorised.
        """
        future = self._client.describe_topics(TopicCollection([topic]), request_timeout=CONNECT_TIMEOUT_S)[topic]
        found = self._result(future, topic)
        leaders = {partition.id: partition.leader.id if partition.leader else -1 for partition in found.partitions}
        timestamp_type = self._timestamp_type(topic) if with_configuration else None
        return TopicDescription(topic, str(found.topic_id), leaders, timestamp_type)

    def create(self, topic: str, *, partitions: int, replication_factor: int, timestamp_type: str) -> bool:
        """Create the topic. False: it was there already, the same way.

        Raises TopicError when it is, or came to be, with another number of partitions or timestamp type, or is refused.
        """
        wanted = NewTopic(topic, partitions, replication_factor, config={_TIMESTAMP_TYPE: timestamp_type})
        return self._create(wanted, partitions=partitions, timestamp_type=timestamp_type)

    def create_for_clock(self, topic: str) -> bool:
        """Create a LogAppendTime topic of which each broker leads a partition. False: it was there already.

        Raises TopicError as `create` does.
        """
        cluster = self._client.describe_cluster(request_timeout=CONNECT_TIMEOUT_S)
        brokers = [[node.id] for node in self._result(cluster, topic).nodes]
        config = {_TIMESTAMP_TYPE: "LogAppendTime", "retention.ms": "3600000"}
        wanted = NewTopic(topic, len(brokers), replica_assignment=brokers, config=config)
        return self._create(wanted, partitions=len(brokers), timestamp_type="LogAppendTime")

    def _create(self, wanted: NewTopic, *, partitions: int, timestamp_type: str) -> bool:
        topic = str(wanted.topic)
        future = self._client.create_topics([wanted], request_timeout=CONNECT_TIMEOUT_S)[topic]
        try:
            self._result(future, topic)
        except _TopicExists:
            self._require_same(topic, partitions=partitions, timestamp_type=timestamp_type)
            return False
        self._await_visible(topic)
        self._require_same(topic, partitions=partitions, timestamp_type=timestamp_type)  # some services ignore it
        return True

    def delete(self, topic: str) -> None:
        """Delete the topic. Raises TopicError."""
        self._result(self._client.delete_topics([topic], request_timeout=CONNECT_TIMEOUT_S)[topic], topic)

    def _require_same(self, topic: str, *, partitions: int, timestamp_type: str) -> None:
        found = self.describe(topic, with_configuration=True)
        pairs = [
            ("partitions", len(found.partitions), partitions),
            (_TIMESTAMP_TYPE, found.timestamp_type or timestamp_type, timestamp_type),  # None: not ours to read
        ]
        differences = [f"{name} is {has}, not {wanted}" for name, has, wanted in pairs if has != wanted]
        if differences:
            raise TopicError(f"the topic {topic} is there, but {' and '.join(differences)}")

    def _await_visible(self, topic: str) -> None:
        """A topic just created is unknown to some brokers for a moment."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            try:
                self.describe(topic)
                return
            except TopicError:
                if time.monotonic() > deadline:
                    raise
                self._client.poll(_POLL_S)

    def _timestamp_type(self, topic: str) -> str | None:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._client.describe_configs([resource], request_timeout=CONNECT_TIMEOUT_S)[resource]
        try:
            return str(self._result(future, topic)[_TIMESTAMP_TYPE].value)
        except (TopicError, KeyError):
            return None

    def _result(self, future: concurrent.futures.Future[Any], topic: str) -> Any:
        """Wait for an answer; polls meanwhile, because causes of a failure arrive only at error_cb."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not future.done():
            self._client.poll(_POLL_S)
            final = [error for error in self._errors.errors if error.code() in _FINAL_ERRORS]
            if final or time.monotonic() > deadline:
                raise self._connect_error(final)
        try:
            return future.result()
        except KafkaException as error:
            raise self._explained(error.args[0], topic) from error

    def _connect_error(self, final: list[KafkaError]) -> ConnectError:
        errors = final or [error for error in self._errors.errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
        reason = cause(errors[-1]) if errors else f"no answer within {CONNECT_TIMEOUT_S:g} s"
        return ConnectError(f"cannot connect to {self._brokers}: {reason}")

    def _explained(self, error: KafkaError, topic: str) -> Exception:
        code = error.code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return _TopicExists(topic)
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return TopicMissingError(
                f"the topic {topic} does not exist; create it with: python PerfTopics.py create {topic}"
            )
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return TopicError(
                f"not authorised for the topic {topic}, or it does not exist; where the credentials allow it, "
                f"create it with: python PerfTopics.py create {topic}"
            )
        if code in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            return self._connect_error([])
        return TopicError(f"topic {topic}: {cause(error)}")


class _TopicExists(TopicError):
    pass
