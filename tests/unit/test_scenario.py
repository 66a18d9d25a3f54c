"""Scenario files: what they may say, and how errors are told."""

from __future__ import annotations

from pathlib import Path

import pytest

import PerfRun
from perf import scenario
from perf.settings import OPTIONS, SettingsError

FIELDS = PerfRun.IN_SCENARIO


def written(tmp_path: Path, text: str) -> Path:
    """A scenario file."""
    path = tmp_path / "test.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_scenario_says_what_the_flags_say(tmp_path: Path) -> None:
    """Each value is read by its flag's parser; lists stand for flags that may be repeated, and for steps."""
    found = scenario.read(
        written(tmp_path, """\
input: in            # comments are allowed
output: out
create-topics: yes
partitions: 6
warmup: 30s
timestamp-unit: us
fail-if:
  - p99 > 250ms
  - lost > 0
steps:
  - rate: 1000 for 60s
  - ramp 1000→20000 over 5m
  - ramp: 20000 -> 0 over 10s
  - rate: 0 for 5s
"""), FIELDS)  # fmt: skip
    assert found.values["create_topics"] is True
    assert (found.values["input_topic"], found.values["partitions"], found.values["timestamp_unit"]) == ("in", 6, "us")
    assert found.values["warmup"].seconds == 30
    assert [limit.text for limit in found.values["fail_if"]] == ["p99 > 250ms", "lost > 0"]
    assert str(found.values["profile"]) == (
        "rate 1000 for 60s, ramp 1000->20000 over 300s, ramp 20000->0 over 10s, rate 0 for 5s"
    )
    assert found.texts["warmup"] == "30s"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("input: in\nouput: out\n", 2, "ouput is no key of a scenario: did you mean output?"),
        ("input: in\ninput: other\n", 2, "input is there twice"),
        ("input: in\n\n\nrate: fast\n", 4, "rate: fast is not allowed: it takes messages per second"),
        ("fail-if:\n  - p99 > 1s\n  - p98 > 1s\n", 3, "p98"),
        ("steps:\n  - rate: 5 for 1s\n  - rate: 5\n", 3, "step: rate 5 is not allowed: it takes steps such as"),
        ("steps: []\n", 1, "profile takes a value or a list"),
        ("rate:\n", 1, "rate takes one value"),
        ("rate: [1, 2]\n", 1, "rate takes one value"),
        ("rate:\n  per: second\n", 2, "rate takes one value"),
        ("- input\n", 1, "a scenario has lines 'key: value'"),
        ("input: in\n? [a, b]\n: c\n", 2, "a key must be a plain word"),
        ("input: 'in\n", 2, "this is no YAML"),
        ("scenario: other.yaml\n", 1, "scenario is no key of a scenario"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    """What is wrong is told with the file's name and line, and what is allowed instead."""
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        scenario.read(path, FIELDS)
    assert f"{path}, line {line}" in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"\xff\xfe\xff", "not UTF-8"), (None, "cannot be read")]
)
def test_a_file_that_is_no_scenario_is_told(tmp_path: Path, content: bytes | None, words: str) -> None:
    """An empty, binary or missing file is an error of one sentence."""
    path = tmp_path / "test.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        scenario.read(path, FIELDS)


def test_every_option_of_a_test_is_described() -> None:
    """docs/scenario.md has each key that a scenario may have, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "scenario.md").read_text(encoding="utf-8")
    named = {line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("| `")}
    assert named == {OPTIONS[field].flag.removeprefix("--") for field in FIELDS} | {"steps"}
