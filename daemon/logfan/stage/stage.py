"""The stage before a sink: what it gets of the records, and how changed. Sans-I/O."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from operator import not_
from types import MappingProxyType
from typing import NamedTuple

from logfan.record import Record, readable
from logfan.runtime.foreign_text import describe, line_of
from logfan.stage.redact import Redactor
from logfan.stage.sample import is_sampled
from logfan.stage.transforms import Failed, TransformFailed, transformed
from logfan.stage.where import Where
from logfan.transform import Transform


class Staged(NamedTuple):
    """What a sink gets."""

    records: Sequence[Record]
    places: Sequence[int] | None
    """Where each stood among those that came; None where all of them stay."""
    unsure: AbstractSet[int] = frozenset()
    """Of which `where` could say nothing, as their body is no JSON, or which cannot be decompressed
    where that is asked for, or `redact` has to see them. By their places."""
    refused: Mapping[int, str] = MappingProxyType({})
    """Of which records a step of the host failed, and why, by their places."""
    failed: Mapping[int, Failed] = MappingProxyType({})
    """Over which a transform failed: no more than evidence yet."""
    passed: int = 0
    """How many passed the transforms, which is evidence that these work."""
    undecoded: Mapping[int, str] = MappingProxyType({})
    """Which cannot be decompressed where that is asked for, and why."""
    left: int = 0
    """How many at the end were not looked at, as what the others became is enough for one write."""

    @property
    def undecided(self) -> int:
        """How many are unsure."""
        return len(self.unsure)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Decompresses, chooses, samples, transforms and redacts, in this order.

    But for transforms of somebody's own, the same records give the same outcome.
    """

    decode_bytes: int | None = None
    """Bodies are decompressed first, and no more are held at once than become so many bytes, or one
    that becomes more by itself. None: they stay as they came."""
    where: Where | None = None
    keeps_undecided: bool = True
    sample: float = 1.0
    transforms: Sequence[tuple[str, Transform]] = ()
    """Each behind its kind."""
    redactor: Redactor | None = None

    def apply(self, records: Sequence[Record]) -> Staged:
        """Never raises: a record over which a step fails is refused, or failed."""
        if self.decode_bytes is None:
            return self._apply_to_readable(records)
        plain, undecoded = self._decoded(records, self.decode_bytes)
        staged = self._apply_to_readable(plain)
        return staged._replace(
            unsure=staged.unsure | undecoded.keys(), undecoded=undecoded,
            left=len(records) - len(plain),
        )  # fmt: skip

    def _decoded(
        self, records: Sequence[Record], most_bytes: int
    ) -> tuple[Sequence[Record], Mapping[int, str]]:
        """The first of the records, decompressed; why some cannot be, which stay as they came."""
        plain: list[Record] = []
        undecoded: dict[int, str] = {}
        size = 0
        for place, record in enumerate(records):
            try:
                seen = record.decoded()
            except Exception as error:  # noqa: BLE001 - whatever it is, the record is kept
                seen, undecoded[place] = record, line_of(error)
            size += seen.size
            if plain and size > most_bytes:
                undecoded.pop(place, None)
                break
            plain.append(seen)
        return plain, undecoded

    def _apply_to_readable(self, records: Sequence[Record]) -> Staged:
        if len(records) == 1:
            return self._apply_alone(records)
        with suppress(Exception):
            return self._apply(records)
        return self._apply_each(records)  # to find which it is

    def _apply_each(self, records: Sequence[Record]) -> Staged:
        kept: list[Record] = []
        places: list[int] = []
        unsure: set[int] = set()
        refused: dict[int, str] = {}
        failed: dict[int, Failed] = {}
        passed = 0
        for place, record in enumerate(records):
            one = self._apply_alone((record,))
            passed += one.passed
            unsure.update(place for _ in one.unsure)
            refused.update((place, why) for why in one.refused.values())
            for failure in one.failed.values():
                failed[place] = failure
                if failure.unavailable:  # so it is for all that follow
                    failed.update(dict.fromkeys(range(place, len(records)), failure))
                    return Staged(kept, places, unsure, refused, failed, passed)
            for record_of_it in one.records:
                kept.append(record_of_it)
                places.append(place)
        return Staged(kept, places, unsure, refused, failed, passed)

    def _apply_alone(self, one: Sequence[Record]) -> Staged:
        try:
            return self._apply(one)
        except TransformFailed as failure:
            return Staged((), (), failed={0: failure.failed})
        except Exception as error:  # noqa: BLE001 - whatever it is, the record is kept
            why = f"the stage before the sink failed: {describe(error)}"
            return Staged((), (), refused={0: why})

    def _apply(self, records: Sequence[Record]) -> Staged:
        unsure: set[int] = set()
        chosen: Sequence[int] = range(len(records))
        if self.where is not None:
            decisions = self.where.decisions(records)
            if None in decisions:
                unsure.update(place for place in chosen if decisions[place] is None)
            if decisions.count(True) < len(records):
                wanted = (True, None) if self.keeps_undecided else (True,)
                chosen = [place for place, decision in enumerate(decisions) if decision in wanted]
        if self.sample < 1.0:
            chosen = [place for place in chosen if self._is_sampled(records[place])]
        kept = records if len(chosen) == len(records) else [records[place] for place in chosen]
        passed = 0
        if self.transforms and kept:
            passed = len(kept)
            outcomes = [*zip(chosen, transformed(self.transforms, kept), strict=True)]
            chosen = [place for place, record in outcomes if record is not None]
            kept = [record for _, record in outcomes if record is not None]
        if self.redactor is not None:
            sealed = [readable(record) is None for record in kept]
            unsure.update(compress(chosen, sealed))
            if not self.keeps_undecided:
                unsealed = [*map(not_, sealed)]
                chosen, kept = [*compress(chosen, unsealed)], [*compress(kept, unsealed)]
            kept = [*map(self.redactor.apply, kept)]
        places = None if len(chosen) == len(records) else chosen
        return Staged(kept, places, unsure, passed=passed)

    def _is_sampled(self, record: Record) -> bool:
        if self.where is not None and self.where.is_always(record):
            return True
        return is_sampled(record, self.sample)
