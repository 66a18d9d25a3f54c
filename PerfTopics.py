#!/usr/bin/env python3
"""Create, list, describe and delete topics, and check that a measurement can begin.

Topics are created with message.timestamp.type=LogAppendTime unless told otherwise; one that is there already, the same
way, is left as it is and counts as success.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from kafka.config import ClientConfig
    from kafka.topics import Admin, TopicDescription

FIELDS = (
    "brokers", "config", "partitions", "replication_factor", "timestamp_type",
    "input_topic", "output_topic", "group", "clock_topic", "runs_topic", "results_topic",
    "log_format",
)  # fmt: skip
EXAMPLES = """\
  KAFKA_BROKERS=localhost:9092 ./PerfTopics.py create input output
  ./PerfTopics.py create --brokers localhost:9092 --partitions 6 --replication-factor 3 input output
  ./PerfTopics.py check --input input --output output      # may a measurement begin? exit code 3 if not
  ./PerfTopics.py list | ./PerfTopics.py describe input output | ./PerfTopics.py delete input output --yes
  ./PerfTopics.py clock                                    # a topic for probes of the brokers' clocks
  ./PerfTopics.py runs                                     # topics by which the processes of a run find each other
"""
#: Commands that take no names → what to use instead.
_NAMED_BY_FLAGS = {
    "list": "",
    "check": "; use --input and --output",
    "runs": "; use --runs-topic and --results-topic",
}
_SHOWN_CONFIGURATION = (
    "message.timestamp.type", "cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes",
    "min.insync.replicas", "compression.type",
)  # fmt: skip
_TO_LOG_APPEND_TIME = (
    "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} "
    "--add-config message.timestamp.type=LogAppendTime"
)
_ALLOW = (
    "kafka-acls.sh --bootstrap-server {brokers} --add --allow-principal User:{user} --operation {operation} {resource}"
)


def main() -> int:
    """The stages in order; returns the exit code."""
    parser = settings.parser(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES)
    parser.add_argument("command", choices=COMMANDS, help="what to do")
    parser.add_argument("names", nargs="*", metavar="NAME", help="topic names")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    arguments = parser.parse_args()
    options = settings.load(arguments, FIELDS)
    names = _names(parser, arguments, options)
    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    from kafka.topics import Admin

    output = process.Output(process.Stop())
    job = Job(Admin(config), config, options, output, ask=not arguments.yes)
    outcome = COMMANDS[arguments.command](job, names)
    return process.exit_code(process.Stop(), outcome, written=not output.lost)


def _names(parser: argparse.ArgumentParser, arguments: argparse.Namespace, options: settings.Settings) -> list[str]:
    """The topic names that the command needs, checked. Ends the process with exit code 2 where they do not fit."""
    command, names = arguments.command, arguments.names
    if command in _NAMED_BY_FLAGS and names:
        parser.error(f"{command} takes no topic names{_NAMED_BY_FLAGS[command]}")
    if command == "check" and not (options.input_topic or options.output_topic):
        parser.error("check needs --input, --output or both")
    if command in ("create", "describe", "delete") and not names:
        parser.error(f"{command} needs at least one topic name")
    if command == "clock":
        return [settings.checked("topic name", name, settings.clock_name) for name in names or [options.clock_topic]]
    return [settings.checked("topic name", name, settings.topic_name) for name in names]


class Job:
    """The commands, on one connection. Each returns the exit code."""

    def __init__(
        self, admin: Admin, config: ClientConfig, options: settings.Settings, output: process.Output, *, ask: bool
    ) -> None:
        self.admin = admin
        self.config = config
        self.options = options
        self._output = output
        self._ask = ask
        self._crosses = 0

    def create(self, names: Sequence[str]) -> int:
        """Create the topics; one that is there the same way is left as it is."""

        def create(name: str) -> list[str]:
            created = self.admin.create(
                name,
                partitions=self.options.partitions,
                replication_factor=self.options.replication_factor,
                timestamp_type=self.options.timestamp_type,
            )
            return [f"{'created' if created else 'there already'}: {name}"]

        return self._for_each(names, create)

    def clock(self, names: Sequence[str]) -> int:
        """Create a topic for probes of the brokers' clocks."""

        def create(name: str) -> list[str]:
            return [f"{'created' if self.admin.create_for_clock(name) else 'there already'}: {name}"]

        return self._for_each(names, create)

    def runs(self, _names: Sequence[str]) -> int:
        """Create the topics of runs of many processes."""
        options = self.options

        def create(name: str) -> list[str]:
            created = self.admin.create_for_runs(
                name, by_key=name == options.results_topic, replication_factor=options.replication_factor
            )
            return [f"{'created' if created else 'there already'}: {name}"]

        return self._for_each([options.runs_topic, options.results_topic], create)

    def overview(self, _names: Sequence[str]) -> int:
        """Name and number of partitions of each topic."""
        topics = self.admin.names()
        width = max(map(len, topics), default=0)
        self._output.lines([f"{name:{width}}  partitions: {count}" for name, count in topics.items()])
        return process.ExitCode.DONE

    def describe(self, names: Sequence[str]) -> int:
        """Each topic's offsets, and the part of its configuration that matters to a measurement."""
        return self._for_each(names, lambda name: list(self._described(name)))

    def delete(self, names: Sequence[str]) -> int:
        """Delete the topics with all their messages, after asking."""
        if self._ask:
            if not sys.stdin.isatty():
                raise settings.SettingsError("delete asks only on a terminal: give --yes to delete without asking")
            process.log.warning("this deletes all messages of: %s", ", ".join(names))
            sys.stderr.write("Delete? [y/N] ")
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                process.log.info("nothing was deleted")
                return process.ExitCode.DONE

        def delete(name: str) -> list[str]:
            self.admin.delete(name)
            return [f"deleted: {name}"]

        return self._for_each(names, delete)

    def check(self, _names: Sequence[str]) -> int:
        """Connection, topics, rights and clocks, one line each; nothing is written but probes to the clock topic."""
        from kafka.errors import Fault

        options = self.options
        try:
            cluster = self.admin.cluster()
            self._good(f"connected to {options.brokers} as {self._identity()}: {len(cluster.brokers)} broker(s)")
            if options.input_topic is not None:
                self._check_topic("input", options.input_topic, "WRITE")
            if options.output_topic is not None:
                self._check_topic("output", options.output_topic, "READ")
            if options.group is not None:
                self._check_group(options.group)
            self._check_clock(options.clock_topic)
        except Fault as fault:
            self._bad(str(fault))
        self._output.lines([f"{self._crosses} to mend" if self._crosses else "a measurement can begin"])
        return process.ExitCode.CONNECTION if self._crosses else process.ExitCode.DONE

    def _for_each(self, names: Sequence[str], act: Callable[[str], Sequence[str]]) -> int:
        """Do it for each name, also after one that cannot be dealt with; returns the first one's exit code."""
        from kafka.errors import TopicError

        code = int(process.ExitCode.DONE)
        for name in names:
            try:
                self._output.lines(act(name))
            except TopicError as error:
                code = code or process.failure(error)
        return code

    def _described(self, name: str) -> Iterator[str]:
        topic = self.admin.describe(name, with_configuration=True, suggest=True)
        yield f"{name}: partitions {len(topic.partitions)}, replication factor {topic.replication_factor}"
        for key in _SHOWN_CONFIGURATION:
            yield f"  {key:22}  {topic.configuration.get(key, 'n/a (not authorised to read it)')}"
        for at in self.admin.offsets(topic):
            copies, in_sync = topic.replicas[at.partition]
            yield (
                f"  partition {at.partition}: offsets {at.first} to {at.end}, leader {topic.leaders[at.partition]}, "
                f"{in_sync} of {copies} copies in sync"
            )

    def _check_topic(self, role: str, name: str, right: str) -> None:
        from kafka.errors import TopicError

        try:
            topic = self.admin.describe(name, with_configuration=True, with_rights=True, suggest=True)
            self._good(f"{role} topic {name}: {len(topic.partitions)} partition(s)")
            self._check_timestamp_type(role, topic)
            self._check_right(topic, right)
            end = sum(at.end - at.first for at in self.admin.offsets(topic))
            self._good(f"the leaders of {name} answer; offsets for {end} messages")
        except TopicError as error:
            self._bad(str(error))

    def _check_timestamp_type(self, role: str, topic: TopicDescription) -> None:
        kind, remedy = topic.timestamp_type, self._filled(_TO_LOG_APPEND_TIME, topic=topic.name)
        if kind is None:
            self._caution(f"the timestamp type of {topic.name} may not be read: test.py shows it with a message")
        elif kind == "LogAppendTime":
            self._good(f"{topic.name} is {kind}")
        elif role == "input":
            self._caution(f"{topic.name} is {kind}: its stamps are the producer's clock. To change that: {remedy}")
        else:
            meaning = "the operator chooses its stamps, and one that passes its input's on makes every delta 0"
            self._caution(f"{topic.name} is {kind}: {meaning}. To change that: {remedy}")

    def _check_right(self, topic: TopicDescription, right: str) -> None:
        word = {"WRITE": "write to", "READ": "read"}[right]
        if topic.rights is None:
            self._caution(f"whether the credentials may {word} {topic.name} cannot be known: the cluster does not tell")
        elif right in topic.rights:
            self._good(f"the credentials may {word} {topic.name}")
        else:
            operation, resource = right.capitalize(), f"--topic {topic.name}"
            remedy = self._filled(_ALLOW, user=self._user(), operation=operation, resource=resource)
            self._bad(f"the credentials may not {word} {topic.name}", remedy)

    def _check_group(self, group: str) -> None:
        allowed = self.admin.may_read_in_group(group)
        if allowed is None:
            self._caution(f"whether the credentials may read in the group {group} cannot be known")
        elif allowed:
            self._good(f"the credentials may read in the group {group}")
        else:
            remedy = self._filled(_ALLOW, user=self._user(), operation="Read", resource=f"--group {group}")
            self._bad(f"the credentials may not read in the group {group}", remedy)

    def _check_clock(self, topic: str) -> None:
        from kafka.clock import probe
        from kafka.errors import TopicError, TopicMissingError
        from perf.clock import offsets_from

        try:
            leaders = self.admin.describe(topic).leaders
            found = probe(self.config, topic, leaders, lambda: time.time() * 1000)
        except TopicMissingError:
            self._caution("the clock error will be n/a; a topic for probes is made by: python PerfTopics.py clock")
            return
        except TopicError as error:
            self._caution(f"the clock error will be n/a: {error}")
            return
        for offset in offsets_from(found):
            self._good(f"clock of broker {offset.broker}: {offset.offset_ms:+.1f} ms ± {offset.bound_ms:.1f} ms")

    def _identity(self) -> str:
        properties = self.config.properties
        protocol = properties["security.protocol"].upper()
        mechanism = f", {properties['sasl.mechanism']}" if "sasl.mechanism" in properties else ""
        return f"{self._user()} ({protocol}{mechanism})"

    def _user(self) -> str:
        """As far as it is known here: a certificate's or token's principal is the broker's to say."""
        known = ("sasl.username", "sasl.oauthbearer.client.id")
        if any(name.startswith(("ssl.certificate.", "ssl.keystore.")) for name in self.config.properties):
            return "the client certificate's subject"
        return next((self.config.properties[name] for name in known if name in self.config.properties), "ANONYMOUS")

    def _filled(self, command: str, **values: str) -> str:
        return command.format(brokers=self.options.brokers, **values)

    def _good(self, text: str) -> None:
        self._output.lines([f"✓ {text}"])

    def _caution(self, text: str) -> None:
        self._output.lines([f"! {text}"])

    def _bad(self, text: str, remedy: str = "") -> None:
        self._crosses += 1
        self._output.lines([f"✗ {text}", *([f"  → {remedy}"] if remedy else [])])


COMMANDS: dict[str, Callable[[Job, Sequence[str]], int]] = {
    "create": Job.create,
    "list": Job.overview,
    "describe": Job.describe,
    "delete": Job.delete,
    "check": Job.check,
    "clock": Job.clock,
    "runs": Job.runs,
}


if __name__ == "__main__":
    process.run(main)
