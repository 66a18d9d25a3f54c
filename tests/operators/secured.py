"""An example with the lines for a secured cluster, put where examples/operators/README.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from demo.operators import ENGINES, EXAMPLES, prepare

_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka"
_BROKERS = 'os.environ["KAFKA_BROKERS"]'


def documented_lines() -> dict[str, str]:
    """By example: the lines of the README's table."""
    text = (EXAMPLES / "README.md").read_text()
    assert f"`{_MODULE}`" in text and f"`{_MODULE.replace('org.apache.kafka', _SHADED)}`" in text  # of LOGIN
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| `([^`]+)`[^|]*\|$", text, re.MULTILINE)
    return {name: lines for name, lines in rows if name in ENGINES} | {"kafka-streams": dict(rows)["java-clients"]}


def secured_command(engine: str, folder: Path) -> list[str]:
    """The command that runs a copy of the example in `folder` that has its lines; `ca.pem` is in the folder too."""
    command, copy = prepare(engine), folder / "example"
    shutil.copytree(EXAMPLES / engine, copy, ignore=shutil.ignore_patterns("target"))
    source = next(copy.glob("src/**/*.java") if ENGINES[engine].java else copy.glob("*.py"))
    text = source.read_text()
    for old, new in _changes(engine, documented_lines()[engine].replace("/FOLDER", str(folder))):
        assert old in text, old
        text = text.replace(old, new)
    source.write_text(text)
    if not ENGINES[engine].java:
        return [*command[:-1], str(source)]
    built = subprocess.run(["mvn", "--quiet", "--batch-mode", "--file", str(copy), "package"], capture_output=True)
    assert built.returncode == 0, built.stdout.decode()
    return ["java", "-jar", str(copy / "target" / "operator.jar")]


def _changes(engine: str, lines: str) -> list[tuple[str, str]]:
    """What is to be replaced by what in the example's source."""
    java_login = f'"{_MODULE} required username=\\"token\\" password=\\"" + System.getenv("KAFKA_APIKEY") + "\\";"'
    login = f"""'{_MODULE} required username="token" password="' + os.environ["KAFKA_APIKEY"] + '";'"""
    if engine == "java-clients":
        brokers = '"bootstrap.servers", System.getenv("KAFKA_BROKERS")'
        return [(brokers, f"{brokers}, {lines.replace('LOGIN', java_login)}")]
    if engine == "kafka-streams":
        pairs = re.findall(r'("[^"]+"), ("[^"]+"|LOGIN)', lines)
        puts = "".join(f"properties.put({name}, {value});\n" for name, value in pairs).replace("LOGIN", java_login)
        return [("        return properties;\n", f"{puts}        return properties;\n")]
    if engine == "flink-sql":
        brokers, shaded = "'properties.bootstrap.servers' = '{brokers}',\n", login.replace("org.apache.kafka", _SHADED)
        return [(brokers, brokers + lines), (f'"brokers": {_BROKERS},', f'"brokers": {_BROKERS}, "login": {shaded},')]
    if engine == "spark":
        defined = f"LOGIN = {login}\n{lines}\n\n\ndef started("
        return [("def started(", defined), ('.format("kafka")', '.format("kafka").options(**secured)')]
    if engine == "confluent-kafka":
        return [(f'{{"bootstrap.servers": {_BROKERS}}}', f'{{"bootstrap.servers": {_BROKERS}, {lines}}}')]
    imported = "from quixstreams import Application\n"
    more = f"{imported}from quixstreams.kafka.configuration import ConnectionConfig\n"
    return [(imported, more), (f"broker_address={_BROKERS}", f"broker_address={lines}")]
