"""What the README and docs/ say is compared with the code."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka.config import MECHANISMS, VARIABLES
from perf import result, stats
from perf.process import ExitCode
from perf.settings import OPTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = ("ProducerPerformance", "PerfConsumer", "PerfTopics", "test")


def section(title: str) -> str:
    """The README's text under a heading, up to the next one."""
    return re.split(r"^#+ ", README.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without heading and rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_of_each_script(script: str) -> None:
    """The README's table of a script has each of its flags, with variable, default and meaning, and no other."""
    spec = importlib.util.spec_from_file_location("script", ROOT / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = [OPTIONS[field] for field in module.FIELDS]
    expected = [[option.flag, option.variable, option.default, option.meaning] for option in options]
    assert rows(section(f"{script}.py"))[: len(expected)] == expected


def test_connection_variables_and_mechanisms() -> None:
    """The README has each connection variable with its meaning, and each mechanism."""
    table = rows(README.partition("Connection, for all scripts:")[2].partition("SASL mechanisms")[0])
    assert table == [[name, meaning.removesuffix("`")] for name, meaning in VARIABLES]
    for mechanism in MECHANISMS:
        assert f"`{mechanism}`" in README.partition("SASL mechanisms:")[2]


def test_exit_codes() -> None:
    """The README's table of exit codes has each that the scripts use, and no other."""
    shown = {int(number) for row in rows(section("Exit codes")) for number in row[0].split(",")}
    used = {int(code) for code in ExitCode}
    used.discard(ExitCode.LIMIT_EXCEEDED)  # comes with --fail-if
    assert shown == used | {130, 143}


def fields() -> Iterator[tuple[str, str]]:
    """Each field of the structs that a result file is made of."""
    structs = (
        result.ConsumerResult, result.ProducerResult, stats.ConsumerSummary, stats.ProducerSummary,
        stats.Distribution, stats.HistogramState,
    )  # fmt: skip
    for struct in structs:
        for name in struct.__struct_fields__:
            yield struct.__name__, name


@pytest.mark.parametrize(("struct", "name"), list(fields()))
def test_every_field_of_a_result_is_described(struct: str, name: str) -> None:
    """docs/result.md names each field of a result file."""
    assert f"`{name}`" in (ROOT / "docs" / "result.md").read_text(encoding="utf-8"), struct


def test_links_and_files() -> None:
    """Each file that the README or a page of docs/ links to is there, and each file that the README lists."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for row in rows(section("Files")):
        for name in re.findall(r"[\w./*-]+", row[0].replace("`", "")):
            assert list(ROOT.glob(name.rstrip("/"))), name


def test_make_targets() -> None:
    """Each make target that the README or CONTRIBUTING.md names is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named and named <= targets
