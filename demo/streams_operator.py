"""A stand-in for the user's streams operator: copies each message's Kafka timestamp into it as timestamp_start.

Run as `python -m demo.streams_operator --help`. A message is complete at max(its arrival + delay, the completion before
it) + service time, so the delay makes latency and the service time also limits the throughput to 1 / service time. With
neither it works in batches at full speed. It can stall, and make more or fewer results than messages. It ends on
SIGTERM, and with the process that started it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from kafka.config import client_config
from kafka.consumer import Consumer
from kafka.errors import Fault
from kafka.producer import KeyValue, Producer
from kafka.topics import Admin

_BATCH = 2_000
_MOST_WAITING = 100_000
_IDLE_S = 0.1
_GRACE_S = 5.0
_SLOWEST_SPIN_S = 0.001  # librdkafka waits in whole milliseconds


class StreamsOperator:
    """Reads one topic and writes another; `step()` is one turn of its loop."""

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer,
        *,
        delay_s: float,
        service_time_s: float,
        stall_s: float = 0.0,
        stall_every_s: float = 10.0,
        ratio: float = 1.0,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._delay_s = delay_s
        self._service_time_s = service_time_s
        self._stall_s, self._stall_every_s = stall_s, stall_every_s
        self._next_stall_s = time.monotonic() + stall_every_s
        self._copies, self._chance_of_one_more = int(ratio), ratio % 1
        self._chance = random.Random(1)  # noqa: S311 (no secret)
        self._completed_s = 0.0
        self._waiting: deque[tuple[float, KeyValue]] = deque()

    def step(self, stopped: Callable[[], bool]) -> None:
        """Take in what has arrived, and send what is complete."""
        if self._stall_s and time.monotonic() >= self._next_stall_s:
            time.sleep(self._stall_s)
            self._next_stall_s += self._stall_every_s
        if len(self._waiting) < _MOST_WAITING:
            for message in self._consumer.read(_BATCH, self._wait_s()):
                self._completed_s = max(time.monotonic() + self._delay_s, self._completed_s) + self._service_time_s
                result = with_timestamp_start(message.value() or b"null", message.timestamp()[1])
                self._waiting += [(self._completed_s, (message.key(), result))] * self._results()
        now_s, complete = time.monotonic(), []
        while self._waiting and self._waiting[0][0] <= now_s:
            complete.append(self._waiting.popleft()[1])
        if complete:
            self._producer.send(complete, stopped)

    def _results(self) -> int:
        return self._copies + (self._chance.random() < self._chance_of_one_more)

    def _wait_s(self) -> float:
        wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else _IDLE_S
        if 0 < wait_s < _SLOWEST_SPIN_S:
            time.sleep(wait_s)
        return 0.0 if wait_s < _SLOWEST_SPIN_S else min(wait_s, _IDLE_S)


def with_timestamp_start(value: bytes, stamp_ms: int) -> bytes:
    """The JSON object `value` with timestamp_start as its last field; any other JSON value is wrapped in an object."""
    text = value.strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        text = b'{"value":%b}' % text
    comma = b"," if text[1:-1].strip() else b""
    return b'%b%b"timestamp_start":%d}' % (text[:-1], comma, stamp_ms)


def main() -> int:
    """Run until stopped. The connection comes from the environment, as for the scripts."""
    arguments = _arguments()
    stopping = False
    parent_pid = os.getppid()

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    def stopped() -> bool:
        return stopping or os.getppid() != parent_pid

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    config = client_config(os.environ, brokers=os.environ.get("KAFKA_BROKERS", ""))
    admin = Admin(config)
    admin.describe(arguments.output)
    partitions = admin.describe(arguments.input).partitions
    consumer = Consumer(config, arguments.input, partitions=partitions, start="latest")
    producer = Producer(
        config, arguments.output, acknowledge_each=False, properties={"linger.ms": f"{arguments.linger_ms:g}"}
    )
    worker = StreamsOperator(
        consumer,
        producer,
        delay_s=arguments.delay_ms / 1000,
        service_time_s=arguments.service_time_ms / 1000,
        stall_s=arguments.stall_ms / 1000,
        stall_every_s=arguments.stall_every_s,
        ratio=arguments.ratio,
    )
    print(f"operator ready: {arguments.input} -> {arguments.output}", flush=True)
    while not stopped():
        worker.step(stopped)
    producer.flush(stopped=lambda: True, grace_s=_GRACE_S)
    consumer.close()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.streams_operator", description=__doc__)
    parser.add_argument("--input", required=True, help="the topic to read, from its end")
    parser.add_argument("--output", required=True, help="the topic to write")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="time that each message spends inside")
    parser.add_argument("--service-time-ms", type=float, default=0.0, help="time that the operator needs per message")
    parser.add_argument("--linger-ms", type=float, default=0.0, help="collect results for so long in one request")
    parser.add_argument("--stall-ms", type=float, default=0.0, help="do nothing for so long, every --stall-every-s")
    parser.add_argument("--stall-every-s", type=float, default=10.0, help="from the start of a stall to the next")
    parser.add_argument("--ratio", type=float, default=1.0, help="results for each message: 0.5 is a random half")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Fault as fault:
        sys.exit(f"error: {fault}")
