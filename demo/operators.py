"""The examples of examples/operators by name: what each needs, how it is made ready, and the command that runs it.

`make demo OPERATOR=kafka-streams` starts one in place of the stand-in, `make test-operators` tests all. Python engines
get a virtual environment of their own in ~/.cache/kafka-performance, as none of their libraries is one of ours.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "operators"
_CACHE = Path.home() / ".cache" / "kafka-performance"
_JAR = Path("target", "operator.jar")


class OperatorError(Exception):
    """An example is unknown, or cannot be made ready: the text says why."""


@dataclass(frozen=True)
class Engine:
    """An example: its language, and the line by which it says that it reads the input topic."""

    java: bool = False
    ready: str = "operator ready"


ENGINES = {
    "confluent-kafka": Engine(),
    "java-clients": Engine(java=True),
    "kafka-streams": Engine(java=True),
    "quix-streams": Engine(ready="is now processing incoming messages"),
}


def prepare(name: str) -> list[str]:
    """Build the example or install its libraries (only what is not there yet); returns the command that runs it.

    The command takes --input, --output and --exactly-once, and the variable KAFKA_BROKERS. Raises OperatorError.
    """
    if name not in ENGINES:
        raise OperatorError(f"OPERATOR: {name} is not one of {', '.join(ENGINES)}")
    return _java(EXAMPLES / name) if ENGINES[name].java else _python(EXAMPLES / name)


def _java(folder: Path) -> list[str]:
    for tool, package in (("javac", "default-jdk-headless"), ("mvn", "maven")):
        if shutil.which(tool) is None:
            raise OperatorError(f"{folder.name} needs {tool}, which is missing; on Debian: apt-get install {package}")
    jar = folder / _JAR
    newest_s = max(path.stat().st_mtime for path in (folder / "pom.xml", *folder.glob("src/**/*")))
    if not jar.exists() or jar.stat().st_mtime < newest_s:
        _run("mvn", "--quiet", "--batch-mode", "--file", str(folder), "package")
    return ["java", "-jar", str(jar)]


def _python(folder: Path) -> list[str]:
    requirements = folder / "requirements.txt"
    wanted = f"{sys.version} {requirements.read_text(encoding='utf-8')}"
    environment = _CACHE / f"{folder.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
        (environment / "complete").touch()
    # -I keeps PYTHONPATH and the working folder out: a library that means kafka-python must not find our folder kafka.
    return [str(python), "-I", str(folder / "copy_timestamp.py")]


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise OperatorError(f"{' '.join(command)} failed:\n{last}")


def start_command(name: str, *, input_topic: str, output_topic: str, more: Sequence[str] = ()) -> list[str]:
    """The whole command line of the example between two topics. Raises OperatorError as `prepare` does."""
    return [*prepare(name), "--input", input_topic, "--output", output_topic, *more]
