"""What becomes of records that a sink did not take: offered again, alone, or dead-lettered.

The slow path beside the worker's: it is entered with a failure, or with what is more than one write
may hold, and left once the sink has or refuses everything. What to offer and what counts as
evidence is decided in `poison`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry, Refusals, RetryQueue
from logfan.pipeline.set_aside import Keep, RefusedRecords, Send
from logfan.pipeline.sink_runner import Failure, SinkRunner, counted
from logfan.runtime.clock import Clock
from logfan.stage.stage import Stage
from logfan.telemetry.metrics import SinkStats


class SinkRecovery:
    """One sink's. Used on the sink's thread alone."""

    def __init__(
        self,
        *,
        runner: SinkRunner,
        stage: Stage | None,
        stats: SinkStats,
        max_records: int,
        max_bytes: int,
        send: Send | None,
        max_ratio: float,
        arrived: Callable[[], Iterable[Batch]],
        finish: Callable[[Sequence[Batch]], None],
        keep: Keep,
        clock: Clock,
    ) -> None:
        """`arrived` gives what came for the sink meanwhile, `finish` takes batches that are done,
        `keep` makes batches of their own of records whose dead letters cannot be sent.
        `send` None: nothing is refused, but offered without end."""
        self._runner = runner
        self._stage = stage
        self._stats = stats
        self._max_records, self._max_bytes = max_records, max_bytes
        self._refusing = send is not None
        self._max_ratio = max_ratio
        self._refusals = Refusals(max_ratio)
        self._arrived = arrived
        self._finish_batches = finish
        self._clock = clock
        self._queue: RetryQueue
        self._refused: list[Entry] = []
        """What waits for the dead-letter queue."""
        self._left: Counter[Batch] = Counter()
        """How many records of each batch are neither taken nor dead-lettered."""
        self.aside = RefusedRecords(
            runner=runner, stats=stats, send=send, keep=keep, took=self.took, finish=finish,
            clock=clock,
        )  # fmt: skip

    def took(self, count: int) -> None:
        """The sink has so many more records durably."""
        self._stats.written += count
        self._refusals.taken(count)

    def filtered(self, count: int, undecided: int) -> None:
        """So many the sink does not get; of so many `where` or `redact` could not decide."""
        self._stats.filtered += count
        self._stats.undecided += undecided

    def open(self) -> None:
        """Open the sink, once; where that fails, wait."""
        failure = self._runner.offer(())
        if failure is not None:
            self._runner.back_off(
                failure.why, traceback=failure.traceback, at_least=failure.retry_after
            )

    def run(self, batches: Sequence[Batch], failure: Failure | None = None) -> None:
        """Until nothing of the batches is left, or the process must end. `failure` is the outcome
        of writing all of them; None where they were not offered yet."""
        self._queue = RetryQueue(
            max_records=self._max_records, max_bytes=self._max_bytes, refusing=self._refusing
        )
        self._refused.clear()
        self._left.clear()
        entries = self._add(batches)
        if failure is not None:
            self._learn(entries, failure)
        while not self._runner.quitting:
            self._dead_letter()
            if self._queue.needs_others:
                self._add(self._arrived())
            self._finish(self._queue.remove_abandoned())
            offered = self._queue.offer()
            if not offered:
                break
            outcome = self._runner.offer([entry.record for entry in offered])
            if outcome is None:
                self._queue.taken(offered)
                self.took(len(offered))
                self._finish(offered)
            else:
                self._learn(offered, outcome)
        if self._runner.health.failure is not None:
            # What it was about was handed back meanwhile. Nothing comes for a sink that is down,
            # so nothing but `open` can find that it is up.
            self._runner.opened = False

    def _add(self, batches: Iterable[Batch]) -> Sequence[Entry]:
        """An entry for each record. Returns those that are to be offered."""
        good = []
        for batch in batches:
            self._left[batch] = len(batch.records)
            entries = [Entry(record, batch, place) for place, record in enumerate(batch.records)]
            if batch.rejection is None:
                good += entries
                continue
            for entry in entries:
                self._refuse(entry, batch.rejection.reason)
        if self._stage is not None:
            good = self._staged(self._stage, good)
        self._queue.extend(good)
        return good

    def _staged(self, stage: Stage, entries: Sequence[Entry]) -> list[Entry]:
        """What the sink gets of it, and as it gets it. The rest is done."""
        staged = stage.apply([entry.record for entry in entries])
        for place, why in staged.refused.items():
            self._refuse(entries[place], why)
        places = range(len(entries)) if staged.places is None else staged.places
        kept = []
        for place, record in zip(places, staged.records, strict=True):
            entries[place].record = record
            kept.append(entries[place])
        gone = {*range(len(entries))} - {*places} - staged.refused.keys()
        self.filtered(len(gone), staged.undecided)
        self._finish(entries[place] for place in gone)
        return kept

    def _refuse(self, entry: Entry, why: str) -> None:
        entry.reason, entry.first_failed_at = why, self._clock.time()
        self._refused.append(entry)

    def _learn(self, offered: Sequence[Entry], failure: Failure) -> None:
        """What the failure shows about the sink and about the records; then wait, where need be."""
        now, why = self._clock.time(), failure.why
        refused: Sequence[Entry] = ()
        later = failure.later
        if failure.reasons or later:
            refused = self._queue.rejected(offered, failure.reasons, now, later)
            taken = [
                one
                for at, one in enumerate(offered)
                if at not in failure.reasons and at not in later
            ]
            self.took(len(taken))
            self._finish(taken)
            if refused:
                why = f"refused {counted(len(refused), 'record')} (the first: {refused[0].reason})"
        elif failure.unavailable:
            self._queue.unavailable(offered, now)
        else:
            refused = self._queue.failed(offered, why, now)
        if refused and not self._refusing:
            why += "; dead_letter.enabled is false, so they are offered again"
        elif refused and self._refusals.refused(len(refused)):
            self._queue.remove(refused)
            self._refused += refused
            if not later:
                self._runner.succeeded()
                return
            refused = ()
        elif refused:
            self._stats.paused = True
            why = (
                f"paused, as it refuses more than dead_letter.max_ratio ({self._max_ratio:g}) of "
                f"the last 1,000 records; the first of {len(refused)}: {refused[0].reason}"
            )
        if later and not refused:
            why = f"takes {counted(len(later), 'record')} later: {next(iter(later.values()))}"
        self._runner.back_off(
            why, traceback=failure.traceback, at_least=failure.retry_after,
            quick=self._queue.is_alive and not refused,
        )  # fmt: skip

    def _dead_letter(self) -> None:
        abandoned = [entry for entry in self._refused if entry.batch.abandoned]
        refused = [entry for entry in self._refused if entry not in abandoned]
        if not refused or self.aside.dead_letter(refused):
            self._finish(self._refused)
            self._refused = []

    def _finish(self, entries: Iterable[Entry]) -> None:
        """These are taken, dead-lettered or abandoned."""
        finished = []
        for entry in entries:
            self._left[entry.batch] -= 1
            if not self._left[entry.batch]:
                del self._left[entry.batch]
                finished.append(entry.batch)
        self._finish_batches(finished)
