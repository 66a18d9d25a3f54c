"""Probes of the brokers' clocks: tiny messages to a topic of their own, never to the user's topics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import confluent_kafka
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message

from .config import ClientConfig
from .errors import ErrorLog, TopicError, cause, new_client

log = logging.getLogger("kafka")

_PROBES = 15
_TIMEOUT_S = 5.0
_POLL_S = 0.01

#: Sent, acknowledged (our clock) and stamped (the broker's), in ms since the epoch.
ProbeTimes = tuple[float, float, int]


def probe(
    config: ClientConfig, topic: str, leaders: Mapping[int, int], now_ms: Callable[[], float]
) -> dict[int, list[ProbeTimes]]:
    """Probes by broker id, of every broker that leads a partition of `topic`: `leaders` is partition → broker id.

    A broker that does not answer is named in a warning and left out. Raises ConfigError.
    """
    settings = {**config.properties, "linger.ms": "0", "acks": "all", "error_cb": ErrorLog()}
    client = new_client(confluent_kafka.Producer, settings)
    by_broker = {broker: partition for partition, broker in leaders.items() if broker >= 0}
    found: dict[int, list[ProbeTimes]] = {}
    for broker, partition in by_broker.items():
        try:
            found[broker] = [_probe_once(client, topic, partition, now_ms) for _ in range(_PROBES)]
        except TopicError as error:
            log.warning("the clock offset of broker %d is n/a: %s", broker, error)
    return found


def _probe_once(
    client: confluent_kafka.Producer, topic: str, partition: int, now_ms: Callable[[], float]
) -> ProbeTimes:
    answers: list[ProbeTimes] = []
    sent_ms = now_ms()

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        acknowledged_ms = now_ms()
        if error is not None:
            raise TopicError(f"clock topic {topic}: {cause(error)}")
        kind, stamp_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise TopicError(f"the clock topic {topic} is not LogAppendTime, so its stamps are not the broker's")
        answers.append((sent_ms, acknowledged_ms, stamp_ms))

    try:
        client.produce(topic, b"clock", partition=partition, on_delivery=on_delivery)
    except (KafkaException, BufferError) as error:
        raise TopicError(f"clock topic {topic}: {error}") from error
    deadline_s = time.monotonic() + _TIMEOUT_S
    while not answers:
        client.poll(_POLL_S)
        if time.monotonic() > deadline_s:
            raise TopicError(f"clock topic {topic}: partition {partition} gave no answer within {_TIMEOUT_S:g} s")
    return answers[0]
