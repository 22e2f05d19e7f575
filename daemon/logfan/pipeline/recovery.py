"""What becomes of records that a sink did not take: offered again, alone, or dead-lettered.

The slow path beside the worker's: it is entered with a failure and left once the sink has or
refuses everything. What to offer and what counts as evidence is decided in `poison`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from logfan.dead_letters.letter import Refusal
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry, Recovery, Refusals
from logfan.pipeline.set_aside import Aside, Send, Sending
from logfan.pipeline.sink_runner import Failure, News, SinkRunner, counted
from logfan.runtime.clock import Clock
from logfan.telemetry.metrics import SinkStats

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_POLLS = 10
"""So often it is asked whether letters are confirmed before the sink goes on without them."""


Keep = Callable[[Batch, Sequence[int]], Sequence[Batch]]


class SinkRecovery:
    """One sink's. Used on the sink's thread alone."""

    def __init__(
        self,
        *,
        runner: SinkRunner,
        stats: SinkStats,
        max_records: int,
        max_bytes: int,
        send: Send | None,
        max_ratio: float,
        arrived: Callable[[], Sequence[Entry]],
        finish: Callable[[Sequence[Batch]], None],
        keep: Keep,
        clock: Clock,
    ) -> None:
        """`arrived` gives what came for the sink meanwhile, `finish` takes batches that are done,
        `keep` makes batches of their own of records whose dead letters cannot be sent.
        `send` None: nothing is refused, but offered without end."""
        self._runner = runner
        self._stats = stats
        self._max_records, self._max_bytes = max_records, max_bytes
        self._send = send
        self._max_ratio = max_ratio
        self._refusals = Refusals(max_ratio)
        self._arrived = arrived
        self._finish = finish
        self._keep = keep
        self._clock = clock
        self.aside = Aside(
            runner=runner, stats=stats, send=self._send_letters,
            taken=lambda _entry: self.took(1), dead_lettered=self._count_buried,
            done=lambda entries: finish([entry.batch for entry in entries]), clock=clock,
        )  # fmt: skip
        """What could not be dead-lettered."""
        self._left: Counter[Batch] = Counter()
        self._news = News()

    def took(self, count: int) -> None:
        """The sink has so many more records durably."""
        self._stats.written += count
        self._refusals.taken(count)

    def open(self) -> None:
        """Open the sink, once; where that fails, wait."""
        failure = self._runner.offer(())
        if failure is not None:
            self._runner.back_off(failure.why, traceback=failure.traceback)

    def run(
        self, offered: Sequence[Entry], failure: Failure | None, others: Sequence[Entry]
    ) -> None:
        """Until nothing of it is left, or the process must end. `failure` is what came of writing
        the `offered` ones; the `others` were not offered yet, and come after them."""
        recovery = Recovery(
            (), max_records=self._max_records, max_bytes=self._max_bytes,
            refusing=self._send is not None,
        )  # fmt: skip
        self._left.clear()
        self._enter(recovery, [*offered, *others])
        if failure is not None:
            self._learn(recovery, offered, failure)
        while not self._runner.quitting:
            self._dead_letter(recovery)
            if recovery.wants_company:
                self._enter(recovery, self._arrived())
            offer = recovery.offer()
            self._finish_done(recovery)
            if not offer:
                if self._runner.health.trouble is not None:
                    # What it was about was handed back meanwhile. Nothing comes for a sink that
                    # is down, so nothing but `open` can tell that it is up.
                    self._runner.opened = False
                return
            outcome = self._runner.offer([entry.record for entry in offer])
            if outcome is None:
                recovery.taken(offer)
                self.took(len(offer))
                self._finish_done(recovery)
            else:
                self._learn(recovery, offer, outcome)

    def _enter(self, recovery: Recovery, entries: Sequence[Entry]) -> None:
        self._left.update(entry.batch for entry in entries)
        recovery.extend(entries)
        condemned = [entry for entry in entries if entry.batch.rejection is not None]
        for entry in condemned:
            entry.reason = entry.batch.rejection.reason if entry.batch.rejection is not None else ""
            entry.first_failed_at = self._clock.time()
        recovery.refuse(condemned)

    def _learn(self, recovery: Recovery, offered: Sequence[Entry], failure: Failure) -> None:
        """What the failure says about the sink and about the records; then wait, where need be."""
        now, why = self._clock.time(), failure.why
        if failure.reasons:
            refused = recovery.rejected(offered, failure.reasons, now)
            self.took(len(offered) - len(refused))
            why = f"refused {counted(len(refused), 'record')} (the first: {refused[0].reason})"
        elif failure.unavailable:
            recovery.unavailable(offered, now)
            refused = ()
        else:
            refused = recovery.failed(offered, why, now)
        if refused and self._send is None:
            why += "; dead_letter.enabled is false, so they are offered again"
        elif refused and self._refusals.refused(len(refused)):
            recovery.refuse(refused)
            self._runner.succeeded()
            return
        elif refused:
            self._stats.paused = True
            why = (
                f"paused, as it refuses more than dead_letter.max_ratio ({self._max_ratio:g}) of "
                f"the last 1,000 records; the first of {len(refused)}: {refused[0].reason}"
            )
        self._runner.back_off(
            why, traceback=failure.traceback, quick=recovery.is_alive and not refused
        )

    def _dead_letter(self, recovery: Recovery) -> None:
        """Publish what is refused. What cannot be published stands aside, and all else goes on."""
        gone = [entry for entry in recovery.refused if entry.batch.abandoned]
        recovery.dead_lettered(gone)
        entries = recovery.refused
        if not entries or self._send is None:
            return
        if self.aside.trouble is not None:
            self.aside.join(self._put_aside(entries))
            recovery.dead_lettered(entries)
            self._finish_done(recovery)
            return
        sending = self._send_letters(entries, False, False)
        for _ in range(_POLLS):
            if self._runner.quitting or sending.wait(_POLL_SECONDS):
                break
        else:
            self.aside.add_under_way(self._put_aside(entries), sending)
            recovery.dead_lettered(entries)
            self._finish_done(recovery)
            return
        if self._runner.quitting:
            return
        failures = sending.failures
        there = [entry for index, entry in enumerate(entries) if index not in failures]
        if there:
            self._count_buried(there)
        failed = [entries[index] for index in failures]
        if failed:
            self.aside.add(self._put_aside(failed), [*failures.values()])
        recovery.dead_lettered(entries)
        if self._runner.opened:
            self._runner.succeeded()
        self._finish_done(recovery)

    def _put_aside(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Each is a batch of its own from now on, so that what it came with can be finished."""
        groups: dict[Batch, list[Entry]] = {}
        for entry in entries:
            groups.setdefault(entry.batch, []).append(entry)
        own: dict[Entry, Batch] = {}
        for batch, group in groups.items():
            kept = self._keep(batch, [entry.place for entry in group])
            own.update(zip(group, kept, strict=True))
        return [replace(entry, batch=own[entry]) for entry in entries]

    def _count_buried(self, entries: Sequence[Entry]) -> None:
        self._stats.rejected += len(entries)
        self._stats.dead_lettered += len(entries)
        reason = entries[0].reason
        if self._news.is_news(reason, self._clock.monotonic()):
            log.warning(
                "sink %s: %s refused and dead-lettered (the first: %s)",
                self._runner.name, counted(len(entries), "record"), reason,
            )  # fmt: skip

    def _send_letters(self, entries: Sequence[Entry], alone: bool, renew: bool) -> Sending:
        if self._send is None:
            raise RuntimeError("nothing is refused without a dead-letter queue")
        refusals = [self._refusal(entry) for entry in entries]
        return self._send([replace(one, alone=alone, renew=renew) for one in refusals])

    def _refusal(self, entry: Entry) -> Refusal:
        rejection = entry.batch.rejection
        return Refusal(
            record=entry.record,
            sink=(rejection.sink if rejection is not None else "") or self._runner.name,
            reason=entry.reason,
            attempts=entry.attempts,
            first_failed_at=entry.first_failed_at,
        )

    def _finish_done(self, recovery: Recovery) -> None:
        done, recovery.done = recovery.done, []
        finished = []
        for entry in done:
            self._left[entry.batch] -= 1
            if not self._left[entry.batch]:
                del self._left[entry.batch]
                finished.append(entry.batch)
        self._finish(finished)
