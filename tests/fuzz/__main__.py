"""`python -m tests.fuzz RUNS [TARGET …]`: each target meets RUNS inputs, chosen by the code that they reach (atheris).

It stops at the first finding, which is shown with its input.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

TARGETS = ("payloads", "data_sets", "options")


def main() -> int:
    """Each target in a process of its own, because the fuzzer ends its process. Returns the exit code."""
    runs, names = sys.argv[1], sys.argv[2:] or TARGETS
    for name in names:
        started_s = time.monotonic()
        with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            command = [sys.executable, "-m", "tests.fuzz.one", name, runs]
            environment = {**os.environ, "TMPDIR": folder}  # the fuzzer ends its process without cleaning up
            code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
            log.seek(0)
            said = log.read().decode(errors="replace")
            for finding in Path(folder).glob(f"fuzz-{name}-*"):
                print(f"kept: {shutil.move(finding, tempfile.gettempdir())}", file=sys.stderr)
        if code:
            print(f"{said[-5_000:]}\n{name}: a finding, or the fuzzer failed: see above", file=sys.stderr)
            return 1
        print(f"{name}: {runs} inputs in {time.monotonic() - started_s:.0f} s, no finding", flush=True)
    versions = (f"{package} {version(package)}" for package in ("atheris", "msgspec", "python-dotenv"))
    print(f"Python {sys.version.split()[0]}, {', '.join(versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
