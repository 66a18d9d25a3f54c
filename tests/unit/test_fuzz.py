"""A smoke run of what `make fuzz` runs for longer, and with more aim."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import data_sets, options, payloads

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the definitions take datetime.fromisoformat of Python 3.11"
)
TARGETS = [payloads, data_sets, options]


@pytest.mark.parametrize("target", TARGETS)
def test_each_seed_meets_the_definition(target: ModuleType) -> None:
    """What a target starts from holds."""
    for seed in target.SEEDS:
        target.check(seed)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=200)
@given(st.data())
def test_spoilt_seeds_meet_the_definition(target: ModuleType, data: st.DataObject) -> None:
    """Seeds with a word or a few bytes in the wrong place are refused or read as defined."""
    seed = data.draw(st.sampled_from(target.SEEDS))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(seed))] * 2)))
    put = data.draw(st.binary(max_size=3) | st.sampled_from(target.WORDS).map(str.encode))
    target.check(seed[:start] + put + seed[end:])


def test_a_defect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is one millisecond off does not pass."""
    monkeypatch.setattr(payloads.READERS[0][0].__class__, "start_ms", lambda _self, _source: 1_794_999_999_001)
    with pytest.raises(AssertionError):
        payloads.check(payloads.SEEDS[0])
