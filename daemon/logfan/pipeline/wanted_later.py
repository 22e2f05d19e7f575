"""Records that their sink wants later: they stand aside and are offered again, all else goes on.

Each stays unacknowledged, as a batch of its own, and is offered again at a growing pace, with
others that are due then. Before the broker would take it back it is published to the daemon's queue
again, for its sink alone, so that no return is counted.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from logfan.dead_letters.letter import Refusal
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry
from logfan.pipeline.set_aside import Keep, Send, Sending, apart
from logfan.pipeline.sink_runner import SinkRunner, counted
from logfan.runtime.backoff import Backoff
from logfan.telemetry.sink_health import RecentLines, duration

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""So often it is looked whether a record has become late, or was handed back."""
_POLL_SECONDS = 0.2
_AT_STOP_SECONDS = 1.0
_RENEW_AGAIN_SECONDS = 0.5, 30.0
"""The first and the longest delay after late ones could not be published again."""


@dataclass(slots=True, eq=False)
class _Waiting:
    entry: Entry
    offers: Backoff
    due: float = 0.0
    """When it is offered again, in monotonic seconds."""


class WantedLater:
    """One sink's. Used on the sink's thread alone, but for the text of the health."""

    def __init__(
        self,
        *,
        runner: SinkRunner,
        send: Send | None,
        keep: Keep,
        finish: Callable[[Sequence[Batch]], None],
    ) -> None:
        """`send` publishes a late one to the daemon's queue; None where it cannot. `keep` and
        `finish` are as `RefusedRecords` has them."""
        self._runner = runner
        self._send = send
        self._keep = keep
        self._finish = finish
        self.held: dict[Batch, _Waiting] = {}
        """What stands aside, by its batch."""
        self._offered: dict[Batch, _Waiting] = {}
        """Those that the sink is offered now."""
        self._renewing: tuple[Sending, Sequence[_Waiting]] | None = None
        self._renew_again = Backoff(*_RENEW_AGAIN_SECONDS, jitter=False)
        self._renew_at = 0.0
        self._why = ""
        self._logged = RecentLines()

    def put(self, entries: Sequence[Entry], why: str, pace: float) -> None:
        """These stand aside from now on, for `pace` seconds at least. `why`: of the first."""
        now = self._runner.clock.monotonic()
        delays = []
        for entry in apart(entries, self._keep):
            one = self._offered.pop(entry.batch, None) or _Waiting(entry, self._runner.pace())
            one.entry = entry
            delays.append(max(one.offers.next(), pace))
            one.due = now + delays[-1]
            self.held[entry.batch] = one
        self._why = why
        health = self._runner.health
        health.later = (now if health.later is None else health.later[0]), self._text
        self._runner.stats.retries += 1
        if self._logged.is_new(why, now):
            log.warning(
                "sink %s: takes %s later: %s; offered again in %.2g s, not acknowledged before; "
                "all others go on",
                self._runner.name, counted(len(entries), "record"), why, min(delays),
            )  # fmt: skip

    def entry_of(self, batch: Batch) -> Entry | None:
        """What was noted of one that the sink is offered now; None of any other batch."""
        one = self._offered.get(batch)
        return None if one is None else one.entry

    def _text(self) -> str:
        # Any thread asks through the sink's health.
        return f"takes {counted(len(self.held), 'record')} later: {self._why}"

    def wait_seconds(self, *, offering: bool) -> float | None:
        """When to call `look` again, and `due` where the sink may be called now (`offering`); None
        where nothing stands aside."""
        if not self.held:
            return None
        if self._renewing is not None:
            return _POLL_SECONDS
        if not offering:
            return _LOOK_SECONDS
        due = min(one.due for one in self.held.values())
        return min(_LOOK_SECONDS, max(0.0, due - self._runner.clock.monotonic()))

    def hasten(self) -> None:
        """All of it is due at once."""
        for one in self.held.values():
            one.due = 0.0

    def look(self, *, stopping: bool) -> None:
        """Let go of what the broker delivers again, and renew what is late; where the process is
        `stopping` all is due within a second."""
        now = self._runner.clock.monotonic()
        if stopping:
            for one in self.held.values():
                one.due = min(one.due, now + _AT_STOP_SECONDS)
        self._done([one for one in self.held.values() if one.entry.batch.abandoned])
        if self._renewing is not None:
            sending, renewed = self._renewing
            if not sending.wait(0.0):
                return
            self._renewing = None
            failures = sending.failures
            if failures:
                self._renew_at = now + self._renew_again.next()
            else:
                self._renew_again.reset()
            self._done([one for at, one in enumerate(renewed) if at not in failures])
        late = [one for one in self.held.values() if one.entry.batch.late]
        if late and self._send is not None and now >= self._renew_at:
            self._renewing = self._send([self._renewal(one.entry) for one in late]), late

    def _renewal(self, entry: Entry) -> Refusal:
        return Refusal(
            entry.record, self._runner.name, self._why, entry.attempts, entry.first_failed_at,
            renew=True,
        )  # fmt: skip

    def due(self, *, max_records: int, max_bytes: int) -> Sequence[Batch]:
        """What the sink is to be offered again now, as much as one write may hold; and what was
        offered before is done, unless it was `put` back."""
        self.settle()
        now = self._runner.clock.monotonic()
        under_way = {one.entry.batch for one in self._renewing[1]} if self._renewing else ()
        size = 0
        for batch, one in self.held.items():
            if one.due > now or batch in under_way:
                continue
            size += batch.size
            if self._offered and (len(self._offered) == max_records or size > max_bytes):
                break
            self._offered[batch] = one
        for batch in self._offered:
            del self.held[batch]
        return [*self._offered]

    def settle(self) -> None:
        """What was offered and not `put` back is done."""
        self._offered.clear()
        health = self._runner.health
        if health.later is None or self.held:
            return
        now = self._runner.clock.monotonic()
        after = duration(now - health.later[0])
        health.later, health.up_since = None, now
        # Taken, refused, or given back to the broker, which may deliver them again.
        log.info("sink %s: wants no record later any more, after %s", self._runner.name, after)
        self._logged = RecentLines()

    def _done(self, gone: Sequence[_Waiting]) -> None:
        """These were published anew, or the broker delivers them again."""
        gone = [one for one in gone if self.held.pop(one.entry.batch, None) is not None]
        if gone:
            self._finish([one.entry.batch for one in gone])
            if not self._offered:
                self.settle()
