"""Open batches to the highest contiguous tag: what may be acknowledged, and no more. Pure.

The consumer's I/O thread alone calls the ledger, but for `settle`, which each sink's own thread
calls for itself; beside that the workers only look at a batch's records and marks, and a scrape at
`oldest`.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from logfan.api import Record


@dataclass(frozen=True, slots=True)
class Verdict:
    """Records that are refused before any sink is asked."""

    reason: str
    sink: str = ""
    """In whose name; empty: of each sink that gets the batch."""


class Batch:
    """What one read of the socket delivered: the unit that sinks settle and the ledger counts."""

    __slots__ = (
        "abandoned", "last_tag", "opened_at", "owed", "records", "size", "verdict"
    )  # fmt: skip

    def __init__(
        self,
        records: tuple[Record, ...],
        last_tag: int,
        size: int,
        opened_at: float,
        owed: Iterable[int],
    ) -> None:
        self.records = records
        self.last_tag = last_tag
        """The delivery tag of the last record; the ack of this tag covers them all."""
        self.size = size
        """Bytes of all bodies."""
        self.opened_at = opened_at
        """When it was received, on the monotonic clock, in seconds."""
        self.owed = {*owed}
        """The numbers of the required sinks that have not settled it yet. Each takes out its own,
        in one step that no other thread sees a half of."""
        self.verdict: Verdict | None = None
        """Where nobody shall be offered its records: why they are dead-lettered at once."""
        self.abandoned = False
        """True once its channel is gone: the broker delivers it again, so nobody needs it now."""


@dataclass(frozen=True, slots=True)
class Ack:
    """One cumulative acknowledgement: the tag, and the batches it newly covers, in order."""

    tag: int
    batches: Sequence[Batch]

    @property
    def messages(self) -> int:
        """How many messages it newly covers."""
        return sum(len(batch.records) for batch in self.batches)


class Ledger:
    """The open batches of the live subscription, in the order of their tags."""

    def __init__(self, required_sinks: int) -> None:
        """`required_sinks`: how many sinks must settle a batch; they are numbered from 0."""
        self._everyone = range(required_sinks)
        self._open: deque[Batch] = deque()
        self.messages = 0
        """Messages received and not yet acknowledged."""
        self.size = 0
        """Bytes of their bodies."""

    def open(
        self,
        records: tuple[Record, ...],
        last_tag: int,
        size: int,
        now: float,
        owed: Iterable[int] | None = None,
    ) -> Batch:
        """Enter what was just delivered. `owed`: the numbers of the required sinks that it is for;
        without it, it is for all. Tags rise; a tag out of order is a ValueError."""
        if self._open and last_tag <= self._open[-1].last_tag:
            raise ValueError(f"delivery tag {last_tag} after {self._open[-1].last_tag}")
        batch = Batch(records, last_tag, size, now, self._everyone if owed is None else owed)
        self._open.append(batch)
        self.messages += len(records)
        self.size += size
        return batch

    def settle(self, batch: Batch, sink: int) -> bool:
        """Required sink number `sink` has the batch durably. True where no other owes it any more,
        so that `advance` may find something: of those that settle it at once, the last is told so.

        A settlement names its batch and no tag: one that was abandoned is not in the ledger any
        more, so a settlement that comes late moves nothing of the next generation.
        """
        batch.owed.discard(sink)
        return not batch.owed

    def advance(self) -> Ack | None:
        """Take the settled batches off the front; None where the front is still owed."""
        done: list[Batch] = []
        while self._open and not self._open[0].owed:
            batch = self._open.popleft()
            self.messages -= len(batch.records)
            self.size -= batch.size
            done.append(batch)
        return Ack(done[-1].last_tag, done) if done else None

    @property
    def last_tag(self) -> int:
        """The last tag that is not acknowledged; 0 where there is none."""
        return self._open[-1].last_tag if self._open else 0

    @property
    def oldest(self) -> float | None:
        """When the oldest open batch was received, on the monotonic clock; None without one. Any
        thread may ask."""
        try:
            return self._open[0].opened_at
        except IndexError:  # the I/O thread may take it away meanwhile
            return None

    @property
    def first(self) -> Record | None:
        """The oldest message that is not acknowledged; None without one."""
        return self._open[0].records[0] if self._open else None

    def abandon(self) -> int:
        """The channel is gone: forget what is open and begin a new generation.

        Returns how many messages were unacknowledged; the broker delivers them again.
        """
        for batch in self._open:
            batch.abandoned = True
        abandoned = self.messages
        self._open.clear()
        self.messages = self.size = 0
        return abandoned
