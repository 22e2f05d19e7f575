"""A clock that stands still until it is moved."""

import threading


class FakeClock:
    """For what takes a clock. A wait ends when `advance` passes it, or its event is set."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._moved = threading.Condition()

    def monotonic(self) -> float:
        """Seconds since some start."""
        with self._moved:
            return self._now

    def time(self) -> float:
        """Seconds since 1970; here the same as `monotonic`."""
        return self.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set or the clock was moved on by so much."""
        with self._moved:
            until = self._now + seconds
            while not event.is_set() and self._now < until:
                # An event set by another thread does not wake this condition: look now and then.
                self._moved.wait(0.01)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Move it on."""
        with self._moved:
            self._now += seconds
            self._moved.notify_all()
