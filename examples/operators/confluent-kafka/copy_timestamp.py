"""Copies each message, with the message's Kafka timestamp as timestamp_start.

An error ends it; started again it goes on.
"""

import argparse
import json
import os
import signal
import sys
import threading

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition


def result(message: Message) -> bytes:
    """The result of a message; your own work would be done here too."""
    _kind, timestamp_ms = message.timestamp()
    return json.dumps(json.loads(message.value()) | {"timestamp_start": timestamp_ms}).encode()


def failed(error: KafkaError | None, _message: Message) -> None:
    """End the program when a result could not be written."""
    if error is not None:
        sys.exit(f"error: {error}")


def main() -> None:
    """Run until stopped: --input TOPIC --output TOPIC [--exactly-once], with KAFKA_BROKERS in the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--exactly-once", action="store_true")
    arguments = parser.parse_args()
    connection = {"bootstrap.servers": os.environ["KAFKA_BROKERS"]}
    name = f"{arguments.output}-confluent-kafka"
    consumer = Consumer(connection | {"group.id": name, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    producer = Producer(connection | ({"transactional.id": name} if arguments.exactly_once else {}))
    if arguments.exactly_once:
        producer.init_transactions()
    ready = f"operator ready: {arguments.input} -> {arguments.output}"
    revoked: set[tuple[str, int]] = set()
    consumer.subscribe(
        [arguments.input],
        on_assign=lambda *_: print(ready, flush=True),
        on_revoke=lambda _, partitions: revoked.update((one.topic, one.partition) for one in partitions),
    )
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        while not stopped.is_set():
            if messages := read(consumer, revoked):
                write(messages, consumer, producer, arguments.output, exactly_once=arguments.exactly_once)
    finally:
        consumer.close()


def read(consumer: Consumer, revoked: set[tuple[str, int]]) -> list[Message]:
    """What is there; waits up to a second for the first message."""
    first = consumer.poll(1.0)
    if first is None:
        return []
    revoked.clear()
    messages = consumer.consume(1000, 0)
    # A partition that is revoked within consume() has none of its messages there, and whoever gets it reads them again:
    # the first one too.
    return messages if (first.topic(), first.partition()) in revoked else [first, *messages]


def write(messages: list[Message], consumer: Consumer, producer: Producer, output: str, *, exactly_once: bool) -> None:
    """Write the results, and commit them together with their inputs' offsets, or before these."""
    if exactly_once:
        producer.begin_transaction()
    for message in messages:
        if message.error():
            sys.exit(f"error: {message.error()}")
        producer.produce(output, result(message), message.key(), headers=message.headers() or [], on_delivery=failed)
    following = {(one.topic(), one.partition()): one.offset() + 1 for one in messages}  # of each partition its last
    offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in following.items()]
    if exactly_once:
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
    else:
        producer.flush()
        consumer.commit(offsets=offsets, asynchronous=False)


if __name__ == "__main__":
    main()
