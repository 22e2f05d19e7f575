"""The sink `metrics`: counters, gauges and histograms from the fields of JSON records."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
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
from logfan_sinks.metrics.definitions import Counter, Definition, Gauge, Histogram
from logfan_sinks.metrics.series import Series

_BODY = attrgetter("body")
_CHUNK_BYTES = 256 << 10
_UNREADABLE = logfan.Record(b"", "", "", False, 0.0, logfan.Properties())
"""In the place of a body that cannot be decoded: no JSON."""


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
        decode: bool = False
        """Undo the content_encoding (gzip, zstd) of bodies first; what cannot be decoded, or would
        be larger than 64 MiB or (beyond 1 MiB) 200 times its size, counts as no JSON."""

        @model_validator(mode="after")
        def _distinct(self) -> Self:
            taken: set[str] = set()
            for definition in self.definitions():
                names = _shown_names(definition)
                if both := taken & names:
                    raise ValueError(f"defines the metric {min(both)!r} twice")
                taken |= names
            if not taken:
                raise ValueError("defines no metric; add [[sinks.NAME.counters]] or the like")
            return self

        def definitions(self) -> tuple[Definition, ...]:
            """All metrics."""
            return (*self.counters, *self.gauges, *self.histograms)

    def open(self) -> None:
        """Show the metrics; what was counted before stays."""
        if not hasattr(self, "_metrics"):
            maximum = self.config.max_series
            metrics = [Series(d, maximum) for d in self.config.definitions()]
            self._not_json = 0
            self._collector = _SinkCollector(metrics)
            try:
                REGISTRY.register(self._collector)
            except ValueError as error:
                raise logfan.SinkUnavailable(f"a metric's name is taken: {error}") from None
            # Last, so that an open that failed is made anew and a close has nothing to undo.
            self._metrics = metrics
            _OWN.add(self.name, metrics, lambda: self._not_json)

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Count them. Nothing in here can fail half way: what is odd is counted as skipped."""
        if not self.config.decode and sum(map(len, map(_BODY, records))) <= _CHUNK_BYTES:
            self._count(records)
            return
        # What bodies become may be many times as large: no more of it is held than of one chunk.
        chunk: list[logfan.Record] = []
        size = 0
        for record in records:
            seen = self._readable(record) if self.config.decode else record
            if chunk and size + seen.size > _CHUNK_BYTES:
                self._count(chunk)
                chunk, size = [], 0
            chunk.append(seen)
            size += seen.size
        self._count(chunk)

    def _count(self, records: Sequence[logfan.Record]) -> None:
        bodies = []
        for record in records:
            try:
                bodies.append(record.json())
            except ValueError:
                self._not_json += 1
                bodies.append(None)
        for metric in self._metrics:
            metric.take_all(bodies)

    def _readable(self, record: logfan.Record) -> logfan.Record:
        try:
            return record.decoded()
        except ValueError:
            return _UNREADABLE

    def close(self) -> None:
        """Show them no longer."""
        if hasattr(self, "_metrics"):
            REGISTRY.unregister(self._collector)
            _OWN.remove(self._metrics)

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """One name cannot be shown by two sinks."""
        first: dict[str, str] = {}
        wrong: dict[str, str] = {}
        for sink, config in configs.items():
            for definition in config.definitions():
                for name in sorted(_shown_names(definition)):
                    if first.setdefault(name, sink) != sink:
                        wrong.setdefault(
                            sink,
                            f"defines the metric {name!r}, which sinks.{first[name]} has already",
                        )
        return wrong


class _SinkCollector(Collector):
    """What one sink was told to show."""

    def __init__(self, metrics: Sequence[Series]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[Metric]:
        """The names alone, so that registering them finds a clash and needs no scrape."""
        for metric in self._metrics:
            yield _exposed(metric.definition)

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            yield _expose(metric)


class _OwnCounts(Collector):
    """What all sinks of this kind count beside: one family each, with the sink's name as a label,
    as no family may be shown twice."""

    def __init__(self) -> None:
        self._sinks: list[tuple[str, Sequence[Series], Callable[[], int]]] = []
        self._registered = False

    def add(self, sink: str, metrics: Sequence[Series], not_json: Callable[[], int]) -> None:
        """Show these from now on."""
        with _LOCK:
            self._sinks = [*self._sinks, (sink, metrics, not_json)]
            if not self._registered:
                self._registered = True
                REGISTRY.register(self)

    def remove(self, metrics: Sequence[Series]) -> None:
        """Show them no longer."""
        with _LOCK:
            self._sinks = [one for one in self._sinks if one[1] is not metrics]

    def describe(self) -> Iterator[Metric]:
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        sinks = self._sinks
        if not sinks:
            return
        skipped, overflowed, no_json = self._families()
        for sink, metrics, not_json in sinks:
            for metric in metrics:
                name = _family(metric.definition)
                skipped.add_metric([sink, name], metric.skipped)
                overflowed.add_metric([sink, name], metric.overflowed)
            no_json.add_metric([sink], not_json())
        yield from (skipped, overflowed, no_json)

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, CounterMetricFamily, CounterMetricFamily]:
        return (
            CounterMetricFamily(
                "logfan_metrics_sink_skipped_records",
                "Records without a usable number for a metric",
                labels=["sink", "metric"],
            ),
            CounterMetricFamily(
                "logfan_metrics_sink_overflowed_records",
                "Records counted under the label value `other`, beyond max_series",
                labels=["sink", "metric"],
            ),
            CounterMetricFamily(
                "logfan_metrics_sink_not_json_records",
                "Records whose body is not JSON",
                labels=["sink"],
            ),
        )


_LOCK = threading.Lock()
_OWN = _OwnCounts()


def _family(definition: Definition) -> str:
    """The family's name: a counter's is without `_total`, as in the OpenMetrics text."""
    if isinstance(definition, Counter):
        return definition.name.removesuffix("_total")
    return definition.name


def _shown_names(definition: Definition) -> set[str]:
    """The family's name and those of its samples: no other metric may have one of them."""
    endings = {
        Counter: ("_total", "_created"), Gauge: (),
        Histogram: ("_bucket", "_sum", "_count", "_created"),
    }  # fmt: skip
    family = _family(definition)
    return {family, *(family + ending for ending in endings[type(definition)])}


def _exposed(definition: Definition) -> Any:
    families = {
        Counter: CounterMetricFamily, Gauge: GaugeMetricFamily, Histogram: HistogramMetricFamily,
    }  # fmt: skip
    words = definition.help or f"From the field {definition.value or '(records)'}"
    return families[type(definition)](_family(definition), words, labels=list(definition.labels))


def _expose(metric: Series) -> Metric:
    family = _exposed(metric.definition)
    for labels, value in list(metric.values.items()):
        if not isinstance(metric.definition, Histogram):
            family.add_metric(labels, value)
            continue
        total, counts = value[0], list(value[1:])
        buckets, cumulative = [], 0
        for bound, count in zip((*metric.definition.buckets, math.inf), counts, strict=True):
            cumulative += count
            buckets.append(("+Inf" if bound == math.inf else str(bound), cumulative))
        family.add_metric(labels, buckets, total)
    result: Metric = family
    return result


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    """The kind `metrics`."""
    register("metrics", MetricsSink)
