"""The sink `metrics`: fields of JSON records as counters, gauges and histograms."""

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, generate_latest

from logfan import SinkUnavailable
from logfan.testing import record
from logfan_sinks.metrics import MetricsSink
from logfan_sinks.metrics.definitions import Counter, Gauge, Histogram
from logfan_sinks.metrics.series import Series
from support.opener import opener

Open = Callable[..., MetricsSink]


@pytest.fixture
def opened() -> Iterator[Open]:
    with opener(MetricsSink, "m") as opened:
        yield opened


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_a_counter_counts_records_by_label(opened: Open) -> None:
    sink = opened(counters=[{"name": "seen", "labels": {"level": "level"}}])
    sink.write([record({"level": "info"})] * 3 + [record({"level": "error"}), record({})])
    assert value("seen_total", level="info") == 3
    assert value("seen_total", level="error") == 1
    assert value("seen_total", level="") == 1


def test_a_counter_adds_a_field_and_passes_over_what_is_no_number(opened: Open) -> None:
    sink = opened(counters=[{"name": "bytes_total", "value": "request.size"}])
    sizes = [10, 2.5, "7", -1, None, True, "x", float("1e308") * 10, {"a": 1}]
    sink.write([record(b'{"request": {"size": NaN}}')])
    sink.write([record({"request": {"size": size}}) for size in sizes])
    assert value("bytes_total") == 19.5
    assert value("logfan_metrics_sink_skipped_records_total", sink="m", metric="bytes") == 7
    assert value("logfan_metrics_sink_not_json_records_total", sink="m") == 0


def test_labels_come_from_any_field(opened: Open) -> None:
    labels = {
        "level": "level", "key": "routing_key", "host": "headers.host", "kind": "type",
        "city": "user.geo.city", "region": "log.region",
    }  # fmt: skip
    sink = opened(counters=[{"name": "any_field", "labels": labels}])
    body = {"user": {"geo.city": "Bern"}, "log.region": "eu"}
    sink.write([
        record({**body, "level": "ERROR"}, routing_key="a", headers={"host": "w1"}, type="order"),
        record({**body, "level": 50, "type": "b"}, routing_key="a", headers={"host": b"w1"}),
        record("2026-11-26 00:13:53,181 CRITICAL down", routing_key="a.b"),
        record("plain", routing_key="kern.warn", headers={"host": ("a",)}),
        record(b"torn", routing_key="z", headers={"level": "warn"}, content_encoding="gzip"),
    ])  # fmt: skip
    where = {"city": "Bern", "region": "eu", "key": "a", "host": "w1", "level": "error"}
    assert value("any_field_total", **where, kind="order") == 1
    assert value("any_field_total", **where, kind="b") == 1
    none = dict.fromkeys(("city", "region", "kind", "host"), "")
    assert value("any_field_total", **none, level="critical", key="a.b") == 1
    nested = none | {"host": "(nested)"}
    assert value("any_field_total", **nested, level="warning", key="kern.warn") == 1
    assert value("any_field_total", **none, level="warning", key="z") == 1


def test_a_value_comes_from_any_field(opened: Open) -> None:
    sink = opened(
        counters=[{"name": "body_bytes", "value": "size"}, {"name": "m", "value": "headers.m"}]
    )
    sink.write([record("abc"), record({}, headers={"m": Decimal("2.5")}), record("")])
    assert value("body_bytes_total") == 5
    assert value("m_total") == 2.5


def test_a_number_that_is_none_spoils_no_other(opened: Open) -> None:
    nan = math.nan
    sink = opened(
        counters=[{"name": "taken_seconds", "value": "headers.took"}],
        gauges=[{"name": "took_last", "value": "headers.took"}],
        histograms=[{"name": "took", "value": "headers.took", "buckets": [1.0]}],
    )
    for numbers in ([1.0, nan, 2.0], [0.5, nan], [nan, 0.5], [1e308, 1e308, nan, -math.inf]):
        sink.write([record({}, headers={"took": number}) for number in numbers])
    assert value("took_last") == 1e308
    assert value("took_bucket", le="1.0") == 3
    assert value("took_count") == 6
    assert value("logfan_metrics_sink_skipped_records_total", sink="m", metric="took") == 5
    total = value("taken_seconds_total")
    assert total is not None
    assert not math.isnan(total)


def test_a_gauge_shows_the_last_value(opened: Open) -> None:
    sink = opened(gauges=[{"name": "depth", "value": "list.1"}])
    sink.write([record({"list": [0, n]}) for n in (5, 3)])
    assert value("depth") == 3


def test_a_histogram_counts_into_its_buckets(opened: Open) -> None:
    sink = opened(histograms=[{"name": "took", "value": "ms", "buckets": [10, 100]}])
    sink.write([record({"ms": ms}) for ms in (5, 10, 50, 1000)])
    assert [value("took_bucket", le=le) for le in ("10.0", "100.0", "+Inf")] == [2, 3, 4]
    assert value("took_sum") == 1065
    assert value("took_count") == 4


def test_series_are_capped_and_the_rest_counts_as_other(opened: Open) -> None:
    sink = opened(counters=[{"name": "by_user", "labels": {"user": "user"}}], max_series=10)
    sink.write([record({"user": f"u{n}"}) for n in range(100)])
    sink.write([record({"user": "u3"})])
    assert value("by_user_total", user="u3") == 2
    assert value("by_user_total", user="other") == 90
    assert value("logfan_metrics_sink_overflowed_records_total", sink="m", metric="by_user") == 90
    shown = generate_latest(REGISTRY).decode()
    assert shown.count("by_user_total{") == 11


def test_sinks_whose_names_are_nearly_one_show_each_family_once() -> None:
    sinks: list[MetricsSink] = []
    for name in ("a-b", "a_b"):
        counter = {"name": f"near_{len(sinks)}", "value": "n"}
        sinks.append(
            MetricsSink(MetricsSink.Config.model_validate({"counters": [counter]}), name=name)
        )
        sinks[-1].open()
        sinks[-1].write([record({"n": "no number"})] * len(sinks) + [record(b"no JSON")])
    shown = generate_latest(REGISTRY).decode()
    try:
        for family in ("skipped", "overflowed", "not_json"):
            assert shown.count(f"# TYPE logfan_metrics_sink_{family}_records_total counter") == 1
        for name, at in (("a-b", 0), ("a_b", 1)):
            labels = {"sink": name, "metric": f"near_{at}"}
            assert value("logfan_metrics_sink_skipped_records_total", **labels) == at + 2
            assert value("logfan_metrics_sink_not_json_records_total", sink=name) == 1
    finally:
        for sink in sinks:
            sink.close()
    assert "logfan_metrics_sink" not in generate_latest(REGISTRY).decode()


def test_what_was_counted_stays_when_it_is_opened_again(opened: Open) -> None:
    sink = opened(counters=[{"name": "kept"}])
    sink.write([record({})])
    sink.open()
    sink.write([record({})])
    assert value("kept_total") == 2


def test_a_wild_label_value_is_made_harmless(opened: Open) -> None:
    sink = opened(counters=[{"name": "wild", "labels": {"v": "v"}}])
    sink.write([record({"v": "x" * 1000}), record({"v": '"\n\\'}), record({"v": [1]})])
    shown = generate_latest(REGISTRY).decode()
    assert f'wild_total{{v="{"x" * 200}"}} 1.0' in shown
    assert 'wild_total{v="\\"\\n\\\\"} 1.0' in shown
    assert 'wild_total{v="(nested)"} 1.0' in shown


def test_a_name_that_is_taken_holds_the_sink_until_it_is_free(opened: Open) -> None:
    first = MetricsSink(MetricsSink.Config.model_validate({"counters": [{"name": "one"}]}))
    first.open()
    second = MetricsSink(first.config, name="second")
    with pytest.raises(SinkUnavailable, match="name is taken"):
        second.open()
    second.close()
    first.close()
    second.open()
    second.write([record({})])
    try:
        assert value("one_total") == 1
    finally:
        second.close()


def counter(**more: Any) -> dict[str, Any]:
    return {"counters": [{"name": "x", **more}]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "defines no metric"),
        (counter(name="9x"), "pattern"),
        (counter(name="logfan_x"), "begins with logfan_"),
        (counter(labels={"le": "a"}), "keeps for itself"),
        (counter(labels={"__x": "a"}), "keeps for itself"),
        (counter(labels={"a-b": "a"}), "pattern"),
        (counter(value="a..b"), "names with dots"),
        (counter(labels={"a": "properties.nope"}), "there is no property"),
        (counter(valeu="a"), "Extra inputs"),
        ({"gauges": [{"name": "x"}]}, "Field required"),
        ({"histograms": [{"name": "x", "value": "v", "buckets": [2, 1]}]}, "larger than the one"),
        ({"histograms": [{"name": "x", "value": "v", "buckets": [1, 1]}]}, "larger than the one"),
        ({"histograms": [{"name": "x", "value": "v", "buckets": []}]}, "larger than the one"),
        ({"counters": [{"name": "x"}, {"name": "x_total"}]}, "'x' twice"),
        (counter() | {"gauges": [{"name": "x_total", "value": "v"}]}, "'x_total' twice"),
        (counter() | {"max_series": 0}, "greater than or equal to 1"),
    ],
)
def test_a_fault_in_the_definitions_is_found_offline(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MetricsSink.Config.model_validate(options)


def test_two_sinks_cannot_show_one_name() -> None:
    configs = {
        "a": MetricsSink.Config.model_validate(counter()),
        "b": MetricsSink.Config.model_validate({"gauges": [{"name": "x_total", "value": "v"}]}),
        "c": MetricsSink.Config.model_validate(counter(name="y")),
    }
    assert MetricsSink.conflicts(configs) == {
        "b": "defines the metric 'x_total', which sinks.a has already"
    }


ODD = st.one_of(
    st.none(), st.booleans(), st.sampled_from([0, 1, 2, 1.0, -1, 2**70, "1", "", "a", "true"]),
    st.floats(), st.lists(st.integers(0, 1), max_size=2), st.dictionaries(st.just("x"), st.just(1)),
)  # fmt: skip
PLAIN = st.fixed_dictionaries({
    "a": st.sampled_from("xyz"), "b": st.integers(0, 2),
    "n": st.integers(0, 9) | st.floats(0, 9) | st.just(math.nan),
    "o": st.fixed_dictionaries({"k": st.sampled_from("vw")}, optional={"k.l": st.just("x")}),
})  # fmt: skip
NEARLY = st.fixed_dictionaries({
    "a": st.sampled_from([1, True, 1.0, "1"]), "b": st.just("k"), "n": st.sampled_from([-1, 0, 1]),
})  # fmt: skip
ANY = (
    st.fixed_dictionaries({}, optional={"a": ODD, "b": ODD, "n": ODD, "o.k": ODD})
    | PLAIN
    | NEARLY
    | ODD
)
BODIES = st.lists(PLAIN, max_size=30) | st.lists(NEARLY, max_size=5) | st.lists(ANY, max_size=30)


def are_close(together: Any, alone: Any, scale: float) -> bool:
    """Whether numbers, or lists and dicts of them, are the same but for rounding: from Python 3.12
    on `sum` rounds once. `scale`: the size of what was added up."""
    if isinstance(together, dict):
        same = list(together) == list(alone)
        return same and are_close([*together.values()], [*alone.values()], scale)
    if isinstance(together, list):
        pairs = zip(together, alone, strict=True)
        return all(are_close(one, other, scale) for one, other in pairs)
    if math.isnan(together):
        return math.isnan(alone)
    return math.isclose(together, alone, rel_tol=0.0, abs_tol=scale * 1e-12)


def size_of_numbers(batches: list[Any]) -> float:
    numbers = (body.get("n") for bodies in batches for body in bodies if isinstance(body, dict))
    return sum(abs(float(n)) for n in numbers if isinstance(n, int | float) and math.isfinite(n))


EMPTY = record(b"")
OVERFLOWING = [{"a": name, "b": 0, "n": number} for number, name in enumerate("xyyzyx")]


@given(st.lists(BODIES, max_size=3), st.sampled_from([1, 2, 100]))
@example([OVERFLOWING, OVERFLOWING], 1)
def test_a_batch_is_counted_as_its_records_one_by_one(batches: list[Any], maximum: int) -> None:
    labels = {"a": "a", "b": "b"}
    for definition in (
        Counter(name="c", labels=labels), Counter(name="c", value="n"),
        Counter(name="c"), Gauge(name="g", value="n", labels={"a": "a"}),
        Histogram(name="h", value="n", labels={"a": "x.0"}),
        Counter(name="c", labels={"k": "o.k", "l": "o.k.l"}),
        Gauge(name="g", value="n", labels={"k": "o.k"}),
        Histogram(name="h", value="n", labels=labels, buckets=(1.0, 2.0)),
    ):  # fmt: skip
        together = Series(definition, maximum)
        alone = Series(definition, maximum)
        for bodies in batches:
            together.take_all([EMPTY] * len(bodies), bodies)
            for body in bodies:
                alone._take(
                    [field.walk(body) for field in alone._fields if field.walk],
                    alone._value.walk(body) if alone._value and alone._value.walk else 1,
                )
        assert are_close(together.values, alone.values, size_of_numbers(batches))
        assert (together.skipped, together.overflowed) == (alone.skipped, alone.overflowed)
