"""Results of several processes become one, in whatever order; and PerfReport.py says what they are together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf import result
from perf.clock import ClockOffset
from perf.payload import Rejection
from perf.result import ConsumerResult, ProducerResult, Result, ResultError, merged, statistics_of
from perf.run import report_of
from perf.stats import Histogram, ProducerSummary, Statistics, per_second
from perf.trace import Ledger, Marker

ROOT = Path(__file__).resolve().parents[2]
STAMP_MS = 1_795_000_000_000
BEGIN = datetime(2026, 11, 23, 8, tzinfo=timezone.utc)
LOG_APPEND_TIME = 2


def started_at(after_s: float = 0.0) -> str:
    """When a process of the run started, as perf.process.now() writes it."""
    return (BEGIN + timedelta(seconds=after_s)).isoformat(timespec="milliseconds")


def consumer(
    deltas_ms: Sequence[int] = (),
    *,
    partition: int = 0,
    second: int = 0,
    marks: Sequence[bytes | None] | None = None,
    rejected: Sequence[Rejection] = (),
    clock: Sequence[ClockOffset] = (),
    latency: str = "append",
    kind: int = LOG_APPEND_TIME,
    elapsed_s: float = 2.0,
    **changes: Any,
) -> ConsumerResult:
    """What a consumer of one partition would write."""
    statistics = Statistics(latency=latency)
    stamps_ms = [STAMP_MS + second * 1_000] * len(deltas_ms)
    if deltas_ms:
        statistics.records(stamps_ms, [kind] * len(deltas_ms), 100 * len(deltas_ms))
        statistics.add(deltas_ms, stamps_ms, [partition] * len(deltas_ms))
        statistics.add_visible(deltas_ms, stamps_ms, stamps_ms[0] + 40)
    for reason in rejected:
        statistics.reject(reason)
    statistics.clock = list(clock)
    if marks is not None:
        statistics.ledger = Ledger()
        statistics.ledger.record_all(marks, [partition] * len(marks), range(len(marks)))
    fields: dict[str, Any] = {"started_at": started_at(), "exit_code": 0, "host": "h", "topic": "results"}
    fields |= {"limits": []} | changes
    return ConsumerResult(
        summary=statistics.summary(elapsed_s=elapsed_s),
        histograms={name: histogram.state() for name, histogram in statistics.histograms().items()},
        configuration={"bootstrap.servers": "b:1", "client.id": fields["host"]},
        **fields,
        **statistics.details(),
    )


def producer(
    messages: int = 10,
    *,
    lost: int = 0,
    unknown: int = 0,
    marked: dict[str, int] | None = None,
    rate: float | None = 1_000.0,
    stamp: str = "send",
    lateness_us: Sequence[int] = (),
    elapsed_s: float = 2.0,
    send_elapsed_s: float = 1.5,
    **changes: Any,
) -> ProducerResult:
    """What a producer would write."""
    lateness, ack = Histogram(), Histogram()
    lateness.add(lateness_us)
    ack.add([late + 1_000 for late in lateness_us])
    acknowledged = messages - lost - unknown
    fields: dict[str, Any] = {"started_at": started_at(), "exit_code": 4 if lost or unknown else 0, "host": "h"}
    fields |= {"topic": "inputs", "limits": []} | changes
    return ProducerResult(
        summary=ProducerSummary(
            not_sent=0,
            messages=messages,
            acknowledged=acknowledged,
            failed={"MSG_SIZE_TOO_LARGE": lost} if lost else {},
            unknown=unknown,
            bytes=messages * 100,
            elapsed_s=elapsed_s,
            send_elapsed_s=send_elapsed_s,
            throughput_per_s=per_second(acknowledged, elapsed_s),
            throughput_mb_per_s=per_second(100 * acknowledged / 1e6, elapsed_s),
            send_rate_per_s=per_second(messages - 1, send_elapsed_s) if messages > 1 else None,
            target_rate_per_s=rate,
            stamp=stamp,
            lateness_ms=lateness.distribution(divisor=1_000),
            ack_ms=ack.distribution(divisor=1_000),
        ),
        configuration={"bootstrap.servers": "b:1"},
        histograms={"lateness_us": lateness.state(), "ack_us": ack.state()},
        marked=marked or {},
        **fields,
    )


# ------------------------------------------------------------------------------------------------------ any grouping

milliseconds = st.integers(0, 60_000).map(lambda ms: ms / 1_000)
sentences = st.lists(st.sampled_from(["p99 > 1ms: p99 is 3 ms: exceeded", "lost > 0: lost is 0: holds"]), unique=True)
commons: dict[str, Any] = {
    "host": st.sampled_from(["pod-0", "pod-1", "pod-2"]),
    "started_at": milliseconds.map(started_at),
    "exit_code": st.sampled_from([0, 4, 5, 6, 143]),
    "elapsed_s": milliseconds,
    "limits": sentences.map(sorted),
}
mark = st.integers(0, 30).map(lambda seq: b"r/p/0/0/%d" % seq)
consumers = st.builds(
    consumer,
    st.lists(st.integers(-50, 5_000), max_size=12),
    partition=st.integers(0, 2),
    second=st.integers(0, 3),
    marks=st.none() | st.lists(st.none() | mark, max_size=8),
    rejected=st.lists(st.sampled_from(Rejection), max_size=4),
    clock=st.lists(
        st.builds(
            ClockOffset, broker=st.integers(1, 2), offset_ms=st.sampled_from([-1.5, 2.0]), bound_ms=st.just(1.25)
        ),
        max_size=1,
    ),
    kind=st.sampled_from([1, 2]),
    topic=st.sampled_from(["results", "results-2"]),
    **commons,
)
producers = st.builds(
    producer,
    st.integers(5, 5_000),
    lost=st.integers(0, 2),
    unknown=st.integers(0, 2),
    marked=st.dictionaries(st.sampled_from(["r/p/0/0", "r/p/0/1", "r/q/0/0"]), st.integers(1, 99)),
    rate=st.sampled_from([None, 0.25, 1_000.0, 2_500.0]),
    stamp=st.sampled_from(["send", "intended"]),
    lateness_us=st.lists(st.integers(0, 10**6), max_size=8),
    send_elapsed_s=milliseconds,
    **commons,
)
several: st.SearchStrategy[list[Result]] = st.one_of(
    st.lists(consumers, min_size=2, max_size=3), st.lists(producers, min_size=2, max_size=3)
)


def comparable(one: Result) -> Any:
    """A result with its ledger unpacked: the order of a dict says nothing."""
    fields = msgspec.structs.asdict(one)
    ledger = fields.get("ledger")
    if ledger is not None:
        fields["ledger"] = (
            msgspec.msgpack.decode(zlib.decompress(ledger.tracks), strict=False),
            ledger.offsets,
            ledger.tally,
        )
    return fields


@settings(max_examples=10)
@given(several)
def test_merging_is_associative_and_commutative(results: list[Result]) -> None:
    """However results are grouped and ordered, the merged one is equal in every field, states included."""
    whole = comparable(merged(results))
    for order in permutations(results):
        assert comparable(merged(order)) == whole
    first, *others = results
    assert comparable(merged([first, merged(others)])) == whole
    assert comparable(merged([merged(results[:-1]), results[-1]])) == whole


@settings(max_examples=15)
@given(consumers | producers)
def test_one_result_comes_back_as_it_is(one: Result) -> None:
    """Merging one result with nothing gives it back."""
    assert merged([one]) == one


@settings(max_examples=10)
@given(consumers)
def test_statistics_of_a_result_have_its_summary(one: ConsumerResult) -> None:
    """Restoring a result for merging forgets nothing of it, also through a file's JSON."""
    found = msgspec.json.decode(msgspec.json.encode(one), type=ConsumerResult)
    assert found == one
    statistics = statistics_of(found)
    assert statistics.summary(elapsed_s=one.summary.elapsed_s) == one.summary
    assert {name: histogram.state() for name, histogram in statistics.histograms().items()} == one.histograms
    assert statistics.details() == {"series": one.series, "ledger": one.ledger}


@settings(max_examples=15)
@given(st.lists(consumers, min_size=2, max_size=3))
def test_merged_counters_are_the_sums(results: list[ConsumerResult]) -> None:
    """Counters add up, the distribution is that of all samples, and the counters sum to the messages read."""
    summary = msgspec.json.decode(msgspec.json.encode(merged(list(results))), type=ConsumerResult).summary
    parts = [one.summary for one in results]
    for name in ("messages_read", "measured", "negative", "bytes"):
        assert getattr(summary, name) == sum(getattr(part, name) for part in parts)
    for name in ("not_measured", "timestamp_types"):
        keys = {key for part in parts for key in getattr(part, name)}
        assert getattr(summary, name) == {key: sum(getattr(part, name).get(key, 0) for part in parts) for key in keys}
    assert summary.measured + sum(summary.not_measured.values()) == summary.messages_read
    means = [(Fraction(part.delta_ms.mean) * part.delta_ms.count) for part in parts if part.delta_ms.mean is not None]
    assert summary.delta_ms.count == summary.measured
    if means:
        assert summary.delta_ms.mean == pytest.approx(float(sum(means) / summary.measured))
        assert summary.delta_ms.min == min(part.delta_ms.min for part in parts if part.delta_ms.min is not None)
    stamps = [part.first_record_ms for part in parts if part.first_record_ms is not None]
    assert summary.first_record_ms == min(stamps, default=None)
    assert sum(row.count for row in summary.partitions) == sum(row.count for row in summary.series) == summary.measured


# ---------------------------------------------------------------------------------------------------- what is computed


def test_spans_reach_from_the_first_start_to_the_last_end() -> None:
    """Two producers, the second three seconds later: times, rates and targets are those of both together."""
    one = producer(1_001, elapsed_s=2.0, send_elapsed_s=1.5, lateness_us=[1_000], host="a", lost=1)
    two = producer(
        3_000, elapsed_s=5.0, send_elapsed_s=4.25, lateness_us=[3_000, 5_000], host="b", started_at=started_at(3)
    )
    summary = merged([two, one]).summary
    assert isinstance(summary, ProducerSummary)
    assert (summary.messages, summary.acknowledged, summary.failed) == (4_001, 4_000, {"MSG_SIZE_TOO_LARGE": 1})
    assert (summary.elapsed_s, summary.send_elapsed_s) == (8.0, 7.25)
    assert summary.throughput_per_s == 500.0
    assert summary.throughput_mb_per_s == pytest.approx(0.05)
    assert summary.send_rate_per_s == 4_000 / 7.25
    assert summary.target_rate_per_s == 2_000.0
    assert (summary.lateness_ms.count, summary.lateness_ms.mean, summary.lateness_ms.max) == (3, 3.0, 5.0)
    assert summary.ack_ms.mean == 4.0


def test_what_the_results_share_is_kept() -> None:
    """The first start, the worst exit code, all hosts, topics and limits, and the configuration that all have."""
    results: list[Result] = [
        consumer([1], host="b", exit_code=5, started_at=started_at(2), limits=["z", "a"]),
        consumer([2], host="a", topic="other", limits=["m", "a"]),
    ]
    whole = merged(results)
    assert (whole.started_at, whole.exit_code, whole.host, whole.topic) == (started_at(), 5, "a, b", "other, results")
    assert whole.limits == ["a", "m", "z"]
    assert whole.configuration == {"bootstrap.servers": "b:1"}
    assert whole.version == result.VERSION


def test_no_rate_is_made_up() -> None:
    """A producer at full speed has no target, and then all together have none."""
    summary = merged([producer(rate=None), producer(rate=500.0)]).summary
    assert isinstance(summary, ProducerSummary)
    assert summary.target_rate_per_s is None
    mixed = merged([producer(stamp="intended"), producer(stamp="send"), producer(stamp="send")]).summary
    assert isinstance(mixed, ProducerSummary)
    assert mixed.stamp == "intended, send"


def test_the_verdict_is_that_of_all_deltas() -> None:
    """50 inherited stamps are too few to judge, two times 50 are not."""
    half = consumer([0] * 50, kind=1)
    assert half.summary.verdict.startswith("uncertain")
    whole = merged([half, half])
    assert isinstance(whole, ConsumerResult)
    assert whole.summary.verdict.startswith("INVALID")


def test_marks_of_the_same_origin_add_up() -> None:
    """What two results say of an origin is its sum."""
    whole = merged([producer(marked={"r/p/0/0": 5, "r/p/0/1": 1}), producer(marked={"r/p/0/0": 7})])
    assert isinstance(whole, ProducerResult)
    assert whole.marked == {"r/p/0/0": 12, "r/p/0/1": 1}


# ------------------------------------------------------------------------------------------------------------ refusals


def test_two_ways_of_measuring_are_not_mixed() -> None:
    """Deltas to the append stamp and to the moment of receiving are two things."""
    with pytest.raises(ResultError, match=r"append stamp.*receiving"):
        merged([consumer([1]), consumer([1], latency="receive")])
    assert merged([consumer([1], latency="receive")] * 2).summary.latency == "receive"  # type: ignore[union-attr]


def test_producers_and_consumers_are_not_mixed() -> None:
    """A producer's result has nothing to add to a consumer's."""
    both: list[Result] = [consumer([1]), producer()]
    for results in permutations(both):
        with pytest.raises(ResultError):
            merged(results)


def replaced(one: ConsumerResult, path: Sequence[str], value: Any) -> ConsumerResult:
    """The result as a file in which one place was changed."""
    document: Any = json.loads(msgspec.json.encode(one))
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return msgspec.json.decode(json.dumps(document), type=ConsumerResult)


DAMAGES: dict[str, tuple[list[str], Any]] = {
    "the histogram is gone": (["histograms"], {}),
    "the histogram is empty text": (["histograms", "delta_ms", "positive"], ""),
    "the histogram is cut": (["histograms", "delta_ms", "positive"], "HISTFAAAACF4nJNpmSzMwMDAxQABzFCaEUoz2X8A"),
    "the histogram is no base64": (["histograms", "delta_ms", "negative"], "no base64!"),
    "the histogram is something else": (
        ["histograms", "delta_ms", "positive"],
        "aGVsbG8gd29ybGQsIGhlbGxvIHdvcmxkLCBoZWxsbw==",
    ),
    "a sum is no number": (["histograms", "delta_ms", "sum"], "many"),
    "the squares are no number": (["histograms", "visible_ms", "sum_of_squares"], ""),
    "a partition has no number": (["histograms", "partition_ms/x"], msgspec.to_builtins(Histogram().state())),
    "an unknown counter": (["summary", "not_measured"], {"nonsense": 1}),
    "an unknown type": (["summary", "timestamp_types"], {"nonsense": 1}),
    "the series is no base64": (["series", "rows"], "no base64!"),
    "the series is not compressed": (["series", "rows"], "aGVsbG8="),
    "the series is empty": (["series", "rows"], ""),
    "the series is no JSON": (["series", "rows"], "eJzLSM3JyVcoSUzKSQUAGnoEtw=="),
    "the series has too large a bucket": (["series", "rows"], "eJyLjjbUUTJQ0gESRjrRBkAQCxSBUEBmLAB0oQaf"),
    "the ledger is not compressed": (["ledger", "tracks"], "aGVsbG8="),
    "the start is no time": (["started_at"], "yesterday"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_refused(damage: str) -> None:
    """Whatever is broken in a file, it is a sentence for the user and no defect of the tool."""
    good = consumer([1, 2, -3], marks=[b"r/p/0/0/0"])
    bad = replaced(good, *DAMAGES[damage])
    for results in ([good, bad], [bad, good], [bad]):
        with pytest.raises(ResultError):
            merged(results)


@settings(max_examples=40)
@given(st.data())
def test_a_state_that_was_altered_is_refused_or_merged(data: st.DataObject) -> None:
    """Changed characters in the packed states never raise anything but ResultError."""
    good = consumer([1, 2, -3], marks=[b"r/p/0/0/0"])
    path = data.draw(
        st.sampled_from([["series", "rows"], ["ledger", "tracks"], ["histograms", "delta_ms", "positive"]])
    )
    document: Any = json.loads(msgspec.json.encode(good))
    for name in path:
        document = document[name]
    at = data.draw(st.integers(0, len(document) - 1))
    text = document[:at] + data.draw(st.text("AQg/=x", max_size=3)) + document[at + data.draw(st.integers(0, 3)) :]
    with suppress(ResultError, msgspec.ValidationError):  # the latter is what result.read makes a ResultError of
        merged([good, replaced(good, path, text)])


# ----------------------------------------------------------------------------------------------------------- the report


def run_report(folder: Path, results: Sequence[Result], *flags: str) -> subprocess.CompletedProcess[str]:
    """PerfReport.py as a process, without brokers, on these results."""
    paths = []
    for number, one in enumerate(results):
        paths.append(str(folder / f"{number}.json"))
        result.write(Path(paths[-1]), one)
    return report_on(folder, *paths, *flags)


def report_on(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """PerfReport.py with these arguments."""
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / "PerfReport.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def ledger_of(text: str) -> dict[str, str]:
    """The ledger that a report shows last."""
    lines = text.partition("Ledger: messages marked")[2].partition("\n\n")[0].splitlines()[1:]
    return {line[2:34].strip(): line[34:].strip() for line in lines}


def traced_run(*, kept: Callable[[int], bool] = lambda _: True) -> list[Result]:
    """Two producers with two partitions, and two consumers that share what they read; `kept` says which are there."""
    sent: list[bytes] = []
    results: list[Result] = []
    for name in ("p", "q"):
        marker = Marker(run="r", producer=name, attempt=0)
        sent += [marker.mark(number % 2) for number in range(500)]
        marked = {str(origin): count for origin, count in marker.counts().items()}
        results.append(producer(500, marked=marked, host=name))
    read = [mark for number, mark in enumerate(sent) if kept(number)]
    for number in (0, 1):
        marks = [mark for mark in read if int(mark.rpartition(b"/")[2]) % 2 == number]
        results.append(consumer([20] * len(marks), partition=number, marks=marks, host=f"c{number}"))
    return results


def test_the_ledger_is_judged_over_all_processes(tmp_path: Path) -> None:
    """Seven of a thousand marked messages of two producers did not reach either of two consumers: lost is 7."""
    results = traced_run(kept=lambda number: number not in (0, 1, 77, 499, 500, 998, 999))
    done = run_report(tmp_path, results, "--fail-if", "lost > 7", "--fail-if", "duplicated > 0")
    assert (done.returncode, done.stderr) == (0, "")
    assert ledger_of(done.stdout) == {
        "unique": "993", "lost": "7", "unacknowledged": "0", "duplicated": "0", "out of order": "0",
        "redelivered": "0", "untraced": "0", "unkept": "0", "unexpected": "0",
    }  # fmt: skip
    assert "Summary of 2 producers, topic inputs" in done.stdout
    assert "Summary of 2 consumers, topic results" in done.stdout
    assert "  lost > 7: lost is 7: holds" in done.stdout
    again = report_on(tmp_path, "3.json", "1.json", "2.json", "0.json", "--fail-if", "lost > 6")
    assert again.returncode == 6
    assert "lost > 6: lost is 7: exceeded" in again.stdout
    assert ledger_of(again.stdout) == ledger_of(done.stdout)


def test_without_producers_nobody_knows_what_was_lost(tmp_path: Path) -> None:
    """Consumers alone have a ledger whose lost is n/a, and a limit on it is exceeded."""
    done = run_report(tmp_path, traced_run()[2:], "--fail-if", "lost > 0")
    shown = ledger_of(done.stdout)
    assert (shown["unique"], shown["lost"], shown["unexpected"]) == ("1000", "n/a", "n/a")
    assert done.returncode == 6
    assert "lost is n/a" in done.stdout
    alone = run_report(tmp_path, traced_run()[:2])
    assert (alone.returncode, ledger_of(alone.stdout)) == (0, {})


def test_without_one_producers_result_its_messages_are_unexpected(tmp_path: Path) -> None:
    """They are not taken for the other one's: nothing of that one is lost."""
    done = run_report(tmp_path, traced_run()[1:])
    shown = ledger_of(done.stdout)
    assert (shown["unique"], shown["lost"], shown["unexpected"]) == ("1000", "0", "500")


INHERITED = consumer([0] * 200, kind=1, exit_code=5)
INCOMPLETE = producer(10, lost=1)


@pytest.mark.parametrize(
    ("results", "limit", "code"),
    [
        ([consumer([5])], "p99 > 1s", 0),
        ([consumer([5]), producer()], "", 0),
        ([consumer([5])], "p99 > 1ms", 6),
        ([consumer([5])], "lost > 0", 6),
        ([INHERITED], "p99 > 1s", 5),
        ([INHERITED], "p99 >= 0", 5),
        ([consumer()], "", 5),
        ([INCOMPLETE], "", 4),
        ([INCOMPLETE, INHERITED], "p99 >= 0", 4),
        ([INCOMPLETE, consumer([5])], "failed > 0", 4),
        ([producer(10, unknown=1), producer()], "", 4),
        ([producer(), producer(20, rate=3_000.0)], "rate < 0.1*target", 6),
        ([producer(10, exit_code=4)], "", 4),
    ],
)
def test_the_exit_code_is_that_of_the_worst(tmp_path: Path, results: list[Result], limit: str, code: int) -> None:
    """4 for what was not acknowledged, 5 for no valid measurement, then 6 for a limit; each in this order.

    Nothing is said but which process ended so.
    """
    done = run_report(tmp_path, results, *(("--fail-if", limit) if limit else ()))
    assert done.returncode == code
    ended = sorted(int(line.rpartition(" ")[2]) for line in done.stderr.splitlines() if "ended with exit code" in line)
    assert ended == sorted(one.exit_code for one in results if one.exit_code)
    assert len(done.stderr.splitlines()) == len(ended)


def test_a_file_that_is_no_result_ends_in_2(tmp_path: Path) -> None:
    """A missing, foreign, newer or damaged file is one sentence that names it, and a usage error."""
    (tmp_path / "foreign.json").write_text("hello")
    (tmp_path / "newer.json").write_text('{"version":99}')
    good = consumer([1, 2, -3], marks=[b"r/p/0/0/0"])
    result.write(tmp_path / "good.json", good)
    result.write(tmp_path / "histogram.json", replaced(good, *DAMAGES["the histogram is empty text"]))
    result.write(tmp_path / "series.json", replaced(good, *DAMAGES["the series is not compressed"]))
    result.write(tmp_path / "ledger.json", replaced(good, *DAMAGES["the ledger is not compressed"]))
    damaged = replaced(good, *DAMAGES["the histogram is gone"])
    result.write(tmp_path / "report.json", msgspec.structs.replace(report_of([good], sources=[]), consumer=damaged))
    for name in ("absent", "foreign", "newer", "histogram", "series", "ledger", "report"):
        for others in ([], ["good.json"]):
            done = report_on(tmp_path, f"{name}.json", *others)
            assert done.returncode == 2, (name, others)
            assert f"{name}.json" in done.stderr
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
            assert "defect" not in done.stderr and "Traceback" not in done.stderr


FILES = ("report.json", "report.html", "report.hgrm", "report.hlog")


@pytest.mark.parametrize("broken", FILES)
@pytest.mark.parametrize(
    ("results", "limit", "code"),
    [([consumer([5])], "p99 > 1s", 1), ([consumer([5])], "p99 > 1ms", 6), ([INHERITED, producer()], "", 5),
     ([INCOMPLETE, consumer([5])], "", 4)],
)  # fmt: skip
def test_a_file_that_cannot_be_written_comes_last(
    tmp_path: Path, results: list[Result], limit: str, code: int, broken: str
) -> None:
    """The report is printed, its own exit code counts before 1, and every other file is written."""
    paths = {name: f"/proc/{name}" if name == broken else name for name in FILES}  # where nobody can make a file
    files = [word for name in FILES for word in (f"--{name.rpartition('.')[2]}", paths[name])]
    done = run_report(tmp_path, results, *files, *(("--fail-if", limit) if limit else ()))
    assert done.returncode == code
    assert "Summary of the" in done.stdout and (not limit or f"  {limit}: " in done.stdout)
    *ended, error = done.stderr.splitlines()
    assert error.startswith(f"error: the file /proc/{broken} was not written: ")
    assert len(ended) == sum(one.exit_code != 0 for one in results)
    assert [name for name in FILES if (tmp_path / name).is_file()] == [name for name in FILES if name != broken]


def test_deltas_without_a_consumer_are_a_usage_error(tmp_path: Path) -> None:
    """It is found before anything is written."""
    done = run_report(tmp_path, [producer()], "--json", "report.json", "--hgrm", "report.hgrm")
    assert (done.returncode, done.stdout) == (2, "")
    assert "need a consumer's result" in done.stderr
    assert not (tmp_path / "report.json").exists()


def test_a_report_needs_results_and_no_brokers(tmp_path: Path) -> None:
    """Without a file the usage is told; limits may come from the environment."""
    done = report_on(tmp_path)
    assert done.returncode == 2
    assert "RESULT" in done.stderr
    (tmp_path / ".env").write_text("FAIL_IF=p99 > 1ms; max > 1s\n")
    done = run_report(tmp_path, [consumer([5])])
    assert done.returncode == 6
    limits, _, verdict = done.stdout.partition("Limits\n")[2].rstrip("\n").partition("\n\n")
    assert limits == "  p99 > 1ms: p99 is 5 ms: exceeded\n  max > 1s: max is 5 ms: holds"
    assert verdict.startswith("1 of 2 limits exceeded (p99 > 1ms: p99 is 5 ms); half of 1 results came within 5 ms")
