"""Whether the broker delivers what waits in the queue. Sans-I/O.

A consumer that the broker counts and never serves looks as one of a quiet queue does. What differs
is that messages wait, at each look, while we hold none.
"""

STANDSTILL_SECONDS = 30.0
"""For so long messages wait and none comes, before the consumer is made anew."""
_MOST_SECONDS = 3600.0
"""Where that changes nothing, it is made anew after twice as long each time, and after this."""


class Standstill:
    """Looks at the queue, and what came between them."""

    def __init__(self) -> None:
        self._patience = STANDSTILL_SECONDS
        self._received = -1
        self._since: float | None = None

    def look(self, now: float, *, waiting: int, received: int) -> float | None:
        """Consuming with nothing in hand, we see `waiting` messages in the queue; `received` since
        the start. For how many seconds that is so, once it is time to consume anew, else None.
        `now` is monotonic, in seconds."""
        if received != self._received:
            self._received, self._patience = received, STANDSTILL_SECONDS
            self._since = None
        if not waiting:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= self._patience:
            seconds, self._since = now - self._since, None
            self._patience = min(2 * self._patience, _MOST_SECONDS)
            return seconds
        return None

    def over(self) -> None:
        """We consume nothing now, or hold messages."""
        self._since = None
