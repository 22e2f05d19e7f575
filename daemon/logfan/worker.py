"""One sink's thread: coalesce, write, flush, settle; where it fails, back off and try again.

It touches its own sink and its own queue, and nothing of the broker: what is durable it hands to
`settled`. The consumer's I/O thread calls `submit`; the main thread `start`, `reopen`, `hurry`,
`stop`, `give_up` and `join`; anyone may read the numbers and the state.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain

from logfan.api import Record, RecordsRejected, Sink, SinkUnavailable
from logfan.backoff import Backoff
from logfan.clock import SYSTEM_CLOCK, Clock
from logfan.ledger import Batch
from logfan.metrics import SinkNumbers

log = logging.getLogger(__name__)

_SAY_AGAIN_SECONDS = 60.0


class _Order(Enum):
    """What may lie in a worker's queue beside batches."""

    REOPEN = "reopen"
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one write takes: whole batches, or a slice of one that is too large."""

    batches: Sequence[Batch]
    finished: Sequence[Batch]
    """The batches that end with this piece."""
    start: int | None = None
    stop: int | None = None

    def records(self) -> tuple[Record, ...]:
        """The records that somebody still waits for."""
        live = [batch.records for batch in self.batches if not batch.abandoned]
        if len(live) == 1:
            return live[0] if self.start is None else live[0][self.start : self.stop]
        return tuple(chain.from_iterable(live))


class SinkWorker:
    """Runs one sink on one thread of its own, without end, until it is stopped."""

    def __init__(
        self,
        *,
        sink: Sink,
        limits: Limits,
        backoff: Backoff,
        numbers: SinkNumbers,
        settled: Callable[[Sequence[Batch]], None] | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`settled` is called on the worker's thread; None for a sink that is not required."""
        self.name = sink.name
        self.required = settled is not None
        self.numbers = numbers
        self.trouble: str | None = "not opened yet"
        """Why the sink is down; None while it is up."""
        self.busy_since: float | None = None
        """Since when (monotonic seconds) the thread is inside the sink's code; None while not."""
        self._sink = sink
        self._limits = limits
        self._backoff = backoff
        self._settled = settled
        self._clock = clock
        self._inbox: queue.SimpleQueue[Batch | _Order] = queue.SimpleQueue()
        self._carried: Batch | None = None
        self._opened = False
        self._ever_opened = False
        self._stopping = False
        self._quitting = False
        self._wake = threading.Event()
        self._overflow = _Failure()
        self._failure = _Failure()
        # Two counters with one writer each, instead of one counter with a lock.
        self._submitted = self._submitted_bytes = 0
        self._finished = self._finished_bytes = 0
        self._thread = threading.Thread(target=self._run, name=f"sink-{self.name}", daemon=True)

    # What others call

    def start(self) -> None:
        """Start the thread; it opens the sink first, as often as that takes."""
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Hand over a batch. Never blocks; an optional sink that cannot keep up drops it."""
        if self._overflows(batch):
            self.numbers.dropped += len(batch.records)
            return
        self._submitted += len(batch.records)
        self._submitted_bytes += batch.size
        self._inbox.put(batch)

    def reopen(self) -> None:
        """Have the sink open anew, after what was submitted so far; at once where it is down."""
        self._inbox.put(_Order.REOPEN)
        self._wake.set()

    def hurry(self) -> None:
        """Cut the present back-off short."""
        self._wake.set()

    def stop(self) -> None:
        """Finish what was submitted, close the sink, end. `submit` must not be called again."""
        self._stopping = True
        self._inbox.put(_Order.STOP)
        self._wake.set()

    def give_up(self) -> None:
        """End as soon as the sink's code returns, whatever is left."""
        self._quitting = True
        self.stop()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; True where it ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def held(self) -> int:
        """How many messages were submitted and are not finished."""
        return self._submitted - self._finished

    def busy_seconds(self) -> float:
        """How long the thread has been inside one call of the sink's code; 0.0 while outside."""
        since = self.busy_since
        return 0.0 if since is None else self._clock.monotonic() - since

    # The thread

    def _run(self) -> None:
        # The order to stop may be taken together with the last batches, so what counts is whether
        # anything is held.
        while not (self._quitting or (self._stopping and not self.held)):
            if not self._opened:
                self._try(())
                continue
            batches = self._collect()
            if batches:
                self._deliver(batches)
        self._close()

    def _collect(self) -> list[Batch]:
        """Wait for a batch and take what else has arrived; empty where an order came first."""
        batches: list[Batch] = []
        records = size = 0
        linger_until: float | None = None
        while records < self._limits.max_records and size < self._limits.max_bytes:
            item = self._next(linger_until, wait=not batches)
            if item is None or isinstance(item, _Order):
                self._opened = self._opened and item is not _Order.REOPEN
                break
            if batches and (
                records + len(item.records) > self._limits.max_records
                or size + item.size > self._limits.max_bytes
            ):
                self._carried = item
                break
            batches.append(item)
            records += len(item.records)
            size += item.size
            if linger_until is None and self._limits.linger:
                linger_until = self._clock.monotonic() + self._limits.linger
        return batches

    def _next(self, linger_until: float | None, *, wait: bool) -> Batch | _Order | None:
        """The next of the queue; None where nothing is there and nothing is worth waiting for."""
        if self._carried is not None:
            carried, self._carried = self._carried, None
            return carried
        with contextlib.suppress(queue.Empty):
            if wait:
                return self._inbox.get()
            # With the whole window in hand nothing more can arrive: waiting would be in vain.
            if linger_until is None or self.held >= self._limits.window or self._stopping:
                return self._inbox.get_nowait()
            remaining = linger_until - self._clock.monotonic()
            return self._inbox.get(timeout=remaining) if remaining > 0 else None
        return None

    def _pieces(self, batches: list[Batch]) -> Iterator[_Piece]:
        """One piece as a rule; several where a single batch is larger than a write may be."""
        first, limits = batches[0], self._limits
        count = len(first.records)
        if count <= 1 or (count <= limits.max_records and first.size <= limits.max_bytes):
            yield _Piece(batches, batches)
            return
        start = size = 0
        for index, record in enumerate(first.records):
            if index > start and (
                index - start >= limits.max_records or size + record.size > limits.max_bytes
            ):
                yield _Piece(batches, (), start, index)
                start, size = index, 0
            size += record.size
        yield _Piece(batches, batches, start, count)

    def _deliver(self, batches: list[Batch]) -> None:
        """Write, flush, and only then settle; again and again until the sink has it all."""
        for piece in self._pieces(batches):
            while records := piece.records():
                if self._try(records):
                    self.numbers.written += len(records)
                    break
                if self._quitting:
                    return
            self._finish(piece.finished)

    def _finish(self, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        self._finished += sum(len(batch.records) for batch in batches)
        self._finished_bytes += sum(batch.size for batch in batches)
        if self._settled is not None:
            self._settled(batches)

    def _try(self, records: tuple[Record, ...]) -> bool:
        """Open if need be, write and flush; False where that failed and the back-off is over."""
        started = self.busy_since = self._clock.monotonic()
        try:
            if not self._opened:
                self._ever_opened = True
                self._sink.open()
                self._opened = True
            if records:
                self._sink.write(records)
                self._sink.flush()
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, its records stay
            self.busy_since = None
            self._back_off(error)
            return False
        now = self._clock.monotonic()
        self.busy_since = None
        if records:
            self.numbers.write_seconds.observe(now - started)
        self._succeeded()
        return True

    def _succeeded(self) -> None:
        if self.trouble is None:
            return
        if self._backoff.attempts:
            log.info("sink %s: up again after %d attempts", self.name, self._backoff.attempts)
        self._backoff.reset()
        self._failure = _Failure()
        self.trouble = None
        self.numbers.up = True

    def _back_off(self, error: BaseException) -> None:
        """Say it, and wait: the window stands still meanwhile, which is the backpressure."""
        self._opened = False
        self.numbers.up = False
        self.numbers.retries += 1
        self.trouble = describe(error)
        delay = self._backoff.next()
        now = self._clock.monotonic()
        if self._failure.is_news(self.trouble, now):
            traceback = None if isinstance(error, SinkUnavailable | RecordsRejected) else error
            log.warning(
                "sink %s: %s; retrying in %.1f s; %d messages held",
                self.name, self.trouble, delay, self.held,
                exc_info=traceback if self._failure.first else None,
            )  # fmt: skip
        if not self._quitting:
            self._clock.wait(self._wake, delay)
            self._wake.clear()

    def _close(self) -> None:
        left = self.held
        if left and not self.required:
            self.numbers.dropped += left
            log.warning("sink %s: stopped with %d messages not written", self.name, left)
        self.numbers.up = False
        self.trouble = "stopped"
        if not self._ever_opened:
            return
        self.busy_since = self._clock.monotonic()
        try:
            self._sink.close()
        except BaseException:
            log.warning("sink %s: close failed", self.name, exc_info=True)
        self.busy_since = None

    def _overflows(self, batch: Batch) -> bool:
        limits = self._limits
        if limits.waiting_records is None or limits.waiting_bytes is None:
            return False
        over = self.held > 0 and (
            self.held + len(batch.records) > limits.waiting_records
            or self._submitted_bytes - self._finished_bytes + batch.size > limits.waiting_bytes
        )
        if over and self._overflow.is_news("overflow", self._clock.monotonic()):
            log.warning(
                "sink %s: cannot keep up and is not required; dropping what does not fit into "
                "its queue of %d messages", self.name, limits.waiting_records,
            )  # fmt: skip
        return over


class _Failure:
    """Which failure was told last, so that the log says what is new and not what is known."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self.first = False
        """Whether the text just told was told for the first time."""

    def is_news(self, text: str, now: float) -> bool:
        """True for a text not told yet, or not told for a minute."""
        told_at = self._told.get(text)
        self.first = told_at is None
        if told_at is not None and now - told_at < _SAY_AGAIN_SECONDS:
            return False
        if len(self._told) >= 100:
            self._told.clear()
        self._told[text] = now
        return True


def describe(error: BaseException) -> str:
    """The error in words for the operator, on one line."""
    if isinstance(error, RecordsRejected):
        index, why = next(iter(error.reasons.items()))
        return (
            f"refused {len(error.reasons)} records (record {index}: {why}); "
            "refused records are offered again for now"
        )
    if isinstance(error, SinkUnavailable):
        return " ".join(str(error).split())
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
