"""Copies each message, with the message's Kafka timestamp as timestamp_start."""

import argparse
import os
from typing import Any

from quixstreams import Application


def with_timestamp_start(value: dict[str, Any], _key: Any, timestamp_ms: int, _headers: Any) -> dict[str, Any]:
    """The result of a message; your own work would be done here too."""
    return value | {"timestamp_start": timestamp_ms}


def main() -> None:
    """Run until stopped: --input TOPIC --output TOPIC [--exactly-once], with KAFKA_BROKERS in the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--exactly-once", action="store_true")
    arguments = parser.parse_args()
    application = Application(
        broker_address=os.environ["KAFKA_BROKERS"],
        consumer_group=f"{arguments.output}-quix-streams",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        processing_guarantee="exactly-once" if arguments.exactly_once else "at-least-once",
    )
    input_topic = application.topic(arguments.input, key_deserializer="bytes", value_deserializer="json")
    output_topic = application.topic(arguments.output, key_serializer="bytes", value_serializer="json")
    messages = application.dataframe(input_topic)
    messages.apply(with_timestamp_start, metadata=True).to_topic(output_topic)
    application.run()


if __name__ == "__main__":
    main()
