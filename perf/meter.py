"""Messages → deltas → statistics, for all that is read together, or for each partition of a run by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from . import result
from .clock import ClockOffset
from .coordination import Checkpoint, Membership, checkpoint_prefix, checkpoint_records, checkpoints
from .payload import Reader, Rejection, UnusualBatch, reader_for
from .settings import Settings, Trace
from .stats import Event, Statistics, Windows
from .trace import Ledger, Mark

log = logging.getLogger("perf")

_SHOWN_OF_A_KIND = 3
_NEVER_MS = 2**63
_NO_TIMESTAMP = 0  # Message.timestamp()'s type


#: A confluent_kafka.Message, which this package does not import.
Message = Any


class Meter:
    """Messages → deltas → statistics; says the first few of each oddity, with partition and offset."""

    def __init__(self, reader: Reader, statistics: Statistics, options: Settings, now_ms: Callable[[], float]) -> None:
        """`now_ms`: milliseconds since the epoch, by a clock that is never set."""
        self._reader = reader
        self._sources = _values if reader.source == "value" else _headers
        self._options = options
        self._receiving = options.latency == "receive"
        self._said: set[str] = set()
        self._now_ms = now_ms
        self._ready_ms: dict[int, int] = {}  # partition → since when its messages are read as they come
        self._marks = _mark_source(options.trace)
        self.warm_from_ms: float | None = None if options.warmup.seconds else 0.0
        self.read_before = 0  # messages that another consumer read of the same partition
        self.statistics = statistics

    @property
    def read(self) -> int:
        """Messages read."""
        return self.statistics.read

    @property
    def windows(self) -> Windows:
        """The averages that are printed."""
        return self.statistics.windows

    def total(self) -> Statistics:
        """All that was measured."""
        return self.statistics

    def reached(self, at_end: Set[int]) -> None:
        """The messages of these partitions are read as they come; others wait for this consumer, not for the pipeline.

        A partition that was given up and came back has a backlog again until its end is reached.
        """
        if at_end != self._ready_ms.keys():
            now_ms = int(self._now_ms())
            self._ready_ms = {number: self._ready_ms.get(number, now_ms) for number in at_end}

    def measure(self, messages: Sequence[Message]) -> list[Event]:
        """Count every one of `messages` (at least one), received just now; returns the events that they complete."""
        received_ms = int(self._now_ms())
        if self._marks is not None:
            self._trace(messages)
        if self._receiving and not all(message.partition() in self._ready_ms for message in messages):
            self.statistics.reject(Rejection.WARMUP, len(messages))
            return []
        if self.read + self.read_before >= self._options.warmup.messages and not self._options.warmup.seconds:
            return self._measure(messages, received_ms)
        events: list[Event] = []
        for in_warmup, group in groupby(zip(messages, self._warmup(messages), strict=True), itemgetter(1)):
            part = [message for message, _ in group]
            if in_warmup:
                self.statistics.reject(Rejection.WARMUP, len(part))
            else:
                events += self._measure(part, received_ms)
        return events

    def _measure(self, messages: Sequence[Message], received_ms: int) -> list[Event]:
        types, stamps_ms = zip(*[message.timestamp() for message in messages], strict=True)
        if _NO_TIMESTAMP in types:
            stamps_ms = tuple(map(_stamp_ms, messages))
        self.statistics.records(stamps_ms, types, sum(map(len, messages)))
        if self.statistics.has_create_time:
            self._say_create_time()
        partitions: list[int] = [message.partition() for message in messages]
        ends_ms = [self._end_ms(stamp_ms, received_ms) for stamp_ms in stamps_ms] if self._receiving else stamps_ms
        try:
            deltas_ms = self._reader.deltas(self._sources(messages), ends_ms)
        except UnusualBatch:
            return self._measure_singly(messages, received_ms)
        return self._add(deltas_ms, stamps_ms, partitions, received_ms)

    def _measure_singly(self, messages: Sequence[Message], received_ms: int) -> list[Event]:
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
        if self._receiving:  # the delta is what is visible, and the results' time is that of receiving
            return self.statistics.add(deltas_ms, [received_ms] * len(deltas_ms), partitions)
        ready_ms = self._ready_ms
        if ready_ms and max(stamps_ms) >= min(ready_ms.values()):
            rows = zip(deltas_ms, stamps_ms, partitions, strict=True)
            pairs = [(delta, stamp) for delta, stamp, number in rows if stamp >= ready_ms.get(number, _NEVER_MS)]
            self.statistics.add_visible([delta for delta, _ in pairs], [stamp for _, stamp in pairs], received_ms)
        return self.statistics.add(deltas_ms, stamps_ms, partitions)

    def _trace(self, messages: Sequence[Message]) -> None:
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
        warmup, read = self._options.warmup, self.read + self.read_before
        stamps_ms = list(map(_stamp_ms, messages))
        if self.warm_from_ms is None and max(stamps_ms) >= 0:
            self.warm_from_ms = next(stamp for stamp in stamps_ms if stamp >= 0) + warmup.seconds * 1000
        warm_from_ms = self.warm_from_ms or 0
        return [
            number < warmup.messages or 0 <= stamp < warm_from_ms for number, stamp in enumerate(stamps_ms, start=read)
        ]

    def _reject(self, reason: Rejection, message: Message) -> None:
        count = self.statistics.reject(reason)
        if count <= _SHOWN_OF_A_KIND:
            last = " (further ones are only counted)" if count == _SHOWN_OF_A_KIND else ""
            hint = self._reader.hint(self._sources([message])[0], _stamp_ms(message))
            log.warning("not measured: %s: %s%s%s", _place(message), reason.value, hint, last)

    def _say_negative(self, delta_ms: int, message: Message) -> None:
        if "negative" not in self._said:
            self._said.add("negative")
            log.warning(
                "%s has a negative delta, %d ms: the brokers' clocks differ, or timestamp_start is later than the "
                "result. Negative deltas are kept in all averages; the summary counts them",
                _place(message),
                delta_ms,
            )

    def _say_create_time(self) -> None:
        if "CreateTime" not in self._said:
            self._said.add("CreateTime")
            log.warning(
                "the topic %s has message.timestamp.type=CreateTime: its stamps come from the operator, not from the "
                "broker, and the deltas mean what that clock means. To measure, make it LogAppendTime, for example: "
                "kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s "
                "--add-config message.timestamp.type=LogAppendTime",
                self._options.topic,
                self._options.brokers,
                self._options.topic,
            )


@dataclass
class _Share:
    """A partition that is held: what is measured of it here, what its earlier owners measured, and what is saved."""

    meter: Meter
    before: Statistics
    epoch: int
    next_offset: int
    started_ms: float  # when its first owner began to read
    checkpoints: int = 0  # written by this process
    written_offset: int | None = None  # the next offset of the last one
    saved_results: int | None = None  # results that are in a checkpoint that Kafka has


class Shares:
    """A group member of a run: a Meter for each partition that it holds, whose state outlives this process.

    Every partition is saved in full at every handover and every few seconds, so that whoever takes it over goes on from
    there: no message is lost or counted twice, also where this process is killed. What is measured here, of whatever
    partition, is also `total()`, the process's own report.
    """

    def __init__(
        self, options: Settings, member: Membership, now_ms: Callable[[], float], clock: Sequence[ClockOffset]
    ) -> None:
        """`now_ms`: as Meter's. `clock`: the brokers' offsets from it, which go into the states."""
        self._options, self._member, self._now_ms, self._clock = options, member, now_ms, clock
        self._started_ms = now_ms()
        self._held: dict[int, _Share] = {}
        self._given_up = Statistics(latency=options.latency)
        self.windows = Windows(options.windows)

    @property
    def read(self) -> int:
        """Messages read by this process."""
        return self._given_up.read + sum(share.meter.read for share in self._held.values())

    @property
    def progress(self) -> dict[int, int]:
        """Results of each partition held that no crash can undo: different ones with a trace, else all read."""
        saved = {number: share.saved_results for number, share in self._held.items()}
        return {number: count for number, count in saved.items() if count is not None}

    @property
    def is_saved(self) -> bool:
        """Whether all that was read is on its way to Kafka."""
        return all(share.written_offset == share.next_offset for share in self._held.values())

    def take(self, starts: Mapping[int, int]) -> Mapping[int, int]:
        """See kafka.consumer.Owner: goes on from the partitions' checkpoints; a first owner leaves one at its start."""
        prefixes = tuple(checkpoint_prefix(self._member.run.run, number) for number in starts)
        found = checkpoints(self._member.journal.saved(prefixes, shards=starts))
        for number, start in starts.items():
            known = found.get(number)
            meter = Meter(
                reader_for(self._options), Statistics(self.windows, latency=self._options.latency), self._options,
                self._now_ms,
            )  # fmt: skip
            if known is None:
                share = _Share(meter, Statistics(latency=self._options.latency), 0, start, self._started_ms)
            else:
                before, started_ms = result.statistics_of(known.result), result.epoch_ms(known.result.started_at)
                share = _Share(meter, before, known.epoch + 1, known.next_offset, min(started_ms, self._started_ms))
                meter.warm_from_ms, meter.read_before = known.warm_from_ms, share.before.read
            meter.statistics.clock = list(self._clock)
            self._held[number] = share
            self._save(number, wait=True)  # from now on an earlier owner that lives on is too late
        return {number: self._held[number].next_offset for number in starts}

    def give_up(self, partitions: Sequence[int], *, lost: bool) -> None:
        """See kafka.consumer.Owner: saves them for the next owner, unless it is there already."""
        for number in partitions:
            if number not in self._held:
                continue
            if not lost:
                self._save(number, wait=True)
            self._given_up.merge(self._held.pop(number).meter.statistics)

    def reached(self, at_end: Set[int]) -> None:
        """As Meter's."""
        for number, share in self._held.items():
            share.meter.reached(at_end & {number})

    def measure(self, messages: Sequence[Message]) -> list[Event]:
        """As Meter's; what belongs to another by now, or was measured, is left to its owner or out."""
        events: list[Event] = []
        for number, group in groupby(messages, lambda message: message.partition() or 0):
            share = self._held.get(number)
            if share is None:
                continue
            least = share.next_offset
            mine = [message for message in group if (message.offset() or 0) >= least]
            if mine:
                events += share.meter.measure(mine)
                share.next_offset = (mine[-1].offset() or 0) + 1
        return events

    def total(self) -> Statistics:
        """What this process measured."""
        total = Statistics(latency=self._options.latency)
        for statistics in (self._given_up, *(share.meter.statistics for share in self._held.values())):
            total.merge(statistics)
        return total

    def leave(self, exit_code: int) -> None:
        """Save all for the last time, and say that this process is done."""
        self.save(wait=True)
        self._member.say("done", read=self.progress, exit_code=exit_code)

    def save(self, *, wait: bool) -> None:
        """Save all partitions held."""
        for number in self._held:
            self._save(number, wait=wait)

    def _save(self, number: int, *, wait: bool) -> None:
        share, member = self._held[number], self._member
        whole = Statistics(latency=self._options.latency)
        whole.merge(share.before)
        whole.merge(share.meter.statistics)
        share.checkpoints += 1
        checkpoint = Checkpoint(
            partition=number,
            epoch=share.epoch,
            number=share.checkpoints,
            next_offset=share.next_offset,
            owner=(member.index, member.attempt),
            result=result.of_statistics(
                whole, topic=self._options.topic, started_ms=share.started_ms, now_ms=self._now_ms()
            ),
            warm_from_ms=share.meter.warm_from_ms,
        )
        owner = f"{member.index}.{member.attempt}"
        results = whole.ledger.counts(None).unique if whole.ledger is not None else whole.read

        def saved() -> None:
            share.saved_results = results

        share.written_offset = share.next_offset
        member.journal.save(number, checkpoint_records(member.run.run, owner, checkpoint), wait=wait, saved=saved)


def _mark_source(trace: Trace | None) -> Callable[[Sequence[Message]], Sequence[Mark]] | None:
    """Messages → the marks that they carry, from where --trace says."""
    if trace is None:
        return None
    if trace.place == "key":
        return lambda messages: [message.key() for message in messages]
    if trace.place == "field":
        from .payload import MarkReader

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


def _place(message: Message) -> str:
    return f"partition {message.partition()}, offset {message.offset()}"
