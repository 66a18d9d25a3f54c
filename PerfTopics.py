#!/usr/bin/env python3
"""Create topics that can be measured: message.timestamp.type=LogAppendTime unless told otherwise.

A topic that is there already, the same way, is left as it is and counts as success.
"""

from __future__ import annotations

from kafka.config import VARIABLES, client_config
from perf import process, settings

FIELDS = ("brokers", "config", "partitions", "replication_factor", "timestamp_type")
CLOCK_TOPIC = settings.Settings.clock_topic
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./PerfTopics.py create input output
  ./PerfTopics.py create --brokers localhost:9092 --partitions 6 --replication-factor 3 input output
  ./PerfTopics.py clock --brokers localhost:9092
"""


def main() -> int:
    """The stages in order; returns the exit code."""
    parser = settings.parser(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    parser.add_argument(
        "command", choices=["create", "clock"], help="create topics; or one for probes of the brokers' clocks"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"topic names (clock: {CLOCK_TOPIC} unless given)")
    arguments = parser.parse_args()
    options = settings.load(arguments, FIELDS)
    from kafka.topics import Admin

    if not arguments.names and arguments.command == "create":
        parser.error("create needs at least one topic name")
    names = arguments.names or [CLOCK_TOPIC]
    allowed = settings.clock_name if arguments.command == "clock" else settings.topic_name
    names = [settings.checked("topic name", name, allowed) for name in names]
    admin = Admin(client_config(options.environment, brokers=options.brokers, overrides=options.config))
    output = process.Output(process.Stop())
    for name in names:
        if arguments.command == "clock":
            created = admin.create_for_clock(name)
        else:
            created = admin.create(
                name,
                partitions=options.partitions,
                replication_factor=options.replication_factor,
                timestamp_type=options.timestamp_type,
            )
        output.lines([f"{'created' if created else 'there already'}: {name}"])
    return process.exit_code(process.Stop(), process.ExitCode.DONE, written=not output.lost)


if __name__ == "__main__":
    process.run(main)
