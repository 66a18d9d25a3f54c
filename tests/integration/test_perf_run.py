"""PerfRun.py as a user runs it: one whole test in one command, against a real broker and a stand-in operator."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Cluster, Scripts

pytestmark = pytest.mark.integration

Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def topics(cluster: Cluster) -> tuple[str, str]:
    """An input and an output topic of two partitions, both LogAppendTime."""
    return cluster.create_topic(partitions=2), cluster.create_topic(partitions=2)


def start_operator(scripts: Scripts, topics: tuple[str, str], *flags: str) -> None:
    """A stand-in operator that is ready."""
    scripts.start_operator(*topics, *flags)


def run(scripts: Scripts, topics: tuple[str, str], *flags: str, timeout_s: float = 120) -> tuple[int, str, str]:
    """PerfRun.py to its end: exit code, stdout, stderr."""
    process = scripts.start("PerfRun.py", "--input", topics[0], "--output", topics[1], "--folder", "run", *flags)
    stdout, stderr = process.communicate(timeout=timeout_s)
    assert "Traceback" not in stdout + stderr, stderr
    return process.returncode, stdout, stderr


def written(scripts: Scripts, name: str) -> dict[str, Any]:
    """A JSON file of the run's folder."""
    found: dict[str, Any] = json.loads((scripts.folder / "run" / name).read_text())
    return found


def test_one_command_is_a_whole_test(scripts: Scripts, topics: tuple[str, str]) -> None:
    """Every message sent by two producers is measured, none is lost, and one report has verdict, limits and page."""
    start_operator(scripts, topics, "--delay-ms", "5")
    flags = ("--profile", "ramp 100->400 over 2s, rate 400 for 1s", "--trace", "field:trace", "--producers", "2")
    code, stdout, stderr = run(scripts, topics, *flags, "--fail-if", "lost > 0", "--fail-if", "p50 < 5ms")
    assert code == 0, stderr
    report = written(scripts, "report.json")
    assert report["producers"] == 2
    assert (report["producer"]["steady"], report["growth"]) == (False, None)  # the load grows, and so does a backlog
    assert report["producer"]["summary"]["acknowledged"] == report["consumer"]["summary"]["measured"] == 900
    assert report["ledger"]["lost"] == report["ledger"]["duplicated"] == 0
    assert report["producer"]["summary"]["send_rate_per_s"] == pytest.approx(300, rel=0.1)
    assert "[STAT 100] - Average" in stdout
    assert stdout.rstrip().endswith("none lost; all 2 limits hold.")
    assert "<html" in (scripts.folder / "run" / "report.html").read_text()


def test_a_scenario_with_a_limit_that_does_not_hold(scripts: Scripts, topics: tuple[str, str]) -> None:
    """A scenario file says it all but the topics; a flag comes before it, and an exceeded limit ends with 6."""
    start_operator(scripts, topics, "--delay-ms", "30")
    (scripts.folder / "test.yaml").write_text("size: 100000\nrate: 200\nfail-if:\n  - p50 > 20ms\nfolder: other\n")
    code, stdout, _ = run(scripts, topics, "--scenario", "test.yaml", "--size", "300")
    assert code == 6
    assert "p50 > 20ms: p50 is " in stdout
    assert written(scripts, "report.json")["consumer"]["summary"]["messages_read"] == 300


def test_variables_of_the_scripts_do_not_disturb_them(scripts: Scripts, topics: tuple[str, str]) -> None:
    """What stands in the environment and in .env for other purposes does not reach the two scripts."""
    start_operator(scripts, topics)
    (scripts.folder / ".env").write_text("COUNT=1\nGROUP_ID=another\nRUN_ID=another\nTOPIC_NAME=another\nSIZE=50\n")
    flags = ("--input", topics[0], "--output", topics[1], "--folder", "run")
    process = scripts.start("PerfRun.py", *flags, DURATION="", RESULT_FILE="elsewhere")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert written(scripts, "consumer.json")["summary"]["messages_read"] == 50
    assert not (scripts.folder / "elsewhere").exists()


def test_topics_are_made_when_that_is_asked_for(scripts: Scripts) -> None:
    """Without the topics the test ends with 3 and says how to make them; with --create-topics it makes them."""
    names = f"test-{uuid.uuid4().hex[:12]}-in", f"test-{uuid.uuid4().hex[:12]}-out"
    code, _, stderr = run(scripts, names, "--size", "5")
    assert code == 3
    assert f"{names[0]}" in stderr and "PerfTopics.py create" in stderr
    # nobody answers, as there is no operator: what was sent is reported, and that nothing was measured
    code, _, stderr = run(scripts, names, "--size", "5", "--create-topics", "--drain-timeout", "1s")
    assert code == 5, stderr
    assert written(scripts, "report.json")["producer"]["summary"]["acknowledged"] == 5
    scripts.run("PerfTopics.py", "delete", *names, "--yes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_with_a_report(scripts: Scripts, topics: tuple[str, str], number: signal.Signals) -> None:
    """Stopped while it sends, it ends with 128 + the signal, no process is left, and what was measured is reported."""
    start_operator(scripts, topics)
    flags = ("--input", topics[0], "--output", topics[1], "--folder", "run", "--rate", "200", "--duration", "5m")
    process = scripts.start("PerfRun.py", *flags)
    assert process.stdout is not None
    process.stdout.readline()  # the first average
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert not psutil.wait_procs(children, timeout=5)[1]
    report = written(scripts, "report.json")
    assert report["consumer"]["summary"]["measured"] >= 100
    assert "Summary of the producer" in stdout and "Summary of the consumer" in stdout


def test_a_usage_error_is_found_before_anything_is_started(scripts: Scripts, tmp_path: Path) -> None:
    """What does not go together, and a scenario with a mistake, end with 2 and one sentence."""
    (tmp_path / "bad.yaml").write_text("input: a\noutput: b\nrte: 5\n")
    for flags, words in (
        (("--input", "a"), "needs both topics"),
        (("--input", "a", "--output", "a"), "the same topic"),
        (("--input", "a", "--output", "b", "--profile=rate 5 for 5s", "--rate=5"), "profile says rate and time"),
        (("--input", "a", "--output", "b", "--find-capacity", "--duration", "5s"), "chooses rates and times"),
        (("--input", "a", "--output", "b", "--find-capacity", "--warmup", "30s"), "leaves 0 s after the warm-up"),
        (("--input", "a", "--output", "b", "--find-capacity", "--warmup", "1K"), "a --warmup in seconds"),
        (("--scenario", "bad.yaml"), "bad.yaml, line 3: rte is no key of a scenario: did you mean rate?"),
    ):
        done: subprocess.CompletedProcess[str] = scripts.run("PerfRun.py", *flags)
        assert done.returncode == 2
        assert words in done.stderr


def test_the_search_finds_the_capacity(scripts: Scripts, topics: tuple[str, str]) -> None:
    """An operator that needs 2 ms for a message sustains 500 a second: two producers find it, from a third of it.

    The truth is between the rate that is found and the end of the margin that is named; where nothing disturbs the
    search, that is 481, and 10 %.
    """
    start_operator(scripts, topics, "--service-time-ms", "2", "--linger-ms", "5")
    code, stdout, stderr = run(
        scripts, topics, "--find-capacity", "--rate", "170", "--step-duration", "9s", "--warmup", "500ms",
        "--resolution", "10%", "--producers", "2", "--fail-if", "p99 > 5s", timeout_s=280,
    )  # fmt: skip
    assert code == 0, stdout + stderr
    found = written(scripts, "capacity.json")
    assert found["status"] == "found"
    margin = re.search(rf"capacity: {found['capacity_per_s']:g} messages/s ± (\S+) %", stdout)
    assert margin is not None, stdout
    assert 450 <= found["capacity_per_s"] <= 510
    assert found["capacity_per_s"] * (1 + float(margin[1]) / 100) >= 495
    assert "bounded by: at " in stdout
    assert [step["phase"] for step in found["steps"]].count("confirmation") >= 3
    assert "<html" in (scripts.folder / "run" / "capacity.html").read_text()


def test_the_search_says_why_it_cannot_begin(scripts: Scripts, topics: tuple[str, str]) -> None:
    """What the check found is shown before the error that points to it."""
    code, _, stderr = run(scripts, ("no-such-topic", topics[1]), "--find-capacity")
    assert code == 3
    assert "the topic no-such-topic does not exist" in stderr


def end(process: subprocess.Popen[str], script: str) -> None:
    """Kill the child that runs this script."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if any(word.endswith(script) for word in child.cmdline()):
            child.kill()
            return
    raise AssertionError(f"{script} does not run")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("PerfConsumer.py", 5, "INVALID: the consumer was ended by SIGKILL and left no result"),
        ("ProducerPerformance.py", 4, "The producer was ended by SIGKILL and left no result; half of "),
    ],
)
def test_a_killed_process_is_no_valid_run(
    scripts: Scripts, topics: tuple[str, str], script: str, code: int, words: str
) -> None:
    """What a side that was killed would have told is missing: said in the verdict, never "valid", nor "none lost"."""
    start_operator(scripts, topics)
    flags = ("--input", topics[0], "--output", topics[1], "--folder", "run", "--rate", "200", "--duration", "5m")
    process = scripts.start("PerfRun.py", *flags, "--trace", "field:trace", "--drain-timeout", "2s")
    assert process.stdout is not None
    process.stdout.readline()  # the first average
    end(process, script)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stdout + stderr
    assert words in stdout and "none lost" not in stdout


@pytest.mark.parametrize(
    ("ratios", "code", "words"),  # of the operator, and as declared
    [
        (("0.5", "1"), 4, "of the results that were expected did not come; half of "),
        (("0.5", "0.5"), 0, "Half of "),
        (("2", "1"), 4, "The consumer had as many results as it waited for, and stopped, before the last message"),
        (("2", "2"), 0, "Half of 4,000 results"),
        (("1.01", "1"), 0, " results more than were expected."),
    ],
)
def test_the_number_of_results_is_what_was_declared(
    scripts: Scripts, topics: tuple[str, str], ratios: tuple[str, str], code: int, words: str
) -> None:
    """More or fewer results than --expect-ratio says are told; fewer, or unread ones, make the run incomplete."""
    made, declared = ratios
    start_operator(scripts, topics, "--ratio", made)
    load: tuple[str, ...] = ("--rate", "400", "--size", "2000")
    if (made, declared) == ("2", "1"):  # a pause that is longer than the consumer waits for more
        load = ("--profile", "rate 500 for 2s, rate 0 for 8s, rate 1000 for 500ms")
    code_found, stdout, stderr = run(scripts, topics, *load, "--expect-ratio", declared, "--drain-timeout", "1s")
    assert code_found == code, stdout + stderr
    assert words in stdout


def test_results_of_messages_that_were_there_before_are_told(
    scripts: Scripts, topics: tuple[str, str], cluster: Cluster
) -> None:
    """An operator that also works off a message of ten minutes ago: its delta is no result of this run."""
    start_operator(scripts, topics)
    flags = ("--input", topics[0], "--output", topics[1], "--folder", "run", "--rate", "200", "--size", "600")
    process = scripts.start("PerfRun.py", *flags, "--drain-timeout", "5s")
    assert process.stdout is not None
    process.stdout.readline()  # the first average
    old_ms = time.time_ns() // 1_000_000 - 600_000
    cluster.produce(topics[1], [b'{"timestamp_start":%d}' % old_ms])
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stdout + stderr
    verdict = stdout.splitlines()[-1]
    assert re.match(r"Not all results are of this run: the oldest is of a message stamped 59\d s before", verdict)
    assert verdict.endswith("; 1 result more than expected.")
    assert written(scripts, "report.json")["status"] == "uncertain"


def test_a_pipeline_that_falls_behind_is_told(scripts: Scripts, topics: tuple[str, str]) -> None:
    """At twice what the operator carries the backlog grows by half of the rate, and the verdict says so."""
    start_operator(scripts, topics, "--service-time-ms", "10")
    limits = ("--fail-if", "growth_low > 0.3*target", "--fail-if", "growth_high > 0.7*target")
    code, stdout, stderr = run(scripts, topics, "--rate", "200", "--duration", "12s", "--warmup", "1s", *limits)
    assert code == 6, stdout + stderr
    grown = written(scripts, "report.json")["growth"]["growth_per_s"]
    assert grown == pytest.approx(100, rel=0.2)
    assert "the pipeline seems not to keep up: its backlog grew by at least" in stdout.splitlines()[-1]
    assert "growth_high > 0.7*target" in stdout and stdout.count(": exceeded") == 1


def test_a_secret_in_a_scenario_is_refused_before_anybody_sees_it(scripts: Scripts, tmp_path: Path) -> None:
    """A secret in a scenario's config would stand in the children's flags: exit code 2, and it is not shown."""
    for given, words in (
        ("sasl.password=hidden-word", "sasl.password: secrets come from variables or files only"),
        ("sasl.pasword=hidden-word", "sasl.pasword: secrets come from variables or files only"),
        ("SASL.PASSWORD=hidden-word", "SASL.PASSWORD: secrets come from variables or files only"),
        ("sasl.oauthbearer.token.endpoint.url=https://id/t?code=hidden-word", "the address has a user, password or"),
    ):
        (tmp_path / "bad.yaml").write_text(f"input: a\noutput: b\nconfig:\n  - {given}\n")
        done = scripts.run("PerfRun.py", "--scenario", "bad.yaml")
        assert done.returncode == 2
        assert words in done.stderr
        assert "hidden-word" not in done.stdout + done.stderr
        assert not (tmp_path / "perf-run").exists()


def test_a_create_time_output_topic_is_measured_with_a_warning(scripts: Scripts, cluster: Cluster) -> None:
    """The operator's own stamps are no reason to refuse: the report is uncertain, and says how to change the topic."""
    topics = cluster.create_topic(), cluster.create_topic(timestamp_type="CreateTime")
    start_operator(scripts, topics, "--delay-ms", "5")
    code, _, stderr = run(scripts, topics, "--rate", "100", "--size", "200")
    assert code == 0, stderr
    assert f"! {topics[1]} is CreateTime: the operator chooses its stamps" in stderr
    assert written(scripts, "report.json")["status"] == "uncertain"


def test_producers_share_a_size_exactly(scripts: Scripts, topics: tuple[str, str]) -> None:
    """Three producers send ten messages together, not twelve; for fewer messages than producers there is no share."""
    start_operator(scripts, topics)
    code, _, stderr = run(scripts, topics, "--size", "10", "--producers", "3")
    assert code == 0, stderr
    assert written(scripts, "report.json")["producer"]["summary"]["acknowledged"] == 10
    assert run(scripts, topics, "--size", "2", "--producers", "3")[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_was_sent(
    scripts: Scripts, topics: tuple[str, str], await_condition: Wait, number: signal.Signals
) -> None:
    """While the consumer starts there is nothing to report: 128 + the signal, and no complaint about the consumer."""
    process = scripts.start("PerfRun.py", "--input", topics[0], "--output", topics[1], "--folder", "run")
    await_condition((scripts.folder / "run" / "consumer.txt").exists)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stdout + stderr
    assert "left no result" not in stderr and "Traceback" not in stderr


def test_a_report_that_cannot_be_written_is_printed(scripts: Scripts, topics: tuple[str, str]) -> None:
    """When the folder of --json goes while the test runs, all of it is on stdout; a limit's 6 comes before that 1."""
    start_operator(scripts, topics)
    gone = scripts.folder / "gone"
    gone.mkdir()
    flags = ("--input", topics[0], "--output", topics[1], "--folder", "run", "--json", "gone/report.json")
    process = scripts.start("PerfRun.py", *flags, "--rate", "200", "--size", "300", "--fail-if", "p50 >= 0ms")
    assert process.stdout is not None
    first = process.stdout.readline()
    gone.rmdir()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 6, stderr
    assert "1 of 1 limits exceeded" in first + stdout
    assert "gone/report.json was not written" in stderr


def test_its_log_is_json_where_that_is_asked_for(scripts: Scripts, topics: tuple[str, str]) -> None:
    """With --log-format json each line on stderr is an object, also what the children say."""
    start_operator(scripts, topics)
    code, _, stderr = run(scripts, topics, "--size", "20", "--log-format", "json")
    assert code == 0, stderr
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert {line["script"] for line in lines} == {"PerfRun.py"}
    assert any(line["message"].startswith("consumer: ") for line in lines)
