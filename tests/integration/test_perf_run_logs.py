"""Log lines of PerfRun.py and its children as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Scripts


@pytest.mark.integration
def test_every_line_on_stderr_is_json(tmp_path: Path) -> None:
    """What its children say comes as records, too, with their names, where nobody listens (so without a broker)."""
    scripts = Scripts("localhost:1", tmp_path)
    flags = ("--input", "a", "--output", "b", "--rate", "10", "--duration", "1s", "--log-format", "json")
    done = scripts.run("PerfRun.py", *flags)
    assert done.returncode == 3
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["script"] for line in lines} == {"PerfRun.py"}
    refused = [line for line in lines if "Connection refused" in line["message"]]
    assert {line["level"] for line in refused} == {"warning", "error"}
    assert all(line["message"].startswith("check: ") for line in refused)
