"""The path of a message on the I/O thread: delivered, dispatched, completed, acknowledged.

It owns the in-flight tracker and calls the live subscription. When reading or consuming pauses is
decided by `flow_control`; here that is carried out.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from pika import spec

from logfan.amqp import connection
from logfan.amqp.delivery_parser import Run
from logfan.amqp.pika_internals import Channel
from logfan.amqp.subscription import Subscription
from logfan.amqp.topology import Declared
from logfan.config.settings import Settings
from logfan.pipeline.completions import Completions
from logfan.pipeline.flow_control import (
    Action,
    Actions,
    Coalesce,
    Consume,
    Do,
    Event,
    FlowControl,
    ReadEnd,
    Report,
    Signal,
    Tick,
    TurnedAway,
)
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.redelivery import RedeliveryRouter, delivery_count, delivery_limit_reached
from logfan.pipeline.worker import SinkWorker
from logfan.record import LARGE_PROPERTIES, Record, large_properties, weight
from logfan.runtime.clock import Clock
from logfan.runtime.foreign_text import line_of
from logfan.telemetry.metrics import ConsumerStats

log = logging.getLogger(__name__)

_PERSISTENT = 2
_LATEST = 2.4
"""So many times as long a refused record waits for its dead letter: 80 % of the timeout."""


class Events(Protocol):
    """What the dispatcher reports to its consumer."""

    def on_pause(self, why: str) -> None:
        """There is no consumer for a while, for this reason."""

    def on_drained(self) -> None:
        """After `stop`: nothing is left."""


class Dispatcher:
    """From the delivery to the acknowledgement."""

    def __init__(
        self,
        *,
        settings: Settings,
        stats: ConsumerStats,
        clock: Clock,
        workers: Sequence[SinkWorker],
        completions: Completions,
        events: Events,
    ) -> None:
        rabbitmq = settings.rabbitmq
        self._stats = stats
        self._clock = clock
        self.now = clock.time
        """See `Receiver`."""
        self._events = events
        self._workers = workers
        required = [worker for worker in workers if worker.required]
        self._routes: dict[str, tuple[Sequence[SinkWorker], Sequence[int] | None]]
        self._routes = {worker.name: ((worker,), ()) for worker in workers}
        self._routes |= {worker.name: ((worker,), (n,)) for n, worker in enumerate(required)}
        self._routes[""] = workers, None
        """By a route's sink: who gets the batch, and which of them must complete it."""
        self._router = RedeliveryRouter(
            [worker.name for worker in workers],
            fallback=next((worker.name for worker in (*required, *workers)), ""),
            dead_letters=settings.dead_letter.enabled,
            limit_is_named=settings.queue.delivery_limit is not None,
        )
        self._tracker = tracker = completions.tracker
        completions.on_completed = self.on_completed
        stats.oldest = lambda: tracker.oldest_held
        stats.bytes_held = lambda: tracker.size
        self.flow = FlowControl(
            tracker, prefetch=rabbitmq.prefetch, max_bytes=rabbitmq.max_in_flight_bytes,
            ack_timeout=rabbitmq.acknowledgement_timeout, now=clock.monotonic(),
        )  # fmt: skip
        self._most = rabbitmq.prefetch, rabbitmq.max_in_flight_bytes
        self.read_bytes = rabbitmq.max_in_flight_bytes // 8
        """See `Receiver`: backpressure must see the budget fill before it is full."""
        self._subscription: Subscription | None = None
        self._channel: Channel | None = None
        self._holds = False
        """Whether reading could be paused, where it should be."""
        self._new: list[tuple[Batch, Sequence[SinkWorker]]] = []
        """What the present read brought, and for which workers."""
        self._growing: Batch | None = None
        """The last of these, where what comes next for all sinks belongs to it."""
        self._delivery_limit: int | None = None
        self._counts_deliveries = False
        """Whether the queue says how often it delivered a message before."""

    def begin(self, subscription: Subscription, declared: Declared) -> None:
        """Subscribed: for the first time on this connection, or again after a pause."""
        self._delivery_limit = declared.delivery_limit
        self._counts_deliveries = declared.shape is None or declared.shape.counts_returns
        self._subscription = subscription
        self._channel = subscription.channel
        self._stats.consuming = True
        self._step(Signal.SUBSCRIBED)

    def turn(self, now: float) -> None:
        """Once a second; `now` is monotonic."""
        tracker, stats = self._tracker, self._stats
        unready = [w.name for w in self._workers if w.required and not self._is_ready(w)]
        received, size = stats.received_messages, stats.received_bytes
        self._step(Tick(now, tracker.oldest, unready, received, size, stats.acked))
        if tracker.aside_messages:
            self._look_at_aside(now)
            self._step(Signal.SETTLED)
        if self.flow.is_full:
            self._hurry()

    def _hurry(self) -> None:
        for worker in self._workers:
            worker.hurry()

    def _is_ready(self, worker: SinkWorker) -> bool:
        """Inside one call for longer than a window is held, it would have the next handed back."""
        return worker.is_up and worker.busy_seconds() < self.flow.hold_seconds

    @property
    def held_seconds(self) -> float:
        oldest = self._tracker.oldest
        return 0.0 if oldest is None else self._clock.monotonic() - oldest

    @property
    def holds_any(self) -> bool:
        """Whether any message is in flight."""
        return self._tracker.messages > 0

    def head(self) -> str:
        """The oldest message that is held, as text; empty without one."""
        record = self._tracker.first
        if record is None:
            return ""
        name = f", message id {line_of(record.message_id, 100)}" if record.message_id else ""
        return (
            f"a message of {record.size:,} bytes published to exchange "
            f"{line_of(record.exchange, 100)!r} with routing key "
            f"{line_of(record.routing_key, 100)!r}{name}"
        )

    def stop(self) -> None:
        """No new deliveries; `on_drained` follows once those under way are acknowledged."""
        self._step(Signal.STOP)
        self._hurry()

    @property
    def last_copies(self) -> int:
        """How many messages of a queue that is gone some sink still has to write."""
        return self._tracker.last_copies

    @property
    def may_keep_last_copies(self) -> bool:
        """Whether sinks may go on with what is in flight, beside what they still have of a queue
        that was gone before: of one window in all, as it is held beside the next one."""
        return self._tracker.has_room_for_last_copies(*self._most)

    @property
    def holds_transient(self) -> bool:
        """Whether any message in flight is not persistent: a restart of the broker loses it, though
        it was not acknowledged."""
        return any(
            record.properties.delivery_mode != _PERSISTENT for record in self._tracker.records()
        )

    def end(self, *, requeue: bool, gone: str = "") -> int:
        """The channel is given up: the generation ends. With `requeue` what is left is returned to
        the broker, where the channel still can. Where it will not come again, or may not, `gone`
        says why, and the sinks go on with it, where they may. Returns how many were not
        acknowledged, but for those."""
        if requeue and self._channel is not None and self._channel.is_open:
            self.on_completed()
            left = self._hand_window_back(at_end=True)
        else:
            is_last_copy = bool(gone) and self.may_keep_last_copies
            for batch, workers in self._new if is_last_copy else ():
                for worker in workers:
                    worker.submit(batch)
            left = self._tracker.abandon(is_last_copy=is_last_copy)
            if gone and left:
                log.warning(
                    "%s: %d messages were not acknowledged, and %s", gone, left,
                    "the sinks go on with them" if is_last_copy
                    else "sinks lose them, as they have not written those of the queue before",
                )  # fmt: skip
            self._stats.abandoned += left
            left = 0 if is_last_copy else left
        self._new, self._growing = [], None
        self._step(Signal.CLOSED)
        self._subscription = self._channel = None
        self._stats.consuming = False
        self._hurry()
        return left

    # Flow control, carried out

    def _step(self, event: Event) -> None:
        actions = self.flow.step(event)
        if actions:
            self._carry_out(actions)

    def _carry_out(self, actions: Actions) -> None:
        subscription = self._subscription
        for action in actions:
            if action is Do.DRAINED:
                self._events.on_drained()
            elif isinstance(action, Report):
                self._events.on_pause(action.text)
            elif subscription is None:
                continue
            elif isinstance(action, Coalesce):
                subscription.pause_reading_for(action.seconds)
            elif isinstance(action, Consume):
                subscription.consume(action.prefetch)
            elif action is Do.PAUSE_READING:
                self._holds = subscription.connection.pause_reading()
            elif action is Do.RESUME_READING and self._holds:
                subscription.connection.resume_reading()
            elif action is Do.HAND_BACK:
                self._hand_window_back()
                self._step(Signal.SETTLED)
            else:
                self._cancel(action, subscription)

    def _cancel(self, action: Action, subscription: Subscription) -> None:
        cancelled = partial(self._cancelled, subscription)
        if action is Do.CANCEL:
            subscription.pause(self.flow.hold_seconds, cancelled)
        elif action is Do.LEAVE:
            subscription.cancel(cancelled)
        elif action is Do.CALL_OFF and subscription.call_off():
            self._step(Signal.CALLED_OFF)

    def _cancelled(self, subscription: Subscription) -> None:
        if subscription is self._subscription:
            self._stats.consuming = False
            self._step(Signal.CANCELLED)

    # Deliveries in

    def on_deliveries(self, channel: Channel, run: Run) -> None:
        """Messages that came together, none of them with a way of its own."""
        if channel is not self._channel:
            return  # a channel that is being left: its tags mean nothing any more
        records, last_tag, size = run.records, run.last_tag, run.size
        if run.wire_size - size > LARGE_PROPERTIES * len(records):
            size = sum(map(weight, records))
        self._stats.received_messages += len(records)
        self._stats.received_bytes += run.size
        if self.flow.has_room(size, len(records)):
            self._take_in(records, last_tag, size)
            return
        for tag, record in enumerate(records, last_tag - len(records) + 1):
            size = weight(record)
            if self.flow.has_room(size):
                self._take_in((record,), tag, size)
            else:
                self._turn_away(tag, size)

    def deliver(
        self,
        channel: Channel,
        method: spec.Basic.Deliver,
        properties: Any,
        body: bytes,
    ) -> None:
        """pika's callback for each message that did not come in a run."""
        if channel is not self._channel:
            return
        tag, size = method.delivery_tag, len(body)
        self._stats.received_messages += 1
        self._stats.received_bytes += size
        size += large_properties(getattr(properties, "raw", None))
        record = connection.to_record(method, properties, body, self._clock.time())
        if not self.flow.has_room(size, last_delivery=self._is_last_delivery(record)):
            self._turn_away(tag, size)
        elif method.redelivered or not method.exchange:
            self._route_apart(record, tag, size)
        else:
            self._take_in((record,), tag, size)

    def _is_last_delivery(self, record: Record) -> bool:
        """Whether the queue may drop it once it is returned: then it is kept, whatever the room."""
        return delivery_limit_reached(self._count(record), self._delivery_limit) is not None

    def _count(self, record: Record) -> int:
        """How often it was delivered before, where the queue counts that."""
        return delivery_count(record) if self._counts_deliveries else 0

    def _take_in(self, records: Sequence[Record], last_tag: int, size: int) -> None:
        """Messages for all sinks. One read becomes one batch, where nothing else lies between."""
        growing = self._growing
        if growing is not None and growing.last_tag + len(records) == last_tag:
            self._tracker.extend(growing, records, size)
        else:
            now = self._clock.monotonic()
            self._growing = batch = self._tracker.open(records, last_tag, size, now)
            self._new.append((batch, self._workers))

    def _route_apart(self, record: Record, tag: int, size: int) -> None:
        """One that came before, or that was published to the queue itself."""
        stats, count = self._stats, self._count(record)
        stats.redelivered += record.redelivered
        stats.delivery_count_max = max(stats.delivery_count_max, count)
        record, sink, rejection = self._router.route(
            record, count=count, delivery_limit=self._delivery_limit
        )
        if not sink and rejection is None:
            self._take_in((record,), tag, size)
            return
        workers, pending = self._routes[sink]
        now = self._clock.monotonic()
        batch = self._tracker.open((record,), tag, size, now, pending)
        batch.rejection, batch.replayed, self._growing = rejection, bool(sink), None
        self._new.append((batch, workers))

    def on_read_end(self) -> None:
        """See `Receiver`. All of a read is taken in: hand it to the workers."""
        new, self._new, self._growing = self._new, [], None
        if not new:
            return
        messages = size = 0
        pending = True
        for batch, workers in new:
            messages += len(batch.records)
            size += batch.size
            for worker in workers:
                worker.submit(batch)
            pending = pending and bool(batch.pending)
        if not pending:
            self.on_completed()
        actions = self.flow.step(ReadEnd(batch.opened_at, messages, size))
        if actions:
            self._carry_out(actions)

    # Acknowledgements out

    def on_completed(self) -> None:
        """Acknowledge what all required sinks have completed."""
        ack = self._tracker.advance()
        if ack is not None and self._channel is not None and self._subscription is not None:
            if ack.tag:
                self._channel.basic_ack(ack.tag, multiple=True)
            for tag in ack.singles:
                self._channel.basic_ack(tag)
            self._subscription.connection.send_at_once()
            now, stats = self._clock.monotonic(), self._stats
            for batch in ack.batches:
                stats.acked += len(batch.records)
                stats.delivery_seconds.observe(now - batch.opened_at, len(batch.records))
        self._step(Signal.SETTLED)

    def _look_at_aside(self, now: float) -> None:
        """What stands aside is not for the broker to take back with a closed channel: its sink
        hears that it is late, and in the end it alone is handed back."""
        hold_seconds = self.flow.hold_seconds
        for one in self._tracker.aside:
            age = now - one.opened_at
            one.late = age > hold_seconds
            if age > hold_seconds * _LATEST and self._channel is not None:
                self._channel.basic_nack(one.last_tag, requeue=True)
                self._tracker.give_up(one)
                self._stats.requeued += 1
                log.warning(
                    "a message of %d bytes was handed back to the broker: for %.0f s now its sink "
                    "wants it later, or refuses it and no dead letter can be sent, and the broker "
                    "waits for %.0f s (rabbitmq.acknowledgement_timeout)",
                    one.size, age, self.flow.ack_timeout,
                )  # fmt: skip

    # Back to the broker

    def _turn_away(self, tag: int, size: int) -> None:
        self._step(TurnedAway(size))
        self._stats.requeued += 1
        if self._channel is not None:
            self._channel.basic_nack(tag, requeue=True)

    def _hand_window_back(self, *, at_end: bool = False) -> int:
        """All of it; but what stands aside, while its sink takes others, stays here unless this is
        the end: a quorum queue counts the return."""
        tracker = self._tracker
        self._new, self._growing = [], None
        count = tracker.messages - (0 if at_end else tracker.aside_messages)
        if self._channel is None or not count:
            return 0
        if count == tracker.messages:
            self._channel.basic_nack(tracker.last_tag, multiple=True, requeue=True)
        else:
            for tag in tracker.open_tags:
                self._channel.basic_nack(tag, requeue=True)
        self._stats.requeued += tracker.abandon(but_aside=not at_end)
        log.warning("%d messages were handed back to the broker", count)
        return count
