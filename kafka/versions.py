"""Which Kafka client this is, for the result."""

from __future__ import annotations

from importlib.metadata import version

import confluent_kafka


def versions() -> dict[str, str]:
    """The versions of the client's two layers, by their names."""
    return {"confluent-kafka": version("confluent-kafka"), "librdkafka": confluent_kafka.libversion()[0]}
