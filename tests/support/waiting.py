"""Wait for a condition with a deadline, never for an amount of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 90.0
"""Longer than anything here takes on a busy machine: only a test that fails waits so long."""


def wait_until(
    condition: Callable[[], T], what: str | Callable[[], str], seconds: float = PATIENCE_SECONDS
) -> T:
    """Call `condition` until it gives something true, and return that. Fails after `seconds`.

    Between two calls it sleeps for twice as long as one takes: what is waited for needs the
    processor more than the question does. What is a call is asked only then, as for a log's end."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        result = condition()
        if result:
            return result
        now = time.monotonic()
        if now > deadline:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:.0f} s: {words} (last: {result!r})")
        time.sleep(min(max(0.01, 2 * (now - began)), 0.5))
