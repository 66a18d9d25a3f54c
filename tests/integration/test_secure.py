"""SASL_SSL on a real broker: the environment's credentials and certificates, and what a wrong one ends in."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import Cluster, Scripts

from demo.broker import EmbeddedBroker, Security, issue_certificate

pytestmark = pytest.mark.integration

KEY = "a-secret-key-0815"
PASSWORD = "a-secret-password-4711"


class Secured(NamedTuple):
    """A broker with a SASL_SSL listener, and a topic there."""

    broker: EmbeddedBroker
    topic: str

    def variables(self, **more: str) -> dict[str, str]:
        """What a client of the secure listener sets."""
        return {"KAFKA_BROKERS": self.broker.secure_bootstrap_servers, "TOPIC_NAME": self.topic, **more}


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """One secured broker, with a PLAIN and a SCRAM-SHA-512 user."""
    security = Security(plain_users={"token": KEY}, scram_users={"alice": PASSWORD})
    with EmbeddedBroker(security=security) as broker:
        yield Secured(broker, Cluster(broker.bootstrap_servers).create_topic())


@pytest.mark.parametrize("certificate", ["KAFKA_CERT", "PEM_CERT"])
def test_api_key(scripts: Scripts, secured: Secured, certificate: str) -> None:
    """With KAFKA_APIKEY and a certificate both scripts work over SASL_SSL, and the result file has no secret."""
    variables = secured.variables(KAFKA_APIKEY=KEY, **{certificate: str(secured.broker.ca_path)})
    sent = scripts.run("ProducerPerformance.py", RESULT_FILE="p.json", **variables)
    assert sent.returncode == 0, sent.stderr
    assert re.search(r"acknowledged +10\n", sent.stdout)
    read = scripts.run("PerfConsumer.py", "--count", "10", "--timestamp-field", "id", RESULT_FILE="c.json", **variables)
    assert re.search(r"messages read +10\n", read.stdout)
    for text in (
        sent.stdout,
        sent.stderr,
        read.stdout,
        read.stderr,
        *(p.read_text() for p in scripts.folder.iterdir()),
    ):
        assert KEY not in text


def test_key_from_a_file_and_dotenv(scripts: Scripts, secured: Secured, tmp_path: Path) -> None:
    """KAFKA_APIKEY_FILE with a trailing line end works, and so do variables from a .env file in the folder."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / ".env").write_text(f'KAFKA_APIKEY_FILE="key"\nKAFKA_CERT={secured.broker.ca_path}\nSIZE=3\n')
    sent = scripts.run("ProducerPerformance.py", **secured.variables())
    assert sent.returncode == 0, sent.stderr
    assert re.search(r"acknowledged +3\n", sent.stdout)


def test_scram_user(scripts: Scripts, secured: Secured) -> None:
    """KAFKA_USER, KAFKA_PASSWORD and SCRAM-SHA-512 authenticate."""
    sent = scripts.run(
        "ProducerPerformance.py",
        **secured.variables(
            KAFKA_USER="alice",
            KAFKA_PASSWORD=PASSWORD,
            KAFKA_SASL_MECHANISM="SCRAM-SHA-512",
            KAFKA_CERT=str(secured.broker.ca_path),
        ),
    )
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize("script", ["ProducerPerformance.py", "PerfConsumer.py", "test.py"])
def test_wrong_key(scripts: Scripts, secured: Secured, script: str) -> None:
    """A wrong API key ends within 10 s in exit code 3 with the cause, and the key is not printed."""
    wrong = "wrong-secret-2342"
    start_s = time.monotonic()
    done = scripts.run(script, **secured.variables(KAFKA_APIKEY=wrong, KAFKA_CERT=str(secured.broker.ca_path)))
    assert time.monotonic() - start_s < 10
    assert done.returncode == 3
    assert "SASL authentication error: Authentication failed" in done.stderr
    assert wrong not in done.stdout + done.stderr


def test_wrong_certificate_authority(scripts: Scripts, secured: Secured, tmp_path: Path) -> None:
    """Another CA than the broker's ends within 10 s in exit code 3 with the cause."""
    (tmp_path / "other.pem").write_text(issue_certificate().ca_pem)
    start_s = time.monotonic()
    done = scripts.run("PerfConsumer.py", **secured.variables(KAFKA_APIKEY=KEY, KAFKA_CERT="other.pem"))
    assert time.monotonic() - start_s < 10
    assert done.returncode == 3
    assert "certificate verify failed" in done.stderr
