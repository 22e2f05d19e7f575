"""The stage before a sink: what it gets of the records, and how changed. Sans-I/O."""

from collections.abc import Sequence
from typing import NamedTuple

from logfan.record import Record
from logfan.stage.redact import Redactor
from logfan.stage.sample import is_sampled
from logfan.stage.where import Where


class Staged(NamedTuple):
    """What a sink gets."""

    records: Sequence[Record]
    places: Sequence[int] | None
    """Where each stood among those that came; None where all of them stay."""
    undecided: int
    """Of how many `where` could say nothing, as their body is no JSON."""


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
        """Never raises for what a message holds."""
        undecided = 0
        chosen: Sequence[int] = range(len(records))
        if self._where is not None:
            decisions = [*map(self._where.decide, records)]
            undecided = decisions.count(None)
            wanted = (True, None) if self._keeps_undecided else (True,)
            chosen = [place for place, decision in enumerate(decisions) if decision in wanted]
        if self._sample < 1.0:
            chosen = [place for place in chosen if self._is_sampled(records[place])]
        places = None if len(chosen) == len(records) else chosen
        kept = records if places is None else [records[place] for place in chosen]
        if self._redactor is not None:
            kept = [*map(self._redactor.apply, kept)]
        return Staged(kept, places, undecided)

    def _is_sampled(self, record: Record) -> bool:
        if self._where is not None and self._where.is_always(record):
            return True
        return is_sampled(record, self._sample)
