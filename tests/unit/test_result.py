"""Result files: written whole or not at all, and read back as they were."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import measure

from perf import result
from perf.payload import Rejection
from perf.result import ConsumerResult, ProducerResult, Result, ResultError
from perf.stats import Distribution, Histogram, ProducerSummary, Statistics

STARTED_AT = "2026-11-23T08:00:00.000+00:00"

deltas = st.lists(st.integers(-(10**7), 10**7), max_size=50)
rejections = st.lists(st.sampled_from(Rejection), max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def consumer_result(values: list[int], rejected: list[Rejection], *, topic: str = "t", exit_code: int = 0) -> Result:
    """What a consumer that measured and rejected these would write."""
    statistics = Statistics()
    measure(statistics, values)
    for reason in rejected:
        statistics.reject(reason)
    return result.of(
        statistics.summary(elapsed_s=1.5),
        topic=topic,
        configuration={"sasl.password": "(secret)", "bootstrap.servers": "b:1"},
        histograms=statistics.histograms(),
        started_at=STARTED_AT,
        exit_code=exit_code,
        details=statistics.details(),
    )


def producer_result(lateness_us: list[int]) -> Result:
    """What a producer with this lateness would write."""
    histogram = Histogram()
    histogram.add(lateness_us)
    summary = ProducerSummary(not_sent=0,
        messages=9, acknowledged=6, failed={"MSG_SIZE_TOO_LARGE": 2}, unknown=1, bytes=900, elapsed_s=2.0,
        send_elapsed_s=1.5, throughput_per_s=3.0, throughput_mb_per_s=0.0003, send_rate_per_s=None,
        target_rate_per_s=0.5, stamp="send", lateness_ms=histogram.distribution(divisor=1_000),
        ack_ms=Distribution(count=0),
    )  # fmt: skip
    histograms = {"lateness_us": histogram}
    return result.of(
        summary,
        topic="t",
        configuration={},
        histograms=histograms,
        started_at=STARTED_AT,
        exit_code=4,
        details={"marked": {"r/p/0/0": 9}},
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example of a property overwrites."""
    return tmp_path_factory.mktemp("result") / "result.json"


def document(path: Path) -> dict[str, Any]:
    """A result file as another program reads it."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@given(deltas, rejections, texts)
def test_a_consumer_result_comes_back_as_it_was(
    file: Path, values: list[int], rejected: list[Rejection], topic: str
) -> None:
    """Write and read give an equal result, and its histogram the same distribution."""
    original = consumer_result(values, rejected, topic=topic)
    result.write(file, original)
    found = result.read(file)
    assert isinstance(found, ConsumerResult)
    assert found == original
    assert Histogram.from_state(found.histograms["delta_ms"]).distribution() == found.summary.delta_ms


@given(st.lists(st.integers(0, 10**7), max_size=50))
def test_a_producer_result_comes_back_as_it_was(file: Path, lateness_us: list[int]) -> None:
    """The kind of the result decides what is read."""
    original = producer_result(lateness_us)
    result.write(file, original)
    found = result.read(file)
    assert isinstance(found, ProducerResult)
    assert found == original


def test_the_file_is_json_for_other_programs(tmp_path: Path) -> None:
    """Any JSON parser sees the version, the kind and plain numbers, and null where there is no value."""
    path = tmp_path / "result.json"
    result.write(path, consumer_result([5, 7], [Rejection.EMPTY], exit_code=143))
    found = document(path)
    assert (found["version"], found["kind"], found["exit_code"]) == (result.VERSION, "consumer", 143)
    assert found["summary"]["messages_read"] == 3
    assert found["summary"]["not_measured"]["empty"] == 1
    assert found["summary"]["delta_ms"]["mean"] == 6.0
    assert found["summary"]["throughput_per_s"] is None
    assert path.read_bytes().endswith(b"}\n")


@settings(max_examples=20)
@given(deltas, deltas)
def test_two_results_merge_through_their_files(file: Path, one: list[int], other: list[int]) -> None:
    """Histograms read from two files merge into that of all samples."""
    total = Histogram()
    for values in (one, other):
        result.write(file, consumer_result(values, []))
        total.merge(Histogram.from_state(result.read(file).histograms["delta_ms"]))
    everything = Histogram()
    everything.add(one + other)
    assert total.distribution() == everything.distribution()


def test_an_existing_result_is_replaced(tmp_path: Path) -> None:
    """A second run with the same name leaves only its own result."""
    path = tmp_path / "result.json"
    result.write(path, consumer_result(list(range(1_000)), []))
    result.write(path, producer_result([]))
    assert isinstance(result.read(path), ProducerResult)
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_result(tmp_path: Path) -> None:
    """While two results are written over each other again and again, every read finds one of them whole."""
    path = tmp_path / "result.json"
    results = [consumer_result(list(range(500)), []), producer_result([])]
    result.write(path, results[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for one in results:
                result.write(path, one)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(300):
            assert result.read(path) in results
    finally:
        stop.set()
        writer.join()
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------------- errors


def test_a_missing_folder_and_a_directory_are_refused(tmp_path: Path) -> None:
    """A path that cannot be written is named with the system's reason, and nothing is left beside it."""
    occupied = tmp_path / "folder"
    occupied.mkdir()
    for path, reason in ((tmp_path / "absent" / "r.json", "No such file"), (occupied, "Is a directory")):
        with pytest.raises(ResultError) as caught:
            result.write(path, producer_result([]))
        assert str(path) in str(caught.value) and reason in str(caught.value)
        assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == [occupied]
    assert list(occupied.iterdir()) == []


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """As on a full disk, no file of this process can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize("room", [0, 100])
def test_where_there_is_no_room_the_old_result_stays(tmp_path: Path, room: int) -> None:
    """A result that cannot be written whole leaves the one before as it was, and no partial file."""
    path = tmp_path / "result.json"
    result.write(path, producer_result([]))
    with file_size_limit(room), pytest.raises(ResultError, match="was not written: File too large"):
        result.write(path, consumer_result([1], []))
    assert isinstance(result.read(path), ProducerResult)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b'{"kind":"consumer"}',
        b'{"kind":"other","version":1}',
        b"\xff\xfe",
        b'{"version":1}',
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    """Anything else is told as no result of this tool, with its path."""
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ResultError, match="is no result file of this tool") as caught:
        result.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("field", ["summary", "histograms", "topic", "exit_code"])
def test_a_result_that_lacks_a_field_is_refused(tmp_path: Path, field: str) -> None:
    """A file that was cut or edited is not half understood."""
    path = tmp_path / "result.json"
    result.write(path, producer_result([]))
    content = document(path)
    del content[field]
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=field):
        result.read(path)


@pytest.mark.parametrize("absent", ["", "topic"])
@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_named(tmp_path: Path, version: int, absent: str) -> None:
    """A result of another version says which one it is, also where its fields are others."""
    path = tmp_path / "result.json"
    result.write(path, producer_result([]))
    content = {name: value for name, value in document(path).items() if name != absent}
    path.write_text(json.dumps({**content, "version": version, "new_field": 5}))
    with pytest.raises(ResultError, match=f"version {version} .*reads {result.VERSION}"):
        result.read(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    """The system's reason stands behind the path."""
    with pytest.raises(ResultError, match=r"absent\.json: No such file or directory"):
        result.read(tmp_path / "absent.json")


def test_fields_that_a_later_minor_change_adds_are_ignored(tmp_path: Path) -> None:
    """A new field within the same version does not make older tools fail."""
    path = tmp_path / "result.json"
    original = consumer_result([1], [])
    result.write(path, original)
    path.write_text(json.dumps({**document(path), "new_field": [1]}))
    assert result.read(path) == original


def test_an_empty_run_has_a_result_too(tmp_path: Path) -> None:
    """Where nothing was measured the distribution is empty, and stays so through the file."""
    path = tmp_path / "result.json"
    result.write(path, consumer_result([], []))
    found = result.read(path)
    assert isinstance(found, ConsumerResult)
    assert found.summary.delta_ms == Distribution(count=0)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o000, 0o666)])
def test_a_result_file_respects_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    """A result is readable by whom the umask lets read it, also where it replaces an older one."""
    before = os.umask(mask)
    try:
        for _ in range(2):
            result.write(tmp_path / "r.json", consumer_result([1], []))
            assert (tmp_path / "r.json").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
