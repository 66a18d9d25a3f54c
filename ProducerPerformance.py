#!/usr/bin/env python3
"""Send a data set to a Kafka topic: SIZE messages, as fast as possible or on a fixed schedule.

The data file is looped over. Each message ends as acknowledged, failed or unknown, and the exit code is 4 unless all
that were sent are acknowledged.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from kafka.producer import KeyValue, Outgoing, Producer
    from perf.coordination import Membership
    from perf.live import Snapshot
    from perf.progress import Progress
    from perf.schedule import PiecewiseSchedule, Schedule
    from perf.settings import Settings
    from perf.stats import ProducerSummary

FIELDS = (
    "brokers", "config", "topic", "size", "file", "keyname", "rate_per_s", "profile", "stamp",
    "duration_s", "trace", "run_id", "wait_for", "wait_timeout_s", "runs_topic", "results_topic", "fail_if", "result",
    "termination_message", "metrics_port", "log_format",
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
_BARRIER_S = 0.1
_SHORTEST_SLEEP_NS, _LONGEST_SLEEP_NS = 200_000, 50_000_000
_MOST_LEFT_STEPS = 10_000
_LEAST_LATE_NS = 5 * 1_000_000_000  # what was due within --duration may go that long, or as long again, after it


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    if options.stamp == "intended" and not options.rate_per_s:
        raise settings.SettingsError("--stamp intended needs --rate: without a schedule no time is intended")
    from kafka.producer import Producer
    from kafka.runs import RunTopics
    from kafka.topics import Admin, TopicWatch
    from kafka.versions import versions
    from perf.dataset import DataSet
    from perf.progress import Progress

    views = process.metrics_views("producer", options)
    data = DataSet.open(options.file, options.keyname)
    if options.trace is not None and options.trace.place == "field":
        data.require_objects()
    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    admin = Admin(config)
    topic = admin.describe(options.topic, with_configuration=True, suggest=True)
    _check_stamps(topic.timestamp_type, options)
    producer = Producer(config, options.topic, acknowledge_each=options.rate_per_s > 0, properties=topic.largest_batch)
    stop = process.Stop()
    member = process.join("producer", options, partial(RunTopics, config, stop))
    process.log.info("sending to topic %s from %s (%d messages a lap)", options.topic, options.file, data.length)
    progress = Progress(options.size, wanted=options.log_format == "text")
    sending = Sending(
        producer, data.messages(), options, progress, views, partitions=len(topic.partitions), member=member
    )
    stop.listen()
    if member is not None:
        _await_others(member, options, stop)
    watch, started_at, outcome = TopicWatch(admin, topic, on_fault=producer.fail), process.now(), 0
    failed: Exception | None = None
    for step in (sending.run, sending.finish):
        try:
            step(stop)
        except Exception as error:  # whatever it is, what was sent is reported
            progress.close()
            if failed is None:
                outcome, failed = process.failure(error), error
    watch.stop()
    summary = _summary(sending, options)
    progress.close()
    outcome = _outcome(producer, outcome, failed)
    code = process.report(
        f"Summary of the producer, topic {options.topic}",
        summary,
        options=options,
        config=config.redacted(),
        histograms={"lateness_us": sending.lateness_us, "ack_us": sending.ack_us},
        versions=versions(),
        started_at=started_at,
        stop=stop,
        outcome=outcome,
        details=sending.details(),
        publish=member.publish if member else None,
    )
    if member is None:
        return code
    return process.also(code, lambda: member.say("done", producer.acknowledged, exit_code=code))


def _await_others(member: Membership, options: Settings, stop: process.Stop) -> None:
    """Say that this producer is ready, and begin when the others are."""
    from perf.coordination import NotReadyError

    member.say("ready")
    start_s = time.monotonic()
    try:
        while not stop() and not member.others_ready(
            options.wait_for, waited_s=time.monotonic() - start_s, timeout_s=options.wait_timeout_s
        ):
            time.sleep(_BARRIER_S)
            member.heartbeat()
            member.look()
    except NotReadyError as error:
        member.say("done", exit_code=error.exit_code)
        raise


class Sending:
    """The data set on its way: at full speed, or open loop on a schedule; marked where that is asked for."""

    def __init__(
        self,
        producer: Producer,
        messages: Iterator[KeyValue],
        options: Settings,
        progress: Progress,
        views: Sequence[Callable[[Snapshot], None]] = (),
        *,
        partitions: int,
        member: Membership | None = None,
    ) -> None:
        from perf.live import Live
        from perf.schedule import Schedule
        from perf.stats import Histogram
        from perf.trace import Ledger, Marker

        self._messages = messages
        self._options = options
        self._partitions = partitions
        self._turn = 0
        self._progress, self._member = progress, member
        self._marker: Marker | None = None
        self._sent_marks: Counter[int] = Counter()
        if options.trace is not None:
            host = os.environ.get("JOB_COMPLETION_INDEX") or platform.node() or "producer"
            self._marker = Marker(run=options.run_id or uuid.uuid4().hex[:12], producer=host, attempt=time.time_ns())
        self.producer = producer
        self.not_sent = 0
        self.lateness_us, self.ack_us = Histogram(), Histogram()
        self._unacknowledged, self._noted = Ledger(), 0
        self._start_ns = time.monotonic_ns()
        self.elapsed_s = self.send_elapsed_s = 0.0
        self._live = Live(self._snapshot, views)
        self._schedule: Schedule | PiecewiseSchedule | None = None
        if options.rate_per_s:
            self._schedule = options.profile.schedule() if options.profile else Schedule.at_rate(options.rate_per_s)

    def run(self, stop: process.Stop) -> None:
        """Send until SIZE, DURATION or `stop`. Raises FatalClientError, or SettingsError for a topic that refuses."""
        self._start_ns = time.monotonic_ns()
        try:
            if self._schedule is not None:
                self._run_on_schedule(self._schedule, stop)
            else:
                self._run_at_full_speed(stop)
        finally:
            self.send_elapsed_s = self._elapsed_ns() / _NS_PER_S

    def finish(self, stop: process.Stop) -> None:
        """Wait for the answers. Raises SettingsError when they tell of a topic that refuses."""
        self.producer.flush(stopped=lambda: self._looked_at(stop), grace_s=process.FLUSH_GRACE_S)
        self.elapsed_s = self._elapsed_ns() / _NS_PER_S
        self._take_acknowledgements()

    def details(self) -> dict[str, Any]:
        """What the result has beside the summary: the kind of load; marked messages (the first ones of each origin)."""
        profile = self._options.profile
        origins = self._marker.counts() if self._marker else ()
        marked = {str(origin): self._sent_marks[origin.partition] for origin in origins}
        some = self._unacknowledged.counts(None).unique > 0
        return {
            "steady": bool(self._options.rate_per_s) and (profile is None or profile.is_constant),
            "marked": marked,
            "unacknowledged": self._unacknowledged.state() if some else None,
        }

    def counters(self) -> dict[str, Any]:
        """The summary's counters so far, by field."""
        producer = self.producer
        return {
            "messages": producer.queued,
            "not_sent": self.not_sent,
            "acknowledged": producer.acknowledged,
            "failed": dict(producer.failed),
            "unknown": producer.unknown,
            "bytes": producer.queued_bytes,
        }

    def _snapshot(self) -> Snapshot:
        """Where this producer stands, for whoever looks on."""
        from perf.live import Snapshot

        timed, unanswered = self._options.rate_per_s > 0, self.producer.unanswered
        tallies = {"lateness_us": self.lateness_us.tally(), "ack_us": self.ack_us.tally()} if timed else {}
        acknowledged = self.producer.acknowledged_so_far
        gauges = {"in_flight": unanswered, "target_rate_per_s": self._options.rate_per_s or None}
        return Snapshot({**self.counters(), "acknowledged": acknowledged}, tallies, gauges)

    def _looked_at(self, stop: process.Stop) -> bool:
        """Whether to stop; called wherever this producer may be for long."""
        self._live.serve()
        if self._member is not None:
            self._member.heartbeat(acknowledged=self.producer.acknowledged_so_far)
        return stop()

    def _elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    def _run_at_full_speed(self, stop: process.Stop) -> None:
        size, duration_s = self._options.size, self._options.duration_s
        end_ns = time.monotonic_ns() + int(duration_s * _NS_PER_S) if duration_s else None

        def ended() -> bool:
            return self._looked_at(stop) or (end_ns is not None and time.monotonic_ns() >= end_ns)

        while not ended():
            most = _CHUNK if size is None else min(_CHUNK, size - self.producer.queued)
            if most == 0:
                return
            batch = list(islice(self._messages, most))
            if self._marker is None:
                self.producer.send(batch, ended)
            else:
                self._send_outgoing([self._outgoing(message, 0) for message in batch], ended)
                self._take_acknowledgements()
            self._progress.update(self.producer.queued)

    def _run_on_schedule(self, schedule: Schedule | PiecewiseSchedule, stop: process.Stop) -> None:
        """Open loop: what is due goes at once, however late; the lateness of each message is recorded.

        It is taken when the burst that the message belongs to was handed over, so it is never understated.
        """
        options = self._options
        duration_ns = int(options.duration_s * _NS_PER_S) if options.duration_s else None
        limits = [options.size] if options.size is not None else []
        last = min([schedule.due_count(duration_ns - 1), *limits]) if duration_ns else options.size
        late_end_ns = duration_ns + max(duration_ns, _LEAST_LATE_NS) if duration_ns else None
        start_wall_ns = time.time_ns() - self._elapsed_ns()  # the schedule's zero, on the wall clock
        timed = 0  # so many have their lateness recorded

        def ended() -> bool:
            return self._looked_at(stop) or (late_end_ns is not None and self._elapsed_ns() >= late_end_ns)

        def due_count() -> int:
            due = schedule.due_count(self._elapsed_ns())
            return due if last is None else min(due, last)

        try:
            while timed != last and not ended():
                due = due_count()
                if due == timed:
                    wait_ns = max(schedule.due_ns(timed) - self._elapsed_ns(), _SHORTEST_SLEEP_NS)
                    time.sleep(min(wait_ns, _LONGEST_SLEEP_NS) / _NS_PER_S)
                    self.producer.serve()
                    continue
                due_ns = [schedule.due_ns(index) for index in range(timed, min(due, timed + _BURST))]
                sent = self._send_burst([(start_wall_ns + due_at) // _NS_PER_MS for due_at in due_ns], ended)
                handed_over_ns = self._elapsed_ns()
                self.lateness_us.add([(handed_over_ns - due_at) // 1_000 for due_at in due_ns[:sent]])
                timed += sent
                self._progress.update(timed)
        finally:  # what was due and is not sent would flatter the run, however the run ended
            self._leave_out(range(timed, due_count()), schedule, quiet=stop())

    def _leave_out(self, left: range, schedule: Schedule | PiecewiseSchedule, *, quiet: bool) -> None:
        """Count what was due but is not sent, with its lateness so far."""
        elapsed_ns = self._elapsed_ns()
        self.not_sent = left.stop - self.producer.queued
        step = max(1, len(left) // _MOST_LEFT_STEPS)  # there may be thousands of millions
        for index in range(left.start, left.stop, step):
            late_us = (elapsed_ns - schedule.due_ns(index)) // 1_000
            self.lateness_us.add({late_us: min(step, left.stop - index)})
        if self.not_sent and not quiet:
            process.log.warning(
                "%d messages were due and not sent: the rate is more than this producer, its data file or the cluster "
                "can take; their lateness is in the summary",
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
        lost_marks = self.producer.take_unacknowledged()
        if lost_marks:
            numbers = range(self._noted, self._noted + len(lost_marks))
            self._noted = numbers.stop
            self._unacknowledged.record_all(lost_marks, [0] * len(lost_marks), numbers)
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
            return Outgoing(mark, value, partition, stamp_ms, mark=mark)
        if trace.place == "header":
            return Outgoing(key, value, partition, stamp_ms, [(trace.name, mark)], mark)
        return Outgoing(key, with_field(value, trace.name, mark), partition, stamp_ms, mark=mark)


def _outcome(producer: Producer, outcome: int, error: Exception | None) -> int:
    """4 unless all is acknowledged; but 2 and 3 say that trying again is harmless: nothing may have been sent then."""
    if producer.fault is not None:  # it may have come while flushing
        outcome = outcome or producer.fault.exit_code
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


def _summary(sending: Sending, options: Settings) -> ProducerSummary:
    from perf.stats import ProducerSummary, per_second

    producer = sending.producer
    mean_bytes = producer.queued_bytes / max(1, producer.queued)
    return ProducerSummary(
        **sending.counters(),
        elapsed_s=sending.elapsed_s,
        send_elapsed_s=sending.send_elapsed_s,
        throughput_per_s=per_second(producer.acknowledged, sending.elapsed_s),
        throughput_mb_per_s=per_second(mean_bytes * producer.acknowledged / 1e6, sending.elapsed_s),
        send_rate_per_s=per_second(producer.queued - 1, sending.send_elapsed_s) if producer.queued > 1 else None,
        target_rate_per_s=options.rate_per_s or None,
        stamp=options.stamp,
        lateness_ms=sending.lateness_us.distribution(divisor=1_000),
        ack_ms=sending.ack_us.distribution(divisor=1_000),
    )


if __name__ == "__main__":
    process.run(main)
