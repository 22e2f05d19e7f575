"""The values of one metric by their labels, counted by the batch. Sans-I/O."""

import math
from bisect import bisect_left, bisect_right
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import repeat
from typing import Any

import logfan
from logfan_sinks.metrics.definitions import Counter, Definition, Gauge, Histogram

OTHER = "other"
_LABEL_LENGTH = 200
# Equal values of these kinds have equal texts, which 1, 1.0 and true have not.
_KINDS_OF_LABEL = frozenset((str, int, type(None)))
_KINDS_OF_NUMBER = frozenset((int, float))

Labels = tuple[str, ...]


class Series:
    """One metric's values by their labels. Written by the sink's thread, read by a scrape."""

    def __init__(self, definition: Definition, maximum: int) -> None:
        self.definition = definition
        self.values: dict[Labels, Any] = {}
        self.skipped = 0
        """Records without a usable number."""
        self.overflowed = 0
        """Records counted under `other`."""
        self._maximum = maximum
        self._fields = [*map(logfan.field, definition.labels.values())]
        self._value = None if definition.value is None else logfan.field(definition.value)
        self._bounds = definition.buckets if isinstance(definition, Histogram) else ()
        self._other: Labels = (OTHER,) * len(self._fields)

    def take_all(self, records: Sequence[logfan.Record], bodies: Sequence[Any]) -> None:
        """Count several records, whose parsed bodies these are; None is one that is not JSON.

        Most batches are plain: names and whole numbers as labels, numbers as values. Those are
        counted by columns; any other is taken record by record, with the same outcome.
        """
        if not records:
            return
        labels = [field.column(records, bodies) for field in self._fields]
        numbers = None if self._value is None else self._value.column(records, bodies)
        if not (
            all(_KINDS_OF_LABEL.issuperset(map(type, column)) for column in labels)
            and (numbers is None or _are_plain(numbers))
        ):
            rows: Iterable[Sequence[Any]] = zip(*labels, strict=True) if labels else repeat(())
            for row, number in zip(rows, numbers or repeat(1, len(records)), strict=False):
                self._take(row, number)
            return
        if numbers is None:
            counts = Tally(zip(*labels, strict=True)) if labels else {(): len(records)}
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

    def _take(self, labels: Sequence[Any], value: Any) -> None:
        number = _number(value)
        if number is None or (number < 0 and isinstance(self.definition, Counter)):
            self.skipped += 1
        else:
            self._put(self._labels(labels), (number,))

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


def _are_plain(numbers: Sequence[Any]) -> bool:
    """Whether all of them are finite numbers that no definition skips."""
    if not _KINDS_OF_NUMBER.issuperset(map(type, numbers)):
        return False
    try:
        # The sum, as NaN is neither the least nor the most of numbers.
        return min(numbers) >= 0 and math.isfinite(sum(numbers))
    except OverflowError:
        return False


def _number(value: Any) -> float | None:
    """A finite number, also where it is written as a string; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
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
    if not isinstance(value, str | int):
        if isinstance(value, Mapping | list | tuple):
            return "(nested)"
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
    # Lone surrogates cannot be exposed as UTF-8.
    return str(value)[:_LABEL_LENGTH].encode("utf-8", "replace").decode()
