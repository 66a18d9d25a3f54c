#!/usr/bin/env python3
"""Measure the output topic of a streams operator: output message's Kafka timestamp − timestamp_start, in milliseconds.

Prints the averages over the last 100, 1K, 10K and 100K messages while it reads, and a summary when it stops: at
COUNT, DURATION or IDLE_TIMEOUT, or on Ctrl-C / SIGTERM.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from confluent_kafka import Message

    from kafka.consumer import Consumer
    from perf.payload import Reader, Rejection
    from perf.progress import Progress
    from perf.settings import Settings
    from perf.stats import Event, Statistics

FIELDS = (
    "brokers", "config", "topic", "start", "group", "timestamp_field",
    "count", "duration_s", "idle_timeout_s", "windows", "result",
)  # fmt: skip
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./PerfConsumer.py --topic results
  ./PerfConsumer.py --brokers localhost:9092 --topic results --count 100K --idle-timeout 30
  ./PerfConsumer.py --topic results --from latest --duration 10m --result consumer.json
"""
_BATCH = 2_000
_GC_THRESHOLD = 100_000  # a batch makes thousands of objects but no cycles: the default costs a tenth of the speed
_WAIT_S = 0.2
_PROGRESS_EVERY_S = 0.5
_SHOWN_OF_A_KIND = 3
_CREATE_TIME = 1  # Message.timestamp()'s type


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    from kafka.consumer import Consumer
    from kafka.errors import Fault
    from kafka.topics import Admin
    from perf.payload import Reader
    from perf.progress import Progress
    from perf.stats import Statistics

    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    partitions = Admin(config).describe(options.topic).partitions
    consumer = Consumer(config, options.topic, partitions=partitions, start=options.start, group=options.group)
    process.log.info("reading topic %s (partitions: %d) from %s", options.topic, len(partitions), options.start)
    meter = Meter(Reader(options.timestamp_field), Statistics(options.windows), options.topic)
    stop, progress, started_at = process.Stop().listen(), Progress(options.count), process.now()
    output, started_s, outcome = process.Output(stop, progress.write), time.monotonic(), 0
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    try:
        _measure_until_done(consumer, meter, options, stop, output, progress)
    except Fault as fault:
        outcome = fault.exit_code
        process.log.error("%s", fault)
    elapsed_s = time.monotonic() - started_s
    progress.close()
    outcome = outcome or _without_measurement(meter.statistics, consumer, options)
    code = process.report(
        f"Summary of the consumer, topic {options.topic}",
        meter.statistics.summary(elapsed_s=elapsed_s),
        options=options,
        config=config.redacted(),
        histograms=meter.statistics.histograms(),
        started_at=started_at,
        stop=stop,
        outcome=outcome,
        output=output,
    )
    consumer.close()
    return code


class Meter:
    """Messages → deltas → statistics; says the first few of each oddity, with partition and offset."""

    def __init__(self, reader: Reader, statistics: Statistics, topic: str) -> None:
        self._reader = reader
        self._topic = topic
        self._said: set[str] = set()
        self.statistics = statistics

    def measure(self, messages: Sequence[Message]) -> list[Event]:
        """Count every one of `messages` (at least one), and return the events that they complete."""
        from perf.payload import UnusualBatch

        types, stamps_ms = zip(*[message.timestamp() for message in messages], strict=True)
        self.statistics.records(stamps_ms, types, sum(map(len, messages)))
        if _CREATE_TIME in types:
            self._say_create_time()
        try:
            deltas_ms = self._reader.deltas([message.value() for message in messages], stamps_ms)
        except UnusualBatch:
            return self._measure_singly(messages)
        return self.statistics.add(deltas_ms)

    def _measure_singly(self, messages: Sequence[Message]) -> list[Event]:
        from perf.payload import Rejection

        events: list[Event] = []
        deltas_ms: list[int] = []
        for message in messages:
            delta_ms = self._reader.delta(message.value(), message.timestamp()[1])
            if isinstance(delta_ms, Rejection):
                # what came before it first, because [TOTAL] counts in the order read
                events += self.statistics.add(deltas_ms)
                deltas_ms = []
                self._reject(delta_ms, message)
            else:
                deltas_ms.append(delta_ms)
                if delta_ms < 0:
                    self._say_negative(delta_ms, message)
        return events + self.statistics.add(deltas_ms)

    def _reject(self, reason: Rejection, message: Message) -> None:
        count = self.statistics.reject(reason)
        if count <= _SHOWN_OF_A_KIND:
            last = " (further ones are only counted)" if count == _SHOWN_OF_A_KIND else ""
            hint = self._reader.hint(message.value(), message.timestamp()[1])
            process.log.warning("not measured: %s: %s%s%s", _place(message), reason.value, hint, last)

    def _say_negative(self, delta_ms: int, message: Message) -> None:
        if "negative" not in self._said:
            self._said.add("negative")
            process.log.warning(
                "%s has a negative delta, %d ms: the brokers' clocks differ, or timestamp_start is later than the "
                "result. Negative deltas are kept in all averages; the summary counts them",
                _place(message),
                delta_ms,
            )

    def _say_create_time(self) -> None:
        if "CreateTime" not in self._said:
            self._said.add("CreateTime")
            process.log.warning(
                "the topic %s has message.timestamp.type=CreateTime: its stamps come from the operator, not from the "
                "broker, and the deltas mean what that clock means. To measure, make it LogAppendTime, for example: "
                "kafka-configs.sh --alter --entity-type topics --entity-name %s "
                "--add-config message.timestamp.type=LogAppendTime",
                self._topic,
                self._topic,
            )


def _measure_until_done(  # noqa: PLR0917
    consumer: Consumer, meter: Meter, options: Settings, stop: process.Stop, output: process.Output, progress: Progress
) -> None:
    from perf.report.text import event_line

    statistics = meter.statistics
    start_s = last_message_s = next_progress_s = time.monotonic()
    while not stop() and statistics.read != options.count:
        most = _BATCH if options.count is None else min(_BATCH, options.count - statistics.read)
        messages = consumer.read(most, _WAIT_S)
        now_s = time.monotonic()
        if messages:
            last_message_s = now_s
            output.lines([event_line(event) for event in meter.measure(messages)])
        if progress.shown and now_s >= next_progress_s:
            next_progress_s = now_s + _PROGRESS_EVERY_S
            _show_progress(progress, statistics, consumer)
        if options.duration_s and now_s - start_s >= options.duration_s:
            return
        if options.idle_timeout_s and now_s - last_message_s >= options.idle_timeout_s:
            process.log.warning("no message for %g s: stopping", options.idle_timeout_s)
            return


def _show_progress(progress: Progress, statistics: Statistics, consumer: Consumer) -> None:
    average_ms, lag = statistics.current_average_ms, consumer.lag()
    average = "n/a" if average_ms is None else f"{average_ms:.1f} ms"
    progress.note(f"average {average}, lag {'n/a' if lag is None else lag}")
    progress.update(statistics.read)


def _without_measurement(statistics: Statistics, consumer: Consumer, options: Settings) -> int:
    """Exit code 5 and the reason where there is no sample, else 0."""
    from kafka.errors import Fault

    if statistics.measured:
        return process.ExitCode.DONE
    if statistics.read:
        process.log.error("none of the %d messages read could be measured: see the counters below", statistics.read)
        return process.ExitCode.NO_MEASUREMENT
    try:
        offsets = [f"partition {at.partition}: first {at.first}, end {at.end}" for at in consumer.offsets()]
    except Fault as fault:
        offsets = [str(fault)]
    process.log.error(
        "no message was read from topic %s. Its offsets: %s", options.topic, "; ".join(offsets) or "no partition held"
    )
    return process.ExitCode.NO_MEASUREMENT


def _place(message: Message) -> str:
    return f"partition {message.partition()}, offset {message.offset()}"


if __name__ == "__main__":
    process.run(main)
