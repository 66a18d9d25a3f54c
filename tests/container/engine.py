"""Containers as Kubernetes would run them: any user with group 0, nothing to be written but /tmp, no capability."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 60.0
KEY, PASSWORD = "an-api-key-0815", "a-password-4711"  # of the broker's user `token`, and of alice
RESTRICTIONS = (
    "--user", "1000680000:0", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges",
)  # fmt: skip


def working_engine() -> str | None:
    """docker or podman, whichever can run containers."""
    for name in ("docker", "podman"):
        try:
            done = subprocess.run([name, "info"], capture_output=True, check=False, timeout=TIMEOUT_S)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return name
    return None


class Containers:
    """Runs commands in containers of one image, with the network of this machine."""

    def __init__(self, engine: str, image: str, folder: Path) -> None:
        self.engine = engine
        self.image = image
        self.folder = folder
        self._started: list[str] = []

    def command(self, *arguments: str, options: Sequence[str], variables: Mapping[str, str]) -> list[str]:
        """The command line that runs `arguments`; the values of variables are not in it, as some are secret."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._started.append(name)
        given = [word for variable in variables for word in ("--env", variable)]
        always = [self.engine, "run", "--rm", "--name", name, "--network", "host"]
        return [*always, *options, *given, self.image, *arguments]

    def start(self, *arguments: str, options: Sequence[str] = RESTRICTIONS, **variables: str) -> subprocess.Popen[str]:
        """Start a command; its output is in files, as nobody reads a pipe meanwhile."""
        command = self.command(*arguments, options=options, variables=variables)
        with self._output("out").open("w") as out, self._output("err").open("w") as err:
            return subprocess.Popen(command, env={**os.environ, **variables}, stdout=out, stderr=err, text=True)

    def run(
        self, *arguments: str, options: Sequence[str] = RESTRICTIONS, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self.ended(self.start(*arguments, options=options, **variables))

    def ended(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """What a started command came to."""
        code = process.wait(TIMEOUT_S)
        stdout, stderr = self._output("out").read_text(), self._output("err").read_text()
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(process.args, code, stdout, stderr)

    def wait_for(self, text: str) -> None:
        """Wait until the command that was started last says `text` on stderr."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while text not in self._output("err").read_text():
            assert time.monotonic() < deadline_s, self._output("err").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM for the command that was started last, as at the end of a pod."""
        subprocess.run([self.engine, "kill", "--signal", "TERM", self._started[-1]], capture_output=True, check=True)

    def close(self) -> None:
        """Remove what a test left."""
        for name in self._started:
            subprocess.run([self.engine, "rm", "--force", name], capture_output=True, check=False)

    def _output(self, end: str) -> Path:
        return self.folder / f"{self._started[-1]}.{end}"
