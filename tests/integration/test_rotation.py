"""Fault 25: credentials that stop being right while a test runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from harness import TIMEOUT_S, Cluster, Scripts
from test_faults import end_offset

from demo.broker import EmbeddedBroker, Security

pytestmark = pytest.mark.integration

KEY, PASSWORD, ROTATED = "a-secret-key-0815", "a-secret-password-4711", "another-secret-1701"
Wait = Callable[[Callable[[], bool]], None]


@pytest.mark.parametrize("rate", ["0", "500"], ids=["full speed", "open loop"])
def test_row_25_a_key_rotated_while_the_broker_restarts(scripts: Scripts, await_condition: Wait, rate: str) -> None:
    """A producer that meets a restarted broker with a stale key ends within 10 s, with its report; exit code 4."""
    with EmbeddedBroker(security=Security(plain_users={"token": KEY})) as broker:
        cluster = Cluster(broker.bootstrap_servers)
        topic = cluster.create_topic()
        assert broker.security is not None
        variables = {
            "KAFKA_BROKERS": broker.secure_bootstrap_servers,
            "KAFKA_APIKEY": KEY,
            "KAFKA_CERT": broker.security.certificate.ca_pem,
        }
        flags = ("--topic", topic, "--size", "1000M", "--rate", rate, "--result", "p.json")
        producer = scripts.start("ProducerPerformance.py", *flags, **variables)
        await_condition(lambda: end_offset(cluster, topic) > (1_000 if rate != "0" else 100_000))
        broker.kill()
        broker.security = Security(plain_users={"token": ROTATED}, certificate=broker.security.certificate)
        broker.start()
        cluster = Cluster(broker.bootstrap_servers)  # librdkafka keeps a leader epoch of before, which is refused
        scripts.wait_for(producer, "SASL authentication error")
        refused_s = time.monotonic()
        stdout, stderr = producer.communicate(timeout=TIMEOUT_S)
        assert time.monotonic() - refused_s < 10
        assert producer.returncode == 4, stderr
        acknowledged = int(re.search(r"acknowledged +(\d+)\n", stdout)[1])  # type: ignore[index]
        summary = json.loads((scripts.folder / "p.json").read_text())["summary"]
        assert 100 < acknowledged == summary["acknowledged"], (stdout, stderr)
        await_condition(lambda: end_offset(cluster, topic) >= acknowledged)
        assert acknowledged + sum(summary["failed"].values()) + summary["unknown"] == summary["messages"]
        for text in (stdout, stderr, (scripts.folder / "p.json").read_text()):
            assert KEY not in text


def test_row_25_a_scram_password_rotated_under_reauthentication(scripts: Scripts) -> None:
    """A consumer whose password was changed ends when the broker asks for it anew, with its report; exit code 3."""
    security = Security(scram_users={"alice": PASSWORD})
    with EmbeddedBroker(security=security, properties={"connections.max.reauth.ms": "3000"}) as broker:
        cluster = Cluster(broker.bootstrap_servers)
        topic = cluster.create_topic()
        cluster.produce(topic, [b'{"timestamp_start":1795000000000}'] * 5)
        variables = {
            "KAFKA_BROKERS": broker.secure_bootstrap_servers,
            "KAFKA_USER": "alice",
            "KAFKA_PASSWORD": PASSWORD,
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_CERT": security.certificate.ca_pem,
        }
        consumer = scripts.start("PerfConsumer.py", "--topic", topic, "--windows", "5", **variables)
        assert consumer.stdout is not None
        assert consumer.stdout.readline().startswith("[STAT 5]")
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        changed = UserScramCredentialUpsertion("alice", info, ROTATED.encode())
        cluster.admin.alter_user_scram_credentials([changed])["alice"].result(TIMEOUT_S)
        stdout, stderr = consumer.communicate(timeout=30)
        assert consumer.returncode == 3, stderr
        assert "error: the consumer cannot go on: the cluster refuses it: " in stderr
        assert re.search(r"messages read +5\n", stdout)
        assert PASSWORD not in stdout + stderr
