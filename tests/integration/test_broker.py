"""The embedded broker itself: what the other integration tests and the demo rely on."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

import demo.broker
from demo.broker import BrokerError, EmbeddedBroker, Security, issue_certificate

pytestmark = pytest.mark.integration

PLAIN_KEY = 'quotes " and \\ backslash, ünïcode'
SCRAM_PASSWORD = "spaces = and signs!"


@pytest.fixture(scope="module")
def secure_broker() -> Iterator[EmbeddedBroker]:
    """A broker with a SASL_SSL listener and ACLs."""
    security = Security(plain_users={"token": PLAIN_KEY}, scram_users={"alice": SCRAM_PASSWORD}, super_users=["alice"])
    with EmbeddedBroker(security=security) as broker:
        yield broker


def produce(bootstrap_servers: str, topic: str, *values: bytes) -> None:
    """Send the values and see each acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(bootstrap_servers: str, topic: str, count: int) -> list[bytes | None]:
    """Read the next values of the consumer group, and commit."""
    settings = {"bootstrap.servers": bootstrap_servers, "group.id": "test", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    try:
        consumer.subscribe([topic])
        messages = consumer.consume(count, timeout=30)
        assert [message.error() for message in messages] == [None] * count
        return [message.value() for message in messages]
    finally:
        consumer.close()


def secure_client(broker: EmbeddedBroker, mechanism: str, user: str, password: str) -> dict[str, Any]:
    """The settings of a client of the SASL_SSL listener."""
    return {
        "bootstrap.servers": broker.secure_bootstrap_servers,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(broker.ca_path),
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }


def first_error(settings: dict[str, Any]) -> int | None:
    """The code of the first error that a client with these settings meets, or None when it reaches the broker."""
    errors: list[KafkaError] = []
    admin = AdminClient(settings | {"error_cb": errors.append, "log_level": 0})
    deadline_s = time.monotonic() + 15
    while not errors and time.monotonic() < deadline_s:
        try:
            admin.list_topics(timeout=1)
            return None
        except KafkaException:
            admin.poll(0)
    return errors[0].code()


def wait_until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    """Wait for something that happens by itself."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        time.sleep(0.05)


def refuses_connections(bootstrap_servers: str) -> bool:
    """Whether nobody listens there."""
    host, port = bootstrap_servers.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_messages_come_back_and_survive_a_crash_on_the_same_ports() -> None:
    """What was acknowledged is still there after SIGKILL and a start with unchanged ports; stop() leaves nothing."""
    with EmbeddedBroker() as broker:
        servers, first_pid, folder = broker.bootstrap_servers, broker.pid, broker.log_path.parent
        produce(servers, "kept", b"1", b"2")
        assert consume(servers, "kept", 2) == [b"1", b"2"]
        broker.kill()
        assert refuses_connections(servers)
        broker.start()
        assert (broker.bootstrap_servers, broker.pid == first_pid) == (servers, False)
        produce(servers, "kept", b"3")
        assert consume(servers, "kept", 1) == [b"3"]  # the group's offsets survived too
    assert refuses_connections(servers)
    assert not folder.exists()


def test_a_paused_broker_answers_nothing_until_it_is_resumed() -> None:
    """After pause() connections open but requests stay unanswered; after resume() they are answered."""
    with EmbeddedBroker() as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        broker.pause()
        assert not refuses_connections(broker.bootstrap_servers)
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=1)
        broker.resume()
        assert admin.list_topics(timeout=15).brokers


@pytest.mark.parametrize(
    ("mechanism", "user", "password"),
    [("PLAIN", "token", PLAIN_KEY), ("SCRAM-SHA-512", "alice", SCRAM_PASSWORD)],
    ids=["plain", "scram"],
)
def test_the_secure_listener_accepts_only_the_right_password(
    secure_broker: EmbeddedBroker, mechanism: str, user: str, password: str
) -> None:
    """A user gets in over TLS with the right password and is refused with a wrong one."""
    assert first_error(secure_client(secure_broker, mechanism, user, password)) is None
    wrong = secure_client(secure_broker, mechanism, user, password + "x")
    assert first_error(wrong) == KafkaError._AUTHENTICATION


def test_acls_bind_all_but_super_users(secure_broker: EmbeddedBroker) -> None:
    """With super_users a user without an ACL may not write, and a super user may."""
    token = secure_client(secure_broker, "PLAIN", "token", PLAIN_KEY)
    alice = secure_client(secure_broker, "SCRAM-SHA-512", "alice", SCRAM_PASSWORD)
    errors: list[KafkaError | None] = []
    for settings in (alice, token):
        producer = Producer(settings)
        producer.produce("guarded", b"x", callback=lambda error, _: errors.append(error))
        assert producer.flush(30) == 0
    assert errors[0] is None
    assert errors[1] is not None
    assert errors[1].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_certificate_and_password_change_between_kill_and_start() -> None:
    """An expired certificate is shown to clients as given; new security counts from the next start."""
    expired = issue_certificate(not_after=datetime.now(timezone.utc) - timedelta(days=1))
    with EmbeddedBroker(security=Security(plain_users={"token": "old"}, certificate=expired)) as broker:
        assert first_error(secure_client(broker, "PLAIN", "token", "old")) == KafkaError._SSL
        broker.kill()
        broker.security = Security(plain_users={"token": "new"})
        broker.start()
        assert first_error(secure_client(broker, "PLAIN", "token", "new")) is None


def test_a_taken_port_leads_to_other_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program listens on a chosen port, the broker starts on others."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        first, second = (random.SystemRandom().sample(demo.broker.PORTS, 4) for _ in range(2))
        choices = iter([[taken, *first[1:]], second])
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: next(choices))
        with EmbeddedBroker() as broker:
            assert broker.bootstrap_servers != f"127.0.0.1:{taken}"
            assert AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=15).brokers


def test_a_broker_that_cannot_start_says_why() -> None:
    """The error carries Kafka's own explanation, and nothing is left behind."""
    broker = EmbeddedBroker(properties={"compression.type": "nonsense"})
    with pytest.raises(BrokerError, match="nonsense"):
        broker.start()
    with pytest.raises(BrokerError, match="not started"):
        _ = broker.pid


def test_without_a_network_the_download_fails_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing cached and Maven Central out of reach the error names both, and no half cache remains."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"^cannot download Apache Kafka [\d.]+ from Maven Central: .+$"):
        demo.broker.classpath()
    assert [path.name for path in (tmp_path / ".cache" / "kafka-performance").iterdir()] == []


def test_the_broker_ends_with_the_process_that_started_it() -> None:
    """SIGKILL for the Python process ends its broker and removes the broker's data."""
    script = (
        "import time\nfrom demo.broker import EmbeddedBroker\nbroker = EmbeddedBroker()\nbroker.start()\n"
        "print(broker.bootstrap_servers, broker.log_path.parent, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        servers, folder = parent.stdout.readline().split()
        assert not refuses_connections(servers)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: refuses_connections(servers))
    wait_until(lambda: not Path(folder).exists())
