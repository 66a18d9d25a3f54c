"""`python -m tests.fuzz.one TARGET RUNS`: one target, until a finding; `… TARGET 0 FILE` shows what that file does."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import atheris

LONGEST_BYTES = 400
_CODE = ["perf.payload", "perf.dataset", "perf.settings", "perf.limits", "perf.trace", "dotenv"]


def fuzz(name: str, runs: int, files: Sequence[Path]) -> None:
    """Let the target meet its seeds, then what the fuzzer makes of them and of its words. Ends the process."""
    with atheris.instrument_imports(include=_CODE, enable_loader_override=False):
        target = import_module(f"tests.fuzz.{name}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        seeds, words = Path(folder) / "seeds", Path(folder) / "words.txt"
        seeds.mkdir()
        for number, seed in enumerate(target.SEEDS):
            (seeds / str(number)).write_bytes(seed)
        quoted = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in target.WORDS)
        words.write_text("".join(f'"{word}"\n' for word in quoted))
        found = Path(tempfile.gettempdir()) / f"fuzz-{name}-"  # and what it is: crash, timeout …
        arguments = [f"-runs={runs}", f"-max_len={LONGEST_BYTES}", f"-dict={words}", f"-artifact_prefix={found}"]
        atheris.Setup([name, *arguments, *map(str, files or [seeds])], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], int(sys.argv[2]), [Path(file) for file in sys.argv[3:]])
