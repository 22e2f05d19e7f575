"""The one place where a sink's code is called: open, write, flush, close; and its back-off."""

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from logfan.record import Record
from logfan.runtime import forks
from logfan.runtime.backoff import Backoff
from logfan.runtime.clock import Clock
from logfan.runtime.foreign_text import describe, line_of, text_of, traceback_of, type_name
from logfan.sink import RecordsRejected, Sink, SinkUnavailable
from logfan.stage.stage import Stage, Staged
from logfan.telemetry.metrics import SinkStats
from logfan.telemetry.sink_health import HANGS_AFTER_SECONDS, Health, RecentLines, duration

log = logging.getLogger(__name__)

_LOGGED_MAX = 10
"""So many different failures of one outage are logged as they come; then reminders have to do."""
_TRACED_MAX = 100
_LONGEST_PACE_SECONDS = 3600.0
_SHORT_SECONDS = 10.0
_INDEX_CHARACTERS = 100
_TAKEN = (
    "it has not returned from its own code since before the reload, and is not opened a second "
    "time meanwhile; a restart, or other options, begin anew"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """The outcome of an attempt that failed, in text of our own: of what the sink raised nothing
    is kept, as it may be of any size and holds what its frames held."""

    why: str
    unavailable: bool = False
    """The sink reports that it is down: no evidence against a record."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """The records that it refused, for good, by their index; it took all others but `later`."""
    later: Mapping[int, str] = field(default_factory=dict)
    """The records that it wants later, by their index, and why."""
    retry_after: float = 0.0
    """How many seconds to wait at least."""
    traceback: str = ""
    """Empty where the sink raised `SinkUnavailable`."""

    @property
    def why_later(self) -> str:
        """Why it wants the first of `later` so."""
        return next(iter(self.later.values()), "")


PAUSED = Failure("paused", unavailable=True)
"""Nothing was offered: no evidence of anything, and no retry."""


class SinkRunner:
    """A sink, and when it is tried again. Used on the sink's thread; others read `health` and set
    `wake` and `quitting`, and the control socket's thread clears `opened`, to begin a pause."""

    def __init__(
        self,
        *,
        sink: Sink,
        backoff: Backoff,
        stats: SinkStats,
        held: Callable[[], int],
        clock: Clock,
        on_opened: Callable[[], None] = lambda: None,
        meanwhile: Callable[[], float | None] = lambda: None,
        is_taken: Callable[[], bool] = lambda: False,
    ) -> None:
        """`held` gives how many messages wait for the sink, for the log; `on_opened` is called
        once, when `has_opened` is set. `meanwhile` is called while the sink is waited for, and
        returns after how many seconds again; None: it need not be. `is_taken`: whether another
        thread is inside the code of this very sink, from before a reload."""
        self.name, self.stats, self.clock = sink.name, stats, clock
        self.health = stats.health = Health(clock.monotonic(), stats.pause)
        self.opened = False
        """False where `open` must be called before the next write."""
        self.has_opened = False
        """Whether it ever opened."""
        self.quitting = False
        """Set where the process must end, whatever is left."""
        self.holding = False
        """Whether something that it refused is held: then it is not up, whatever else it takes."""
        self.wake = threading.Event()
        """Set to cut the present back-off short."""
        self._sink = sink
        self._backoff = backoff
        self._held = held
        self._open_called = False
        self._on_opened = on_opened
        self._meanwhile = meanwhile
        self._is_taken = is_taken
        self._forks = forks.count
        self._called_at = 0.0
        self._logged: set[str] = set()
        self._traced: set[str] = set()
        self._logged_undecoded = RecentLines()
        self._logged_pace = False

    def offer(self, records: Sequence[Record]) -> Failure | None:
        """Open if need be, write and flush. None where all of it is taken and durable; else why
        not, and unless records were refused the sink must be opened anew."""
        health = self.health
        started = health.busy_since = self._called_at = self.clock.monotonic()
        rejected: Failure | None = None
        try:
            if not self.opened and not self._open():
                health.busy_since = None
                return PAUSED
            if records:
                rejected = self._write(records)
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, its records stay
            if forks.count != self._forks:
                forks.end_copy(self.name)
            self.opened = False
            failure = self._failure(error)
            health.failed(failure.why, started, self.clock.monotonic())
            health.busy_since = None
            return failure
        if forks.count != self._forks:
            forks.end_copy(self.name)
        now = self.clock.monotonic()
        if now - started >= HANGS_AFTER_SECONDS:
            # It was down, and the log line that it is up again has this reason.
            health.failed(f"had not returned for {duration(now - started)}", started, now)
        health.busy_since = None
        if records:
            self.stats.write_seconds.observe(now - started)
        if rejected is not None:
            return rejected
        if not self.holding:
            self.succeeded()
        return None

    def _open(self) -> bool:
        """False where the sink is paused, maybe since it was opened: a pause has it opened anew, so
        that what is looked at before each write need not be more than `opened`. Nor is anything
        written where the process, or its run before a reload, was to end meanwhile."""
        if self._is_paused():
            return False
        if self._is_taken():
            raise SinkUnavailable(_TAKEN)
        self._open_called = True
        try:
            self._sink.open()
        except RecordsRejected as rejected:
            raise TypeError(
                "open raised RecordsRejected, and has no records; raise SinkUnavailable"
            ) from rejected
        self.opened = True
        if not self.has_opened:
            self.has_opened = True
            self._on_opened()
        if self._is_paused():
            self.opened = False
        return self.opened and not self.quitting

    def _is_paused(self) -> bool:
        return self.stats.pause.is_on(self.clock.monotonic())

    def stage(self, stage: Stage, records: Sequence[Record]) -> Staged:
        """What the sink gets of them. A transform is a plugin's code: it may hang, as a sink
        may."""
        self.health.busy_since = self.clock.monotonic()
        staged = stage.apply(records)
        if forks.count != self._forks:
            forks.end_copy(self.name)
        self.health.busy_since = None
        why = next(iter(staged.undecoded.values()), "")
        if why and self._logged_undecoded.is_new(why, self.clock.monotonic()):
            log.warning(
                "sink %s: %s; it goes on as it came, and logfan_sink_undecided_records_total "
                "counts it", self.name, why,
            )  # fmt: skip
        return staged

    def _write(self, records: Sequence[Record]) -> Failure | None:
        """Write and flush. What a sink refuses it may know at either."""
        first: Failure | None = None
        given: Any = None
        try:
            given = self._sink.write(records)  # type: ignore[func-returns-value]
        except RecordsRejected as rejected:
            first = self._checked(rejected, len(records))
        if given is not None:
            _check_returned("write", given)
        try:
            given = self._sink.flush()  # type: ignore[func-returns-value]
        except RecordsRejected as rejected:
            second = self._checked(rejected, len(records))
            given = self._sink.flush()  # type: ignore[func-returns-value] # of all the others
            first = second if first is None else replace(
                second, reasons={**first.reasons, **second.reasons},
                later={**first.later, **second.later},
                retry_after=max(first.retry_after, second.retry_after),
            )  # fmt: skip
        if given is not None:
            _check_returned("flush", given)
        return first

    def _failure(self, error: BaseException) -> Failure:
        # By the type alone: an exception may lie about its class, or raise when it is asked.
        if issubclass(type(error), SinkUnavailable):
            why, pace = line_of(error) or "unavailable", self.pace_of(error)
            return Failure(why, unavailable=True, retry_after=pace)
        return Failure(describe(error), traceback=traceback_of(error))

    def _checked(self, rejected: RecordsRejected, count: int) -> Failure:
        """What it refuses, in text of our own. Raises where it names what was not offered, or one
        record twice, or where the plugin's mappings do."""
        reasons = _reasons(rejected.reasons, count)
        # A plugin's own kind of it may never have called our `__init__`.
        later = _reasons(getattr(rejected, "later", {}), count)
        if not reasons and not later:
            raise ValueError("RecordsRejected names no record")
        if both := reasons.keys() & later.keys():
            raise ValueError(f"RecordsRejected names record {min(both)} as refused and for later")
        return Failure(
            f"{counted(len(reasons), 'record')} refused", reasons=reasons, later=later,
            retry_after=self.pace_of(rejected),
        )  # fmt: skip

    def pace_of(self, error: object) -> float:
        """The seconds that a plugin asks for. What is no number is logged, once."""
        pace, odd = pace_and_doubt(error)
        if odd and not self._logged_pace:
            self._logged_pace = True
            log.warning(
                "sink %s: asks for retry_after = %s, which is no number of seconds: the sink is "
                "tried again by its retry.* instead; a mistake of the plugin's author",
                self.name, odd,
            )  # fmt: skip
        return pace

    def succeeded(self) -> None:
        health = self.health
        if health.failure is None:
            return
        now, attempts = self.clock.monotonic(), self._backoff.attempts
        why, seconds = health.failure, health.down_seconds(now)
        health.recovered(now)
        self.stats.paused = False
        if attempts or now - self._called_at >= HANGS_AFTER_SECONDS:
            after = counted(attempts, "attempt") if attempts else why
            log.info(
                "sink %s: up again; it was down for %s (%s)", self.name, duration(seconds), after
            )
        self._backoff.reset()
        self._logged.clear()

    def back_off(
        self, why: str, *, traceback: str = "", quick: bool = False, at_least: float = 0.0
    ) -> None:
        """Log why, and wait: the window stands still meanwhile, which is the backpressure.

        `traceback`: shown the first time. `quick`: the sink is alive, so that it need not
        be given ever more time. `at_least`: the seconds that it asks for."""
        self.stats.retries += 1
        self.health.failed(why, self._called_at, self.clock.monotonic())
        if quick:
            self._backoff.reset()
        delay = max(self._backoff.next(), at_least)
        if why not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(why)
            log.warning(
                "sink %s: %s; retrying in %s; %s held",
                self.name, why, f"{delay:.2g} s" if delay < _SHORT_SECONDS else duration(delay),
                counted(self._held(), "message"),
                extra={"traceback": "" if why in self._traced else traceback},
            )  # fmt: skip
            if traceback and len(self._traced) < _TRACED_MAX:
                self._traced.add(why)
        self.wait(delay)

    def pace(self) -> Backoff:
        """The delays between offers of one record; the same for each, so that those that were put
        off together stay together."""
        return self._backoff.without_jitter()

    def wait_while_paused(self) -> None:
        """Until the pause is over, or something wakes the thread to look again."""
        self.wait(self.stats.pause.until - self.clock.monotonic())

    def wait(self, seconds: float) -> None:
        """For so long, or until something wakes the thread or the process must end."""
        until = self.clock.monotonic() + seconds
        while not self.quitting and (left := until - self.clock.monotonic()) > 0:
            again = self._meanwhile()
            if again is None or again >= left:
                self.clock.wait(self.wake, left)
                break
            if self.clock.wait(self.wake, again):
                break
        self.wake.clear()

    def close(self) -> None:
        """Let the sink go. Nothing is called after that."""
        now = self.clock.monotonic()
        self.health.failed("stopped", now, now)
        if not self._open_called:
            return
        self.health.busy_since = now
        try:
            self._sink.close()
        except BaseException:
            log.warning("sink %s: close failed", self.name, exc_info=True)
        self.health.busy_since = None


def why_returned(method: str, given: object) -> str:
    """What is wrong with a method of a sink that returns this, which is not None."""
    what = "False" if given is False else f"a {type_name(given)}"
    if isinstance(given, Awaitable | AsyncIterator | Iterator):
        return f"{method} returned {what}, so it has done nothing yet; it must do its work itself"
    return (
        f"{method} returned {what}; it must return None where all is taken, else raise "
        "SinkUnavailable or RecordsRejected"
    )


def _check_returned(method: str, given: object) -> None:
    """Raises TypeError where what a sink returns shows that it did not take the records. Any other
    value may come of a call that did, and to write again would repeat it."""
    is_error = isinstance(given, BaseException) or (
        isinstance(given, type) and issubclass(given, BaseException)
    )
    if given is False or is_error or isinstance(given, Awaitable | AsyncIterator | Iterator):
        raise TypeError(why_returned(method, given))


def _reasons(given: Mapping[int, str], count: int) -> dict[int, str]:
    reasons: dict[int, str] = {}
    if not isinstance(given, Mapping):
        raise TypeError(f"RecordsRejected takes {{index: why}}, not a {type_name(given)}")
    for index in islice(given, count + 1):
        if (wrong := why_no_index(index, count)) is not None:
            raise ValueError(f"RecordsRejected names record {wrong}")
        reasons[index] = line_of(given[index])
    return reasons


def why_no_index(index: object, count: int) -> str | None:
    """Why it names no record of a batch of so many, beginning with what it is; None where it
    does."""
    if type(index) is not int:
        return (
            f"{text_of(index, _INDEX_CHARACTERS, repr)}, a {type_name(index)}: an index is an int, "
            "the place in what write got, from 0"
        )
    if not 0 <= index < count:
        return f"{index} of a batch of {count}: the index is the place in what write got, from 0"
    return None


def pace_and_doubt(error: object) -> tuple[float, str]:
    """The seconds that a plugin asks for with `retry_after`, within an hour, 0.0 where it names
    none; and what it asks for instead, where that is no number."""
    try:
        asked = getattr(error, "retry_after", None)
    except Exception:  # noqa: BLE001 - an exception of a plugin may raise when it is asked
        asked = None
    if asked is None:
        return 0.0, ""
    with suppress(Exception):  # so may its numbers
        # Text is what a header such as Retry-After holds.
        seconds = float(asked) if isinstance(asked, str) else asked
        if isinstance(seconds, int | float):
            return (float(min(seconds, _LONGEST_PACE_SECONDS)) if seconds > 0 else 0.0), ""
    return 0.0, line_of(text_of(asked, _INDEX_CHARACTERS, repr))


def counted(count: int, noun: str) -> str:
    """`1 message`, `1,000 messages`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
