"""`--fail-if 'p99 > 250ms'` → a Limit; a Limit and what a run measured → an Outcome.

    limit    := metric (> | >= | < | <= | == | !=) quantity
    metric   := [stage] statistic | counter | one of _RATES      stage: delta if there is none
    quantity := number [unit] | [number *] metric                             unit: us, ms (or none), s, m; /s

White space and case do not matter, nor whether a name's words are joined by `_` or by blanks. A Distribution, a
counter or a dict of counters that a summary gets later is a metric without a line here.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import msgspec


class _Kind(NamedTuple):
    """What a metric counts: only like is compared with like."""

    shown_unit: str
    units: Mapping[str, str]
    takes: str


_TIME = _Kind(
    " ms",
    {"": "1", "us": "0.001", "ms": "1", "s": "1000", "m": "60000"},
    "a time such as 250ms (us, ms, s or m; a bare number is ms)",
)
_RATE = _Kind("/s", {"": "1", "/s": "1"}, "a rate such as 1000, 1000/s or 0.99*target")
_COUNT = _Kind("", {"": "1"}, "a whole number without a unit")

# named here are what later summaries will have; _kinds adds all that today's have
_STAGES = ("delta", "visible", "ack", "lateness")
_COUNTERS = (
    "lost",
    "unacknowledged",
    "duplicated",
    "out_of_order",
    "unique",
    "redelivered",
    "untraced",
    "unkept",
    "unexpected",
)
_RATES = {
    "rate": "send_rate_per_s",
    "target": "target_rate_per_s",
    "throughput": "throughput_per_s",
    **{name: f"{name}_per_s" for name in ("growth", "growth_low", "growth_high")},  # of the backlog
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

_ALLOWED = (
    "METRIC > VALUE in plain ASCII, such as 'p99 > 250ms', 'visible mean > 1s', 'lost > 0' or 'rate < 0.99*target'; "
    f"it compares with one of {' '.join(_COMPARISONS)}"
)
_MOST_CHARACTERS = 200  # so that no number overflows a float
_AROUND_SYMBOLS = re.compile(r" ?([<>=!*/]) ?")
_LIMIT = re.compile(r"([^<>=!]+)([<>]=?|[=!]=)([^<>=!]+)")
_LITERAL = re.compile(r"([0-9]*\.?[0-9]+) ?([a-z/]*)")
_NAMED = re.compile(r"(?:([0-9]*\.?[0-9]+)\*)?([a-z].*)")


@dataclass(frozen=True)
class Limit:
    """A condition that a good run does not meet.

    `quantity` is in ms, per second or a count; with a `reference`, the factor of that metric.
    """

    text: str
    metric: str
    comparison: str
    quantity: float
    reference: str | None
    unit: str

    def check(self, metrics: Mapping[str, float | None]) -> Outcome:
        """Judge what `metrics_of` gave.

        A metric that is absent, None, NaN or infinite cannot be judged and counts as exceeded: a limit that cannot fail
        would be worse than none.
        """
        names = [self.metric] if self.reference is None else [self.metric, self.reference]
        known = {name: value for name in names if (value := metrics.get(name)) is not None and math.isfinite(value)}
        if len(known) < len(set(names)):
            missing = ", ".join(
                f"{name} is n/a ({'no value' if name in metrics else 'not measured in this run'})"
                for name in names
                if name not in known
            )
            sentence = f"{self.text}: {missing}, which cannot be judged: exceeded"
            return Outcome(self, known.get(self.metric), True, sentence)
        actual = known[self.metric]
        bound = self.quantity if self.reference is None else self.quantity * known[self.reference]
        exceeded = _COMPARISONS[self.comparison](actual, bound)
        rounded = {name: round(value, 3) + 0 for name, value in known.items()}  # + 0: no -0
        other = self.quantity if self.reference is None else self.quantity * rounded[self.reference]
        if _COMPARISONS[self.comparison](rounded[self.metric], other) == exceeded:
            known = rounded  # else all digits, lest the sentence contradicts itself
        values = ", ".join(f"{name} is {str(value).removesuffix('.0')}{self.unit}" for name, value in known.items())
        return Outcome(self, actual, exceeded, f"{self.text}: {values}: {'exceeded' if exceeded else 'holds'}")


@dataclass(frozen=True)
class Outcome:
    """How a run stands to a limit. `actual` is the metric's value (ms, per second or a count), None where it is n/a."""

    limit: Limit
    actual: float | None
    exceeded: bool
    sentence: str


def parse(text: str) -> Limit:
    """The limit that `text` declares. Raises ValueError that says what is allowed."""
    words = " ".join(text.split())
    match = _LIMIT.fullmatch(_AROUND_SYMBOLS.sub(r"\1", words.lower()))
    if match is None or not text.isascii() or len(text) > _MOST_CHARACTERS:
        raise ValueError(_ALLOWED)
    metric, comparison, quantity = match.groups()
    metric = _as_named(metric)
    kind = _kind(metric)
    if named := _NAMED.fullmatch(quantity):
        value, reference = float(named[1]) if named[1] else 1, _as_named(named[2])
        allowed = _kind(reference) is kind
    else:
        value, reference = _literal(quantity, kind), None
        allowed = value >= 0
    if not allowed:
        raise ValueError(f"{kind.takes}, or a metric of the same kind, after '{metric} {comparison}'")
    return Limit(words, metric, comparison, value, reference, kind.shown_unit)


def metrics_of(summary: msgspec.Struct) -> dict[str, float | None]:
    """All that a limit can name in a ConsumerSummary or ProducerSummary: times in ms, rates per second, counts."""
    from .stats import Distribution

    fields = type(summary)
    metrics: dict[str, float | None] = {name: getattr(summary, name) for name in _fields(fields, int)}
    entries: dict[str, float | None] = {}
    for name in _fields(fields, dict[str, int]):
        counts = getattr(summary, name)
        metrics[name] = None if counts is None else sum(counts.values())
        entries |= counts or {}
    for name in _fields(fields, Distribution):
        distribution = getattr(summary, name)
        for statistic, field in _statistics().items():
            value = getattr(distribution, field, None)
            metrics |= dict.fromkeys(_names(name.removesuffix("_ms"), statistic), value)
    for name in summary.__struct_fields__:
        nested = getattr(summary, name)
        if isinstance(nested, msgspec.Struct) and not isinstance(nested, Distribution):
            metrics |= metrics_of(nested)
    metrics |= {name: getattr(summary, field) for name, field in _RATES.items() if hasattr(summary, field)}
    return entries | metrics


def _literal(text: str, kind: _Kind) -> float:
    """The quantity in ms, per second or as a count; -1 where it is not allowed."""
    match = _LITERAL.fullmatch(text)
    if match is None or match[2] not in kind.units or (kind is _COUNT and "." in text):
        return -1
    # in decimals, because 1.001 s are 1000.9999999999999 ms in floats
    return int(text) if kind is _COUNT else float(Decimal(match[1]) * Decimal(kind.units[match[2]]))


def _as_named(metric: str) -> str:
    """The metric's own name where it was written as the summary prints it: `out of order` for `out_of_order`."""
    return next((name for name in _kinds() if name.replace("_", " ") == metric), metric)


def _kind(name: str) -> _Kind:
    kinds = _kinds()
    if name in kinds:
        return kinds[name]
    nearest = difflib.get_close_matches(name, kinds, n=1)
    known = ", ".join(metric for metric in kinds if " " not in metric)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {known}, and before times {', '.join(_STAGES)}"
    raise ValueError(f"a known metric, and {name[:40]!r} is none: {hint}")


@cache
def _kinds() -> Mapping[str, _Kind]:
    """Every metric that a limit may name."""
    from .payload import Rejection
    from .stats import ConsumerSummary, Distribution, ProducerSummary

    stages, counters = [*_STAGES], [*_COUNTERS, *(reason.value for reason in Rejection)]
    for summary in (ConsumerSummary, ProducerSummary):
        stages += (name.removesuffix("_ms") for name in _fields(summary, Distribution))
        counters += _fields(summary, int) + _fields(summary, dict[str, int])
    times = [name for stage in stages for statistic in _statistics() for name in _names(stage, statistic)]
    return {
        **dict.fromkeys(times, _TIME),
        **dict.fromkeys(_RATES, _RATE),
        # a moment such as first_record_ms is neither a count nor a latency
        **{name: _COUNT for name in counters if not name.endswith("_ms")},
    }


def _statistics() -> Mapping[str, str]:
    """The statistics of a Distribution, and the field of each: p99.9 is p99_9."""
    from .stats import Distribution

    return {name.replace("_", "."): name for name in Distribution.__struct_fields__ if name != "count"}


def _names(stage: str, statistic: str) -> Iterable[str]:
    return (statistic, f"delta {statistic}") if stage == "delta" else (f"{stage} {statistic}",)


def _fields(summary: type[msgspec.Struct], wanted: Any) -> list[str]:
    """The fields of that type, or of that type or None."""
    return [name for name, hint in get_type_hints(summary).items() if hint in (wanted, wanted | None)]
