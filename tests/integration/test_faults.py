"""Faults that really happen: each ends in a clear sentence and the right exit code, never in a traceback or a hang."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from harness import ROOT, TIMEOUT_S, Cluster, Scripts

from demo.broker import EmbeddedBroker

pytestmark = pytest.mark.integration

ALL_SCRIPTS = (
    ("ProducerPerformance.py",),
    ("PerfConsumer.py",),
    ("test.py",),
    ("PerfTopics.py", "create", "some-topic"),
)
STAMP_MS = 1_795_000_000_000
Wait = Callable[[Callable[[], bool]], None]


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("command", ALL_SCRIPTS, ids=lambda command: command[0])
def test_row_4_nobody_listens(scripts: Scripts, command: tuple[str, ...]) -> None:
    """One error names the address and the cause within 10 s; exit code 3."""
    address = f"127.0.0.1:{free_port()}"
    start_s = time.monotonic()
    done = scripts.run(*command, KAFKA_BROKERS=address)
    assert time.monotonic() - start_s < 10
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f"cannot connect to {address}" in errors[0]
    assert "Connection refused" in errors[0]


def test_row_4_a_name_that_does_not_resolve(scripts: Scripts) -> None:
    """A host name that does not exist is named as the cause within 10 s; exit code 3."""
    start_s = time.monotonic()
    done = scripts.run("PerfConsumer.py", KAFKA_BROKERS="no-such-host.invalid:9092")
    assert time.monotonic() - start_s < 10
    assert done.returncode == 3
    assert "Failed to resolve 'no-such-host.invalid:9092'" in done.stderr


@pytest.mark.parametrize("script", ["ProducerPerformance.py", "PerfConsumer.py", "test.py"])
def test_row_8_topic_missing(scripts: Scripts, cluster: Cluster, script: str) -> None:
    """A missing topic is named with the command that creates it, exit code 3, and nothing created it by accident."""
    topic = f"{cluster.create_topic()}-missing"
    done = scripts.run(script, "--topic", topic)
    assert done.returncode == 3
    assert f"the topic {topic} does not exist" in done.stderr
    assert f"PerfTopics.py create {topic}" in done.stderr
    assert topic not in cluster.topics()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("[]", "empty array"),
        ("42", "a single value that is no object"),
        ('[{"a":1},\n {"a":}]', "line 2, column 7"),
        ('{"a":1}\n{"a":2\n', "line 2, column 7"),
        ('{"a":1}\n{"a":NaN}\n', "line 2"),
    ],
)
def test_row_13_data_file(scripts: Scripts, tmp_path: Path, content: str | None, said: str) -> None:
    """A data file that cannot be used is named with its place before anything is connected; exit code 2."""
    if content is not None:
        (tmp_path / "given.json").write_text(content)
    done = scripts.run("ProducerPerformance.py", "--file", "given.json", KAFKA_BROKERS=f"127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert "given.json" in done.stderr
    assert said in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.skipif(shutil.disk_usage(tempfile.gettempdir()).free < 6e9, reason="needs 6 GB of free disk space")
def test_row_14_data_file_of_2_gb(scripts: Scripts, cluster: Cluster, tmp_path: Path) -> None:
    """A file of 2 GB of NDJSON is checked as a whole and sent from, while the producer never holds 250 MB."""
    path, topic = tmp_path / "large.ndjson", cluster.create_topic()
    lines = b"".join(b'{"number":%d,"text":"%b"}\n' % (number, b"x" * 4_000) for number in range(4_000))
    with path.open("wb") as file:
        while file.tell() < 2e9:
            file.write(lines)
    try:
        producer = scripts.start(
            "ProducerPerformance.py", "--file", str(path), "--topic", topic, "--size", "10K", "--keyname", "number"
        )
        peak_kb = 0
        while producer.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{producer.pid}/status").read_text())
            peak_kb = int(found[1]) if found else peak_kb  # a process that has just ended has none
            time.sleep(0.05)
    finally:
        path.unlink()
    stdout, stderr = producer.communicate()
    assert producer.returncode == 0, stderr
    assert re.search(r"^  acknowledged +10000$", stdout, re.MULTILINE)
    assert end_offset(cluster, topic) == 10_000
    assert 0 < peak_kb < 250_000


def test_row_14_data_file_cut_off_mid_run(
    scripts: Scripts, cluster: Cluster, tmp_path: Path, await_condition: Wait
) -> None:
    """A large file that is cut off while it is sent is told, with the report of what was sent; exit code 4."""
    path, topic = tmp_path / "large.ndjson", cluster.create_topic()
    line = b'{"text":"%b"}\n' % (b"x" * 1_000)
    path.write_bytes(line * 20_000)
    producer = scripts.start(
        "ProducerPerformance.py", "--file", str(path), "--topic", topic, "--rate", "2K", "--size", "1M"
    )
    await_condition(lambda: end_offset(cluster, topic) > 100)
    os.truncate(path, len(line) * 5_000)
    stdout, stderr = producer.communicate(timeout=TIMEOUT_S)
    assert producer.returncode == 4, stderr
    assert f"the data file {path} changed while it was sent: it has 5000 records, not 20000" in stderr
    assert re.search(r"^  acknowledged +[45]\d\d\d$", stdout, re.MULTILINE)


def test_row_15_key_attribute_absent(scripts: Scripts, cluster: Cluster, tmp_path: Path) -> None:
    """The record without the key attribute is named before anything is sent; exit code 2."""
    (tmp_path / "given.json").write_text('[{"id":1},{"id":2},{"di":3}]')
    topic = cluster.create_topic()
    done = scripts.run("ProducerPerformance.py", "--file", "given.json", "--keyname", "id", "--topic", topic)
    assert done.returncode == 2
    assert "record 3 has no key attribute id" in done.stderr


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1e400", "10.5", "'10'", '"10"', "nan"])
@pytest.mark.parametrize(("script", "name"), [("ProducerPerformance.py", "SIZE"), ("PerfConsumer.py", "COUNT")])
def test_row_16_counts(scripts: Scripts, script: str, name: str, value: str) -> None:
    """A count that is not allowed is told with variable, value and what is allowed; exit code 2."""
    done = scripts.run(script, **{name: value})
    assert done.returncode == 2
    assert f"{name}: {value}" in done.stderr
    assert ("quotes" if value[0] in "'\"" else "a whole number from 1 on") in done.stderr


@pytest.mark.parametrize("value", ["-1", "fast", "1e400", "inf", "nan", "'5'"])
def test_row_16_rate(scripts: Scripts, value: str) -> None:
    """A rate that is not allowed is told with variable, value and what is allowed; exit code 2."""
    done = scripts.run("ProducerPerformance.py", RATE=value)
    assert done.returncode == 2
    assert f"RATE: {value}" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_row_18_signal_while_consuming(scripts: Scripts, cluster: Cluster, number: signal.Signals, code: int) -> None:
    """A signal ends the consumer with a complete report of what it read; exit code 128 + signal."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % (STAMP_MS - n) for n in range(100)], timestamp=STAMP_MS)
    consumer = scripts.start("PerfConsumer.py", "--topic", topic, "--result", "c.json")
    assert consumer.stdout is not None
    assert "[STAT 100] - Average 49.5" in consumer.stdout.readline()
    consumer.send_signal(number)
    stdout, stderr = consumer.communicate(timeout=30)
    assert consumer.returncode == code
    assert re.search(r"messages read +100\n", stdout)
    assert "Traceback" not in stderr
    result = json.loads((scripts.folder / "c.json").read_text())
    assert (result["exit_code"], result["summary"]["measured"]) == (code, 100)


@pytest.mark.parametrize("rate", ["0", "5000"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_row_18_signal_while_producing(  # noqa: PLR0917
    scripts: Scripts, cluster: Cluster, await_condition: Wait, number: signal.Signals, code: int, rate: str
) -> None:
    """A signal ends the producer after a flush, and its report equals what is in the topic."""
    topic = cluster.create_topic()
    producer = scripts.start("ProducerPerformance.py", "--topic", topic, "--size", "1000M", "--rate", rate)
    await_condition(lambda: end_offset(cluster, topic) > 1_000)
    producer.send_signal(number)
    stdout, stderr = producer.communicate(timeout=40)
    assert producer.returncode == code, stderr
    acknowledged = int(re.findall(r"acknowledged +(\d+)\n", stdout)[0])
    assert acknowledged == int(re.findall(r"messages +(\d+)\n", stdout)[0]) == end_offset(cluster, topic)


def test_row_18_signal_before_anything(scripts: Scripts) -> None:
    """A signal while connecting ends at once with 130 or 143, without a traceback."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        consumer = scripts.start("PerfConsumer.py", KAFKA_BROKERS=address)
        silent.accept()  # it has begun to connect
        consumer.send_signal(signal.SIGTERM)
        _, stderr = consumer.communicate(timeout=10)
    assert consumer.returncode == 143
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_row_18_signal_while_the_broker_is_gone(
    own_broker: EmbeddedBroker, scripts: Scripts, await_condition: Wait
) -> None:
    """With the broker killed, a signal ends both sides within 20 s, with a report that counts the unknown."""
    cluster = Cluster(own_broker.bootstrap_servers)
    topic = cluster.create_topic()
    address = {"KAFKA_BROKERS": own_broker.bootstrap_servers}
    flags = ("--topic", topic, "--timestamp-field", "eventTime")
    readers = [
        scripts.start("PerfConsumer.py", *flags, *group, "--result", f"{number}.json", **address)
        for number, group in enumerate([(), ("--group", "a")])
    ]
    producer = scripts.start("ProducerPerformance.py", "--topic", topic, "--rate", "1000", "--size", "1M", **address)
    for reader in readers:
        scripts.wait_for(reader, "not measured")
    await_condition(lambda: end_offset(cluster, topic) > 1_000)
    own_broker.kill()
    scripts.wait_for(producer, "Kafka client")
    start_s = time.monotonic()
    for process in (producer, *readers):
        process.send_signal(signal.SIGTERM)
    for reader in readers:
        stdout, stderr = reader.communicate(timeout=30)
        assert reader.returncode == 143
        assert re.search(r"messages read +\d+\n", stdout), stderr
    stdout, stderr = producer.communicate(timeout=30)
    assert time.monotonic() - start_s < 25
    assert producer.returncode == 143
    figures = {name: int(count) for name, count in re.findall(r"^  (\w+) +(\d+)$", stdout, re.MULTILINE)}
    assert figures["unknown"] > 0
    assert figures["messages"] == figures["acknowledged"] + figures["failed"] + figures["unknown"]


def test_row_18_a_second_signal_ends_at_once(
    own_broker: EmbeddedBroker, scripts: Scripts, await_condition: Wait
) -> None:
    """While the flush waits for a broker that is gone, a second signal ends the producer."""
    cluster = Cluster(own_broker.bootstrap_servers)
    topic = cluster.create_topic()
    producer = scripts.start(
        "ProducerPerformance.py",
        "--topic",
        topic,
        "--rate",
        "1000",
        "--size",
        "1M",
        KAFKA_BROKERS=own_broker.bootstrap_servers,
    )
    await_condition(lambda: end_offset(cluster, topic) > 100)
    own_broker.kill()
    scripts.wait_for(producer, "Kafka client")
    producer.send_signal(signal.SIGTERM)
    scripts.wait_for(producer, "waiting up to 20 s")
    producer.send_signal(signal.SIGTERM)
    assert producer.wait(5) == 143


def test_row_19_stdout_closed(scripts: Scripts, cluster: Cluster) -> None:
    """When the reader of stdout goes away, the report still reaches stderr, without a traceback; exit code 1."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(topic, [b'{"timestamp_start":%d}' % STAMP_MS] * 500_000, timestamp=STAMP_MS + 5)
    consumer = scripts.start("PerfConsumer.py", "--topic", topic, "--count", "500K")
    assert consumer.stdout is not None and consumer.stderr is not None
    assert consumer.stdout.readline().startswith("[STAT 100]")
    consumer.stdout.close()
    stderr = consumer.stderr.read()
    assert consumer.wait(30) == 1
    assert "Traceback" not in stderr and "Exception ignored" not in stderr
    assert "stdout cannot be written (Broken pipe)" in stderr
    assert re.search(r"Summary of the consumer.*messages read +\d+\n.*p99 +5\n", stderr, re.DOTALL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_row_19_stdout_on_a_full_disk(scripts: Scripts, cluster: Cluster) -> None:
    """When stdout's disk is full, the producer's report goes to stderr, without a traceback; exit code 1."""
    topic = cluster.create_topic()
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(ROOT / "ProducerPerformance.py"), "--topic", topic]
        done = subprocess.run(
            command,
            env=scripts.environment,
            cwd=scripts.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert re.search(r"acknowledged +10\n", done.stderr)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system without a free byte."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small file system")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]).returncode:
        pytest.skip("this machine does not let a file system be mounted")
    try:
        with (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
    except OSError:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_row_19_result_on_a_full_disk(scripts: Scripts, cluster: Cluster, full_disk: Path) -> None:
    """A result file that does not fit on the disk is told after the report; exit code 1, and no half file stays."""
    topic = cluster.create_topic()
    done = scripts.run("ProducerPerformance.py", "--topic", topic, "--result", str(full_disk / "p.json"))
    assert done.returncode == 1
    assert re.search(r"acknowledged +10\n", done.stdout)
    assert "p.json was not written: No space left on device" in done.stderr
    assert [path.name for path in full_disk.iterdir()] == ["filler"]


@pytest.mark.skipif(
    not Path("/proc/self").exists() or os.getuid() != 0, reason="needs /proc, and root: others are refused"
)
def test_row_19_result_where_nothing_can_be_written(scripts: Scripts, cluster: Cluster) -> None:
    """A result file in a read-only place is told after the report; exit code 1."""
    done = scripts.run("ProducerPerformance.py", "--topic", cluster.create_topic(), "--result", "/proc/p.json")
    assert done.returncode == 1
    assert re.search(r"acknowledged +10\n", done.stdout)
    assert "/proc/p.json was not written" in done.stderr


def test_row_20_no_message_ever_arrives(scripts: Scripts, cluster: Cluster) -> None:
    """--idle-timeout ends the wait, says so with the topic's offsets, and shows n/a, never 0; exit code 5."""
    topic = cluster.create_topic(partitions=2)
    cluster.produce(topic, [b"{}"] * 3)
    done = scripts.run("PerfConsumer.py", "--topic", topic, "--from", "latest", "--idle-timeout", "1s")
    assert done.returncode == 5
    assert f"no message was read from topic {topic}" in done.stderr
    assert "partition 0: first 0, end 3; partition 1: first 0, end 0" in done.stderr
    assert re.search(r"delta \(ms\) +n/a\n", done.stdout)


def end_offset(cluster: Cluster, topic: str) -> int:
    """The messages in partition 0 of a topic; 0 while it has no leader yet."""
    partition = TopicPartition(topic, 0)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    try:
        return int(cluster.admin.list_offsets({partition: latest})[partition].result(TIMEOUT_S).offset)
    except KafkaException:
        return 0


@pytest.mark.parametrize("pair", ["socket.timeout.ms=fast", "no.such.property=1", "stats_cb=x"])
@pytest.mark.parametrize("script", ["ProducerPerformance.py", "PerfConsumer.py"])
def test_a_property_that_librdkafka_refuses(scripts: Scripts, cluster: Cluster, script: str, pair: str) -> None:
    """A property that librdkafka refuses is a usage error that names it; exit code 2."""
    done = scripts.run(script, "--topic", cluster.create_topic(), "--config", pair)
    assert done.returncode == 2
    assert pair.partition("=")[0] in done.stderr


def test_an_interrupted_producer_tells_only_of_marks_that_it_sent(
    scripts: Scripts, cluster: Cluster, await_condition: Wait
) -> None:
    """After a signal at full speed the marks in the result are as many as the messages in the topic."""
    topic = cluster.create_topic()
    flags = ("--topic", topic, "--size", "1000M", "--trace", "header:mark", "--result", "p.json")
    small_queue = ("--config", "queue.buffering.max.messages=500")  # so that the signal finds the queue full
    producer = scripts.start("ProducerPerformance.py", *flags, *small_queue)
    await_condition(lambda: end_offset(cluster, topic) > 1_000)
    producer.send_signal(signal.SIGTERM)
    _, stderr = producer.communicate(timeout=40)
    assert producer.returncode == 143, stderr
    result = json.loads((scripts.folder / "p.json").read_text())
    assert sum(result["marked"].values()) == result["summary"]["messages"] == end_offset(cluster, topic)
