"""Threads without chance: each runs only while the test waits for it, and time is moved by hand."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_HANG_SECONDS = 120.0


class Time:
    """One time for all. It moves on request."""

    def __init__(self) -> None:
        self.now = 1_000_000.0


class Strand:
    """A thread that runs while `resume` waits for it, until it calls `park` or ends."""

    def __init__(self) -> None:
        self.over = False
        self._error: BaseException | None = None
        self._ready: Callable[[], bool] = lambda: True
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()

    def start(self, work: Callable[[], None]) -> None:
        """Have `work` ready to be resumed."""
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        self._go.acquire()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again where the test waits
            self._error = error
        self.over = True
        self._back.release()

    def park(self, ready: Callable[[], bool]) -> None:
        """On the strand: let the test go on; there is nothing to do here before `ready()`."""
        self._ready = ready
        self._back.release()
        self._go.acquire()

    @property
    def is_ready(self) -> bool:
        """Whether there is something to do."""
        return not self.over and self._ready()

    def resume(self) -> None:
        """Run it until it parks or ends. What it raised is raised here."""
        self._go.release()
        if not self._back.acquire(timeout=_HANG_SECONDS):
            raise AssertionError("a strand waits for something that is none of the test's")
        if self._error is not None:
            raise self._error


class StrandClock:
    """The clock of what runs on one strand: who waits for time parks."""

    def __init__(self, time: Time, strand: Strand) -> None:
        self._time, self._strand = time, strand

    def monotonic(self) -> float:
        return self._time.now

    def time(self) -> float:
        return self._time.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        until = self._time.now + seconds
        if not event.is_set():
            self._strand.park(lambda: event.is_set() or self._time.now >= until)
        return event.is_set()


class StrandInbox(Generic[T]):
    """In place of a worker's `queue.SimpleQueue`: who waits for an item parks."""

    def __init__(self, time: Time, strand: Strand) -> None:
        self._time, self._strand = time, strand
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        self._items.append(item)

    def get(self, timeout: float | None = None) -> T:
        until = None if timeout is None else self._time.now + timeout
        if not self._items:
            self._strand.park(
                lambda: bool(self._items) or (until is not None and self._time.now >= until)
            )
        return self.get_nowait()

    def get_nowait(self) -> T:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()
