"""The sink `metrics`: counters, gauges and histograms from the fields of JSON records."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Self

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pydantic import Field, model_validator

import logfan
from logfan_sinks.formats import chunks
from logfan_sinks.metrics.definitions import Counter, Definition, Gauge, Histogram
from logfan_sinks.metrics.series import Series

_CHUNK_BYTES = 256 << 10


class MetricsSink(logfan.Sink):
    """Count and measure the fields of JSON records; shown at logfan's own /metrics."""

    class Config(logfan.SinkConfig):
        counters: tuple[Counter, ...] = ()
        """[[sinks.NAME.counters]]: name, help, labels, value."""
        gauges: tuple[Gauge, ...] = ()
        """[[sinks.NAME.gauges]]: name, help, labels, value."""
        histograms: tuple[Histogram, ...] = ()
        """[[sinks.NAME.histograms]]: name, help, labels, value, buckets."""
        max_series: Annotated[int, Field(ge=1, le=1_000_000)] = 500
        """Most combinations of labels for each metric; the rest is counted under `other`."""

        @model_validator(mode="after")
        def _distinct(self) -> Self:
            taken: set[str] = set()
            for definition in self.definitions():
                names = definition.shown_names
                if both := taken & names:
                    raise ValueError(f"defines the metric {min(both)!r} twice")
                taken |= names
            if not taken:
                raise ValueError("defines no metric; add [[sinks.NAME.counters]] or the like")
            return self

        def definitions(self) -> tuple[Definition, ...]:
            return (*self.counters, *self.gauges, *self.histograms)

    def open(self) -> None:
        """Show the metrics; what was counted before stays."""
        if self in _OWN_COUNTS.sinks:
            return
        self.metrics = [Series(d, self.config.max_series) for d in self.config.definitions()]
        self.not_json = 0
        self._collector = _SinkCollector(self.metrics)
        try:
            REGISTRY.register(self._collector)
        except ValueError as error:
            raise logfan.SinkUnavailable(f"a metric's name is taken: {error}") from None
        # Last, so that an open that failed is made anew and a close has nothing to undo.
        _OWN_COUNTS.sinks.append(self)

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Count them. Nothing in here can fail half way: what is odd is counted as skipped."""
        # What bodies become may be many times as large: no more of it is held than of one chunk.
        for chunk in chunks(records, _CHUNK_BYTES):
            self._count(chunk)

    def _count(self, records: Sequence[logfan.Record]) -> None:
        bodies = []
        for record in records:
            try:
                bodies.append(record.json())
            except ValueError:
                self.not_json += 1
                bodies.append(None)
        for metric in self.metrics:
            metric.take_all(records, bodies)

    def close(self) -> None:
        """Show them no longer."""
        if self in _OWN_COUNTS.sinks:
            _OWN_COUNTS.sinks.remove(self)
            REGISTRY.unregister(self._collector)

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """One name cannot be shown by two sinks."""
        first: dict[str, str] = {}
        wrong: dict[str, str] = {}
        for sink, config in configs.items():
            for definition in config.definitions():
                for name in sorted(definition.shown_names):
                    if first.setdefault(name, sink) != sink:
                        wrong.setdefault(
                            sink,
                            f"defines the metric {name!r}, which sinks.{first[name]} has already",
                        )
        return wrong


class _SinkCollector(Collector):
    """The metrics that one sink defines."""

    def __init__(self, metrics: Sequence[Series]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[Metric]:
        """The names alone, so that registering them finds a clash and needs no scrape."""
        return map(_family_of, self._metrics)

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            family = _family_of(metric)
            for labels, value in list(metric.values.items()):
                family.add_metric(labels, *_samples(metric, value))
            yield family


def _family_of(metric: Series) -> Any:
    definition = metric.definition
    help_text = definition.help or f"From the field {definition.value or '(records)'}"
    return _FAMILIES[type(definition)](definition.family, help_text, labels=list(definition.labels))


_FAMILIES = {
    Counter: CounterMetricFamily, Gauge: GaugeMetricFamily, Histogram: HistogramMetricFamily,
}  # fmt: skip


def _samples(metric: Series, value: Any) -> tuple[Any, ...]:
    """One series' value as its family takes it: a number, or buckets and their sum."""
    if not isinstance(metric.definition, Histogram):
        return (value,)
    total, *counts = value
    names = [*map(str, metric.definition.buckets), "+Inf"]
    return [*zip(names, accumulate(counts), strict=True)], total


_OWN_FAMILIES = (
    ("skipped", "Records without a usable number for a metric", ("sink", "metric")),
    ("overflowed", "Records counted under the label value `other`, beyond max_series",
     ("sink", "metric")),
    ("not_json", "Records whose body is not JSON", ("sink",)),
)  # fmt: skip


class _OwnCounts(Collector):
    """What all sinks of this kind count beside: one family each, with the sink's name as a label,
    as no family may be shown twice."""

    def __init__(self) -> None:
        self.sinks: list[MetricsSink] = []
        """Those that are open."""

    def describe(self) -> Iterator[Metric]:
        yield from ()  # the names of this package, which no other has

    def collect(self) -> Iterator[Metric]:
        sinks = self.sinks[:]
        if not sinks:
            return
        skipped, overflowed, not_json = (
            CounterMetricFamily(f"logfan_metrics_sink_{what}_records", meaning, labels=labels)
            for what, meaning, labels in _OWN_FAMILIES
        )
        for sink in sinks:
            for metric in sink.metrics:
                labels = [sink.name, metric.definition.family]
                skipped.add_metric(labels, metric.skipped)
                overflowed.add_metric(labels, metric.overflowed)
            not_json.add_metric([sink.name], sink.not_json)
        yield from (skipped, overflowed, not_json)


_OWN_COUNTS = _OwnCounts()
REGISTRY.register(_OWN_COUNTS)


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("metrics", MetricsSink)
