"""What becomes of records that a sink did not take: offered again, alone, or dead-lettered.

The slow road beside the worker's: it is entered with a failure and left once the sink has or
refuses everything. What to offer and what counts as evidence is decided in `poison`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from logfan.clock import Clock
from logfan.handle import Failure, News, SinkHandle, counted
from logfan.ledger import Batch
from logfan.letters import Refusal, Unsent
from logfan.metrics import SinkNumbers
from logfan.poison import Entry, Recovery, Refusals

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


class Sending(Protocol):
    """Refusals on their way to the dead-letter queue."""

    @property
    def failures(self) -> Mapping[int, Unsent]:
        """Which did not get there, by their index, once `wait` said that it is over."""

    def wait(self, seconds: float) -> bool:
        """True once it is over."""


Send = Callable[[Sequence[Refusal]], Sending]


class Rescue:
    """One sink's. Used on the sink's thread alone."""

    def __init__(
        self,
        *,
        handle: SinkHandle,
        numbers: SinkNumbers,
        max_records: int,
        max_bytes: int,
        send: Send | None,
        max_ratio: float,
        arrived: Callable[[], Sequence[Entry]],
        finish: Callable[[Sequence[Batch]], None],
        clock: Clock,
    ) -> None:
        """`arrived` gives what came for the sink meanwhile, `finish` takes batches that are done.
        `send` None: nothing is refused, but offered without end."""
        self._handle = handle
        self._numbers = numbers
        self._max_records, self._max_bytes = max_records, max_bytes
        self._send = send
        self._max_ratio = max_ratio
        self._refusals = Refusals(max_ratio)
        self._arrived = arrived
        self._finish = finish
        self._clock = clock
        self._left: Counter[Batch] = Counter()
        self._news = News()

    def took(self, count: int) -> None:
        """The sink has so many more records durably."""
        self._numbers.written += count
        self._refusals.taken(count)

    def open(self) -> None:
        """Open the sink, once; where that fails, wait."""
        failure = self._handle.offer(())
        if failure is not None:
            self._handle.back_off(failure.why, traceback=failure.traceback)

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
        while not self._handle.quitting:
            if not self._bury(recovery):
                continue
            if recovery.wants_company:
                self._enter(recovery, self._arrived())
            offer = recovery.offer()
            self._finish_done(recovery)
            if not offer:
                if self._handle.health.trouble is not None:
                    # What it was about was handed back meanwhile. Nothing comes for a sink that
                    # is down, so nothing but `open` can tell that it is up.
                    self._handle.opened = False
                return
            outcome = self._handle.offer([entry.record for entry in offer])
            if outcome is None:
                recovery.taken(offer)
                self.took(len(offer))
                self._finish_done(recovery)
            else:
                self._learn(recovery, offer, outcome)

    def _enter(self, recovery: Recovery, entries: Sequence[Entry]) -> None:
        self._left.update(entry.batch for entry in entries)
        recovery.extend(entries)
        condemned = [entry for entry in entries if entry.batch.verdict is not None]
        for entry in condemned:
            entry.reason = entry.batch.verdict.reason if entry.batch.verdict is not None else ""
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
            self._handle.succeeded()
            return
        elif refused:
            self._numbers.paused = True
            why = (
                f"paused, as it refuses more than dead_letter.max_ratio ({self._max_ratio:g}) of "
                f"the last 1,000 records; the first of {len(refused)}: {refused[0].reason}"
            )
        self._handle.back_off(
            why, traceback=failure.traceback, quick=recovery.is_alive and not refused
        )

    def _bury(self, recovery: Recovery) -> bool:
        """Publish what is refused. False where that failed and is to be tried again."""
        gone = [entry for entry in recovery.refused if entry.batch.abandoned]
        recovery.buried(gone)
        entries = recovery.refused
        if not entries or self._send is None:
            return True
        sending = self._send([self._refusal(entry) for entry in entries])
        while not sending.wait(_POLL_SECONDS):
            if self._handle.quitting:
                return False
        failures = sending.failures
        there = [entry for index, entry in enumerate(entries) if index not in failures]
        if there:
            self._numbers.rejected += len(there)
            self._numbers.dead_lettered += len(there)
            reason = there[0].reason
            if self._news.is_news(reason, self._clock.monotonic()):
                log.warning(
                    "sink %s: %s refused and dead-lettered (the first: %s)",
                    self._handle.name, counted(len(there), "record"), reason,
                )  # fmt: skip
            recovery.buried(there)
        if failures:
            refused = counted(len(failures), "refused record")
            why = next(iter(failures.values())).why
            self._handle.back_off(f"{refused} cannot be dead-lettered: {why}")
        elif self._handle.opened:
            self._handle.succeeded()
        self._finish_done(recovery)
        return not failures

    def _refusal(self, entry: Entry) -> Refusal:
        verdict = entry.batch.verdict
        return Refusal(
            record=entry.record,
            sink=(verdict.sink if verdict is not None else "") or self._handle.name,
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
