"""Copies each message, with the message's Kafka timestamp as timestamp_start.

An error ends it; started again it goes on.
"""

import argparse
import json
import os
import signal
import sys

from confluent_kafka import Consumer, KafkaError, Message, Producer


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
    producer = Producer(connection | ({"transactional.id": name} if arguments.exactly_once else {"linger.ms": 0}))
    if arguments.exactly_once:
        producer.init_transactions()
    ready = f"operator ready: {arguments.input} -> {arguments.output}"
    consumer.subscribe([arguments.input], on_assign=lambda *_: print(ready, flush=True))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while True:
            copy(consumer, producer, arguments.output, exactly_once=arguments.exactly_once)
    finally:
        consumer.close()


def copy(consumer: Consumer, producer: Producer, output: str, *, exactly_once: bool) -> None:
    """Read what is there, write the results, and commit both together, or the results first."""
    first = consumer.poll(1.0)
    if first is None:
        return
    messages = [first, *consumer.consume(1000, 0)]
    if exactly_once:
        producer.begin_transaction()
    for message in messages:
        if message.error():
            sys.exit(f"error: {message.error()}")
        producer.produce(output, result(message), message.key(), headers=message.headers() or [], on_delivery=failed)
    if exactly_once:
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
        producer.commit_transaction()
    else:
        producer.flush()
        consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
