"""The table of examples in demo/operators.py, against the folders and their pages; none of them runs here."""

from __future__ import annotations

import re
import shutil

import pytest

from demo.operators import ENGINES, EXAMPLES, OperatorError, prepare, reading_flags


def test_the_pages_list_the_engines() -> None:
    """The examples' README has a row for each engine, in the table's order, and each folder is one of them."""
    rows = re.findall(r"^\| \[([\w-]+)\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(ENGINES) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", ENGINES)
def test_a_page_says_how_to_run_and_to_measure(name: str) -> None:
    """A page of one screen has the command of the demo, the connector, and the unit of the stamp if it is not ms."""
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert f"make demo OPERATOR={name}`" in page
    assert ENGINES[name].connector in page
    assert " ".join(reading_flags(name)) in page
    assert len(page.splitlines()) <= 40


@pytest.mark.parametrize(("name", "package"), [("spark", "default-jre-headless"), ("flink-sql", "default-jre-headless"),
                                               ("kafka-streams", "default-jdk-headless")])  # fmt: skip
def test_a_missing_java_is_said_with_its_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java the error names what is missing, and Debian's package, before anything is downloaded."""
    monkeypatch.setattr(shutil, "which", lambda _tool: None)
    with pytest.raises(OperatorError, match=package):
        prepare(name)


def test_an_unknown_engine_is_refused_with_all_names() -> None:
    """A mistyped OPERATOR gets the list."""
    with pytest.raises(OperatorError, match=r"flink is not one of .*flink-sql"):
        prepare("flink")
