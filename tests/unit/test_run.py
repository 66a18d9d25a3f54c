"""One run's results become a report: status, verdict, backlog, and a file that can be read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import START_MS, Sample, consumer, producer

from perf import result
from perf.limits import parse
from perf.result import Result, ResultError
from perf.run import read, report_at, report_of
from perf.series import TimeSeries

GOOD = [(number * 10, 5 + number % 7) for number in range(400)]


@pytest.mark.parametrize(
    ("results", "limits", "status", "code", "words"),
    [
        (
            [consumer(GOOD)],
            [],
            "valid",
            0,
            "Half of 400 results came within 8 ms, 99 % within 11 ms, all within 11 ms.",
        ),
        ([consumer(GOOD)], ["p99 > 1s"], "valid", 0, "the limit holds."),
        (
            [consumer(GOOD), producer(400)],
            ["p99 > 1s", "p50 > 7ms"],
            "exceeded",
            6,
            "1 of 2 limits exceeded (p50 > 7ms",
        ),
        (
            [consumer(GOOD), producer(9, failed=2)],
            [],
            "incomplete",
            4,
            "2 of 9 messages sent were not acknowledged; half",
        ),
        ([consumer([]), producer(9)], ["p99 > 1s"], "invalid", 5, "INVALID: nothing was measured."),
        ([consumer(GOOD, kind=1)], [], "uncertain", 0, "Uncertain: the operator's side stamped results"),
        ([producer(1_200)], [], "valid", 0, "All 1,200 messages were acknowledged."),
    ],
)
def test_the_verdict_names_the_worst_first(
    results: Sequence[Result], limits: Sequence[str], status: str, code: int, words: str
) -> None:
    """A run's status, exit code and sentence follow what is worst in it."""
    report = report_of(results, sources=["r.json"], limits=[parse(text) for text in limits])
    assert (report.status, report.exit_code) == (status, code)
    assert words in report.verdict
    assert report.verdict.endswith(".") and not report.verdict[0].islower()


def test_lost_messages_stand_in_the_verdict() -> None:
    """Of ten marked messages eight came out: the verdict says 2 lost, and that of a complete run none."""
    marks = [b"r/p/0/0/%d" % number for number in range(8)]
    found = report_of([consumer(GOOD, marks=marks), producer(10, marked={"r/p/0/0": 10})], sources=[])
    assert found.ledger is not None and found.ledger.lost == 2
    assert "; 2 lost." in found.verdict
    assert (
        "; none lost."
        in report_of([consumer(GOOD, marks=marks), producer(8, marked={"r/p/0/0": 8})], sources=[]).verdict
    )


def test_results_that_did_not_come_make_a_run_incomplete() -> None:
    """Of 500 messages 400 came out: with a ratio declared that is 4; without, an operator may drop what it likes."""
    results: list[Result] = [consumer(GOOD), producer(500)]
    read_in_all = 400 + 7  # 7 in the warm-up
    assert report_of(results, sources=[]).exit_code == 0
    found = report_of(results, sources=[], expect_ratio=1.0)
    assert (found.status, found.exit_code, found.missing) == ("incomplete", 4, 500 - read_in_all)
    assert found.verdict.startswith("93 of the results that were expected did not come; half of 400")
    more = report_of([consumer(GOOD), producer(200)], sources=[], expect_ratio=1.0)
    assert (more.status, more.exit_code, more.missing) == ("uncertain", 0, 200 - read_in_all)
    assert more.verdict.startswith("Not all results are of this run, or a message has more of them than --expect-ratio")
    assert more.verdict.endswith("; 207 results more than were expected.")


@pytest.mark.parametrize(("sent", "missing"), [(814, 0), (900, 0), (710, 0), (1_100, 143), (600, -107)])
def test_a_ratio_that_is_a_mean_leaves_room_for_chance(sent: int, missing: int) -> None:
    """A filter lets about half of the messages through: four standard deviations are chance, more is not."""
    found = report_of([consumer(GOOD), producer(sent)], sources=[], expect_ratio=0.5)
    assert found.missing == missing
    assert found.exit_code == (4 if missing > 0 else 0)


def test_some_duplicates_leave_a_run_valid() -> None:
    """An operator that works at least once may double a few results: that is told, and no doubt about the others."""
    found = report_of([consumer(GOOD), producer(395)], sources=[], expect_ratio=1.0)
    assert (found.status, found.missing) == ("valid", -12)
    assert found.verdict.endswith("; 12 results more than were expected.")


def test_results_of_earlier_messages_are_told() -> None:
    """An operator that works off what was there before the run makes results that are as old as that: not this run's.
    Five seconds are left to the clocks."""
    for older_ms, status in ((4_000, "valid"), (760_000, "uncertain")):
        samples = [*GOOD, (2_000, 2_000 + older_ms)]
        found = report_of([consumer(samples), producer(400)], sources=[])
        assert (found.status, found.exit_code) == (status, 0)
    counted = report_of([consumer(samples), producer(408)], sources=[], expect_ratio=1.0)
    assert (counted.status, counted.missing) == ("valid", 0)  # as many as expected: a clock that is wrong
    assert found.verdict.startswith(
        "Not all results are of this run: the oldest is of a message stamped 759 s before the first one was sent"
    )


@pytest.mark.parametrize(
    ("changes", "known"),
    [({}, {"ended": {"the producer-2 left no result": 4}}), ({}, {"began_ms": 1_795_420_000_000.0}),
     ({"acknowledged": 200}, {})],
    ids=["a producer without a result", "a producer that was started again", "messages without an answer"],
)  # fmt: skip
def test_results_that_may_be_of_this_run_are_not_called_others(
    changes: dict[str, object], known: dict[str, Any]
) -> None:
    """What a producer sent that left no result, or before it was started again, or what Kafka took without an answer,
    came from this run."""
    sent = producer(400)
    sent = msgspec.structs.replace(sent, summary=msgspec.structs.replace(sent.summary, **changes))
    samples = [*GOOD, *([(2_000, 762_000)] if "began_ms" in known else [])]
    found = report_of([consumer(samples), sent], sources=[], expect_ratio=1.0, **known)
    assert "not all results" not in found.verdict.lower()


def test_an_operator_that_does_not_run_is_thought_of() -> None:
    """Where nothing at all came back the verdict asks for it, by the topics' names."""
    nothing = consumer([])
    summary = msgspec.structs.replace(nothing.summary, messages_read=0)
    found = report_of([msgspec.structs.replace(nothing, summary=summary), producer(9)], sources=[], expect_ratio=1.0)
    assert found.verdict == (
        "INVALID: none of 9 messages had a result; is the operator running, and does it read inputs and write results?"
    )


def test_a_load_that_was_not_sent_as_declared_is_told() -> None:
    """Messages that were due and not sent make a run incomplete; a producer that fell behind makes it uncertain."""
    sent = producer(400)
    left = msgspec.structs.replace(sent, summary=msgspec.structs.replace(sent.summary, not_sent=600))
    found = report_of([consumer(GOOD), left], sources=[])
    assert (found.status, found.exit_code) == ("incomplete", 4)
    assert found.verdict.startswith("600 messages that were due were not sent; half of")
    behind = msgspec.structs.replace(sent.summary.lateness_ms, p50=700.0)
    late = msgspec.structs.replace(sent, summary=msgspec.structs.replace(sent.summary, lateness_ms=behind))
    found = report_of([consumer(GOOD), late], sources=[])
    assert (found.status, found.exit_code) == ("uncertain", 0)
    assert found.verdict.startswith("The load was not as declared: half of it was over 700 ms late; half of")


def test_an_invalid_run_says_what_is_known_of_the_cause() -> None:
    """That nothing was measured because the producer had a wrong setting stands in one sentence."""
    wrong = {"the producer ended with exit code 2 and left no result": 2}
    found = report_of([consumer([])], sources=[], ended=wrong)
    assert (found.status, found.exit_code) == ("invalid", 2)
    assert found.verdict == ("INVALID: nothing was measured; the producer ended with exit code 2 and left no result.")


def test_lost_marks_make_a_run_incomplete_where_all_are_expected() -> None:
    """With a mark on each message, what is missing is what was lost, whatever was doubled."""
    marks = [b"r/p/0/0/%d" % number for number in [*range(390), *range(10)]]
    found = report_of(
        [consumer(GOOD, marks=marks), producer(400, marked={"r/p/0/0": 400})], sources=[], expect_ratio=1.0
    )
    assert (found.status, found.exit_code, found.missing) == ("incomplete", 4, 10)
    assert found.verdict.startswith("10 messages were lost; half of")
    assert "did not come" not in found.verdict and "; 10 lost" not in found.verdict


def test_nobody_says_none_lost_where_a_process_said_nothing() -> None:
    """Marks of a producer without a result, or a process that left none, forbid it."""
    results: list[Result] = [consumer(GOOD, marks=[b"r/p/0/0/1", b"r/q/0/0/1"]), producer(2, marked={"r/p/0/0": 2})]
    assert "1 lost" in report_of(results, sources=[]).verdict  # message 0 of p
    results = [consumer(GOOD, marks=[b"r/p/0/0/0", b"r/q/0/0/0"]), producer(1, marked={"r/p/0/0": 1})]
    assert "lost" not in report_of(results, sources=[]).verdict  # q's are unexpected
    results = [consumer(GOOD, marks=[b"r/p/0/0/0"]), producer(1, marked={"r/p/0/0": 1})]
    assert "none lost" in report_of(results, sources=[]).verdict
    assert "lost" not in report_of(results, sources=[], ended={"the producer-2 was ended by SIGKILL": 4}).verdict


def test_a_run_without_a_consumers_result_is_invalid(tmp_path: Path) -> None:
    """A consumer that was killed leaves no measurement: 5, and the verdict tells, also when it is read again."""
    killed = {"the consumer was ended by SIGKILL and left no result": 5}
    found = report_of([producer(9)], sources=[], ended=killed)
    assert (found.status, found.exit_code) == ("invalid", 5)
    assert found.verdict == "INVALID: the consumer was ended by SIGKILL and left no result."
    result.write(tmp_path / "report.json", found)
    assert report_at(tmp_path / "report.json").verdict == found.verdict
    assert report_at(tmp_path / "report.json").exit_code == 5


def test_a_report_can_be_read_as_results(tmp_path: Path) -> None:
    """A report of a report is the same one, and a folder is all the results in it."""
    first = report_of([producer(10), producer(5), consumer(GOOD)], sources=["a", "b", "c"])
    result.write(tmp_path / "report.json", first)
    again = report_of(read(tmp_path / "report.json").results, sources=["a", "b", "c"])
    assert msgspec.structs.replace(again, producers=2) == first
    (tmp_path / "folder").mkdir()
    for name, one in (("p", producer(10)), ("q", producer(5)), ("c", consumer(GOOD))):
        result.write(tmp_path / "folder" / f"{name}.json", one)
    assert report_of(read(tmp_path / "folder").results, sources=["a", "b", "c"]) == first
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match="there is no result"):
        read(empty)


def test_a_report_that_is_read_again_keeps_its_limits(tmp_path: Path) -> None:
    """An exceeded limit stays exceeded, unless other limits are given."""
    first = report_of([consumer(GOOD)], sources=["c"], limits=[parse("p50 > 7ms"), parse("p99 > 1s")])
    result.write(tmp_path / "report.json", first)
    assert (report_at(tmp_path / "report.json").status, first.exit_code) == ("exceeded", 6)
    assert report_at(tmp_path / "report.json").limits == first.limits
    assert report_at(tmp_path / "report.json", limits=[parse("p99 > 1s")]).status == "valid"


def test_a_folder_with_its_report_counts_nothing_twice(tmp_path: Path) -> None:
    """As PerfRun.py leaves it: results, the report of them, and files of other kinds; two reports are refused."""
    parts: list[Result] = [producer(10), consumer(GOOD)]
    for number, part in enumerate(parts):
        result.write(tmp_path / f"{number}.json", part)
    alone = read(tmp_path).results
    result.write(tmp_path / "report.json", report_of(parts, sources=["x"]))
    (tmp_path / "capacity.json").write_text('{"kind":"capacity","version":1}')
    assert sorted(map(repr, read(tmp_path).results)) == sorted(map(repr, alone))
    result.write(tmp_path / "other.json", report_of(parts, sources=["y"]))
    with pytest.raises(ResultError, match="several reports"):
        read(tmp_path)


def test_versions_of_merged_results_are_kept_apart() -> None:
    """Where pods have different versions, all of them are named; an old result without any can be read."""
    several = [consumer(GOOD, versions={"tool": "1", "python": which}) for which in ("3.12.1", "3.11.7", "3.12.1")]
    assert result.merged([*several, consumer(GOOD)]).versions == {"python": "3.11.7, 3.12.1", "tool": "1"}


# ----------------------------------------------------------------------------------------------------------- backlog


def in_pipeline(samples: Sequence[Sample], begin_ms: float, end_ms: float) -> float:
    """The mean number of messages between input and result, added up message by message."""
    spans = [min(stamp_ms, end_ms) - max(stamp_ms - delta_ms, begin_ms) for stamp_ms, delta_ms in samples]
    return sum(max(span_ms, 0) for span_ms in spans) / (end_ms - begin_ms)


def series_of(samples: Sequence[Sample]) -> TimeSeries:
    """The time series of these results."""
    series = TimeSeries()
    for stamp_ms, delta_ms in samples:
        series.add((START_MS + stamp_ms) // 1_000, {delta_ms: 1})
    return series


def test_the_backlog_of_a_stall() -> None:
    """100 messages a second, a stall of 3 s, then all at once: the backlog is that of counting message by message."""
    steady = [(second * 1_000 + 5 + 10 * number, 4) for second in (*range(4), *range(7, 10)) for number in range(100)]
    stalled = [(7_000 + number, 3_000 - 10 * number + number) for number in range(300)]
    rows = series_of(steady + stalled).backlog()
    assert [row.start_ms - START_MS for row in rows] == list(range(0, 10_000, 1_000))
    exact = [in_pipeline(steady + stalled, at * 1_000, (at + 1) * 1_000) for at in range(10)]
    assert exact[6] > 200
    for row, expected in zip(rows, exact, strict=True):
        assert row.messages == pytest.approx(expected, abs=150)  # results of a second are taken to come in its middle
    assert sum(row.messages for row in rows) == pytest.approx(sum(exact), rel=0.2)


samples = st.lists(st.tuples(st.integers(0, 30_000), st.integers(-50, 900)), min_size=1, max_size=60)


@given(samples)
def test_the_backlog_keeps_littles_law(samples: list[Sample]) -> None:
    """Mean backlog times its time is the sum of the deltas, where none reaches back before the first row."""
    samples = [(stamp_ms + 2_000, delta_ms) for stamp_ms, delta_ms in samples] + [(0, 0)]
    rows = series_of(samples).backlog()
    total = sum(row.messages * row.width_s * 1_000 for row in rows)
    positive = [delta_ms for _, delta_ms in samples if delta_ms > 0]
    assert total == pytest.approx(sum(positive), rel=0.011, abs=1e-6)


def test_a_topic_of_years_has_a_small_backlog_table() -> None:
    """Two results a year apart give at most 1,000 rows, the stalled year among them."""
    rows = series_of([(0, 1), (365 * 86_400_000, 364 * 86_400_000)]).backlog()
    assert len(rows) <= 1_000
    assert rows[500].messages == pytest.approx(1, rel=0.01)
