#!/usr/bin/env python3
"""One whole test in one command: both sides, their results, one report and one exit code; or the capacity search.

Checks the topics, starts the consumer, waits until it holds its partitions, runs the producer, waits for the rest of
the results, and judges. The scripts run as child processes; all that they say and write is in a folder.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from perf.capacity import Capacity, Plan, Step
    from perf.children import Child, Children
    from perf.result import Result
    from perf.run import Report
    from perf.schedule import PiecewiseSchedule, Profile, Schedule
    from perf.settings import Settings

_CONNECTION = ("brokers", "config")
_CREATING = ("partitions", "replication_factor")
_SENDING = ("file", "keyname", "stamp", "trace")
_READING = (
    "isolation", "timestamp_field", "timestamp_header", "timestamp_unit", "latency", "clock_topic", "trace", "windows",
)  # fmt: skip
IN_SCENARIO = (
    *_CONNECTION, "input_topic", "output_topic", "create_topics", *_CREATING,
    "file", "keyname", "size", "duration_s", "rate_per_s", "profile", "stamp", "producers", "trace", "expect_ratio",
    *(field for field in _READING if field != "trace"), "warmup", "drain_timeout_s",
    "find_capacity", "step_s", "resolution", "fail_if", "folder", "html", "json",
)  # fmt: skip
FIELDS = ("scenario", *IN_SCENARIO, "log_format")
EXAMPLES = """\
  ./PerfRun.py --brokers localhost:9092 --input in --output out --create-topics --rate 1000 --duration 5m --warmup 30s
  ./PerfRun.py --input in --output out --profile 'rate 1000 for 1m, ramp 1000->20000 over 5m' --fail-if 'p99 > 1s'
  ./PerfRun.py --input in --output out --find-capacity --fail-if 'p99 > 500ms'
  ./PerfRun.py --scenario nightly.yaml
"""
_OWN_FILES = re.compile(r"(producer(-\d+)?|consumer)\.json|(report|capacity)\.(json|html)")
_OWN_FOLDERS = re.compile(r"step-\d{2,3}-[0-9.e+]+")
_READY = "at the end of topic"
_TOLD = ("-- ", "✓", "✗", "!", "  →", "created", "there already")
_READY_TIMEOUT_S, _CHECK_TIMEOUT_S = 120.0, 180.0
_IDLE_S = 10.0  # without a count that is sure
_QUIET_S, _QUIET_TIMEOUT_S = 10.0, 600.0
_FIRST_PER_S = 100.0
_TOO_MANY = (
    "the consumer had as many results as it waited for, and stopped, before the last message was sent: tell by "
    "--expect-ratio how many there are for each message (or the pipeline pauses for longer than the consumer waits)"
)
_TOO_SLOW = (
    f"the consumer stopped before the last message was sent, as no result came for {_IDLE_S:g} s: with --size, or "
    "--rate and --duration, it knows how many to wait for"
)
_WARMUP_SHARE = 5  # of a step of the search
_GAPS = 5  # between results of a mean ratio that are waited for, as their number is not known


def main() -> int:
    """The stages in order; returns the exit code."""
    options, texts = _options()
    client_config(options.environment, brokers=options.brokers, overrides=options.config)  # refuses secrets in flags
    lock = _make_empty(options.folder)  # noqa: F841 (held until the end)
    stop = process.Stop().listen()
    test = Test(options, texts, stop)
    test.check_topics()
    if options.find_capacity:
        from perf.report import html_capacity
        from perf.report.text import capacity_lines

        found, outcome = search(test)
        written = _finish(test, found, capacity_lines(found), html_capacity.page(found))
    else:
        from perf.report import html
        from perf.report.text import report_lines

        report = test.measure()
        outcome = report.exit_code
        written = _finish(test, report, report_lines(report), html.page(report))
    return process.exit_code(stop, outcome, written=written and not test.output.lost)


def _options() -> tuple[Settings, Mapping[str, Any]]:
    """The settings, and the texts that they come from: flag, variable, .env, scenario."""
    arguments = settings.parser(__file__, FIELDS, __doc__, EXAMPLES, VARIABLES).parse_args()
    merged = settings.merged_environment(os.environ, Path(".env"))
    path = arguments.scenario or merged.get(settings.OPTIONS["scenario"].variable)
    texts: dict[str, Any] = {}
    defaults: Mapping[str, Any] = {}
    if path:
        from perf import scenario

        found = scenario.read(Path(path), IN_SCENARIO)
        texts, defaults = {**found.texts}, found.values
    for field in FIELDS:
        given = getattr(arguments, field) or merged.get(settings.OPTIONS[field].variable)
        if given:
            texts[field] = given
    options = settings.load(arguments, FIELDS, defaults=defaults)
    if not (options.input_topic and options.output_topic):
        raise settings.SettingsError("a test needs both topics: --input and --output (INPUT_TOPIC, OUTPUT_TOPIC)")
    if options.input_topic == options.output_topic:
        raise settings.SettingsError("--input and --output are the same topic")
    if options.find_capacity and (options.profile or options.duration_s or "size" in texts):
        raise settings.SettingsError("--find-capacity chooses rates and times: no --profile, --duration or --size")
    if not options.find_capacity and options.size is not None and options.size < options.producers:
        raise settings.SettingsError(f"--size {options.size} is less than one message for each of --producers")
    if options.find_capacity:
        _check_search(options)
    return options, texts


def _check_search(options: Settings) -> None:
    if options.latency == "receive" or options.stamp == "intended":
        raise settings.SettingsError("--find-capacity needs Kafka's own timestamps: no --latency receive, no --stamp")
    if options.warmup.messages:
        raise settings.SettingsError("--find-capacity needs a --warmup in seconds: each step has another rate")
    from perf.growth import LEAST_ROWS

    least_s = LEAST_ROWS + 3  # a partial second at each end, and one in which the last message may have been sent
    left_s = options.step_s - _warmup_of_step(options).seconds
    if left_s < least_s:
        raise settings.SettingsError(
            f"--step-duration {options.step_s:g}s leaves {left_s:g} s after the warm-up: to judge the backlog at least "
            f"{least_s} are needed"
        )


def _warmup_of_step(options: Settings) -> settings.Warmup:
    return options.warmup if options.warmup.seconds else settings.Warmup(seconds=options.step_s / _WARMUP_SHARE)


def _finish(test: Test, found: Report | Capacity, lines: Iterable[str], page: str) -> bool:
    """Print the report, write it as JSON and as a page, and say where all is; whether all was written."""
    from perf import result

    options = test.options
    name = "capacity" if options.find_capacity else "report"
    test.output.lines(lines)
    path = options.html or options.folder / f"{name}.html"
    written = process.written(
        lambda: result.write(options.json or options.folder / f"{name}.json", found),
        lambda: result.write_file(path, page.encode()),
    )
    process.log.info("the report is in %s; what all processes said and found is in %s", path, options.folder)
    return written


def _make_empty(folder: Path) -> int:
    """Make the folder, or remove what an earlier test left there: it would be taken for a part of this one.

    Returns what keeps other tests out of it. Raises SettingsError when one is there.
    """
    folder.mkdir(exist_ok=True)
    try:
        lock = process.lock(folder)
    except BlockingIOError:
        raise settings.SettingsError(
            f"another test is writing to the folder {folder}: give one of them --folder"
        ) from None
    for file in folder.iterdir():
        if _OWN_FILES.fullmatch(file.name) and file.is_file():
            file.unlink()
        elif _OWN_FOLDERS.fullmatch(file.name) and (file / "consumer.txt").exists():
            shutil.rmtree(file, ignore_errors=True)
    return lock


class Test:
    """The processes of a test, one after another and side by side."""

    __test__ = False

    def __init__(self, options: Settings, texts: Mapping[str, Any], stop: process.Stop) -> None:
        self.options, self.stop = options, stop
        self.output = process.Output(stop)
        self._texts = texts
        own = {option.variable for option in settings.OPTIONS.values()}
        self._environment = {name: value for name, value in options.environment.items() if name not in own}
        self._environment |= {settings.COMPLETE: "1", "PYTHONUNBUFFERED": "1"}

    def check_topics(self) -> None:
        """Make the topics if that is asked for, and check that a measurement can begin. Raises ChildError."""
        options = self.options
        topics = [str(options.input_topic), str(options.output_topic)]
        if options.create_topics:
            self._run("topics", "PerfTopics.py", "create", *topics, *self._flags(*_CONNECTION, *_CREATING))
        checked = ["--input", topics[0]]
        if options.latency == "append":  # else the output topic's timestamps do not matter
            checked += ["--output", topics[1]]
        self._run("check", "PerfTopics.py", "check", *checked, *self._flags(*_CONNECTION, "clock_topic"))

    def measure(self) -> Report:
        """The report of one run. Raises ChildError where there is nothing to report, Interrupted likewise."""
        results, ended = self.hold(self.options, self.options.folder)
        if not results:
            raise process.Interrupted(self.stop.signal_number)
        return self.report_of(results, ended)

    def report_of(self, results: Mapping[str, Result], ended: Mapping[str, int]) -> Report:
        """The report of a run's results by file name."""
        from perf import run

        options = self.options
        return run.report_of(
            list(results.values()),
            sources=results,
            limits=options.fail_if,
            ended=ended,
            expect_ratio=options.expect_ratio or 1.0,
        )

    def hold(self, options: Settings, folder: Path) -> tuple[dict[str, Result], dict[str, int]]:
        """Run both sides once: results by file name, and what went wrong in words, each with its exit code.

        Without results it was stopped. Raises ChildError where nobody wrote a result for another reason.
        """
        from perf import result

        count = options.producers
        names = [f"producer-{at + 1}" for at in range(count)] if count > 1 else ["producer"]
        files = {name: folder / f"{name}.json" for name in (*names, "consumer")}
        for file in files.values():
            file.unlink(missing_ok=True)
        with self._children(folder) as children:
            ran = self._run_both(children, options, files)
        results = {file.name: result.read(file) for file in files.values() if file.exists()}
        if not results and not self.stop():
            raise _failed(ran, folder)
        ended = dict(found for child in ran if (found := _bad_end(child, has_result=files[child.name].exists())))
        if number := self.stop.signal_number:
            name = signal.Signals(number).name
            ended = {f"stopped by {name}, when results were still on their way": process.SIGNALLED + number, **ended}
        if _stopped_too_early(results):
            ended[_TOO_SLOW if _expected_results(options) is None else _TOO_MANY] = process.ExitCode.NOT_ACKNOWLEDGED
        return results, ended

    def drain(self, folder: Path) -> None:
        """Read until nothing comes any more. Raises ChildError when that does not end."""
        from perf.children import ChildError

        endless = replace(self.options, size=None, duration_s=None)
        with self._children(folder) as children:
            consumer = children.start("drain", *self._consumer(endless), "--idle-timeout", str(_QUIET_S))
            if not children.wait(lambda: consumer.exit_code is not None, _QUIET_TIMEOUT_S) and not self.stop():
                raise ChildError(f"the pipeline still writes results {_QUIET_TIMEOUT_S:g} s after the last input: begin"
                                 " the search lower, with --rate", process.ExitCode.NO_MEASUREMENT)  # fmt: skip
            children.stop([consumer])

    def _run_both(self, children: Children, options: Settings, files: Mapping[str, Path]) -> list[Child]:
        """The consumer, and once it is ready the producers; returns all that were started, ended."""
        from perf.children import ChildError

        reading = self._consumer(options)
        consumer = children.start("consumer", *reading, "--result", str(files["consumer"]))
        if not children.wait(lambda: consumer.has_said(_READY) or consumer.exit_code is not None, _READY_TIMEOUT_S):
            children.stop([consumer])
            if not self.stop():
                raise ChildError(f"the consumer was not ready within {_READY_TIMEOUT_S:g} s", 3)
        producers: list[Child] = []
        if consumer.exit_code is None and not self.stop():
            names = [name for name in files if name != "consumer"]
            producers = [
                children.start(name, *self._producer(options, at), "--result", str(files[name]))
                for at, name in enumerate(names)
            ]
            self._run_out(children, consumer, producers, options)
        return [*producers, consumer]

    def _run_out(self, children: Children, consumer: Child, producers: list[Child], options: Settings) -> None:
        """Wait for the producers, then for the rest of the results; after a signal or a fault stop them in order."""

        def sent() -> bool:
            failed = consumer.exit_code not in (None, 0)
            return failed or all(producer.exit_code is not None for producer in producers)

        children.wait(sent)
        children.stop([producer for producer in producers if producer.exit_code is None])
        useless = all(producer.exit_code in (2, 3) for producer in producers)  # nothing was sent
        ended = useless or children.wait(lambda: consumer.exit_code is not None, options.drain_timeout_s)
        if not ended and not self.stop():
            process.log.warning(
                "the consumer still waited for results %g s after the last message", options.drain_timeout_s
            )
        children.stop([consumer])

    def _children(self, folder: Path) -> Children:
        from perf.children import Children

        return Children(folder, self._environment, self._hear, self.stop)

    def _run(self, name: str, script: str, *arguments: str) -> None:
        from perf.children import ChildError

        with self._children(self.options.folder) as children:
            child = children.start(name, _path(script), *arguments)
            if not children.wait(lambda: child.exit_code is not None, _CHECK_TIMEOUT_S):
                children.stop([child])
                if self.stop():
                    raise process.Interrupted(self.stop.signal_number)
                raise ChildError(f"{script} did not end within {_CHECK_TIMEOUT_S:g} s", process.ExitCode.CONNECTION)
            if child.exit_code:
                raise ChildError(f"the {name} failed: see above and {child.output}", child.exit_code)

    def _hear(self, name: str, line: str) -> None:
        """Pass on what is for people; the summaries come once, for all processes."""
        found = self.options.find_capacity and name not in ("topics", "check")
        if line.startswith("[") and not found:
            self.output.lines([line])
        elif line.startswith(("warning:", "error:")) or (not found and line.startswith(_TOLD)):
            process.pass_on(name, line)

    def _consumer(self, options: Settings) -> Iterator[str]:
        yield from (_path("PerfConsumer.py"), "--topic", str(options.output_topic), "--from", "latest")
        yield from self._flags(*_CONNECTION, *_READING)
        from perf.run import linger_s

        ratio, count = options.expect_ratio or 1.0, _expected_results(options)
        if count is not None:
            gaps_s = _GAPS / (options.rate_per_s * ratio) if options.rate_per_s and not ratio.is_integer() else 0.0
            yield from ("--count", str(count), "--linger", f"{linger_s(ratio) + gaps_s:.3f}s")
        elif options.size is not None or options.duration_s is not None:
            yield from ("--idle-timeout", str(_IDLE_S))
        warmup = options.warmup
        if warmup.messages or warmup.seconds:
            yield from ("--warmup", f"{warmup.seconds:.9g}s" if warmup.seconds else str(warmup.messages))

    def _producer(self, options: Settings, at: int) -> Iterator[str]:
        """The command line of the producer with the number `at`, from 0."""
        yield from (_path("ProducerPerformance.py"), "--topic", str(options.input_topic))
        yield from self._flags(*_CONNECTION, *_SENDING)
        if options.profile is not None:
            yield from ("--profile", _profile_of_each(options.profile, options))
        else:
            yield from ("--rate", _rate_of_each(options))
            if options.duration_s is not None:
                yield from ("--duration", f"{options.duration_s:.9g}s")
        if options.size is not None:
            yield from ("--size", str(_sizes(options.size, options.producers)[at]))

    def _flags(self, *fields: str) -> list[str]:
        """The flags by which a child gets what was given for these fields."""
        found = []
        for field in fields:
            text = self._texts.get(field, ())
            for one in [text] if isinstance(text, str) else text:
                found += [f"{settings.OPTIONS[field].flag}={one}"]
        return found


def search(test: Test) -> tuple[Capacity, int]:
    """Hold one rate after another until the capacity is found; returns it with the exit code."""
    from perf import capacity
    from perf.children import ChildError
    from perf.result import ResultError

    options, started_at = test.options, process.now()
    steps: list[Step] = []
    first_per_s, outcome = options.rate_per_s or _FIRST_PER_S, 0

    def next_step() -> Plan | None:
        return capacity.next_step(steps, first_per_s=first_per_s, resolution=options.resolution)

    try:
        while (plan := next_step()) is not None and len(steps) < capacity.MOST_STEPS and not test.stop():
            _hold(test, plan, steps)
    except (ChildError, ResultError, OSError) as error:  # what was found until then is reported
        outcome = process.failure(error)
    complete = next_step() is None and not outcome
    status, per_s, line, bounded_by = capacity.found(steps, resolution=options.resolution, complete=complete)
    if status not in ("found", "at_least"):
        outcome = outcome or process.ExitCode.NO_MEASUREMENT
    result = capacity.Capacity(
        status=status,
        capacity_per_s=per_s,
        resolution=options.resolution,
        line=line,
        bounded_by=bounded_by,
        started_at=started_at,
        input_topic=str(options.input_topic),
        output_topic=str(options.output_topic),
        limits=[limit.text for limit in options.fail_if],
        ratio=options.expect_ratio or 1.0,
        step_s=options.step_s,
        steps=steps,
    )
    return result, outcome


def _hold(test: Test, plan: Plan, steps: list[Step]) -> None:
    """Hold a rate, add the step unless stopped, and let the pipeline drain. Raises ChildError without a judgement."""
    from perf import capacity
    from perf.children import ChildError
    from perf.growth import sent_by
    from perf.result import ProducerResult

    options = test.options
    folder = options.folder / f"step-{len(steps) + 1:02d}-{plan.rate_per_s:g}"
    folder.mkdir(exist_ok=True)
    held = replace(
        options,
        rate_per_s=plan.rate_per_s,
        duration_s=options.step_s * plan.times,
        size=None,
        warmup=_warmup_of_step(options),
    )
    results, ended = test.hold(held, folder)
    if test.stop():
        return
    if ended:
        raise ChildError(f"the search cannot go on: {next(iter(ended))}", process.first_of(ended.values()))
    report = test.report_of(results, ended)
    _require_measurement(report, plan.rate_per_s, steps)
    sent = sent_by([one for one in results.values() if isinstance(one, ProducerResult)])
    steps.append(capacity.judge(report, plan, sent))
    test.output.lines([_progress(steps[-1])])
    if report.missing != 0 or results["consumer.json"].exit_code >= process.SIGNALLED:
        test.drain(folder)


def _require_measurement(report: Report, per_s: float, steps: Sequence[Step]) -> None:
    """Raises ChildError for a step that tells nothing; one without results does, if the pipeline still lives."""
    from perf.children import ChildError

    codes = process.ExitCode
    if report.producer is not None and report.consumer is not None:
        overloaded = not report.consumer.summary.measured and not _is_dead(steps, per_s)
        judged = report.exit_code in (codes.DONE, codes.NOT_ACKNOWLEDGED, codes.LIMIT_EXCEEDED)
        if judged or (report.exit_code == codes.NO_MEASUREMENT and overloaded):
            return
    raise ChildError(f"the search cannot go on: {report.verdict}", report.exit_code or codes.NO_MEASUREMENT)


def _is_dead(steps: Sequence[Step], per_s: float) -> bool:
    """Whether a pipeline without results is no slow one: it never had any, or twice none at what it sustained."""
    from perf.capacity import SUSTAINED

    if not any(step.results for step in steps):
        return True
    best_per_s = max((step.rate_per_s for step in steps if step.outcome == SUSTAINED), default=0.0)
    return per_s <= best_per_s and not steps[-1].results


def _progress(step: Step) -> str:
    p99 = "n/a" if step.p99_ms is None else f"{step.p99_ms:g} ms"
    return f"{step.rate_per_s:>10g} messages/s {step.outcome.replace('_', ' '):<13} p99 {p99}; {step.reason}"


def _expected_results(options: Settings) -> int | None:
    """How many results will surely come; None where it is not known beforehand how many messages are sent."""
    from perf.run import most_by_chance
    from perf.schedule import Schedule

    sizes = _sizes(options.size, options.producers) if options.size is not None else None
    if options.rate_per_s and options.duration_s:
        schedule: Schedule | PiecewiseSchedule = Schedule.at_rate(float(_rate_of_each(options)))
        if options.profile is not None:
            schedule = settings.profile(_profile_of_each(options.profile, options)).schedule()
        due = schedule.due_count(int(options.duration_s * 1_000_000_000) - 1)
        messages = sum(min(size, due) for size in sizes or [due] * options.producers)
    elif options.duration_s or sizes is None:
        return None
    else:
        messages = sum(sizes)
    ratio = options.expect_ratio or 1.0
    return max(1, math.floor(messages * ratio - most_by_chance(messages, ratio)))


def _sizes(size: int, producers: int) -> list[int]:
    """How many messages each of the producers sends: together just so many."""
    return [size // producers + (at < size % producers) for at in range(producers)]


def _rate_of_each(options: Settings) -> str:
    return f"{options.rate_per_s / options.producers:.12g}"


def _profile_of_each(profile: Profile, options: Settings) -> str:
    return str(profile.scaled(Fraction(1, options.producers)))


def _failed(ran: Sequence[Child], folder: Path) -> Exception:
    """Why there is no result at all."""
    from perf.children import ChildError

    bad = dict(found for child in ran if (found := _bad_end(child, has_result=False)))
    return ChildError(f"{'; '.join(bad)}; see above and {folder}", process.first_of(bad.values()))


def _bad_end(child: Child, *, has_result: bool) -> tuple[str, int] | None:
    """What is wrong with how a child ended that its own result does not tell, and the exit code that it leads to."""
    code, codes = child.exit_code or 0, process.ExitCode
    if has_result and (code <= process.SIGNALLED or child.was_stopped):
        return None
    names = {one.value + process.SIGNALLED: one.name for one in signal.Signals}
    how = f"was ended by {names[code]}" if code in names else f"ended with exit code {code}"
    lost = codes.NO_MEASUREMENT if child.name == "consumer" and not has_result else codes.NOT_ACKNOWLEDGED
    own = code in (codes.USAGE, codes.CONNECTION)
    return f"the {child.name} {how}{'' if has_result else ' and left no result'}", code if own else lost


def _stopped_too_early(results: Mapping[str, Result]) -> bool:
    """Whether the consumer had what it waited for while messages were still being sent."""
    from perf.result import ProducerResult, epoch_ms

    consumer = results.get("consumer.json")
    if consumer is None or consumer.exit_code not in (process.ExitCode.DONE, process.ExitCode.NO_MEASUREMENT):
        return False
    end_ms = epoch_ms(consumer.started_at) + 1_000 * consumer.summary.elapsed_s
    return any(
        epoch_ms(one.started_at) + 1_000 * one.summary.send_elapsed_s > end_ms
        for one in results.values()
        if isinstance(one, ProducerResult)
    )


def _path(script: str) -> str:
    return str(Path(__file__).resolve().parent / script)


if __name__ == "__main__":
    process.run(main)
