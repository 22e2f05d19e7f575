"""Whether reading waits for the sinks. Pure.

Where the broker sends faster than the sinks write, the budget of bytes fills. To read on then, to
unsubscribe and to hand back what does not fit makes the broker send large messages twice. So
shortly before it is full reading stops, and goes on once half is written: what is not read waits in
the broker. But for a moment only, as heartbeats and cancels wait there, too.
"""

from typing import Protocol

HOLD_SECONDS = 2.0


class Reading(Protocol):
    """What can be held: a connection."""

    def hold(self) -> bool:
        """Read nothing until `go_on`; False where that cannot be."""

    def go_on(self) -> None:
        """Read again."""


class BackpressureGate:
    """Holds the reading of one subscription after the other."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: the budget."""
        self._most = most_bytes
        self._of: Reading | None = None
        self._since: float | None = None
        self._vain = False

    def look(self, held: int, now: float, reading: Reading | None) -> None:
        """`held` bytes are in flight at `now` (monotonic, in seconds)."""
        if reading is not self._of:
            self._of, self._since, self._vain = reading, None, False
        low = held * 2 <= self._most
        if reading is None:
            return
        if self._since is not None:
            late = now - self._since >= HOLD_SECONDS
            if low or late:
                # A sink that is slow or down is no matter of moments.
                self._since, self._vain = None, late and not low
                reading.go_on()
        elif low:
            self._vain = False
        elif held * 4 >= self._most * 3 and not self._vain and reading.hold():
            self._since = now
