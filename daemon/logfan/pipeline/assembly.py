"""One consumer and its sink workers: what is built from what, the order of start and of stop."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from logfan.amqp.connection import new_loop
from logfan.amqp.reconnect import StartupPolicy
from logfan.config.loader import Made, Prepared, made_of
from logfan.dead_letters.publisher import DeadLetters
from logfan.pipeline.completions import Completions
from logfan.pipeline.consumer import Consumer, Events
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.runtime.backoff import Backoff
from logfan.runtime.clock import SYSTEM_CLOCK, Clock
from logfan.telemetry.metrics import Stats

log = logging.getLogger(__name__)

HANG_SECONDS = 300.0
"""A required sink inside one call for so long makes no progress: the watchdog is not fed."""
PAUSE_SECONDS = 600.0
"""So long `logfan pause` lasts where it does not say how long."""
_LOOP_SECONDS = 10.0
_CLOSE_SECONDS = 5.0

Wait = Callable[[Callable[[float], bool], float], bool]


class Pipeline:
    """The path of a message, from one subscription to all sinks and back."""

    def __init__(
        self,
        prepared: Prepared,
        stats: Stats,
        *,
        events: Events,
        startup: StartupPolicy | None = None,
        left_behind: Sequence[SinkWorker] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`startup`: see `Consumer`. `left_behind`: the workers that the pipeline before could not
        end. `events.on_fault` is called for each thread: see `faults`. Raises Faults where the
        class of a sink, or of a transform, fails."""
        self._clock = clock
        self._events = events
        self._handed_back: int | None = None
        sinks = made_of(prepared.sinks, prepared.settings.instance)
        self._left_before = left_behind
        ioloop = new_loop()
        required = [spec.name for spec in prepared.sinks if spec.settings.required]
        self._completions = Completions(len(required), ioloop.add_callback_threadsafe)
        self.dead_letters = (
            DeadLetters(
                prepared.settings, events.on_fault, is_connected=lambda: stats.consumer.connected,
                on_count=stats.consumer.note_dead_letters,
            ) if prepared.settings.dead_letter.enabled else None
        )  # fmt: skip
        self.workers: Sequence[SinkWorker] = [
            self._worker(
                made, required.index(made.spec.name) if made.spec.settings.required else None,
                prepared, stats,
            )
            for made in sinks
        ]  # fmt: skip
        for worker in self.workers:
            worker.follow(left_behind)
        self.consumer = Consumer(
            settings=prepared.settings, stats=stats.consumer, clock=clock, ioloop=ioloop,
            workers=self.workers, completions=self._completions, events=events,
            dead_letters=self.dead_letters, startup=startup,
        )  # fmt: skip

    def _worker(
        self, made: Made, number: int | None, prepared: Prepared, stats: Stats
    ) -> SinkWorker:
        spec = made.spec
        rabbitmq = prepared.settings.rabbitmq
        batch, retry = spec.settings.batch, spec.settings.retry
        optional = number is None
        return SinkWorker(
            sink=made.sink,
            limits=Limits(
                batch.max_records,
                batch.max_bytes,
                batch.linger,
                window=rabbitmq.prefetch,
                waiting_records=max(rabbitmq.prefetch, batch.max_records) if optional else None,
                waiting_bytes=rabbitmq.max_in_flight_bytes if optional else None,
            ),
            backoff=Backoff(retry.initial, retry.max, jitter=retry.jitter),
            stats=stats.sinks[spec.name],
            completions=self._completions,
            number=number,
            stage=made.stage,
            send=None if self.dead_letters is None else self.dead_letters.send,
            max_ratio=prepared.settings.dead_letter.max_ratio,
            on_fault=self._events.on_fault,
            clock=self._clock,
        )

    def start(self) -> None:
        """Sinks first, so that the first delivery finds them opening; then the subscription."""
        for worker in self.workers:
            worker.start()
        if self.dead_letters is not None:
            self.dead_letters.start()
        self.consumer.start()

    def reopen(self) -> None:
        for worker in self.workers:
            worker.reopen()

    def pause(self, name: str, seconds: float | None) -> dict[str, Any]:
        """Leave this sink alone for so long: by default for `PAUSE_SECONDS`. A pause ends before
        the window is handed back because of it; who needs longer pauses the sink again."""
        longest = self.consumer.hold_seconds
        if seconds is None:
            seconds = min(PAUSE_SECONDS, longest)
        if not 0 < seconds <= longest:
            return {"longest": longest}
        return self._of_sink(name, lambda worker: worker.pause(seconds))

    def resume(self, name: str) -> dict[str, Any]:
        return self._of_sink(name, lambda worker: worker.resume())

    def look_at_pause(self, name: str) -> dict[str, Any]:
        return self._of_sink(name, lambda _: None)

    def _of_sink(self, name: str, do: Callable[[SinkWorker], None]) -> dict[str, Any]:
        """Whether it was paused and what it held before `do`, and how it is paused now."""
        worker = next((one for one in self.workers if one.name == name), None)
        if worker is None:
            return {"unknown": [one.name for one in self.workers]}
        now, pause, held = self._clock.monotonic(), worker.stats.pause, worker.held
        was_paused = pause.is_on(now)
        do(worker)
        return {
            "was_paused": was_paused, "why": worker.failure,
            "lasts_seconds": now - pause.since if was_paused else 0.0,
            "busy_seconds": worker.busy_seconds(), "held": held,
            "required": worker.required,
        }  # fmt: skip

    def stop(self, seconds: float, wait: Wait) -> int:
        """Drain and stop, in order, within `seconds` (and a little to let go of what hangs).

        Returns how many messages went back to the broker: 0 where all was acknowledged.
        `wait(condition, deadline)` calls `condition(seconds)`, which waits for so long at most,
        until it returns True or the monotonic deadline has passed, and returns which. A second call
        returns the same again.
        """
        if self._handed_back is None:
            self._handed_back = self._stop(seconds, wait)
        return self._handed_back

    def _stop(self, seconds: float, wait: Wait) -> int:
        deadline = self._clock.monotonic() + seconds
        self.consumer.stop_consuming()
        for worker in self.workers:
            worker.retry_now()
        wait(self.consumer.drained.wait, deadline)
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            if not wait(worker.join, deadline):
                worker.give_up()
        if self.dead_letters is not None and not self.dead_letters.finish(_CLOSE_SECONDS):
            log.error("the dead letters' thread did not end")
        if not self.consumer.finish(_CLOSE_SECONDS):
            log.error("the connection's thread did not end")
        for worker in self.workers:
            if not worker.join(1.0):
                log.error("sink %s: still inside its own code; left behind", worker.name)
                worker.drop_queue()
        if self.last_copies:
            log.error(
                "%d messages of a queue that is gone are lost: a sink has not written them",
                self.last_copies,
            )
        return self.consumer.handed_back

    @property
    def left_behind(self) -> Sequence[SinkWorker]:
        """After the stop: the workers that are still inside their sinks' code, also those of
        pipelines before."""
        return [one for one in (*self._left_before, *self.workers) if not one.join(0.0)]

    @property
    def last_copies(self) -> int:
        """How many messages of a queue that is gone a sink has not written. Those that are left
        after the stop are lost."""
        return self._completions.tracker.last_copies

    def faults(self) -> list[str]:
        """Threads that have ended and should not have: the process must end."""
        faults = [self.consumer.thread.fault, *(worker.fault for worker in self.workers)]
        if self.dead_letters is not None:
            faults.append(self.dead_letters.thread.fault)
        return [fault for fault in faults if fault is not None]

    def unready(self) -> list[str]:
        """Why records do not flow: empty where the consumer is subscribed and required sinks up."""
        why = self.consumer.why_not_consuming
        reasons = [why] if why else []
        failures = {w.name: w.failure for w in self.workers if w.required}
        reasons += [f"sink {name} is down: {why}" for name, why in failures.items() if why]
        return reasons

    def look(self) -> None:
        """Log which sinks hang, and again which stay down, and forget who was left behind and has
        ended. About once a second."""
        self._left_before = [one for one in self._left_before if not one.join(0.0)]
        for worker in self.workers:
            worker.look()

    def stuck(self) -> list[str]:
        """What makes no progress at all: empty while all is well or knowingly backing off."""
        still = self._clock.monotonic() - self.consumer.turned_at
        if still <= _LOOP_SECONDS:
            return []
        return [f"the consumer's loop has not turned for {still:.0f} s"]

    def hanging(self) -> list[str]:
        """Required sinks that hang in their own code."""
        return [
            f"sink {worker.name} hangs in its own code for {worker.busy_seconds():.0f} s"
            for worker in self.workers
            if worker.required and worker.busy_seconds() > HANG_SECONDS
        ]
