"""The examples of examples/operators by name: what each needs, how it is made ready, and the command that runs it.

`make demo OPERATOR=kafka-streams` starts one in place of the stand-in, `make test-operators` tests all. Python engines
get a virtual environment of their own in ~/.cache/kafka-performance, as none of their libraries is one of ours.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
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
    """An example: its language, and the line by which it says that it reads the input topic.

    A Python engine that runs on Java names the Maven coordinates of its Kafka connector, and its folder in
    site-packages that takes the jar. `timestamp_unit` is what --timestamp-unit must be for its results.
    """

    java: bool = False
    ready: str = "operator ready"
    connector: str = ""
    jars: str = ""
    timestamp_unit: str = "ms"
    exactly_once: bool = True


ENGINES = {
    "confluent-kafka": Engine(),
    "flink-sql": Engine(
        connector="org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2", jars="pyflink/lib", timestamp_unit="iso8601"
    ),
    "java-clients": Engine(java=True),
    "kafka-streams": Engine(java=True),
    "quix-streams": Engine(ready="is now processing incoming messages"),
    "spark": Engine(
        connector="org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0", jars="pyspark/jars", exactly_once=False
    ),
}


def prepare(name: str) -> list[str]:
    """Build the example or install its libraries (only what is not there yet); returns the command that runs it.

    The command takes --input, --output and --exactly-once, and the variable KAFKA_BROKERS. Raises OperatorError.
    """
    require_known(name)
    return _java(EXAMPLES / name) if ENGINES[name].java else _python(EXAMPLES / name, ENGINES[name])


def require_known(name: str) -> None:
    """Raises OperatorError for a name that no example has."""
    if name not in ENGINES:
        raise OperatorError(f"OPERATOR: {name} is not one of {', '.join(ENGINES)}")


def _need(folder: Path, tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        raise OperatorError(f"{folder.name} needs {tool}, which is missing; on Debian: apt-get install {package}")


def _java(folder: Path) -> list[str]:
    _need(folder, "javac", "default-jdk-headless")
    _need(folder, "mvn", "maven")
    jar = folder / _JAR
    newest_s = max(path.stat().st_mtime for path in (folder / "pom.xml", *folder.glob("src/**/*")))
    if not jar.exists() or jar.stat().st_mtime < newest_s:
        _run("mvn", "--quiet", "--batch-mode", "--file", str(folder), "package")
    return ["java", "-jar", str(jar)]


def _python(folder: Path, engine: Engine) -> list[str]:
    if engine.connector:
        _need(folder, "java", "default-jre-headless")
    requirements = folder / "requirements.txt"
    wanted = f"{sys.version} {requirements.read_text(encoding='utf-8')}{engine.connector}"
    environment = _CACHE / f"{folder.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
        if engine.connector:
            _add_jars(engine.connector, next(environment.glob(f"lib/python*/site-packages/{engine.jars}")))
        (environment / "complete").touch()
    # -I keeps PYTHONPATH and the working folder out: a library that means kafka-python must not find our folder kafka.
    return [str(python), "-I", str(folder / "copy_timestamp.py")]


def _add_jars(connector: str, folder: Path) -> None:
    """Download a connector with all that it needs, but what the engine ships in the folder already."""
    from jgo.maven import MavenContext

    try:
        with tempfile.TemporaryDirectory() as repository:
            maven = MavenContext(repo_cache=Path(repository))
            direct, transitive = maven.resolver.resolve([maven.create_dependency(connector, [])])
            for artifact in (dependency.artifact for dependency in (*direct, *transitive)):
                if not any(folder.glob(f"{artifact.artifactId}-[0-9]*.jar")):
                    shutil.copy(artifact.resolve(), folder)
    except Exception as error:  # jgo lets the errors of requests, XML and files through
        raise OperatorError(f"cannot download {connector} from Maven Central: {error}") from error


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise OperatorError(f"{' '.join(command)} failed:\n{last}")


def reading_flags(name: str) -> list[str]:
    """The flags by which the consumer reads the example's timestamp_start."""
    unit = ENGINES[name].timestamp_unit
    return [] if unit == "ms" else ["--timestamp-unit", unit]


def start_command(name: str, *, input_topic: str, output_topic: str, more: Sequence[str] = ()) -> list[str]:
    """The whole command line of the example between two topics. Raises OperatorError as `prepare` does."""
    return [*prepare(name), "--input", input_topic, "--output", output_topic, *more]
