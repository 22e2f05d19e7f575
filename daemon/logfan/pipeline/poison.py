"""What to offer a sink that failed, and what counts as evidence against a record. Sans-I/O.

A failure that names no record may be the sink's or a record's. So the same records are offered a
few times, then they become a queue of suspects that are halved until those that fail stand alone.
A record is refused only where it failed alone again and again while the sink took others; where the
sink takes none, the sink is down and nothing is refused.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

from logfan.pipeline.in_flight import Batch
from logfan.record import Record, weight

ATTEMPTS_TOGETHER = 3
"""So often records are offered together before they are halved."""
ATTEMPTS_ALONE = 3
"""So often a record must have failed alone, the last time after others were taken."""
_WINDOW = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """One record that its sink has not taken yet."""

    record: Record
    """As it was delivered."""
    batch: Batch
    place: int = 0
    """Which of the batch's records it is."""
    attempts: int = 0
    """How often it was offered."""
    first_failed_at: float = 0.0
    """In seconds since 1970 (UTC); 0 before the first failure."""
    reason: str = ""
    """Why it is refused."""
    alone: int = 0
    """How often it failed alone since the sink took one of the suspects."""
    taken_before: int = 0
    """How many offers had been taken when it first failed so."""
    undecided: bool = False
    """Whether it is counted as undecided."""
    counted: bool = False
    """Whether it is counted among what the sink refused."""
    failed_in_stage: int = 0
    """How often a transform failed over it alone, since it did so while another passed."""

    def failed(self, now: float) -> None:
        """It was offered, and not taken."""
        self.attempts += 1
        self.first_failed_at = self.first_failed_at or now


class RetryQueue:
    """Records that a sink has not taken yet, in the order of their delivery.

    Ask `offer` what to write next, and report the outcome with one of `taken`, `rejected`,
    `unavailable` and `failed`.
    """

    def __init__(self, *, max_records: int, max_bytes: int, refusing: bool) -> None:
        """With `refusing` off (there is no dead-letter queue) records are offered without end."""
        self._max_records, self._max_bytes = max_records, max_bytes
        self._refusing = refusing
        self._others: list[Entry] = []
        self._suspects: list[list[Entry]] = []
        """Of those that failed together: what is offered at once, in order."""
        self._held: list[Entry] = []
        """Refused, and neither taken nor dead-lettered: offered again in the next round."""
        self._next = 0
        """Which of the suspects is offered next."""
        self._failed_together = 0
        self._taken = 0
        """How many offers were taken since there are suspects."""

    def extend(self, entries: Iterable[Entry]) -> None:
        """Add records that come after all that are here."""
        self._others += entries

    @property
    def isolating(self) -> bool:
        """Whether some of the records are suspects."""
        return bool(self._suspects)

    @property
    def is_alive(self) -> bool:
        """Whether the sink took something since there are suspects: then it need not be waited
        for as for one that is down."""
        return self.isolating and self._taken > 0

    @property
    def holding(self) -> bool:
        """Whether some that are refused wait for the next round."""
        return bool(self._held)

    @property
    def needs_others(self) -> bool:
        """Whether other records would help to tell a bad record from a bad sink."""
        return not self._others and (self.holding or self._all_failed_alone())

    def offer(self) -> Sequence[Entry]:
        """What to write next; empty where nothing is left of this round."""
        if not self._suspects:
            return self._others[: self._fitting()]
        if self._next >= len(self._suspects):
            if self._others and self._all_failed_alone():
                self._next = len(self._suspects)
                self._suspects.append([self._others.pop(0)])
            else:
                self._next = 0
        return self._suspects[self._next]

    def cut(self, count: int) -> None:
        """No more than the first `count` of what `offer` gave are offered at once."""
        if self._suspects:
            group = self._suspects[self._next]
            self._suspects[self._next : self._next + 1] = [group[:count], group[count:]]

    def hold(self, refused: Sequence[Entry]) -> None:
        """These are refused and must stay: whatever else there is comes before them."""
        if self.isolating:
            self._next += 1
        else:
            self.remove(refused)
            self._held += refused

    def next_round(self) -> None:
        """Offer what is held again, before all else."""
        self._others = [*self._held, *self._others]
        self._held = []

    def remove_abandoned(self) -> Sequence[Entry]:
        """Take out what the broker delivers again. Returns it."""
        pending = chain(self._held, self._others, *self._suspects)
        abandoned = [entry for entry in pending if entry.batch.abandoned]
        if abandoned:
            self._next = 0
        self.remove(abandoned)
        return abandoned

    def taken(self, offered: Sequence[Entry]) -> None:
        was_isolating = self.isolating
        self.remove(offered)
        if not was_isolating:
            return
        if not self._taken:
            # It may have been down until now: what failed before that is no evidence, and the
            # first shall come first.
            self._forget_evidence()
            self._next = 0
        self._taken += 1
        failed_twice = (at for at, suspects in enumerate(self._suspects) if suspects[0].alone > 1)
        self._next = next(failed_twice, self._next)

    def rejected(
        self,
        offered: Sequence[Entry],
        reasons: Mapping[int, str],
        now: float,
        later: Mapping[int, str] = MappingProxyType({}),
    ) -> Sequence[Entry]:
        """The sink refused these by their index, for good, and took the others but for those that
        it wants `later`. What is refused stays pending until it is removed. Returns that."""
        refused = []
        for index in sorted(reasons):
            refused.append(offered[index])
            offered[index].reason = reasons[index]
            offered[index].failed(now)
        for index in later:
            offered[index].failed(now)
        settled = reasons.keys() | later.keys()
        others = [entry for index, entry in enumerate(offered) if index not in settled]
        if others:
            self.taken(others)
        return refused

    def remove(self, entries: Iterable[Entry]) -> None:
        """Take these out: they are taken, refused or abandoned."""
        gone = set(entries)
        if not gone:
            return
        self._held = [entry for entry in self._held if entry not in gone]
        self._others = [entry for entry in self._others if entry not in gone]
        rests = [[one for one in suspects if one not in gone] for suspects in self._suspects]
        self._suspects = [rest for rest in rests if rest]
        self._failed_together = 0

    def unavailable(self, offered: Sequence[Entry], now: float) -> None:
        """The sink reports that it is down: no evidence against a record."""
        for entry in offered:
            entry.failed(now)
        self._forget_evidence()
        self._others = [*chain(*self._suspects), *self._others]
        self._suspects = []
        self._failed_together = 0

    def failed(self, offered: Sequence[Entry], reason: str, now: float) -> Sequence[Entry]:
        """The sink failed and named no record. Returns what is proven bad; it stays pending until
        it is removed."""
        for entry in offered:
            entry.failed(now)
        if not self._refusing:
            return ()
        if not self._suspects:
            self._failed_together += 1
            if self._failed_together >= ATTEMPTS_TOGETHER:
                self._failed_together = self._next = self._taken = 0
                del self._others[: len(offered)]
                self._suspects = _halves(offered)
        elif len(offered) > 1:
            self._suspects[self._next : self._next + 1] = _halves(offered)
        else:
            return self._failed_alone(offered[0], reason)
        return ()

    def _failed_alone(self, entry: Entry, reason: str) -> Sequence[Entry]:
        if not entry.alone:
            entry.taken_before = self._taken
        entry.alone += 1
        is_last = len(self._suspects) == 1 and not self._others
        if entry.alone >= ATTEMPTS_ALONE and (
            self._taken > entry.taken_before
            # No other is left to be taken: those taken shortly before have to do.
            or (self._taken and is_last)
        ):
            entry.reason = reason
            return (entry,)
        if not (self._taken and entry.alone == 1):
            self._next += 1
        return ()

    def _all_failed_alone(self) -> bool:
        return self.isolating and all(suspects[0].alone for suspects in self._suspects)

    def _forget_evidence(self) -> None:
        for suspects in self._suspects:
            suspects[0].alone = 0

    def _fitting(self) -> int:
        size = 0
        for count, entry in enumerate(self._others[: self._max_records]):
            size += weight(entry.record)
            if count and size > self._max_bytes:
                return count
        return min(len(self._others), self._max_records)


def _halves(offered: Sequence[Entry]) -> list[list[Entry]]:
    middle = len(offered) // 2
    return [[*half] for half in (offered[:middle], offered[middle:]) if half]


class Refusals:
    """How many of the last 1,000 records a sink refused, and how many more it may."""

    def __init__(self, max_ratio: float) -> None:
        """`max_ratio`: of the last 1,000, even where there were fewer; 1.0 is never too many."""
        self._allowed = int(max_ratio * _WINDOW)
        self._seen = 0
        self._refused: deque[int] = deque()

    def taken(self, count: int) -> None:
        self._seen += count

    def refused(self, count: int) -> int:
        """Of so many that are refused, how many may be; these are counted."""
        if self._allowed >= _WINDOW:
            return count
        for done in range(count):
            while self._refused and self._refused[0] <= self._seen + 1 - _WINDOW:
                self._refused.popleft()
            if len(self._refused) >= self._allowed:
                return done
            self._seen += 1
            self._refused.append(self._seen)
        return count

    def returned(self, count: int) -> None:
        """So many that were counted lately are not dead-lettered: they are delivered again."""
        for _ in range(min(count, len(self._refused))):
            self._refused.pop()
