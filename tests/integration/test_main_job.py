"""The main job, end to end, on a real broker: send, measure, see the right averages."""

from __future__ import annotations

import json
import math
import re
import signal
import statistics
from pathlib import Path

import pytest
from harness import ROOT, Cluster, Scripts

pytestmark = pytest.mark.integration

GOLDEN_AVERAGES = (62870.0, 13550.8, 60351.8, 60223.4, 53522.0, 53336.4, 49312.8, 46505.2, 45093.4, 39771.8)
STAMP_MS = 1_795_000_000_000


def test_golden_case_from_a_real_topic(scripts: Scripts, cluster: Cluster) -> None:
    """Ten 100-batches of known averages print exactly those, and the 1K average 48453.76."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    deltas = []
    for average in GOLDEN_AVERAGES:
        total = round(average * 100)
        batch = [total // 100 + (position % 7) - 3 for position in range(99)]
        deltas += [*batch, total - sum(batch)]
    values = [b'{"n":%d,"timestamp_start":%d}' % (n, STAMP_MS - delta) for n, delta in enumerate(deltas)]
    cluster.produce(topic, values, timestamp=STAMP_MS)
    done = scripts.run("PerfConsumer.py", "--topic", topic, "--count", "1000")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:12] == [
        *(f"[STAT 100] - Average {average} milliseconds / message" for average in GOLDEN_AVERAGES),
        "[STAT 1K] - Average 48453.76 milliseconds / message",
        "[TOTAL] - Total Number of messages read: 1000",
    ]
    assert "CreateTime" in done.stderr


def test_every_figure_equals_an_independent_computation(scripts: Scripts, cluster: Cluster) -> None:
    """Sent through the stand-in operator, each STAT line and the summary equal those computed from an own read."""
    count, source, output = 25_000, cluster.create_topic(partitions=3), cluster.create_topic()
    operator = scripts.start_operator(source, output, "--delay-ms", "2")
    consumer = scripts.start(
        "PerfConsumer.py",
        "--topic",
        output,
        "--count",
        str(count),
        "--windows",
        "100,1K,10K,7000",
        "--result",
        "c.json",
    )
    scripts.wait_for(consumer, "reading topic")
    produced = scripts.run(
        "ProducerPerformance.py", TOPIC_NAME=source, SIZE=str(count), RATE="12500", RESULT_FILE="p.json"
    )
    assert produced.returncode == 0, produced.stderr
    stdout, stderr = consumer.communicate(timeout=60)
    assert consumer.returncode == 0, stderr
    deltas, stamps, size_bytes = _read_independently(cluster, output, count)
    assert [line for line in stdout.splitlines() if line.startswith("[")] == _expected_lines(deltas)
    _assert_summary(json.loads((scripts.folder / "c.json").read_text())["summary"], deltas, stamps, size_bytes)
    _assert_producer_summary(json.loads((scripts.folder / "p.json").read_text())["summary"], count, 12_500)
    operator.send_signal(signal.SIGTERM)
    assert operator.wait(30) == 0


def _read_independently(cluster: Cluster, topic: str, count: int) -> tuple[list[int], list[int], int]:
    messages = cluster.read(topic, count)
    stamps = [message.timestamp()[1] for message in messages]
    values = [message.value() or b"" for message in messages]
    starts = [int(re.findall(rb'"timestamp_start":(\d+)}$', value)[0]) for value in values]
    return [stamp - start for stamp, start in zip(stamps, starts, strict=True)], stamps, sum(map(len, values))


def _expected_lines(deltas: list[int]) -> list[str]:
    lines = []
    for done in range(1, len(deltas) + 1):
        for label, size in (("100", 100), ("1K", 1000), ("7K", 7000), ("10K", 10_000)):
            if done % size == 0:
                average = math.fsum(deltas[done - size : done]) / size
                lines.append(f"[STAT {label}] - Average {average} milliseconds / message")
                if label == "1K":
                    lines.append(f"[TOTAL] - Total Number of messages read: {done}")
    return lines


def _assert_summary(summary: dict[str, object], deltas: list[int], stamps: list[int], size_bytes: int) -> None:
    distribution = summary["delta_ms"]
    assert isinstance(distribution, dict)
    assert summary["messages_read"] == summary["measured"] == distribution["count"] == len(deltas)
    assert distribution["mean"] == statistics.fmean(deltas)
    assert distribution["stdev"] == pytest.approx(statistics.pstdev(deltas), rel=1e-12)
    assert (distribution["min"], distribution["max"]) == (min(deltas), max(deltas))
    ordered = sorted(deltas)
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99_9", 99.9), ("p99_99", 99.99)):
        exact = ordered[math.ceil(round(percent * len(ordered), 6) / 100) - 1]
        assert distribution[name] == pytest.approx(exact, rel=0.001)
    assert (summary["first_record_ms"], summary["last_record_ms"]) == (min(stamps), max(stamps))
    span_s = (max(stamps) - min(stamps)) / 1000
    assert summary["throughput_per_s"] == pytest.approx((len(deltas) - 1) / span_s)
    mean_bytes = size_bytes / len(deltas)
    assert summary["throughput_mb_per_s"] == pytest.approx(mean_bytes * (len(deltas) - 1) / 1e6 / span_s)
    assert summary["timestamp_types"] == {"LogAppendTime": len(deltas)}


def _assert_producer_summary(summary: dict[str, object], count: int, rate_per_s: float) -> None:
    assert summary["messages"] == summary["acknowledged"] == count
    assert (summary["failed"], summary["unknown"]) == ({}, 0)
    lateness = summary["lateness_ms"]
    assert isinstance(lateness, dict) and isinstance(summary["send_elapsed_s"], float)
    assert summary["send_rate_per_s"] == pytest.approx((count - 1) / summary["send_elapsed_s"])
    late_s = summary["send_elapsed_s"] - (count - 1) / rate_per_s  # by so much the last message may have been late
    assert 0 <= late_s <= lateness["max"] / 1_000 + 0.05
    assert summary["target_rate_per_s"] == rate_per_s
    assert lateness["count"] == count
    assert 0 <= lateness["min"] <= lateness["p50"] <= lateness["max"]


def test_every_kind_of_bad_payload_is_counted_once(scripts: Scripts, cluster: Cluster) -> None:
    """With every bad payload mixed in, the counters sum to the messages read, and averages are exact."""
    bad: dict[str, list[bytes | None]] = {
        "no_timestamp_start": [b'{"a":1}', b"{}"],
        "invalid_timestamp_start": [
            b'{"timestamp_start":null}', b'{"timestamp_start":true}', b'{"timestamp_start":NaN}',
            b'{"timestamp_start":"soon"}', b'{"timestamp_start":{}}', b'{"timestamp_start":[1]}',
        ],
        "implausible_timestamp_start": [
            b'{"timestamp_start":1795000000}', b'{"timestamp_start":-5}', b'{"timestamp_start":1895000000000}',
        ],
        "not_json": [
            b"not json", b"[1]", b'"text"', b"\xff\xfe", b'{"timestamp_start":1795000000000',
            b"[" * 10_000, b'{"a":' * 10_000, b'{"a":"\xff"}',
        ],
        "empty": [None, b""],
    }  # fmt: skip
    kinds = [(kind, value) for kind, values in bad.items() for value in values]
    values: list[bytes | None] = []
    deltas: list[int] = []
    counts = dict.fromkeys(bad, 0)
    for number in range(10_000):
        if number % 7 == 3:
            kind, value = kinds[number // 7 % len(kinds)]
            counts[kind] += 1
            values.append(value)
        else:
            deltas.append(number % 251 - 20)
            text = b"x" * (900_000 if number in (1, 5_000) else number % 300)
            values.append(b'{"text":"%b","timestamp_start":%d}' % (text, STAMP_MS - deltas[-1]))
    topic = cluster.create_topic(timestamp_type="CreateTime")
    cluster.produce(topic, values, timestamp=STAMP_MS)
    done = scripts.run("PerfConsumer.py", "--topic", topic, "--count", "10K", "--result", "c.json")
    assert done.returncode == 0, done.stderr
    summary = json.loads((scripts.folder / "c.json").read_text())["summary"]
    assert {kind: count for kind, count in summary["not_measured"].items() if count} == counts
    assert summary["measured"] + sum(summary["not_measured"].values()) == summary["messages_read"] == 10_000
    assert summary["delta_ms"]["mean"] == statistics.fmean(deltas)
    assert summary["negative"] == sum(delta < 0 for delta in deltas)
    averages = [statistics.fmean(deltas[end - 100 : end]) for end in range(100, len(deltas) + 1, 100)]
    assert [float(text) for text in re.findall(r"\[STAT 100\] - Average (\S+)", done.stdout)] == averages
    assert all(kind in done.stderr for kind in bad)
    assert "looks like seconds" in done.stderr
    assert done.stderr.count("negative delta") == 1


def test_what_is_sent_is_the_data_file_lap_after_lap(scripts: Scripts, cluster: Cluster) -> None:
    """Every lap sends the file's own bytes in order, with the keys asked for."""
    lines = ['{"id":"a","v":1.10}', '{"id":"β","v":  1e400}', '{"v":[1,2],"id":3.0}']
    (scripts.folder / "data.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
    topic = cluster.create_topic()
    done = scripts.run("ProducerPerformance.py", "--topic", topic, "--size", "7", "--file", "data.ndjson", KEYNAME="id")
    assert done.returncode == 0, done.stderr
    messages = cluster.read(topic, 7)
    assert [message.value() for message in messages] == [lines[n % 3].encode() for n in range(7)]
    assert [message.key() for message in messages] == [["a", "β", "3.0"][n % 3].encode() for n in range(7)]


def test_the_default_data_set_and_size(scripts: Scripts, cluster: Cluster) -> None:
    """Without flags, ten messages of data/data.json go to TOPIC_NAME."""
    topic = cluster.create_topic()
    done = scripts.run("ProducerPerformance.py", TOPIC_NAME=topic)
    assert done.returncode == 0, done.stderr
    events = json.loads((ROOT / "data" / "data.json").read_text(encoding="utf-8"))
    assert [json.loads(message.value() or b"") for message in cluster.read(topic, 10)] == events[:10]


def test_a_large_ndjson_file_is_not_kept_in_memory(scripts: Scripts, cluster: Cluster, tmp_path: Path) -> None:
    """A file of 200 MB is read line by line: the producer's peak memory stays under 250 MB, and all of it arrives."""
    line = b'{"id":%d,"text":"' + b"x" * 1000 + b'"}\n'
    with (tmp_path / "large.ndjson").open("wb") as file:
        for number in range(200_000):
            file.write(line % number)
    topic = cluster.create_topic()
    # VmHWM, because ru_maxrss holds the memory of the process that forked this one
    code = "import re,runpy,sys,atexit; from pathlib import Path\n"
    code += "peak = lambda: re.findall(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[0]\n"
    code += "atexit.register(lambda: print('KB', peak()));"
    code += f"sys.argv=sys.argv[1:]; runpy.run_path(r'{ROOT / 'ProducerPerformance.py'}', run_name='__main__')"
    (tmp_path / "measured.py").write_text(code)
    done = scripts.run(
        str(tmp_path / "measured.py"), "x", "--topic", topic, "--file", "large.ndjson", "--size", "200010"
    )
    assert done.returncode == 0, done.stderr
    assert int(re.findall(r"KB (\d+)", done.stdout)[0]) < 250_000
    assert re.search(r"acknowledged +200010\n", done.stdout)


@pytest.mark.parametrize(
    ("start", "expected"), [("earliest", range(20)), ("2026-11-19T06:13:25Z", range(5, 20)), ("latest", range(20, 25))]
)
def test_where_reading_starts(scripts: Scripts, cluster: Cluster, start: str, expected: range) -> None:
    """--from earliest, a time, and latest (what comes after the consumer said that it reads) choose the messages."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    first_ms = 1_795_068_800_000  # 2026-11-19T06:13:20Z

    def produce(numbers: range) -> None:
        for number in numbers:
            stamp_ms = first_ms + 1000 * number
            cluster.produce(topic, [b'{"timestamp_start":%d}' % (stamp_ms - number)], timestamp=stamp_ms)

    produce(range(20))
    consumer = scripts.start(
        "PerfConsumer.py", "--topic", topic, "--from", start, "--count", str(len(expected)), "--idle-timeout", "30",
        "--result", "c.json",
    )  # fmt: skip
    scripts.wait_for(consumer, "reading topic")
    if start == "latest":
        produce(expected)
    consumer.communicate(timeout=60)
    assert consumer.returncode == 0
    summary = json.loads((scripts.folder / "c.json").read_text())["summary"]
    assert summary["messages_read"] == len(expected)
    assert (summary["delta_ms"]["min"], summary["delta_ms"]["max"]) == (expected[0], expected[-1])


def test_duration_ends_both_scripts(scripts: Scripts, cluster: Cluster) -> None:
    """--duration ends a producer without SIZE after rate × duration messages, and a consumer that waits for more."""
    topic = cluster.create_topic()
    produced = scripts.run("ProducerPerformance.py", "--topic", topic, "--rate", "500", "--duration", "2s")
    assert produced.returncode == 0, produced.stderr
    assert re.search(r"acknowledged +1000\n", produced.stdout)
    consumed = scripts.run("PerfConsumer.py", "--topic", topic, "--duration", "1500ms")
    assert re.search(r"messages read +1000\n", consumed.stdout)
    assert re.search(r"no_timestamp_start +1000\n", consumed.stdout)
    assert consumed.returncode == 5


@pytest.mark.slow
def test_consumers_of_a_group_share_the_partitions(scripts: Scripts, cluster: Cluster) -> None:
    """A second consumer joins and leaves mid-run: together they read every message, none of them twice."""
    topic = cluster.create_topic(partitions=4)
    producer = scripts.start("ProducerPerformance.py", "--topic", topic, "--rate", "2000", "--duration", "12s")
    flags = ("--topic", topic, "--group", f"group-{topic}", "--timestamp-field", "eventTime", "--idle-timeout", "12s")
    first = scripts.start("PerfConsumer.py", *flags, "--result", "first.json")
    scripts.wait_for(first, "holding partitions [0, 1, 2, 3]")
    second = scripts.start("PerfConsumer.py", *flags, "--count", "2000", "--result", "second.json")
    scripts.wait_for(second, "holding partitions")
    second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert producer.wait(60) == 0
    read = [json.loads((scripts.folder / name).read_text())["summary"] for name in ("first.json", "second.json")]
    assert all(summary["messages_read"] > 0 for summary in read)
    assert sum(summary["messages_read"] for summary in read) == 24_000


def test_topics_are_created_once_and_compared(scripts: Scripts, cluster: Cluster) -> None:
    """PerfTopics.py create makes LogAppendTime topics, accepts the same again, and says what differs."""
    names = [f"{cluster.create_topic()}-{number}" for number in (1, 2)]
    made = scripts.run("PerfTopics.py", "create", *names, "--partitions", "3")
    assert (made.returncode, made.stdout) == (0, "".join(f"created: {name}\n" for name in names))
    again = scripts.run("PerfTopics.py", "create", *names, "--partitions", "3")
    assert (again.returncode, again.stdout) == (0, "".join(f"there already: {name}\n" for name in names))
    other = scripts.run("PerfTopics.py", "create", names[0], "--timestamp-type", "CreateTime")
    assert other.returncode == 3
    assert "partitions is 3, not 1 and message.timestamp.type is LogAppendTime, not CreateTime" in other.stderr


def test_single_messages_for_the_eye(scripts: Scripts, cluster: Cluster) -> None:
    """test.py shows both stamps in full and as UTC and their difference, and survives messages that have none."""
    topic = cluster.create_topic(timestamp_type="CreateTime")
    values = [
        b'{"timestamp_start":1794999994500}',
        None,
        b"\xff",
        b'{"timestamp_start":"1e999"}',
        b'{"timestamp_start":1%b}' % (b"0" * 400),
    ]
    cluster.produce(topic, values, timestamp=STAMP_MS)
    done = scripts.run("test.py", "--topic", topic, "--count", str(len(values)), "--idle-timeout", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        'partition 0, offset 0: {"timestamp_start":1794999994500}\n'
        "  Kafka timestamp  1795000000000 = 2026-11-18T11:06:40.000Z CreateTime\n"
        "  timestamp_start  1794999994500 = 2026-11-18T11:06:34.500Z\n"
        "  difference       5500 ms = 0.0917 minutes\n"
    )
    assert done.stdout.count("partition 0, offset") == len(values)
