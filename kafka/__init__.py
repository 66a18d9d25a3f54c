"""Kafka clients of this tool; the only package that imports confluent_kafka. Import the submodules: they load late."""
