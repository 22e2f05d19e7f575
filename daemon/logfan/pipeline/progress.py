"""Whether coming back gets anywhere. Sans-I/O.

What ended a subscription with messages unacknowledged may end the next one as well, at the same
place: then what stands before that place is written again each time. So ends of one kind are
counted while nothing is acknowledged in between.
"""

ENDS = 3
"""So many in a row show that coming back as before leads nowhere."""


class Progress:
    """Counts the ends of one daemon's subscriptions."""

    def __init__(self) -> None:
        self._acked = 0
        self._cause: object = None
        self.ends = 0
        """So often it ended for one cause, with nothing acknowledged in between."""

    def ended(self, cause: object, *, acked: int, telling: bool) -> int:
        """It ended for this cause, with so many messages acknowledged since the start. `telling`:
        messages were held, or the cause lies in one. Returns `ends`."""
        if acked != self._acked or cause != self._cause:
            self.ends = 0
        self._acked, self._cause = acked, cause
        self.ends += telling
        return self.ends
