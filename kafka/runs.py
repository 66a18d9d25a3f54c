"""The two topics of a run of many processes: announcements, and checkpoints and results by key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from .config import ClientConfig
from .errors import ErrorLog, TopicError, TopicMissingError, cause, new_client
from .topics import Admin

_TIMEOUT_S = 15.0
_WRITE_TIMEOUT_S = 60.0  # longer than a broker's restart, shorter than a group's patience
_STOPPED_TIMEOUT_S = 5.0  # after a signal: Kubernetes kills soon
_WAIT_S = 0.2
_MOST = 10_000
_CONSUMER_PROPERTIES = {
    "group.id": "performance-test-runs-without-group",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "isolation.level": "read_uncommitted",
    "fetch.wait.max.ms": "100",
    "auto.offset.reset": "earliest",
}


class RunTopics:
    """Reads and writes both topics. Raises TopicError, also where one does not exist or stays silent."""

    def __init__(
        self, config: ClientConfig, stopped: Callable[[], bool] = lambda: False, *, announcements: str, results: str
    ) -> None:
        self._config, self._announcements, self._results = config, announcements, results
        self._stopped = stopped
        admin = Admin(config)
        try:
            admin.describe(announcements)
            self._shards = len(admin.describe(results).partitions)
        except TopicMissingError as error:
            raise TopicMissingError(
                f"a run of many processes needs its topics: PerfTopics.py runs ({error})"
            ) from error
        settings = {"linger.ms": "5", "acks": "all", "enable.idempotence": "true"}
        self._producer = new_client(confluent_kafka.Producer, {**config.properties, **settings, "error_cb": ErrorLog()})
        self._follower = self._reader(TopicPartition(announcements, 0, OFFSET_BEGINNING))
        self._read_all = False

    def announce(self, value: bytes, *, wait: bool) -> None:
        """Append an announcement. With `wait` it returns when Kafka has it; without, at once, and may fail silently."""
        self._write(self._announcements, [(None, value)], 0, wait=wait)

    def announcements(self) -> list[bytes]:
        """Announcements since the last call; the first call gives all that there are."""
        if not self._read_all:
            self._read_all = True
            return [message.value() or b"" for message in self._to_the_end(self._follower)]
        self._producer.poll(0)  # tells what was saved
        return [message.value() or b"" for message in self._follower.consume(_MOST, 0) if message.error() is None]

    def save(
        self, shard: int, records: Mapping[str, bytes], *, wait: bool, saved: Callable[[], None] = lambda: None
    ) -> None:
        """Write records, each under its key; `wait` as above. `saved` is called once Kafka has them all."""
        pairs = [(key.encode(), value) for key, value in records.items()]
        self._write(self._results, pairs, shard % self._shards, wait=wait, written=saved)

    def saved(self, prefix: str | tuple[str, ...], shards: Iterable[int] | None = None) -> dict[str, bytes]:
        """The latest record of each key that begins so, or so, as of now: in these shards, else in all."""
        found: dict[str, bytes | None] = {}
        for partition in {shard % self._shards for shard in (range(self._shards) if shards is None else shards)}:
            reader = self._reader(TopicPartition(self._results, partition, OFFSET_BEGINNING))
            try:
                found.update({(message.key() or b"").decode(): message.value() for message in self._to_the_end(reader)})
            finally:
                reader.close()
        return {key: value for key, value in found.items() if key.startswith(prefix) and value is not None}

    def _reader(self, at: TopicPartition) -> confluent_kafka.Consumer:
        settings = {**self._config.properties, **_CONSUMER_PROPERTIES, "error_cb": ErrorLog()}
        reader = new_client(confluent_kafka.Consumer, settings)
        reader.assign([at])
        return reader

    def _to_the_end(self, reader: confluent_kafka.Consumer) -> list[Message]:
        found: list[Message] = []
        deadline_s = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline_s:
            for message in reader.consume(_MOST, _WAIT_S if not found else 0) or reader.consume(1, _WAIT_S):
                error = message.error()
                if error is None:
                    found.append(message)
                    deadline_s = time.monotonic() + _TIMEOUT_S
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
                elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise TopicError(f"topic of the run: {cause(error)}")
        raise TopicError(f"the topics of the run gave no answer within {_TIMEOUT_S:g} s")

    def _flush(self) -> None:
        """Wait until all is written, or for `_WRITE_TIMEOUT_S`, or from `stopped` on for `_STOPPED_TIMEOUT_S`."""
        start_s, stopped_s = time.monotonic(), None
        while self._producer.flush(_WAIT_S):
            now_s = time.monotonic()
            if stopped_s is None and self._stopped():
                stopped_s = now_s
            if now_s - start_s > _WRITE_TIMEOUT_S or (stopped_s and now_s - stopped_s > _STOPPED_TIMEOUT_S):
                return

    def _write(
        self,
        topic: str,
        records: Sequence[tuple[bytes | None, bytes]],
        partition: int,
        *,
        wait: bool,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        failed: list[KafkaError] = []
        left = len(records)

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                failed.append(error)
            elif not left and not failed:
                written()

        try:
            for key, value in records:
                self._producer.produce(topic, value, key, partition, on_delivery=on_delivery)
            self._producer.poll(0)
            if wait:
                self._flush()
        except (KafkaException, BufferError) as error:
            if wait:
                raise TopicError(f"topic {topic}: {error}") from error
            return  # the next one is due in seconds
        if wait and (failed or left):
            reason = cause(failed[0]) if failed else "no answer in time"
            raise TopicError(f"nothing can be written to the topic {topic}: {reason}")
