"""Limits: what parses and what does not, every comparison against Python's own, and no limit that holds by silence."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import measure

from perf import limits, stats
from perf.limits import Limit, metrics_of, parse
from perf.payload import Rejection
from perf.settings import SettingsError, checked
from perf.stats import ConsumerSummary, Distribution, Histogram, ProducerSummary, Statistics

STATISTICS = ("mean", "stdev", "min", "max", "p50", "p90", "p95", "p99", "p99.9", "p99.99")
STAGES = ("delta", "visible", "ack", "lateness")
LATER_COUNTERS = ("lost", "duplicated", "out_of_order", "unique", "redelivered")
COUNTERS = (
    *LATER_COUNTERS,
    *("messages_read", "measured", "not_measured", "negative", "messages", "acknowledged", "failed", "unknown"),
    *(reason.value for reason in Rejection),
)
MS_PER_UNIT = {"": Fraction(1), "us": Fraction(1, 1000), "ms": Fraction(1), "s": Fraction(1000), "m": Fraction(60_000)}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

comparisons = st.sampled_from(sorted(COMPARISONS))
blanks = st.sampled_from(["", " ", "  ", "\t", "\n "])
decimals = st.decimals(0, 10**6, places=3).map(lambda number: f"{number:f}") | st.integers(0, 10**9).map(str)
finite = st.floats(allow_nan=False, allow_infinity=False)
times = finite | st.integers(-10, 10**6).map(float)
metric_names = st.sampled_from([*STATISTICS, *COUNTERS, "rate", "target", "throughput", "visible p99", "lateness max"])
quantities = st.tuples(
    st.sampled_from(["", "5", "0.99", ".5", "0.99*", "-1", "1e9"]), metric_names | st.sampled_from(["s", "/s", ""])
)
near_limits = st.tuples(metric_names, comparisons, quantities.map("".join))
symbols = st.sampled_from(
    [*"*/%=-+.,()<>!", "nan", "inf", "\u00b2", "\u0663", "\u00a0", "\u017f", "\u212a", "\x00", "\ud800"]
)
pieces = st.lists(metric_names | comparisons | decimals | symbols, max_size=6)
texts = st.one_of(
    st.text(), pieces.map("".join), pieces.map(" ".join), near_limits.map(" ".join), near_limits.map("".join)
)


@pytest.mark.parametrize("name", sorted(limits._kinds()))
def test_a_metric_may_be_named_as_the_summary_prints_it(name: str) -> None:
    """Blanks do for underscores, so that what stands in a summary can be copied into a limit."""
    for text in (name, name.replace("_", " "), name.replace("_", " ").upper()):
        assert parse(f"{text} > 5").metric == name


class LaterSummary(ConsumerSummary, frozen=True, kw_only=True):
    """A consumer's summary with what later issues add to it."""

    visible_ms: Distribution
    clock_ms: Distribution | None = None
    lost: int
    redelivered: int | None = None
    retries: dict[str, int]
    errors: dict[str, int] | None = None
    rows: list[int]


def consumer_summary(*deltas_ms: int) -> ConsumerSummary:
    """What the consumer makes of these deltas, three messages without a stamp and two that are no JSON."""
    statistics = Statistics()
    measure(statistics, deltas_ms)
    for reason in [Rejection.NO_TIMESTAMP_START] * 3 + [Rejection.NOT_JSON] * 2:
        statistics.reject(reason)
    statistics.records([1_000, 3_000], [1, 2], size_bytes=2_000)
    return statistics.summary(elapsed_s=2.0)


def producer_summary(target_rate_per_s: float | None = 1000.0) -> ProducerSummary:
    """What a producer reports that was a little too slow and lost three messages."""
    lateness_us = Histogram()
    lateness_us.add([250, 500, 8_000])
    return ProducerSummary(
        not_sent=0,
        messages=100,
        acknowledged=96,
        failed={"_MSG_TIMED_OUT": 2, "MSG_SIZE_TOO_LARGE": 1},
        unknown=1,
        bytes=31_800,
        elapsed_s=0.2,
        send_elapsed_s=0.1,
        throughput_per_s=480.0,
        throughput_mb_per_s=0.15,
        send_rate_per_s=989.0,
        target_rate_per_s=target_rate_per_s,
        stamp="send",
        lateness_ms=lateness_us.distribution(divisor=1_000),
        ack_ms=Distribution(count=0),
    )


def refusal(text: str) -> str:
    """What parse() says against the text."""
    with pytest.raises(ValueError) as error:
        parse(text)
    return str(error.value)


# --------------------------------------------------------------------------------------------------------------- parse


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("p99 > 250ms", Limit("p99 > 250ms", "p99", ">", 250, None, " ms")),
        ("lost > 0", Limit("lost > 0", "lost", ">", 0, None, "")),
        ("mean > 1s", Limit("mean > 1s", "mean", ">", 1000, None, " ms")),
        ("rate < 0.99*target", Limit("rate < 0.99*target", "rate", "<", 0.99, "target", "/s")),
        ("visible p99 > 2s", Limit("visible p99 > 2s", "visible p99", ">", 2000, None, " ms")),
        ("lateness p99.9 > 5ms", Limit("lateness p99.9 > 5ms", "lateness p99.9", ">", 5, None, " ms")),
        ("p99>250", Limit("p99>250", "p99", ">", 250, None, " ms")),
        ("  ACK\t P99.99>=1.5 M\n", Limit("ACK P99.99>=1.5 M", "ack p99.99", ">=", 90_000, None, " ms")),
        ("Delta Max != 5us", Limit("Delta Max != 5us", "delta max", "!=", 0.005, None, " ms")),
        ("stdev <= .5 s", Limit("stdev <= .5 s", "stdev", "<=", 500, None, " ms")),
        ("throughput < 1000 / s", Limit("throughput < 1000 / s", "throughput", "<", 1000, None, "/s")),
        ("rate<0.5", Limit("rate<0.5", "rate", "<", 0.5, None, "/s")),
        ("unique == 100000", Limit("unique == 100000", "unique", "==", 100_000, None, "")),
        ("measured < messages_read", Limit("measured < messages_read", "measured", "<", 1, "messages_read", "")),
        ("lost > 0.01 * unique", Limit("lost > 0.01 * unique", "lost", ">", 0.01, "unique", "")),
        ("p99 > 3*delta p50", Limit("p99 > 3*delta p50", "p99", ">", 3, "delta p50", " ms")),
        ("visible p99 > p99", Limit("visible p99 > p99", "visible p99", ">", 1, "p99", " ms")),
    ],
)
def test_a_limit_is_read_as_it_is_meant(text: str, limit: Limit) -> None:
    """Stage, statistic, comparison, unit, factor and reference arrive; white space and case do not matter."""
    assert parse(text) == limit


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("stage", ["", *STAGES])
def test_every_stage_has_every_statistic(stage: str, statistic: str) -> None:
    """Also those of stages that no summary has yet."""
    assert parse(f"{stage} {statistic} > 1").metric == f"{stage} {statistic}".strip()


@pytest.mark.parametrize("counter", COUNTERS)
def test_every_counter_can_be_limited(counter: str) -> None:
    """Those of today's summaries, each reason of a message that was not measured, and those to come."""
    assert parse(f"{counter} > 0").metric == counter


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "p99", "p99 >", "> 250ms", ">", "p99 250ms", "p99 = 250ms", "p99 ! 1", "p99 <> 1", "p99 > > 1"),
        *("1 < p99 < 2", "p99 > 1; lost > 0 ", "p99 > 1" + " " * 5_000, "p99 > " + "9" * 5_000, "p" * 5_000 + " > 1"),
        *("p99 > \u0662\u0665ms", "p99 > 250\u00b5s", "p99\u00a0> 250ms", "p99 \u2265 1", "ac\u212a p99 > 1", "\ud800"),
    ],
)
def test_what_is_no_limit_is_told_what_one_looks_like(text: str) -> None:
    """The refusal shows a limit of each sort and all comparisons."""
    message = refusal(text)
    assert all(example in message for example in ("p99 > 250ms", "lost > 0", "0.99*target", *COMPARISONS))
    assert len(message) < 300


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("p99 > -1", "a time such as 250ms"),
        ("p99 > 250 parsecs", "a time such as 250ms"),
        ("p99 > 250/s", "a time such as 250ms"),
        ("p99 > 2h", "a time such as 250ms"),
        ("p99 > 1e3", "a time such as 250ms"),
        ("p99 > 1e400", "a time such as 250ms"),
        ("p99 > 1.2.3", "a time such as 250ms"),
        ("p99 > 1 0", "a time such as 250ms"),
        ("p99 > 5%", "a time such as 250ms"),
        ("p99 > 0.9*target", "a metric of the same kind"),
        ("p99 > lost", "a metric of the same kind"),
        ("p99 > -1*p50", "a metric of the same kind"),
        ("rate < 10ms", "a rate such as 1000"),
        ("rate < 10/m", "a rate such as 1000"),
        ("rate < p99", "a rate such as 1000"),
        ("lost > 0.5", "a whole number"),
        ("lost > 1.0", "a whole number"),
        ("lost > 1ms", "a whole number"),
        ("lost > 1/s", "a whole number"),
        ("lost > -1", "a whole number"),
        ("lost > rate", "a whole number"),
    ],
)
def test_a_quantity_that_does_not_fit_its_metric_is_refused(text: str, allowed: str) -> None:
    """Times have units, rates none or /s, counters are whole, none is negative, and only like is compared with like."""
    assert allowed in refusal(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("p999 > 1", "p99.9"),
        ("p98 > 1", "p99"),
        ("p99_9 > 1", "p99.9"),
        ("maen > 1s", "mean"),
        ("lsot > 0", "lost"),
        ("out-of-order > 0", "out_of_order"),
        ("duplicates > 0", "duplicated"),
        ("visibel p99 > 1s", "visible p99"),
        ("latness p99.9 > 5ms", "lateness p99.9"),
        ("rate < 0.99*taget", "target"),
        ("rate < target*0.99", "target"),
    ],
)
def test_a_misspelt_metric_is_told_the_nearest(text: str, nearest: str) -> None:
    """On either side of the comparison."""
    assert f"did you mean '{nearest}'?" in refusal(text)


@pytest.mark.parametrize("text", ["zzz > 1", "q" * 190 + " > 1", "p99 > nan", "p99 > infinity", "_msg_timed_out > 0"])
def test_an_unknown_metric_is_told_all_that_there_are(text: str) -> None:
    """Where nothing is near; NaN and infinity are no numbers here. Moments are no metrics."""
    message = refusal(text)
    assert all(name in message for name in (*STATISTICS, *STAGES, *COUNTERS, "rate", "target", "throughput"))
    assert "record_ms" not in message
    assert "q" * 41 not in message


def test_the_refusal_reads_well_behind_a_flag() -> None:
    """settings.checked() puts its own words before it."""
    with pytest.raises(SettingsError) as error:
        checked("--fail-if", "p98 > 1s", parse)
    assert str(error.value) == (
        "--fail-if: p98 > 1s is not allowed: it takes a known metric, and 'p98' is none: did you mean 'p99'?"
    )


@given(texts)
@example("p99 > " + "9" * 190 + "m")
@example("lost > " + "9" * 190)
@example("p99 > ." + "0" * 180 + "1us")
def test_any_text_parses_or_raises_value_error(text: str) -> None:
    """Never another exception or a number that is not finite; and what parses can be judged, read and parsed again."""
    try:
        limit = parse(text)
    except ValueError as error:
        assert 0 < len(str(error)) < 1_500
        return
    assert math.isfinite(limit.quantity)
    assert limit.quantity >= 0
    assert parse(limit.text) == limit
    assert limit.check({}).exceeded
    assert limit.check({limit.metric: 3.5, limit.reference or "": 2}).sentence.isprintable()


# --------------------------------------------------------------------------------------------------------------- check


@given(times, decimals, st.sampled_from(sorted(MS_PER_UNIT)), comparisons, st.tuples(blanks, blanks, blanks))
@example(1001.0, "1.001", "s", ">", ("", "", ""))
@example(0.3, "300", "us", "==", ("", "", ""))
@example(4.1, "4100", "us", ">", ("", "", ""))
def test_a_time_is_compared_as_python_compares(
    actual: float, number: str, unit: str, comparison: str, blank: tuple[str, str, str]
) -> None:
    """In whichever unit the limit is; 1.001 s are exactly 1001 ms."""
    bound_ms = float(Fraction(number) * MS_PER_UNIT[unit])
    text = f"P99{blank[0]}{comparison}{blank[1]}{number}{blank[2]}{unit}"
    outcome = parse(text).check({"p99": actual, "p50": 0.0})
    assert outcome.exceeded is COMPARISONS[comparison](actual, bound_ms)
    assert outcome.actual == actual


@given(st.integers(0, 2**63), st.integers(0, 2**63), comparisons)
@example(2**53 + 1, 2**53, ">")
@example(2**53, 2**53 + 1, "<")
def test_a_counter_is_compared_exactly(actual: int, bound: int, comparison: str) -> None:
    """Also where floats have no room for the difference, with a number as with another counter."""
    exceeded = COMPARISONS[comparison](actual, bound)
    assert parse(f"lost {comparison} {bound}").check({"lost": actual}).exceeded is exceeded
    assert parse(f"lost {comparison} unique").check({"lost": actual, "unique": bound}).exceeded is exceeded


@given(finite, finite, decimals, comparisons)
def test_a_factor_multiplies_its_metric(actual: float, target: float, factor: str, comparison: str) -> None:
    """As in 0.99*target."""
    outcome = parse(f"rate {comparison} {factor}*target").check({"rate": actual, "target": target})
    assert outcome.exceeded is COMPARISONS[comparison](actual, float(factor) * target)
    assert outcome.actual == actual


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("p99 > 250ms", "p99 > 250ms: p99 is 312 ms: exceeded"),
        ("p99  >  0.5s", "p99 > 0.5s: p99 is 312 ms: holds"),
        ("Mean > 100ms", "Mean > 100ms: mean is 100.0000001 ms: exceeded"),
        ("lost > 0", "lost > 0: lost is 0: holds"),
        ("rate < 0.99*target", "rate < 0.99*target: rate is 989.5/s, target is 1000/s: exceeded"),
        ("rate < 1000 / s", "rate < 1000 / s: rate is 989.5/s: exceeded"),
        ("p99 == p99", "p99 == p99: p99 is 312 ms: exceeded"),
        ("p50 > 1s", "p50 > 1s: p50 is n/a (no value), which cannot be judged: exceeded"),
        ("ack p99 < 1s", "ack p99 < 1s: ack p99 is n/a (not measured in this run), which cannot be judged: exceeded"),
        ("max > 1s", "max > 1s: max is n/a (no value), which cannot be judged: exceeded"),
    ],
)
def test_the_sentence_names_the_limit_the_value_and_the_verdict(text: str, sentence: str) -> None:
    """With the unit, and all the digits that the verdict rests on."""
    metrics = {
        "p99": 312.0,
        "mean": 100.0000001,
        "lost": 0,
        "rate": 989.5,
        "target": 1000.0,
        "p50": None,
        "max": math.nan,
    }
    outcome = parse(text).check(metrics)
    assert outcome.sentence == sentence
    assert outcome.exceeded is sentence.endswith(": exceeded")
    assert outcome.limit == parse(text)


@pytest.mark.parametrize(
    ("text", "growth", "shown"),
    [("growth > 100", 100.26251058, "100.263"), ("growth >= 100", 99.99999, "99.99999"), ("growth > 5", -0.0002, "0")],
)
def test_a_rate_has_three_decimals_where_that_says_the_same(text: str, growth: float, shown: str) -> None:
    """And no minus before a 0; where the rounded value would contradict the verdict, all digits."""
    assert f": growth is {shown}/s: " in parse(text).check({"growth": growth}).sentence


@given(st.sampled_from([None, math.nan, math.inf, -math.inf, "absent"]), comparisons, st.booleans(), st.booleans())
def test_what_is_not_available_counts_as_exceeded(
    nothing: float | str | None, comparison: str, as_reference: bool, also_other: bool
) -> None:
    """Whichever the comparison, on either side of it, with the reason in the sentence; and no value is made up."""
    missing, other = ("target", "rate") if as_reference else ("rate", "target")
    metrics: dict[str, float | None] = {other: 1000.0} if also_other else {}
    if not isinstance(nothing, str):
        metrics[missing] = nothing
    outcome = parse(f"rate {comparison} 0.99*target").check(metrics)
    assert outcome.exceeded
    assert f"{missing} is n/a" in outcome.sentence
    assert (f"{other} is n/a" in outcome.sentence) is not also_other
    assert outcome.actual == (1000.0 if as_reference and also_other else None)


# ---------------------------------------------------------------------------------------------------------- metrics_of


@given(st.lists(st.integers(-50, 10**6), max_size=50))
def test_a_consumers_metrics_are_its_summary(deltas_ms: list[int]) -> None:
    """Every statistic with and without its stage, every counter, each reason and their sum, and the throughput."""
    summary = consumer_summary(*deltas_ms)
    metrics = metrics_of(summary)
    for statistic in STATISTICS:
        expected = getattr(summary.delta_ms, statistic.replace(".", "_"))
        assert metrics[statistic] == metrics[f"delta {statistic}"] == expected
    assert metrics["max"] == max(deltas_ms, default=None)
    assert metrics["measured"] == len(deltas_ms)
    assert metrics["messages_read"] == len(deltas_ms) + 5
    assert metrics["negative"] == sum(delta < 0 for delta in deltas_ms)
    assert (metrics["not_measured"], metrics["no_timestamp_start"], metrics["not_json"], metrics["empty"]) == (
        5,
        3,
        2,
        0,
    )
    assert (metrics["timestamp_types"], metrics["CreateTime"], metrics["LogAppendTime"]) == (2, 1, 1)
    assert metrics["throughput"] == summary.throughput_per_s
    assert not {"rate", "target", "lateness p99"} & metrics.keys()


def test_a_producers_metrics_are_its_summary() -> None:
    """Lateness, counters, failures by name and in sum, and the rates under their short names."""
    metrics = metrics_of(producer_summary())
    assert (metrics["lateness min"], metrics["lateness p50"], metrics["lateness p99.9"]) == (0.25, 0.5, 8.0)
    assert (metrics["messages"], metrics["acknowledged"], metrics["unknown"], metrics["bytes"]) == (100, 96, 1, 31_800)
    assert (metrics["failed"], metrics["_MSG_TIMED_OUT"], metrics["MSG_SIZE_TOO_LARGE"]) == (3, 2, 1)
    assert (metrics["rate"], metrics["target"], metrics["throughput"]) == (989.0, 1000.0, 480.0)
    assert not {"p99", "delta p99", "measured", "lateness count"} & metrics.keys()
    assert metrics_of(producer_summary(target_rate_per_s=None)).get("target", "absent") is None


def test_an_entry_never_hides_a_counter() -> None:
    """An error that is called as a field of the summary leaves the field's value alone."""
    summary = producer_summary()
    summary.failed.update(acknowledged=7, rate=7)
    metrics = metrics_of(summary)
    assert (metrics["acknowledged"], metrics["rate"], metrics["failed"]) == (96, 989.0, 17)


def test_later_fields_are_metrics_without_a_line() -> None:
    """Distributions, counters and dicts of counters, also those that may be None; other fields are left alone."""
    today = consumer_summary(3)
    fields = {name: getattr(today, name) for name in today.__struct_fields__}
    summary = LaterSummary(
        **{**fields, "visible_ms": Distribution(count=1, p99=2100.0)},
        lost=4,
        retries={"unique": 9, "duplicated": 2},
        rows=[1],
    )
    metrics = metrics_of(summary)
    assert metrics["visible p99"] == 2100.0
    assert (metrics["lost"], metrics["unique"], metrics["duplicated"], metrics["retries"]) == (4, 9, 2, 11)
    assert metrics["p99"] == 3
    assert "rows" not in metrics
    for nothing in ("visible p50", "clock p99", "redelivered", "errors"):
        assert metrics[nothing] is None
    assert parse("visible p99 > 2s").check(metrics).exceeded
    assert parse("redelivered > 0").check(metrics).exceeded


def test_later_fields_can_be_limited_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that parse() knows come from the summaries."""
    refused = ("clock p99 > 1ms", "retries > 0", "errors > 0")
    assert all(refusal(text) for text in refused)
    monkeypatch.setattr(stats, "ConsumerSummary", LaterSummary)
    limits._kinds.cache_clear()
    try:
        assert [parse(text).text for text in refused] == list(refused)
    finally:
        limits._kinds.cache_clear()


@pytest.mark.parametrize("summary", [consumer_summary(1, 2, 300), consumer_summary(), producer_summary()])
def test_every_metric_of_a_summary_can_be_limited(summary: ConsumerSummary | ProducerSummary) -> None:
    """All but moments and the names that the cluster gives (errors, types of timestamps), which only count in sum."""
    given_names = {"CreateTime", "LogAppendTime", "_MSG_TIMED_OUT", "MSG_SIZE_TOO_LARGE"}
    for name in metrics_of(summary).keys() - given_names - {"first_record_ms", "last_record_ms"}:
        assert parse(f"{name} > 1").metric == name


def test_limits_on_real_summaries() -> None:
    """From text and summary to the verdict."""
    consumer, producer = metrics_of(consumer_summary(10, 20, 312)), metrics_of(producer_summary())
    verdicts = {
        text: parse(text).check(metrics).exceeded
        for text, metrics in (
            ("p99 > 250ms", consumer),
            ("p99 > 0.4s", consumer),
            ("delta mean == 114", consumer),
            ("not_measured > 5", consumer),
            ("no_timestamp_start >= 3", consumer),
            ("visible p99 > 2s", consumer),
            ("lateness p99.9 > 5ms", producer),
            ("lateness p99.9 > 8000us", producer),
            ("rate < 0.99*target", producer),
            ("rate < 0.98*target", producer),
            ("failed > 0.04 * messages", producer),
            ("rate < 0.5*target", metrics_of(producer_summary(target_rate_per_s=None))),
        )
    }
    exceeded = [text for text, verdict in verdicts.items() if verdict]
    assert exceeded == [
        *("p99 > 250ms", "delta mean == 114", "no_timestamp_start >= 3", "visible p99 > 2s"),
        *("lateness p99.9 > 5ms", "rate < 0.99*target", "rate < 0.5*target"),
    ]
