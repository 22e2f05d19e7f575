"""The I/O thread: take deliveries, open batches, acknowledge, come back from trouble.

One thread owns connection, channel and ledger; everything that comes from another thread crosses
by `add_callback_threadsafe`. A turn of the loop reads as one paragraph: what a read delivered is
dispatched as one batch; what the workers settled moves the watermark; one cumulative ack follows.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pika import spec
from pika.adapters.select_connection import IOLoop

from logfan import wire
from logfan.api import Record
from logfan.backoff import Backoff
from logfan.broker import Kind, Trouble, parameters, trouble_of
from logfan.clock import SYSTEM_CLOCK, Clock
from logfan.config import Settings
from logfan.faults import Faults
from logfan.ledger import Batch, Ledger
from logfan.metrics import ConsumerNumbers
from logfan.subscription import Subscription
from logfan.topology import Declared
from logfan.worker import SinkWorker

log = logging.getLogger(__name__)

_TURN_SECONDS = 1.0
_UNREACHABLE_MAX_SECONDS = 2.0
"""A refused TCP connect costs nobody anything: ask often, so that we are back soon."""
_STABLE_SECONDS = 10.0
"""A subscription that lived so long was good: the next trouble starts with a short back-off."""


class Consumer:
    """Keeps one subscription alive and walks every message from its delivery to its ack."""

    def __init__(
        self,
        *,
        settings: Settings,
        numbers: ConsumerNumbers,
        on_subscribed: Callable[[], None],
        on_end: Callable[[Trouble | None, BaseException | None], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`on_subscribed` is called at each subscription; `on_end` once, where the thread ended by
        itself: with the trouble that forbids to go on, or with a fault of our own. Both are
        called on the I/O thread."""
        self._settings = settings
        self._numbers = numbers
        self._tell_subscribed = on_subscribed
        self._tell_end = on_end
        self._clock = clock
        self._ioloop = IOLoop()
        self._workers: Sequence[SinkWorker] = ()
        self._ledger = Ledger(0)
        reconnect = settings.rabbitmq.reconnect
        self._backoff = Backoff(reconnect.initial, reconnect.max)
        # Apart, so that a long absence does not slow the return once the broker answers again.
        unreachable_max = min(reconnect.max, _UNREACHABLE_MAX_SECONDS)
        self._unreachable_backoff = Backoff(reconnect.initial, unreachable_max)
        self._subscription: Subscription | None = None
        self._channel: Any = None
        self._attempts = 0
        self._subscribed_at: float | None = None
        self._ever_subscribed = False
        self._arrived: list[Record] = []
        self._arrived_at = 0.0
        self._last_tag = 0
        self._settled: deque[tuple[int, Sequence[Batch]]] = deque()
        self._crossing = False
        self._stopping = False
        self._closing = False
        self.state = "starting"
        """What it is doing, in words."""
        self.turned_at = clock.monotonic()
        """When the loop last turned, in monotonic seconds."""
        self.drained = threading.Event()
        """Set once nothing more is delivered and everything delivered is acknowledged or lost."""
        self.handed_back = 0
        """Messages not acknowledged since `stop_consuming`: the broker has them again."""
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)

    # What other threads call

    def start(self, workers: Sequence[SinkWorker], required_sinks: int) -> None:
        """Start the thread; it connects first, as often as that takes."""
        self._workers = workers
        self._ledger = Ledger(required_sinks)
        self._thread.start()

    def settle(self, sink: int, batches: Sequence[Batch]) -> None:
        """Required sink number `sink` has these batches durably. Called by its worker."""
        self._settled.append((sink, batches))
        if not self._crossing:
            self._crossing = True
            self._ioloop.add_callback_threadsafe(self._take_settled)

    def stop_consuming(self) -> None:
        """No new deliveries; `drained` is set once those under way are acknowledged."""
        self._ioloop.add_callback_threadsafe(self._stop_consuming)

    def finish(self, seconds: float) -> bool:
        """Hand back what is left, close the connection, end the thread. True where it ended."""
        self._ioloop.add_callback_threadsafe(self._finish)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def consuming(self) -> bool:
        """Whether deliveries can arrive now."""
        return self._numbers.consuming

    # The loop

    def _run(self) -> None:
        try:
            self._turn()
            self._connect()
            self._ioloop.start()
        except Exception as error:  # noqa: BLE001 - told to the main thread, which exits 70
            self._numbers.connected = self._numbers.consuming = False
            self.drained.set()
            self._tell_end(None, error)
        finally:
            self._ioloop.close()

    def _turn(self) -> None:
        self.turned_at = self._clock.monotonic()
        self._ioloop.call_later(_TURN_SECONDS, self._turn)

    # The road: deliveries in, acknowledgements out

    def _on_delivery(
        self,
        channel: Any,
        method: spec.Basic.Deliver,
        properties: spec.BasicProperties,
        body: bytes,
    ) -> None:
        if channel is not self._channel:
            return  # a channel that is being left: its tags mean nothing any more
        if not self._arrived:
            self._arrived_at = self._clock.time()
            self._ioloop.call_later(0, self._dispatch)
        self._arrived.append(wire.to_record(method, properties, body, self._arrived_at))
        self._last_tag = method.delivery_tag
        if method.redelivered:
            self._numbers.redelivered += 1

    def _dispatch(self) -> None:
        """What this turn read becomes one batch, for the ledger and for every sink."""
        records = tuple(self._arrived)
        if not records:
            return
        self._arrived.clear()
        size = sum([len(record.body) for record in records])
        batch = self._ledger.open(records, self._last_tag, size, self._clock.monotonic())
        self._numbers.received_messages += len(records)
        self._numbers.received_bytes += size
        self._numbers.in_flight_bytes = self._ledger.size
        for worker in self._workers:
            worker.submit(batch)
        if not batch.owed:
            self._acknowledge()

    def _take_settled(self) -> None:
        # Cleared before the queue is read: who appends after that schedules the next call.
        self._crossing = False
        while self._settled:
            sink, batches = self._settled.popleft()
            for batch in batches:
                self._ledger.settle(batch, sink)
        self._acknowledge()

    def _acknowledge(self) -> None:
        ack = self._ledger.advance()
        if ack is not None and self._subscription is not None:
            self._subscription.ack(ack.tag)
            self._numbers.acked += ack.messages
            self._numbers.in_flight_bytes = self._ledger.size
            now = self._clock.monotonic()
            for batch in ack.batches:
                self._numbers.delivery_seconds.observe(now - batch.opened_at, len(batch.records))
        self._check_drained()

    # The way in, and the one way back

    def _connect(self) -> None:
        if self._stopping or self._closing:
            return
        rabbitmq = self._settings.rabbitmq
        try:
            urls = rabbitmq.read_urls()
        except Faults as faults:
            self._back_off(Trouble(Kind.UNREACHABLE, str(faults)))
            return
        url = urls[self._attempts % len(urls)]
        self._attempts += 1
        try:
            wanted = parameters(
                url,
                heartbeat=rabbitmq.heartbeat,
                tls=rabbitmq.tls,
                instance=self._settings.instance,
            )
        except (OSError, ValueError) as error:
            self._numbers.connections_failed += 1
            self._back_off(trouble_of(error, "rabbitmq.tls", was_open=False))
            return
        self._subscription = Subscription(
            ioloop=self._ioloop,
            url=url,
            parameters=wanted,
            exchange=self._settings.exchange,
            queue=self._settings.queue,
            prefetch=rabbitmq.prefetch,
            compare=not self._ever_subscribed,
            events=self,
            deliver=self._on_delivery,
        )
        self.state = f"connecting to {self._subscription.address}"

    def on_connected(self, subscription: Subscription) -> None:
        """See `subscription.Events`."""
        self._unreachable_backoff.reset()
        self._numbers.connected = True
        self._numbers.connections_opened += 1
        self.state = f"connected to {subscription.address}, subscribing"

    def on_subscribed(self, subscription: Subscription, declared: Declared) -> None:
        """See `subscription.Events`."""
        self._ever_subscribed = True
        self._subscribed_at = self._clock.monotonic()
        self._channel = subscription.channel
        self._numbers.consuming = True
        self.state = f"consuming queue {declared.queue} at {subscription.address}"
        for remark in declared.remarks:
            log.warning("%s", remark)
        log.info("%s", self.state)
        self._tell_subscribed()

    def on_ready_count(self, messages: int) -> None:
        """See `subscription.Events`."""
        self._numbers.queue_ready = messages

    def on_trouble(self, subscription: Subscription, trouble: Trouble) -> None:
        """See `subscription.Events`. The generation ends; the broker delivers its rest again."""
        if subscription is not self._subscription:
            return
        self._lose()
        if trouble.kind is Kind.LOST:
            self._numbers.connections_lost += 1
        else:
            self._numbers.connections_failed += 1
        if self._subscribed_at is not None:
            if self._clock.monotonic() - self._subscribed_at >= _STABLE_SECONDS:
                self._backoff.reset()
            self._subscribed_at = None
        if not self._ever_subscribed and self._is_fatal(trouble):
            self._end(trouble)
            return
        self._back_off(trouble)

    def _is_fatal(self, trouble: Trouble) -> bool:
        """Before the first subscription: what nobody can have fixed by the next attempt."""
        return trouble.at_declaration or self._settings.rabbitmq.startup == "fail"

    def _lose(self) -> None:
        self._numbers.abandoned += self._let_go()
        self._subscription = None
        self._check_drained()

    def _back_off(self, trouble: Trouble) -> None:
        if self._stopping or self._closing:
            return
        unreachable = trouble.kind is Kind.UNREACHABLE
        delay = (self._unreachable_backoff if unreachable else self._backoff).next()
        self.state = f"{trouble.why}; next attempt in {delay:.1f} s"
        log.warning("%s", self.state)
        self._ioloop.call_later(delay, self._connect)

    def _end(self, trouble: Trouble) -> None:
        self.state = trouble.why
        self._closing = True
        self._tell_end(trouble, None)
        self._ioloop.stop()

    # The stop

    def _stop_consuming(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        subscription = self._subscription
        if subscription is None:
            self._check_drained()
            return
        if not self._numbers.consuming:
            # Still on its way: it need not arrive.
            self._lose()
            subscription.close(lambda: None)
            return
        self.state = "draining"
        subscription.cancel(partial(self._cancelled, subscription))

    def _cancelled(self, subscription: Subscription) -> None:
        if subscription is self._subscription:
            self._numbers.consuming = False
            # Deliveries that came in this same read are dispatched first.
            self._ioloop.call_later(0, self._check_drained)

    def _check_drained(self) -> None:
        if self._stopping and not (
            self._numbers.consuming or self._arrived or self._ledger.messages
        ):
            self.drained.set()

    def _finish(self) -> None:
        self._closing = self._stopping = True
        self._take_settled()
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            self._ioloop.stop()
            return
        left = self._let_go()
        if left and subscription.channel is not None and subscription.channel.is_open:
            subscription.requeue(self._last_tag)
            self._numbers.requeued += left
        else:
            self._numbers.abandoned += left
        subscription.close(self._ioloop.stop)

    def _let_go(self) -> int:
        """End the generation; returns how many received messages were not acknowledged."""
        unseen, self._arrived = self._arrived, []
        self._channel = None
        self._numbers.received_messages += len(unseen)
        self._numbers.received_bytes += sum([len(record.body) for record in unseen])
        self._numbers.in_flight_bytes = 0
        self._numbers.connected = self._numbers.consuming = False
        left = self._ledger.abandon() + len(unseen)
        if self._stopping:
            self.handed_back += left
        return left
