"""One run of many processes: who is there, ready and done, and each partition's state for whoever takes it over.

There is no coordinator. Every process appends announcements to one topic, reads those of the others, and draws the
same conclusions from them. Checkpoints go to another topic, as records of at most `MOST_BYTES`. The topics themselves
are the caller's: a `Journal` hands bytes over. Definitions: docs/runs.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol

import msgspec

from .process import SIGNALLED, ExitCode
from .result import ConsumerResult, ProducerResult, Result, decoded

MOST_BYTES = 900_000
HEARTBEAT_S, SILENT_S, ABANDONED_S = 5.0, 45.0, 900.0
PRODUCER, CONSUMER = "producer", "consumer"
STARTED, READY, DONE = "started", "ready", "done"
_AGAIN = int(ExitCode.CONNECTION)  # of a process that its Job starts again


class RunError(Exception):
    """The run cannot take this process: it has ended already."""

    exit_code = 2


class NotReadyError(RunError):
    """Processes that were waited for did not come."""

    exit_code = 3


class Journal(Protocol):
    """Where announcements and checkpoints go, in the order in which they were written."""

    def announce(self, value: bytes, *, wait: bool) -> None:
        """Append an announcement; with `wait`, until it is there."""

    def announcements(self) -> list[bytes]:
        """Those that came since the last call, of all processes and runs."""

    def save(
        self, shard: int, records: Mapping[str, bytes], *, wait: bool, saved: Callable[[], None] = lambda: None
    ) -> None:
        """Append records that belong together; a later one replaces an earlier one of its key.

        `saved` is called once all of them are there.
        """

    def saved(self, prefix: str | tuple[str, ...], shards: Iterable[int] | None = None) -> dict[str, bytes]:
        """The latest record of each key that begins with `prefix` (or one of several), up to now, of these shards."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process says of itself, at each change and every few seconds.

    `attempt` tells a restarted process from its predecessor: it grows. `acknowledged` is a producer's, `read` a
    consumer's: results of each partition that it holds, those of earlier owners included, as far as they are saved.
    """

    version: int = 1
    run: str
    role: str
    index: str
    attempt: int
    state: str
    at_ms: int
    exit_code: int | None = None
    acknowledged: int = 0
    read: dict[int, int] = {}


class Member(msgspec.Struct, frozen=True):
    """A process of a run, by its latest announcement."""

    latest: Announcement
    attempts: int

    @property
    def name(self) -> str:
        """Such as `producer 3`."""
        return f"{self.latest.role} {self.latest.index}"

    @property
    def gave_up(self) -> bool:
        """Whether it ended for want of a connection, or of the others: a new one may come in its place."""
        return self.latest.exit_code == _AGAIN


class Run:
    """What the announcements of one run say."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._latest: dict[tuple[str, str], Announcement] = {}
        self._attempts: dict[tuple[str, str], dict[int, bool]] = {}  # by attempt: whether it is done
        self._heard_ms: dict[tuple[str, str], float] = {}
        self._read: dict[int, int] = {}
        self._acknowledged: dict[tuple[str, str, int], int] = {}
        self.first_ms: int | None = None

    def take(self, values: Iterable[bytes], now_ms: float = 0) -> None:
        """Take announcements in, in any order; those of other runs, or that are none, are passed over.

        `now_ms`: by the clock of `silent`, so that no two machines' clocks are compared.
        """
        for value in values:
            try:
                found = msgspec.json.decode(value, type=Announcement)
            except (msgspec.MsgspecError, RecursionError):
                continue
            if found.run == self.run:
                self._take(found)
                self._heard_ms[found.role, found.index] = now_ms

    def _take(self, found: Announcement) -> None:
        key = (found.role, found.index)
        self.first_ms = found.at_ms if self.first_ms is None else min(self.first_ms, found.at_ms)
        attempts = self._attempts.setdefault(key, {})
        attempts[found.attempt] = attempts.get(found.attempt, False) or found.state == DONE
        for partition, count in found.read.items():
            self._read[partition] = max(count, self._read.get(partition, 0))
        if found.role == PRODUCER:
            sent = (*key, found.attempt)
            self._acknowledged[sent] = max(found.acknowledged, self._acknowledged.get(sent, 0))
        latest = self._latest.get(key)
        if latest is None or (found.attempt, found.state == DONE) >= (latest.attempt, latest.state == DONE):
            self._latest[key] = found

    def members(self, role: str) -> list[Member]:
        """The processes of a role, each by its latest attempt."""
        found = [
            Member(latest, len(self._attempts[key])) for key, latest in self._latest.items() if latest.role == role
        ]
        return sorted(found, key=lambda member: (len(member.latest.index), member.latest.index))

    def ended(self, now_ms: float) -> bool:
        """Whether all consumers are done, after which nothing is measured any more, or nobody was heard for long."""
        consumers = self.members(CONSUMER)
        if consumers and all(member.latest.state == DONE and not member.gave_up for member in consumers):
            return True
        latest_ms = max((latest.at_ms for latest in self._latest.values()), default=now_ms)
        return now_ms - latest_ms > ABANDONED_S * 1_000

    @property
    def acknowledged(self) -> int | None:
        """Input messages in Kafka; None while a producer, or an attempt of one, has not told its last count."""
        done = [done for key, attempts in self._attempts.items() if key[0] == PRODUCER for done in attempts.values()]
        return sum(self._acknowledged.values()) if all(done) else None

    @property
    def read(self) -> int:
        """Results that the consumers read and saved, each once."""
        return sum(self._read.values())

    def missing(self, wanted: Mapping[str, int], *, at_the_end: bool = False) -> dict[str, int]:
        """How many processes of each role are not ready yet, or `at_the_end` never were; empty when all are."""
        ready = {
            role: sum(
                one.latest.state in (READY, DONE) and (at_the_end or not one.gave_up) for one in self.members(role)
            )
            for role in wanted
        }
        return {role: count - ready[role] for role, count in wanted.items() if ready[role] < count}

    def producers_done(self, at_least: int, now_ms: float) -> bool:
        """Whether all producers that announced themselves, and so many at least, are done, or silent for long."""
        producers, silent = self.members(PRODUCER), self.silent(now_ms)
        return len(producers) >= max(at_least, 1) and all(
            member.latest.state == DONE or member in silent for member in producers
        )

    def oddities(
        self, finished: Set[tuple[str, int]], states: Iterable[Checkpoint], wanted: Mapping[str, int]
    ) -> tuple[list[str], dict[str, int]]:
        """What should be known of the run: notes, and sentences with the exit code that each leads to.

        `finished`: index and attempt of the producers whose result is there. `wanted`: how many of each role there
        should be.
        """
        notes: list[str] = []
        ended: dict[str, int] = {
            f"{count} of {wanted[role]} {role}s are missing": ExitCode.NO_MEASUREMENT
            for role, count in self.missing(wanted, at_the_end=True).items()
        }
        for member in (*self.members(PRODUCER), *self.members(CONSUMER)):
            latest, code = member.latest, member.latest.exit_code or 0
            if member.attempts > 1:
                notes.append(f"{member.name} was started {member.attempts} times")
            if latest.role == PRODUCER and (latest.index, latest.attempt) not in finished:
                how = (
                    f"ended with exit code {code} and"
                    if latest.state == DONE and code
                    else "crashed, or still runs: it"
                )
                ended[f"{member.name} {how} left no result"] = ExitCode.NOT_ACKNOWLEDGED
            elif latest.role == CONSUMER and latest.state != DONE and self._was_last(latest):
                ended[f"{member.name} crashed, or still runs, and nobody finished its work"] = ExitCode.NO_MEASUREMENT
            elif latest.role == CONSUMER and latest.state != DONE:
                notes.append(f"{member.name} crashed, or still runs; others took over what it had saved")
            elif latest.role == CONSUMER and 0 < code < SIGNALLED and code != ExitCode.NO_MEASUREMENT:
                ended[f"{member.name} ended with exit code {code}"] = code
        done = {(index, attempt) for (_, index), found in self._attempts.items() for attempt in found if found[attempt]}
        for state in states:
            if state.owner not in done:
                missing = f"the results of partition {state.partition} after offset {state.next_offset} are missing"
                ended[missing] = ExitCode.NO_MEASUREMENT
        return notes, ended

    def _was_last(self, crashed: Announcement) -> bool:
        """Whether no consumer that is done was heard after this one, so that none can have taken its partitions."""
        return all(
            member.latest.state != DONE or member.latest.at_ms <= crashed.at_ms for member in self.members(CONSUMER)
        )

    def silent(self, now_ms: float) -> list[Member]:
        """Processes that are not done, and of which nothing was heard for long: crashed, or cut off."""
        return [
            member
            for role in (PRODUCER, CONSUMER)
            for member in self.members(role)
            if member.latest.state != DONE
            and now_ms - self._heard_ms.get((role, member.latest.index), now_ms) > SILENT_S * 1_000
        ]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's whole state: who takes it over goes on at `next_offset` with `result`.

    Each owner has a higher `epoch` than the one before, so that one that was believed dead cannot undo its
    successor's work; `number` counts an owner's checkpoints, and `owner` is its index and attempt. `warm_from_ms`: when
    the warm-up ends, if that is known.
    """

    partition: int
    epoch: int
    number: int
    next_offset: int
    owner: tuple[str, int]
    result: ConsumerResult
    warm_from_ms: float | None = None


def checkpoint_records(run: str, owner: str, checkpoint: Checkpoint) -> dict[str, bytes]:
    """The records of a checkpoint. Two sets of keys take turns, so that the last whole one survives a crash between."""
    key = f"{run}/{CONSUMER}/{checkpoint.partition}/{checkpoint.epoch}/{owner}/{checkpoint.number % 2}"
    return _in_parts(key, msgspec.json.encode(checkpoint))


def checkpoint_prefix(run: str, partition: int | None = None) -> str:
    """What the keys of a run's checkpoints begin with."""
    return f"{run}/{CONSUMER}/" + ("" if partition is None else f"{partition}/")


def checkpoints(records: Mapping[str, bytes]) -> dict[int, Checkpoint]:
    """The state of each partition: the latest owner's last checkpoint that is whole."""
    found: dict[int, Checkpoint] = {}
    for value in _whole(records).values():
        one = msgspec.json.decode(value, type=Checkpoint)
        known = found.get(one.partition)
        if known is None or (one.epoch, one.next_offset, one.number) > (known.epoch, known.next_offset, known.number):
            found[one.partition] = one
    return found


def result_records(run: str, role: str, index: str, attempt: int, result: Result) -> dict[str, bytes]:
    """The records of a process's result."""
    return _in_parts(f"{run}/result/{role}/{index}/{attempt}", msgspec.json.encode(result))


def result_prefix(run: str, role: str) -> str:
    """What the keys of a role's results begin with."""
    return f"{run}/result/{role}/"


def results(records: Mapping[str, bytes]) -> dict[tuple[str, int], Result]:
    """The results in these records, by the process's index and attempt. Raises ResultError for another version's."""
    found = {}
    for name, value in _whole(records).items():
        _, index, attempt = name.rsplit("/", 2)
        found[index, int(attempt)] = decoded(value, f"the result {name}", ConsumerResult | ProducerResult)
    return found


class _Part(msgspec.Struct, frozen=True, array_like=True):
    of: int
    crc: int  # of the whole: parts of two writings never go together
    data: bytes


def _in_parts(key: str, value: bytes) -> dict[str, bytes]:
    packed = zlib.compress(value, 1)
    pieces = [packed[at : at + MOST_BYTES] for at in range(0, len(packed), MOST_BYTES)]
    crc = zlib.crc32(packed)
    return {
        f"{key}/{number}": msgspec.msgpack.encode(_Part(len(pieces), crc, piece)) for number, piece in enumerate(pieces)
    }


def _whole(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The values of which all parts are there, by their keys."""
    parts: dict[str, dict[int, _Part]] = {}
    for key, value in records.items():
        name, _, number = key.rpartition("/")
        parts.setdefault(name, {})[int(number)] = msgspec.msgpack.decode(value, type=_Part)
    found = {}
    for name, several in parts.items():
        first = several.get(0)
        wanted: Sequence[int] = range(first.of) if first else ()
        packed = b"".join(several[number].data for number in wanted if number in several)
        if first and zlib.crc32(packed) == first.crc:
            found[name] = zlib.decompress(packed)
    return found


class Identity(msgspec.Struct, frozen=True):
    """What tells a process from the others of its role; `attempt` grows with each restart under the same index."""

    index: str
    attempt: int


class Membership:
    """This process's part in a run: it announces itself, and knows of the others."""

    def __init__(self, journal: Journal, run: str, role: str, identity: Identity, now_ms: Callable[[], float]) -> None:
        self.journal, self.run = journal, Run(run)
        self.role, self.index, self.attempt = role, identity.index, identity.attempt
        self._now_ms = now_ms
        self.state = STARTED
        self._said_ms = 0.0

    @classmethod
    def joined(
        cls, journal: Journal, run: str, role: str, identity: Identity, now_ms: Callable[[], float]
    ) -> Membership:
        """This process in the run. Raises RunError when the run has ended."""
        member = cls(journal, run, role, identity, now_ms)
        member.look()
        if member.run.ended(now_ms()):
            raise RunError(f"the run {run} has ended: its consumers are done, or long gone. Take another RUN_ID")
        member.say(STARTED)
        return member

    def publish(self, result: Result) -> None:
        """Keep this process's result in the run."""
        self.journal.save(0, result_records(self.run.run, self.role, self.index, self.attempt, result), wait=True)

    def producers_done(self, at_least: int) -> bool:
        """As Run's, now."""
        return self.run.producers_done(at_least, self._now_ms())

    def look(self) -> None:
        """Take in what the others said."""
        self.run.take(self.journal.announcements(), self._now_ms())

    def say(
        self,
        state: str,
        acknowledged: int = 0,
        read: Mapping[int, int] | None = None,
        exit_code: int | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Announce a state, or how far this process is; a state that could not be announced is not taken on."""
        now_ms = self._now_ms()
        value = Announcement(
            run=self.run.run,
            role=self.role,
            index=self.index,
            attempt=self.attempt,
            state=state,
            at_ms=int(now_ms),
            exit_code=exit_code,
            acknowledged=acknowledged,
            read=dict(read or {}),
        )
        self.journal.announce(msgspec.json.encode(value), wait=wait)
        self.state, self._said_ms = state, now_ms

    def others_ready(self, wanted: Mapping[str, int], *, waited_s: float, timeout_s: float) -> bool:
        """Whether so many of each role are ready. Raises NotReadyError that names who is missing."""
        missing = self.run.missing(wanted)
        if missing and waited_s > timeout_s:
            names = ", ".join(f"{count} of {wanted[role]} {role}s" for role, count in missing.items())
            raise NotReadyError(f"waited {timeout_s:g} s for the others of run {self.run.run}; missing: {names}")
        return not missing

    def heartbeat(self, *, acknowledged: int = 0, read: Mapping[int, int] | None = None, at_once: bool = False) -> None:
        """Say how far this process is, and take in the others, if it is time to; never waits for Kafka."""
        if at_once or self._now_ms() - self._said_ms >= HEARTBEAT_S * 1_000:
            self.say(self.state, acknowledged, read, wait=False)
            self.look()
