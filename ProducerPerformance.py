#!/usr/bin/env python3
"""Send a data set to a Kafka topic: SIZE messages, as fast as possible or on a fixed schedule.

The data file is looped over. Each message ends as acknowledged, failed or unknown, and the exit code is 4 unless all
that were sent are acknowledged.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from kafka.producer import KeyValue, Outgoing, Producer
    from perf.progress import Progress
    from perf.schedule import Schedule
    from perf.settings import Settings
    from perf.stats import ProducerSummary

FIELDS = (
    "brokers", "config", "topic", "size", "file", "keyname", "rate_per_s", "stamp",
    "duration_s", "trace", "run_id", "fail_if", "result", "termination_message",
)  # fmt: skip
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./ProducerPerformance.py --topic performance-test --size 100K
  ./ProducerPerformance.py --brokers localhost:9092 --rate 1000 --duration 5m --keyname containerId
  ./ProducerPerformance.py --file events.ndjson --size 1M --config linger.ms=20 --result producer.json
"""
_NS_PER_S, _NS_PER_MS = 1_000_000_000, 1_000_000
_LOG_APPEND_TIME = 2  # Message.timestamp()'s type
_CHUNK = 1_000  # messages between two looks at the clock at full speed
_BURST = 100  # messages between two looks at the clock on a schedule
_SHORTEST_SLEEP_NS, _LONGEST_SLEEP_NS = 200_000, 50_000_000
_MOST_LEFT_STEPS = 100_000
_LEAST_LATE_NS = 5 * 1_000_000_000  # what was due within --duration may go that long, or as long again, after it


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    if options.stamp == "intended" and not options.rate_per_s:
        raise settings.SettingsError("--stamp intended needs --rate: without a schedule no time is intended")
    from kafka.producer import Producer
    from kafka.topics import Admin
    from perf.dataset import DataSet
    from perf.progress import Progress

    data = DataSet.open(options.file, options.keyname)
    if options.trace is not None and options.trace.place == "field":
        data.require_objects()
    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    topic = Admin(config).describe(options.topic, with_configuration=True)
    _check_stamps(topic.timestamp_type, options)
    producer = Producer(config, options.topic, acknowledge_each=options.rate_per_s > 0)
    process.log.info("sending to topic %s from %s (%d messages a lap)", options.topic, options.file, data.length)
    progress = Progress(options.size)
    sending = Sending(producer, data.messages(), options, progress, partitions=len(topic.partitions))
    stop, started_at, outcome = process.Stop().listen(), process.now(), 0
    start_ns, failed = time.monotonic_ns(), None
    try:
        sending.run(stop)
    except Exception as error:  # whatever it is, what was sent is reported
        progress.close()
        outcome, failed = process.failure(error), error
    sent_ns = time.monotonic_ns()
    producer.flush(stopped=stop, grace_s=process.FLUSH_GRACE_S)
    elapsed_s, send_elapsed_s = (time.monotonic_ns() - start_ns) / _NS_PER_S, (sent_ns - start_ns) / _NS_PER_S
    summary = _summary(sending, options, elapsed_s=elapsed_s, send_elapsed_s=send_elapsed_s)
    progress.close()
    outcome = _outcome(producer, outcome, failed)
    return process.report(
        f"Summary of the producer, topic {options.topic}",
        summary,
        options=options,
        config=config.redacted(),
        histograms={"lateness_us": sending.lateness_us, "ack_us": sending.ack_us},
        started_at=started_at,
        stop=stop,
        outcome=outcome,
        details={"marked": sending.marked()},
    )


class Sending:
    """The data set on its way: at full speed, or open loop on a schedule; marked where that is asked for."""

    def __init__(
        self,
        producer: Producer,
        messages: Iterator[KeyValue],
        options: Settings,
        progress: Progress,
        *,
        partitions: int,
    ) -> None:
        from perf.stats import Histogram
        from perf.trace import Marker

        self._messages = messages
        self._options = options
        self._partitions = partitions
        self._turn = 0
        self._progress = progress
        self._marker: Marker | None = None
        self._sent_marks: Counter[int] = Counter()
        if options.trace is not None:
            host = os.environ.get("JOB_COMPLETION_INDEX") or platform.node() or "producer"
            self._marker = Marker(run=options.run_id, producer=host, attempt=time.time_ns())
        self.producer = producer
        self.not_sent = 0
        self.lateness_us, self.ack_us = Histogram(), Histogram()

    def run(self, stop: process.Stop) -> None:
        """Send until SIZE, DURATION or `stop`. Raises FatalClientError, or SettingsError for a topic that refuses."""
        if self._options.rate_per_s:
            self._run_on_schedule(stop)
        else:
            self._run_at_full_speed(stop)

    def marked(self) -> dict[str, int]:
        """How many messages of each origin were marked and sent: the first ones, as those left over are the last."""
        origins = self._marker.counts() if self._marker else ()
        return {str(origin): self._sent_marks[origin.partition] for origin in origins}

    def _run_at_full_speed(self, stop: process.Stop) -> None:
        size, duration_s = self._options.size, self._options.duration_s
        end_ns = time.monotonic_ns() + int(duration_s * _NS_PER_S) if duration_s else None

        def ended() -> bool:
            return stop() or (end_ns is not None and time.monotonic_ns() >= end_ns)

        while not ended():
            most = _CHUNK if size is None else min(_CHUNK, size - self.producer.queued)
            if most == 0:
                return
            batch = list(islice(self._messages, most))
            if self._marker is None:
                self.producer.send(batch, ended)
            else:
                self._send_outgoing([self._outgoing(message, 0) for message in batch], ended)
            self._progress.update(self.producer.queued)

    def _run_on_schedule(self, stop: process.Stop) -> None:
        """Open loop: what is due goes at once, however late; the lateness of each message is recorded.

        It is taken when the burst that the message belongs to was handed over, so it is never understated.
        """
        from perf.schedule import Schedule

        schedule, options = Schedule.at_rate(self._options.rate_per_s), self._options
        duration_ns = int(options.duration_s * _NS_PER_S) if options.duration_s else None
        limits = [options.size] if options.size is not None else []
        last = min([schedule.due_count(duration_ns - 1), *limits]) if duration_ns else options.size
        start_ns, start_wall_ns, sent, elapsed_ns = time.monotonic_ns(), time.time_ns(), 0, 0

        def ended() -> bool:
            late_end_ns = None if duration_ns is None else start_ns + duration_ns + max(duration_ns, _LEAST_LATE_NS)
            return stop() or (late_end_ns is not None and time.monotonic_ns() >= late_end_ns)

        while sent != last and not ended():
            elapsed_ns = time.monotonic_ns() - start_ns
            due = schedule.due_count(elapsed_ns)
            due = min(due, last) if last is not None else due
            if due == sent:
                wait_ns = max(schedule.due_ns(sent) - elapsed_ns, _SHORTEST_SLEEP_NS)
                time.sleep(min(wait_ns, _LONGEST_SLEEP_NS) / _NS_PER_S)
                self.producer.serve()
                continue
            burst = range(sent, min(due, sent + _BURST))
            due_ns = [schedule.due_ns(index) for index in burst]
            sent += self._send_burst([(start_wall_ns + due_at) // _NS_PER_MS for due_at in due_ns], ended)
            handed_over_ns = time.monotonic_ns() - start_ns
            self.lateness_us.add([(handed_over_ns - due_at) // 1_000 for due_at in due_ns[: sent - burst.start]])
            self._progress.update(sent)
        if duration_ns is not None and last is not None and sent < last and not stop():
            self._leave_out(range(sent, last), schedule, time.monotonic_ns() - start_ns)

    def _leave_out(self, left: range, schedule: Schedule, elapsed_ns: int) -> None:
        """Count what was due but could not be sent in time, with its lateness so far: left out, it would flatter."""
        self.not_sent = len(left)
        step = max(1, len(left) // _MOST_LEFT_STEPS)  # there may be thousands of millions
        for index in range(left.start, left.stop, step):
            late_us = (elapsed_ns - schedule.due_ns(index)) // 1_000
            self.lateness_us.add({late_us: min(step, left.stop - index)})
        process.log.warning(
            "%d messages were due within --duration and not sent even so long after it: the rate is more than this "
            "producer, its data file or the cluster can take; their lateness is in the summary",
            self.not_sent,
        )

    def _send_burst(self, intended_ms: Sequence[int], ended: Callable[[], bool]) -> int:
        batch = list(islice(self._messages, len(intended_ms)))
        intended = self._options.stamp == "intended"
        if intended or self._marker is not None:
            stamps_ms = intended_ms if intended else [0] * len(batch)
            outgoing = [self._outgoing(message, stamp) for message, stamp in zip(batch, stamps_ms, strict=True)]
            sent = self._send_outgoing(outgoing, ended)
        else:
            sent = self.producer.send(batch, ended)
        self._take_acknowledgements()
        return sent

    def _send_outgoing(self, outgoing: Sequence[Outgoing], ended: Callable[[], bool]) -> int:
        before = self.producer.queued
        try:
            return self.producer.send_outgoing(outgoing, ended)
        finally:
            self._sent_marks.update(message.partition for message in outgoing[: self.producer.queued - before])

    def _take_acknowledgements(self) -> None:
        acknowledged_us = self.producer.take_ack_us()
        if acknowledged_us:
            self.ack_us.add(acknowledged_us)
        if _LOG_APPEND_TIME in self.producer.timestamp_types:
            _check_stamps("LogAppendTime", self._options)

    def _outgoing(self, message: KeyValue, stamp_ms: int) -> Outgoing:
        from kafka.producer import Outgoing
        from perf.trace import partition_for, with_field

        key, value = message
        trace = self._options.trace
        if trace is None or self._marker is None:
            return Outgoing(key, value, timestamp_ms=stamp_ms)
        partition = partition_for(key, self._turn, self._partitions)
        self._turn += 1
        mark = self._marker.mark(partition)
        if trace.place == "key":
            return Outgoing(mark, value, partition, stamp_ms)
        if trace.place == "header":
            return Outgoing(key, value, partition, stamp_ms, [(trace.name, mark)])
        return Outgoing(key, with_field(value, trace.name, mark), partition, stamp_ms)


def _outcome(producer: Producer, outcome: int, error: Exception | None) -> int:
    """4 unless all is acknowledged; but 2 and 3 say that trying again is harmless: nothing may have been sent then."""
    harmless = producer.acknowledged == 0 and producer.unknown == 0
    if harmless and outcome == process.ExitCode.CONNECTION:
        return outcome
    if outcome == process.ExitCode.USAGE and isinstance(error, settings.SettingsError):
        return outcome
    given_up = outcome in (process.ExitCode.USAGE, process.ExitCode.CONNECTION)
    if given_up or producer.acknowledged != producer.queued:
        return process.ExitCode.NOT_ACKNOWLEDGED
    return outcome


def _check_stamps(timestamp_type: str | None, options: Settings) -> None:
    """What the input topic's timestamp type means for the measurement; None where it may not be read."""
    if timestamp_type == "LogAppendTime" and options.stamp == "intended":
        raise settings.SettingsError(
            f"--stamp intended: the topic {options.topic} is LogAppendTime, so the broker replaces the intended times; "
            "it needs message.timestamp.type=CreateTime"
        )
    if timestamp_type == "CreateTime" and options.stamp == "send":
        process.log.warning(
            "the topic %s has message.timestamp.type=CreateTime: its stamps are this machine's clock at sending, so "
            "the delta has the wait in this client and the difference of two clocks in it",
            options.topic,
        )


def _summary(sending: Sending, options: Settings, *, elapsed_s: float, send_elapsed_s: float) -> ProducerSummary:
    from perf.stats import ProducerSummary, per_second

    producer = sending.producer
    sending.ack_us.add(producer.take_ack_us())
    mean_bytes = producer.queued_bytes / max(1, producer.queued)
    return ProducerSummary(
        messages=producer.queued,
        not_sent=sending.not_sent,
        acknowledged=producer.acknowledged,
        failed=dict(producer.failed),
        unknown=producer.unknown,
        bytes=producer.queued_bytes,
        elapsed_s=elapsed_s,
        send_elapsed_s=send_elapsed_s,
        throughput_per_s=per_second(producer.acknowledged, elapsed_s),
        throughput_mb_per_s=per_second(mean_bytes * producer.acknowledged / 1e6, elapsed_s),
        send_rate_per_s=per_second(producer.queued - 1, send_elapsed_s) if producer.queued > 1 else None,
        target_rate_per_s=options.rate_per_s or None,
        stamp=options.stamp,
        lateness_ms=sending.lateness_us.distribution(divisor=1_000),
        ack_ms=sending.ack_us.distribution(divisor=1_000),
    )


if __name__ == "__main__":
    process.run(main)
