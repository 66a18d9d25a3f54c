"""Flags + environment + .env → one frozen Settings, validated once.

Precedence: flag, environment, a `.env` file in the working directory, default. A variable set to nothing counts as
not set. A flag is one entry of OPTIONS and a field of Settings; README.md's table is tested against OPTIONS.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from datetime import datetime

    from .compare import ChangeLimit
    from .limits import Limit
    from .schedule import Profile

DEFAULT_DATA_FILES = (
    Path("/tmp/performance_data/data.json"),  # noqa: S108 (where the Job manifest mounts the user's configMap)
    Path(__file__).resolve().parent.parent / "data" / "data.json",
)
_MOST = 2**63 - 1
_COUNT_UNITS = {"": 1, "K": 1_000, "M": 1_000_000}
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(?: ?(?:[Zz]|([+-][0-9]{2})(?::?([0-9]{2}))?))?)?"
)
#: Set for the child processes of PerfRun.py, whose environment is complete: they do not look for a `.env`.
COMPLETE = "PERF_ENVIRONMENT_COMPLETE"
_TIME_UNITS_S = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}


class SettingsError(Exception):
    """A flag or variable has a value that is not allowed, or a required one is missing."""

    exit_code = 2


class Trace(NamedTuple):
    """Where a message's mark stands: in a payload's field, the key, or a header. `name` of the field or header."""

    place: str
    name: str = ""


class Warmup(NamedTuple):
    """What is read but not measured at first: messages, or seconds of the records' Kafka time."""

    messages: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What the user asked for. Fields of options that a script does not have keep their default."""

    brokers: str = ""
    config: tuple[tuple[str, str], ...] = ()
    topic: str = "performance-test"
    size: int | None = None
    file: Path = DEFAULT_DATA_FILES[-1]
    keyname: tuple[str, ...] = ()
    rate_per_s: float = 0.0
    profile: Profile | None = None
    stamp: str = "send"
    trace: Trace | None = None
    run_id: str = ""
    wait_for: Mapping[str, int] = field(default_factory=dict)
    wait_timeout_s: float = 300.0
    expect_ratio: float | None = None
    runs_topic: str = "performance-test-runs"
    results_topic: str = "performance-test-results"
    duration_s: float | None = None
    count: int | None = None
    linger_s: float | None = None
    idle_timeout_s: float | None = None
    start: str | int = "earliest"
    group: str | None = None
    windows: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    timestamp_field: tuple[str, ...] = ("timestamp_start",)
    timestamp_header: str | None = None
    timestamp_unit: str = "ms"
    latency: str = "append"
    clock_topic: str = "performance-test-clock"
    isolation: str = "read_committed"
    warmup: Warmup = field(default_factory=Warmup)
    fail_if: tuple[Limit, ...] = ()
    fail_if_change: tuple[ChangeLimit, ...] = ()
    result: Path | None = None
    html: Path | None = None
    json: Path | None = None
    hgrm: Path | None = None
    hlog: Path | None = None
    termination_message: Path | None = None
    metrics_port: int | None = None
    log_format: str = "text"
    partitions: int = 1
    replication_factor: int = -1
    timestamp_type: str = "LogAppendTime"
    input_topic: str | None = None
    output_topic: str | None = None
    create_topics: bool = False
    scenario: Path | None = None
    folder: Path = Path("perf-run")
    producers: int = 1
    find_capacity: bool = False
    drain_timeout_s: float = 60.0
    step_s: float = 30.0
    resolution: float = 0.05
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Option(NamedTuple):
    """A flag with its variable. `default` is what --help and the README say; the value stands in Settings.

    An option that repeats is a tuple in Settings; its variable separates the values by semicolons. The flag of a switch
    may stand alone.
    """

    field: str
    flag: str
    variable: str
    group: str
    parse: Callable[[str], Any]
    default: str
    meaning: str
    repeats: bool = False
    switch: bool = False


def count_of(text: str) -> int:
    """A whole number from 1 on; K and M stand for thousands and millions."""
    match = re.fullmatch(r"([0-9]{1,19})([KM]?)", text.strip().upper(), re.ASCII)
    value = int(match[1]) * _COUNT_UNITS[match[2]] if match else 0
    if not 1 <= value <= _MOST:
        raise ValueError("a whole number from 1 on, such as 100000 or 100K")
    return value


def rate(text: str) -> float:
    """Messages per second: a finite number from 0 on; K and M stand for thousands and millions."""
    match = re.fullmatch(r"(.*?)([KM]?)", text.strip().upper(), re.ASCII)
    number = _number(match[1]) if match else None
    value = -1.0 if match is None or number is None else number * _COUNT_UNITS[match[2]]
    if not (value == 0 or 1e-6 <= value <= 1e9):
        raise ValueError("messages per second, such as 1000, 1K or 0.5; 0 is as fast as possible")
    return value


def seconds(text: str) -> float:
    """A positive time in seconds; ms, s, m and h are understood."""
    match = re.fullmatch(r"(.*?)(ms|s|m|h|)", text.strip().lower(), re.ASCII)
    value = (_number(match[1]) or 0.0) * _TIME_UNITS_S[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise ValueError("a time above 0 such as 30, 30s, 500ms, 5m or 1h")
    return value


def start_of(text: str) -> str | int:
    """earliest, latest, or an ISO 8601 time (UTC unless it says otherwise) as milliseconds since the epoch."""
    from datetime import datetime, timedelta, timezone

    if text.strip().lower() in ("earliest", "latest"):
        return text.strip().lower()
    try:
        start_ms = (_moment(text.strip()) - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        start_ms = -1
    if start_ms < 0:
        raise ValueError("earliest, latest, or a time such as 2026-11-23T08:00:00Z")
    return start_ms


def _moment(text: str) -> datetime:
    """An ISO 8601 time, written as fromisoformat of Python 3.10 can read it. Raises ValueError."""
    from datetime import datetime

    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    day, minute, second, fraction, hours, minutes = match.groups()
    offset = f"{hours}:{minutes or '00'}" if hours else "+00:00"
    return datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}.{(fraction or '')[:6]:0<6}{offset}")


def port(text: str) -> int:
    """A TCP port's number."""
    value = int(text) if re.fullmatch(r"[0-9]{1,5}", text.strip(), re.ASCII) else 0
    if not 1 <= value <= 65535:
        raise ValueError("a port from 1 to 65535, such as 9400")
    return value


def windows(text: str) -> tuple[int, ...]:
    """Window sizes, comma-separated, smallest first."""
    try:
        return tuple(sorted({count_of(part) for part in text.split(",")}))
    except ValueError:
        raise ValueError("comma-separated sizes such as 100,1K,10K,100K") from None


def attribute_path(text: str) -> tuple[str, ...]:
    r"""An attribute's name; dots lead into nested objects, and `\.` is a dot of the name itself."""
    path = tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", text))
    if not all(path) or not _is_utf8(text):
        raise ValueError("an attribute's name, such as id or location.city")
    return path


def output_path(text: str) -> Path:
    """The name of a file that is there, or can be."""
    path = Path(text)
    try:
        if path.absolute().parent.is_dir() and (path.is_file() or not path.exists()):
            return path
    except OSError:  # a name too long, for example
        pass
    raise ValueError("the name of a file (none of a folder or device) in a folder that exists")


def result_path(text: str) -> Path:
    """A file that can be written, found out now rather than after hours of measuring; it is replaced as a whole."""
    path = output_path(text)
    if not os.access(path.resolve().parent, os.W_OK):
        raise ValueError(f"the name of a file in a folder where user {os.getuid()} may write")
    return path


def field_path(text: str) -> tuple[str, ...]:
    """An attribute path without the characters that JSON escapes, which the fast decoder cannot look for."""
    path = attribute_path(text)
    if any(re.search(r'["\\\x00-\x1f]', name) for name in path):
        raise ValueError("an attribute's name without quotes, backslashes and control characters")
    return path


def clock_name(text: str) -> str:
    """A topic's name that ends in -clock, so that no probe ever goes to a topic that is there for something else."""
    if not topic_name(text).endswith("-clock"):
        raise ValueError("a topic name that ends in -clock")
    return text


def property_pair(text: str) -> tuple[str, str]:
    """K=V."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not _is_utf8(text):
        raise ValueError("property=value, such as linger.ms=20")
    return name.strip(), value.strip()


def brokers(text: str) -> str:
    """host:port, comma-separated; without a port it is Kafka's 9092. An IPv6 address stands in brackets."""
    places = [place.strip() for place in text.split(",")]
    for place in places:
        match = re.fullmatch(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])(?::([0-9]{1,5}))?", place)
        if not match or not 1 <= int(match[1] or 9092) <= 65535:
            raise ValueError("host:port of each broker, comma-separated, such as broker-1:9092,broker-2:9092")
    return ",".join(places)


def name_of(text: str) -> str:
    """A topic or group name."""
    if not text.strip() or text.strip() != text or len(text) > 249 or not _is_utf8(text):
        raise ValueError("a name of 1 to 249 characters in UTF-8 without blanks around it")
    return text


def topic_name(text: str) -> str:
    """A name that Kafka allows for a topic."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) or text in (".", ".."):
        raise ValueError("1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")
    return text


def one_of(*allowed: str) -> Callable[[str], str]:
    """A parser that takes exactly these texts."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{', '.join(allowed[:-1])} or {allowed[-1]}")
        return text

    return parse


def warmup(text: str) -> Warmup:
    """A time with its unit, or a number of messages."""
    is_time = re.fullmatch(r".*[0-9.](ms|s|m|h)", text.strip(), re.ASCII)
    try:
        return Warmup(seconds=seconds(text)) if is_time else Warmup(messages=count_of(text))
    except ValueError:
        raise ValueError("messages such as 1000 or 10K, or a time such as 30s or 5m") from None


def trace(text: str) -> Trace:
    """field:NAME, key or header:NAME."""
    place, _, name = text.partition(":")
    if text == "key" or (place == "header" and name and _is_utf8(name)):
        return Trace(place, name)
    if place == "field" and len(field_path(name.replace(".", "\\."))) == 1:
        return Trace(place, name)
    raise ValueError("field:NAME, key or header:NAME")


def run_name(text: str) -> str:
    """A run's id, which stands in marks and file names."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise ValueError("1 to 100 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")
    return text


def wait_for(text: str) -> Mapping[str, int]:
    """Roles and how many of each: role (singular) → number."""
    found: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(producer|consumer)s?\s*:\s*([0-9]{1,6})\s*", part, re.ASCII)
        if match is None or match[1] in found:
            raise ValueError("such as producers:4,consumers:2")
        found[match[1]] = int(match[2])
    return found


def ratio(text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not value:
        raise ValueError("a number above 0, such as 1 or 0.5")
    return value


def switch(text: str) -> bool:
    """Yes or no."""
    word = text.strip().lower()
    if word not in ("yes", "true", "1", "no", "false", "0"):
        raise ValueError("yes or no")
    return word in ("yes", "true", "1")


def share(text: str) -> float:
    """A share from 0.1 % to 50 %, written as 5%."""
    number = _number(text.strip().removesuffix("%"))
    if number is None or not text.strip().endswith("%") or not 0.1 <= number <= 50:
        raise ValueError("a share from 0.1% to 50%")
    return number / 100


def folder(text: str) -> Path:
    """A folder, or where one can be made."""
    path = Path(text)
    try:
        if text and (path.is_dir() or (not path.exists() and path.absolute().parent.is_dir())):
            return path
    except OSError:  # a name too long, for example
        pass
    raise ValueError("the name of a folder, or of a new one in a folder that exists")


def file_path(text: str) -> Path:
    """A file's name."""
    if not text.strip():
        raise ValueError("the name of a file")
    return Path(text)


def profile(text: str) -> Profile:
    """A load profile."""
    from .schedule import profile as parse

    return parse(text)


def limit(text: str) -> Limit:
    """A limit of --fail-if."""
    from .limits import parse  # loads hdrh, which --help need not

    return parse(text)


def change_limit(text: str) -> ChangeLimit:
    """A limit of --fail-if of PerfReport.py compare."""
    from .compare import parse  # likewise

    return parse(text)


_CONNECTION, _SENDING, _READING = "connection", "what to send", "what to read"
_TRACING, _RUN, _ENDING, _OUTPUT, _TOPICS = "tracing", "one run of many processes", "when to stop", "output", "topics"
_TEST = "the whole test"

# fmt: off
_OPTIONS = (
    Option("brokers", "--brokers", "KAFKA_BROKERS", _CONNECTION, brokers, "required",
           "host:port of the brokers, comma-separated"),
    Option("config", "--config", "", _CONNECTION, property_pair, "none",
           "any librdkafka property as K=V (may be repeated); no secrets here", repeats=True),
    Option("topic", "--topic", "TOPIC_NAME", _CONNECTION, topic_name, "performance-test",
           "the topic to send to, or to read"),
    Option("size", "--size", "SIZE", _SENDING, count_of, "10; no limit with --duration",
           "messages that this process sends (PerfRun.py: all producers together), such as 100000 or 100K"),
    Option("file", "--file", "DATA_FILE", _SENDING, Path, f"{DEFAULT_DATA_FILES[0]} if there, else data/data.json",
           "the data set: a JSON array, an object, or NDJSON"),
    Option("keyname", "--keyname", "KEYNAME", _SENDING, attribute_path, "no key",
           "the attribute that becomes the message's key; dots lead into nested objects"),
    Option("rate_per_s", "--rate", "RATE", _SENDING, rate, "0: as fast as possible",
           "messages per second of this process (PerfRun.py: of all producers), on a fixed schedule (open loop)"),
    Option("profile", "--profile", "PROFILE", _SENDING, profile, "none",
           "a rate that changes, instead of --rate and --duration: 'rate 1000 for 60s, ramp 1000->20000 over 5m'"),
    Option("stamp", "--stamp", "STAMP", _SENDING, one_of("send", "intended"), "send",
           "the messages' timestamp: when they are sent, or when --rate meant them to be (CreateTime topics)"),
    Option("trace", "--trace", "TRACE", _TRACING, trace, "none",
           "each message's mark in field:NAME, key or header:NAME, by which lost and doubled ones are found"),
    Option("run_id", "--run-id", "RUN_ID", _RUN, run_name, "none: this process is alone",
           "the run that this process shares with others (docs/runs.md); needs the topics of PerfTopics.py runs"),
    Option("wait_for", "--wait-for", "WAIT_FOR", _RUN, wait_for, "nobody",
           "begin when so many processes of the run are ready, such as producers:4,consumers:2"),
    Option("wait_timeout_s", "--wait-timeout", "WAIT_TIMEOUT", _RUN, seconds, "5m",
           "how long to wait for them; then exit code 3"),
    Option("expect_ratio", "--expect-ratio", "EXPECT_RATIO", _RUN, ratio, "none (PerfRun.py: 1)",
           "results for each input message: the run is over when so many were read, and incomplete without them"),
    Option("runs_topic", "--runs-topic", "RUNS_TOPIC", _RUN, topic_name, "performance-test-runs",
           "where the processes of a run announce themselves"),
    Option("results_topic", "--results-topic", "RESULTS_TOPIC", _RUN, topic_name, "performance-test-results",
           "where the checkpoints and results of a run are"),
    Option("start", "--from", "FROM", _READING, start_of, "earliest",
           "earliest, latest (which it is with RUN_ID), or a time such as 2026-11-23T08:00:00Z"),
    Option("group", "--group", "GROUP_ID", _READING, name_of, "none: all partitions",
           "consumer group in which several consumers share the partitions"),
    Option("timestamp_field", "--timestamp-field", "TIMESTAMP_FIELD", _READING, field_path, "timestamp_start",
           "the attribute with the input message's timestamp; dots lead into nested objects"),
    Option("timestamp_header", "--timestamp-header", "TIMESTAMP_HEADER", _READING, name_of, "none: the payload",
           "the message header with the input message's timestamp: text, or 8 bytes big-endian"),
    Option("timestamp_unit", "--timestamp-unit", "TIMESTAMP_UNIT", _READING, one_of("ms", "s", "us", "ns", "iso8601"),
           "ms", "how the input message's timestamp is written: ms, s, us, ns or iso8601"),
    Option("latency", "--latency", "LATENCY", _READING, one_of("append", "receive"), "append",
           "measure to the result's Kafka timestamp (append), or to the moment of receiving it (receive)"),
    Option("clock_topic", "--clock-topic", "CLOCK_TOPIC", _READING, clock_name, "performance-test-clock",
           "topic for probes of the brokers' clocks (PerfTopics.py clock makes it); without it their error is n/a"),
    Option("isolation", "--isolation", "ISOLATION", _READING, one_of("read_committed", "read_uncommitted"),
           "read_committed", "whether results of open and aborted transactions are left out"),
    Option("warmup", "--warmup", "WARMUP", _READING, warmup, "none",
           "read but do not measure the first messages, such as 10K, or the first time, such as 30s"),
    Option("duration_s", "--duration", "DURATION", _ENDING, seconds, "none",
           "stop after this time, such as 30s or 5m"),
    Option("count", "--count", "COUNT", _ENDING, count_of, "none: until stopped",
           "stop after that many messages read"),
    Option("linger_s", "--linger", "LINGER", _ENDING, seconds, "none: stop at once",
           "after --count, read on until there was no message for so long"),
    Option("idle_timeout_s", "--idle-timeout", "IDLE_TIMEOUT", _ENDING, seconds, "none",
           "stop after this time without a message, such as 30s"),
    Option("windows", "--windows", "WINDOWS", _OUTPUT, windows, "100,1K,10K,100K",
           "averages are printed over the last that many messages"),
    Option("fail_if", "--fail-if", "FAIL_IF", _OUTPUT, limit, "none",
           "end with exit code 6 when this holds, such as 'p99 > 250ms' (may be repeated)", repeats=True),
    Option("result", "--result", "RESULT_FILE", _OUTPUT, result_path, "none",
           "write the result to this file as JSON (docs/result.md)"),
    Option("html", "--html", "HTML_FILE", _OUTPUT, result_path, "none",
           "write the report to this file as a page that needs no network"),
    Option("json", "--json", "JSON_FILE", _OUTPUT, result_path, "none",
           "write the merged results, and what was judged, to this file (docs/result.md)"),
    Option("hgrm", "--hgrm", "HGRM_FILE", _OUTPUT, result_path, "none",
           "write the delta's percentiles to this file as HdrHistogram's plotters read them"),
    Option("hlog", "--hlog", "HLOG_FILE", _OUTPUT, result_path, "none",
           "write the deltas to this file as an HdrHistogram V2 log"),
    Option("termination_message", "--termination-message", "TERMINATION_MESSAGE_PATH", _OUTPUT, output_path, "none",
           "write the errors and the verdict, as one line, to this file at the end (Kubernetes: /dev/termination-log)"),
    Option("metrics_port", "--metrics-port", "METRICS_PORT", _OUTPUT, port, "none",
           "serve metrics for Prometheus on this port (docs/metrics.md)"),
    Option("log_format", "--log-format", "LOG_FORMAT", _OUTPUT, one_of("text", "json"), "text",
           "log lines on stderr as text, or as one JSON object a line; stdout stays as it is"),
    Option("partitions", "--partitions", "PARTITIONS", _TOPICS, count_of, "1",
           "partitions of each topic"),
    Option("replication_factor", "--replication-factor", "REPLICATION_FACTOR", _TOPICS, count_of,
           "the cluster's default", "copies of each partition"),
    Option("timestamp_type", "--timestamp-type", "TIMESTAMP_TYPE", _TOPICS, one_of("LogAppendTime", "CreateTime"),
           "LogAppendTime",
           "message.timestamp.type of the topics"),
    Option("input_topic", "--input", "INPUT_TOPIC", _TOPICS, topic_name, "none",
           "the topic that the producer sends to"),
    Option("output_topic", "--output", "OUTPUT_TOPIC", _TOPICS, topic_name, "none",
           "the topic that the streams operator writes its results to"),
    Option("create_topics", "--create-topics", "CREATE_TOPICS", _TOPICS, switch, "no",
           "create both topics where they are missing", switch=True),
    Option("scenario", "--scenario", "SCENARIO", _TEST, file_path, "none",
           "a YAML file with the test's settings (docs/scenario.md); flags and variables come before it"),
    Option("folder", "--folder", "FOLDER", _TEST, folder, "perf-run",
           "where the output and results of all processes, and the report, are written"),
    Option("producers", "--producers", "PRODUCERS", _TEST, count_of, "1",
           "producers side by side, which share rate and size"),
    Option("drain_timeout_s", "--drain-timeout", "DRAIN_TIMEOUT", _TEST, seconds, "60s",
           "how long to wait for the rest of the results after the last message was sent"),
    Option("find_capacity", "--find-capacity", "FIND_CAPACITY", _TEST, switch, "no",
           "search the highest rate that the pipeline sustains (docs/capacity.md); begins at --rate, or 100",
           switch=True),
    Option("step_s", "--step-duration", "STEP_DURATION", _TEST, seconds, "30s",
           "how long each rate of the search is held"),
    Option("resolution", "--resolution", "RESOLUTION", _TEST, share, "5%",
           "how near the rates get that were and were not sustained"),
)
_CHANGES = Option("fail_if_change", "--fail-if", "FAIL_IF", _OUTPUT, change_limit, "none",
                  "end with exit code 6 when a change is surely beyond this, such as 'p99 > +10%' (may be repeated)",
                  repeats=True)
# fmt: on
OPTIONS: Mapping[str, Option] = {option.field: option for option in _OPTIONS}
#: Those of PerfReport.py compare, whose --fail-if is another.
COMPARE_OPTIONS: Mapping[str, Option] = {**OPTIONS, _CHANGES.field: _CHANGES}


class _Parser(argparse.ArgumentParser):
    """One whose errors are like those of all other settings."""

    def error(self, message: str) -> NoReturn:
        """Of what is unknown only the first word is shown: the value behind a misspelt flag may be a secret."""
        _, is_unknown, words = message.partition("unrecognized arguments: ")
        if is_unknown:
            import difflib

            name = re.split(r"[\s=]", words)[0]
            nearest = difflib.get_close_matches(name, self._option_string_actions, n=1)
            message = f"{name} is not known here" + (f": did you mean {nearest[0]}?" if nearest else "")
        raise SettingsError(f"{message} (--help shows what there is)")


def from_command_line(
    script: str, fields: Sequence[str], description: str | None, examples: str, variables: Sequence[tuple[str, str]]
) -> Settings:
    """The Settings of a script that has the options `fields`, from its flags, the environment and `.env`."""
    return load(parser(script, fields, description, examples, variables).parse_args(), fields)


def parser(
    script: str,
    fields: Sequence[str],
    description: str | None,
    examples: str,
    variables: Sequence[tuple[str, str]],
    *,
    table: Mapping[str, Option] = OPTIONS,
) -> argparse.ArgumentParser:
    """The argument parser of a script that has the options `fields`; `variables` are listed for the connection."""
    result = _Parser(
        prog=Path(script).name,
        description=description,
        epilog=_epilog(examples, variables),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in (table[name] for name in fields):
        if option.group not in groups:
            groups[option.group] = result.add_argument_group(option.group)
        alone: dict[str, Any] = {"nargs": "?", "const": "yes"} if option.switch else {}
        groups[option.group].add_argument(
            option.flag,
            dest=option.field,
            action="append" if option.repeats else "store",
            **alone,
            metavar="K=V" if option.field == "config" else (option.variable or option.field).upper(),
            help=_help(option).replace("%", "%%"),
        )
    return result


def load(
    arguments: argparse.Namespace,
    fields: Sequence[str],
    environment: Mapping[str, str] = os.environ,
    dotenv: Path = Path(".env"),
    table: Mapping[str, Option] = OPTIONS,
    *,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """Validate the parsed flags, behind them the variables of `environment` and `.env`, and then `defaults` by field.

    Raises SettingsError.
    """
    merged = merged_environment(environment, dotenv)
    values: dict[str, Any] = {"environment": merged}
    for option in (table[name] for name in fields):
        given = getattr(arguments, option.field)
        variable_value = merged.get(option.variable)
        if given is None and not variable_value and option.field in defaults:
            values[option.field] = defaults[option.field]
        elif option.repeats:
            texts = given or [text.strip() for text in (variable_value or "").split(";") if text.strip()]
            source = option.flag if given else option.variable
            values[option.field] = tuple(checked(source, text, option.parse) for text in texts)
        elif given is not None:
            values[option.field] = checked(option.flag, given, option.parse)
        elif variable_value:
            values[option.field] = checked(option.variable, variable_value, option.parse)
    if "brokers" in fields and not values.get("brokers"):
        raise SettingsError("no brokers are given: set KAFKA_BROKERS, or use --brokers host:port")
    if "file" in fields and "file" not in values:
        values["file"] = _default_data_file()
    if values.get("profile") is not None:
        _follow_profile(values)
    if values.get("run_id") and "start" in fields:
        values.setdefault("start", "latest")  # what is in the topic already is of no run, or of another one
    if "size" in fields and "size" not in values and "duration_s" not in values:
        values["size"] = 10
    return Settings(**values)


def early(
    field: str, arguments: Sequence[str], environment: Mapping[str, str] = os.environ, dotenv: Path = Path(".env")
) -> str | None:
    """What is given for an option that is needed even where other settings are wrong."""
    option = OPTIONS[field]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option.flag, dest=option.field, nargs="?")
    with contextlib.suppress(SettingsError):
        environment = merged_environment(environment, dotenv)
    return getattr(parser.parse_known_args(arguments)[0], field) or environment.get(option.variable) or None


def _default_data_file() -> Path:
    """The user's data set where there is one, else this tool's. Raises SettingsError for one under another name."""
    mounted, own = DEFAULT_DATA_FILES
    if mounted.exists():
        return mounted
    others = sorted(path.name for path in mounted.parent.glob("[!.]*"))
    if others:
        raise SettingsError(
            f"there is no {mounted.name} in {mounted.parent}, but {', '.join(others[:3])}: the data set must have that "
            f"name (--from-file={mounted.name}=FILE), or be named by --file (DATA_FILE)"
        )
    return own


def _follow_profile(values: dict[str, Any]) -> None:
    """Rate and duration are those of the profile."""
    if values.get("rate_per_s") or values.get("duration_s"):
        raise SettingsError("--profile says rate and time: --rate and --duration (RATE, DURATION) do not go with it")
    values["rate_per_s"], values["duration_s"] = values["profile"].mean_per_s, values["profile"].duration_s


def merged_environment(environment: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """The variables of `environment` that are set to something, and behind them those of the file `dotenv`."""
    values = {name: value for name, value in environment.items() if value}
    if dotenv.is_file() and COMPLETE not in values:
        from dotenv import dotenv_values  # slow to import, and rarely needed

        try:
            found = dotenv_values(dotenv, interpolate=False)
        except (UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"{dotenv} cannot be read: {error}") from None
        values = {name: value for name, value in found.items() if value} | values
    return values


def checked(source: str, text: str, parse: Callable[[str], Any]) -> Any:
    """`parse(text)`. Raises SettingsError that names the source, the value and what is allowed."""
    may_be_secret = parse is property_pair or "@" in text  # user:password@host
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        if may_be_secret:
            raise SettingsError(f"{source}: the value still has its quotes: give it without")
        raise SettingsError(f"{source}: {text} still has its quotes (docker --env-file keeps them): give {text[1:-1]}")
    try:
        return parse(text)
    except ValueError as error:
        shown = "what was given" if may_be_secret else text
        raise SettingsError(f"{source}: {shown} is not allowed: it takes {error}") from None


def _is_utf8(text: str) -> bool:
    """Whether Kafka's client can take it: of other bytes it aborts the process, and at a null character it stops."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _number(text: str) -> float | None:
    """A plain decimal number from 0 on, or None."""
    if not re.fullmatch(r"\s*[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?\s*", text, re.ASCII):
        return None
    value = float(text)
    underflows = value == 0 and re.search("[1-9]", text.lower().partition("e")[0])  # 0 may mean something else
    return value if math.isfinite(value) and not underflows else None


def _help(option: Option) -> str:
    default = option.default if option.default == "required" else f"default: {option.default}"
    return f"{option.meaning} [{option.variable + '; ' if option.variable else ''}{default}]"


def _epilog(examples: str, variables: Sequence[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in variables), default=0)
    rows = "".join(f"  {name:{width}}  {meaning}\n" for name, meaning in variables)
    return (
        f"{'connection variables:' if rows else ''}\n{rows}\n"
        "Every flag with a name in capitals can be given as that environment variable, or in a .env file in the\n"
        "working directory. A flag comes before a variable, and a variable before .env.\n\n"
        f"examples:\n{examples}"
    )
