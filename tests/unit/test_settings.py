"""Flags, variables and .env → Settings; every refusal names the source, the value and what is allowed."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka.config import VARIABLES
from perf import scenario, settings
from perf.settings import COMPARE_OPTIONS, DEFAULT_DATA_FILES, OPTIONS, Settings, SettingsError, Trace, Warmup

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("ProducerPerformance.py", "PerfConsumer.py", "PerfTopics.py", "test.py")
BROKERS = {"KAFKA_BROKERS": "broker:9092"}
PRODUCER = ("brokers", "topic", "size", "file", "keyname", "rate_per_s", "duration_s", "result")
CONSUMER = ("brokers", "topic", "start", "group", "windows", "timestamp_field", "count", "duration_s", "idle_timeout_s")
NO_FILE = Path("no such file")


def load(
    *flags: str,
    environment: Mapping[str, str] = BROKERS,
    fields: Sequence[str] = tuple(OPTIONS),
    dotenv: Path = NO_FILE,
) -> Settings:
    """What a script with these options makes of the flags and variables."""
    arguments = settings.parser("script.py", fields, None, "", []).parse_args(flags)
    return settings.load(arguments, fields, environment, dotenv)


def from_variable(variable: str, value: str) -> Settings:
    """The Settings with this variable set."""
    return load(environment={**BROKERS, variable: value})


def run_script(script: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script as a process, with nothing but these variables in its environment."""
    environment = {"PATH": os.environ.get("PATH", ""), "COLUMNS": "240", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)


# --------------------------------------------------------------------------------------------------------- precedence


def test_a_flag_comes_before_a_variable_before_dotenv_before_the_default(tmp_path: Path) -> None:
    """Each source in turn gives the value once the one before it is silent."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("TOPIC_NAME=from-dotenv\n")
    environment = {**BROKERS, "TOPIC_NAME": "from-variable"}
    assert load("--topic", "from-flag", environment=environment, dotenv=dotenv).topic == "from-flag"
    assert load(environment=environment, dotenv=dotenv).topic == "from-variable"
    assert load(dotenv=dotenv).topic == "from-dotenv"
    assert load().topic == "performance-test"


@pytest.mark.parametrize("field", [name for name, option in OPTIONS.items() if option.variable])
def test_every_variable_gives_what_its_flag_gives(field: str, tmp_path: Path) -> None:
    """The flag, the variable and .env of an option are read alike, and differ from the default."""
    texts = {
        "brokers": "one:1,two:2", "topic": "t.1", "size": "7K", "file": "x.json", "keyname": "a.b", "rate_per_s": "2.5",
        "start": "latest", "group": "g", "timestamp_field": "x.y", "duration_s": "5m", "count": "3M",
        "idle_timeout_s": "500ms", "windows": "5,1K", "result": str(tmp_path / "result.json"),
        "timestamp_header": "t", "timestamp_unit": "us", "latency": "receive", "isolation": "read_uncommitted",
        "warmup": "30s", "fail_if": "p99 > 1s", "stamp": "intended", "trace": "header:mark", "run_id": "run-7",
        "clock_topic": "a-clock", "termination_message": str(tmp_path / "message"),
        "partitions": "6", "replication_factor": "3", "timestamp_type": "CreateTime",
        "input_topic": "in", "output_topic": "out",
        "wait_for": "producers:4,consumers:2", "wait_timeout_s": "2m", "expect_ratio": "0.5", "runs_topic": "r",
        "linger_s": "2s",
        "results_topic": "s", "metrics_port": "9400", "log_format": "json",
        "profile": "ramp 5->9 over 3s", "create_topics": "yes",
        "scenario": "test.yaml", "folder": str(tmp_path / "run"), "producers": "2", "drain_timeout_s": "5s",
        "find_capacity": "yes", "step_s": "9s", "resolution": "3%",
        **{name: str(tmp_path / f"report.{name}") for name in ("html", "json", "hgrm", "hlog")},
    }  # fmt: skip
    option, text = OPTIONS[field], texts[field]
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"{option.variable}={text}\n")
    given = {
        repr(getattr(load(option.flag, text), field)),
        repr(getattr(load(environment={**BROKERS, option.variable: text}), field)),
        repr(getattr(load(environment={} if field == "brokers" else BROKERS, dotenv=dotenv), field)),
    }
    assert len(given) == 1
    assert given != {repr(getattr(load(), field))}


def test_a_variable_set_to_nothing_is_not_set(tmp_path: Path) -> None:
    """An empty variable leaves the value to .env, and an empty line of .env to the default."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("SIZE=\nTOPIC_NAME=from-dotenv\n")
    found = load(environment={**BROKERS, "SIZE": "", "TOPIC_NAME": "", "RATE": ""}, dotenv=dotenv)
    assert (found.topic, found.size, found.rate_per_s) == ("from-dotenv", 10, 0.0)


def test_dotenv_is_the_one_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being told otherwise, `.env` is looked for where the script was started, and taken as it stands."""
    (tmp_path / ".env").write_text('# a comment\nexport KAFKA_BROKERS="from-dotenv:9092"\nKAFKA_APIKEY=${HOME}$x\n')
    monkeypatch.chdir(tmp_path)
    found = settings.load(argparse.Namespace(brokers=None), ["brokers"], {})
    assert found.brokers == "from-dotenv:9092"
    assert found.environment["KAFKA_APIKEY"] == "${HOME}$x"


def test_dotenv_never_changes_the_process_environment(tmp_path: Path) -> None:
    """What `.env` says reaches the connection through Settings, and nothing else."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("KAFKA_PASSWORD=abc\nKAFKA_BROKERS=other:1\n")
    found = load(dotenv=dotenv)
    assert found.environment == {"KAFKA_BROKERS": "broker:9092", "KAFKA_PASSWORD": "abc"}
    assert "KAFKA_PASSWORD" not in os.environ


def test_what_is_set_to_nothing_is_not_in_the_environment(tmp_path: Path) -> None:
    """The connection sees only variables with a value, also where `.env` has a bare name."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("KAFKA_APIKEY=\nKAFKA_USER\nKAFKA_CERT=''\n")
    assert load(environment={**BROKERS, "PEM_CERT": ""}, dotenv=dotenv).environment == BROKERS


def test_secrets_of_the_environment_are_not_in_the_repr() -> None:
    """A Settings object can be printed without showing what the environment holds."""
    found = load(environment={**BROKERS, "KAFKA_APIKEY": "S3CR3T"})
    assert found.environment["KAFKA_APIKEY"] == "S3CR3T"
    assert "S3CR3T" not in repr(found)


def test_without_brokers_both_ways_to_give_them_are_named() -> None:
    """The one required setting says how to give it."""
    with pytest.raises(SettingsError, match=r"KAFKA_BROKERS.*--brokers"):
        load(environment={"KAFKA_BROKERS": ""})


def test_options_that_a_script_does_not_have_keep_their_default() -> None:
    """A consumer is not disturbed by the producer's variables, not even by bad ones."""
    found = load(environment={**BROKERS, "SIZE": "nonsense", "COUNT": "5"}, fields=CONSUMER)
    assert (found.size, found.count) == (None, 5)


# ------------------------------------------------------------------------------------------------------------ meaning


def test_size_is_ten_unless_it_or_a_duration_is_given() -> None:
    """With a duration alone nothing else ends the producer; with both, whichever comes first."""
    assert load(fields=PRODUCER).size == 10
    assert load("--size", "7", fields=PRODUCER).size == 7
    assert load("--duration", "5", fields=PRODUCER).size is None
    assert load("--duration", "5", "--size", "7", fields=PRODUCER).size == 7


def test_the_data_file_is_the_mounted_one_if_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own data set comes before the one of the image, and DATA_FILE before both."""
    mounted, baked = tmp_path / "data.json", tmp_path / "baked.json"
    monkeypatch.setattr(settings, "DEFAULT_DATA_FILES", (mounted, baked))
    assert load(fields=PRODUCER).file == baked
    mounted.write_text("{}")
    assert load(fields=PRODUCER).file == mounted
    assert load("--file", "x", fields=PRODUCER).file == Path("x")


def test_a_data_set_under_another_name_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configMap whose key is not data.json is refused by name, as the image's data would be sent in its place.

    What Kubernetes itself puts into an empty mount does not count.
    """
    mounted, baked = tmp_path / "data.json", tmp_path / "baked.json"
    folder = tmp_path / "mount"
    folder.mkdir()
    monkeypatch.setattr(settings, "DEFAULT_DATA_FILES", (folder / mounted.name, baked))
    (folder / "..data").mkdir()
    assert load(fields=PRODUCER).file == baked
    (folder / "my-events.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"no data\.json in .*, but my-events\.json: .*--from-file=data\.json=FILE"):
        load(fields=PRODUCER)
    assert load("--file", "x", fields=PRODUCER).file == Path("x")


def test_a_result_that_may_not_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another user is found out before hours of measuring, also where a link leads there.

    The file does not matter, as it is replaced; but a termination message is written into the one that is there.
    """
    (tmp_path / "theirs").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs" / "there.json").write_text("")
    (tmp_path / "mine" / "link.json").symlink_to(tmp_path / "theirs" / "there.json")
    monkeypatch.setattr(os, "access", lambda path, _mode: path == tmp_path / "mine")  # root may write everything
    assert load("--result", str(tmp_path / "mine" / "new.json")).result == tmp_path / "mine" / "new.json"
    for name in ("theirs/new.json", "theirs/there.json", "mine/link.json"):
        with pytest.raises(SettingsError, match=r"--result: .*a folder where user [0-9]+ may write"):
            load("--result", str(tmp_path / name))
    there = tmp_path / "theirs" / "there.json"
    assert load("--termination-message", str(there)).termination_message == there


def test_the_data_set_of_the_image_is_there() -> None:
    """The last default data file is part of the repository, wherever the script is started."""
    assert DEFAULT_DATA_FILES[0] == Path("/tmp/performance_data/data.json")
    assert DEFAULT_DATA_FILES[-1] == ROOT / "data" / "data.json"
    assert DEFAULT_DATA_FILES[-1].is_file()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("10", 10), (" 10 ", 10), ("100K", 100_000), ("100k", 100_000), ("2M", 2_000_000), ("007", 7),
     ("9223372036854775807", 2**63 - 1)],
)  # fmt: skip
def test_counts_understand_thousands_and_millions(text: str, expected: int) -> None:
    """K and M, large or small, multiply."""
    assert from_variable("SIZE", text).size == from_variable("COUNT", text).count == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0.0), ("0.0", 0.0), ("1000", 1_000.0), ("0.1", 0.1), (".5", 0.5), ("1e3", 1_000.0), ("2.5E-1", 0.25),
     (" 7 ", 7.0), ("1e9", 1e9), ("1K", 1_000.0), ("2.5k", 2_500.0), ("1000M", 1e9), ("0K", 0.0)],
)  # fmt: skip
def test_rates_are_plain_decimal_numbers(text: str, expected: float) -> None:
    """Any finite number of messages per second, K and M as for counts; 0 is as fast as possible."""
    assert from_variable("RATE", text).rate_per_s == expected


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("30", 30.0), ("30s", 30.0), ("500ms", 0.5), ("5m", 300.0), ("1h", 3_600.0), ("1.5H", 5_400.0), ("0.2 s", 0.2),
     ("1e1", 10.0), (" 5 ", 5.0)],
)  # fmt: skip
def test_durations_have_units(text: str, expected_s: float) -> None:
    """Seconds, or ms, s, m and h."""
    found = load(environment={**BROKERS, "DURATION": text, "IDLE_TIMEOUT": text})
    assert found.duration_s == found.idle_timeout_s == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", "earliest"),
        ("LATEST", "latest"),
        ("2026-11-23T08:00:00Z", 1_795_420_800_000),
        ("2026-11-23T08:00:00z", 1_795_420_800_000),
        ("2026-11-23T10:00:00+02:00", 1_795_420_800_000),
        ("2026-11-23T02:30:00-05:30", 1_795_420_800_000),
        ("2026-11-23T08:00:00", 1_795_420_800_000),
        ("2026-11-23 08:00:00.250", 1_795_420_800_250),
        ("2026-11-23T08:00", 1_795_420_800_000),
        ("2026-11-23", 1_795_392_000_000),
        ("2026-11-23T08:00:00.5Z", 1_795_420_800_500),
        ("2026-11-23T08:00:00,123456789Z", 1_795_420_800_123),
        ("2026-11-23T09:00:00+0100", 1_795_420_800_000),
        ("2026-11-23t09:00+01", 1_795_420_800_000),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_the_start_is_a_name_or_a_time_in_utc(text: str, expected: str | int) -> None:
    """An ISO time is milliseconds since 1970, in UTC unless it has an offset, whatever the machine's zone."""
    assert from_variable("FROM", text).start == expected


@given(st.integers(0, 4_102_444_800_000), st.integers(-14 * 60, 14 * 60))
def test_any_time_is_read_to_the_millisecond(moment_ms: int, offset_minutes: int) -> None:
    """No time between 1970 and 2100 loses a millisecond, in whatever time zone it is written."""
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=moment_ms)).astimezone(zone)
    assert settings.start_of(moment.isoformat(timespec="milliseconds")) == moment_ms


def test_a_time_without_zone_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A naive time is UTC, even where the machine's zone is another."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert settings.start_of("2026-11-23T08:00:00") == 1_795_420_800_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100,1K,10K,100K", (100, 1_000, 10_000, 100_000)),
        ("1K,100", (100, 1_000)),
        (" 5 , 5,7 ", (5, 7)),
        ("1M", (1_000_000,)),
        ("1", (1,)),
    ],
)
def test_windows_are_sorted_and_without_doubles(text: str, expected: tuple[int, ...]) -> None:
    """Sizes in any order, each once."""
    assert from_variable("WINDOWS", text).windows == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id", ("id",)),
        ("location.city", ("location", "city")),
        (r"a\.b", ("a.b",)),
        (r"a\.b.c\.d.e", ("a.b", "c.d", "e")),
        ("a b.Größe", ("a b", "Größe")),
        ("$x-1", ("$x-1",)),
    ],
)
def test_attribute_paths_lead_inside_and_can_hold_dots(text: str, expected: tuple[str, ...]) -> None:
    """A dot goes one object deeper unless a backslash is before it."""
    found = load(environment={**BROKERS, "KEYNAME": text, "TIMESTAMP_FIELD": text})
    assert found.keyname == found.timestamp_field == expected


names = st.text(st.characters(exclude_characters='\\"', exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.lists(names, min_size=1, max_size=4))
def test_any_path_can_be_written(path: list[str]) -> None:
    """Names joined by dots, with their own dots escaped, come back as they were."""
    text = ".".join(name.replace(".", "\\.") for name in path)
    assert settings.attribute_path(text) == tuple(path)


def test_properties_are_pairs_in_the_order_given() -> None:
    """--config may be repeated; only the first equals sign divides."""
    found = load("--config", "linger.ms=20", "--config", " a = b=c ", "--config", "x=")
    assert found.config == (("linger.ms", "20"), ("a", "b=c"), ("x", ""))


# ----------------------------------------------------------------------------------------------------------- refusals

BAD_COUNTS = ("0", "-1", "ten", "1e400", "1e3", "nan", "inf", "10.5", "10G", "K", "1 000", "1_000", "+5", "٣", "9" * 30,
              "9223372036854775808", "9223372036854775807K", "0K", "10KK", "0x10")  # fmt: skip
BAD_RATES = (
    "-1",
    "ten",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1e10",
    "1e-9",
    "1,000",
    "1000/s",
    "1_000",
    "٣",
    "1KK",
    "3e-833",
    "K",
    "1001M",
    "9" * 400,
)
BAD_TIMES = ("0", "0s", "-5", "soon", "1e400", "nan", "inf", "5d", "5 minutes", "1e12", "s", "1e-400", "5m30s", "٣s")
BAD_STARTS = ("2026-11-23T00zZ", "2026-11-23T08:00:00+25:00", "2026-11-23T08:00:00Z+01:00", "2026-11-23T08",
              "0", "yesterday", "1795420800000", "2026-13-01", "2026-11-23T25:00:00Z", "1969-12-31T23:59:59Z", "nan",
              "earlier", "0001-01-01T00:00:00+14:00")  # fmt: skip
BAD_WINDOWS = ("0", "100,", ",", "100,,200", "100;200", "100,ten", "-5", "1.5", "1e3", "[100]")
BAD_PATHS = (".", "a.", ".a", "a..b")
BAD_TOPICS = ("a b", "a/b", "größe", ".", "..", "x" * 250, "a,b", " a")

BAD_VALUES = [
    *[(variable, value, "whole number from 1") for variable in ("SIZE", "COUNT") for value in BAD_COUNTS],
    *[("RATE", value, "messages per second") for value in BAD_RATES],
    *[(variable, value, "a time above 0") for variable in ("DURATION", "IDLE_TIMEOUT") for value in BAD_TIMES],
    *[("FROM", value, "earliest, latest, or a time") for value in BAD_STARTS],
    *[("WINDOWS", value, "comma-separated sizes") for value in BAD_WINDOWS],
    *[(variable, value, "attribute's name") for variable in ("KEYNAME", "TIMESTAMP_FIELD") for value in BAD_PATHS],
    *[("TOPIC_NAME", value, "1 to 249") for value in BAD_TOPICS],
    *[("GROUP_ID", value, "1 to 249") for value in (" ", " g", "g" * 250)],
    *[(name, value, "whole number") for name in ("PARTITIONS", "REPLICATION_FACTOR") for value in ("0", "-1", "1.5")],
    *[("TIMESTAMP_TYPE", value, "LogAppendTime or CreateTime") for value in ("logappendtime", "0", "LogAppendTime ")],
    *[
        ("KAFKA_BROKERS", value, "host:port of each broker")
        for value in (
            " ",
            ",",
            "a:1,,b:2",
            "localhost:abc",
            "http://host:9092",
            "host:",
            "host:0",
            "host:65536",
            "::1",
            "a b:1",
            "a:1;b:2",
            "SASL_SSL://host:9093",
        )
    ],
]


@pytest.mark.parametrize(("variable", "value", "allowed"), BAD_VALUES)
def test_a_bad_value_is_refused_with_its_variable_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    """The message names the variable, shows the value, says what is allowed; the exit code is 2."""
    with pytest.raises(SettingsError) as caught:
        from_variable(variable, value)
    message = str(caught.value)
    assert message.startswith(f"{variable}: {value} is not allowed: it takes")
    assert allowed in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("variable", "value", "allowed"), BAD_VALUES)
def test_a_bad_flag_is_refused_with_its_name(variable: str, value: str, allowed: str) -> None:
    """The same value given as a flag is refused in the flag's name."""
    option = next(option for option in OPTIONS.values() if option.variable == variable)
    with pytest.raises(SettingsError, match=re.escape(f"{option.flag}: {value} is not allowed")) as caught:
        load(f"{option.flag}={value}")
    assert allowed in str(caught.value)


@pytest.mark.parametrize("field", [name for name in OPTIONS if name not in ("config", "file", "result")])
def test_an_empty_flag_is_refused(field: str) -> None:
    """A flag with nothing behind it (an unset shell variable) is not silently the default."""
    flag = OPTIONS[field].flag
    with pytest.raises(SettingsError, match=flag):
        load(f"{flag}=")


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize(
    ("variable", "value"), [("SIZE", "100"), ("TOPIC_NAME", "t"), ("RATE", ""), ("FROM", "latest")]
)
def test_quotes_that_docker_keeps_are_diagnosed(variable: str, value: str, quote: str) -> None:
    """A value still in its quotes is not just refused: the message says where they come from and how to give it."""
    with pytest.raises(SettingsError, match=f"^{variable}: .*quotes.*--env-file.*give {value}$"):
        from_variable(variable, f"{quote}{value}{quote}")


@pytest.mark.parametrize("text", ["linger.ms", "=5", " =5", ""])
def test_a_property_without_name_or_value_is_refused(text: str) -> None:
    """--config takes property=value."""
    with pytest.raises(SettingsError, match=r"--config.*property=value"):
        load("--config", text)


@pytest.mark.parametrize("text", [os.fsdecode(b"a\xff"), "a\0b"])
@pytest.mark.parametrize(
    ("field", "form"),
    [("brokers", "{}"), ("group", "{}"), ("timestamp_header", "{}"), ("keyname", "{}"), ("timestamp_field", "{}"),
     ("config", "client.id={}"), ("trace", "header:{}"), ("trace", "field:{}"), ("topic", "{}")],
)  # fmt: skip
def test_what_kafka_cannot_take_is_refused(field: str, form: str, text: str) -> None:
    """Found by fuzzing: bytes that are no UTF-8 made the Kafka client abort the process, or a traceback."""
    option = OPTIONS[field]
    with pytest.raises(SettingsError, match=option.flag):
        settings.checked(option.flag, form.format(text), option.parse)


@pytest.mark.parametrize("quote", ["", "'"])
def test_a_config_without_its_value_is_not_repeated(tmp_path: Path, quote: str) -> None:
    """What was meant as a property may be a secret, so that it is not shown, wherever it comes from."""
    text = f"{quote}sasl.password:hunter2{quote}"
    file = tmp_path / "scenario.yaml"
    file.write_text(f'config: "{text}"\n')
    for reading in (lambda: load("--config", text), lambda: scenario.read(file, list(OPTIONS))):
        with pytest.raises(SettingsError) as caught:
            reading()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("quote", ["", "'"])
def test_brokers_with_a_password_are_not_repeated(quote: str) -> None:
    """user:password@host is no host:port, and what may be a password is not shown."""
    with pytest.raises(SettingsError, match=r"^KAFKA_BROKERS: ") as caught:
        load(environment={"KAFKA_BROKERS": f"{quote}me:hunter2@broker:9092{quote}"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--brokeers", "hunter2"], "--brokeers is not known here: did you mean --brokers?"),
        (["--brokeers=hunter2"], "did you mean --brokers?"),
        (["--ratee=hunter2", "--count", "-5"], "did you mean --rate?"),
        (["--apikey", "hunter2"], "--apikey is not known here (--help"),
        (["100"], "100 is not known here (--help"),
    ],
)
def test_an_unknown_flag_is_told_with_the_nearest(words: list[str], told: str, tmp_path: Path) -> None:
    """A misspelt flag is a usage error that names the right one; its value may be a secret, and is not shown."""
    done = run_script("ProducerPerformance.py", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "hunter2" not in done.stderr


def test_a_result_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    """A missing folder, a folder's own name or an endless name is found out before hours of measuring."""
    for path in (tmp_path / "absent" / "result.json", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(SettingsError, match=re.escape(str(path))):
            load("--result", str(path))
    assert load("--result", str(tmp_path / "result.json")).result == tmp_path / "result.json"


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@given(st.sampled_from([option for option in OPTIONS.values() if option.variable]), any_text)
def test_any_text_is_either_taken_or_refused(option: settings.Option, text: str) -> None:
    """No value of any variable raises anything but SettingsError that names the variable."""
    try:
        from_variable(option.variable, text)
    except SettingsError as error:
        assert option.variable in str(error) or (option.field == "result" and text in str(error))


@given(st.text(max_size=12))
def test_counts_and_rates_are_never_below_their_least_value(text: str) -> None:
    """Whatever is accepted is a whole number from 1 on, a finite rate from 0 on, a positive finite time."""
    checks: list[tuple[Any, Any]] = [
        (settings.count_of, lambda value: isinstance(value, int) and 1 <= value < 2**63),
        (settings.rate, lambda value: 0 <= value <= 1e9),
        (settings.seconds, lambda value: 0 < value < 1e9),
    ]
    for parse, holds in checks:
        try:
            value = parse(text)
        except ValueError:
            continue
        assert holds(value)


# ---------------------------------------------------------------------------------------------------- table and help


def test_every_option_is_a_field_of_settings() -> None:
    """OPTIONS and Settings agree, and no flag or variable is given twice."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert set(OPTIONS) == fields - {"environment", "fail_if_change"}
    assert set(COMPARE_OPTIONS) == fields - {"environment"}
    flags = [option.flag for option in OPTIONS.values()]
    variables = [option.variable for option in OPTIONS.values() if option.variable]
    connection = [variable.name for variable in VARIABLES]
    assert len(set(flags)) == len(flags)
    assert len({*variables, *connection}) == len(variables) + len(connection)


def test_the_default_that_help_states_is_the_default() -> None:
    """A default that --help shows as a value is what the option's parser makes Settings hold."""
    for name in ("topic", "start", "windows", "timestamp_field", "partitions", "timestamp_type"):
        option = OPTIONS[name]
        assert option.parse(option.default) == getattr(Settings(), name)
    assert OPTIONS["rate_per_s"].default.startswith(f"{Settings().rate_per_s:g}:")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag_and_variable(script: str) -> None:
    """--help exits with 0 and shows each flag, its variable and default, the connection variables and examples."""
    done = run_script(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    fields = fields_of(script)
    for option in (OPTIONS[name] for name in fields):
        assert f"{option.flag} " in done.stdout
        assert option.meaning in done.stdout
        assert f"{'' if option.default == 'required' else 'default: '}{option.default}]" in done.stdout
        if option.variable:
            assert f"[{option.variable}; " in done.stdout
    for variable in VARIABLES:
        assert f"{variable.name} " in done.stdout and variable.meaning in done.stdout
    assert f"./{script} " in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_capitals_in_help_are_variables(script: str) -> None:
    """Help says that a name in capitals is a variable, so no flag without one shows such a name."""
    shown = re.findall(r"^ +--[a-z-]+ ([A-Z_]+)$|^ +--[a-z-]+ ([A-Z_]+)  ", run_script(script, "--help").stdout, re.M)
    variables = {option.variable for option in OPTIONS.values()}
    assert shown
    assert {one or other for one, other in shown} <= variables


def fields_of(script: str) -> Sequence[str]:
    """The options of a script, as it declares them."""
    fields: Sequence[str] = runpy.run_path(str(ROOT / script))["FIELDS"]
    return fields


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_does_not_load_the_kafka_client(script: str, tmp_path: Path) -> None:
    """--help works, from any folder, without importing confluent_kafka, msgspec or the histogram."""
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0
    assert {"perf.settings", "kafka.config"} <= imported
    assert not imported & {"confluent_kafka", "msgspec", "hdrh", "tqdm", "dotenv", "perf.stats"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_at_once(script: str) -> None:
    """The quickest of up to five calls of --help needs less than 0.2 s of processor time."""
    times_s: list[float] = []
    while len(times_s) < 5 and min(times_s, default=1.0) >= 0.2:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_script(script, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times_s.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(times_s) < 0.2


@pytest.mark.parametrize(
    ("script", "variable", "value"),
    [
        ("ProducerPerformance.py", "SIZE", "0"),
        ("ProducerPerformance.py", "RATE", "1e400"),
        ("PerfConsumer.py", "COUNT", "-1"),
        ("PerfConsumer.py", "IDLE_TIMEOUT", '"30"'),
        ("test.py", "COUNT", "ten"),
    ],
)
def test_a_script_ends_in_2_with_one_line(script: str, variable: str, value: str, tmp_path: Path) -> None:
    """A bad value ends the process at once with exit code 2 and a single line, not a traceback."""
    done = run_script(script, cwd=tmp_path, **BROKERS, **{variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {variable}: {value} ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_abbreviated_and_unknown_flags_are_refused(script: str) -> None:
    """Flags are not guessed: --brok is no --brokers, and the exit code is 2."""
    for flag in ("--brok=x:1", "--nonsense"):
        done = run_script(script, *(("create", "t") if script == "PerfTopics.py" else ()), flag)
        assert done.returncode == 2
        assert flag.partition("=")[0] in done.stderr


@pytest.mark.parametrize("name", ["a b", "ä", "..", "x" * 250])
def test_a_topic_name_that_kafka_does_not_allow_is_refused(name: str, tmp_path: Path) -> None:
    """PerfTopics names the bad topic before it connects."""
    done = run_script("PerfTopics.py", "create", "good", name, cwd=tmp_path, **BROKERS)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: topic name: {name} is not allowed")


# ----------------------------------------------------------------------------- units, traces, warm-ups, runs and limits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key", Trace("key")),
        ("field:mark", Trace("field", "mark")),
        ("field:a.b", Trace("field", "a.b")),
        ("field:a:b", Trace("field", "a:b")),
        ("header:x-mark", Trace("header", "x-mark")),
        ("header:a.b", Trace("header", "a.b")),
    ],
)
def test_a_trace_has_a_place_and_a_name(text: str, expected: Trace) -> None:
    """A field's name is one name, dots and all: marks stand at the top level."""
    assert from_variable("TRACE", text).trace == load("--trace", text).trace == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", Warmup(messages=1_000)),
        ("10K", Warmup(messages=10_000)),
        ("5M", Warmup(messages=5_000_000)),
        ("30s", Warmup(seconds=30.0)),
        ("500ms", Warmup(seconds=0.5)),
        ("5m", Warmup(seconds=300.0)),
        ("1.5h", Warmup(seconds=5_400.0)),
        (" 30s ", Warmup(seconds=30.0)),
    ],
)
def test_a_warm_up_is_messages_or_a_time(text: str, expected: Warmup) -> None:
    """A bare number, K and M are messages; ms, s, m and h are times: 5M is not 5m."""
    assert from_variable("WARMUP", text).warmup == load("--warmup", text).warmup == expected
    assert load().warmup == Warmup(messages=0, seconds=0.0)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        *[
            ("TRACE", value, "field:NAME, key or header:NAME")
            for value in ("Key", "key:", "key:x", "header:", "header", "mark", ":mark", "body:mark")
        ],
        *[("TRACE", value, "attribute's name") for value in ("field:", 'field:a"b', "field:a\\b", "field:a\tb")],
        *[
            ("WARMUP", value, "messages such as 1000 or 10K, or a time such as 30s or 5m")
            for value in ("0", "0s", "-1", "1.5", "5d", "s", "soon", "1e3", "30 seconds", "٣s")
        ],
        *[("TIMESTAMP_UNIT", value, "ms, s, us, ns or iso8601") for value in ("MS", "min", "iso", "ms ", "µs")],
        *[("LATENCY", value, "append or receive") for value in ("Append", "visible", " receive")],
        *[("STAMP", value, "send or intended") for value in ("SEND", "now")],
        *[("ISOLATION", value, "read_committed or read_uncommitted") for value in ("committed", "read-committed")],
        *[("RUN_ID", value, "1 to 100") for value in ("a/b", "a b", "x" * 101, "ä", "a\n", "'", "a;b")],
        *[("FAIL_IF", value, "it takes") for value in ("p99", "p99 > 1s; nonsense > 5", "p99 => 1", "rate < 5ms")],
        *[("CLOCK_TOPIC", value, "1 to 249") for value in ("a b", "..")],
    ],
)
def test_a_bad_measurement_setting_is_refused(variable: str, value: str, allowed: str) -> None:
    """The refusal of a flag names the flag and that of a variable the variable, both with what is allowed."""
    flag = next(option.flag for option in OPTIONS.values() if option.variable == variable)
    with pytest.raises(SettingsError, match=f"(?s)^{variable}: .* is not allowed: it takes") as caught:
        from_variable(variable, value)
    assert allowed in str(caught.value)
    with pytest.raises(SettingsError, match=f"(?s)^{flag}: .* is not allowed: it takes") as caught:
        load(f"{flag}={value}")
    assert allowed in str(caught.value)


texts_of_choice = st.sampled_from(["a", "b", "ab", "A", "", "a ", "c"])


@given(st.lists(st.sampled_from(["a", "b", "ab", "x-1"]), min_size=2, unique=True), texts_of_choice)
def test_one_of_takes_exactly_its_texts(allowed: list[str], text: str) -> None:
    """Anything else, other capitals and blanks included, is refused with all that is allowed."""
    parse = settings.one_of(*allowed)
    if text in allowed:
        assert parse(text) == text
        return
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == f"{', '.join(allowed[:-1])} or {allowed[-1]}"


def test_a_run_has_the_id_that_is_given() -> None:
    """Without RUN_ID a process is alone."""
    fields = (*PRODUCER, "run_id")
    assert load("--run-id", "Run_7.a-b", fields=fields).run_id == "Run_7.a-b"
    assert load(fields=fields).run_id == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [("producers:4,consumers:2", {"producer": 4, "consumer": 2}), (" producer : 1 ", {"producer": 1})],
)
def test_whom_to_wait_for(text: str, value: dict[str, int]) -> None:
    """Roles in either number, with how many."""
    assert settings.wait_for(text) == value


@pytest.mark.parametrize(
    "text", ["", "4", "producers", "producers:x", "producers:1,producers:2", "p:1", "producers:-1"]
)
def test_whom_nobody_can_wait_for(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ValueError, match="producers:4,consumers:2"):
        settings.wait_for(text)


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", ""])
def test_ratios_that_are_none(text: str) -> None:
    """A ratio is above 0."""
    with pytest.raises(ValueError, match="above 0"):
        settings.ratio(text)


def test_limits_are_a_flag_each_or_divided_by_semicolons(tmp_path: Path) -> None:
    """FAIL_IF holds several, with or without blanks and empty ones between them; the flag is repeated."""
    one, two = settings.limit("p99 > 250ms"), settings.limit("lost > 0")
    assert load("--fail-if", "p99 > 250ms", "--fail-if", "lost > 0").fail_if == (one, two)
    for text in ("p99 > 250ms;lost > 0", " p99 > 250ms ; lost > 0 ;", ";;p99 > 250ms;\nlost > 0"):
        assert from_variable("FAIL_IF", text).fail_if == (one, two)
    assert load().fail_if == from_variable("FAIL_IF", " ; ").fail_if == ()
    dotenv = tmp_path / ".env"
    dotenv.write_text("FAIL_IF=p99 > 250ms; lost > 0\n")
    assert load(dotenv=dotenv).fail_if == (one, two)


def test_limits_of_flags_replace_those_of_the_variable(tmp_path: Path) -> None:
    """They are not added up: a flag comes before the environment, and that before .env."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("FAIL_IF=max > 1s\n")
    environment = {**BROKERS, "FAIL_IF": "lost > 0; mean > 1s"}
    by_flag = load("--fail-if", "p99 > 1s", environment=environment, dotenv=dotenv)
    assert [limit.text for limit in by_flag.fail_if] == ["p99 > 1s"]
    by_variable = load(environment=environment, dotenv=dotenv)
    assert [limit.text for limit in by_variable.fail_if] == ["lost > 0", "mean > 1s"]


def test_one_flag_holds_one_limit() -> None:
    """Semicolons divide the variable only, so that a flag is never cut in two."""
    with pytest.raises(SettingsError, match="--fail-if"):
        load("--fail-if", "p99 > 1s; lost > 0")


def test_the_report_has_help_without_a_connection(tmp_path: Path) -> None:
    """PerfReport's help names its files and flags, and --run, for which alone it needs a connection."""
    done = run_script("PerfReport.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("RESULT", "--fail-if ", OPTIONS["fail_if"].meaning, "[FAIL_IF; ", "./PerfReport.py ", "--run RUN_ID"):
        assert text in done.stdout


def test_a_report_needs_no_brokers(tmp_path: Path) -> None:
    """PerfReport reads files: without KAFKA_BROKERS it goes on to them, and a bad limit is refused before."""
    done = run_script("PerfReport.py", "absent.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot read the result file absent.json: No such file or directory\n"
    refused = run_script("PerfReport.py", "absent.json", cwd=tmp_path, FAIL_IF="p99 > 1s; p98 > 1s")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: FAIL_IF: p98 > 1s is not allowed: it takes")


@pytest.mark.parametrize(
    "value", ["b:1", "b", "b-1.x_y:9092,10.0.0.1:65535", "[::1]:9092", "[fe80::1%eth0]", "a:1, b:2"]
)
def test_brokers_are_hosts_with_ports(value: str) -> None:
    """Names, IPv4 and bracketed IPv6 addresses, with or without a port, are taken; blanks after commas are left out."""
    assert load(environment={"KAFKA_BROKERS": value}).brokers == value.replace(" ", "")
