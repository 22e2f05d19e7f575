"""Whether what a sink wants later is about those records, or the sink is down. Sans-I/O.

Where the sink takes another record it is about them, and they stand aside. Where it takes none, it
may be down for all. One record shows nothing: the next to come does. Several that came together, or
one after the other, show a sink that is down: they are offered again together, in order.
"""

from collections.abc import Sequence

from logfan.pipeline.poison import Entry

_OTHERS_SECONDS = 1.0


class PutOff:
    """What one sink put off, and took nothing since."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        """In the order of their delivery."""
        self.is_down = False
        """Whether the sink counts as down."""
        self._taken = -1
        """What the sink had taken in all when it last put off all that it was offered."""
        self._others_from = 0.0

    def add(self, entries: Sequence[Entry], taken: int) -> None:
        """The sink put these off, and took nothing else of the offer. `taken`: how many records it
        took in all."""
        self.entries += entries
        self.is_down = len(entries) > 1 or taken == self._taken
        self._taken = taken

    def is_theirs(self, taken: int) -> bool:
        """Whether the sink took another record since."""
        return bool(self.entries) and taken != self._taken

    def take(self) -> Sequence[Entry]:
        """All of them; none is left."""
        entries, self.entries = self.entries, []
        return entries

    def take_abandoned(self) -> Sequence[Entry]:
        """Those that the broker delivers again."""
        gone = [entry for entry in self.entries if entry.batch.abandoned]
        if gone:
            self.entries = [entry for entry in self.entries if entry not in gone]
        return gone

    def wait(self, now: float, pace: float) -> float:
        """For how many seconds others are waited for, where the sink is not down; where it is, they
        are no sooner offered than after `pace`."""
        self._others_from = now + max(_OTHERS_SECONDS, pace) if self.is_down else now
        return _OTHERS_SECONDS

    def wants_others(self, now: float) -> bool:
        """Whether what has come is to be offered now, however long the wait is."""
        return bool(self.entries) and now >= self._others_from
