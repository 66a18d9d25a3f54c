"""A consumer of one topic: all partitions assigned by hand, or shared with others in a group."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple, Protocol

import confluent_kafka
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from .config import ClientConfig
from .errors import ErrorLog, FatalClientError, Fault, TopicError, cause, new_client

log = logging.getLogger("kafka")

_REQUEST_TIMEOUT_S = 10.0
_COMMIT_TIMEOUT_S, _COMMIT_POLL_S = 5.0, 0.05
_CLOSE_TIMEOUT_S = 5.0
_RETRY_S = 0.2
_UNUSED_GROUP = "perf-consumer-without-group"  # librdkafka wants a name even where no group is joined

_PROPERTIES = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # a position that retention has passed must be said, not skipped
    "auto.offset.reset": "error",
    # librdkafka's default of one second stalls a fast reader for a second at a time
    "fetch.queue.backoff.ms": "2",
    # other requests wait behind a fetch that waits for messages
    "fetch.wait.max.ms": "100",
    "queued.max.messages.kbytes": "32768",
}

_LOGICAL_OFFSETS = {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}
_TOPIC_ERRORS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)


#: Of a topic or broker that has just come: leaders are still being told.
_PASSING_ERRORS = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)


class PartitionOffsets(NamedTuple):
    """The first offset of a partition, and the one after its last message."""

    partition: int
    first: int
    end: int


class Owner(Protocol):
    """Who keeps the state of a group member's partitions, and so knows better than the group where to go on."""

    def take(self, starts: Mapping[int, int]) -> Mapping[int, int]:
        """These are this consumer's from now on; partition → where a first owner begins. Returns where to begin."""

    def give_up(self, partitions: Sequence[int], *, lost: bool) -> None:
        """They are not any more. `lost`: somebody else may have them already."""


def _numbers(partitions: Sequence[TopicPartition]) -> list[int]:
    return [entry.partition for entry in partitions]


class Consumer:
    """Reads `topic` from `start`: "earliest", "latest", or milliseconds since the epoch.

    Without `group` all `partitions` are assigned by hand at once: no group rights, no rebalance. With it, the
    group's members share the partitions, and offsets are committed for what `read` returned before; where there is an
    `owner` it is told of each change, and its offsets count.
    """

    def __init__(
        self,
        config: ClientConfig,
        topic: str,
        *,
        partitions: Sequence[int],
        start: str | int,
        group: str | None = None,
        isolation: str = "read_committed",
        owner: Owner | None = None,
    ) -> None:
        self._topic = topic
        self._start = _LOGICAL_OFFSETS[start] if isinstance(start, str) else start
        self._grouped = group is not None
        self._owner = owner
        self.joined = False  # the group has told what is to be read, and be it nothing
        self._errors = ErrorLog()
        self._pending: Fault | None = None
        self._closing = self._committed = False
        self._added: list[int] = []
        self._held: set[int] = set()
        self._at_end: set[int] = set()  # partitions whose end was reached since they were assigned
        self._next_offsets: dict[int, int] = {}  # of partitions that were given up: where this consumer had got to
        self._client = new_client(
            confluent_kafka.Consumer,
            {
                **_PROPERTIES,
                **config.properties,
                "group.id": group or _UNUSED_GROUP,
                "isolation.level": isolation,
                "error_cb": self._errors,
                "on_commit": self._on_commit,
            },
        )
        #: Resolved now, also for a group, whose partitions come later: nothing that follows may be left out.
        self._starts = self._offsets_at(self._start, [TopicPartition(topic, number) for number in partitions])
        if self._grouped:
            self._client.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        else:
            self._client.assign(self._starts)
            self._held = set(partitions)

    def read(self, most: int, timeout_s: float) -> list[Message]:
        """Up to `most` messages: all that are there, else the first that comes within `timeout_s` (0 to about 0.5).

        Raises TopicError or FatalClientError, after all messages that came before it were returned.
        """
        if self._pending:
            raise self._pending
        if self._added:
            added, self._added = self._added, []
            self._client.incremental_assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in added])
            self._held |= set(added)
        # consume(n, timeout) would wait the whole timeout unless n messages come
        batch = self._client.consume(most, 0) or self._client.consume(1, timeout_s)
        if any([message.error() for message in batch]):  # noqa: C419 (a list is faster here)
            batch = [message for message in batch if not self._is_error(message)]
        self._pending = self._pending or self._errors.fault("consumer")
        return batch

    @property
    def at_end(self) -> Set[int]:
        """The partitions held whose end was reached: what is appended later is read as it comes."""
        return self._at_end

    @property
    def caught_up(self) -> bool:
        """Whether that is so of every partition held."""
        return bool(self._held) and self._held <= self._at_end

    def fail(self, fault: Fault) -> None:
        """`read` raises it next; from any thread."""
        self._pending = self._pending or fault

    def add(self, partitions: Sequence[int]) -> None:
        """Read these, too, from their first message; from any thread. In a group the group sees to it."""
        if not self._grouped:
            self._added += partitions

    def lag(self) -> int | None:
        """Messages between this consumer and the end of its partitions, from what librdkafka knows already.

        None while it is unknown. Gaps in the offsets (transactions, compaction) count as messages.
        """
        lag = 0
        for position in self._client.position(self._client.assignment()):
            _, end = self._client.get_watermark_offsets(position, cached=True)
            if end < 0:
                return None
            lag += max(0, end - position.offset) if position.offset >= 0 else 0
        return lag

    def offsets(self) -> list[PartitionOffsets]:
        """First and end offset of each partition held, asked of the brokers. Raises TopicError."""
        held = self._client.assignment()
        pairs = zip(self._resolve(held, OFFSET_BEGINNING), self._resolve(held, OFFSET_END), strict=True)
        return [PartitionOffsets(first.partition, first.offset, end.offset) for first, end in pairs]

    def older_than(self, moment_ms: float) -> int:
        """How many of the messages to be read were there at that time, without a group. Gaps count as messages.

        Raises TopicError.
        """
        starts = {entry.partition: entry.offset for entry in self._starts}
        now = self._offsets_at(int(moment_ms), self._starts)
        return sum(max(0, entry.offset - starts[entry.partition]) for entry in now)

    def close(self) -> None:
        """Leave: with a group, commit what was read and hand the partitions over. Takes seconds at most."""
        if self._grouped and not self._closing:
            self._commit_within(_COMMIT_TIMEOUT_S)
        self._closing = True
        # without brokers librdkafka would wait for a minute; the process ends, and with it a thread that still waits
        closing = threading.Thread(target=self._client.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT_S)

    def _commit_within(self, timeout_s: float) -> None:
        """Commit without the wait of a minute that a synchronous commit takes where the brokers are gone."""
        read = [entry for entry in self._client.position(self._client.assignment()) if entry.offset >= 0]
        self._committed = not read
        if read:
            self._client.commit(offsets=read, asynchronous=True)
        deadline_s = time.monotonic() + timeout_s
        while not self._committed and time.monotonic() < deadline_s:
            self._client.poll(_COMMIT_POLL_S)  # serves _on_commit; a message that it returns was not committed
        if not self._committed:
            log.warning("offsets were not committed within %g s: messages may be read twice", timeout_s)

    def _on_commit(self, error: KafkaError | None, _partitions: list[TopicPartition]) -> None:
        self._committed = True
        if error is not None:
            log.warning("offsets were not committed, so messages may be read twice: %s", cause(error))

    def _offsets_at(self, moment: int, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where what is there from `moment` on begins, resolved now: what comes later is read, also with `latest`.

        A logical offset in an assignment would be resolved some time later, and cost half a second.
        """
        found = self._resolve(partitions, moment)
        after_all = [entry for entry in found if entry.offset < 0]  # no message at or after that time yet
        return [entry for entry in found if entry.offset >= 0] + self._resolve(after_all, OFFSET_END)

    def _resolve(self, partitions: list[TopicPartition], moment: int) -> list[TopicPartition]:
        """Offsets of the first messages at or after `moment`: a time in ms, OFFSET_BEGINNING or OFFSET_END."""
        if not partitions:
            return []
        asked = [TopicPartition(entry.topic, entry.partition, moment) for entry in partitions]
        deadline_s = time.monotonic() + _REQUEST_TIMEOUT_S
        while True:
            try:
                found = self._client.offsets_for_times(asked, timeout=_REQUEST_TIMEOUT_S)
                errors = [entry.error for entry in found if entry.error is not None]
            except KafkaException as error:
                errors = [error.args[0]]
            if not errors:
                return found
            if errors[0].code() not in _PASSING_ERRORS or time.monotonic() > deadline_s:
                raise TopicError(f"cannot read the offsets of topic {self._topic}: {cause(errors[0])}")
            time.sleep(_RETRY_S)

    def _on_assign(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        try:
            committed = client.committed(partitions, timeout=_REQUEST_TIMEOUT_S)
            errors = [entry.error for entry in committed if entry.error is not None]
            if errors:  # its offset is unknown, which is not the same as none
                raise KafkaException(errors[0])
            known = {entry.partition: entry for entry in self._starts}
            if self._owner is not None:
                begins = {number: known[number].offset if number in known else 0 for number in _numbers(partitions)}
                owned = self._owner.take(begins)
                for entry in committed:
                    entry.offset = owned[entry.partition]
            else:
                for entry in committed:  # what was returned is not returned again
                    entry.offset = max(entry.offset, self._next_offsets.get(entry.partition, entry.offset))
            fresh = [
                known.get(entry.partition) or TopicPartition(entry.topic, entry.partition, OFFSET_BEGINNING)
                for entry in committed
                if entry.offset < 0
            ]
            client.assign([entry for entry in committed if entry.offset >= 0] + fresh)
            if fresh:  # so that whoever takes over begins there, too
                client.commit(offsets=[entry for entry in fresh if entry.offset >= 0], asynchronous=False)
        except (KafkaException, Fault) as error:  # one that left a callback would end everything, without a report
            reason = cause(error.args[0]) if isinstance(error, KafkaException) else error
            self._pending = TopicError(f"cannot take partitions of {self._topic}: {reason}")
            return
        self.joined = True
        self._held |= {entry.partition for entry in partitions}
        log.info("holding partitions %s of %s", sorted(entry.partition for entry in partitions), self._topic)

    def _on_revoke(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """Commit what `read` has returned, which the caller has used by now, so that the next owner goes on there."""
        read = self._give_up(client, partitions, lost=False)
        if read and not self._closing:
            try:
                client.commit(offsets=read, asynchronous=False)
            except KafkaException as error:
                log.warning("offsets were not committed, so messages may be read twice: %s", cause(error.args[0]))

    def _give_up(
        self, client: confluent_kafka.Consumer, partitions: list[TopicPartition], *, lost: bool
    ) -> list[TopicPartition]:
        """Note that these are not held any more; returns where this consumer had got to."""
        numbers = {entry.partition for entry in partitions}
        if self._owner and not self._closing:
            try:
                self._owner.give_up(sorted(numbers), lost=lost)
            except Fault as fault:
                self._pending = fault
        self._held -= numbers
        self._at_end -= numbers
        read = [entry for entry in client.position(partitions) if entry.offset >= 0]
        self._next_offsets.update({entry.partition: entry.offset for entry in read})
        return read

    def _on_lost(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """The group went on without this consumer, so nothing can be committed any more."""
        self._give_up(client, partitions, lost=True)
        log.warning(
            "lost partitions %s of %s: what was read of them since the last commit is read again by their next owner",
            sorted(entry.partition for entry in partitions),
            self._topic,
        )

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.code() == KafkaError._PARTITION_EOF:
            self._at_end.add(message.partition() or 0)
            return True
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED and not self._grouped:
            return True  # librdkafka looks the coordinator up although no group is joined
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._pending = FatalClientError(f"the consumer cannot go on: {cause(error)}")
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._pending = TopicError(
                f"topic {self._topic}: the messages that were to be read next are gone: retention deleted them, or the "
                f"topic was deleted and made again ({cause(error)})"
            )
        elif error.code() in _TOPIC_ERRORS:
            self._pending = TopicError(f"topic {self._topic}: {cause(error)}")
        else:
            self._errors(error)
        return True
