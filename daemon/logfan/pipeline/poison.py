"""What to offer a sink that failed, and what counts as evidence against a record. Sans-I/O.

A failure that names no record may be the sink's or a record's. So the same records are offered a
few times, then one at a time. A record is refused only where it failed alone again and again while
the sink took another one; where the sink takes none, the sink is down and nothing is refused.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from logfan.pipeline.in_flight import Batch
from logfan.record import Record

ATTEMPTS_TOGETHER = 3
"""So often records are offered together before they are offered one at a time."""
ATTEMPTS_ALONE = 3
"""So often a record must have failed alone, the last time after another one was taken."""
_WINDOW = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """One record that its sink has not taken yet."""

    record: Record
    batch: Batch
    place: int = 0
    """Which of the batch's records it is."""
    attempts: int = 0
    """How often it was offered."""
    first_failed_at: float = 0.0
    """In seconds since 1970 (UTC); 0 before the first failure."""
    reason: str = ""
    """Why it is refused."""
    suspected: bool = False
    """Whether it was among those that failed together, so that it is now offered alone."""
    alone: int = 0
    """How often it failed alone since the sink took something alone."""
    taken_before: int = 0
    """How many others had been taken alone when it first failed so."""


class Recovery:
    """The records that a sink failed on, from the first failure until it has or refuses them all.

    Ask `offer` what to write next, and tell what came of it with one of `taken`, `rejected`,
    `unavailable` and `failed`. What is refused waits in `refused` for the dead-letter queue.
    """

    def __init__(
        self, entries: Iterable[Entry], *, max_records: int, max_bytes: int, refusing: bool
    ) -> None:
        """With `refusing` off (there is no dead-letter queue) records are offered without end."""
        self._pending = list(entries)
        self._max_records, self._max_bytes = max_records, max_bytes
        self._refusing = refusing
        self._together = 0
        self._suspected = 0
        self._at = 0
        self._taken_alone = 0
        self.refused: list[Entry] = []
        """What waits for the dead-letter queue."""
        self.done: list[Entry] = []
        """What nobody need care for any more: taken, dead-lettered or abandoned. The caller
        empties it."""

    def extend(self, entries: Iterable[Entry]) -> None:
        """What arrived meanwhile: later than all that is here."""
        self._pending += entries

    @property
    def isolating(self) -> bool:
        """Whether records are offered one at a time."""
        return self._suspected > 0

    @property
    def is_alive(self) -> bool:
        """Whether the sink took something since records are offered one at a time: then it need
        not be waited for as for one that is down."""
        return self.isolating and self._taken_alone > 0

    @property
    def wants_company(self) -> bool:
        """Whether other records would help to tell a bad record from a bad sink."""
        return self.isolating and all(entry.alone for entry in self._pending)

    def offer(self) -> Sequence[Entry]:
        """What to write next; empty where nothing is left. Forgets what was abandoned."""
        abandoned = [entry for entry in self._pending if entry.batch.abandoned]
        if abandoned:
            self._remove(abandoned)
            self.done += abandoned
            self._at = 0
        if not self._pending:
            return ()
        if self.isolating:
            self._at %= len(self._pending)
            return (self._pending[self._at],)
        return self._pending[: self._fitting()]

    def taken(self, offered: Sequence[Entry]) -> None:
        """All of it is durable."""
        was_isolating = self.isolating
        self._remove(offered)
        self.done += offered
        self._together = 0
        if not was_isolating:
            return
        if not self._taken_alone:
            # It may have been down until now: what failed before that is no evidence, and the
            # first shall come first.
            for entry in self._pending:
                entry.alone = 0
            self._at = 0
        self._taken_alone += 1
        suspects = (at for at, entry in enumerate(self._pending) if entry.alone > 1)
        self._at = next(suspects, self._at)

    def rejected(
        self, offered: Sequence[Entry], reasons: Mapping[int, str], now: float
    ) -> Sequence[Entry]:
        """The sink refused these by their index, for good, and took the others. They stay pending
        until `refuse` is called with them. Returns them."""
        refused = [entry for index, entry in enumerate(offered) if index in reasons]
        for index, entry in enumerate(offered):
            if index in reasons:
                entry.reason = reasons[index]
        _failed(refused, now)
        others = [entry for index, entry in enumerate(offered) if index not in reasons]
        if others:
            self.taken(others)
        return refused

    def refuse(self, entries: Sequence[Entry]) -> None:
        """These go to the dead-letter queue."""
        self._remove(entries)
        self.refused += entries
        self._together = 0

    def dead_lettered(self, entries: Sequence[Entry]) -> None:
        """These are in the dead-letter queue, or were abandoned on the way there."""
        gone = set(entries)
        self.refused = [entry for entry in self.refused if entry not in gone]
        self.done += entries

    def unavailable(self, offered: Sequence[Entry], now: float) -> None:
        """The sink says that it is down: no evidence against anybody."""
        _failed(offered, now)
        self._together = self._suspected = self._taken_alone = 0
        for entry in self._pending:
            entry.suspected = False

    def failed(self, offered: Sequence[Entry], reason: str, now: float) -> Sequence[Entry]:
        """It failed without a name. Returns what is proven bad, for `refuse`."""
        _failed(offered, now)
        if not self._refusing:
            return ()
        if self.isolating:
            return self._failed_alone(offered[0], reason)
        self._together += 1
        if self._together >= ATTEMPTS_TOGETHER:
            self._together = self._at = self._taken_alone = 0
            self._suspected = len(offered)
            for entry in self._pending:
                entry.alone = 0
            for entry in offered:
                entry.suspected = True
        return ()

    def _failed_alone(self, entry: Entry, reason: str) -> Sequence[Entry]:
        if not entry.alone:
            entry.taken_before = self._taken_alone
        entry.alone += 1
        if entry.alone >= ATTEMPTS_ALONE and (
            self._taken_alone > entry.taken_before
            # Nobody else is there to be taken: the one taken shortly before has to do.
            or (self._taken_alone and len(self._pending) == 1)
        ):
            entry.reason = reason
            return (entry,)
        if not (self._taken_alone and (entry.alone == 1 or len(self._pending) == 1)):
            self._at += 1
        return ()

    def _fitting(self) -> int:
        size = 0
        for count, entry in enumerate(self._pending[: self._max_records]):
            size += entry.record.size
            if count and size > self._max_bytes:
                return count
        return min(len(self._pending), self._max_records)

    def _remove(self, entries: Sequence[Entry]) -> None:
        gone = set(entries)
        self._suspected -= sum(entry.suspected for entry in gone)
        self._pending = [entry for entry in self._pending if entry not in gone]


class Refusals:
    """How many of the last 1,000 records a sink refused, and whether that is too many."""

    def __init__(self, max_ratio: float) -> None:
        """`max_ratio`: of the last 1,000, even where there were fewer; 1.0 is never too many."""
        self._allowed = int(max_ratio * _WINDOW)
        self._seen = 0
        self._refused: deque[int] = deque()

    def taken(self, count: int) -> None:
        """So many were taken."""
        self._seen += count

    def refused(self, count: int) -> bool:
        """Count so many as refused. False, and not counted, where that is too many."""
        oldest = self._seen + count - _WINDOW
        while self._refused and self._refused[0] <= oldest:
            self._refused.popleft()
        if min(len(self._refused) + count, _WINDOW) > self._allowed:
            return False
        for _ in range(count):
            self._seen += 1
            self._refused.append(self._seen)
        return True


def _failed(entries: Iterable[Entry], now: float) -> None:
    for entry in entries:
        entry.attempts += 1
        entry.first_failed_at = entry.first_failed_at or now
