#!/usr/bin/env python3
"""Measure the output topic of a streams operator: output message's Kafka timestamp − timestamp_start, in milliseconds.

Prints the averages over the last 100, 1K, 10K and 100K messages while it reads, and a summary when it stops: at
COUNT, DURATION or IDLE_TIMEOUT, or on Ctrl-C / SIGTERM.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from kafka.config import ClientConfig
    from kafka.consumer import Consumer
    from kafka.topics import Admin
    from perf.clock import ClockOffset
    from perf.coordination import Membership
    from perf.live import Live, Snapshot
    from perf.meter import Meter, Shares
    from perf.settings import Settings
    from perf.stats import Statistics

FIELDS = (
    "brokers", "config", "topic", "start", "group", "isolation", "timestamp_field", "timestamp_header",
    "timestamp_unit", "latency", "clock_topic", "warmup", "trace", "run_id", "wait_for", "wait_timeout_s",
    "expect_ratio", "runs_topic", "results_topic", "count", "linger_s", "duration_s", "idle_timeout_s",
    "windows", "fail_if", "result", "termination_message", "metrics_port", "log_format",
)  # fmt: skip
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./PerfConsumer.py --topic results
  ./PerfConsumer.py --brokers localhost:9092 --topic results --count 100K --idle-timeout 30
  ./PerfConsumer.py --topic results --from latest --duration 10m --result consumer.json
"""
_BATCH = 2_000
_GC_THRESHOLD = 100_000  # a batch makes thousands of objects but no cycles: the default costs a tenth of the speed
_WAIT_S = 0.2
_LOOK_EVERY_S, _SAVE_EVERY_S, _RUN_IDLE_S = 0.5, 5.0, 30.0
_SAVE_SHARE = 50  # saving takes at most a fiftieth of the time
_OLD_S = 60.0  # results that were there for so long are likely another test's


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    from kafka.consumer import Consumer
    from kafka.runs import RunTopics
    from kafka.topics import Admin, TopicWatch
    from kafka.versions import versions
    from perf.live import Live
    from perf.meter import Meter, Shares
    from perf.payload import reader_for
    from perf.progress import LiveView, Progress
    from perf.stats import Statistics, Windows

    _check_combinations(options)
    views = process.metrics_views("consumer", options)
    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    admin = Admin(config)
    topic = admin.describe(options.topic, suggest=True)
    stop = process.Stop()
    member = process.join("consumer", options, partial(RunTopics, config, stop))
    now_ms = process.WallClock().now_ms
    clock = _clock_offsets(admin, config, options.clock_topic, now_ms)  # before reading: it takes its time
    if member is None:
        statistics = Statistics(Windows(options.windows), latency=options.latency)
        meter: Meter | Shares = Meter(reader_for(options), statistics, options, now_ms)
    else:
        meter = Shares(options, member, now_ms, clock)
    consumer = Consumer(
        config,
        options.topic,
        partitions=topic.partitions,
        start=options.start,
        group=options.group or (f"performance-test-{options.run_id}" if member else None),
        isolation=options.isolation,
        owner=meter if isinstance(meter, Shares) else None,
    )
    process.log.info("reading topic %s (partitions: %d) from %s", options.topic, len(topic.partitions), options.start)
    _tell_of_old(consumer, options, now_ms())
    watch = TopicWatch(admin, topic, on_fault=consumer.fail, on_partitions=consumer.add)
    started_at = process.now()
    stop.listen()
    progress = Progress(options.count, wanted=options.log_format == "text")
    views += [LiveView(progress).show] if progress.shown else []
    live = Live(partial(_snapshot, meter, consumer, clock), views)
    output, started_s, outcome = process.Output(stop, progress.write), time.monotonic(), 0
    try:
        _measure_until_done(consumer, meter, options, stop, output, live, member)
    except Exception as error:  # whatever it is, what was measured is reported
        progress.close()
        outcome = process.failure(error)
    elapsed_s = time.monotonic() - started_s
    watch.stop()
    progress.close()
    statistics = meter.total()
    statistics.clock = clock
    outcome = outcome or _without_measurement(statistics, consumer, options)
    code = process.report(
        f"Summary of the consumer, topic {options.topic}",
        statistics.summary(elapsed_s=elapsed_s),
        options=options,
        config=config.redacted(),
        histograms=statistics.histograms(),
        versions=versions(),
        started_at=started_at,
        stop=stop,
        outcome=outcome,
        output=output,
        details=statistics.details(),
    )
    if isinstance(meter, Shares):
        code = process.also(code, lambda: meter.leave(code))
    consumer.close()
    return code


def _clock_offsets(admin: Admin, config: ClientConfig, topic: str, now_ms: Callable[[], float]) -> list[ClockOffset]:
    """The brokers' clock offsets; none where the clock topic is missing or cannot be used."""
    from kafka.clock import probe
    from kafka.errors import TopicError, TopicMissingError
    from perf.clock import offsets_from

    try:
        described = admin.describe(topic, with_configuration=True)
        if described.timestamp_type == "CreateTime":
            raise TopicError(f"the clock topic {topic} is not LogAppendTime, so its stamps are not the broker's")
        found = probe(config, topic, described.leaders, now_ms)
    except TopicMissingError:
        process.log.info("the clock error is n/a: PerfTopics.py clock makes the topic %s that it needs", topic)
        return []
    except TopicError as error:
        process.log.warning("the clock error is n/a: %s", error)
        return []
    return offsets_from(found)


def _tell_of_old(consumer: Consumer, options: Settings, now_ms: float) -> None:
    """An earlier test's results would be averaged with this one's, and nobody would see it."""
    if options.start != "earliest" or options.group is not None:
        return
    from kafka.errors import Fault

    try:
        old = consumer.older_than(now_ms - 1_000 * _OLD_S)
    except Fault:  # what is wrong shows when it reads
        return
    if old:
        process.log.warning(
            "%d messages of topic %s are over a minute old: if they are an earlier test's, they are measured together "
            "with this one's; --from with a time, or latest, leaves them out",
            old,
            options.topic,
        )


def _check_combinations(options: Settings) -> None:
    if options.clock_topic == options.topic:
        raise settings.SettingsError(f"--clock-topic {options.topic} is the topic to measure: no probe may go there")
    if options.latency == "receive" and (options.start != "latest" or options.group is not None or options.run_id):
        raise settings.SettingsError(
            "--latency receive measures messages that arrive while it reads: it needs --from latest, and neither "
            "--group nor --run-id"
        )


def _measure_until_done(  # noqa: PLR0917
    consumer: Consumer, meter: Meter | Shares, options: Settings, stop: process.Stop, output: process.Output,
    live: Live, member: Membership | None,
) -> None:  # fmt: skip
    from perf.meter import Shares
    from perf.report.text import event_line

    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    start_s = last_message_s = time.monotonic()
    caught_up = False
    run = _RunOfMany(member, meter, options) if member is not None and isinstance(meter, Shares) else None
    last = options.count if options.linger_s is None else None  # read no more than these
    while not stop() and not _has_enough(options, meter.read, time.monotonic() - last_message_s):
        most = _BATCH if last is None else min(_BATCH, last - meter.read)
        meter.reached(consumer.at_end)
        if not caught_up and consumer.caught_up:
            caught_up = True
            process.log.info("at the end of topic %s: what comes now is read as it comes", options.topic)
        messages = consumer.read(most, _WAIT_S)
        now_s = time.monotonic()
        if messages:
            last_message_s = now_s
            output.lines([event_line(event) for event in meter.measure(messages)])
        live.serve()
        if options.duration_s and now_s - start_s >= options.duration_s:
            return
        idle_s = now_s - last_message_s
        if run is not None:
            if run.is_over(joined=consumer.joined, elapsed_s=now_s - start_s, idle_s=idle_s):
                return
        elif options.idle_timeout_s and idle_s >= options.idle_timeout_s:
            process.log.info("no message for %g s: stopping", options.idle_timeout_s)
            return


def _has_enough(options: Settings, read: int, idle_s: float) -> bool:
    """Whether --count is reached, and what may come after it was waited for."""
    return options.count is not None and read >= options.count and idle_s >= (options.linger_s or 0)


class _RunOfMany:
    """What a consumer does for the run that it is part of, beside reading."""

    def __init__(self, member: Membership, shares: Shares, options: Settings) -> None:
        self._member, self._shares, self._options = member, shares, options
        self._next_save_s = self._next_look_s = 0.0
        self._begun = False
        self._complete_s: float | None = None  # since when all results that were expected are read
        self._told: dict[int, int] = {}

    def is_over(self, *, joined: bool, elapsed_s: float, idle_s: float) -> bool:
        """Announce and save what is due; whether all producers are done, and their results read or waited for.

        Raises NotReadyError.
        """
        member, options, shares = self._member, self._options, self._shares
        if elapsed_s < self._next_look_s:
            return False
        self._next_look_s = elapsed_s + _LOOK_EVERY_S
        if joined and member.state == "started":
            self._say_ready()
        member.look()
        if not self._begun:
            self._begun = member.others_ready(options.wait_for, waited_s=elapsed_s, timeout_s=options.wait_timeout_s)
        if elapsed_s >= self._next_save_s or (idle_s > _LOOK_EVERY_S and not shares.is_saved):
            start_s = time.monotonic()
            self._shares.save(wait=False)
            cost_s = time.monotonic() - start_s
            self._next_save_s = elapsed_s + max(_SAVE_EVERY_S, _SAVE_SHARE * cost_s)
        settled = member.producers_done(options.wait_for.get("producer", 1))
        member.heartbeat(read=shares.progress, at_once=settled and shares.progress != self._told)
        self._told = shares.progress
        return settled and self._drained(elapsed_s, idle_s)

    def _say_ready(self) -> None:
        from kafka.errors import Fault

        try:
            self._member.say("ready")
        except Fault as fault:  # tried again at the next look
            process.log.warning("%s", fault)

    def _drained(self, elapsed_s: float, idle_s: float) -> bool:
        """Whether nothing is to come any more; what is doubled must not take the place of what is late."""
        from perf.run import linger_s

        run, options = self._member.run, self._options
        ratio, acknowledged = options.expect_ratio, run.acknowledged
        patience_s = options.idle_timeout_s or _RUN_IDLE_S
        if ratio and acknowledged is not None and run.read >= ratio * acknowledged:
            self._complete_s = elapsed_s if self._complete_s is None else self._complete_s
            if idle_s >= linger_s(ratio) or elapsed_s - self._complete_s >= patience_s:  # others may write there, too
                process.log.info("all %d results of the run are read: stopping", run.read)
                return True
        if idle_s >= patience_s:
            process.log.info("all producers are done, and no message for %g s: stopping", patience_s)
            return True
        return False


def _snapshot(meter: Meter | Shares, consumer: Consumer, clock: Sequence[ClockOffset]) -> Snapshot:
    """Where this consumer stands, for whoever looks on."""
    from perf.live import Snapshot

    statistics = meter.total()
    last_ms, ledger = statistics.last_record_ms, statistics.ledger
    return Snapshot(
        counters={
            **statistics.counters(),
            "ledger": ledger.counts(None) if ledger is not None else None,
        },
        tallies=statistics.tallies(),
        gauges={
            "lag": consumer.lag(),
            "last_record_s": None if last_ms is None else last_ms / 1_000,
            "clock_offset_s": {str(found.broker): found.offset_ms / 1_000 for found in clock},
            "clock_bound_s": {str(found.broker): found.bound_ms / 1_000 for found in clock},
        },
    )


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
    if options.run_id:
        process.log.info("this process had nothing to read; whether the run is valid, PerfReport.py --run tells")
        return process.ExitCode.DONE
    try:
        offsets = [f"partition {at.partition}: first {at.first}, end {at.end}" for at in consumer.offsets()]
    except Fault as fault:
        offsets = [str(fault)]
    process.log.error(
        "no message was read from topic %s. Its offsets: %s", options.topic, "; ".join(offsets) or "no partition held"
    )
    return process.ExitCode.NO_MEASUREMENT


if __name__ == "__main__":
    process.run(main)
