"""Results as versioned JSON files. The schema is described in docs/result.md.

A file is written beside its name and renamed, so that a half-written one is never seen.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from .stats import ConsumerSummary, Histogram, HistogramState, ProducerSummary

VERSION = 1


class ResultError(Exception):
    """A result cannot be written or read."""

    exit_code = 1


class _Versioned(msgspec.Struct):
    version: int


class _Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    version: int = VERSION
    started_at: str
    exit_code: int
    host: str = msgspec.field(default_factory=platform.node)
    topic: str
    configuration: dict[str, str]
    histograms: dict[str, HistogramState]


class ConsumerResult(_Result, frozen=True, kw_only=True, tag="consumer"):
    """What PerfConsumer.py writes."""

    summary: ConsumerSummary


class ProducerResult(_Result, frozen=True, kw_only=True, tag="producer"):
    """What ProducerPerformance.py writes."""

    summary: ProducerSummary


#: Either kind of result.
Result = ConsumerResult | ProducerResult


def of(
    summary: ConsumerSummary | ProducerSummary,
    *,
    topic: str,
    configuration: Mapping[str, str],
    histograms: Mapping[str, Histogram],
    started_at: str,
    exit_code: int,
) -> Result:
    """The result that holds `summary`. `configuration` must be redacted already."""
    common: dict[str, Any] = {
        "topic": topic,
        "configuration": dict(configuration),
        "histograms": {name: histogram.state() for name, histogram in histograms.items()},
        "started_at": started_at,
        "exit_code": exit_code,
    }
    if isinstance(summary, ConsumerSummary):
        return ConsumerResult(summary=summary, **common)
    return ProducerResult(summary=summary, **common)


def write(path: Path, result: Result) -> None:
    """Write `result` to `path`. Raises ResultError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            partial.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(f"the result file {path} was not written: {os.strerror(error.errno or 0)}") from error


def read(path: Path) -> Result:
    """Read a result file. Raises ResultError."""
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).version
        if version != VERSION:
            raise ResultError(f"{path} has version {version} of the result's format; this tool reads {VERSION}")
        return msgspec.json.decode(content, type=ConsumerResult | ProducerResult)
    except OSError as error:
        raise ResultError(f"cannot read the result file {path}: {os.strerror(error.errno or 0)}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ResultError(f"{path} is no result file of this tool: {error}") from error
