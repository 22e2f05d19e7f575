"""Where a message goes that came before, or that was published to the queue itself.

Most go to all sinks, as any other. One that the queue is about to drop goes to the dead letters,
and a dead letter that was replayed to the one sink that refused it. Decides, and tells in the log.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from logfan import letters, packing
from logfan.api import Record
from logfan.foreign import cut
from logfan.intake import delivery_count, worn_out
from logfan.ledger import Verdict

log = logging.getLogger(__name__)


class Way(NamedTuple):
    """The record, which may be another than before, and where it goes."""

    record: Record
    sink: str = ""
    """The one sink it is for; empty: all."""
    verdict: Verdict | None = None
    """Why it is a dead letter, where it is one."""

    @property
    def is_common(self) -> bool:
        """Whether it goes where all others go."""
        return not self.sink and self.verdict is None


class Signpost:
    """Knows the sinks, and whether there are dead letters."""

    def __init__(self, sinks: Sequence[str], *, keeper: str, dead_letters: bool) -> None:
        """`sinks`: their names; `keeper`: which of them keeps a letter that is for none of them."""
        self._sinks = sinks
        self._keeper = keeper
        self._dead_letters = dead_letters

    def way(self, record: Record, *, redelivered: bool, delivery_limit: int | None) -> Way:
        """Of one message. `delivery_limit`: after so many returns its queue drops it."""
        replayed = letters.replayed(packing.whole(record))
        verdict = None
        if redelivered and self._dead_letters:
            verdict = worn_out(delivery_count(record), delivery_limit)
        if verdict is not None:
            log.warning("a message was %s; it goes to the dead letters", verdict.reason)
        if replayed is None:
            return Way(record, verdict=verdict)
        sink, restored = replayed
        if sink in self._sinks:
            return Way(restored, sink, verdict)
        reason = f"no sink is called {cut(sink, 100)!r} (a dead letter that was replayed)"
        if not self._dead_letters:
            log.warning("%s, and dead_letter.enabled is false: it goes to all sinks", reason)
            return Way(restored)
        return Way(restored, self._keeper, Verdict(reason, sink))
