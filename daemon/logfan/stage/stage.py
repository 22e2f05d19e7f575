"""The stage before a sink: what it gets of the records, and how changed. Sans-I/O."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from logfan.record import Record, readable
from logfan.runtime.foreign_text import describe
from logfan.stage.redact import Redactor
from logfan.stage.sample import is_sampled
from logfan.stage.where import Where


class Staged(NamedTuple):
    """What a sink gets."""

    records: Sequence[Record]
    places: Sequence[int] | None
    """Where each stood among those that came; None where all of them stay."""
    undecided: int = 0
    """Of how many `where` could say nothing, as their body is no JSON, or `redact` see nothing, as
    it cannot be decompressed."""
    refused: Mapping[int, str] = MappingProxyType({})
    """Of which records a step failed, and why, by their places."""


UNSTAGED = Staged((), None)
"""In the place of an outcome where there is no stage."""


class Stage:
    """Chooses, samples and redacts, in this order. The same records give the same outcome."""

    def __init__(
        self,
        *,
        where: Where | None = None,
        keeps_undecided: bool = True,
        sample: float = 1.0,
        redactor: Redactor | None = None,
    ) -> None:
        self._where = where
        self._keeps_undecided = keeps_undecided
        self._sample = sample
        self._redactor = redactor

    def apply(self, records: Sequence[Record]) -> Staged:
        """Never raises: a record over which a step fails is refused."""
        try:
            return self._apply(records)
        except Exception:  # noqa: BLE001 - one by one, to find which it is
            return self._apply_each(records)

    def _apply_each(self, records: Sequence[Record]) -> Staged:
        kept: list[Record] = []
        places: list[int] = []
        refused: dict[int, str] = {}
        undecided = 0
        for place, record in enumerate(records):
            try:
                one = self._apply((record,))
            except Exception as error:  # noqa: BLE001 - whatever it is, the record is kept
                refused[place] = f"the stage before the sink failed: {describe(error)}"
                continue
            undecided += one.undecided
            if one.records:
                kept.append(one.records[0])
                places.append(place)
        return Staged(kept, places, undecided, refused)

    def _apply(self, records: Sequence[Record]) -> Staged:
        undecided = 0
        chosen: Sequence[int] = range(len(records))
        if self._where is not None:
            decisions = [*map(self._where.decide, records)]
            undecided = decisions.count(None)
            wanted = (True, None) if self._keeps_undecided else (True,)
            chosen = [place for place, decision in enumerate(decisions) if decision in wanted]
        if self._sample < 1.0:
            chosen = [place for place in chosen if self._is_sampled(records[place])]
        if self._redactor is not None:
            sealed = {place for place in chosen if readable(records[place]) is None}
            undecided += len(sealed)
            if sealed and not self._keeps_undecided:
                chosen = [place for place in chosen if place not in sealed]
        places = None if len(chosen) == len(records) else chosen
        kept = records if places is None else [records[place] for place in chosen]
        if self._redactor is not None:
            kept = [*map(self._redactor.apply, kept)]
        return Staged(kept, places, undecided)

    def _is_sampled(self, record: Record) -> bool:
        if self._where is not None and self._where.is_always(record):
            return True
        return is_sampled(record, self._sample)
