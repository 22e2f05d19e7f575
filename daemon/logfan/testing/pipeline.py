"""A whole pipeline without a broker: records in, real workers, real in-flight tracker, acks out."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from logfan.dead_letters.letter import Refusal, Unsent
from logfan.pipeline.completions import Completions
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.record import Record
from logfan.runtime.backoff import Backoff
from logfan.sink import Sink
from logfan.telemetry.metrics import SinkStats

_LONGEST_WAIT_SECONDS = 0.01


class Refused(NamedTuple):
    """A record that a sink refused, or over which it was seen to fail."""

    record: Record
    reason: str


class Pipeline:
    """Delivers to all sinks as the daemon does, and counts what it would acknowledge.

    Use it as a context manager: entering starts the sinks' threads, leaving closes the sinks.
    """

    def __init__(self, *sinks: Sink[Any], max_records: int = 5000) -> None:
        """Sinks retry at once, also those that ask for time, so that a test of failures is quick.
        Their names must differ."""
        if len({sink.name for sink in sinks}) < len(sinks):
            raise ValueError('two sinks have one name; build each with name="…"')
        self.numbers = {sink.name: SinkStats() for sink in sinks}
        """What each sink wrote and how often it was tried again, by its name."""
        self.refused: dict[str, list[Refused]] = {sink.name: [] for sink in sinks}
        """What would be a dead letter, by the sink's name. It counts as acknowledged, once all
        other sinks have it."""
        self._calls = queue.SimpleQueue[Callable[[], None]]()
        self._completions = completions = Completions(len(sinks), self._calls.put)
        completions.on_completed = self._on_completed
        self._acked = 0
        self._tag = 0
        # The tracker is for one thread at a time.
        self._lock = threading.RLock()
        self._workers = [
            SinkWorker(
                sink=sink,
                limits=Limits(max_records, 8 << 20),
                backoff=Backoff(0.001, _LONGEST_WAIT_SECONDS),
                stats=self.numbers[sink.name],
                completions=completions,
                number=number,
                send=self._dead_letter,
                clock=_QuickClock(),
            )
            for number, sink in enumerate(sinks)
        ]

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.give_up()
        for worker in self._workers:
            worker.join(5.0)

    def deliver(self, *records: Record) -> None:
        """Hand these records to every sink, as one read of the socket would."""
        size = sum(record.size for record in records)
        with self._lock:
            self._tag += len(records)
            batch = self._completions.tracker.open(
                tuple(records), self._tag, size, time.monotonic()
            )
        for worker in self._workers:
            worker.submit(batch)

    @property
    def acked(self) -> int:
        """How many messages are acknowledged by now."""
        with self._lock, suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()
        return self._acked

    def wait_acked(self, messages: int, seconds: float = 10.0) -> None:
        """Wait until so many are acknowledged. Raises TimeoutError, with why sinks are down."""
        deadline = time.monotonic() + seconds
        while self.acked < messages:
            try:
                call = self._calls.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                failures = {worker.name: worker.failure for worker in self._workers}
                text = f"{self.acked} of {messages} acknowledged; sinks: {failures}"
                raise TimeoutError(text) from None
            with self._lock:
                call()

    def _on_completed(self) -> None:
        ack = self._completions.tracker.advance()
        self._acked += 0 if ack is None else ack.messages

    def _dead_letter(self, refusals: Sequence[Refusal]) -> "Kept":
        for refusal in refusals:
            self.refused[refusal.sink].append(Refused(refusal.record, refusal.reason))
        return Kept()


class Kept:
    """Refusals that are kept: there is no dead-letter queue to wait for."""

    failures: Mapping[int, Unsent] = {}

    def wait(self, seconds: float) -> bool:
        del seconds
        return True


class _QuickClock:
    """One sink's. It waits no longer than a moment, whatever the sink asks for, and is moved on by
    an hour then, the longest that a sink may ask for."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def wait(self, event: threading.Event, seconds: float) -> bool:
        is_set = event.wait(min(seconds, _LONGEST_WAIT_SECONDS))
        self._ahead += 0.0 if is_set else 3600.0
        return is_set
