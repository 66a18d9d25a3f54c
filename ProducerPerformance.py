#!/usr/bin/env python3
"""Send a data set to a Kafka topic: SIZE messages, as fast as possible or on a fixed schedule.

The data file is looped over. Each message ends as acknowledged, failed or unknown, and the exit code is 4 unless all
that were sent are acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from kafka.producer import KeyValue, Producer
    from perf.settings import Settings
    from perf.stats import Histogram, ProducerSummary

FIELDS = ("brokers", "config", "topic", "size", "file", "keyname", "rate_per_s", "duration_s", "result")
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./ProducerPerformance.py --topic performance-test --size 100K
  ./ProducerPerformance.py --brokers localhost:9092 --rate 1000 --duration 5m --keyname containerId
  ./ProducerPerformance.py --file events.ndjson --size 1M --config linger.ms=20 --result producer.json
"""
_NS_PER_S = 1_000_000_000
_CHUNK = 1_000  # messages between two looks at the clock at full speed
_BURST = 100  # messages between two looks at the clock on a schedule
_SHORTEST_SLEEP_NS, _LONGEST_SLEEP_NS = 200_000, 50_000_000
_LATE_END_NS = 100_000_000  # messages that became due just before the end of --duration still go


def main() -> int:
    """The stages in order; returns the exit code."""
    options = settings.from_command_line(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    from kafka.errors import FatalClientError
    from kafka.producer import Producer
    from kafka.topics import Admin
    from perf.dataset import DataSet
    from perf.stats import Histogram

    data = DataSet.open(options.file, options.keyname)
    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    Admin(config).describe(options.topic)
    producer = Producer(config, options.topic, acknowledge_each=options.rate_per_s > 0)
    process.log.info("sending to topic %s from %s (%d messages a lap)", options.topic, options.file, data.length)
    stop, lateness_us, started_at = process.Stop().listen(), Histogram(), process.now()
    start_ns = time.monotonic_ns()
    fatal = False
    try:
        send = _send_on_schedule if options.rate_per_s else _send_at_full_speed
        send(producer, data.messages(), options, stop, lateness_us)
    except FatalClientError as error:
        fatal = True
        process.log.error("%s", error)
    sent_ns = time.monotonic_ns()
    producer.flush(stopped=stop, grace_s=process.FLUSH_GRACE_S)
    elapsed_s, send_elapsed_s = (time.monotonic_ns() - start_ns) / _NS_PER_S, (sent_ns - start_ns) / _NS_PER_S
    summary = _summary(producer, options, lateness_us, elapsed_s=elapsed_s, send_elapsed_s=send_elapsed_s)
    complete = producer.acknowledged == producer.queued and not fatal
    outcome = process.ExitCode.DONE if complete else process.ExitCode.NOT_ACKNOWLEDGED
    return process.report(
        f"Summary of the producer, topic {options.topic}",
        summary,
        options=options,
        config=config.redacted(),
        histograms={"lateness_us": lateness_us},
        started_at=started_at,
        stop=stop,
        outcome=outcome,
    )


def _send_at_full_speed(
    producer: Producer, messages: Iterator[KeyValue], options: Settings, stop: process.Stop, _lateness_us: Histogram
) -> None:
    end_ns = time.monotonic_ns() + int(options.duration_s * _NS_PER_S) if options.duration_s else None
    while not stop() and (end_ns is None or time.monotonic_ns() < end_ns):
        most = _CHUNK if options.size is None else min(_CHUNK, options.size - producer.queued)
        if most == 0:
            return
        producer.send(list(islice(messages, most)), stop)


def _send_on_schedule(
    producer: Producer, messages: Iterator[KeyValue], options: Settings, stop: process.Stop, lateness_us: Histogram
) -> None:
    """Open loop: what is due goes at once, however late; the lateness of each message is recorded.

    It is taken when the burst that the message belongs to was handed over, so it is never understated.
    """
    from perf.schedule import Schedule

    schedule = Schedule.at_rate(options.rate_per_s)
    duration_ns = int(options.duration_s * _NS_PER_S) if options.duration_s else None
    limits = [options.size] if options.size is not None else []
    last = min([schedule.due_count(duration_ns - 1), *limits]) if duration_ns else options.size
    start_ns, sent, elapsed_ns = time.monotonic_ns(), 0, 0
    while sent != last and not stop() and (duration_ns is None or elapsed_ns < duration_ns + _LATE_END_NS):
        elapsed_ns = time.monotonic_ns() - start_ns
        due = schedule.due_count(elapsed_ns)
        due = min(due, last) if last is not None else due
        if due == sent:
            wait_ns = max(schedule.due_ns(sent) - elapsed_ns, _SHORTEST_SLEEP_NS)
            time.sleep(min(wait_ns, _LONGEST_SLEEP_NS) / _NS_PER_S)
            producer.serve()
            continue
        burst = range(sent, min(due, sent + _BURST))
        sent += producer.send(list(islice(messages, len(burst))), stop)
        handed_over_ns = time.monotonic_ns() - start_ns
        lateness_us.add([(handed_over_ns - schedule.due_ns(index)) // 1_000 for index in burst[: sent - burst.start]])


def _summary(
    producer: Producer, options: Settings, lateness_us: Histogram, *, elapsed_s: float, send_elapsed_s: float
) -> ProducerSummary:
    from perf.stats import ProducerSummary, per_second

    mean_bytes = producer.queued_bytes / max(1, producer.queued)
    return ProducerSummary(
        messages=producer.queued,
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
        lateness_ms=lateness_us.distribution(divisor=1_000),
    )


if __name__ == "__main__":
    process.run(main)
