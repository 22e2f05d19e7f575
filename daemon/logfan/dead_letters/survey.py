"""What is in the dead-letter queue: by sink and reason, within a bound of memory."""

from dataclasses import dataclass, field

from logfan.dead_letters.letter import Letter, is_ours

_OTHER_REASONS = "(other reasons)"
_REASONS = 1000
"""Kept apart; reasons that differ for each record would fill the memory."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message in the dead-letter queue."""

    tag: int
    letter: Letter
    size: int
    """Bytes of the body."""
    deliveries: int
    """How often the broker has counted a failed delivery of it; quorum queues only."""
    raw: Letter
    """As it was published to the queue."""

    @property
    def ours(self) -> bool:
        """Whether logfan put it there."""
        return is_ours(self.letter.properties.headers)

    def is_of(self, sink: str | None) -> bool:
        """Whether this sink refused it; None: any, or none of ours."""
        return sink is None or (self.ours and self.letter.sink == sink)


@dataclass(slots=True)
class Row:
    """Letters that are alike."""

    count: int = 0
    size: int = 0
    """Bytes of their bodies."""
    oldest: str = ""
    newest: str = ""

    def add(self, found: Found) -> None:
        at = found.letter.first_failed_at
        self.count += 1
        self.size += found.size
        self.oldest = min(self.oldest or at, at)
        self.newest = max(self.newest, at)


@dataclass(slots=True)
class Survey:
    """What is in the queue: by sink and reason, within a bound of memory."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    foreign: Row = field(default_factory=Row)
    deliveries: int = 0
    """The highest count of failed deliveries."""

    def add(self, found: Found) -> None:
        self.deliveries = max(self.deliveries, found.deliveries)
        if not found.ours:
            self.foreign.add(found)
            return
        key = (found.letter.sink, found.letter.reason)
        if key not in self.rows and len(self.rows) >= _REASONS:
            key = (key[0], _OTHER_REASONS)
            if key not in self.rows and len(self.rows) >= 2 * _REASONS:
                key = ("(other sinks)", _OTHER_REASONS)
        self.rows.setdefault(key, Row()).add(found)

    def sorted(self) -> list[tuple[str, str, Row]]:
        """Sink, reason and row, the most frequent first; those that are not ours come last."""
        rows = [(sink, reason, row) for (sink, reason), row in self.rows.items()]
        return sorted(rows, key=lambda row: (-row[2].count, row[0], row[1]))

    @property
    def count(self) -> int:
        """All letters, those that are not ours among them."""
        return self.foreign.count + sum(row.count for row in self.rows.values())
