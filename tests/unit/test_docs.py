"""What the README and docs/ say is compared with the code."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka.config import MECHANISMS, VARIABLES
from perf import capacity, clock, compare, growth, result, run, series, stats, trace
from perf.payload import UNITS, Rejection
from perf.process import ExitCode
from perf.settings import COMPARE_OPTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASUREMENT = (ROOT / "docs" / "measurement.md").read_text(encoding="utf-8")
SCRIPTS = ("ProducerPerformance", "PerfConsumer", "PerfRun", "PerfTopics", "PerfReport", "test")


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
    for title, fields in (
        (f"{script}.py", module.FIELDS),
        (f"{script}.py compare", getattr(module, "COMPARE_FIELDS", ())),
    ):
        options = [COMPARE_OPTIONS[field] for field in fields]
        expected = [[option.flag, option.variable, option.default, option.meaning] for option in options]
        assert rows(section(title))[: len(expected)] == expected


def test_connection_variables_and_mechanisms() -> None:
    """The README has each connection variable with its meaning, and each mechanism."""
    table = rows(README.partition("Connection, for all scripts:")[2].partition("SASL mechanisms")[0])
    assert table == [[name, meaning.removesuffix("`")] for name, meaning in VARIABLES]
    for mechanism in MECHANISMS:
        assert f"`{mechanism}`" in README.partition("SASL mechanisms:")[2]


def test_env_example_has_each_connection_variable() -> None:
    """.env.example has each variable of the connection once, under its meaning, and nothing is set in it."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = [line[2:].partition("=")[0] for line in lines if re.match(r"# [A-Z_]+=", line)]
    assert named == ["KAFKA_BROKERS", *(variable.name for variable in VARIABLES)]
    assert all(not line or line.startswith("#") for line in lines)
    for variable in VARIABLES:
        assert lines[lines.index(f"# {variable.meaning}") + 1].startswith(f"# {variable.name}="), variable.name


def test_git_ignores_the_file_with_the_secrets() -> None:
    """.env is never committed by accident."""
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_exit_codes() -> None:
    """The README's table of exit codes has each that the scripts use, and no other."""
    shown = {int(number) for row in rows(section("Exit codes")) for number in row[0].split(",")}
    assert shown == {int(code) for code in ExitCode} | {130, 143}


def fields() -> Iterator[tuple[str, str]]:
    """Each field of the structs that a result file is made of."""
    structs = (
        result.ConsumerResult, result.ProducerResult, stats.ConsumerSummary, stats.ProducerSummary,
        stats.Distribution, stats.HistogramState, stats.PartitionRow, series.Row, series.SeriesState,
        trace.LedgerCounts, trace.LedgerState, clock.ClockOffset, growth.Growth, run.Report, run.JudgedLimit,
        series.BacklogRow,
        capacity.Capacity, capacity.Step, compare.Comparison, compare.Difference, compare.ChangeOutcome,
    )  # fmt: skip
    for struct in structs:
        for name in struct.__struct_fields__:
            yield struct.__name__, name


@pytest.mark.parametrize(("struct", "name"), list(fields()))
def test_every_field_of_a_result_is_described(struct: str, name: str) -> None:
    """docs/result.md names each field of a result file."""
    assert f"`{name}`" in (ROOT / "docs" / "result.md").read_text(encoding="utf-8"), struct


def test_every_reason_and_unit_is_described() -> None:
    """docs/measurement.md has each reason why a message gave no delta, and the README each unit of a timestamp."""
    shown = {row[0] for row in rows(MEASUREMENT.partition("## Where every message ends up")[2].partition("\n## ")[0])}
    assert shown == {"measured", *(reason.value for reason in Rejection)}
    for unit in UNITS.keys() - {"ms"}:  # the default
        assert f"`{unit}`" in section("What your streams operator must do") or f"-unit {unit}`" in README


def test_every_ledger_counter_is_defined() -> None:
    """docs/measurement.md defines each counter of the ledger in its table."""
    text = MEASUREMENT.partition("## Lost, doubled, out of order")[2].partition("\n## ")[0]
    assert [row[0] for row in rows(text)] == list(trace.LedgerCounts.__struct_fields__)


def cited_tests() -> list[tuple[str, str]]:
    """Each test that a page of docs/ names: file and function."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
    return sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", pages)))


@pytest.mark.parametrize(("file", "function"), cited_tests())
def test_a_cited_test_exists(file: str, function: str) -> None:
    """What the documents name as the proof of a statement is there."""
    found = list((ROOT / "tests").glob(f"*/{file}"))
    assert len(found) == 1
    assert re.search(rf"^ *def {function}\(", found[0].read_text(encoding="utf-8"), re.MULTILINE)


def test_each_section_of_measurement_names_its_tests() -> None:
    """A section of docs/measurement.md that defines a figure says which tests hold it to the code."""
    sections = re.split(r"^## ", MEASUREMENT, flags=re.MULTILINE)[1:]
    without = [text.splitlines()[0] for text in sections if "*Tests:* `test_" not in text]
    assert without == ["For the meeting"]  # a digest of the others


def test_links_inside_pages() -> None:
    """Each heading that a link of the README or of docs/ points to is there."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert anchor in anchors(page.parent / target if target else page), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_and_files() -> None:
    """Each file that the README or a page of docs/ links to is there, and each file that the README lists."""
    for page in (
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *map(ROOT.joinpath, ("CONTRIBUTING.md", "SECURITY.md")),
    ):
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
