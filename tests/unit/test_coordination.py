"""One run of many processes: announcements in any order, several owners, records that were half written."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import measure

from perf import coordination, process, result
from perf.coordination import (
    CONSUMER,
    DONE,
    MOST_BYTES,
    PRODUCER,
    READY,
    STARTED,
    Announcement,
    Checkpoint,
    Identity,
    Membership,
    NotReadyError,
    Run,
    RunError,
    checkpoint_prefix,
    checkpoint_records,
    checkpoints,
)
from perf.stats import Statistics
from perf.trace import Ledger


class Journal:
    """The topics of a run, in memory: every process has its own place in the announcements."""

    def __init__(self, log: list[bytes] | None = None, records: dict[str, bytes] | None = None) -> None:
        self.log = [] if log is None else log
        self.records = {} if records is None else records
        self._seen = 0

    def announce(self, value: bytes, *, wait: bool) -> None:  # noqa: ARG002
        """Append it."""
        self.log.append(value)

    def announcements(self) -> list[bytes]:
        """What is new."""
        found, self._seen = self.log[self._seen :], len(self.log)
        return found

    def save(
        self,
        shard: int,  # noqa: ARG002
        records: Mapping[str, bytes],
        *,
        wait: bool,  # noqa: ARG002
        saved: Callable[[], None] = lambda: None,
    ) -> None:
        """Replace what has the same key."""
        self.records.update(records)
        saved()

    def saved(self, prefix: str | tuple[str, ...], shards: Iterable[int] | None = None) -> dict[str, bytes]:  # noqa: ARG002
        """All of that prefix."""
        return {key: value for key, value in self.records.items() if key.startswith(prefix)}

    def other(self) -> Journal:
        """The same topics, as another process sees them."""
        return Journal(self.log, self.records)


def said(  # noqa: PLR0917
    role: str, index: str, state: str, attempt: int = 1, at_ms: int = 0, acknowledged: int = 0, read: int = 0
) -> bytes:
    """An announcement in the run r."""
    reads = {int(index): read} if read else {}
    return msgspec.json.encode(
        Announcement(
            run="r", role=role, index=index, attempt=attempt, state=state, at_ms=at_ms, acknowledged=acknowledged,
            read=reads,
        )
    )  # fmt: skip


def seen(*values: bytes) -> Run:
    """What these announcements say."""
    found = Run("r")
    found.take(values)
    return found


def checkpoint(partition: int, epoch: int, number: int, next_offset: int, deltas_ms: list[int]) -> Checkpoint:
    """The state of a partition in which these deltas were measured."""
    statistics = Statistics()
    measure(statistics, deltas_ms)
    return Checkpoint(
        partition=partition,
        epoch=epoch,
        number=number,
        next_offset=next_offset,
        owner=("0", 1),
        result=result.of_statistics(statistics, topic="t", started_ms=0, now_ms=1_000),
    )


def test_the_barrier_counts_processes_and_not_announcements() -> None:
    """A process that says twice that it is ready, or is restarted, counts once; one that is done counts, too."""
    values = [said(PRODUCER, "0", READY), said(PRODUCER, "0", READY, attempt=2), said(CONSUMER, "0", STARTED)]
    assert seen(*values).missing({"producer": 2, "consumer": 1}) == {"producer": 1, "consumer": 1}
    values += [said(PRODUCER, "1", DONE), said(CONSUMER, "0", READY)]
    assert seen(*values).missing({"producer": 2, "consumer": 1}) == {}


def test_a_restarted_process_is_not_ready_until_it_says_so() -> None:
    """Its latest attempt counts."""
    values = [said(PRODUCER, "0", READY), said(PRODUCER, "0", STARTED, attempt=2)]
    assert seen(*values).missing({"producer": 1}) == {"producer": 1}


def test_who_is_missing_is_named_when_the_time_is_over() -> None:
    """The barrier is bounded, and ends in exit code 3."""
    member = Membership(Journal(), "r", PRODUCER, Identity("0", 1), lambda: 0)
    member.say(READY)
    member.look()
    wanted = {"producer": 4, "consumer": 2}
    assert not member.others_ready(wanted, waited_s=9.9, timeout_s=10)
    with pytest.raises(NotReadyError, match="3 of 4 producers, 2 of 2 consumers") as caught:
        member.others_ready(wanted, waited_s=10.1, timeout_s=10)
    assert caught.value.exit_code == 3


def test_who_gave_up_is_neither_ready_nor_the_end_of_the_run() -> None:
    """A process that ended with 3 is started again: nobody begins because of it, and its successor is taken."""
    journal = Journal()
    member = Membership(journal, "r", CONSUMER, Identity("0", 1), lambda: 0.0)
    member.say(READY)
    member.say(DONE, exit_code=3)
    run = Run("r")
    run.take(journal.announcements())
    assert run.missing({CONSUMER: 1}) == {CONSUMER: 1}
    assert not run.ended(0)
    successor = Membership.joined(journal.other(), "r", CONSUMER, Identity("0", 2), lambda: 0.0)
    successor.say(READY)
    run.take(journal.announcements())
    assert run.missing({CONSUMER: 1}) == {}
    successor.say(DONE, exit_code=0)
    run.take(journal.announcements())
    assert run.ended(0)


def test_a_run_that_has_ended_is_refused() -> None:
    """It has once all of its consumers are done; producers that are done, or a consumer that crashed, do not end it."""
    journal = Journal()
    journal.log += [said(PRODUCER, "0", DONE), said(CONSUMER, "0", DONE), said(CONSUMER, "1", READY)]
    Membership.joined(journal.other(), "r", PRODUCER, Identity("1", 1), lambda: 0)
    journal.log.append(said(CONSUMER, "1", DONE))
    with pytest.raises(RunError, match="the run r has ended") as caught:
        Membership.joined(journal.other(), "r", CONSUMER, Identity("2", 1), lambda: 0)
    assert caught.value.exit_code == 2
    Membership.joined(journal.other(), "another", CONSUMER, Identity("2", 1), lambda: 0)


@given(
    st.lists(
        st.builds(
            said,
            st.sampled_from([PRODUCER, CONSUMER]),
            st.sampled_from("012"),
            st.sampled_from([STARTED, READY, DONE]),
            st.integers(1, 3),
            st.integers(0, 100),
            st.integers(0, 50),
            st.integers(0, 50),
        ),
        max_size=20,
    ),
    st.randoms(),
)
def test_counts_do_not_depend_on_the_order(values: list[bytes], shuffle: random.Random) -> None:
    """What was acknowledged and read is the same in whatever order, and however often, announcements are taken in."""
    shuffled = [*values, *values[:5]]
    shuffle.shuffle(shuffled)
    one, other = seen(*values), seen(*shuffled)
    assert (one.acknowledged, one.read, one.first_ms) == (other.acknowledged, other.read, other.first_ms)


def test_what_is_no_announcement_is_passed_over() -> None:
    """Other runs, other formats and rubbish in the topic do no harm."""
    other = msgspec.json.encode(
        Announcement(run="q", role=PRODUCER, index="0", attempt=1, state=DONE, at_ms=0, acknowledged=9)
    )
    found = seen(other, b"", b"hello", b"[" * 100_000, b'{"run":"r"}', said(PRODUCER, "0", DONE, acknowledged=3))
    assert (found.acknowledged, len(found.members(PRODUCER))) == (3, 1)


def test_producers_are_done_when_all_are_or_are_silent() -> None:
    """One that is neither keeps the consumers; one that fell silent long ago does not for ever."""
    found = Run("r")
    found.take([said(PRODUCER, "0", DONE), said(PRODUCER, "1", READY, at_ms=10**12)], now_ms=1_000)
    assert not found.producers_done(2, 2_000)
    assert not found.producers_done(3, 10**9)
    assert found.producers_done(2, 10**9)
    assert [member.name for member in found.silent(10**9)] == ["producer 1"]
    assert not seen().producers_done(0, 10**9), "nobody has come yet"


def test_silence_is_judged_by_one_clock() -> None:
    """A process whose clock is hours behind or ahead is not silent for it: what counts is when it was heard."""
    found = Run("r")
    found.take([said(PRODUCER, "0", READY, at_ms=5), said(PRODUCER, "1", READY, at_ms=10**15)], now_ms=10**9)
    assert found.silent(10**9 + 40_000) == []
    assert len(found.silent(10**9 + 50_000)) == 2


def test_what_was_acknowledged_is_known_when_every_attempt_has_told() -> None:
    """A producer that was killed has not said how much more it sent, whatever its successor says."""
    killed, successor = said(PRODUCER, "0", READY, acknowledged=200), said(PRODUCER, "0", DONE, 2, acknowledged=1_000)
    assert seen(successor).acknowledged == 1_000
    assert seen(killed, successor).acknowledged is None


def test_a_run_that_nobody_was_heard_of_has_ended() -> None:
    """A run whose consumers crashed takes no more processes a quarter of an hour later."""
    journal = Journal()
    journal.log += [said(PRODUCER, "0", DONE, at_ms=5), said(CONSUMER, "0", READY, at_ms=5)]
    Membership.joined(journal.other(), "r", PRODUCER, Identity("1", 1), lambda: 60_000)
    fresh = Journal([said(CONSUMER, "0", READY, at_ms=5)])
    with pytest.raises(RunError, match="the run r has ended"):
        Membership.joined(fresh, "r", PRODUCER, Identity("1", 1), lambda: 1_000_000)


@pytest.mark.parametrize(
    ("values", "owner", "code"),
    [
        ([said(CONSUMER, "0", DONE, at_ms=9)], ("0", 1), None),
        ([said(CONSUMER, "0", READY, at_ms=9)], ("0", 1), 5),
        ([said(CONSUMER, "0", READY, at_ms=5), said(CONSUMER, "1", DONE, at_ms=9)], ("1", 1), None),
        ([said(CONSUMER, "0", READY, at_ms=5), said(CONSUMER, "1", DONE, at_ms=9)], ("0", 1), 5),
        ([said(CONSUMER, "0", READY, at_ms=9), said(CONSUMER, "1", DONE, at_ms=5)], ("1", 1), 5),
        ([said(CONSUMER, "0", READY, 1), said(CONSUMER, "0", DONE, 2, at_ms=9)], ("0", 2), None),
    ],
)
def test_an_unfinished_run_is_no_valid_one(values: list[bytes], owner: tuple[str, int], code: int | None) -> None:
    """Where a consumer that is not done may have been the last to hold a partition, results are missing."""
    state = msgspec.structs.replace(checkpoint(0, 0, 1, 10, [1]), owner=owner)
    _, ended = seen(*values).oddities(set(), [state], {})
    assert set(ended.values()) == ({code} if code else set())


def test_missing_processes_are_told() -> None:
    """Those that were to be there and never came make the run incomplete."""
    _, ended = seen(said(CONSUMER, "0", DONE)).oddities(set(), [], {"producer": 2, "consumer": 1})
    assert ended == {"2 of 2 producers are missing": 5}


def test_the_index_is_kubernetes_or_tells_processes_of_a_host_apart() -> None:
    """A completion index survives a restart, whose attempt is higher; without one, host and process have to do."""
    one, two = (process.identity({"JOB_COMPLETION_INDEX": "3"}) for _ in range(2))
    assert (one.index, two.index) == ("3", "3")
    assert one.attempt < two.attempt
    assert process.identity({}).index.endswith(f"-{os.getpid()}")


def test_the_latest_owners_checkpoint_counts() -> None:
    """An owner that was believed dead and writes later than its successor changes nothing."""
    journal = Journal()
    for owner, one in (
        ("a", checkpoint(4, 0, 1, 10, [1] * 10)),
        ("b", checkpoint(4, 1, 1, 10, [1] * 10)),
        ("b", checkpoint(4, 1, 2, 30, [1] * 30)),
        ("a", checkpoint(4, 0, 2, 25, [1] * 25)),
        ("b", checkpoint(5, 0, 1, 7, [2] * 7)),
    ):
        journal.save(0, checkpoint_records("r", owner, one), wait=True)
    found = checkpoints(journal.saved(checkpoint_prefix("r")))
    assert {number: (one.epoch, one.next_offset) for number, one in found.items()} == {4: (1, 30), 5: (0, 7)}
    assert found[4].result.summary.measured == 30
    assert list(checkpoints(journal.saved(checkpoint_prefix("r", 5)))) == [5]


def large(number: int, seed: int) -> Checkpoint:
    """A checkpoint of several records: its ledger has bits that no compression makes smaller."""
    ledger, chooser = Ledger(), random.Random(seed)
    seqs = sorted(chooser.sample(range(16_000_000), 250_000))
    ledger.record_all([f"r/p/0/0/{seq}" for seq in seqs], [0] * len(seqs), range(len(seqs)))
    statistics = Statistics()
    measure(statistics, [seed] * len(seqs))
    statistics.ledger = ledger
    return Checkpoint(
        partition=0,
        epoch=0,
        number=number,
        next_offset=number,
        owner=("0", 1),
        result=result.of_statistics(statistics, topic="t", started_ms=0, now_ms=1_000),
    )


def test_a_crash_between_two_records_leaves_the_last_whole_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record stays small; whichever records of the next checkpoint were written, the one before still counts."""
    monkeypatch.setattr(coordination, "MOST_BYTES", 100_000)
    first, second, third = (checkpoint_records("r", "a", large(number, seed=number)) for number in (1, 2, 3))
    assert len(first) > 2 and max(map(len, first.values())) < 101_000
    assert checkpoints({**first, **second})[0].number == 2
    for written in range(len(third)):
        half = dict(list(third.items())[:written])
        assert checkpoints({**first, **second, **half})[0].number == 2
    found = checkpoints({**first, **second, **third})[0]
    assert (found.number, found.result.summary.measured) == (3, 250_000)


def test_records_are_within_what_kafka_takes() -> None:
    """A record's limit is under the million bytes that brokers take by default."""
    assert MOST_BYTES + 1_000 < 1_000_000
