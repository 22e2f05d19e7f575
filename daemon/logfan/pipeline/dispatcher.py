"""The path of a message on the I/O thread: delivered, dispatched, completed, acknowledged.

It owns the in-flight tracker and calls the live subscription. While the budget of bytes is full,
or a required sink is down for long, it unsubscribes for a while on a channel that stays open.
"""

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any

from pika import spec

from logfan.amqp import connection
from logfan.amqp.delivery_parser import Run
from logfan.amqp.subscription import Subscription
from logfan.amqp.topology import Declared
from logfan.config.settings import Settings
from logfan.pipeline.batching import (
    BatchBuilder,
    NewBatch,
    delivery_count,
    delivery_limit_reached,
)
from logfan.pipeline.completions import Completions
from logfan.pipeline.flow_control import BackpressureGate, ReadCoalescing, Window
from logfan.pipeline.in_flight import Ack
from logfan.pipeline.progress import ENDS, Progress
from logfan.pipeline.redelivery import RedeliveryRouter
from logfan.pipeline.worker import SinkWorker
from logfan.record import Record
from logfan.runtime.clock import Clock
from logfan.runtime.foreign_text import line_of
from logfan.telemetry.metrics import ConsumerStats

log = logging.getLogger(__name__)

_HOLD_SHARE = 1 / 3
"""Of the broker's acknowledgement timeout: so long a window waits for a sink."""
_LEAST_HOLD_SECONDS = 1.0
_FEW = 10
"""So many messages a sink gets at a time that has never completed a window: enough for one to prove
another bad."""
_LATEST = 2.4
"""So many times as long a refused record waits for its dead letter: 80 % of the timeout."""


class _Pause(Enum):
    """Why there is no consumer for a while although the channel is open."""

    FULL = "the budget of bytes is full"
    OUTAGE = "a required sink is down for long"
    RESIZE = "to subscribe with another prefetch"


_CLOSED = (_Pause.FULL, _Pause.OUTAGE)


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
        say: Callable[[str], None],
        drained: Callable[[], None],
    ) -> None:
        """`say` reports what it is doing; `drained` is called after `stop` once nothing is left."""
        rabbitmq = settings.rabbitmq
        self._settings = settings
        self._stats = stats
        self._clock = clock
        self._say, self._tell_drained = say, drained
        self.now = clock.time
        """See `Receiver`."""
        self._coalescing = ReadCoalescing(clock.monotonic())
        self._workers = workers
        required = [worker for worker in workers if worker.required]
        self._routes: dict[str, tuple[SinkWorker, Sequence[int]]]
        self._routes = {worker.name: (worker, ()) for worker in workers}
        self._routes |= {worker.name: (worker, (n,)) for n, worker in enumerate(required)}
        self._router = RedeliveryRouter(
            [*self._routes],
            fallback=next((worker.name for worker in (*required, *workers)), ""),
            dead_letters=settings.dead_letter.enabled,
            limit_is_named=settings.queue.delivery_limit is not None,
        )
        self._tracker = tracker = completions.tracker
        completions.acknowledge = self._acknowledge
        stats.oldest = lambda: tracker.oldest_held
        self._builder = BatchBuilder()
        self._window = Window(rabbitmq.prefetch, rabbitmq.max_in_flight_bytes)
        self._gate = BackpressureGate(rabbitmq.max_in_flight_bytes)
        self.read_bytes = rabbitmq.max_in_flight_bytes // 8
        """See `Receiver`: the gate must see the budget fill before it is full."""
        self._hold_seconds = rabbitmq.acknowledgement_timeout * _HOLD_SHARE
        self._progress = Progress()
        self._acked_before = (0, 0)
        """At the turn before the last one, and at the last one."""
        self._subscription: Subscription | None = None
        self._channel: Any = None
        self._subscribed = False
        self._pause: _Pause | None = None
        self._short = False
        self._unfit_size = 0
        """The size of the largest message that was turned away in the pause, or in the last one."""
        self._stopping = False
        self._delivery_limit: int | None = None
        self._received_before = (0, 0)

    @property
    def prefetch(self) -> int:
        """What to subscribe with."""
        return self._window.prefetch

    def begin(self, subscription: Subscription, declared: Declared) -> None:
        """Subscribed: for the first time on this connection, or again after a pause."""
        self._delivery_limit = declared.delivery_limit
        self._subscription = subscription
        self._channel = subscription.channel
        self._subscribed = self._stats.consuming = True
        if self._stopping:
            subscription.cancel(partial(self._cancelled, subscription))

    def turn(self, now: float) -> None:
        """Once a second; `now` is monotonic."""
        self._acked_before = self._acked_before[1], self._stats.acked
        oldest = self._tracker.oldest
        if oldest is not None and now - oldest > self._hold_seconds:
            self._hold(now - oldest)
        elif self._pause is not None:
            self._resume_where_possible()
        elif self._subscribed:
            self._resize()
        if self._tracker.aside:
            self._look_at_aside(now)
        self._look_at_gate()

    def note_timeout(self, seconds: float) -> bool:
        """The broker waits no longer than this for an acknowledgement. True where that is news."""
        hold = max(seconds * _HOLD_SHARE, _LEAST_HOLD_SECONDS)
        is_news, self._hold_seconds = hold < self._hold_seconds, min(hold, self._hold_seconds)
        return is_news

    def note_end(self, cause: object, *, telling: bool = False) -> int:
        """The subscription is about to end for this cause. Returns how often that was so without an
        acknowledgement in between; too often, and the next one gets one message at a time.
        `telling`: see `Progress`; it is so wherever messages are held."""
        held = self._tracker.messages + self._builder.messages
        # What was acknowledged just now may have reached nobody any more.
        ends = self._progress.ended(cause, acked=self._acked_before[0], telling=telling or held > 0)
        if ends >= ENDS:
            self._window.limit(1)
        return ends

    @property
    def held_seconds(self) -> float:
        """How long the oldest message is held."""
        oldest = self._tracker.oldest
        return 0.0 if oldest is None else self._clock.monotonic() - oldest

    def head(self) -> str:
        """The oldest message that is held, in words; empty without one."""
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
        """No new deliveries; `drained` is called once those under way are acknowledged."""
        self._stopping = True
        self._look_at_gate()
        if self._subscription is not None and self._pause is None:
            self._subscription.cancel(partial(self._cancelled, self._subscription))
        else:
            self._check_drained()

    def end(self, *, requeue: bool) -> int:
        """The channel is given up: the generation ends. With `requeue` what is left is handed back
        in so many words, where the channel still can. Returns how many were not acknowledged."""
        if requeue and self._subscription is not None and self._subscription.channel.is_open:
            self._acknowledge()
            return self._leave(self._hand_window_back(at_end=True))
        stats, left = self._stats, self._tracker.messages
        for unseen in self._builder.take():
            stats.received_messages += len(unseen.records)
            stats.received_bytes += unseen.size
            left += len(unseen.records)
        self._tracker.abandon()
        stats.abandoned += left
        return self._leave(left)

    def _leave(self, left: int) -> int:
        self._subscription = self._channel = self._pause = None
        self._short = False
        self._subscribed = self._stats.consuming = False
        self._stats.in_flight_bytes = 0
        self._check_drained()
        return left

    # Deliveries in

    def on_deliveries(self, channel: Any, run: Run) -> None:
        """Messages that came together, none of them with a way of its own."""
        if channel is not self._channel:
            return  # a channel that is being left: its tags mean nothing any more
        builder = self._builder
        held = self._tracker.size + builder.size
        if self._pause in _CLOSED or not self._window.has_room_for_all(held, run.size):
            for tag, record in enumerate(run.records, run.last_tag - len(run.records) + 1):
                if self._has_room(record.size):
                    builder.add(record, tag, record.size)
                else:
                    self._turn_away(tag, record.size)
            return
        builder.add_run(run.records, run.last_tag, run.size)

    def deliver(
        self,
        channel: Any,
        method: spec.Basic.Deliver,
        properties: Any,
        body: bytes,
    ) -> None:
        """pika's callback for each message that did not come in a run."""
        tag, size = method.delivery_tag, len(body)
        if channel is not self._channel:
            return
        record = connection.to_record(method, properties, body, self._clock.time())
        if not self._has_room(size) and not self._is_on_its_last_life(record):
            self._turn_away(tag, size)
            return
        if method.redelivered or not method.exchange:
            self._route_apart(record, method, size)
        else:
            self._builder.add(record, tag, size)

    def _has_room(self, size: int) -> bool:
        """Whether a message may be taken in."""
        return self._pause not in _CLOSED and self._window.has_room(self._held(), size)

    def _held(self) -> int:
        """Bytes that are held; none where only what waits for its dead letter is, as a message as
        large as the budget would wait for that."""
        tracker, builder = self._tracker, self._builder
        return tracker.size + builder.size if tracker.open_messages or builder.messages else 0

    def _is_on_its_last_life(self, record: Record) -> bool:
        """Whether the queue may drop it once it is returned: then it is kept, whatever the room."""
        return (
            record.redelivered
            and delivery_limit_reached(delivery_count(record), self._delivery_limit) is not None
        )

    def _route_apart(self, record: Record, method: spec.Basic.Deliver, size: int) -> None:
        """One that came before, or that was published to the queue itself."""
        if method.redelivered:
            self._stats.redelivered += 1
            self._stats.note_delivery_count(delivery_count(record))
        route = self._router.route(
            record, redelivered=method.redelivered, delivery_limit=self._delivery_limit
        )
        tag = method.delivery_tag
        if route.is_common:
            self._builder.add(route.record, tag, size)
        else:
            self._builder.add_apart(
                route.record, tag, size, sink=route.sink, rejection=route.rejection
            )

    def on_read_end(self) -> None:
        """All of a read is taken in: off it goes; and where much is coming, more may gather."""
        messages, size = self._builder.messages, self._builder.size
        if not messages:
            return
        self._dispatch()
        self._look_at_gate()
        # Half of the window may gather; the other half keeps the broker and the sinks at work.
        room = 0 if self._stopping else self._window.prefetch // 2 - self._tracker.messages
        seconds = self._coalescing.wait(self._clock.monotonic(), messages, size, room=room)
        if seconds and self._subscription is not None:
            self._subscription.rest(seconds)

    def _dispatch(self) -> None:
        """What this turn read becomes one batch, for the tracker and for every sink."""
        for new_batch in self._builder.take():
            self._open(new_batch)

    def _open(self, new_batch: NewBatch) -> None:
        records, stats = tuple(new_batch.records), self._stats
        stats.received_messages += len(records)
        stats.received_bytes += new_batch.size
        workers, pending = self._workers, None
        if new_batch.sink:
            worker, pending = self._routes[new_batch.sink]
            workers = (worker,)
        batch = self._tracker.open(
            records, new_batch.last_tag, new_batch.size, self._clock.monotonic(), pending
        )
        batch.rejection = new_batch.rejection
        stats.in_flight_bytes = self._tracker.size
        for worker in workers:
            worker.submit(batch)
        if not batch.pending:
            self._acknowledge()

    # Acknowledgements out

    def _acknowledge(self) -> None:
        ack = self._tracker.advance()
        if ack is not None and self._subscription is not None:
            if ack.singles:
                self._acknowledge_around(ack)
            else:
                self._subscription.ack(ack.tag)
            self._stats.acked += ack.messages
            self._stats.in_flight_bytes = self._tracker.size
            now = self._clock.monotonic()
            for batch in ack.batches:
                self._stats.delivery_seconds.observe(now - batch.opened_at, len(batch.records))
            self._look_at_gate()
        if self._pause in (_Pause.FULL, _Pause.RESIZE):
            self._resume_where_possible()
        self._check_drained()

    def _acknowledge_around(self, ack: Ack) -> None:
        """A record stands aside: what comes after it is acknowledged one by one."""
        if self._subscription is None:
            return
        if ack.tag:
            self._subscription.ack(ack.tag)
        for tag in ack.singles:
            self._subscription.ack_one(tag)

    def _look_at_aside(self, now: float) -> None:
        """What waits for its dead letter is not for the broker to take back with a closed channel:
        its sink hears that it is late, and in the end it alone is handed back."""
        for one in self._tracker.aside:
            age = now - one.opened_at
            one.late = age > self._hold_seconds
            if age > self._hold_seconds * _LATEST and self._subscription is not None:
                self._subscription.requeue_one(one.last_tag)
                self._tracker.give_up(one)
                self._stats.requeued += 1
                self._stats.in_flight_bytes = self._tracker.size
                log.warning(
                    "a refused message of %d bytes was handed back to the broker: its dead letter "
                    "could not be sent for %.0f s, and the broker waits for %.0f s (%s)",
                    one.size, age, self._hold_seconds / _HOLD_SHARE,
                    "rabbitmq.acknowledgement_timeout",
                )  # fmt: skip
        self._check_drained()

    def _look_at_gate(self) -> None:
        tracker = self._tracker
        held = 0 if self._stopping or self._pause else tracker.size  # those need answers
        held = max(0, held - tracker.aside_size)
        self._gate.look(held, self._clock.monotonic(), self._subscription)

    # Pauses: no consumer for a while, on a channel that stays

    def _turn_away(self, tag: int, size: int) -> None:
        """No room: unsubscribe, and hand back what was on its way to us."""
        if self._pause not in _CLOSED:
            held = self._tracker.size + self._builder.size
            messages = self._tracker.messages + self._builder.messages
            self._window.shrink(messages + 1, held + size)
            self._unfit_size = 0
            self._begin_pause(
                _Pause.FULL,
                f"in flight are {messages:,} messages of {held:,} bytes, as much as "
                f"rabbitmq.max_in_flight_bytes allows beside one of {size:,}; unsubscribed until "
                "half of it is written and that one fits",
            )
        if size > self._unfit_size:
            self._unfit_size = size
            self._window.fit(size)
        self._stats.received_messages += 1
        self._stats.received_bytes += size
        self._stats.requeued += 1
        if self._subscription is not None:
            self._subscription.requeue_one(tag)

    def _hold(self, seconds: float) -> None:
        """A required sink completes nothing: give the window back before the broker takes it."""
        if self._stopping or self._subscription is None or self._channel is None:
            return
        owing = [w.name for w in self._workers if w.required and not self._is_ready(w)]
        names = ", ".join(owing) or "a required sink"
        words = f"sink {names} has held messages for {seconds:.0f} s; unsubscribed until it is up"
        if self._pause is None:
            self._begin_pause(_Pause.OUTAGE, words)
            return
        before, self._pause = self._pause, _Pause.OUTAGE
        if before is not _Pause.OUTAGE:
            self._say(words)
        if not self._subscribed:
            self._hand_window_back()

    def _begin_pause(self, pause: _Pause, words: str) -> None:
        cancelling, self._pause = self._pause is not None, pause
        if pause is not _Pause.RESIZE:
            self._say(words)
        if self._subscription is not None and not cancelling:
            cancelled = partial(self._cancelled, self._subscription)
            self._subscription.pause(self._hold_seconds, cancelled)

    def _hand_window_back(self, *, at_end: bool = False) -> int:
        """All of it; but what waits for its dead letter, which is no trouble of a sink, stays here
        unless this is the end: to go back costs it one of its lives on a quorum queue."""
        self._dispatch()
        tracker = self._tracker
        count = tracker.messages if at_end else tracker.open_messages
        if self._subscription is None or not count:
            return 0
        if (
            self._pause is _Pause.OUTAGE
            and self._progress.ended(_Pause.OUTAGE, acked=self._acked_before[0], telling=True)
            >= ENDS
        ):
            self._window.limit(_FEW)
        if count == tracker.messages:
            self._subscription.requeue(tracker.last_tag)
        else:
            for tag in tracker.open_tags:
                self._subscription.requeue_one(tag)
        self._stats.requeued += tracker.abandon(but_aside=not at_end)
        self._stats.in_flight_bytes = tracker.size
        log.warning("%d messages were handed back to the broker", count)
        return count

    def _cancelled(self, subscription: Subscription) -> None:
        if subscription is not self._subscription:
            return
        self._subscribed = self._stats.consuming = False
        if self._pause is _Pause.OUTAGE:
            self._hand_window_back()
        elif self._pause is not None:
            self._resume_where_possible()
        self._check_drained()

    def _check_drained(self) -> None:
        if self._stopping and not (
            self._subscribed or self._builder.messages or self._tracker.messages
        ):
            self._tell_drained()

    def _resume_where_possible(self) -> None:
        if self._subscribed or self._stopping or self._subscription is None:
            return
        if self._pause is _Pause.OUTAGE and not self._sinks_are_ready():
            return
        if self._pause is _Pause.FULL and not (
            self._window.is_low(self._held())
            # Else it would be returned again and again, which some queues count.
            and self._window.has_room(self._held(), self._unfit_size)
        ):
            return
        if self._pause is _Pause.RESIZE and self._tracker.open_messages:
            return
        # What is in flight does not count against the prefetch of a consumer that comes later.
        held = self._tracker.messages
        if held >= self._window.prefetch:
            return
        self._pause, self._short = None, held > 0
        self._subscribed = True
        self._subscription.consume(self._window.prefetch - held)

    def _sinks_are_ready(self) -> bool:
        return all(self._is_ready(w) for w in self._workers if w.required)

    def _is_ready(self, worker: SinkWorker) -> bool:
        """Inside one call for longer than a window is held, it would have the next handed back."""
        return worker.is_up and worker.busy_seconds() < self._hold_seconds

    def _resize(self) -> None:
        """Once a second: a prefetch that was cut for large messages grows when they are small."""
        stats, (messages, size) = self._stats, self._received_before
        self._received_before = stats.received_messages, stats.received_bytes
        received = stats.received_messages - messages
        short = self._short and not self._tracker.aside
        if self._window.grow(received, stats.received_bytes - size) or short:
            self._begin_pause(_Pause.RESIZE, "")
