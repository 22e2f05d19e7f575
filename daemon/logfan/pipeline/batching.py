"""What a read of the socket delivered becomes arrivals, each to be one batch. Sans-I/O.

Most of the time there is one: all that was read, for all sinks. A replayed dead letter is for one
sink; a message that the queue is about to drop is for none, but for the dead-letter queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from logfan.pipeline.in_flight import Rejection
from logfan.record import Record

DELIVERY_COUNT = "x-delivery-count"
_LIVES = 1
"""A message is taken out of the queue's hands so many returns before its last."""


@dataclass(slots=True)
class NewBatch:
    """Records that came one after the other and have the same way to go."""

    sink: str = ""
    """The one sink they are for; empty: all."""
    rejection: Rejection | None = None
    records: list[Record] = field(default_factory=list)
    last_tag: int = 0
    """Of the last record; those before it have the tags before it."""
    size: int = 0
    """Bytes of all bodies."""


class BatchBuilder:
    """What was delivered and is not dispatched yet."""

    def __init__(self) -> None:
        self._plain = NewBatch()
        self._new_batches = [self._plain]
        self.size = 0
        """Bytes of all bodies."""
        self.messages = 0

    def add(self, record: Record, tag: int, size: int) -> None:
        """A message for all sinks."""
        self.size += size
        self.messages += 1
        plain = self._plain
        if tag != plain.last_tag + 1 and plain.records:
            plain = self._begin()
        plain.records.append(record)
        plain.last_tag = tag
        plain.size += size

    def add_run(self, records: Sequence[Record], last_tag: int, size: int) -> None:
        """Messages for all sinks, of `size` bytes in all."""
        self.size += size
        self.messages += len(records)
        plain = self._plain
        if last_tag - len(records) != plain.last_tag and plain.records:
            plain = self._begin()
        plain.records += records
        plain.last_tag = last_tag
        plain.size += size

    def _begin(self) -> NewBatch:
        """One between was turned away: the tags of an arrival follow one another."""
        self._plain = NewBatch()
        self._new_batches.append(self._plain)
        return self._plain

    def add_apart(
        self,
        record: Record,
        tag: int,
        size: int,
        *,
        sink: str = "",
        rejection: Rejection | None = None,
    ) -> None:
        """A message with a way of its own; the order is kept."""
        self.size += size
        self.messages += 1
        self._plain = NewBatch()
        self._new_batches += [NewBatch(sink, rejection, [record], tag, size), self._plain]

    def take(self) -> list[NewBatch]:
        """All of it, in order; nothing is left."""
        new_batches = [new_batch for new_batch in self._new_batches if new_batch.records]
        self._plain = NewBatch()
        self._new_batches = [self._plain]
        self.size = self.messages = 0
        return new_batches


def delivery_count(record: Record) -> int:
    """How often a quorum queue delivered it before; 0 where it does not tell."""
    count = record.headers.get(DELIVERY_COUNT)
    return count if isinstance(count, int) else 0


def delivery_limit_reached(count: int, limit: int | None) -> Rejection | None:
    """The verdict on a message that was delivered `count` times before from a queue that drops it
    after `limit` returns; None while it has lives left."""
    if limit is None or count < max(1, limit - _LIVES):
        return None
    return Rejection(
        f"delivered {count} times before without an end; its queue drops a message after "
        f"{limit} returns"
    )
