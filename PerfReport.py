#!/usr/bin/env python3
"""Merge the results of a run's processes into one report: what was sent, what was measured, what was lost.

Lost messages are judged here, where the marks of all producers and the ledgers of all consumers (--trace) meet.
`PerfReport.py compare` tells whether one set of runs differs from another (--help there).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kafka.config import VARIABLES, client_config
from perf import process, settings

if TYPE_CHECKING:
    from perf.run import Report
    from perf.settings import Settings

FIELDS = ("expect_ratio", "html", "json", "hgrm", "hlog", "fail_if", "log_format")
RUN_FIELDS = ("brokers", "config", "wait_for", "runs_topic", "results_topic")  # with --run
COMPARE_FIELDS = ("html", "json", "fail_if_change", "log_format")
EXAMPLES = """\
  ./PerfReport.py producer.json consumer.json --html report.html
  ./PerfReport.py results/*.json --fail-if 'lost > 0' --fail-if 'p99 > 250ms'
  ./PerfReport.py --run run-7 --brokers localhost:9092
  ./PerfReport.py compare before.json -- after.json --fail-if 'p99 > +10%'
"""
COMPARE = "compare"
COMPARE_HELP = """Tell whether one set of runs differs from another, with an interval for each difference.

Each file or folder is one run: a report (--json), a result, or a folder with the results of all its processes.
"""
COMPARE_EXAMPLES = """\
  ./PerfReport.py compare before.json -- after.json --html comparison.html
  ./PerfReport.py compare runs/base-* -- runs/new-* --fail-if 'p99 > +10%' --fail-if 'throughput < -5%'
"""
_AND = "\0"  # stands for the -- between the two sides, which argparse would swallow


def main() -> int:
    """The stages in order; returns the exit code."""
    if sys.argv[1:2] == [COMPARE]:
        return compare_sides(sys.argv[2:])
    parser = settings.parser(__file__, FIELDS + RUN_FIELDS, __doc__, EXAMPLES, VARIABLES)
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT", help="files written with --result or --json")
    parser.add_argument(
        "--run", metavar="RUN_ID", help="the run of many processes whose results Kafka has (docs/runs.md)"
    )
    arguments = parser.parse_args()
    if bool(arguments.results) == bool(arguments.run):
        parser.error("give the files RESULT … of a run, or --run RUN_ID")
    options = settings.load(arguments, FIELDS + RUN_FIELDS if arguments.run else FIELDS)
    from perf import run

    if arguments.run:
        return _show(_report_from_kafka(settings.checked("--run", arguments.run, settings.run_name), options), options)
    if len({path.resolve() for path in arguments.results}) != len(arguments.results):
        raise settings.SettingsError("a result file is given twice: all it counts would be counted twice")
    report = run.report_at(*arguments.results, limits=options.fail_if, expect_ratio=options.expect_ratio)
    return _show(report, options)


def _show(report: Report, options: Settings) -> int:
    from perf.report.text import report_lines

    if (options.hgrm or options.hlog) and report.consumer is None:
        raise settings.SettingsError("--hgrm and --hlog write deltas, so they need a consumer's result")
    output = process.Output(process.Stop())
    output.lines(report_lines(report))
    for sentence in report.ended:
        process.log.warning("%s", sentence)
    if report.ledger is not None and report.ledger.untraced and not report.ledger.unique:
        process.log.warning("no result carries a mark: does the operator copy the field, header or key of --trace?")
    written = process.written(*_writes(report, options))
    return process.exit_code(process.Stop(), report.exit_code, written=written and not output.lost)


def _report_from_kafka(name: str, options: Settings) -> Report:
    """The report of a run whose processes left their states and results in Kafka."""
    from kafka.runs import RunTopics
    from perf import coordination, run

    config = client_config(options.environment, brokers=options.brokers, overrides=options.config)
    topics = RunTopics(config, announcements=options.runs_topic, results=options.results_topic)
    found = coordination.Run(name)
    found.take(topics.announcements())
    if found.first_ms is None:
        raise coordination.RunError(f"no process announced itself for the run {name} in {options.runs_topic}")
    kinds = coordination.checkpoint_prefix(name), coordination.result_prefix(name, coordination.PRODUCER)
    saved = topics.saved(kinds)
    of_states, of_results = ({key: saved[key] for key in saved if key.startswith(kind)} for kind in kinds)
    states, sent = coordination.checkpoints(of_states), coordination.results(of_results)
    notes, ended = found.oddities(set(sent), states.values(), options.wait_for)
    if not states:
        ended["no consumer saved anything"] = process.ExitCode.NO_MEASUREMENT
    for note in notes:
        process.log.warning("%s", note)
    results = [*sent.values(), *(state.result for state in states.values())]
    consumers = len(found.members(coordination.CONSUMER))
    return run.report_of(
        results, sources=[f"run {name}"], limits=options.fail_if, ended=ended, consumers_known=consumers,
        expect_ratio=options.expect_ratio, began_ms=found.first_ms,
    )  # fmt: skip


def compare_sides(words: Sequence[str]) -> int:
    """`PerfReport.py compare`: the stages in order; returns the exit code."""
    name, table = f"{Path(__file__).name} {COMPARE}", settings.COMPARE_OPTIONS
    parser = settings.parser(name, COMPARE_FIELDS, COMPARE_HELP, COMPARE_EXAMPLES, (), table=table)
    parser.usage = "%(prog)s [-h] [--html FILE] [--json FILE] [--fail-if LIMIT] BASE [BASE ...] -- NEW [NEW ...]"
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the base's runs, then -- and the new ones")
    arguments = parser.parse_intermixed_args([_AND if word == "--" else word for word in words])
    options = settings.load(arguments, COMPARE_FIELDS, table=table)
    base, new = _sides(arguments.runs)
    from perf import result, run
    from perf.compare import compare
    from perf.report.text import comparison_lines

    before, after = ([run.report_at(path) for path in side] for side in (base, new))
    comparison = compare(before, after, options.fail_if_change)
    output = process.Output(process.Stop())
    output.lines(comparison_lines(comparison))
    writes: list[Callable[[], object]] = []
    if (file := options.json) is not None:
        writes.append(lambda: result.write(file, comparison))
    if (page := options.html) is not None:
        from perf.report import html_compare

        writes.append(lambda: result.write_file(page, html_compare.page(comparison, before, after).encode()))
    written = process.written(*writes)
    return process.exit_code(process.Stop(), comparison.exit_code, written=written and not output.lost)


def _sides(words: Sequence[str]) -> tuple[list[Path], list[Path]]:
    at = words.index(_AND) if _AND in words else 0
    base, new = ([Path(word) for word in side] for side in (words[:at], words[at + 1 :]))
    if not base or not new:
        raise settings.SettingsError("compare takes the base's runs, then -- and the new runs")
    if len({path.resolve() for path in (*base, *new)}) != len(base) + len(new):
        raise settings.SettingsError("a run is given twice: it would be compared with itself")
    return base, new


def _writes(report: Report, options: Settings) -> Iterator[Callable[[], object]]:
    """What writes each of the files that are asked for."""
    from perf import result
    from perf.report import hdr, html

    if (file := options.json) is not None:
        yield lambda: result.write(file, report)
    if (page := options.html) is not None:
        yield lambda: result.write_file(page, html.page(report).encode())
    if (consumer := report.consumer) is not None:
        if (hgrm := options.hgrm) is not None:
            yield lambda: result.write_file(hgrm, hdr.percentiles(consumer).encode())
        if (hlog := options.hlog) is not None:
            yield lambda: result.write_file(hlog, hdr.log(consumer).encode())


if __name__ == "__main__":
    process.run(main)
