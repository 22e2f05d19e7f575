"""Handlers of signals for a while, and what a second signal does."""

import signal
import threading

from logfan.runtime.signals import first_and_second, handling


def test_the_handlers_are_there_for_a_while_and_a_blocked_signal_is_let_in() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with handling({signal.SIGHUP: lambda number, _: heard.append(number)}):
            signal.raise_signal(signal.SIGHUP)
            assert heard == [signal.SIGHUP]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, before)


def test_the_second_one_is_another() -> None:
    calls: list[object] = []
    handler = first_and_second(calls.append, lambda: calls.append("second"))
    for _ in range(3):
        handler(signal.SIGTERM, None)
    assert calls == [signal.SIGTERM, "second", "second"]


def test_on_another_thread_nothing_changes() -> None:
    found: list[object] = []

    def run() -> None:
        with handling({signal.SIGHUP: lambda *_: None}):
            found.append(signal.getsignal(signal.SIGHUP))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGHUP)]
