"""Imports go one way (docs: the scripts know everything, perf and kafka know nothing of each other)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kafka

ROOT = Path(__file__).resolve().parents[2]
OURS = {"kafka", "perf", "demo", "benchmarks", "tests"}
PERF_LIBRARIES = {"msgspec", "hdrh", "dotenv", "prometheus_client", "tqdm", "yaml"}
SCRIPTS = ("ProducerPerformance.py", "PerfConsumer.py", "PerfTopics.py", "PerfRun.py", "test.py")


def imported(path: Path, *, relative: bool = False) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; a relative one as its dots and name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (relative or not node.level):
            yield "." * node.level + (node.module or "")


def foreign(path: Path) -> set[str]:
    """The packages that a file imports, other than its own and the standard library."""
    return {name.partition(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)


def modules(pattern: str) -> list[Path]:
    """Our modules of this pattern."""
    found = sorted(ROOT.glob(pattern))
    assert found
    return found


@pytest.mark.parametrize("path", modules("perf/**/*.py"), ids=lambda path: path.stem)
def test_perf_knows_no_kafka(path: Path) -> None:
    """The measurement imports its few libraries and never kafka or confluent_kafka, not even for types."""
    assert foreign(path) <= PERF_LIBRARIES


@pytest.mark.parametrize("path", modules("perf/report/*.py"), ids=lambda path: path.stem)
def test_renderers_know_only_values(path: Path) -> None:
    """A renderer gets summaries and results: it knows nothing of settings, files of data or processes."""
    ours = {name for name in imported(path, relative=True) if name.startswith(".")}
    assert not ours & {"..settings", "..process", "..progress", "..dataset", "..schedule"}


@pytest.mark.parametrize("path", modules("kafka/**/*.py"), ids=lambda path: path.stem)
def test_kafka_knows_only_its_client(path: Path) -> None:
    """The folder kafka imports confluent_kafka, the standard library and itself."""
    assert foreign(path) <= {"confluent_kafka"}


@pytest.mark.parametrize("name", ["broker", "streams_operator"])
def test_the_demos_parts_know_only_kafka(name: str) -> None:
    """The embedded broker and the stand-in operator use our kafka/, and never perf or confluent_kafka."""
    found = foreign(ROOT / "demo" / f"{name}.py")
    assert found & OURS <= {"kafka"}
    assert "confluent_kafka" not in found


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_reach_the_client_only_through_kafka(script: str) -> None:
    """A script may name confluent_kafka for its types, and imports it nowhere that is run."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    for_types = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    run = [node for node in ast.walk(tree) if node not in {inner for outer in for_types for inner in ast.walk(outer)}]
    names = {alias.name for node in run if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in run if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert packages <= {"kafka", "perf"}


@pytest.mark.parametrize("package", ["kafka", "perf", "demo"])
def test_imports_inside_a_package_are_relative(package: str) -> None:
    """A package names its own modules relatively, so that kafka-python can never be meant."""
    for path in modules(f"{package}/**/*.py"):
        assert package not in foreign(path), path


def test_kafka_is_the_repositorys() -> None:
    """`import kafka` finds our folder, and not the package kafka-python."""
    assert Path(kafka.__file__ or "").parent == ROOT / "kafka"


def test_no_module_hides_one_of_the_standard_library() -> None:
    """No module is called as one of Python's own or as a library that imports of ours could mean."""
    on_the_path = {path.stem for path in ROOT.glob("*.py")} | OURS
    assert not on_the_path & set(sys.stdlib_module_names)
    everywhere = {path.stem for folder in OURS for path in ROOT.glob(f"{folder}/**/*.py")} | {
        path.stem for path in ROOT.glob("*.py")
    }
    assert not everywhere & {"operator", "statistics", "kafka"}
