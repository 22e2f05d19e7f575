"""Signals: handlers for a while, and what a second one does. Main thread only."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handling(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Have these signals handled so, and as before afterwards. One that was blocked is let in.

    On another thread than the main one, where Python takes no handlers, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def first_and_second(first: Callable[[int], None], second: Callable[[], None]) -> Handler:
    """A handler that calls `first` with the signal's number, and `second` for each later one."""
    calls = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            first(number)
        else:
            second()

    return handle
