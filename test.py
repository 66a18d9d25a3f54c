#!/usr/bin/env python3
"""Look at single messages by eye: both timestamps and their difference. Not a test suite: that is `make test`.

For the person who checks that a streams operator copies the input message's Kafka timestamp into timestamp_start.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from confluent_kafka import Message

    from perf.payload import Reader

FIELDS = (
    "brokers",
    "config",
    "topic",
    "start",
    "timestamp_field",
    "timestamp_header",
    "timestamp_unit",
    "count",
    "idle_timeout_s",
    "log_format",
)
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./test.py --topic results --count 5
  ./test.py --brokers localhost:9092 --topic results --from latest
"""
_WAIT_S = 0.2
_MS_PER_MINUTE = 60_000
_SHOWN_CHARACTERS = 300
_TIMESTAMP_TYPES = {1: "CreateTime", 2: "LogAppendTime"}


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    from kafka.consumer import Consumer
    from kafka.topics import Admin
    from perf.payload import reader_for

    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    partitions = Admin(config).describe(options.topic, suggest=True).partitions
    consumer = Consumer(config, options.topic, partitions=partitions, start=options.start)
    process.log.info("reading topic %s from %s; Ctrl-C ends it", options.topic, options.start)
    reader, stop = reader_for(options), process.Stop().listen()
    output, shown, last_message_s = process.Output(stop), 0, time.monotonic()
    while not stop() and shown != options.count:
        for message in consumer.read(1, _WAIT_S):
            output.lines(_lines(message, reader))
            shown, last_message_s = shown + 1, time.monotonic()
        if options.idle_timeout_s and time.monotonic() - last_message_s >= options.idle_timeout_s:
            process.log.warning("no message for %g s: stopping", options.idle_timeout_s)
            break
    consumer.close()
    return process.exit_code(
        stop, process.ExitCode.DONE if shown else process.ExitCode.NO_MEASUREMENT, written=not output.lost
    )


def _lines(message: Message, reader: Reader) -> list[str]:
    """A message for a person: where it is, what it holds, both stamps and their difference."""
    kind, stamp_ms = message.timestamp()
    stamp_ms = stamp_ms if kind in _TIMESTAMP_TYPES else -1
    value = message.value()
    start_ms = reader.start_ms(getattr(message, reader.source)())
    shown = (value or b"").decode("utf-8", "backslashreplace")
    if len(shown) > _SHOWN_CHARACTERS:  # operators mostly add timestamp_start at the end
        shown = f"{shown[: _SHOWN_CHARACTERS // 2]} … {shown[-_SHOWN_CHARACTERS // 2 :]}"
    return [
        f"partition {message.partition()}, offset {message.offset()}: {shown}",
        f"  Kafka timestamp  {f'{_stamp(stamp_ms)} {_TIMESTAMP_TYPES[kind]}' if stamp_ms >= 0 else 'not available'}",
        f"  timestamp_start  {_stamp(start_ms) if isinstance(start_ms, int) else start_ms.value}",
        f"  difference       {_difference(start_ms, stamp_ms) if isinstance(start_ms, int) else 'n/a'}",
        "",
    ]


def _stamp(stamp_ms: int) -> str:
    from perf.report.text import utc

    return f"{stamp_ms} = {utc(stamp_ms)}"


def _difference(start_ms: int, stamp_ms: int) -> str:
    from perf.payload import is_plausible

    if stamp_ms < 0:
        return "n/a: the message has no Kafka timestamp"
    if not is_plausible(start_ms, stamp_ms):
        return "n/a: timestamp_start is no plausible time"
    return f"{stamp_ms - start_ms} ms = {(stamp_ms - start_ms) / _MS_PER_MINUTE:.4f} minutes"


if __name__ == "__main__":
    process.run(main)
