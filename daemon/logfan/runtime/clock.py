"""Time, handed in: the one place where the daemon asks for it or waits for it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the daemon needs of time. Tests hand in one that they move by hand."""

    def monotonic(self) -> float:
        """Seconds that never step back."""
        ...

    def time(self) -> float:
        """Seconds since 1970 (UTC)."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, for so long at most; True where it is set."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    wait = staticmethod(threading.Event.wait)


SYSTEM_CLOCK = SystemClock()
