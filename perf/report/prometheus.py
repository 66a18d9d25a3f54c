"""A snapshot → Prometheus metric families. Names, units and meanings: docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from ..live import Snapshot
from ..stats import Tally
from ..trace import LedgerCounts

PREFIX = "kafka_performance_"
_MS_PER_S, _US_PER_S = 1_000, 1_000_000
_STEPS = (1, 2, 3, 5, 7)
#: Upper bounds of histograms in milliseconds, to a quarter of an hour and more; 0 has the negative deltas, too.
_BOUNDS_MS = (0, *(step * 10**power for power in range(6) for step in _STEPS), 1_000_000)
_BOUNDS_US = (100, 200, 500, *(bound * 1_000 for bound in _BOUNDS_MS[1:]))


class Described(NamedTuple):
    """A metric: its name without prefix, a counter's without `_total` either; its meaning; its label if it has one."""

    name: str
    meaning: str
    label: str = ""


#: A field of a snapshot's counters → its metric, by script.
COUNTERS: Mapping[str, Mapping[str, Described]] = {
    "consumer": {
        "messages_read": Described("messages_read", "messages read"),
        "measured": Described("messages_measured", "messages read of which the delta was taken"),
        "not_measured": Described("messages_not_measured", "messages read that gave no delta, by reason", "reason"),
        "negative": Described("negative_deltas", "deltas below 0"),
        "timestamp_types": Described("record_timestamps", "messages by who stamped them", "type"),
        "bytes": Described("read_bytes", "size of the values of the messages read, without warm-up"),
        "ledger": Described("marks", "with --trace: what became of marked messages", "outcome"),
    },
    "producer": {
        "messages": Described("messages_sent", "messages handed over to the Kafka client"),
        "acknowledged": Described("messages_acknowledged", "messages that Kafka confirmed"),
        "failed": Described("messages_failed", "messages that were refused, by error", "error"),
        "unknown": Described("messages_unknown", "messages that got no answer; known when the client gives up"),
        "not_sent": Described("messages_not_sent", "messages that were due but not sent, at the end"),
        "bytes": Described("sent_bytes", "size of the values of the messages sent"),
    },
}
#: A histogram of a snapshot → its metric.
HISTOGRAMS: Mapping[str, Mapping[str, Described]] = {
    "consumer": {
        "delta_ms": Described("delta_seconds", "the measurement: from timestamp_start to the result's Kafka timestamp"),
        "visible_ms": Described("visible_seconds", "from timestamp_start to the moment of receiving"),
        "append_to_visible_ms": Described("append_to_visible_seconds", "from the result's stamp to receiving it"),
    },
    "producer": {
        "lateness_us": Described("lateness_seconds", "with --rate: how late messages were sent"),
        "ack_us": Described("ack_seconds", "with --rate: from sending to Kafka's acknowledgement"),
    },
}
#: A histogram of a snapshot → the counter of what its sum leaves out: Prometheus takes a sum that falls for a restart.
BELOW_ZERO: Mapping[str, Mapping[str, Described]] = {
    "consumer": {
        "delta_ms": Described(
            "delta_below_zero_seconds", "size of the deltas below 0, which delta_seconds_sum leaves out"
        ),
        "visible_ms": Described("visible_below_zero_seconds", "the same for visible_seconds_sum"),
        "append_to_visible_ms": Described(
            "append_to_visible_below_zero_seconds", "the same for append_to_visible_seconds_sum"
        ),
    },
    "producer": {},
}
#: A gauge of a snapshot → its metric.
GAUGES: Mapping[str, Mapping[str, Described]] = {
    "consumer": {
        "lag": Described("lag_messages", "messages between this consumer and the end of its partitions"),
        "last_record_s": Described("last_record_timestamp_seconds", "the latest Kafka timestamp, since 1970"),
        "clock_offset_s": Described("clock_offset_seconds", "a broker's clock minus ours", "broker"),
        "clock_bound_s": Described("clock_offset_bound_seconds", "the offset is true within so much", "broker"),
    },
    "producer": {
        "in_flight": Described("in_flight_messages", "messages sent that have no answer yet"),
        "target_rate_per_s": Described("target_messages_per_second", "with --rate: the rate that was asked for"),
    },
}


def families(role: str, snapshot: Snapshot, information: Mapping[str, str]) -> Iterator[Metric]:
    """The metric families of a "consumer" or "producer". What is unknown has no series."""
    yield InfoMetricFamily(PREFIX.rstrip("_"), "what this process is", value=dict(information))
    for field, found in COUNTERS[role].items():
        counts = snapshot.counters.get(field)
        if counts is not None:
            yield _filled(CounterMetricFamily(**_arguments(role, found)), counts)
    for field, found in GAUGES[role].items():
        value = snapshot.gauges.get(field)
        if value is not None:
            yield _filled(GaugeMetricFamily(**_arguments(role, found)), value)
    for field, found in HISTOGRAMS[role].items():
        if field in snapshot.tallies:
            yield _histogram(HistogramMetricFamily(**_arguments(role, found)), field, snapshot.tallies[field])
    for field, found in BELOW_ZERO[role].items():
        if field in snapshot.tallies:
            yield _filled(
                CounterMetricFamily(**_arguments(role, found)), snapshot.tallies[field].below_zero / _MS_PER_S
            )


def _arguments(role: str, found: Described) -> dict[str, Any]:
    labels = [found.label] if found.label else []
    return {"name": f"{PREFIX}{role}_{found.name}", "documentation": found.meaning, "labels": labels}


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: float | Mapping[str, float] | LedgerCounts
) -> CounterMetricFamily | GaugeMetricFamily:
    if isinstance(values, LedgerCounts):
        values = {name: count for name, count in msgspec.structs.asdict(values).items() if count is not None}
    if isinstance(values, Mapping):
        for label, value in values.items():
            family.add_metric([label], value)
    else:
        family.add_metric([], values)
    return family


def _histogram(family: HistogramMetricFamily, field: str, tally: Tally) -> HistogramMetricFamily:
    per_s, bounds = (_US_PER_S, _BOUNDS_US) if field.endswith("_us") else (_MS_PER_S, _BOUNDS_MS)
    buckets = [(str(bound / per_s), float(count)) for bound, count in zip(bounds, tally.at_most(bounds), strict=True)]
    family.add_metric([], [*buckets, ("+Inf", float(tally.samples))], (tally.sum + tally.below_zero) / per_s)
    return family
