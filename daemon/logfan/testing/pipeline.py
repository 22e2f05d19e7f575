"""A whole pipeline without a broker: records in, real workers, real in-flight tracker, acks out."""

import queue
import time
from collections.abc import Callable
from typing import Self

from logfan.pipeline.completions import Completions
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.record import Record
from logfan.runtime.backoff import Backoff
from logfan.sink import Sink
from logfan.telemetry.metrics import SinkStats


class Pipeline:
    """Delivers to all sinks as the daemon does, and counts what it would acknowledge.

    Use it as a context manager: entering starts the sinks' threads, leaving closes the sinks.
    """

    def __init__(self, *sinks: Sink, max_records: int = 5000) -> None:
        """Sinks retry at once, so that a test of failures is quick. Their names must differ."""
        if len({sink.name for sink in sinks}) < len(sinks):
            raise ValueError('two sinks have one name; build each with name="…"')
        self.numbers = {sink.name: SinkStats() for sink in sinks}
        """What each sink wrote and how often it was tried again, by its name."""
        self.acked = 0
        """How many messages were acknowledged."""
        self._calls = queue.SimpleQueue[Callable[[], None]]()
        self._completions = completions = Completions(len(sinks), self._calls.put)
        completions.events = self
        self._tag = 0
        self._workers = [
            SinkWorker(
                sink=sink,
                limits=Limits(max_records, 8 << 20),
                backoff=Backoff(0.001, 0.01),
                stats=self.numbers[sink.name],
                completions=completions,
                number=number,
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
        self._tag += len(records)
        size = sum(record.size for record in records)
        batch = self._completions.tracker.open(tuple(records), self._tag, size, time.monotonic())
        for worker in self._workers:
            worker.submit(batch)

    def wait_acked(self, messages: int, seconds: float = 10.0) -> None:
        """Wait until so many are acknowledged. Raises TimeoutError, with why sinks are down."""
        deadline = time.monotonic() + seconds
        while self.acked < messages:
            try:
                self._calls.get(timeout=max(0.0, deadline - time.monotonic()))()
            except queue.Empty:
                failures = {worker.name: worker.failure for worker in self._workers}
                text = f"{self.acked} of {messages} acknowledged; sinks: {failures}"
                raise TimeoutError(text) from None

    def on_completed(self) -> None:
        """See `completions.Events`, here and below."""
        ack = self._completions.tracker.advance()
        self.acked += 0 if ack is None else ack.messages

    def on_sink_opened(self) -> None:
        pass
