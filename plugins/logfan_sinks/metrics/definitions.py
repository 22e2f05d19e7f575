"""What the sink `metrics` shows: counters, gauges and histograms. Sans-I/O."""

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

import logfan

_RESERVED = ("logfan_", "process_", "python_", "scrape_")
_DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def _name(name: str) -> str:
    if name.startswith(_RESERVED):
        raise ValueError(f"begins with {name.partition('_')[0]}_, which others use; choose another")
    return name


def _label(name: str) -> str:
    if name.startswith("__") or name in ("le", "quantile"):
        raise ValueError("is a label name that Prometheus keeps for itself")
    return name


def _field(name: str) -> str:
    if not all(name.split(".")):
        raise ValueError('must be names with dots between them, such as "request.duration"')
    logfan.field(name)
    return name


def _rising(bounds: tuple[float, ...]) -> tuple[float, ...]:
    finite = all(math.isfinite(bound) for bound in bounds)
    if not bounds or not finite or any(a >= b for a, b in pairwise(bounds)):
        raise ValueError("must be finite numbers, each larger than the one before")
    return bounds


FieldName = Annotated[str, AfterValidator(_field)]
MetricName = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"), AfterValidator(_name)
]
LabelName = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$"), AfterValidator(_label)
]


class _Metric(logfan.SinkConfig):
    """What all definitions have."""

    name: MetricName
    """The metric's name."""
    help: str = ""
    """What it shows, for people."""
    labels: dict[LabelName, FieldName] = Field(default_factory=dict)
    """{ LABEL = "FIELD" }: a dotted path into a JSON body, `level`, `routing_key`, `headers.NAME`
    or any other field."""

    _endings: ClassVar[tuple[str, ...]] = ()
    """Of the names of its samples."""

    @property
    def family(self) -> str:
        """The family's name: a counter's is without `_total`, as in the OpenMetrics text."""
        return self.name

    @property
    def shown_names(self) -> set[str]:
        """The family's name and those of its samples: no other metric may have one of them."""
        return {self.family, *(self.family + ending for ending in self._endings)}


class Counter(_Metric):
    """One of `counters`."""

    name: MetricName
    """The metric's name; `_total` is appended where it is missing."""
    value: FieldName | None = None
    """The number to add; without it records are counted."""

    _endings: ClassVar[tuple[str, ...]] = ("_total", "_created")

    @property
    def family(self) -> str:
        return self.name.removesuffix("_total")


class Gauge(_Metric):
    """One of `gauges`: the last value seen."""

    value: FieldName
    """The number to show."""


class Histogram(_Metric):
    """One of `histograms`."""

    value: FieldName
    """The number to observe."""
    buckets: Annotated[tuple[float, ...], AfterValidator(_rising)] = _DEFAULT_BUCKETS
    """Upper bounds, rising, without infinity."""

    _endings: ClassVar[tuple[str, ...]] = ("_bucket", "_sum", "_count", "_created")


Definition = Counter | Gauge | Histogram
