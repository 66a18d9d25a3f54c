"""The deltas in HdrHistogram's formats, against single deltas; test_hdr_java.py has Java's HdrHistogram read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import START_MS, consumer

from perf.report import hdr
from perf.series import bucket_of

MIXED = [
    (number * 7, delta_ms) for number, delta_ms in enumerate([-40, -1, 0, 0, 3, 3, 3, 4, 9, 250, 2_047, 61_000] * 40)
]


def lines(text: str) -> list[list[str]]:
    """The numbers of a percentile distribution."""
    return [line.split() for line in text.splitlines()[2:] if not line.startswith("#")]


@settings(max_examples=15)  # decoding a histogram takes long
@given(st.lists(st.integers(-3_000, 100_000), min_size=1, max_size=300))
def test_each_percentile_is_that_of_the_sorted_deltas(deltas_ms: list[int]) -> None:
    """Each line's value is the delta of that rank within 0.1 %, its count all deltas up to it, below 0 or not."""
    ordered = sorted(deltas_ms)
    shown = lines(hdr.percentiles(consumer([(0, delta_ms) for delta_ms in deltas_ms])))
    for value, share, total, *_ in shown:
        rank = max(1, -(-round(float(share) * 1e9) * len(ordered) // 10**9))
        exact = ordered[rank - 1]
        assert float(value) == pytest.approx(exact, rel=0.001, abs=1e-9)
        assert int(total) >= rank
        assert all(one <= float(value) for one in ordered[: int(total)])
    assert shown[-1][1:3] == ["1.000000000000", str(len(ordered))]
    shares = [float(share) for _, share, *_ in shown]
    assert shares == sorted(shares) and shares[0] == 0.0


def test_the_log_keeps_every_delta_of_either_sign(tmp_path: Path) -> None:
    """Read by HdrHistogram's library, the intervals add up to all deltas from 0 on, and those with tags likewise."""
    log = hdr.log(consumer(MIXED))
    (tmp_path / "deltas.hlog").write_text(log)
    reader = HistogramLogReader(str(tmp_path / "deltas.hlog"), HdrHistogram(1, 2**53, 3))
    seen: dict[str, list[HdrHistogram]] = {}
    while (interval := reader.get_next_interval_histogram()) is not None:
        seen.setdefault(interval.get_tag() or "", []).append(interval)
    deltas = [delta_ms for _, delta_ms in MIXED]
    counts = {tag: sum(one.get_total_count() for one in several) for tag, several in seen.items()}
    below = sum(delta_ms < 0 for delta_ms in deltas)
    assert counts[""] == counts["delta"] == len(deltas) - below
    assert counts["negative"] == counts["delta_negative"] == below
    assert sum(one.get_max_value() for one in seen["delta"]) == pytest.approx(61_000, rel=0.001)
    assert seen["delta_negative"][0].get_max_value() == 40
    assert len(seen[""]) == len({(START_MS + stamp_ms) // 1_000 for stamp_ms, _ in MIXED})
    assert {bucket_of(one.get_min_value()) for one in seen[""]} == {0}


def test_nothing_measured_gives_empty_files() -> None:
    """Without a delta there is no line of figures, and no error."""
    assert lines(hdr.percentiles(consumer([]))) == []
    assert all(line.startswith(("#", '"')) for line in hdr.log(consumer([])).splitlines())
