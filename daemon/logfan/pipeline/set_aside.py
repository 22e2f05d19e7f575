"""Refused records: dead-lettered, or set aside where that fails, while all else goes on.

What stands aside stays unacknowledged. Where the dead-letter queue fails its letters are sent
again, at a growing pace, and the sink counts as not ready; before the broker would take them back
they are published to the daemon's queue again, for their sink alone, so that no return
is counted. Where the broker does not take one letter, its record is offered to the sink again, ever
later.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from logfan.dead_letters.letter import Refusal, Unsent
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry
from logfan.pipeline.sink_runner import Failure, SinkRunner, counted
from logfan.runtime.backoff import Backoff
from logfan.runtime.foreign_text import cut, line_of
from logfan.telemetry.sink_health import RecentLines, duration

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_POLLS = 10
"""So often it is asked whether letters are confirmed before the sink goes on without them."""
_AGAIN_SECONDS = 0.5, 30.0
"""The first and the longest delay before letters are sent again."""
_LATE_SECONDS = 1.0
"""So often it is looked whether a record has become late, which cuts that delay short."""
_AT_STOP_SECONDS = 1.0
_OFFER_SECONDS = 2.0, 600.0
"""The same for a record that is offered again, since the broker takes no letter of it."""


class Sending(Protocol):
    """Refusals on their way to the dead-letter queue."""

    @property
    def failures(self) -> Mapping[int, Unsent]:
        """Which did not get there, by their index, once `wait` has returned True."""

    def wait(self, seconds: float) -> bool:
        """True once it is over."""


Send = Callable[[Sequence[Refusal]], Sending]
Keep = Callable[[Batch, Sequence[int]], Sequence[Batch]]


@dataclass(slots=True, eq=False)
class _Aside:
    """A record that stands aside, as a batch of its own."""

    entry: Entry
    offers: Backoff | None = None
    """Where it is its own letter that the broker does not take: when it is offered again."""
    due: float = 0.0
    renewed: bool = False
    """Whether it is on its way to the daemon's queue instead."""
    was_late: bool = False
    """Whether it was late when its letter was last sent."""

    @property
    def is_newly_late(self) -> bool:
        """Whether its turn comes before the delay is over, which happens once."""
        return self.offers is None and self.entry.batch.late and not self.was_late


def apart(entries: Sequence[Entry], keep: Keep) -> Sequence[Entry]:
    """The same, each of a batch of its own."""
    groups: dict[Batch, list[Entry]] = {}
    for entry in entries:
        if not entry.batch.alone:
            groups.setdefault(entry.batch, []).append(entry)
    own: dict[Entry, Batch] = {}
    for batch, group in groups.items():
        own.update(zip(group, keep(batch, [one.place for one in group]), strict=True))
    return [
        replace(entry, batch=own[entry], place=0) if entry in own else entry for entry in entries
    ]


class RefusedRecords:
    """One sink's. Used on the sink's thread alone, but for the text of `failure`."""

    def __init__(
        self,
        *,
        runner: SinkRunner,
        send: Send | None,
        keep: Keep,
        offer: Callable[[Entry], Failure | None],
        finish: Callable[[Sequence[Batch]], None],
    ) -> None:
        """`send` takes refusals to the dead-letter queue. `keep` makes a batch of its own of each
        of a batch's records at these places. `offer` offers its sink one alone, None where that is
        done with it after all; `finish` takes batches that are done."""
        self._runner = runner
        self._send = send
        self._keep = keep
        self._offer_again = offer
        self._finish = finish
        self.held: dict[Batch, _Aside] = {}
        """What stands aside, by its batch."""
        self._under_way: tuple[Sending, Sequence[_Aside]] | None = None
        self._again = Backoff(*_AGAIN_SECONDS, jitter=False)
        self._due = 0.0
        self._why = ""
        self._logged = RecentLines()
        self._logged_failures = RecentLines()

    def dead_letter(self, entries: Sequence[Entry]) -> bool:
        """Publish these and wait for the confirms. What cannot be published stands aside. False
        where the process must end before that is known."""
        if self.failure is not None or self._under_way is not None:
            self._set_aside(entries)
            return True
        sending = self._publish(entries)
        for _ in range(_POLLS):
            if self._runner.quitting:
                return False
            if sending.wait(_POLL_SECONDS):
                break
        else:
            self._under_way = sending, self._set_aside(entries)
            self._is_down("the broker has not answered yet")
            return True
        failures = sending.failures
        self._count([entry for at, entry in enumerate(entries) if at not in failures])
        if failures:
            aside = self._set_aside([entries[at] for at in failures])
            self._learn(aside, dict(enumerate(failures.values())))
        return True

    @property
    def failure(self) -> str | None:
        """Why no dead letters can be sent; None while they can."""
        return None if self._runner.health.letters is None else self._failure_text()

    def _failure_text(self) -> str:
        # Any thread asks through the sink's health.
        count = sum(one.offers is None for one in [*self.held.values()])
        return f"{counted(count, 'refused record')} cannot be dead-lettered: {self._why}"

    def wait_seconds(self) -> float | None:
        """When to call `look` again; None where nothing stands aside."""
        if not self.held:
            return None
        if self._under_way is not None:
            return _POLL_SECONDS
        dues = [self._due if one.offers is None else one.due for one in self.held.values()]
        return min(_LATE_SECONDS, max(_POLL_SECONDS, min(dues) - self._runner.clock.monotonic()))

    def forget_abandoned(self) -> Sequence[Entry]:
        """Let go of what the broker delivers again. Returns it."""
        abandoned = [one for one in self.held.values() if one.entry.batch.abandoned]
        self._done(abandoned)
        return [one.entry for one in abandoned]

    def look(self, *, stopping: bool, offering: bool = True) -> None:
        """Send what is due, or offer it again where `offering`; where the process is `stopping`,
        within a second."""
        now = self._runner.clock.monotonic()
        if stopping:
            self._due = min(self._due, now + _AT_STOP_SECONDS)
        if self._under_way is not None:
            sending, aside = self._under_way
            if sending.wait(0.0):
                self._under_way = None
                self._learn(aside, sending.failures)
        if self._under_way is not None:
            return
        waiting = [one for one in self.held.values() if one.offers is None]
        if waiting and (now >= self._due or any(one.is_newly_late for one in waiting)):
            self._publish_again(waiting)
            return
        for one in self.held.values() if offering else ():
            if one.offers is not None and now >= one.due:
                self._offer(one, one.offers)
                return

    def _offer(self, one: _Aside, offers: Backoff) -> None:
        """The sink may take it by now; else its letter is tried once more, alone."""
        one.due = self._runner.clock.monotonic() + offers.next()
        if one.entry.batch.rejection is None:  # else no sink is offered it
            failure = self._offer_again(one.entry)
            if failure is None:
                self._done([one])
                return
            if not failure.reasons:
                return
            one.entry.attempts += 1
            one.entry.reason = failure.reasons[0]
        self._publish_again([one], alone=True)

    def _publish(
        self, entries: Sequence[Entry], *, alone: bool = False, renew: bool = False
    ) -> Sending:
        """Send letters, each `alone` where the broker closes the connection over one of them; with
        `renew` to the daemon's own queue."""
        if self._send is None:
            raise RuntimeError("nothing is refused without a dead-letter queue")
        refusals = []
        for entry in entries:
            rejection = entry.batch.rejection
            sink = (rejection.sink if rejection is not None else "") or self._runner.name
            refusals.append(
                Refusal(
                    entry.record, sink, entry.reason, entry.attempts, entry.first_failed_at,
                    alone=alone, renew=renew,
                )
            )  # fmt: skip
        return self._send(refusals)

    def _publish_again(
        self, aside: Sequence[_Aside], *, alone: bool = False, renew: bool = False
    ) -> None:
        for one in aside:
            one.renewed, one.was_late = renew, one.entry.batch.late
        entries = [one.entry for one in aside]
        self._under_way = self._publish(entries, alone=alone, renew=renew), aside

    def _set_aside(self, entries: Sequence[Entry]) -> Sequence[_Aside]:
        """Each is a batch of its own from now on, so that what it came with can be finished."""
        aside = [_Aside(entry) for entry in apart(entries, self._keep)]
        self.held |= {one.entry.batch: one for one in aside}
        return aside

    def _learn(self, aside: Sequence[_Aside], failures: Mapping[int, Unsent]) -> None:
        """The outcome of sending the letters of these; failures by their index."""
        live = {index: one for index, one in enumerate(aside) if one.entry.batch in self.held}
        sent = [one for index, one in live.items() if index not in failures]
        self._count([one.entry for one in sent if not one.renewed])
        self._done(sent)
        general: list[_Aside] = []
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
                self._publish_again(late, renew=True)
        elif not any(one.offers is None for one in self.held.values()):
            self._is_up()

    def _count(self, entries: Sequence[Entry]) -> None:
        """The dead letters of these are confirmed."""
        if not entries:
            return
        for entry in entries:
            self._runner.stats.note_dead_letter(entry.reason)
        reason = entries[0].reason
        if self._logged.is_new(reason, self._runner.clock.monotonic()):
            log.warning(
                "sink %s: %s refused and dead-lettered (the first: %s)",
                self._runner.name, counted(len(entries), "record"), reason,
            )  # fmt: skip

    def _is_down(self, why: str) -> None:
        now = self._runner.clock.monotonic()
        delay = self._again.next()
        self._due = now + delay
        self._why = why
        health = self._runner.health
        health.letters = (now if health.letters is None else health.letters[0]), self._failure_text
        self._runner.stats.retries += 1
        if self._logged_failures.is_new(why, now):
            log.warning(
                "sink %s: %s; sent again in %.2g s; they stay unacknowledged, and all others go on",
                self._runner.name, self.failure, delay,
            )  # fmt: skip

    def _is_up(self) -> None:
        health = self._runner.health
        if health.letters is None:
            return
        now = self._runner.clock.monotonic()
        after = duration(now - health.letters[0])
        health.letters, health.up_since = None, now
        # Sent, or given back to the broker, which may deliver them again.
        log.info(
            "sink %s: no refused record waits for the dead-letter queue any more, after %s",
            self._runner.name, after,
        )  # fmt: skip
        self._again.reset()
        self._logged_failures = RecentLines()

    def _is_its_own(self, one: _Aside, unsent: Unsent) -> None:
        """The broker takes no letter of this record: it is named, and the others go on."""
        if one.offers is None:
            one.offers = Backoff(*_OFFER_SECONDS, jitter=False)
            one.due = self._runner.clock.monotonic() + one.offers.next()
        self._runner.stats.retries += 1
        record, name = one.entry.record, self._runner.name
        log.warning(
            "sink %s: the message with id %r (%d bytes) is refused (%s), and the broker does not "
            "take its dead letter: %s; it stays unacknowledged and is offered again in %.0f s, all "
            "others go on. Have the sink take it, raise max_message_size at the broker, or set "
            "sinks.%s.required = false",
            name, cut(line_of(record.message_id or ""), 100), record.size, one.entry.reason,
            unsent.why, one.due - self._runner.clock.monotonic(), name,
        )  # fmt: skip

    def _done(self, aside: Sequence[_Aside]) -> None:
        """These are dead-lettered, taken or abandoned."""
        gone = [one for one in aside if self.held.pop(one.entry.batch, None) is not None]
        if gone:
            self._finish([one.entry.batch for one in gone])
            if not self.held:
                self._is_up()
