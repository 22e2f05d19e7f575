"""What becomes of records that a sink did not take: offered again, alone, or dead-lettered.

The slow path beside the worker's: it is entered with a failure, or with what is more than one write
may hold, and left once the sink has or refuses everything. What to offer and what counts as
evidence is decided in `poison`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import ATTEMPTS_ALONE, Entry, Refusals, RetryQueue
from logfan.pipeline.put_off import PutOff
from logfan.pipeline.set_aside import Keep, RefusedRecords, Send
from logfan.pipeline.sink_runner import PAUSED, Failure, SinkRunner, counted
from logfan.pipeline.wanted_later import WantedLater
from logfan.record import Record
from logfan.stage.stage import Stage, Staged
from logfan.stage.transforms import Failed


class SinkRecovery:
    """One sink's. Used on the sink's thread alone."""

    def __init__(
        self,
        *,
        runner: SinkRunner,
        stage: Stage | None,
        max_records: int,
        max_bytes: int,
        send: Send | None,
        max_ratio: float,
        arrived: Callable[[], Iterable[Batch]],
        finish: Callable[[Sequence[Batch]], None],
        keep: Keep,
    ) -> None:
        """`arrived` gives what came for the sink meanwhile, `finish` takes batches that are done,
        `keep` makes batches of their own of records that stand aside.
        `send` None: nothing is refused, but offered without end."""
        self._runner = runner
        self._stage = stage
        self._max_records, self._max_bytes = max_records, max_bytes
        self._refusing = send is not None
        self._max_ratio = max_ratio
        self._refusals = Refusals(max_ratio)
        self._arrived = arrived
        self._finish_batches = finish
        self._queue: RetryQueue
        self._refused: list[Entry] = []
        """What waits for the dead-letter queue."""
        self._failing: list[tuple[Entry, Failed]] = []
        """Over which a transform failed, and how."""
        self._held_why = ""
        """Why what is held may not be dead-lettered."""
        self._took_lately = False
        """Whether the sink took something since it was last waited for."""
        self._put_off = PutOff()
        self._postponed = Failure("")
        """What the sink raised over the last that it wanted later."""
        self._left: Counter[Batch] = Counter()
        """How many records of each batch are neither taken nor dead-lettered."""
        self.aside = RefusedRecords(
            runner=runner, send=send, keep=keep, offer=self._offer_again, finish=finish
        )  # fmt: skip
        self.later = WantedLater(runner=runner, send=send, keep=keep, finish=finish)

    def took(self, count: int) -> None:
        """The sink has so many more records durably."""
        self._runner.stats.written += count
        self._refusals.taken(count)

    def filtered(self, count: int, undecided: int) -> None:
        """So many the sink does not get; of so many `where` or `redact` could not decide."""
        self._runner.stats.filtered += count
        self._runner.stats.undecided += undecided

    def open(self) -> None:
        """Open the sink, once; where that fails or may not be now, wait."""
        failure = self._runner.offer(())
        if failure is PAUSED:
            self._runner.wait_while_paused()
        elif failure is not None:
            self._runner.back_off(
                failure.why, traceback=failure.traceback, at_least=failure.retry_after
            )

    def look(self, *, stopping: bool, offering: bool = True) -> None:
        """Send what stands aside and is due, or, where the sink may be called now (`offering`),
        offer it again."""
        self._forget_abandoned()
        self.aside.look(stopping=stopping, offering=offering)
        self.later.look(stopping=stopping)

    def due(self) -> Sequence[Batch]:
        """What the sink wanted later and is to be offered now."""
        return self.later.due(max_records=self._max_records, max_bytes=self._max_bytes)

    @property
    def holds_aside(self) -> bool:
        """Whether any record stands aside."""
        return bool(self.aside.held or self.later.held)

    def wait_seconds(self, *, offering: bool = True) -> float | None:
        """When to call `look`, and `due` where `offering`; None where nothing stands aside."""
        if not self.holds_aside:
            return None
        waits = self.aside.wait_seconds(), self.later.wait_seconds(offering=offering)
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def let_go_of_abandoned(self) -> None:
        """While `run` waits: of what the broker delivers again, without another offer."""
        if self._left:
            self._finish_abandoned()

    def wants_others(self) -> bool:
        """Whether what comes is to be offered now, as it shows whether the sink is down."""
        return self._put_off.wants_others(self._runner.clock.monotonic())

    def _forget_abandoned(self) -> None:
        """What the broker delivers again is refused, and counted, anew."""
        self._refusals.returned(sum(entry.counted for entry in self.aside.forget_abandoned()))

    def run(
        self,
        batches: Sequence[Batch],
        failure: Failure | None = None,
        staged: Staged | None = None,
    ) -> None:
        """Until nothing of the batches is left, or the process must end. `failure` is the outcome
        of writing all of them, None where they were not offered yet; `staged` is what the stage
        made of them, where it was asked."""
        self._queue = RetryQueue(
            max_records=self._max_records, max_bytes=self._max_bytes, refusing=self._refusing
        )
        self._refused.clear()
        self._failing.clear()
        self._put_off.take()
        self._left.clear()
        entries = self._add(batches)
        offered = entries if staged is None else self._sort_out(entries, staged)
        if failure is not None:
            self._learn(offered, failure)
        elif staged is not None and offered:
            self._offer(offered, staged.records)
        while not self._runner.quitting:
            self._dead_letter()
            if self._put_off.is_theirs(self._runner.stats.written):
                self._put_aside(self._put_off.take())
            if self._queue.needs_others:
                self._add(self._arrived())
            self._finish_abandoned()
            offered = self._queue.offer()
            if offered:
                self._attempt(offered)
            elif self._failing:
                self._look_at_failing()
            elif self._queue.holding:
                self._back_off(self._held_why, quick=self._took_lately)
                self._queue.next_round()
                self._queue.extend(self._put_off.take())
            elif self._put_off.entries:
                self._wait_for_others()
            else:
                break
        self._runner.holding = False
        if self._runner.health.failure is not None:
            # What it was about was handed back meanwhile. Nothing comes for a sink that is down,
            # so nothing but `open` can find that it is up.
            self._runner.opened = False

    def _add(self, batches: Iterable[Batch]) -> Sequence[Entry]:
        """An entry for each record. Returns those that are to be offered."""
        good = []
        for batch in batches:
            self._left[batch] = len(batch.records)
            known = self.later.entry_of(batch)
            entries = (
                [known]
                if known is not None
                else [Entry(record, batch, place) for place, record in enumerate(batch.records)]
            )
            if batch.rejection is None:
                good += entries
                continue
            for entry in entries:
                self._refuse(entry, batch.rejection.reason)
        self._queue.extend(good)
        return good

    def _attempt(self, entries: Sequence[Entry]) -> None:
        """Offer the sink what it gets of these."""
        records: Sequence[Record] = tuple(entry.record for entry in entries)
        if self._stage is not None:
            staged = self._runner.stage(self._stage, records)
            if staged.left:
                self._queue.cut(len(entries) - staged.left)
            entries, records = self._sort_out(entries, staged), staged.records
        if entries:
            self._offer(entries, records)

    def _sort_out(self, entries: Sequence[Entry], staged: Staged) -> Sequence[Entry]:
        """Those that the sink is offered. What is filtered is done, what a step failed over is
        refused (held, without a dead-letter queue), and what a transform failed over waits. What is
        left comes next."""
        entries = entries[: len(entries) - staged.left]
        unsure = [entry for place in staged.unsure if not (entry := entries[place]).undecided]
        for entry in unsure:
            entry.undecided = True
        for place, why in staged.refused.items():
            if self._refusing:
                self._refuse(entries[place], why)
            else:
                entries[place].failed_in_stage = ATTEMPTS_ALONE
                self._failing.append((entries[place], Failed(why)))
        self._failed([(entries[place], failed) for place, failed in staged.failed.items()], staged)
        places = range(len(entries)) if staged.places is None else staged.places
        others = {*range(len(entries))} - {*places}
        gone = [entries[place] for place in others - staged.refused.keys() - staged.failed.keys()]
        self._queue.remove([entries[place] for place in others])
        self.filtered(len(gone), len(unsure))
        self._finish(gone)
        return [entries[place] for place in places]

    def _offer(self, entries: Sequence[Entry], records: Sequence[Record]) -> None:
        """Offer these records, one for each entry."""
        self._runner.holding = self._queue.holding or bool(self._failing)
        outcome = self._runner.offer(records)
        if outcome is None:
            self._queue.taken(entries)
            self.took(len(entries))
            self._took_lately = True
            self._finish(entries)
        else:
            self._learn(entries, outcome)

    def _offer_again(self, entry: Entry) -> Failure | None:
        """Offer one that was refused, alone. None where it is done: taken, or filtered."""
        records: Sequence[Record] = (entry.record,)
        if self._stage is not None:
            staged = self._runner.stage(self._stage, records)
            for failed in staged.failed.values():
                return Failure(failed.why, reasons={} if failed.unavailable else {0: failed.why})
            if staged.refused:
                return Failure(staged.refused[0], reasons=staged.refused)
            records = staged.records
        failure = self._runner.offer(records) if records else None
        if failure is None:
            self.took(len(records))
            self.filtered(1 - len(records), 0)
        return failure

    def _failed(self, failing: Sequence[tuple[Entry, Failed]], staged: Staged) -> None:
        """A transform failed over these. Where it failed over others too and none passed, that is
        no evidence against one of them."""
        is_evidence = staged.passed > 0 or all(entry.failed_in_stage for entry, _ in failing)
        for entry, failed in failing:
            entry.failed(self._runner.clock.time())
            entry.reason = failed.why
            if is_evidence and not failed.unavailable:
                entry.failed_in_stage += 1
        self._failing += failing

    def _look_at_failing(self) -> None:
        """Refuse what is proven bad, as transforms failed over it alone again and again while
        others passed; wait, and try the rest again. Where nothing passes, all of it is held."""
        failing, failed = [entry for entry, _ in self._failing], self._failing[0][1]
        self._failing = []
        is_alive = any(entry.failed_in_stage for entry in failing)
        proven = [entry for entry in failing if entry.failed_in_stage >= ATTEMPTS_ALONE]
        held = self._refuse_proven(proven, failed.why)
        gone = {*proven} - {*held}
        self._queue.extend([entry for entry in failing if entry not in gone])
        if proven and not held:
            self._succeeded()
            return
        self._add(self._arrived())
        self._back_off(
            self._held_why if held else failed.why, traceback=failed.traceback,
            at_least=self._runner.pace_of(failed), quick=self._took_lately if held else is_alive,
        )  # fmt: skip

    def _refuse(self, entry: Entry, why: str) -> None:
        entry.reason, entry.first_failed_at = why, self._runner.clock.time()
        self._refused.append(entry)

    def _learn(self, offered: Sequence[Entry], failure: Failure) -> None:
        """What the failure shows about the sink and about the records; then wait, where need be."""
        if failure is PAUSED:
            self._runner.wait_while_paused()
            return
        now, why = self._runner.clock.time(), failure.why
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
            self._took_lately = self._took_lately or bool(taken)
            self._finish(taken)
            if later:
                entries = [offered[at] for at in sorted(later)]
                self._postpone(entries, failure, took_others=bool(taken))
            if refused:
                why = f"refused {counted(len(refused), 'record')} (the first: {refused[0].reason})"
        elif failure.unavailable:
            self._queue.unavailable(offered, now)
        else:
            refused = self._queue.failed(offered, why, now)
        if refused:
            held = self._refuse_proven(refused, why)
            if held:
                self._queue.hold(held)
                why = self._held_why
                if not self._queue.isolating:
                    return  # first come the others
            else:
                self._succeeded()
                return
            refused = held
        elif later:
            if not self._put_off.entries:
                self._succeeded()
            return
        quick = self._queue.is_alive and (not refused or self._took_lately)
        self._back_off(why, traceback=failure.traceback, at_least=failure.retry_after, quick=quick)

    def _postpone(self, entries: Sequence[Entry], failure: Failure, *, took_others: bool) -> None:
        """The sink wants these later. Where it took others they stand aside; else the next ones
        show whether it is down. What stood aside, or was published again meanwhile, does so again:
        it shows nothing new."""
        self._queue.remove(entries)
        self._postponed = failure
        again = [entry for entry in entries if entry.batch.alone or entry.batch.replayed]
        self._put_aside(again)
        new = [entry for entry in entries if entry not in again]
        if took_others:
            self._put_aside([*self._put_off.take(), *new])
        elif new:
            self._put_off.add(new, self._runner.stats.written)

    def _put_aside(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.later.put(entries, self._postponed.why_later, self._postponed.retry_after)
            self._finish(entries)

    def _wait_for_others(self) -> None:
        """Nothing is left but what was put off. Where the sink is down, all of it is offered again;
        else it stands aside, unless others come."""
        put_off, pace = self._put_off, self._postponed.retry_after
        seconds = put_off.wait(self._runner.clock.monotonic(), pace)
        if put_off.is_down:
            count = counted(len(put_off.entries), "record")
            why = f"takes {count} later: {self._postponed.why_later}"
            self._back_off(why, quick=False, at_least=pace)
            self._queue.extend(put_off.take())
            self._add(self._arrived())
            return
        self._runner.wait(seconds)
        if not self._add(self._arrived()):
            self._put_aside(put_off.take())

    def _finish_abandoned(self) -> None:
        self._finish([*self._queue.remove_abandoned(), *self._put_off.take_abandoned()])

    def _succeeded(self) -> None:
        """The sink is up, unless something is held."""
        if not self._queue.holding:
            self._runner.succeeded()

    def _back_off(
        self, why: str, *, quick: bool, traceback: str = "", at_least: float = 0.0
    ) -> None:
        self._runner.back_off(why, traceback=traceback, quick=quick, at_least=at_least)
        self._took_lately = False

    def _refuse_proven(self, refused: Sequence[Entry], why: str) -> Sequence[Entry]:
        """Have these dead-lettered, as many as may be. Returns those that are offered again;
        `_held_why` then has the reason."""
        allowed = 0
        if self._refusing:
            self._forget_abandoned()
            allowed = self._refusals.refused(len(refused))
        gone, held = refused[:allowed], refused[allowed:]
        for entry in gone:
            entry.counted = True
        self._queue.remove(gone)
        self._refused += gone
        if not held:
            return held
        if not self._refusing:
            self._held_why = f"{why}; dead_letter.enabled is false, so they are offered again"
            return held
        self._runner.stats.paused = True
        self._held_why = (
            f"paused, as it refuses more than dead_letter.max_ratio ({self._max_ratio:g}) of "
            f"the last 1,000 records; the first of {len(held)}: {held[0].reason}"
        )
        return held

    def _dead_letter(self) -> None:
        abandoned = [entry for entry in self._refused if entry.batch.abandoned]
        refused = [entry for entry in self._refused if entry not in abandoned]
        self._refusals.returned(sum(entry.counted for entry in abandoned))
        if not refused or self.aside.dead_letter(refused):
            self._finish(self._refused)
            self._refused = []

    def _finish(self, entries: Iterable[Entry]) -> None:
        """These are taken, dead-lettered or abandoned; or stand aside, maybe as the batch that they
        are."""
        finished = []
        for entry in entries:
            batch = entry.batch
            self._left[batch] -= 1
            if not self._left[batch]:
                del self._left[batch]
                if batch not in self.aside.held and batch not in self.later.held:
                    finished.append(batch)
        self._finish_batches(finished)
