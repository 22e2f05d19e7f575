"""One sink's thread: coalesce, write, flush, complete. What fails goes to the recovery.

It touches its own sink and its own queue, and nothing of the broker: what is durable it hands to
`Completions`. The consumer's I/O thread calls `submit` and `hurry`; the main thread `start`,
`reopen`, `retry_now`, `stop`, `give_up` and `join`; the control socket's `pause` and `resume`; any
thread may read the stats and the state.
"""

import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain

from logfan.pipeline.completions import Completions
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.recovery import SinkRecovery
from logfan.pipeline.set_aside import Send
from logfan.pipeline.sink_runner import SinkRunner, counted
from logfan.record import Record
from logfan.runtime.backoff import Backoff
from logfan.runtime.clock import SYSTEM_CLOCK, Clock
from logfan.runtime.threads import OwnThread
from logfan.sink import Sink
from logfan.stage.stage import Stage
from logfan.telemetry.metrics import SinkStats
from logfan.telemetry.sink_health import RecentLines, Reminders, duration

log = logging.getLogger(__name__)


_LOOK_SECONDS = 1.0
"""So often a sink that waits for its next attempt looks whether what it holds was abandoned."""
_OTHERS_SECONDS = 0.1
"""The same, where what comes is waited for, as it shows whether the sink is down."""


class _Order(Enum):
    """What may lie in a worker's queue beside batches."""

    REOPEN = "reopen"
    NOW = "do not wait for a batch, or for more"
    RETRY = "offer what it wants later at once"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one write may hold, and how much may wait."""

    max_records: int
    max_bytes: int
    linger: float = 0.0
    """Seconds to wait for a fuller batch."""
    window: int = 1000
    """The prefetch: with so many messages in hand nothing more can come to wait for."""
    waiting_records: int | None = None
    """Most records that may wait; beyond it they are dropped. None for a required sink, which
    the prefetch bounds."""
    waiting_bytes: int | None = None


class SinkWorker:
    """Runs one sink on one thread of its own, without end, until it is stopped."""

    def __init__(
        self,
        *,
        sink: Sink,
        limits: Limits,
        backoff: Backoff,
        stats: SinkStats,
        completions: Completions,
        number: int | None,
        stage: Stage | None = None,
        send: Send | None = None,
        max_ratio: float = 1.0,
        on_fault: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`number`: the sink's among those that are required; None for an optional one. `stage`:
        what is done to records before the sink gets them. `send`
        takes refused records to the dead-letter queue; without it they are offered again.
        `max_ratio`: of the last 1,000 records, so many may be refused. `on_fault` is called where
        the thread, or one of the sink's own, has ended and should not have: see `fault`."""
        self.name = sink.name
        self.required = number is not None
        self.stats = stats
        self._runner = SinkRunner(
            sink=sink,
            backoff=backoff,
            stats=stats,
            held=lambda: self.held,
            clock=clock,
            meanwhile=self._look_meanwhile,
            on_opened=completions.opened,
            is_taken=lambda: bool(self._still_inside()),
        )
        self._before: Sequence[SinkWorker] = ()
        self._recovery = SinkRecovery(
            runner=self._runner, stage=stage, max_records=limits.max_records,
            max_bytes=limits.max_bytes, send=send, max_ratio=max_ratio,
            arrived=self._arrived, finish=self._finish, keep=self._keep_aside,
        )  # fmt: skip
        self.health = self._runner.health
        """Whether the sink is up, and since when it is not."""
        self._limits = limits
        self._completions = completions
        self._number = number
        self._stage = stage
        self._clock = clock
        self._inbox: queue.SimpleQueue[Batch | _Order] = queue.SimpleQueue()
        self._ahead: deque[Batch | _Order] = deque()
        """What was taken out of it and comes next."""
        self._hurried_at = 0
        """What was submitted when the order not to linger was put behind it."""
        self._stopping = False
        self._reminders = Reminders()
        self._logged_hanging: float | None = None
        self._is_in_pause = False
        """As the log has it."""
        self._logged_overflows = RecentLines()
        # Two counters with one writer each, instead of one counter with a lock.
        self._submitted = self._submitted_bytes = 0
        self._finished = self._finished_bytes = 0
        self._sink = sink
        self._report_fault = on_fault
        self._thread = OwnThread(f"sink-{self.name}", self._run, self._on_fault)
        sink._logfan_on_fault = self._on_fault  # type: ignore[method-assign]

    # What others call

    def follow(self, before: Sequence["SinkWorker"]) -> None:
        """Of these, which could not be ended, those of the same sink come first: it is not opened
        while one of them is inside its code. Called before `start`."""
        self._before = [one for one in before if one._is_of_same_sink(self)]

    def start(self) -> None:
        """Start the thread; it opens the sink first, as often as that takes."""
        if self.stats.pause.is_on(self._clock.monotonic()):
            self._log_pause()  # it was paused before a reload
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Hand over a batch. Never blocks; an optional sink that cannot keep up drops it."""
        if not self.required and self._overflows(batch):
            self.stats.dropped += len(batch.records)
            return
        self._submitted += len(batch.records)
        self._submitted_bytes += batch.size
        self._inbox.put(batch)

    def reopen(self) -> None:
        """Have the sink open anew, after what was submitted so far; at once where it is down."""
        self._inbox.put(_Order.REOPEN)
        self._runner.wake.set()

    def hurry(self) -> None:
        """Do not linger: nothing more comes for now, or what waits was abandoned."""
        if self._limits.linger and self._hurried_at != self._submitted:
            self._hurried_at = self._submitted
            self._inbox.put(_Order.NOW)

    def retry_now(self) -> None:
        """Cut the present back-off short."""
        self._inbox.put(_Order.RETRY)
        self._runner.wake.set()

    def pause(self, seconds: float) -> None:
        """Offer the sink nothing for so long, from the end of the call that is under way. What
        comes meanwhile waits, as for a sink that is down."""
        until = time.strftime("%H:%M:%S", time.gmtime(self._clock.time() + seconds))
        why = f"paused by `logfan pause` until {until} UTC"
        self.stats.pause.begin(self._clock.monotonic(), seconds, why)
        # After the pause was begun: see `SinkRunner._open`.
        self._runner.opened = False
        self._inbox.put(_Order.NOW)
        self._runner.wake.set()
        self._log_pause()

    def resume(self) -> None:
        now = self._clock.monotonic()
        if self.stats.pause.is_on(now):
            self._is_in_pause = False
            self.stats.pause.end(now)
            self._runner.wake.set()
            self._log_end_of_pause(" (`logfan resume`)")

    def stop(self) -> None:
        """Finish what was submitted, close the sink, end. `submit` must not be called again."""
        self._stopping = True
        self._thread.may_end()
        self._inbox.put(_Order.STOP)
        self._runner.wake.set()

    def give_up(self) -> None:
        """End as soon as the sink's code returns, whatever is left."""
        self._runner.quitting = True
        self.stop()

    def drop_queue(self) -> None:
        """Of a thread that does not return: what waits for it takes no memory. It is not finished,
        and the broker has it, unless nothing has it any more."""
        with contextlib.suppress(queue.Empty):
            self._ahead = deque()
            while True:
                self._inbox.get_nowait()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; True where it ended, or was never started."""
        return self._thread.join(seconds)

    @property
    def held(self) -> int:
        """How many messages were submitted and are not finished."""
        return self._submitted - self._finished

    @property
    def failure(self) -> str | None:
        """Why the sink is down; None while it is up."""
        return self.health.why(self._clock.monotonic())

    @property
    def fault(self) -> str | None:
        """Which thread has ended and should not have: the worker's, or one of the sink's own."""
        threads = self._thread, *self._sink._logfan_threads
        return next((thread.fault for thread in threads if thread.fault is not None), None)

    def busy_seconds(self) -> float:
        """How long the thread, or one that it follows, has been inside one call of the sink's code;
        0.0 while outside."""
        since = self.health.busy_since
        own = 0.0 if since is None else self._clock.monotonic() - since
        return max([own, *(one.busy_seconds() for one in self._still_inside())])

    def _still_inside(self) -> Sequence["SinkWorker"]:
        if self._before:  # what one of them held is let go with it
            self._before = [one for one in self._before if not one.join(0.0)]
        return self._before

    def _is_of_same_sink(self, other: "SinkWorker") -> bool:
        """Whether the other one runs a sink of this name, kind and options. One that has other
        options is an operator's way out."""
        mine, theirs = self._sink, other._sink
        is_alike = type(mine) is type(theirs) and mine.config == theirs.config
        return self.name == other.name and is_alike

    @property
    def has_opened(self) -> bool:
        return self._runner.has_opened

    @property
    def takes_records(self) -> bool:
        """Whether it can get rid of what it holds, but for what it refuses."""
        return self.health.takes_records(self._clock.monotonic())

    @property
    def is_up(self) -> bool:
        """Whether the sink takes records, and what it refuses can be dead-lettered."""
        return self.takes_records and self.health.letters is None

    def look(self) -> None:
        """Log of an outage what the sink's own thread cannot: that it hangs, that it goes on.
        Called about once a second, on the main thread."""
        now, health = self._clock.monotonic(), self.health
        if self._is_in_pause and not self.stats.pause.is_on(now):
            self._is_in_pause = False
            self._log_end_of_pause(", its limit")
        busy_since, hangs_for = health.busy_since, health.hangs_for(now)
        held = counted(self.held, "message")
        if hangs_for is not None and busy_since != self._logged_hanging:
            self._logged_hanging = busy_since
            log.warning(
                "sink %s: has not returned from a call of its own code for %s, so it counts as "
                "down until it does; %s held", self.name, duration(hangs_for), held,
            )  # fmt: skip
        if self._reminders.is_due(health.down_since(now), now) and not self._stopping:
            log.warning(
                "sink %s: still down, for %s now: %s; %s held", self.name,
                duration(health.down_seconds(now)), health.why(now), held,
            )  # fmt: skip

    def _log_pause(self) -> None:
        self._is_in_pause = True
        log.warning(
            "sink %s: %s; it is offered nothing; %s held",
            self.name, self.stats.pause.why, counted(self.held, "message"),
        )  # fmt: skip

    def _log_end_of_pause(self, why: str) -> None:
        pause = self.stats.pause
        log.info(
            "sink %s: goes on after a pause of %s%s; %s held", self.name,
            duration(pause.until - pause.since), why, counted(self.held, "message"),
        )  # fmt: skip

    # The thread

    def _on_fault(self) -> None:
        now = self._clock.monotonic()
        if self.health.failure is None:
            self.health.failing_since = now
        self.health.fault = self.fault
        self._report_fault()

    def _run(self) -> None:
        # The order to stop may be taken together with the last batches, so what counts is whether
        # anything is held.
        while not self._runner.quitting:
            if not self._runner.opened and self.has_opened:
                self._runner.wake.clear()  # before all is looked at that it may be about
                self._let_go_of_abandoned()
            if self._stopping and self._is_done:
                break
            if not self._runner.opened:
                self._recovery.open()
                continue
            batches = self._collect()
            if batches:
                self._deliver(batches)
            if self._recovery.holds_aside:
                self._recovery.look(stopping=self._stopping)
                if due := self._recovery.due():
                    self._deliver(due)
                    self._recovery.later.settle()
        self._close()

    @property
    def _is_done(self) -> bool:
        """At a stop: nothing is held, or only what an optional sink wants later."""
        return self.held == (0 if self.required else len(self._recovery.later.held))

    def _look_meanwhile(self) -> float | None:
        """While the sink is waited for: letters do not wait for it, nor does what the broker
        delivers again. At a stop one that is not required is not waited for."""
        self._let_go_of_abandoned()
        self._recovery.let_go_of_abandoned()
        if self._recovery.wants_others() and any(isinstance(one, Batch) for one in self._ahead):
            self._runner.wake.set()
            return 0.0
        if self._stopping and not self.required:
            self._runner.quitting = True
            return 0.0
        self._recovery.look(stopping=self._stopping, offering=False)
        if self._recovery.wants_others():
            return _OTHERS_SECONDS
        seconds = self._recovery.wait_seconds(offering=False)
        return min(_LOOK_SECONDS, seconds or _LOOK_SECONDS) if self.held else seconds

    def _collect(self) -> list[Batch]:
        """Wait for a batch and take what else has arrived; empty where an order came first."""
        batches: list[Batch] = []
        records = size = 0
        linger_until: float | None = None
        while records < self._limits.max_records and size < self._limits.max_bytes:
            item = self._next(linger_until, wait=not batches)
            if item is None or isinstance(item, _Order):
                self._obey(item)
                break
            if batches and (
                records + len(item.records) > self._limits.max_records
                or size + item.size > self._limits.max_bytes
            ):
                self._ahead.appendleft(item)
                break
            batches.append(item)
            records += len(item.records)
            size += item.size
            if linger_until is None and self._limits.linger:
                linger_until = self._clock.monotonic() + self._limits.linger
        return batches

    def _let_go_of_abandoned(self) -> None:
        """Of all that waits, without an offer: what the broker delivers again takes no memory."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._ahead.append(self._inbox.get_nowait())
        waiting, gone = deque[Batch | _Order](), []
        for item in self._ahead:
            if isinstance(item, Batch) and item.abandoned:
                gone.append(item)
            else:
                waiting.append(item)
        self._ahead = waiting
        self._finish(gone)

    def _obey(self, order: _Order | None) -> None:
        if order is _Order.REOPEN:
            self._runner.opened = False
        if order in (_Order.REOPEN, _Order.RETRY):
            self._recovery.later.hasten()

    def _arrived(self) -> list[Batch]:
        """What has arrived meanwhile, without waiting for it."""
        batches: list[Batch] = []
        while (item := self._next(None, wait=False)) is not None:
            if isinstance(item, _Order):
                self._obey(item)
            else:
                batches.append(item)
        return batches

    def _next(self, linger_until: float | None, *, wait: bool) -> Batch | _Order | None:
        """The next of the queue; None where nothing is there and nothing is worth waiting for."""
        if ahead := self._ahead:
            return ahead.popleft()
        with contextlib.suppress(queue.Empty):
            if wait:
                return self._inbox.get(timeout=self._recovery.wait_seconds())
            if linger_until is None or self._may_not_linger():
                return self._inbox.get_nowait()
            remaining = linger_until - self._clock.monotonic()
            return self._inbox.get(timeout=remaining) if remaining > 0 else None
        return None

    def _may_not_linger(self) -> bool:
        """With the whole window in hand nothing more can arrive: waiting would be in vain. And what
        stands aside is looked at between two batches."""
        in_vain = self.held >= self._limits.window or self._recovery.holds_aside
        return in_vain or self._stopping

    def _deliver(self, batches: Sequence[Batch]) -> None:
        """Write, flush, and only then complete. Where that fails, all of it is recovered."""
        if any(batch.abandoned for batch in batches):
            self._finish([batch for batch in batches if batch.abandoned])
            batches = [batch for batch in batches if not batch.abandoned]
            if not batches:
                return
        if self._is_too_much(batches[0]) or any(batch.rejection for batch in batches):
            self._recovery.run(batches)
            return
        records = batches[0].records
        if len(batches) > 1:
            records = tuple(chain.from_iterable([batch.records for batch in batches]))
        offered: Sequence[Record] = records
        staged = None
        if self._stage is not None:
            staged = self._runner.stage(self._stage, records)
            if staged.refused or staged.failed or staged.left:
                self._recovery.run(batches, staged=staged)
                return
            offered = staged.records
        failure = self._runner.offer(offered) if offered else None
        if failure is not None:
            self._recovery.run(batches, failure, staged)
            return
        self._recovery.took(len(offered))
        if staged is not None:
            self._recovery.filtered(len(records) - len(offered), staged.undecided)
        self._finish(batches)

    def _is_too_much(self, batch: Batch) -> bool:
        """Whether it is more than one write may hold; then no other was collected with it."""
        count, limits = len(batch.records), self._limits
        return count > 1 and (count > limits.max_records or batch.size > limits.max_bytes)

    def _finish(self, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        self._finished += sum(len(batch.records) for batch in batches)
        self._finished_bytes += sum(batch.size for batch in batches)
        if self._number is not None:
            self._completions.done(self._number, batches)

    def _keep_aside(self, batch: Batch, places: Sequence[int]) -> Sequence[Batch]:
        """Records that are not finished with their batch. Called before that is finished."""
        kept: Sequence[Batch]
        if self._number is None:  # an optional sink has them for itself
            kept = [batch.single(place) for place in places]
        else:
            kept = self._completions.tracker.keep(batch, places, self._number)
        self._finished -= len(kept)
        self._finished_bytes -= sum(one.size for one in kept)
        return kept

    def _close(self) -> None:
        left = self.held
        if left and not self.required:
            self.stats.dropped += left
            log.warning("sink %s: stopped with %d messages not written", self.name, left)
        self._runner.close()

    def _overflows(self, batch: Batch) -> bool:
        limits = self._limits
        if limits.waiting_records is None or limits.waiting_bytes is None:
            return False
        over = self.held > 0 and (
            self.held + len(batch.records) > limits.waiting_records
            or self._submitted_bytes - self._finished_bytes + batch.size > limits.waiting_bytes
        )
        if over and self._logged_overflows.is_new("overflow", self._clock.monotonic()):
            log.warning(
                "sink %s: cannot keep up and is not required; dropping what does not fit into "
                "its queue of %d messages", self.name, limits.waiting_records,
            )  # fmt: skip
        return over
