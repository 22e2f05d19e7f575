"""Whether a sink is up, and if not, why and since when. Sans-I/O.

Metrics, `/readyz`, the status page, STATUS and the log all ask here, so that they agree. Each
value has one writer, but `failing_since`, and any thread may read.
"""

import math
from collections.abc import Callable

HANGS_AFTER_SECONDS = 30.0
"""A sink that has not returned from one call for so long is down."""
_REMIND_FIRST_SECONDS = 60.0
_REMIND_MAX_SECONDS = 3600.0
_RECENT_SECONDS = 60.0
_RECENT_MAX = 100

_NOT_OPENED = "not opened yet"

Text = Callable[[], str]


class Pause:
    """A sink is offered nothing for a while, as an operator asked. It ends by itself. Written by
    the control socket's thread; times in monotonic seconds."""

    __slots__ = ("since", "until", "why")

    def __init__(self) -> None:
        self.since = self.until = -math.inf
        """When the last pause began, and when it ends or ended."""
        self.why = ""
        """As the log and the views show it."""

    def begin(self, now: float, seconds: float, why: str) -> None:
        """For so long from `now` on; a pause that is on gets this limit in place of its own."""
        if not self.is_on(now):
            self.since = now
        self.why, self.until = why, now + seconds

    def end(self, now: float) -> None:
        """Before its time."""
        self.until = min(self.until, now)

    def is_on(self, now: float) -> bool:
        """Whether the sink is to be offered nothing."""
        return now < self.until


class Health:
    """One sink's."""

    __slots__ = (
        "busy_since", "failing_since", "failure", "fault", "later", "letters", "pause", "up_since",
    )  # fmt: skip

    def __init__(self, now: float, pause: Pause | None = None) -> None:
        """`now` and every other time in monotonic seconds. While the sink is paused it is down."""
        self.pause = pause or Pause()
        self.failure: str | None = _NOT_OPENED
        """Why its last call failed; None where it did not. Written by the sink's thread."""
        self.failing_since = now
        """Since when there is a failure, or a fault. Written by the sink's thread, and by one that
        ended and should not have."""
        self.up_since = now
        """When the last outage ended. Written by the sink's thread."""
        self.busy_since: float | None = None
        """Since when the thread is inside the sink's code; None while it is not. Written by it."""
        self.letters: tuple[float, Text] | None = None
        """Since when what it refuses cannot be dead-lettered, and what gives the text; None where
        it can. Written by the sink's thread."""
        self.later: tuple[float, Text] | None = None
        """The same of records that it wants later."""
        self.fault: str | None = None
        """How a thread ended that should not have. Written by that thread; for good."""

    def failed(self, why: str, began: float, now: float) -> None:
        """A call that `began` then has failed `now`. An outage that it belongs to goes on."""
        if self.failure is None:
            # Where it hung before it failed, it was down before it failed.
            self.failing_since = min(now, began + HANGS_AFTER_SECONDS)
        self.failure = why

    def recovered(self, now: float) -> None:
        """A call went well: no failure any more."""
        self.failure = None
        self.up_since = now

    @property
    def is_opening(self) -> bool:
        """Whether it was never opened, and nothing failed so far."""
        return self.failure == _NOT_OPENED and self.fault is None

    def takes_records(self, now: float) -> bool:
        """Whether the sink itself is up, whatever becomes of what it refuses."""
        failed = self.failure is not None or self.fault is not None
        return not (failed or self.pause.is_on(now) or self.hangs_for(now) is not None)

    def down_since(self, now: float) -> float | None:
        """Since when it is down; None while it is up."""
        since = [self.failing_since] if self.failure is not None or self.fault is not None else []
        hangs_for = self.hangs_for(now)
        if self.pause.is_on(now):
            since.append(self.pause.since)
        since += [waits[0] for waits in (self.letters, self.later) if waits is not None]
        if hangs_for is not None:
            since.append(now - hangs_for + HANGS_AFTER_SECONDS)
        return min(since, default=None)

    def down_seconds(self, now: float) -> float:
        """For how long it is down; 0.0 while it is up."""
        since = self.down_since(now)
        return 0.0 if since is None else max(0.0, now - since)

    def hangs_for(self, now: float) -> float | None:
        """How long it has not returned from a call, where that is too long; else None."""
        busy_since = self.busy_since
        if busy_since is None or now - busy_since < HANGS_AFTER_SECONDS:
            return None
        return now - busy_since

    def why(self, now: float) -> str | None:
        """Why it is down; None while it is up."""
        if self.fault is not None:
            return self.fault
        hangs_for, failure = self.hangs_for(now), self.failure
        reasons = [self.pause.why] if self.pause.is_on(now) else []
        if failure is not None:
            reasons.append(failure)
        reasons += [waits[1]() for waits in (self.letters, self.later) if waits is not None]
        if hangs_for is not None:
            reasons.append(f"has not returned for {hangs_for:.0f} s")
        return "; and ".join(reasons) or None


class Reminders:
    """When to log an outage again: after 1 min, 2 more, 4 more, at last once an hour."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = self._pause = 0.0

    def is_due(self, down_since: float | None, now: float) -> bool:
        """Ask now and then; `down_since` as `Health` has it."""
        if down_since is None or self._since is None or down_since > self._since:
            self._since, self._pause = down_since, _REMIND_FIRST_SECONDS
            self._next = (down_since or now) + self._pause
        if down_since is None or now < self._next:
            return False
        self._pause = min(2 * self._pause, _REMIND_MAX_SECONDS)
        self._next = now + self._pause
        return True


class RecentLines:
    """Which lines were logged lately, so that the log has what is new and not what is known."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def is_new(self, text: str, now: float) -> bool:
        """True, once a minute, for each text. `now` in monotonic seconds."""
        logged_at = self._logged_at.get(text)
        if logged_at is not None and now - logged_at < _RECENT_SECONDS:
            return False
        if len(self._logged_at) >= _RECENT_MAX:
            self._logged_at.clear()
        self._logged_at[text] = now
        return True


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
