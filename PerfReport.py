#!/usr/bin/env python3
"""Merge the results of a run's processes into one report: what was sent, what was measured, what was lost.

Lost messages are judged here, where the marks of all producers and the ledgers of all consumers (--trace) meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perf import process, settings

if TYPE_CHECKING:
    from perf.result import ConsumerResult, ProducerResult
    from perf.trace import LedgerCounts

FIELDS = ("fail_if",)
EXAMPLES = """\
  ./PerfReport.py producer.json consumer.json
  ./PerfReport.py results/*.json --fail-if 'lost > 0' --fail-if 'p99 > 250ms'
"""


def main() -> int:
    """The stages in order; returns the exit code."""
    parser = settings.parser(__file__, FIELDS, __doc__, EXAMPLES, ())
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="files written with --result")
    arguments = parser.parse_args()
    options = settings.load(arguments, FIELDS)
    from perf import result
    from perf.limits import metrics_of
    from perf.report.text import limit_lines, summary_lines
    from perf.result import ConsumerResult, ProducerResult

    if len({path.resolve() for path in arguments.results}) != len(arguments.results):
        raise settings.SettingsError("a result file is given twice: all it counts would be counted twice")
    found = [result.read(path) for path in arguments.results]
    producers = [one for one in found if isinstance(one, ProducerResult)]
    consumers = [one for one in found if isinstance(one, ConsumerResult)]
    output, outcomes = process.Output(process.Stop()), [0]
    metrics: dict[str, float | None] = {}
    for name, several in (("producer", producers), ("consumer", consumers)):
        if several:
            whole = result.merged(several)
            output.lines(
                summary_lines(f"Summary of {_several(name, len(several))}, topic {whole.topic}", whole.summary)
            )
            metrics |= metrics_of(whole.summary)
            outcomes.append(_outcome(whole, several))
    counts = _ledger(producers, consumers)
    if counts is not None:
        output.lines(summary_lines("Ledger: messages marked by producers, found by consumers", counts))
        metrics |= metrics_of(counts)
        if counts.untraced and not counts.unique:
            process.log.warning("no result carries a mark: does the operator copy the field, header or key of --trace?")
    checked = [limit.check(metrics) for limit in options.fail_if]
    output.lines(limit_lines(checked))
    outcomes.append(process.ExitCode.LIMIT_EXCEEDED if any(one.exceeded for one in checked) else 0)
    return process.exit_code(process.Stop(), process.first_of(outcomes), written=not output.lost)


def _ledger(producers: Sequence[ProducerResult], consumers: Sequence[ConsumerResult]) -> LedgerCounts | None:
    """What became of the marked messages; None where nothing was traced."""
    from perf import result
    from perf.trace import Origin, origin_of

    total = result.ledgers_of(consumers)
    if total is None:
        return None
    expected: dict[Origin, int] = {}
    for producer in producers:
        for text, count in producer.marked.items():
            origin = origin_of(text)
            if origin is not None:
                expected[origin] = expected.get(origin, 0) + count
    return total.counts(expected if producers else None, result.ledgers_of(producers))


def _outcome(whole: ConsumerResult | ProducerResult, several: Sequence[ConsumerResult | ProducerResult]) -> int:
    """The exit code of the whole: the lowest that a process ended with, signals and what is judged anew aside."""
    from perf.result import ProducerResult

    codes = {one.exit_code for one in several if 0 < one.exit_code < process.SIGNALLED}
    if isinstance(whole, ProducerResult):
        if whole.summary.acknowledged != whole.summary.messages:
            codes.add(process.ExitCode.NOT_ACKNOWLEDGED)
    else:
        codes.discard(process.ExitCode.NO_MEASUREMENT)  # a consumer without messages does no harm to the others'
        if not whole.summary.is_valid:
            codes.add(process.ExitCode.NO_MEASUREMENT)
    for one in several:
        if one.exit_code in codes:
            kind = "producer" if isinstance(one, ProducerResult) else "consumer"
            process.log.warning(
                "the %s on %s, topic %s, ended with exit code %d", kind, one.host, one.topic, one.exit_code
            )
    return process.first_of(codes)


def _several(name: str, count: int) -> str:
    return f"the {name}" if count == 1 else f"{count} {name}s"


if __name__ == "__main__":
    process.run(main)
