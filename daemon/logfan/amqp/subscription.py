"""One connection's life: connect, declare, subscribe, acknowledge, close.

It lives on the consumer's I/O thread and ends in exactly one call of `on_failure`, or of the
`close` that was asked for. It decides nothing about what comes after.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from pika import exceptions

from logfan.amqp import broker_features, connection, pika_internals, topology
from logfan.amqp.binding import Binding
from logfan.amqp.client import Brokers, Client, mismatch_failure
from logfan.amqp.delivery_parser import Run
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.pika_internals import Channel
from logfan.amqp.queue_kinds import QUORUM, STREAM_OFFSET, stream_mismatch
from logfan.amqp.queue_monitor import MonitorEvents, QueueMonitor
from logfan.amqp.stand_in import StandIn
from logfan.config.settings import ExchangeSettings, QueueSettings
from logfan.runtime.foreign_text import line_of

log = logging.getLogger(__name__)

_GONE_SECONDS = 1.0
"""After a cancel by the broker the queue may be there for so long, and gone then."""


class Events(MonitorEvents, Protocol):
    """What a subscription reports to its consumer, on the I/O thread."""

    def on_connected(self, subscription: "Subscription") -> None:
        """The connection is open; nothing is declared yet."""

    def on_declared(self, subscription: "Subscription", declared: topology.Declared) -> None:
        """Exchange, queue and binding are there. `consume` is waited for."""

    def on_subscribed(self, subscription: "Subscription", declared: topology.Declared) -> None:
        """Deliveries follow. Called again after each `consume`."""

    def on_failure(self, subscription: "Subscription", failure: ConnectionFailure) -> None:
        """It is over, for this reason. Called once, and never after `close`."""


class Subscription:
    """A connection, its channel and its consumer."""

    def __init__(
        self,
        *,
        brokers: Brokers,
        exchange: ExchangeSettings,
        queue: QueueSettings,
        known: topology.Declared | None,
        binding: Binding | None,
        events: Events,
        receiver: connection.Receiver,
    ) -> None:
        """Begins to connect. `known`: see `topology.declare`. Without a `binding` nothing is looked
        at, and no second channel is opened. Raises BrokerError where there is nothing to begin
        with."""
        self.channel: Channel
        """From `Events.on_declared` on."""
        self.is_subscribed = False
        """Whether it ever was."""
        self.wants_second_channel = False
        """It has asked for a channel to look on, and is not subscribed yet."""
        self._events = events
        self._receiver = receiver
        self._topology = exchange, queue, known
        self._declared = topology.Declared("")
        self._consumer_tag = ""
        self._over = self._is_cancelled = False
        self._binding = binding
        self._monitor: QueueMonitor | None = None
        self._stand_in: StandIn | None = None
        self._client = brokers.connect(self._on_open, lambda _client, why: self._end(why))
        self.connection = self._client.connection
        self.address = self._client.address

    # What the consumer calls

    def pause_reading_for(self, seconds: float) -> None:
        """Read nothing for so long, where that can be; all else goes on meanwhile."""
        if self.connection.pause_reading():
            self._client.ioloop.call_later(
                seconds, partial(self.connection.resume_reading, at_once=True)
            )

    def consume(self, prefetch: int) -> None:
        """Subscribe, after `on_declared`, or again on the same channel, after `cancel`.
        `on_subscribed` follows."""
        if self._over or not self.channel.is_open:
            return
        # What is set here holds for the consumer that comes, not for one that is there.
        self.channel.basic_qos(prefetch_count=prefetch)
        receiver = self._receiver
        if not self._declared.kind:
            receiver = _StreamWatch(receiver, self._on_stream)
        queue = self._declared.queue
        answered = self._client.expect(f"basic.consume of queue {queue!r}")
        self._consumer_tag = self.connection.consume(
            self.channel, queue, receiver, partial(self._on_consuming, answered)
        )

    def cancel(self, on_cancelled: Callable[[], None]) -> None:
        """Stop the deliveries; those under way still come before `on_cancelled`."""
        if not (self.is_subscribed and self.channel.is_open):
            on_cancelled()
            return
        answered = self._client.expect(f"basic.cancel of queue {self._declared.queue!r}")

        def cancelled() -> None:
            answered()
            on_cancelled()

        pika_internals.cancel(self.channel, self._consumer_tag, cancelled)

    def pause(self, seconds: float, on_cancelled: Callable[[], None]) -> None:
        """`cancel`, until `consume`. A queue that goes with its last consumer is kept by another
        one meanwhile, which holds a message for so many seconds at most."""
        if self._stand_in is None:
            self.cancel(on_cancelled)
        else:
            self._stand_in.begin(seconds, lambda: self.cancel(on_cancelled))

    def keep_queue(self, seconds: float) -> None:
        """Before `consume`, where that has to wait: have another consumer keep a queue that expires
        without one. One that is deleted with its last consumer stays where there was none."""
        shape = self._declared.shape
        if self._stand_in is not None and shape is not None and not shape.auto_delete:
            self._stand_in.begin(seconds, lambda: None)

    def call_off(self) -> bool:
        """Do not pause after all. False where the consumer is cancelled, or about to be."""
        return self._stand_in is not None and self._stand_in.call_off()

    def look_often(self) -> bool:
        """Look at the queue several times a second from now on; False where that cannot be."""
        return self._monitor is not None and self._monitor.often()

    def close(self, on_closed: Callable[[], None]) -> None:
        """Close the connection. A broker that does not answer is waited for 3 s, no longer."""
        self._over = True
        self._stop_looking()
        self._client.close(on_closed)

    # Connecting

    def _on_open(self, client: Client) -> None:
        self._events.on_connected(self)
        exchange, queue, known = self._topology
        steps = topology.declare(exchange, queue, known=known, version=client.version)
        client.declare(
            steps,
            on_done=self._on_declared,
            on_mismatch=lambda mismatch: self._end(mismatch_failure(mismatch)),
        )

    def _end(self, failure: ConnectionFailure) -> None:
        """One way out: report it once, and leave no connection behind."""
        if self._over:
            return
        self._over = True
        self._stop_looking()
        if self._is_cancelled:  # also where the connection goes before the queue was asked for
            failure = replace(failure, cancelled=True)
        self._events.on_failure(self, failure)
        self._client.close()

    # Declaring and subscribing

    def _on_declared(self, channel: Channel, declared: topology.Declared) -> None:
        self._declared = declared
        self.channel = channel
        channel.add_on_close_callback(self._on_channel_end)
        channel.add_on_cancel_callback(self._on_cancelled_by_broker)
        if self._binding is None:
            self._report_declared()
            return
        # Before anything is delivered: the broker may close the connection for want of a channel.
        self._binding.begin(declared)
        self.wants_second_channel = True
        self._client.channel(partial(self._on_second_channel, self._binding))

    def _on_second_channel(self, binding: Binding, channel: Channel | None) -> None:
        declared = self._declared
        if channel is None:
            self._events.on_monitor_refused("the broker's channel_max is 1")
        else:
            self._monitor = QueueMonitor(self._client, channel, binding, declared, self._events)
        if declared.needs_stand_in:
            self._client.channel(self._on_third_channel)
        else:
            self._report_declared()

    def _on_third_channel(self, channel: Channel | None) -> None:
        declared = self._declared
        if channel is not None:
            self._stand_in = StandIn(
                self._client, channel, declared.queue, self.pause_reading_for,
                spare_seconds=declared.spare_seconds,
            )  # fmt: skip
        else:
            log.warning(
                "no third channel (the broker's channel_max is %d): no other consumer keeps queue "
                "%r, which does not last without one, while ours waits or pauses, and what waits "
                "in it may be lost with it; allow 3 channels a connection",
                self.connection.params.channel_max, declared.queue,
            )  # fmt: skip
        self._report_declared()

    def _report_declared(self) -> None:
        if self._over or not self.channel.is_open:
            return
        self._events.on_declared(self, self._declared)
        if self._monitor is not None and not self._consumer_tag:
            self._monitor.begin()

    def fail(self, why: str, code: int = 0) -> None:
        """End it, though the broker has not. `on_failure` follows."""
        self._end(ConnectionFailure(Cause.LOST, why, code=code))

    def _on_stream(self) -> None:
        why = stream_mismatch(self._declared.queue)
        self._end(ConnectionFailure(Cause.REFUSED, why, at_declaration=True, is_final=True))

    def _on_consuming(self, answered: Callable[[], None], _frame: Any) -> None:
        answered()
        if self._over:
            return
        self.is_subscribed, self.wants_second_channel = True, False
        if self._stand_in is not None:
            self._stand_in.end()
        self._events.on_subscribed(self, self._declared)
        if self._monitor is not None:
            self._monitor.begin()

    def _on_channel_end(self, channel: Channel, error: BaseException) -> None:
        if not isinstance(error, exceptions.ChannelClosedByBroker):
            return  # it went with its connection, whose end has the reason
        code, text = error.reply_code, line_of(error.reply_text)
        queue = self._declared.queue
        if self._is_cancelled and code == broker_features.NOT_FOUND:
            why = f"the broker cancelled the consumer; was queue {queue!r} deleted?"
            self._end(ConnectionFailure(Cause.LOST, why, code=code))
        elif self._may_not_be_consumed(code):
            passing = broker_features.passes_by_itself(code, text)
            why = f"queue {queue!r} may not be consumed{' for now' * passing}: {text} ({code})"
            if code == broker_features.NOT_FOUND and not passing:
                why = topology.absent(f"queue {queue!r}", "never")
            cause = Cause.BUSY if passing else Cause.REFUSED
            self._end(ConnectionFailure(cause, why, at_declaration=not passing, code=code))
        else:
            why = f"the broker closed the channel: {text} ({code})"
            timeout = broker_features.acknowledgement_timeout(code, text)
            self._end(ConnectionFailure(Cause.LOST, why, code=code, timeout=timeout))

    def _may_not_be_consumed(self, code: int) -> bool:
        """Whether the consumer was refused. A queue that is not there was deleted meanwhile, and is
        declared anew, unless that is not to be."""
        asked = not self.is_subscribed and self._consumer_tag != ""
        _, queue, _ = self._topology
        return asked and (code != broker_features.NOT_FOUND or queue.declare == "never")

    @property
    def _may_be_timeout(self) -> bool:
        """Whether a cancel may mean that an acknowledgement is overdue."""
        kind, version = self._declared.kind, self._client.version
        return kind in ("", QUORUM) and broker_features.cancels_on_timeout(version)

    def _on_cancelled_by_broker(self, _frame: Any) -> None:
        self._is_cancelled = True
        self._ask_for_queue(self._on_still_there)

    def _ask_for_queue(self, on_there: Callable[[Any], None]) -> None:
        # Where the queue is gone this closes the channel.
        if not self._over and self.channel.is_open:
            self.channel.queue_declare(self._declared.queue, passive=True, callback=on_there)

    def _on_still_there(self, frame: Any) -> None:
        if not self._may_be_timeout:
            self._on_cancelled_and_there(frame)
            return
        # RabbitMQ 4.3 cancels the consumers of a quorum queue before it deletes it.
        ask_again = partial(self._ask_for_queue, self._on_cancelled_and_there)
        self._client.ioloop.call_later(_GONE_SECONDS, ask_again)

    def _on_cancelled_and_there(self, _frame: Any) -> None:
        why = f"the broker cancelled the consumer of queue {self._declared.queue!r}, which is there"
        self._end(ConnectionFailure(Cause.LOST, why, may_be_timeout=self._may_be_timeout))

    def _stop_looking(self) -> None:
        if self._monitor is not None:
            self._monitor.stop()
        if self._stand_in is not None:
            self._stand_in.stop()


class _StreamWatch:
    """A receiver before another one, for a queue whose kind the broker does not let us ask for. A
    stream marks each delivery with its offset: the first one decides, before it is taken in, as
    nothing of a stream is acknowledged or handed back."""

    def __init__(self, receiver: connection.Receiver, on_stream: Callable[[], None]) -> None:
        self._receiver = receiver
        self._on_stream = on_stream
        self._is_stream: bool | None = None
        self.read_bytes = receiver.read_bytes
        self.now = receiver.now
        self.on_read_end = receiver.on_read_end

    def deliver(self, channel: Channel, method: Any, properties: Any, body: bytes) -> None:
        if self._is_stream is None:
            self._decide(connection.to_properties(properties).headers)
        if not self._is_stream:
            self._receiver.deliver(channel, method, properties, body)

    def on_deliveries(self, channel: Channel, run: Run) -> None:
        if self._is_stream is None:
            self._decide(run.records[0].headers)
        if not self._is_stream:
            self._receiver.on_deliveries(channel, run)

    def _decide(self, headers: Mapping[str, Any]) -> None:
        self._is_stream = STREAM_OFFSET in headers
        if self._is_stream:
            self._on_stream()
