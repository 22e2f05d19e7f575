"""What became of the records of one write, where the other side answers for each. Sans-I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import logfan


@dataclass(slots=True)
class Outcome:
    """What became of the records, by their places; of all others that they are taken."""

    refused: dict[int, str] = field(default_factory=dict)
    later: dict[int, str] = field(default_factory=dict)
    retry_after: float | str | None = None
    whole: bool = False
    """Whether what is wanted later is so for a reason that other records share; False where it is
    about what these name, such as a topic."""

    def correct(self, places: Sequence[int], again: "Outcome") -> None:
        """Those at these places were sent once more: that outcome is the one that counts."""
        for place in places:
            self.refused.pop(place, None)
        self.refused |= {places[at]: why for at, why in again.refused.items()}
        self.later |= {places[at]: why for at, why in again.later.items()}
        self.retry_after = self.retry_after or again.retry_after
        self.whole |= again.whole

    def settle(self, count: int) -> None:
        """Raise what the host shall know; return where all are taken."""
        if self.whole and len(self.later) == count:
            raise logfan.SinkUnavailable(next(iter(self.later.values())), self.retry_after)
        if self.refused or self.later:
            raise logfan.RecordsRejected(
                self.refused, later=self.later, retry_after=self.retry_after
            )
