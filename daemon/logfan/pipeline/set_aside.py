"""Refused records whose dead letters cannot be sent: they stand aside, and all else goes on.

They stay unacknowledged. Where the dead-letter queue is in trouble their letters are sent again, at
a growing pace, and the sink counts as not ready; before the broker would take them back they are
published to the daemon's queue again, for their sink alone, so that none loses a life there. Where
it is one letter that the broker will not take, its record is offered to the sink again, ever later.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from logfan.dead_letters.letter import Refusal, Unsent
from logfan.pipeline.poison import Entry
from logfan.pipeline.sink_runner import News, SinkRunner, counted
from logfan.runtime.backoff import Backoff
from logfan.runtime.clock import Clock
from logfan.runtime.foreign_text import cut, line_of
from logfan.telemetry.metrics import SinkStats
from logfan.telemetry.sink_health import duration

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_AGAIN_SECONDS = 0.5, 30.0
"""The first and the longest delay before letters are sent again."""
_HURRY_SECONDS = 1.0
_OFFER_SECONDS = 2.0, 600.0
"""The same for a record that is offered again, since the broker takes no letter of it."""


class Sending(Protocol):
    """Refusals on their way to the dead-letter queue."""

    @property
    def failures(self) -> Mapping[int, Unsent]:
        """Which did not get there, by their index, once `wait` said that it is over."""

    def wait(self, seconds: float) -> bool:
        """True once it is over."""


Send = Callable[[Sequence[Refusal]], Sending]


@dataclass(slots=True, eq=False)
class _Kept:
    """A record that stands aside."""

    entry: Entry
    offers: Backoff | None = None
    """Where it is its own letter that the broker does not take: when it is offered again."""
    due: float = 0.0
    renewed: bool = False
    """Whether it is on its way to the daemon's queue instead."""


class Aside:
    """One sink's. Used on the sink's thread alone, but for `trouble`."""

    def __init__(
        self,
        *,
        runner: SinkRunner,
        stats: SinkStats,
        send: Callable[[Sequence[Entry], bool, bool], Sending],
        taken: Callable[[Entry], None],
        dead_lettered: Callable[[Sequence[Entry]], None],
        done: Callable[[Sequence[Entry]], None],
        clock: Clock,
    ) -> None:
        """`send` sends letters: each alone, or to the daemon's own queue, where the second or the
        third argument says so. `taken`, `dead_lettered` and `done` hear of an entry that the sink
        took after all, of those that are dead-lettered, and of those that are done."""
        self._runner = runner
        self._stats = stats
        self._send, self._taken, self._buried, self._done = send, taken, dead_lettered, done
        self._clock = clock
        self._kept: list[_Kept] = []
        self._under_way: tuple[Sending, list[_Kept]] | None = None
        self._again = Backoff(*_AGAIN_SECONDS, jitter=False)
        self._due = 0.0
        self._why = ""
        self._news = News()

    def __bool__(self) -> bool:
        return bool(self._kept)

    @property
    def trouble(self) -> str | None:
        """Why no dead letters can be sent; None while they can."""
        return None if self._runner.health.letters is None else self._words()

    def _words(self) -> str:
        # Any thread asks through the sink's health.
        count = sum(one.offers is None for one in self._kept)
        return f"{counted(count, 'refused record')} cannot be dead-lettered: {self._why}"

    def add(self, entries: Sequence[Entry], unsent: Sequence[Unsent]) -> None:
        """The letters of these were not sent, and why."""
        kept = [_Kept(entry) for entry in entries]
        self._kept += kept
        self._learn(kept, dict(enumerate(unsent)))

    def add_under_way(self, entries: Sequence[Entry], sending: Sending) -> None:
        """What becomes of the letters of these is not known yet. Only while all is well."""
        kept = [_Kept(entry) for entry in entries]
        self._kept += kept
        self._under_way = sending, kept
        self._is_down("the broker has not answered yet")

    def join(self, entries: Sequence[Entry]) -> None:
        """Letters cannot be sent now, as `trouble` says: these wait with the others."""
        self._kept += [_Kept(entry) for entry in entries]

    def retry_now(self) -> None:
        """The process is to end: letters are sent again within a second."""
        self._due = min(self._due, self._clock.monotonic() + _HURRY_SECONDS)

    def wait_seconds(self) -> float | None:
        """When to call `look` again; None where nothing stands aside."""
        if not self._kept:
            return None
        if self._under_way is not None:
            return _POLL_SECONDS
        dues = [one.due if one.offers is not None else self._due for one in self._kept]
        return max(_POLL_SECONDS, min(dues) - self._clock.monotonic())

    def look(self) -> None:
        """Send or offer again what is due."""
        self._forget([one for one in self._kept if one.entry.batch.abandoned])
        if self._under_way is not None:
            sending, kept = self._under_way
            if not sending.wait(0.0):
                return
            self._under_way = None
            if self._learn(kept, sending.failures):
                return
        now = self._clock.monotonic()
        waiting = [one for one in self._kept if one.offers is None]
        if waiting and now >= self._due:
            self._submit(waiting)
            return
        for one in self._kept:
            if one.offers is not None and now >= one.due:
                self._offer(one, one.offers)
                return

    def _offer(self, one: _Kept, offers: Backoff) -> None:
        """The sink may take it by now; else its letter is tried once more, alone."""
        if one.entry.batch.rejection is not None:  # which no sink shall be offered
            one.due = self._clock.monotonic() + offers.next()
            self._submit([one], alone=True)
            return
        outcome = self._runner.offer([one.entry.record])
        one.due = self._clock.monotonic() + offers.next()
        if outcome is None:
            self._taken(one.entry)
            self._forget([one])
        elif outcome.reasons:
            one.entry.attempts += 1
            one.entry.reason = outcome.reasons[0]
            self._submit([one], alone=True)

    def _submit(self, kept: list[_Kept], *, alone: bool = False, renew: bool = False) -> None:
        for one in kept:
            one.renewed = renew
        self._under_way = self._send([one.entry for one in kept], alone, renew), kept

    def _learn(self, kept: list[_Kept], failures: Mapping[int, Unsent]) -> bool:
        """What came of their letters. True where some are on their way again."""
        live = {index: one for index, one in enumerate(kept) if one in self._kept}
        there = [one for index, one in live.items() if index not in failures]
        dead_lettered = [one for one in there if not one.renewed]
        if dead_lettered:
            self._buried([one.entry for one in dead_lettered])
        self._forget(there)
        general: list[_Kept] = []
        why = ""
        for index, one in live.items():
            unsent = failures.get(index)
            if unsent is None:
                continue
            if unsent.own and not one.renewed:
                self._is_its_own(one, unsent)
            elif one.offers is None:
                general.append(one)
                why = why or unsent.why
        if general:
            self._is_down(why)
            late = [one for one in general if one.entry.batch.late and not one.renewed]
            if late and self._under_way is None:
                self._submit(late, renew=True)
                return True
        elif not any(one.offers is None for one in self._kept):
            self._is_up()
        return False

    def _is_down(self, why: str) -> None:
        now = self._clock.monotonic()
        delay = self._again.next()
        self._due = now + delay
        self._why = why
        health = self._runner.health
        health.letters = (now if health.letters is None else health.letters[0]), self._words
        self._stats.retries += 1
        if self._news.is_news(why, now):
            log.warning(
                "sink %s: %s; sent again in %.2g s; they stay unacknowledged, and all others go on",
                self._runner.name, self.trouble, delay,
            )  # fmt: skip

    def _is_up(self) -> None:
        health = self._runner.health
        if health.letters is None:
            return
        seconds = self._clock.monotonic() - health.letters[0]
        health.letters = None
        log.info(
            "sink %s: dead letters can be sent again, after %s", self._runner.name,
            duration(seconds),
        )  # fmt: skip
        self._again.reset()
        self._news = News()

    def _is_its_own(self, one: _Kept, unsent: Unsent) -> None:
        """The broker takes no letter of this record: it is named, and the others go on."""
        if one.offers is None:
            one.offers = Backoff(*_OFFER_SECONDS, jitter=False)
            one.due = self._clock.monotonic() + one.offers.next()
        self._stats.retries += 1
        record, name = one.entry.record, self._runner.name
        log.warning(
            "sink %s: the message with id %r (%d bytes) is refused (%s), and the broker does not "
            "take its dead letter: %s; it stays unacknowledged and is offered again in %.0f s, all "
            "others go on. Have the sink take it, raise max_message_size at the broker, or set "
            "sinks.%s.required = false",
            name, cut(line_of(record.message_id or ""), 100), record.size, one.entry.reason,
            unsent.why, one.due - self._clock.monotonic(), name,
        )  # fmt: skip

    def _forget(self, kept: Sequence[_Kept]) -> None:
        gone = [one for one in kept if one in self._kept]
        if gone:
            self._kept = [one for one in self._kept if one not in gone]
            self._done([one.entry for one in gone])
            if not self._kept:
                self._is_up()
