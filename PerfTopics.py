#!/usr/bin/env python3
"""Create topics that can be measured: message.timestamp.type=LogAppendTime unless told otherwise.

A topic that is there already, the same way, is left as it is and counts as success.
"""

from __future__ import annotations

from kafka.config import VARIABLES, client_config
from perf import process, settings

FIELDS = ("brokers", "config", "partitions", "replication_factor", "timestamp_type")
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./PerfTopics.py create input output
  ./PerfTopics.py create --brokers localhost:9092 --partitions 6 --replication-factor 3 input output
"""


def main() -> int:
    """The stages in order; returns the exit code."""
    parser = settings.parser(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    parser.add_argument("command", choices=["create"], help="what to do")
    parser.add_argument("names", nargs="+", metavar="NAME", help="topic names")
    arguments = parser.parse_args()
    options = settings.load(arguments, FIELDS)
    from kafka.topics import Admin

    names = [settings.checked("topic name", name, settings.topic_name) for name in arguments.names]
    admin = Admin(client_config(options.environment, brokers=options.brokers, overrides=options.config))
    for name in names:
        created = admin.create(
            name,
            partitions=options.partitions,
            replication_factor=options.replication_factor,
            timestamp_type=options.timestamp_type,
        )
        print(f"{'created' if created else 'there already'}: {name}", flush=True)
    return process.ExitCode.DONE


if __name__ == "__main__":
    process.run(main)
