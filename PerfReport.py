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
    outcome = min((code for code in outcomes if code), default=0)
    return process.exit_code(process.Stop(), outcome, written=not output.lost)


def _ledger(producers: Sequence[ProducerResult], consumers: Sequence[ConsumerResult]) -> LedgerCounts | None:
    """What became of the marked messages; None where nothing was traced."""
    from perf import result
    from perf.trace import Ledger, Origin, origin_of

    ledgers = [result.ledger_of(consumer) for consumer in consumers]
    traced = [ledger for ledger in ledgers if ledger is not None]
    if not traced:
        return None
    total = Ledger()
    for ledger in traced:
        total.merge(ledger)
    expected: dict[Origin, int] = {}
    for producer in producers:
        for text, count in producer.marked.items():
            origin = origin_of(text)
            if origin is not None:
                expected[origin] = expected.get(origin, 0) + count
    return total.counts(expected if producers else None)


def _outcome(whole: ConsumerResult | ProducerResult, several: Sequence[ConsumerResult | ProducerResult]) -> int:
    """4 where not all was acknowledged or a producer ended so, 5 where the whole is no valid measurement; else 0."""
    from perf.result import ProducerResult

    if isinstance(whole, ProducerResult):
        complete = whole.summary.acknowledged == whole.summary.messages
        ended = process.ExitCode.NOT_ACKNOWLEDGED in (one.exit_code for one in several)
        return process.ExitCode.NOT_ACKNOWLEDGED if ended or not complete else process.ExitCode.DONE
    return process.ExitCode.DONE if whole.summary.is_valid else process.ExitCode.NO_MEASUREMENT


def _several(name: str, count: int) -> str:
    return f"the {name}" if count == 1 else f"{count} {name}s"


if __name__ == "__main__":
    process.run(main)
