"""Brokers that go away or stand still, a long backlog, a clock that is set: nothing is lost, nothing hangs."""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import TIMEOUT_S, Cluster, Scripts, summary_of

from demo.broker import EmbeddedBroker

pytestmark = pytest.mark.integration

MOST_BYTES = 250_000_000


@pytest.fixture
def patient_broker() -> Iterator[EmbeddedBroker]:
    """A broker that the test may stop: its other half, the controller, takes that for no crash."""
    with EmbeddedBroker(properties={"broker.session.timeout.ms": "60000"}) as broker:
        yield broker


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a script that must end with 0; returns its stderr."""
    _, stderr = process.communicate(timeout=2 * TIMEOUT_S)
    assert process.returncode == 0, stderr
    return stderr


class Peak:
    """The largest resident memory of a process that was seen."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = psutil.Process(process.pid)
        self.bytes = 0

    def look(self) -> None:
        """Take a sample; a process that has ended has none."""
        with contextlib.suppress(psutil.Error):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


@pytest.mark.slow
def test_row_1_broker_restarted(scripts: Scripts, own_broker: EmbeddedBroker) -> None:
    """Killed and started again mid-run, the broker costs no message on either side; exit code 0."""
    cluster = Cluster(own_broker.bootstrap_servers)
    source, output = cluster.create_topic(partitions=2), cluster.create_topic(partitions=2)
    address = {"KAFKA_BROKERS": own_broker.bootstrap_servers, "TRACE": "field:mark"}
    scripts.start_operator(source, output, **address)
    reading = ("--topic", output, "--idle-timeout", "15s", "--result", "c.json")
    consumer = scripts.start("PerfConsumer.py", *reading, **address)
    scripts.wait_for(consumer, "read as it comes")
    sending = ("--topic", source, "--size", "6000", "--rate", "1000", "--result", "p.json")
    producer = scripts.start("ProducerPerformance.py", *sending, **address)
    assert consumer.stdout is not None
    for _ in range(15):  # 1,500 messages are through
        assert consumer.stdout.readline()
    own_broker.kill()
    own_broker.start()
    finished(producer)
    finished(consumer)
    assert summary_of(scripts, "p.json")["acknowledged"] == 6_000
    limits = ("--fail-if", "lost > 0", "--fail-if", "unique < 6000", "--fail-if", "untraced > 0")
    report = scripts.run("PerfReport.py", "p.json", "c.json", *limits)
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize("rate", ["0", "2000"])
def test_row_2_brokers_down_past_the_deadline(scripts: Scripts, own_broker: EmbeddedBroker, rate: str) -> None:
    """With all brokers gone for good the producer ends by itself with a report that adds up; exit code 4."""
    topic = Cluster(own_broker.bootstrap_servers).create_topic()
    flags = ("--topic", topic, "--rate", rate, "--duration", "6s", "--config", "message.timeout.ms=4000")
    variables = {"KAFKA_BROKERS": own_broker.bootstrap_servers}
    producer = scripts.start("ProducerPerformance.py", *flags, "--result", "p.json", **variables)
    scripts.wait_for(producer, "sending to topic")
    time.sleep(2)  # some are to be acknowledged first; how many does not matter
    own_broker.kill()
    stdout, stderr = producer.communicate(timeout=TIMEOUT_S)
    assert producer.returncode == 4, stderr
    found = summary_of(scripts, "p.json")
    assert found["acknowledged"] > 0 and found["unknown"] > 0
    assert found["messages"] == found["acknowledged"] + sum(found["failed"].values()) + found["unknown"]
    assert re.search(rf"unknown +{found['unknown']}\n", stdout)
    assert "Connection refused" in stderr


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["0", "1000"])
def test_row_3_a_slow_broker(scripts: Scripts, patient_broker: EmbeddedBroker, rate: str) -> None:
    """A broker that stands still for 20 s: memory stays bounded, the stall shows, all is acknowledged; exit code 0."""
    topic = Cluster(patient_broker.bootstrap_servers).create_topic()
    variables = {"KAFKA_BROKERS": patient_broker.bootstrap_servers}
    size = "4M" if rate == "0" else "5000"
    flags = ("--topic", topic, "--rate", rate, "--size", size, "--result", "p.json")
    producer = scripts.start("ProducerPerformance.py", *flags, **variables)
    peak = Peak(producer)
    scripts.wait_for(producer, "sending to topic")
    time.sleep(1.5)  # well under way
    patient_broker.pause()
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:  # the fault itself
        peak.look()
        time.sleep(0.2)
    patient_broker.resume()
    finished(producer)
    found = summary_of(scripts, "p.json")
    assert found["acknowledged"] == found["messages"] == (4_000_000 if rate == "0" else 5_000)
    assert 0 < peak.bytes < MOST_BYTES
    assert found["elapsed_s"] > 20
    if rate != "0":
        assert found["ack_ms"]["max"] > 18_000
        assert found["lateness_ms"]["p99"] < 5_000, "the queue was not full"


@pytest.mark.slow
def test_row_22_a_long_backlog(scripts: Scripts, cluster: Cluster) -> None:
    """Ten million messages behind, the consumer reads them all, and its memory is the same at the end."""
    count = 10_000_000
    topic = cluster.create_topic()
    (scripts.folder / "data.json").write_text('{"timestamp_start":1795000000000,"text":"%s"}' % ("x" * 50))
    sent = scripts.run("ProducerPerformance.py", "--topic", topic, "--size", str(count), "--file", "data.json")
    assert sent.returncode == 0, sent.stderr
    flags = ("--topic", topic, "--count", str(count), "--windows", "1M", "--result", "c.json")
    consumer = scripts.start("PerfConsumer.py", *flags)
    early, late = Peak(consumer), Peak(consumer)
    assert consumer.stdout is not None
    for line in consumer.stdout:
        total = re.match(r"\[TOTAL\].*: (\d+)$", line)
        if total and int(total[1]) % 500_000 == 0:
            (early if int(total[1]) <= count // 2 else late).look()
        if line.startswith("Summary"):
            break
    finished(consumer)
    found = summary_of(scripts, "c.json")
    assert found["messages_read"] == count
    assert 0 < late.bytes < MOST_BYTES
    assert late.bytes < 1.1 * early.bytes


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    """A wall clock for single processes, made with the machine's C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (Debian: apt-get install gcc libc6-dev)")
    library = tmp_path / "stepped_clock.so"
    source = Path(__file__).with_name("stepped_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
    return SteppedClock(library, tmp_path / "offset")


class SteppedClock:
    """The wall clock of the processes that get its `variables`."""

    def __init__(self, library: Path, offset: Path) -> None:
        self._offset = offset
        self.variables = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(offset)}
        self._offset.write_bytes(struct.pack("=q", 0))

    def step(self, offset_s: int) -> None:
        """Set it that far from the true time, at once."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("=q", offset_s))


@pytest.mark.parametrize("offset_s", [-3_600, 3_600])
def test_row_24_the_clock_is_set_mid_run(
    scripts: Scripts, cluster: Cluster, clock: SteppedClock, offset_s: int
) -> None:
    """A wall clock that jumps an hour mid-run changes no duration, rate, lateness or time until visible."""
    source, output = cluster.create_topic(timestamp_type="CreateTime"), cluster.create_topic()
    scripts.start_operator(source, output)
    reading = ("--topic", output, "--count", "3000", "--result", "c.json")
    consumer = scripts.start("PerfConsumer.py", *reading, **clock.variables)
    scripts.wait_for(consumer, "read as it comes")
    sending = ("--topic", source, "--rate", "500", "--size", "3000", "--result", "p.json")
    producer = scripts.start("ProducerPerformance.py", *sending, **clock.variables)
    assert consumer.stdout is not None
    for _ in range(10):
        assert "[STAT 100]" in consumer.stdout.readline()
    clock.step(offset_s)
    finished(producer)
    finished(consumer)
    stamps_s = [message.timestamp()[1] / 1000 for message in cluster.read(source, 3_000)]
    assert max(stamps_s) - min(stamps_s) > 3_000, "the step did happen"
    sent, read = summary_of(scripts, "p.json"), summary_of(scripts, "c.json")
    assert 5.9 < sent["send_elapsed_s"] < 20
    assert sent["lateness_ms"]["max"] < 10_000
    assert sent["ack_ms"]["min"] >= 0 and sent["ack_ms"]["max"] < 10_000
    assert 5.0 < read["elapsed_s"] < 30
    assert abs(read["append_to_visible_ms"]["min"]) < 1_000 and read["append_to_visible_ms"]["max"] < 10_000
