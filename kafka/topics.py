"""Administration: the connection check that names the cause, and the topics."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from .config import ClientConfig
from .consumer import PartitionOffsets
from .errors import ConnectError, ErrorLog, Fault, TopicError, TopicMissingError, cause, is_refusal, new_client
from .handshake import closes_at_a_question, tls_fault

log = logging.getLogger("kafka")

CONNECT_TIMEOUT_S = 6.0
_SUSPICION_S = 1.5
_POLL_S = 0.05
_BATCH_BYTES = 1_000_000  # librdkafka's default
_LEAST_MESSAGE_BYTES, _MOST_MESSAGE_BYTES = 1_000, 1_000_000_000  # what librdkafka allows
_WATCH_EVERY_S = 3.0
_TIMESTAMP_TYPE = "message.timestamp.type"

#: No retry helps against these.
_FINAL_ERRORS = frozenset({KafkaError._SSL, KafkaError._FATAL})
_NOT_REACHED = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})
_NOT_AUTHORISED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
_CLOSED = (
    "the broker closes each connection without a word, as one does that asks for credentials: set KAFKA_APIKEY, or "
    "KAFKA_USER and KAFKA_PASSWORD"
)
# TLS 1.3 refuses a client certificate at the first read after a handshake that went well, TLS 1.2 in the handshake
_CLIENT_CERTIFICATE_ALERT = re.compile(r"alert (.*certificate|unknown ca|handshake failure)")
_CERTIFICATE_REQUIRED = (
    "the broker asks for a client certificate that it trusts: set KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY"
)
#: What a topic is asked for → what to do where that is not allowed.
_MISSING_RIGHT = {
    "describe": "not authorised for the topic {0}, or it does not exist; where the credentials allow it, create it "
    "with: python PerfTopics.py create {0}",
    "create": "not authorised to create the topic {0}: the credentials need the right Create, on it or on the cluster",
    "delete": "not authorised to delete the topic {0}: the credentials need the rights Describe and Delete on it",
    "use": "not authorised for {0}",
}

_NEAR = 0.85  # of two names: so similar are those with two letters exchanged


class Cluster(NamedTuple):
    """A cluster that answered: its id, and broker id → host:port as advertised."""

    cluster_id: str
    brokers: Mapping[int, str]


@dataclass(frozen=True)
class TopicDescription:
    """A topic as the cluster describes it; `leaders` is partition → broker id, `replicas` partition → (all, in sync).

    `configuration` is empty and `rights` (READ, WRITE, …) None where they may not be read, or were not asked for.
    """

    name: str
    topic_id: str
    leaders: Mapping[int, int]
    replicas: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    configuration: Mapping[str, str] = field(default_factory=dict)
    rights: frozenset[str] | None = None

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions' numbers."""
        return tuple(sorted(self.leaders))

    @property
    def replication_factor(self) -> int:
        """Copies of each partition."""
        return max((copies for copies, _ in self.replicas.values()), default=0)

    @property
    def largest_batch(self) -> dict[str, str]:
        """Producer properties by which no batch is larger than the topic takes; none where its limit is unknown.

        librdkafka splits no batch that is refused: small messages would fail together.
        """
        limit = int(self.configuration.get("max.message.bytes", 0))
        if not limit:
            return {}
        return {
            "message.max.bytes": str(min(max(limit, _LEAST_MESSAGE_BYTES), _MOST_MESSAGE_BYTES)),
            "batch.size": str(min(limit, _BATCH_BYTES)),
        }

    @property
    def timestamp_type(self) -> str | None:
        """LogAppendTime or CreateTime; None where the configuration may not be read, or was not asked for."""
        return self.configuration.get(_TIMESTAMP_TYPE)


class Admin:
    """One administrative connection. Raises ConfigError for properties that librdkafka refuses."""

    def __init__(self, config: ClientConfig) -> None:
        self._properties = config.properties
        self._brokers = config.properties["bootstrap.servers"]
        self._errors = ErrorLog()
        self._client = new_client(AdminClient, {**config.properties, "error_cb": self._errors})

    def cluster(self) -> Cluster:
        """The cluster behind the connection. Raises ConnectError that names the cause."""
        found = self._result(self._client.describe_cluster(request_timeout=CONNECT_TIMEOUT_S), "the cluster", "use")
        return Cluster(str(found.cluster_id), {node.id: f"{node.host}:{node.port}" for node in found.nodes})

    def names(self) -> dict[str, int]:
        """The topics that may be seen, but Kafka's own (__…): name → partitions."""
        self.cluster()  # names the cause where there is no connection
        try:
            topics = self._client.list_topics(timeout=CONNECT_TIMEOUT_S).topics
        except KafkaException as error:
            raise self._explained(error.args[0], "the list", "use") from error
        return {name: len(topics[name].partitions) for name in sorted(topics) if not name.startswith("__")}

    def describe(
        self, topic: str, *, with_configuration: bool = False, with_rights: bool = False, suggest: bool = False
    ) -> TopicDescription:
        """The topic's id and partitions; never creates it, unlike a metadata request for its name.

        Raises ConnectError that names the cause, or TopicError when the topic is missing or not authorised; with
        `suggest`, for a name that the user gave, it names the nearest one, for which all are listed.
        """
        future = self._client.describe_topics(
            TopicCollection([topic]), request_timeout=CONNECT_TIMEOUT_S, include_authorized_operations=with_rights
        )[topic]
        found = self._result(future, topic, suggest=suggest)
        rights = found.authorized_operations
        return TopicDescription(
            topic,
            str(found.topic_id),
            leaders={entry.id: entry.leader.id if entry.leader else -1 for entry in found.partitions},
            replicas={entry.id: (len(entry.replicas), len(entry.isr)) for entry in found.partitions},
            configuration=self._configuration(topic) if with_configuration else {},
            rights=frozenset(right.name for right in rights) if rights else None,
        )

    def offsets(self, topic: TopicDescription) -> list[PartitionOffsets]:
        """First and end offset of each partition, asked of the partitions' leaders. Raises as `describe` does."""
        first, end = (self._offsets(topic, kind) for kind in (OffsetSpec.earliest, OffsetSpec.latest))
        return [PartitionOffsets(number, first[number], end[number]) for number in topic.partitions]

    def may_read_in_group(self, group: str) -> bool | None:
        """Whether the credentials may join the group; None where the cluster does not tell."""
        answers: list[bool | None] = []

        def answered() -> bool:
            future = self._client.describe_consumer_groups(
                [group], request_timeout=CONNECT_TIMEOUT_S, include_authorized_operations=True
            )[group]
            try:
                rights = self._result(future, f"the group {group}", "use").authorized_operations
                answers.append("READ" in {right.name for right in rights} if rights else None)
            except _NotAuthorised:
                answers.append(False)
            except TopicError:  # the coordinator of a cluster's first group takes a moment
                return False
            return True

        self._await(answered)
        return answers[0] if answers else None

    def create(self, topic: str, *, partitions: int, replication_factor: int, timestamp_type: str) -> bool:
        """Create the topic. False: it was there already, the same way.

        Raises TopicError when it is, or came to be, with another number of partitions or copies (-1: the cluster's
        default) or timestamp type, or is refused.
        """
        wanted = NewTopic(topic, partitions, replication_factor, config={_TIMESTAMP_TYPE: timestamp_type})
        return self._create(wanted, partitions, timestamp_type, replication_factor)

    def create_for_clock(self, topic: str) -> bool:
        """Create a LogAppendTime topic of which each broker leads a partition. False: it was there already.

        Raises TopicError as `create` does.
        """
        brokers = [[number] for number in self.cluster().brokers]
        config = {_TIMESTAMP_TYPE: "LogAppendTime", "retention.ms": "3600000"}
        wanted = NewTopic(topic, len(brokers), replica_assignment=brokers, config=config)
        return self._create(wanted, len(brokers), "LogAppendTime")

    def create_for_runs(self, topic: str, *, by_key: bool, replication_factor: int) -> bool:
        """Create a topic for what the processes of runs say, or (`by_key`) for their states, both kept for a week.

        False: it was there already. Raises TopicError as `create` does.
        """
        policy = {"cleanup.policy": "compact,delete", "segment.ms": "600000"} if by_key else {}
        config = {_TIMESTAMP_TYPE: "LogAppendTime", "retention.ms": str(7 * 24 * 3_600_000), **policy}
        wanted = NewTopic(topic, 1, replication_factor, config=config)
        return self._create(wanted, -1 if by_key else 1, "LogAppendTime")

    def delete(self, topic: str) -> None:
        """Delete the topic, and wait until it is gone. Raises TopicError."""
        future = self._client.delete_topics([topic], request_timeout=CONNECT_TIMEOUT_S)[topic]
        self._result(future, topic, "delete")
        self._await(lambda: not self._is_there(topic))

    def _create(self, wanted: NewTopic, partitions: int, timestamp_type: str, replication_factor: int = -1) -> bool:
        topic = str(wanted.topic)

        def require_same() -> None:
            found = self.describe(topic, with_configuration=True)
            pairs = [
                ("partitions", len(found.partitions), partitions),
                ("replication factor", found.replication_factor, replication_factor),
                (_TIMESTAMP_TYPE, found.timestamp_type or timestamp_type, timestamp_type),  # None: not ours to read
            ]
            differences = [f"{name} is {has}, not {asked}" for name, has, asked in pairs if asked not in (has, -1)]
            if differences:
                raise TopicError(f"the topic {topic} is there, but {' and '.join(differences)}")

        future = self._client.create_topics([wanted], request_timeout=CONNECT_TIMEOUT_S)[topic]
        try:
            self._result(future, topic, "create")
        except _TopicExists:
            require_same()
            return False
        self._await(lambda: self._is_there(topic))
        require_same()  # some services ignore what they do not let their users choose
        return True

    def _is_there(self, topic: str) -> bool:
        try:
            self.describe(topic)
        except TopicError:
            return False
        return True

    def _await(self, condition: Callable[[], bool]) -> None:
        """A topic just made is unknown to some brokers for a moment, and one just deleted is still known."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not condition() and time.monotonic() < deadline:
            self._client.poll(_POLL_S)

    def _configuration(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._client.describe_configs([resource], request_timeout=CONNECT_TIMEOUT_S)[resource]
        try:
            return {name: str(entry.value) for name, entry in self._result(future, topic).items()}
        except TopicError:
            return {}

    def _offsets(self, topic: TopicDescription, kind: Callable[[], OffsetSpec]) -> dict[int, int]:
        asked = {TopicPartition(topic.name, number): kind() for number in topic.partitions}
        futures = self._client.list_offsets(asked, request_timeout=CONNECT_TIMEOUT_S)
        return {place.partition: self._result(future, topic.name).offset for place, future in futures.items()}

    def _result(
        self, future: concurrent.futures.Future[Any], topic: str, action: str = "describe", *, suggest: bool = False
    ) -> Any:
        """Wait for an answer; polls meanwhile, because causes of a failure arrive only at error_cb."""
        start_s, asked, before = time.monotonic(), False, len(self._errors.errors)
        while not future.done():
            self._client.poll(_POLL_S)
            final = [error for error in self._errors.errors[before:] if _is_final(error)]
            waited_s = time.monotonic() - start_s
            if final or waited_s > CONNECT_TIMEOUT_S:
                raise self._connect_error(final)
            if self._errors.errors and waited_s > _SUSPICION_S and not asked:
                asked = True  # a wrong security.protocol never gets better, and librdkafka has no error for it
                if fault := self._tls_fault(""):
                    raise ConnectError(f"cannot connect to {self._brokers}: {fault}")
        try:
            return future.result()
        except KafkaException as error:
            raise self._explained(error.args[0], topic, action, suggest=suggest) from error

    def _connect_error(self, final: list[KafkaError]) -> ConnectError:
        named = final or [error for error in self._errors.errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
        reason = cause(named[-1]) if named else self._without_cause()
        if _CLIENT_CERTIFICATE_ALERT.search(reason):
            reason = f"{_CERTIFICATE_REQUIRED} ({reason})"
        elif named and named[-1].code() in (KafkaError._SSL, KafkaError._TRANSPORT):
            reason = self._tls_fault(reason) or reason
        return ConnectError(f"cannot connect to {self._brokers}: {reason}")

    def _without_cause(self) -> str:
        """What a connection of our own finds out where librdkafka only says that all brokers are down, or nothing."""
        silence = f"no answer within {CONNECT_TIMEOUT_S:g} s"
        closes = closes_at_a_question(self._properties, self._brokers.split(",")[0])
        if closes is None:
            return silence
        asks = closes and self._errors.errors and "sasl.mechanism" not in self._properties
        return self._tls_fault("") or (_CLOSED if asks else silence)

    def _tls_fault(self, reason: str) -> str | None:
        """What TLS has to do with it, asked of the broker that `reason` names, which may not be the first one."""
        address = re.match(r"(?:\w+://)?([^/\s]+)/", reason)
        return tls_fault(self._properties, address[1] if address else self._brokers.split(",")[0])

    def _explained(self, error: KafkaError, topic: str, action: str, *, suggest: bool = False) -> Exception:
        code = error.code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return _TopicExists(topic)
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            hint = f"; create it with: python PerfTopics.py create {topic}" if action == "describe" else ""
            nearest = self._nearest(topic) if suggest else ""
            return TopicMissingError(f"the topic {topic} does not exist{nearest}{hint}")
        if code in _NOT_AUTHORISED:
            return _NotAuthorised(_MISSING_RIGHT[action].format(topic))
        if code in _NOT_REACHED:
            return self._connect_error([])
        return TopicError(f"topic {topic}: {cause(error)}")

    def _nearest(self, topic: str) -> str:
        """A name that may be meant; "" where none is near, or the names cannot be asked for."""
        with contextlib.suppress(Fault):
            others = self.names().keys() - {topic}  # which may be just gone
            return "".join(f" (did you mean {one}?)" for one in get_close_matches(topic, others, 1, _NEAR))
        return ""


class TopicWatch:
    """Looks at a topic every few seconds while others work with it: clients do not notice that it was made anew.

    `on_fault` is called, from a thread, when it is gone or another one; `on_partitions` when there are more of them.
    """

    def __init__(
        self,
        admin: Admin,
        topic: TopicDescription,
        *,
        on_fault: Callable[[Fault], None],
        on_partitions: Callable[[Sequence[int]], None] = lambda _: None,
    ) -> None:
        self._admin, self._topic = admin, topic
        self._on_fault, self._on_partitions = on_fault, on_partitions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        missed = 0
        while not self._stopping.wait(_WATCH_EVERY_S):
            try:
                found = self._admin.describe(self._topic.name)
            except TopicMissingError:
                missed += 1
                if missed > 1:  # a broker that has just started may not know it yet
                    self._on_fault(TopicMissingError(f"the topic {self._topic.name} was deleted meanwhile"))
                    return
                continue
            except Fault:  # no connection: that is for the client to tell
                continue
            missed = 0
            if found.topic_id != self._topic.topic_id:
                self._on_fault(TopicError(f"the topic {self._topic.name} was deleted and made again meanwhile"))
                return
            added = sorted(set(found.partitions) - set(self._topic.partitions))
            if added:
                self._topic = found
                log.warning("the topic %s has got partitions: now %d", found.name, len(found.partitions))
                self._on_partitions(added)


def _is_final(error: KafkaError) -> bool:
    alert = _CLIENT_CERTIFICATE_ALERT.search(error.str())
    return error.code() in _FINAL_ERRORS or is_refusal(error) or alert is not None


class _TopicExists(TopicError):
    pass


class _NotAuthorised(TopicError):
    pass
