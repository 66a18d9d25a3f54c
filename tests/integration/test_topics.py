"""PerfTopics.py: create, list, describe, delete and check, with and without rights (fault 8)."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from harness import ROOT, TIMEOUT_S, Cluster, Scripts

from demo.broker import EmbeddedBroker, Security, issue_certificate

pytestmark = pytest.mark.integration

KEY = "a-secret-key-0815"


def describe(scripts: Scripts, topic: str) -> str:
    """What `PerfTopics.py describe` prints."""
    done = scripts.run("PerfTopics.py", "describe", topic)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------ create, list, describe, delete


def test_topics_from_creation_to_deletion(scripts: Scripts, cluster: Cluster) -> None:
    """Several topics are created, listed, described with offsets and configuration, and deleted at once."""
    names = [cluster.create_topic() + end for end in ("-a", "-b")]
    done = scripts.run("PerfTopics.py", "create", *names, "--partitions", "2")
    assert done.stdout.splitlines() == [f"created: {name}" for name in names]
    cluster.produce(names[0], [b"{}"] * 3)
    listed = scripts.run("PerfTopics.py", "list").stdout
    assert all(re.search(rf"^{name} +partitions: 2$", listed, re.MULTILINE) for name in names)
    assert "__" not in listed
    described = describe(scripts, names[0])
    assert "partitions 2, replication factor 1" in described
    assert re.search(r"message.timestamp.type +LogAppendTime\n", described)
    assert re.search(r"retention.ms +\d+\n", described)
    assert "partition 0: offsets 0 to 3, leader 1, 1 of 1 copies in sync" in described
    assert "partition 1: offsets 0 to 0" in described
    done = scripts.run("PerfTopics.py", "delete", *names, "--yes")
    assert done.stdout.splitlines() == [f"deleted: {name}" for name in names]
    assert not set(names) & cluster.topics()


def test_creating_again_says_what_differs(scripts: Scripts, cluster: Cluster) -> None:
    """The same topic again is success; other partitions, copies or timestamp type are named; exit code 3."""
    topic = f"{cluster.create_topic()}-mine"
    for said in ("created", "there already"):
        done = scripts.run("PerfTopics.py", "create", topic, "--replication-factor", "1")
        assert (done.returncode, done.stdout) == (0, f"{said}: {topic}\n")
    done = scripts.run(
        "PerfTopics.py", "create", topic, "--partitions", "3", "--replication-factor", "2",
        "--timestamp-type", "CreateTime",
    )  # fmt: skip
    assert done.returncode == 3
    differences = "partitions is 1, not 3 and replication factor is 1, not 2 and message.timestamp.type is"
    assert f"the topic {topic} is there, but {differences} LogAppendTime, not CreateTime" in done.stderr


def test_one_that_fails_does_not_keep_the_others_back(scripts: Scripts, cluster: Cluster) -> None:
    """Of several names each is dealt with; the exit code tells that one of them failed."""
    first, last = (cluster.create_topic() for _ in range(2))
    done = scripts.run("PerfTopics.py", "delete", first, f"{first}-missing", last, "--yes")
    assert done.returncode == 3
    assert done.stdout == f"deleted: {first}\ndeleted: {last}\n"
    assert f"the topic {first}-missing does not exist\n" in done.stderr


def test_delete_asks_nobody_who_cannot_answer(scripts: Scripts, cluster: Cluster) -> None:
    """Without a terminal nothing is deleted unless --yes says so; exit code 2."""
    topic = cluster.create_topic()
    done = scripts.run("PerfTopics.py", "delete", topic)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert topic in cluster.topics()


@pytest.mark.parametrize(("answer", "deleted"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_delete_asks_on_a_terminal(scripts: Scripts, cluster: Cluster, answer: str, deleted: bool) -> None:
    """On a terminal the topics are named, and only a yes deletes them."""
    topic = cluster.create_topic()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "PerfTopics.py"), "delete", topic],
        env={**scripts.environment, "PYTHONPATH": str(ROOT)},
        cwd=scripts.folder,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    os.close(ours)
    assert process.returncode == 0
    assert f"deletes all messages of: {topic}" in stderr
    assert (topic not in cluster.topics()) is deleted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create",), "create needs at least one topic name"),
        (("describe",), "describe needs at least one topic name"),
        (("check",), "check needs --input, --output or both"),
        (("check", "name"), "use --input and --output"),
        (("list", "name"), "list takes no topic names"),
        (("create", "bad name"), "bad name is not allowed"),
    ],
)
def test_wrong_usage(scripts: Scripts, arguments: tuple[str, ...], said: str) -> None:
    """A command that lacks something, or has too much, says what; exit code 2."""
    done = scripts.run("PerfTopics.py", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


# ---------------------------------------------------------------------------------------------------------------- check


def test_check_of_what_is_ready(scripts: Scripts, cluster: Cluster) -> None:
    """With both topics and the clock topic there, each step has a tick, nothing is written to them; exit code 0."""
    source, output = cluster.create_topic(partitions=2), cluster.create_topic()
    clock = cluster.create_topic(name_end="-clock")
    flags = ("--input", source, "--output", output, "--group", f"{output}-group", "--clock-topic", clock)
    done = scripts.run("PerfTopics.py", "check", *flags)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.startswith("✓ ") for line in lines[:-1])
    assert lines[-1] == "a measurement can begin"
    for said in (
        "connected to", "ANONYMOUS (PLAINTEXT)", f"input topic {source}: 2 partition", f"{source} is LogAppendTime",
        f"may write to {source}", f"may read {output}", f"in the group {output}-group", "clock of broker 1: ",
    ):  # fmt: skip
        assert said in done.stdout
    for topic in (source, output):
        assert "offsets 0 to 0" in describe(scripts, topic)


def test_a_misspelt_topic_is_told_with_the_nearest_one(scripts: Scripts, cluster: Cluster) -> None:
    """Two letters exchanged: the name that is there is named before the command that would make the misspelt one."""
    name = cluster.create_topic(name_end="-pipeline-input")
    misspelt = f"{name.removesuffix('put')}ptu"
    done = scripts.run("ProducerPerformance.py", "--topic", misspelt, "--size", "1")
    assert done.returncode == 3
    assert f"the topic {misspelt} does not exist (did you mean {name}?); create it with: " in done.stderr


def test_check_names_what_is_to_be_mended(scripts: Scripts, cluster: Cluster) -> None:
    """A missing input topic is a cross, a CreateTime output topic a warning, each with the command that helps."""
    output = cluster.create_topic(timestamp_type="CreateTime")
    missing = f"{output}-missing"
    flags = ("--input", missing, "--output", output, "--clock-topic", f"{output}-clock")
    done = scripts.run("PerfTopics.py", "check", *flags)
    assert done.returncode == 3
    assert f"✗ the topic {missing} does not exist; create it with: python PerfTopics.py create {missing}" in done.stdout
    assert f"! {output} is CreateTime: the operator chooses its stamps" in done.stdout
    assert f"To change that: kafka-configs.sh --bootstrap-server {cluster.brokers}" in done.stdout
    assert "! the clock error will be n/a; a topic for probes is made by: python PerfTopics.py clock" in done.stdout
    assert done.stdout.endswith("1 to mend\n")
    assert missing not in cluster.topics()


def test_check_without_a_connection(scripts: Scripts) -> None:
    """Where nobody listens the first step is the cross, with the cause, within 10 s; exit code 3."""
    start_s = time.monotonic()
    done = scripts.run("PerfTopics.py", "check", "--input", "in", "--output", "out", KAFKA_BROKERS="localhost:1")
    assert time.monotonic() - start_s < 10
    assert done.returncode == 3
    assert done.stdout.startswith("✗ cannot connect to localhost:1: ")
    assert "Connection refused" in done.stdout


# ----------------------------------------------------------------------------------------------------- what ACLs allow


class Guarded(NamedTuple):
    """A broker with ACLs, where the user `token` may do what a test allows."""

    broker: EmbeddedBroker
    cluster: Cluster

    def variables(self) -> dict[str, str]:
        """What the user sets."""
        servers = self.broker.secure_bootstrap_servers
        return {"KAFKA_BROKERS": servers, "KAFKA_APIKEY": KEY, "KAFKA_CERT": str(self.broker.ca_path)}

    def allow(self, topic: str, *operations: AclOperation) -> None:
        """Allow the user these operations on the topic."""
        bindings = [
            AclBinding(
                ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:token", "*", operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]  # fmt: skip
        for future in self.cluster.admin.create_acls(bindings).values():
            future.result(TIMEOUT_S)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """One broker with ACLs."""
    with EmbeddedBroker(security=Security(plain_users={"token": KEY}, super_users=[])) as broker:
        yield Guarded(broker, Cluster(broker.bootstrap_servers))


@pytest.mark.parametrize("script", ["ProducerPerformance.py", "PerfConsumer.py", "test.py"])
def test_row_8_a_topic_that_may_not_be_seen(scripts: Scripts, guarded: Guarded, script: str) -> None:
    """A topic without any right is named, with what may help; exit code 3."""
    topic = guarded.cluster.create_topic()
    done = scripts.run(script, TOPIC_NAME=topic, **guarded.variables())
    assert done.returncode == 3
    assert f"not authorised for the topic {topic}, or it does not exist" in done.stderr
    assert f"PerfTopics.py create {topic}" in done.stderr


def test_row_8_reading_but_not_writing(scripts: Scripts, guarded: Guarded) -> None:
    """A producer that may only read is told so with the topic's name; exit code 3, and nothing was sent."""
    topic = guarded.cluster.create_topic()
    guarded.allow(topic, AclOperation.READ)
    done = scripts.run("ProducerPerformance.py", TOPIC_NAME=topic, **guarded.variables())
    assert done.returncode == 3
    assert f"not authorised to write to the topic {topic}" in done.stderr


def test_row_8_creating_and_deleting_without_the_right(scripts: Scripts, guarded: Guarded) -> None:
    """Who may not create or delete is told which right is missing, not to run the same command; exit code 3."""
    topic = guarded.cluster.create_topic()
    guarded.allow(topic, AclOperation.DESCRIBE)
    done = scripts.run("PerfTopics.py", "create", f"{topic}-new", **guarded.variables())
    assert done.returncode == 3
    assert f"not authorised to create the topic {topic}-new: the credentials need the right Create" in done.stderr
    done = scripts.run("PerfTopics.py", "delete", topic, "--yes", **guarded.variables())
    assert done.returncode == 3
    assert f"not authorised to delete the topic {topic}" in done.stderr
    assert "PerfTopics.py create" not in done.stderr
    assert topic in guarded.cluster.topics()


def test_check_of_rights(scripts: Scripts, guarded: Guarded) -> None:
    """Missing rights are crosses with the command that grants them, found without writing; given ones are ticks."""
    source, output = guarded.cluster.create_topic(), guarded.cluster.create_topic()
    for topic in (source, output):
        guarded.allow(topic, AclOperation.DESCRIBE)
    flags = ("--input", source, "--output", output, "--group", "some-group")
    done = scripts.run("PerfTopics.py", "check", *flags, **guarded.variables())
    assert done.returncode == 3
    assert "as token (SASL_SSL, PLAIN)" in done.stdout
    assert f"✗ the credentials may not write to {source}\n  → kafka-acls.sh" in done.stdout
    assert f"--allow-principal User:token --operation Read --topic {output}\n" in done.stdout
    assert "✗ the credentials may not read in the group some-group" in done.stdout
    assert f"! the timestamp type of {source} may not be read" in done.stdout
    guarded.allow(source, AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS)
    guarded.allow(output, AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
    done = scripts.run("PerfTopics.py", "check", "--input", source, "--output", output, **guarded.variables())
    assert done.returncode == 0, done.stdout
    assert f"✓ the credentials may write to {source}" in done.stdout
    assert f"✓ {output} is LogAppendTime" in done.stdout
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("given", ["nothing", "certificate", "key"])
def test_a_broker_that_stands_still_does_not_answer(scripts: Scripts, given: str) -> None:
    """Slow is not closing: librdkafka calls all brokers down after its time-outs, but nobody asked for credentials."""
    certificate = issue_certificate()
    with EmbeddedBroker(security=Security(plain_users={"token": KEY}, certificate=certificate)) as broker:
        variables = {
            "nothing": {"KAFKA_BROKERS": broker.bootstrap_servers},
            "certificate": {"KAFKA_BROKERS": broker.secure_bootstrap_servers, "KAFKA_CERT": certificate.ca_pem},
            "key": {
                "KAFKA_BROKERS": broker.secure_bootstrap_servers, "KAFKA_CERT": certificate.ca_pem, "KAFKA_APIKEY": KEY,
            },
        }[given]  # fmt: skip
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            timeout = ("--config", "socket.connection.setup.timeout.ms=1000")
            done = scripts.run("PerfTopics.py", "check", "--input", "t", *timeout, **variables)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert done.returncode == 3
        assert "no answer within 6 s" in done.stdout
        assert "credentials" not in done.stdout
