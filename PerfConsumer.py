#!/usr/bin/env python3
"""Measure the output topic of a streams operator: output message's Kafka timestamp − timestamp_start, in milliseconds.

Prints the averages over the last 100, 1K, 10K and 100K messages while it reads, and a summary when it stops: at
COUNT, DURATION or IDLE_TIMEOUT, or on Ctrl-C / SIGTERM.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from confluent_kafka import Message

    from kafka.config import ClientConfig
    from kafka.consumer import Consumer
    from kafka.topics import Admin
    from perf.clock import ClockOffset
    from perf.payload import Reader, Rejection
    from perf.progress import Progress
    from perf.settings import Settings
    from perf.stats import Event, Statistics
    from perf.trace import Mark

FIELDS = (
    "brokers", "config", "topic", "start", "group", "isolation", "timestamp_field", "timestamp_header",
    "timestamp_unit", "latency", "clock_topic", "warmup", "trace", "count", "duration_s", "idle_timeout_s",
    "windows", "fail_if", "result", "termination_message",
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
_NO_TIMESTAMP = 0  # Message.timestamp()'s type


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    from kafka.consumer import Consumer
    from kafka.topics import Admin
    from perf.payload import reader_for
    from perf.progress import Progress
    from perf.stats import Statistics

    _check_combinations(options)
    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    admin = Admin(config)
    partitions = admin.describe(options.topic).partitions
    clock = _clock_offsets(admin, config, options.clock_topic, WallClock())  # before reading: it takes its time
    consumer = Consumer(
        config,
        options.topic,
        partitions=partitions,
        start=options.start,
        group=options.group,
        isolation=options.isolation,
    )
    meter = Meter(reader_for(options), Statistics(options.windows, latency=options.latency), options)
    meter.statistics.clock = clock
    process.log.info("reading topic %s (partitions: %d) from %s", options.topic, len(partitions), options.start)
    stop, progress, started_at = process.Stop().listen(), Progress(options.count), process.now()
    output, started_s, outcome = process.Output(stop, progress.write), time.monotonic(), 0
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    try:
        _measure_until_done(consumer, meter, options, stop, output, progress)
    except Exception as error:  # whatever it is, what was measured is reported
        progress.close()
        outcome = process.failure(error)
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
        details=meter.statistics.details(),
    )
    consumer.close()
    return code


class Meter:
    """Messages → deltas → statistics; says the first few of each oddity, with partition and offset."""

    def __init__(self, reader: Reader, statistics: Statistics, options: Settings) -> None:
        self._reader = reader
        self._sources = _values if reader.source == "value" else _headers
        self._options = options
        self._receiving = options.latency == "receive"
        self._said: set[str] = set()
        self.clock = WallClock()
        self._ready_ms = int(self.clock.now_ms())
        self._marks = _mark_source(options.trace)
        self._warm_from_ms: float | None = None if options.warmup.seconds else 0.0
        self.statistics = statistics

    def measure(self, messages: Sequence[Message]) -> list[Event]:
        """Count every one of `messages` (at least one), received just now; returns the events that they complete."""
        received_ms = int(self.clock.now_ms())
        if self._marks is not None:
            self._trace(messages)
        if self.statistics.read >= self._options.warmup.messages and not self._options.warmup.seconds:
            return self._measure(messages, received_ms)
        from perf.payload import Rejection

        events: list[Event] = []
        for in_warmup, group in groupby(zip(messages, self._warmup(messages), strict=True), itemgetter(1)):
            part = [message for message, _ in group]
            if in_warmup:
                self.statistics.reject(Rejection.WARMUP, len(part))
            else:
                events += self._measure(part, received_ms)
        return events

    def _measure(self, messages: Sequence[Message], received_ms: int) -> list[Event]:
        from perf.payload import UnusualBatch

        types, stamps_ms = zip(*[message.timestamp() for message in messages], strict=True)
        if _NO_TIMESTAMP in types:
            stamps_ms = tuple(map(_stamp_ms, messages))
        self.statistics.records(stamps_ms, types, sum(map(len, messages)))
        if self.statistics.has_create_time:
            self._say_create_time()
        partitions: list[int] = [message.partition() for message in messages]  # type: ignore[misc]  # never None
        ends_ms = [self._end_ms(stamp_ms, received_ms) for stamp_ms in stamps_ms] if self._receiving else stamps_ms
        try:
            deltas_ms = self._reader.deltas(self._sources(messages), ends_ms)
        except UnusualBatch:
            return self._measure_singly(messages, received_ms)
        return self._add(deltas_ms, stamps_ms, partitions, received_ms)

    def _measure_singly(self, messages: Sequence[Message], received_ms: int) -> list[Event]:
        from perf.payload import Rejection

        events: list[Event] = []
        found: list[tuple[int, int, int]] = []  # delta, stamp, partition of the messages since the last rejection
        for message in messages:
            stamp_ms = _stamp_ms(message)
            delta_ms = self._reader.delta(self._sources([message])[0], self._end_ms(stamp_ms, received_ms))
            if isinstance(delta_ms, Rejection):
                # what came before it first, because [TOTAL] counts in the order read
                events += self._add(*_columns(found), received_ms) if found else []
                found = []
                self._reject(delta_ms, message)
            else:
                found.append((delta_ms, stamp_ms, message.partition() or 0))
                if delta_ms < 0:
                    self._say_negative(delta_ms, message)
        return events + (self._add(*_columns(found), received_ms) if found else [])

    def _add(
        self, deltas_ms: Sequence[int], stamps_ms: Sequence[int], partitions: Sequence[int], received_ms: int
    ) -> list[Event]:
        if max(stamps_ms) >= self._ready_ms:  # what was there before waited for this consumer, not for the pipeline
            self._add_visible(deltas_ms, stamps_ms, received_ms)
        return self.statistics.add(deltas_ms, stamps_ms, partitions)

    def _add_visible(self, deltas_ms: Sequence[int], stamps_ms: Sequence[int], received_ms: int) -> None:
        if self._receiving:
            return  # the delta is it
        pairs = [pair for pair in zip(deltas_ms, stamps_ms, strict=True) if pair[1] >= self._ready_ms]
        self.statistics.add_visible([delta for delta, _ in pairs], [stamp for _, stamp in pairs], received_ms)

    def _trace(self, messages: Sequence[Message]) -> None:
        from perf.trace import Ledger

        if self.statistics.ledger is None:
            self.statistics.ledger = Ledger()
        assert self._marks is not None
        places = [(message.partition() or 0, message.offset() or 0) for message in messages]
        self.statistics.ledger.record_all(self._marks(messages), *zip(*places, strict=True))

    def _end_ms(self, stamp_ms: int, received_ms: int) -> int:
        """What the delta is measured to; negative without a Kafka timestamp, which rejects the message."""
        return received_ms if self._receiving and stamp_ms >= 0 else stamp_ms

    def _warmup(self, messages: Sequence[Message]) -> list[bool]:
        """Whether each message belongs to the warm-up: by its place in the order read, or by its Kafka timestamp.

        Partitions come one after the other, so that an early message may still follow late ones.
        """
        warmup, read = self._options.warmup, self.statistics.read
        stamps_ms = list(map(_stamp_ms, messages))
        if self._warm_from_ms is None and max(stamps_ms) >= 0:
            self._warm_from_ms = next(stamp for stamp in stamps_ms if stamp >= 0) + warmup.seconds * 1000
        warm_from_ms = self._warm_from_ms or 0
        return [
            number < warmup.messages or 0 <= stamp < warm_from_ms for number, stamp in enumerate(stamps_ms, start=read)
        ]

    def _reject(self, reason: Rejection, message: Message) -> None:
        count = self.statistics.reject(reason)
        if count <= _SHOWN_OF_A_KIND:
            last = " (further ones are only counted)" if count == _SHOWN_OF_A_KIND else ""
            hint = self._reader.hint(self._sources([message])[0], _stamp_ms(message))
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
                "kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s "
                "--add-config message.timestamp.type=LogAppendTime",
                self._options.topic,
                self._options.brokers,
                self._options.topic,
            )


class WallClock:
    """The wall clock of the start, carried on by the monotonic one: a clock that is stepped mid-run does no harm."""

    def __init__(self) -> None:
        self._base_ms = time.time() * 1000 - time.monotonic() * 1000

    def now_ms(self) -> float:
        """Milliseconds since the epoch."""
        return self._base_ms + time.monotonic() * 1000


def _clock_offsets(admin: Admin, config: ClientConfig, topic: str, clock: WallClock) -> list[ClockOffset]:
    """The brokers' clock offsets; none where the clock topic is missing or cannot be used."""
    from kafka.clock import probe
    from kafka.errors import TopicError, TopicMissingError
    from perf.clock import Probe, offset_from

    try:
        described = admin.describe(topic, with_configuration=True)
        if described.timestamp_type == "CreateTime":
            raise TopicError(f"the clock topic {topic} is not LogAppendTime, so its stamps are not the broker's")
        found = probe(config, topic, described.leaders, clock.now_ms)
    except TopicMissingError:
        process.log.info("the clock error is n/a: PerfTopics.py clock makes the topic %s that it needs", topic)
        return []
    except TopicError as error:
        process.log.warning("the clock error is n/a: %s", error)
        return []
    return [offset_from(broker, [Probe(*times) for times in probes]) for broker, probes in sorted(found.items())]


def _mark_source(trace: settings.Trace | None) -> Callable[[Sequence[Message]], Sequence[Mark]] | None:
    """Messages → the marks that they carry, from where --trace says."""
    if trace is None:
        return None
    if trace.place == "key":
        return lambda messages: [message.key() for message in messages]
    if trace.place == "field":
        from perf.payload import MarkReader

        texts = MarkReader(trace.name).texts
        return lambda messages: texts([message.value() for message in messages])
    return lambda messages: [dict(message.headers() or ()).get(trace.name) for message in messages]


def _stamp_ms(message: Message) -> int:
    """The Kafka timestamp, -1 where there is none: the client says 0 then, which is a time in 1970."""
    kind, stamp_ms = message.timestamp()
    return -1 if kind == _NO_TIMESTAMP else stamp_ms


def _values(messages: Sequence[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]


def _headers(messages: Sequence[Message]) -> list[Any]:
    return [message.headers() for message in messages]


def _columns(rows: Sequence[tuple[int, int, int]]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    deltas_ms, stamps_ms, partitions = zip(*rows, strict=True)
    return deltas_ms, stamps_ms, partitions


def _check_combinations(options: Settings) -> None:
    if options.clock_topic == options.topic:
        raise settings.SettingsError(f"--clock-topic {options.topic} is the topic to measure: no probe may go there")
    if options.latency == "receive" and (options.start != "latest" or options.group is not None):
        raise settings.SettingsError(
            "--latency receive measures messages that arrive while it reads: it needs --from latest, and no --group"
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
            progress.close()
            process.log.info("no message for %g s: stopping", options.idle_timeout_s)
            return


def _show_progress(progress: Progress, statistics: Statistics, consumer: Consumer) -> None:
    average_ms, lag = statistics.current_average_ms, consumer.lag()
    average = "n/a" if average_ms is None else f"{average_ms:.1f} ms"
    progress.note(f"average {average}, lag {'n/a' if lag is None else lag}")
    progress.update(statistics.read)


def _without_measurement(statistics: Statistics, consumer: Consumer, options: Settings) -> int:
    """Exit code 5 and the reason where there is no valid measurement, else 0."""
    from kafka.errors import Fault
    from perf.stats import INVALID

    if statistics.measured:
        verdict = statistics.verdict()
        if verdict.startswith(INVALID):
            process.log.error("%s", verdict)
            return process.ExitCode.NO_MEASUREMENT
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
