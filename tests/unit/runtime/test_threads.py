"""A thread of ours: when its end is a fault, and when it is none."""

import threading

import pytest

from logfan.runtime.threads import OwnThread


def test_a_thread_that_is_just_starting_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks /readyz at that moment would end the daemon with 70."""
    end = threading.Event()

    def work() -> None:
        end.wait(60)

    own = OwnThread("one", work, lambda: None)
    started = own._thread._started  # type: ignore[attr-defined]
    go_on, seen = started.set, []

    def look() -> None:
        seen.append(own.fault)  # it has an ident, and is not alive yet
        go_on()

    monkeypatch.setattr(started, "set", look)
    own.start()
    assert seen == [None]
    assert own.fault is None
    own.may_end()
    end.set()
    assert own.join(60)
    assert own.fault is None


def test_a_thread_that_was_never_started_is_no_fault() -> None:
    own = OwnThread("one", lambda: None, lambda: None)
    assert own.fault is None
    assert own.join(0.0)
