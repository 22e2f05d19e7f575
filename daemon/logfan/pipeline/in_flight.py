"""Open batches to the highest contiguous tag: what may be acknowledged, and no more. Sans-I/O.

The consumer's I/O thread alone calls the tracker, but for `complete`, which each sink's own thread
calls for itself, and `keep`; beside that the workers only look at a batch's records and marks,
and a scrape at `oldest_held`.

A record whose dead letter cannot be sent, or that its sink wants later, stands aside: it stays
unacknowledged, as a batch of its own, while the watermark passes by. As long as one stands aside,
what comes after it is acknowledged tag by tag, since a cumulative acknowledgement would cover it as
well.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from logfan.record import Record, weight


@dataclass(frozen=True, slots=True)
class Rejection:
    """Records that are refused before any sink is asked."""

    reason: str
    sink: str = ""
    """In whose name; empty: of each sink that gets the batch."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one read of the socket delivered: the unit that sinks complete and that is tracked."""

    records: tuple[Record, ...]
    last_tag: int
    """The delivery tag of the last record; the ack of this tag covers them all."""
    size: int
    """Bytes of all bodies, and of properties that are large: see `record.weight`."""
    opened_at: float
    """When it was received, on the monotonic clock, in seconds."""
    pending: set[int]
    """The numbers of the required sinks that have not completed it yet. Each takes out its own,
    in one step that no other thread sees a half of."""
    rejection: Rejection | None = None
    """Why its records are dead-lettered at once, without an offer; None as a rule."""
    abandoned: bool = False
    """True once its channel is gone: the broker delivers it again."""
    kept: dict[int, "Batch"] | None = None
    """Records that stand aside, by their place, each as a batch of its own."""
    late: bool = False
    """Set on one that stands aside for so long that it should not stay for much longer."""
    replayed: bool = False
    """Whether it is for one sink alone, which had it before."""
    alone: bool = False
    """Whether it is one record of a batch, as it stands aside."""

    def single(self, place: int) -> "Batch":
        """A batch of the one record at this place, which is pending for no sink yet."""
        record = self.records[place]
        tag = self.last_tag - len(self.records) + 1 + place
        return Batch(
            (record,), tag, weight(record), self.opened_at, set(), self.rejection, self.abandoned,
            alone=True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ack:
    """What to acknowledge: all up to a tag, and some tags beyond it."""

    tag: int
    """0 for none."""
    batches: Sequence[Batch]
    """What it newly covers, in order."""
    singles: Sequence[int] = ()

    @property
    def messages(self) -> int:
        """How many messages it newly covers."""
        return sum(len(batch.records) for batch in self.batches)


class InFlightTracker:
    """The open batches of the live subscription, in the order of their tags."""

    def __init__(self, required_sinks: int) -> None:
        """`required_sinks`: how many sinks must complete a batch; they are numbered from 0."""
        self._everyone = range(required_sinks)
        self._open: deque[Batch] = deque()
        self._aside: dict[int, Batch] = {}
        self._keeping = threading.Lock()
        self.messages = 0
        """Messages received and not yet acknowledged."""
        self.size = 0
        """Bytes of their bodies."""
        self.aside_messages = self.aside_size = 0
        """What of both stands aside."""
        self._last_copies: Sequence[Batch] = ()
        """Of a queue that is gone, until each sink has them."""

    def open(
        self,
        records: Sequence[Record],
        last_tag: int,
        size: int,
        now: float,
        pending: Iterable[int] | None = None,
    ) -> Batch:
        """Enter what was just delivered. `pending`: the numbers of the required sinks that it is
        for; without it, it is for all. Tags rise; a tag out of order is a ValueError."""
        if self._open and last_tag <= self._open[-1].last_tag:
            raise ValueError(f"delivery tag {last_tag} after {self._open[-1].last_tag}")
        pending = self._everyone if pending is None else pending
        batch = Batch(tuple(records), last_tag, size, now, {*pending})
        self._open.append(batch)
        self.messages += len(records)
        self.size += size
        return batch

    def extend(self, batch: Batch, records: Sequence[Record], size: int) -> None:
        """Enter what came next in the same read: the batch is the last one, and no sink has it."""
        batch.records += tuple(records)
        batch.last_tag += len(records)
        batch.size += size
        self.messages += len(records)
        self.size += size

    def complete(self, batch: Batch, sink: int) -> bool:
        """Required sink number `sink` has the batch durably. True where it is pending for no
        other, so that `advance` may find something: of those that complete it at once, the last
        gets True.

        A completion names its batch and no tag: one that was abandoned is not tracked any
        more, so a completion that comes late moves nothing of the next generation.
        """
        batch.pending.discard(sink)
        return not batch.pending

    def keep(self, batch: Batch, places: Sequence[int], sink: int) -> Sequence[Batch]:
        """Required sink number `sink` cannot be rid of the records at these places now. It
        completes the batch after this, and later each of those returned here."""
        with self._keeping:
            kept = batch.kept = {} if batch.kept is None else batch.kept
            for place in places:
                if place not in kept:
                    kept[place] = batch.single(place)
                kept[place].pending.add(sink)
            return [kept[place] for place in places]

    def advance(self) -> Ack | None:
        """Take completed batches off the front, and what is completed of those that stand aside;
        None where there is nothing of either."""
        done: list[Batch] = []
        singles: list[int] = []
        tag = 0
        while self._open and not self._open[0].pending:
            batch = self._open.popleft()
            if batch.kept or self._aside:
                tag = self._pass_by(batch, tag, singles, done)
            else:
                tag = batch.last_tag
                self.messages -= len(batch.records)
                self.size -= batch.size
                done.append(batch)
        if self._aside:
            for one in [one for one in self._aside.values() if not one.pending]:
                self._drop(one)
                singles.append(one.last_tag)
                done.append(one)
        if self._last_copies:
            self._last_copies = self._unwritten()
        return Ack(tag, done, singles) if done else None

    def _pass_by(self, batch: Batch, tag: int, singles: list[int], done: list[Batch]) -> int:
        """Acknowledge all of a batch but what is kept of it. Returns how far in one go."""
        kept = {place: one for place, one in (batch.kept or {}).items() if one.pending}
        first = batch.last_tag - len(batch.records) + 1
        taken: list[Record] = []
        for place, record in enumerate(batch.records):
            if place in kept:
                self._aside[first + place] = kept[place]
                self.aside_messages += 1
                self.aside_size += kept[place].size
                continue
            taken.append(record)
            if self._aside:
                singles.append(first + place)
            else:
                tag = first + place
        size = batch.size - sum(one.size for one in kept.values())
        self.messages -= len(taken)
        self.size -= size
        if taken:
            done.append(Batch((*taken,), batch.last_tag, size, batch.opened_at, set()))
        return tag

    # What stands aside

    @property
    def aside(self) -> Sequence[Batch]:
        """The records that stand aside, in the order of their tags."""
        return [*self._aside.values()]

    def give_up(self, one: Batch) -> None:
        """This one, which stands aside, goes back to the broker."""
        one.abandoned = True
        self._drop(one)

    def _drop(self, one: Batch) -> None:
        del self._aside[one.last_tag]
        self.messages -= 1
        self.size -= one.size
        self.aside_messages -= 1
        self.aside_size -= one.size

    # The end

    @property
    def last_tag(self) -> int:
        """The last tag that is not acknowledged; 0 where there is none."""
        return max(self._open[-1].last_tag if self._open else 0, *self._aside, 0)

    @property
    def open_tags(self) -> Sequence[int]:
        """The tags that some sink has not completed."""
        return [
            tag
            for batch in self._open
            for tag in range(batch.last_tag - len(batch.records) + 1, batch.last_tag + 1)
        ]

    @property
    def oldest(self) -> float | None:
        """When the oldest open batch was received, on the monotonic clock; None without one."""
        return self._open[0].opened_at if self._open else None

    @property
    def first(self) -> Record | None:
        """The oldest message that is not acknowledged; None without one."""
        return self._open[0].records[0] if self._open else None

    def records(self) -> Iterator[Record]:
        """All that is not acknowledged, with what stands aside."""
        for batch in (*self._open, *self._aside.values()):
            yield from batch.records

    @property
    def oldest_held(self) -> float | None:
        """The same, with what stands aside. Any thread may ask."""
        try:
            aside = next((one.opened_at for one in self._aside.values()), None)
            first = self._open[0].opened_at if self._open else None
        except (IndexError, RuntimeError):  # the I/O thread may take it away meanwhile
            return None
        return min((at for at in (aside, first) if at is not None), default=None)

    @property
    def last_copies(self) -> int:
        """How many messages of a queue that was gone before some sink still has to write."""
        return sum(len(batch.records) for batch in self._unwritten())

    def has_room_for_last_copies(self, messages: int, size: int) -> bool:
        """Whether what is open may become last copies beside those that there are, with so many
        messages of `size` bytes at most in all. One window always may."""
        held = self._unwritten()
        count = self.messages + sum(len(batch.records) for batch in held)
        return not held or (
            count <= messages and self.size + sum(batch.size for batch in held) <= size
        )

    def _unwritten(self) -> Sequence[Batch]:
        """The last copies that some sink has not completed; of a batch that is completed but for
        what stands aside just that, as the rest need not stay in memory."""
        rest: list[Batch] = []
        for batch in self._last_copies:
            if batch.pending:  # looked at once: a sink may complete it meanwhile
                rest.append(batch)
            else:
                rest += [one for one in (batch.kept or {}).values() if one.pending]
        return rest

    def abandon(self, *, but_aside: bool = False, is_last_copy: bool = False) -> int:
        """Forget what is open, and with its channel gone what stands aside as well; then a new
        generation begins.

        Returns how many messages were unacknowledged. The broker delivers them again, and the sinks
        let go of them; but where `is_last_copy` it has them no more, and the sinks go on.
        """
        before = self.messages
        with self._keeping:
            left = (*self._open, *(() if but_aside else self._aside.values()))
            if is_last_copy:
                self._last_copies = (*self._unwritten(), *left)
            else:
                for batch in left:
                    batch.abandoned = True
                    for one in (batch.kept or {}).values():
                        one.abandoned = True
        self._open.clear()
        if not but_aside:
            self._aside.clear()
            self.aside_messages = self.aside_size = 0
        self.messages, self.size = self.aside_messages, self.aside_size
        return before - self.messages
