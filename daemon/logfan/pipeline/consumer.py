"""The I/O thread: keeps one subscription alive, and comes back from every failure.

One thread owns connection, channel and in-flight tracker; everything that comes from another thread
crosses by `add_callback_threadsafe`. What becomes of a message on it stands in `dispatcher.py`.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from logfan.amqp.binding import Binding, QueueStatus
from logfan.amqp.broker_features import INTERNAL_ERROR, NOT_FOUND
from logfan.amqp.client import Brokers
from logfan.amqp.failures import BrokerError, Cause, ConnectionFailure
from logfan.amqp.queue_kinds import QUORUM
from logfan.amqp.reconnect import Reconnect, StartupPolicy
from logfan.amqp.subscription import Subscription
from logfan.amqp.topology import Declared
from logfan.config.settings import Settings
from logfan.dead_letters.publisher import DeadLetters
from logfan.pipeline.completions import Completions
from logfan.pipeline.dispatcher import Dispatcher
from logfan.pipeline.flow_control import ENDS
from logfan.pipeline.standstill import Standstill
from logfan.pipeline.worker import SinkWorker
from logfan.runtime.clock import SYSTEM_CLOCK, Clock
from logfan.runtime.threads import OwnThread
from logfan.telemetry.metrics import ConsumerStats

log = logging.getLogger(__name__)

CONNECTING, WAITING, CONSUMING = "connecting", "waiting", "consuming"
PAUSED, DRAINING, ENDED = "paused", "draining", "ended"
"""What it is doing, in one word."""

_TURN_SECONDS = 1.0
_SURELY_EMPTY = 2
_LEAST_TIMEOUT_SECONDS = 2.0
"""A consumer that is cancelled with messages held for less was not cancelled because of them."""
_QUIET_TURNS = 2
"""Seconds in which a sink may open without a line in the log."""


class Events(Protocol):
    """What a consumer reports, on the I/O thread."""

    def on_subscribed(self) -> None:
        """It is subscribed; called again after each pause and each new connection."""

    def on_end(self, failure: ConnectionFailure) -> None:
        """It cannot go on, and ends. Called once."""

    def on_fault(self) -> None:
        """A thread has ended and should not have. Called on that thread."""


class Consumer:
    """Owns the thread, the connection, and what becomes of the messages on it."""

    def __init__(
        self,
        *,
        settings: Settings,
        stats: ConsumerStats,
        ioloop: Any,
        workers: Sequence[SinkWorker],
        completions: Completions,
        events: Events,
        dead_letters: DeadLetters | None = None,
        startup: StartupPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`dead_letters` want their connection once this one is subscribed. `startup`: what is
        retried before the first subscription; by default as `rabbitmq.startup` has it."""
        self._settings = settings
        self._stats = stats
        self._dead_letters = dead_letters
        self._events = events
        self._clock = clock
        self._ioloop = ioloop
        self._brokers = Brokers(settings, ioloop)
        self._reconnect = Reconnect(
            settings.rabbitmq.reconnect,
            startup or StartupPolicy.at_start(settings.rabbitmq.startup),
        )
        self._binding: Binding | None = Binding(settings.exchange)
        self._unbound = ""
        self._standstill = Standstill()
        self._subscription: Subscription | None = None
        self._began: Subscription | None = None
        self._declared: Declared | None = None
        self._suspected: tuple[float, int, int, int] | None = None
        """How long the oldest message was held when the broker may have cancelled the consumer for
        that, and `_came` then."""
        self._stopping = False
        self._closing = False
        self._emptying = 0
        """So many looks at the queue must still find it empty before the stop goes on."""
        self._requeued = 0
        """What had been handed back at the last of these."""
        self._leaving = False
        """A connection that was not subscribed yet is being closed."""
        self._state = "starting"
        self._phase = CONNECTING, clock.monotonic()
        self.turned_at = clock.monotonic()
        """When the loop last turned, in monotonic seconds."""
        self.drained = threading.Event()
        """Set once nothing more is delivered and everything delivered is acknowledged or lost."""
        self.handed_back = 0
        """Messages not acknowledged since `stop_consuming`: the broker has them again."""
        self._waiting: Subscription | None = None
        """It has declared, and consumes once each required sink has opened once."""
        self._waiting_turns = 0
        self._workers = workers
        self._dispatcher = Dispatcher(
            settings=settings, stats=stats, clock=clock, workers=workers, completions=completions,
            events=self,
        )  # fmt: skip
        completions.on_sink_opened = self._begin_once_opened
        self.thread = OwnThread("consumer", self._run, events.on_fault)

    # What other threads call

    def start(self) -> None:
        """Start the thread; it connects first, as often as that takes."""
        self.thread.start()

    def stop_consuming(self) -> None:
        """No new deliveries; `drained` is set once those under way are acknowledged."""
        self._ioloop.add_callback_threadsafe(self._stop_consuming)

    def finish(self, seconds: float) -> bool:
        """Hand back what is left, close the connection, end the thread. True where it ended."""
        self.thread.may_end()
        if not self.thread.was_started:
            self._ioloop.close()
            return True
        self._ioloop.add_callback_threadsafe(self._finish)
        return self.thread.join(seconds)

    @property
    def state(self) -> str:
        """What it is doing, for the log and the status page."""
        return self._unbound or self._state

    @property
    def phase(self) -> tuple[str, float]:
        """What it is doing, in one word, and since when, in monotonic seconds."""
        return self._phase

    def _enter(self, phase: str, state: str) -> None:
        if phase != self._phase[0]:
            self._phase = phase, self._clock.monotonic()
        self._state = state

    @property
    def consuming(self) -> bool:
        """Whether deliveries can arrive now."""
        return self._stats.consuming

    @property
    def hold_seconds(self) -> float:
        """So long a window waits for a sink before it is handed back to the broker."""
        return self._dispatcher.flow.hold_seconds

    @property
    def why_not_consuming(self) -> str:
        """Why nothing arrives; empty where all is well."""
        return self._unbound if self.consuming else f"not consuming: {self._state}"

    # The loop

    def _run(self) -> None:
        try:
            self._turn()
            self._connect()
            self._ioloop.start()
        finally:
            self._stats.connected = self._stats.consuming = False
            self.drained.set()
            self._ioloop.close()

    def _turn(self) -> None:
        self.turned_at = self._clock.monotonic()
        self._ioloop.call_later(_TURN_SECONDS, self._turn)
        if self._suspected is not None:
            self._look_at_suspected(*self._suspected)
        self._dispatcher.turn(self.turned_at)
        if self._waiting is not None:
            self._wait_for_sinks()

    def on_pause(self, why: str) -> None:
        self._enter(DRAINING if self._stopping else PAUSED, why)
        log.warning("%s", why)

    def on_drained(self) -> None:
        self.drained.set()

    # The way in, and the one way back

    def _connect(self) -> None:
        if self._stopping or self._closing:
            return
        try:
            self._subscription = Subscription(
                brokers=self._brokers,
                exchange=self._settings.exchange,
                queue=self._settings.queue,
                known=self._declared,
                binding=self._binding,
                events=self,
                receiver=self._dispatcher,
            )
        except BrokerError as error:
            self._stats.connections_failed += 1
            self._retry_or_end(error.failure)
            return
        self._enter(CONNECTING, f"connecting to {self._subscription.address}")

    def on_connected(self, subscription: Subscription) -> None:
        self._reconnect.connected()
        self._stats.connected = True
        self._stats.connections_opened += 1
        self._state = f"connected to {subscription.address}, subscribing"

    def on_declared(self, subscription: Subscription, declared: Declared) -> None:
        self._waiting, self._waiting_turns = subscription, 0
        self._begin_once_opened()
        if self._waiting is not None:
            subscription.keep_queue(self._dispatcher.flow.hold_seconds)

    def _begin_once_opened(self) -> None:
        """Consume once all required sinks have opened: what is consumed before that would only be
        held, and another instance could have it. Nor is anything consumed while a sink still has
        what an earlier connection brought: each connection would bring another window. Last copies
        may be beside a window, unless the sink is down."""
        subscription = self._waiting
        if subscription is None:
            return
        closed = [w.name for w in self._workers if w.required and not w.has_opened]
        allowed = self._dispatcher.last_copies
        full = [
            w.name
            for w in self._workers
            if w.required and w.held > (allowed if w.takes_records else 0)
        ]
        if closed or full:
            names = closed or full
            sinks = f"sink{'s' if len(names) > 1 else ''} {', '.join(names)}"
            until = "open" if closed else "go on with messages of an earlier connection"
            self._enter(
                WAITING, f"connected to {subscription.address}, waiting for {sinks} to {until}"
            )
            return
        self._waiting = None
        self._state = f"connected to {subscription.address}, subscribing"
        subscription.consume(self._dispatcher.flow.window.prefetch)

    def _wait_for_sinks(self) -> None:
        """Once a second."""
        self._begin_once_opened()
        self._waiting_turns += 1
        if self._waiting is not None and self._waiting_turns == _QUIET_TURNS:
            log.warning(
                "%s: the queue is bound and fills; nothing is consumed before each required sink "
                "has opened once, and is rid of what it held", self._state,
            )  # fmt: skip

    def on_subscribed(self, subscription: Subscription, declared: Declared) -> None:
        self._reconnect.subscribed(self._clock.monotonic())
        if subscription is not self._began:
            self._began, self._declared = subscription, declared
            for remark in declared.remarks:
                log.warning("%s", remark)
            if declared.kind == QUORUM and declared.delivery_limit and not self._dead_letters:
                log.warning(
                    "queue %r drops a message after %d returns, and dead_letter.enabled is false: "
                    "nothing can be kept of what is about to be dropped; set it to true",
                    declared.queue, declared.delivery_limit,
                )  # fmt: skip
        self._dispatcher.begin(subscription, declared)
        self._enter(CONSUMING, f"consuming queue {declared.queue} at {subscription.address}")
        log.info("%s", self.state)
        if self._dead_letters is not None:
            self._dead_letters.begin()
        self._events.on_subscribed()

    def on_queue_status(self, look: QueueStatus) -> None:
        self._stats.queue_seen_at = self._clock.monotonic()
        self._stats.queue_ready = look.messages
        self._dispatcher.flow.note_waiting(look.messages)
        if self._emptying:
            self._look_whether_empty(look)
        if look.messages is None and not self.consuming and self._subscription is not None:
            if not self._stopping:
                # Without a consumer the broker does not report that the queue is deleted.
                self._subscription.fail("the queue is gone; it is declared anew", NOT_FOUND)
            return
        if self._stands_still(look):
            return
        if look.rebound:
            self._stats.rebound += 1
            log.warning("%s", look.rebound)
        if look.remark:
            log.warning("%s", look.remark)
        if look.unbound != self._unbound:
            self._unbound = look.unbound
            if look.unbound:
                log.warning("%s; looking again every 5 s", look.unbound)

    def _stands_still(self, look: QueueStatus) -> bool:
        """Messages wait, and the broker delivers none: RabbitMQ 3.10 forgets the consumer of a
        quorum queue that is deleted and declared again. A consumer that stands by gets none."""
        subscription, declared = self._subscription, self._declared
        shape = None if declared is None else declared.shape
        is_served = self.consuming and shape is not None and not shape.stands_by
        if subscription is None or not is_served or self._dispatcher.holds_any:
            self._standstill.over()
            return False
        seconds = self._standstill.look(
            self._clock.monotonic(),
            waiting=look.messages or 0, received=self._stats.received_messages,
        )  # fmt: skip
        if seconds is not None:
            subscription.fail(
                f"messages wait in queue {self._queue} ({look.messages}), and the broker has "
                f"delivered none for {seconds:.0f} s, though none is held here: consuming anew"
            )
        return seconds is not None

    def on_monitor_refused(self, why: str) -> None:
        self._binding, self._stats.queue_ready = None, None
        log.warning(
            "no second channel (%s): messages waiting are not counted, and a binding that goes is "
            "made again at the next connection only; allow 2 channels a connection", why,
        )  # fmt: skip

    def on_failure(self, subscription: Subscription, failure: ConnectionFailure) -> None:
        """See `subscription.Events`. The generation ends. The broker delivers its rest again,
        unless the queue is gone."""
        if subscription is not self._subscription:
            return
        ends = self._look_for_progress(subscription, failure)
        if failure.channels and subscription.wants_second_channel:
            self.on_monitor_refused(failure.why)
        self._drop_subscription(gone=self._what_is_gone(failure))
        if failure.cause is Cause.LOST:
            self._stats.connections_lost += 1
        else:
            self._stats.connections_failed += 1
        self._retry_or_end(failure, subscription, no_progress=ends > 1)

    def _what_is_gone(self, failure: ConnectionFailure) -> str:
        """Why the broker may not have what we hold any more; empty where it has. Where that is not
        known the sinks go on with it: rather twice than not."""
        declared = self._declared
        if self._goes_with_connection() or failure.code == NOT_FOUND:
            return "the queue is gone"
        if failure.cancelled:  # one that is there may be another one
            return "the queue may be gone"
        if declared is None or declared.kind == QUORUM or not failure.may_be_restart:
            return ""
        if declared.shape is not None and not declared.shape.durable:
            return "the queue, which is not durable, may be gone"
        if self._dispatcher.holds_transient:
            return "the broker may have stopped, and lost what is not persistent"
        return ""

    def _look_for_progress(self, subscription: Subscription, failure: ConnectionFailure) -> int:
        """How often subscriptions ended so in a row, with nothing acknowledged in between."""
        dispatcher = self._dispatcher
        held = dispatcher.held_seconds
        if failure.timeout is not None:
            self._learn_timeout(failure.timeout)
        elif failure.may_be_timeout and held >= _LEAST_TIMEOUT_SECONDS:
            self._suspected = held, *self._came()  # it waited no longer than that
        if not subscription.is_subscribed:
            return 0  # never subscribed: nothing was written
        undeliverable, alone = failure.code == INTERNAL_ERROR, dispatcher.flow.window.prefetch == 1
        ends = dispatcher.flow.note_end((failure.cause, failure.code), undeliverable=undeliverable)
        if ends >= ENDS:
            self._log_no_progress(ends, dispatcher.head(), is_head=undeliverable and alone)
        return ends

    def _came(self) -> tuple[int, int, int]:
        return self._stats.received_messages, self._stats.redelivered, self._stats.requeued

    def _look_at_suspected(self, held: float, received: int, redelivered: int, nacked: int) -> None:
        """The consumer was cancelled. Where that was for a timeout, the broker has returned the
        window, and what comes next came before; what comes of a queue that was declared anew did
        not, unless we hand it back ourselves."""
        now = self._came()
        if now[0] > received:
            self._suspected = None
            if now[1] > redelivered and now[2] == nacked:
                self._learn_timeout(held)

    def _learn_timeout(self, seconds: float) -> None:
        if self._dispatcher.flow.note_timeout(seconds):
            log.warning(
                "the broker waits %.0f s for an acknowledgement (its consumer_timeout), less than "
                "rabbitmq.acknowledgement_timeout says: from now on a window is handed back after "
                'a third of it; set rabbitmq.acknowledgement_timeout = "%.0fs", or raise '
                "consumer_timeout at the broker", seconds, seconds,
            )  # fmt: skip

    def _log_no_progress(self, ends: int, head: str, *, is_head: bool) -> None:
        """`head`: the oldest message that was held. `is_head`: where there is none, the one that
        the broker cannot deliver is the first of its queue."""
        queue = self._queue
        if head or not is_head:
            log.error(
                "queue %s: %d subscriptions in a row ended in the same way, and nothing was "
                "acknowledged in between; at the head stands %s. Next it is subscribed with a "
                "prefetch of 1, so that what stands before the cause is written once",
                queue, ends, head or "no message that came",
            )  # fmt: skip
            return
        log.error(
            "queue %s: the broker fails to deliver the message at its head (%d times), and closes "
            "the connection (541); nothing behind it comes. It may have been published over AMQP "
            "1.0 with a property that AMQP 0-9-1 has no form for, such as a uuid. Ways out: take "
            "that one message with an AMQP 1.0 client that accepts it, or purge the queue, which "
            "loses all that waits; and have its publisher use strings", queue, ends,
        )  # fmt: skip

    def _retry_or_end(
        self,
        failure: ConnectionFailure,
        subscription: Subscription | None = None,
        *,
        no_progress: bool = False,
    ) -> None:
        """An attempt, or a subscription, has failed."""
        now, brokers = self._clock.monotonic(), self._brokers.count
        delay = self._reconnect.delay(failure, now, brokers=brokers, no_progress=no_progress)
        if delay is None:
            self._end(failure, subscription)
        elif not (self._stopping or self._closing):
            self._enter(CONNECTING, f"{failure.why}; next attempt in {delay:.1f} s")
            log.warning("%s", self._state)
            self._ioloop.call_later(delay, self._connect)

    @property
    def _queue(self) -> str:
        return self._declared.queue if self._declared is not None else ""

    def _goes_with_connection(self) -> bool:
        return self._declared is not None and self._declared.goes_with_connection

    def _drop_subscription(self, *, requeue: bool = False, gone: str = "") -> None:
        left = self._dispatcher.end(requeue=requeue, gone=gone)
        if requeue and left and self._goes_with_connection():
            log.error(
                "%d messages are lost with their queue, which goes with its last consumer, unless "
                "it has another one; a longer shutdown_timeout gives sinks the time to write them",
                left + (self._stats.queue_ready or 0),
            )
        if self._emptying and not requeue:
            self._emptying = 0
            log.error(
                "the connection went before the queue was empty: the queue goes with its last "
                "consumer, and unless it has another one %d messages, when last seen, are lost",
                self._stats.queue_ready or 0,
            )
            self._dispatcher.stop()
        self._stats.connected = False
        self._unbound = ""
        self._waiting = None
        if self._stopping:
            self.handed_back += left
        self._subscription = None

    def _end(self, failure: ConnectionFailure, subscription: Subscription | None) -> None:
        self._enter(ENDED, failure.why)
        self._closing = True
        self.thread.may_end()
        self._events.on_end(failure)
        if subscription is None:
            self._ioloop.stop()
            return
        # The process may live on with another config: no connection is left behind.
        self._leaving = True
        subscription.close(self._left)

    # The stop

    def _stop_consuming(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        subscription = self._subscription
        if subscription is not None and not subscription.is_subscribed:
            # Still on its way: it need not arrive.
            if self._waiting is not None and self._settings.queue.type == "exclusive":
                self._log_lost_with_queue()
            self._drop_subscription()
            self._leaving = True
            subscription.close(self._left)
        self._enter(DRAINING, "draining" if subscription is not None else self._state)
        if subscription is not None and self._goes_with_connection() and subscription.look_often():
            self._emptying = _SURELY_EMPTY
            self._state = "consuming the backlog of a queue that goes with its last consumer"
            log.info("stopping: %s", self._state)
            return
        self._dispatcher.stop()

    def _log_lost_with_queue(self) -> None:
        if self._stats.queue_ready:
            log.error(
                "%d messages, when last seen, are lost with their queue, which is exclusive to "
                "this connection: %s", self._stats.queue_ready, self._state,
            )  # fmt: skip

    def _look_whether_empty(self, look: QueueStatus) -> None:
        """Stopping: nothing is in the queue any more, twice in a row while we consume. What was
        turned away between may be on its way to us again, and in the queue after that."""
        before, self._requeued = self._requeued, self._stats.requeued
        takes = self.consuming and before == self._requeued and not self._dispatcher.flow.is_full
        is_empty = look.messages is None or (look.messages == 0 and takes)
        self._emptying = self._emptying - 1 if is_empty else _SURELY_EMPTY
        if not self._emptying:
            self._state = "draining"
            self._dispatcher.stop()

    def _finish(self) -> None:
        self._closing = self._stopping = True
        subscription = self._subscription
        if subscription is None:
            if not self._leaving:
                self._ioloop.stop()
            return
        self._drop_subscription(requeue=True)
        subscription.close(self._ioloop.stop)

    def _left(self) -> None:
        self._leaving = False
        if self._closing:
            self._ioloop.stop()
