"""The sink `metrics`: counters, gauges and histograms from the fields of JSON records."""

import math
from bisect import bisect_left, bisect_right
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Annotated, Any, Self

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pydantic import AfterValidator, Field, StringConstraints, model_validator

import logfan
from logfan_sinks.paths import dotted

OTHER = "other"
_LABEL_LENGTH = 200
_RESERVED = ("logfan_", "process_", "python_", "scrape_")
# Equal values of these kinds have equal texts, which 1, 1.0 and true have not.
_KINDS_OF_LABEL = frozenset((str, int, type(None)))
_KINDS_OF_NUMBER = frozenset((int, float))
_DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def _name(name: str) -> str:
    if name.startswith(_RESERVED):
        raise ValueError(f"begins with {name.partition('_')[0]}_, which others use; choose another")
    return name


def _label(name: str) -> str:
    if name.startswith("__") or name in ("le", "quantile"):
        raise ValueError("is a label name that Prometheus keeps for itself")
    return name


def _dotted(path: str) -> str:
    if not all(path.split(".")):
        raise ValueError('must be names with dots between them, such as "request.duration"')
    return path


def _rising(bounds: tuple[float, ...]) -> tuple[float, ...]:
    finite = all(math.isfinite(bound) for bound in bounds)
    if not bounds or not finite or any(a >= b for a, b in pairwise(bounds)):
        raise ValueError("must be finite numbers, each larger than the one before")
    return bounds


DottedPath = Annotated[str, AfterValidator(_dotted)]
MetricName = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"), AfterValidator(_name)
]
LabelName = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$"), AfterValidator(_label)
]


class Counter(logfan.SinkConfig):
    """One of `counters`."""

    name: MetricName
    """The metric's name; `_total` is appended where it is missing."""
    help: str = ""
    """What it counts, for people."""
    labels: dict[LabelName, DottedPath] = Field(default_factory=dict)
    """{ LABEL = "dotted.path" }"""
    value: DottedPath | None = None
    """The number to add; without it records are counted."""


class Gauge(logfan.SinkConfig):
    """One of `gauges`: the last value seen."""

    name: MetricName
    """The metric's name."""
    help: str = ""
    """What it shows, for people."""
    labels: dict[LabelName, DottedPath] = Field(default_factory=dict)
    """{ LABEL = "dotted.path" }"""
    value: DottedPath
    """The number to show."""


class Histogram(logfan.SinkConfig):
    """One of `histograms`."""

    name: MetricName
    """The metric's name."""
    help: str = ""
    """What it measures, for people."""
    labels: dict[LabelName, DottedPath] = Field(default_factory=dict)
    """{ LABEL = "dotted.path" }"""
    value: DottedPath
    """The number to observe."""
    buckets: Annotated[tuple[float, ...], AfterValidator(_rising)] = _DEFAULT_BUCKETS
    """Upper bounds, rising, without infinity."""


Definition = Counter | Gauge | Histogram
Labels = tuple[str, ...]


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
            metrics = [_Series(d, maximum) for d in self.config.definitions()]
            self._not_json = 0
            self._collector = _SinkCollector(self.name, metrics, lambda: self._not_json)
            try:
                REGISTRY.register(self._collector)
            except ValueError as error:
                raise logfan.SinkUnavailable(f"a metric's name is taken: {error}") from None
            # Last, so that an open that failed is made anew and a close has nothing to undo.
            self._metrics = metrics

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Count them. Nothing in here can fail half way: what is odd is counted as skipped."""
        decode = self.config.decode
        bodies = []
        for record in records:
            try:
                bodies.append((record.decoded() if decode else record).json())
            except ValueError:
                self._not_json += 1
                bodies.append(None)
        for metric in self._metrics:
            metric.take_all(bodies)

    def close(self) -> None:
        """Show them no longer."""
        if hasattr(self, "_metrics"):
            REGISTRY.unregister(self._collector)

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


class _Series:
    """One metric's values by their labels. Written by the sink's thread, read by a scrape."""

    def __init__(self, definition: Definition, maximum: int) -> None:
        self.definition = definition
        self.values: dict[Labels, Any] = {}
        self.skipped = 0
        """Records without a usable number."""
        self.overflowed = 0
        """Records counted under `other`."""
        self._maximum = maximum
        self._paths = tuple(definition.labels.values())
        self._bounds = definition.buckets if isinstance(definition, Histogram) else ()
        self._other: Labels = (OTHER,) * len(self._paths)

    def take_all(self, bodies: Sequence[Any]) -> None:
        """Count several records; None is a body that is not JSON.

        Most batches are plain: names and whole numbers as labels, numbers as values. Those are
        counted by columns; any other is taken record by record, with the same outcome.
        """
        if not bodies:
            return
        definition = self.definition
        labels = [_column(bodies, path) for path in self._paths]
        numbers = None if definition.value is None else _column(bodies, definition.value)
        if not (
            all(_KINDS_OF_LABEL.issuperset(map(type, column)) for column in labels)
            and (numbers is None or _are_plain(numbers))
        ):
            for body in bodies:
                self.take(body)
            return
        if numbers is None:
            counts = Tally(zip(*labels, strict=True)) if labels else {(): len(bodies)}
            for key, count in counts.items():
                self._put(self._labels(key, count), (count,))
        elif not labels:
            self._put(self._labels(()), numbers)
        else:
            self._take_each(zip(*labels, strict=True), numbers)

    def _take_each(self, keys: Iterable[Sequence[Any]], numbers: Sequence[float]) -> None:
        """Numbers for several series: the first of each by itself, which makes the series, and
        the others together."""
        groups: dict[Labels, list[float]] = {}
        known: dict[Sequence[Any], list[float]] = {}
        for key, number in zip(keys, numbers, strict=True):
            group = known.get(key)
            if group is not None:
                group.append(number)
                continue
            series = self._labels(key)
            if series in groups:
                groups[series].append(number)
            else:
                self._put(series, (number,))
            if series != self._other:  # what overflows is counted one by one, in order
                known[key] = groups.setdefault(series, [])
        for series, rest in groups.items():
            if rest:
                self._put(series, rest)

    def take(self, body: Any) -> None:
        """Count one record."""
        definition = self.definition
        number = 1.0
        if definition.value is not None:
            found = _number(dotted(body, definition.value))
            if found is None or (found < 0 and isinstance(definition, Counter)):
                self.skipped += 1
                return
            number = found
        self._put(self._labels([dotted(body, path) for path in self._paths]), (number,))

    def _put(self, labels: Labels, numbers: Sequence[float]) -> None:
        """Numbers for one series, in order."""
        definition = self.definition
        if isinstance(definition, Counter):
            self.values[labels] = sum(numbers, self.values.get(labels, 0.0))
        elif isinstance(definition, Gauge):
            self.values[labels] = float(numbers[-1])
        else:
            self._observe(labels, numbers)

    def _labels(self, found: Iterable[Any], count: int = 1) -> Labels:
        """The series for `count` records in which these values were found."""
        labels = tuple([_label_value(value) for value in found])
        if labels in self.values or len(self.values) < self._maximum:
            return labels
        self.overflowed += count
        return self._other

    def _observe(self, labels: Labels, numbers: Sequence[float]) -> None:
        counts = self.values.get(labels)
        if counts is None:
            counts = self.values[labels] = [0.0, *[0] * (len(self._bounds) + 1)]
        counts[0] = sum(numbers, counts[0])
        bounds = self._bounds
        if len(numbers) < len(bounds):
            for number in numbers:
                counts[1 + bisect_left(bounds, number)] += 1
            return
        ordered, before = sorted(numbers), 0
        for at, bound in enumerate(bounds, 1):
            until = bisect_right(ordered, bound)
            counts[at] += until - before
            before = until
        counts[-1] += len(ordered) - before


class _SinkCollector(Collector):
    def __init__(self, sink: str, metrics: Sequence[_Series], not_json: Callable[[], int]) -> None:
        self._sink = sink
        self._metrics = metrics
        self._not_json = not_json

    def describe(self) -> Iterator[Metric]:
        """The names alone, so that registering them finds a clash and needs no scrape."""
        for metric in self._metrics:
            yield _exposed(metric.definition)

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            yield _expose(metric)
        # The sink's own counts are families of their own name for each sink: two sinks of this
        # kind may not show one family twice.
        label = self._sink.replace("-", "_")
        skipped = CounterMetricFamily(
            f"logfan_metrics_sink_{label}_skipped_records",
            "Records without a usable number for a metric",
            labels=["metric"],
        )
        overflowed = CounterMetricFamily(
            f"logfan_metrics_sink_{label}_overflowed_records",
            "Records counted under the label value `other`, beyond max_series",
            labels=["metric"],
        )
        for metric in self._metrics:
            skipped.add_metric([_family(metric.definition)], metric.skipped)
            overflowed.add_metric([_family(metric.definition)], metric.overflowed)
        yield skipped
        yield overflowed
        yield CounterMetricFamily(
            f"logfan_metrics_sink_{label}_not_json_records",
            "Records whose body is not JSON",
            float(self._not_json()),
        )


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


def _expose(metric: _Series) -> Metric:
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


def _column(bodies: Sequence[Any], path: str) -> list[Any]:
    """What stands at the path in each body."""
    values: Iterable[Any] = bodies
    try:  # most batches are alike, and then this does not leave C
        for part in path.split("."):
            values = map(itemgetter(part), values)
        found = [*values]
    except (KeyError, TypeError):
        pass  # one of them has no such key, or is no object
    else:
        return found
    if "." in path:
        return [dotted(body, path) for body in bodies]
    return [body.get(path) if type(body) is dict else dotted(body, path) for body in bodies]


def _are_plain(numbers: Sequence[Any]) -> bool:
    """Whether all of them are finite numbers that no definition skips."""
    if not _KINDS_OF_NUMBER.issuperset(map(type, numbers)):
        return False
    try:
        return min(numbers) >= 0 and math.isfinite(float(max(numbers)))
    except OverflowError:
        return False


def _number(value: Any) -> float | None:
    """A finite number, also where it is written as a string; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _label_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "(nested)"
    # Lone surrogates cannot be exposed as UTF-8.
    return str(value)[:_LABEL_LENGTH].encode("utf-8", "replace").decode()


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    """The kind `metrics`."""
    register("metrics", MetricsSink)
