"""Keeps a queue that goes without a consumer, while logfan's own consumer pauses or waits.

A second consumer on a channel of its own, with a prefetch of 1: it takes one message and holds it.
That one is returned now and then, before the broker's timeout for acknowledgements, and at the end.
Some queues count returns, so it comes no sooner than it has to.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from pika import exceptions

from logfan.amqp.broker_features import NOT_FOUND, acknowledgement_timeout
from logfan.amqp.client import Client
from logfan.amqp.pika_internals import Channel
from logfan.runtime.foreign_text import line_of

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_ATTEMPTS = 60
"""So often the broker may refuse it before the queue is left alone."""
_LEAST_HOLD_SECONDS = 0.25


class StandIn:
    """One connection's: `begin` and `end`, as often as needed."""

    def __init__(
        self,
        client: Client,
        channel: Channel,
        queue: str,
        pause_reading_for: Callable[[float], None],
        *,
        spare_seconds: float,
    ) -> None:
        """`spare_seconds`: for so long the queue may be without a consumer; 0 where it is gone at
        once."""
        self._client = client
        self._pause_reading_for = pause_reading_for
        self._queue = queue
        self._spare_seconds = spare_seconds
        self._wanted = False
        self._consumer_tag = ""
        self._held: int | None = None
        self._timer: Any = None
        self._then: Callable[[], None] | None = None
        """What to go on with once it consumes."""
        self._attempts = 0
        self._answered: Callable[[], None] = lambda: None
        self._use(channel)

    def _use(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_closed)
        channel.add_on_cancel_callback(lambda _frame: self._on_cancelled())

    def begin(self, seconds: float, then: Callable[[], None]) -> None:
        """Consume; then go on. A message is held for so many seconds at most. Where the broker
        refuses it, it is asked again each second for a minute, as without it all that waits in the
        queue may be lost with it."""
        if self._consumer_tag:
            then()
            return
        self.stop()
        self._wanted, self._seconds, self._attempts = True, seconds, 0
        if self._spare_seconds:
            self._begin_after(self._spare_seconds)
            then()
            return
        self._then = then
        self._begin()

    def call_off(self) -> bool:
        """While the broker refuses it: ask no more, and do not go on. False where it is not so."""
        waits = self._then is not None and self._timer is not None and not self._consumer_tag
        if waits:
            self.end()
        return waits

    def _begin_after(self, seconds: float) -> None:
        self._timer = self._client.ioloop.call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._channel.is_open:
            self._consume()
        else:
            self._client.channel(self._begin_on)

    def _begin_on(self, channel: Channel | None) -> None:
        if channel is None:
            self._go_on()
        elif self._wanted:  # else it was ended meanwhile
            self._use(channel)
            self._consume()

    def _consume(self) -> None:
        self._answered = self._client.expect(f"basic.consume of queue {self._queue!r}")
        self._channel.basic_qos(prefetch_count=1)
        self._consumer_tag = self._channel.basic_consume(
            self._queue, self._on_message, callback=lambda _frame: self._on_consuming()
        )
        self._renew_after(self._seconds)

    def end(self) -> None:
        """Consume no more, and return what is held."""
        self.stop()
        self._wanted, self._then = False, None
        tag, self._consumer_tag = self._consumer_tag, ""
        if tag and self._channel.is_open:
            self._channel.basic_cancel(tag)
            self._return()

    def _on_consuming(self) -> None:
        self._answered()
        self._attempts = 0
        self._go_on()

    def _go_on(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def _on_closed(self, _channel: Channel, error: BaseException) -> None:
        if not isinstance(error, exceptions.ChannelClosedByBroker):
            return  # it went with its connection
        self._answered()
        self._lost()
        if not self._wanted:
            return
        if error.reply_code == NOT_FOUND:
            self._go_on()  # the queue is gone: who looks at it will know
            return
        timeout = acknowledgement_timeout(error.reply_code, error.reply_text)
        if timeout is not None:
            self._hurry(timeout)
        else:
            self._attempts += 1
            if self._attempts == 1:
                self._log_refusal(error)
        if self._attempts == _ATTEMPTS:
            self._go_on()
            return
        if self._then is not None:
            # What our own consumer gets until then is returned: as little as may be.
            self._pause_reading_for(_AGAIN_SECONDS)
        self._begin_after(_AGAIN_SECONDS)

    def _on_cancelled(self) -> None:
        """By the broker: the queue is deleted, or an acknowledgement is overdue (RabbitMQ 4.3)."""
        self._lost()
        if self._wanted:
            self._hurry(self._seconds)
            self._begin_after(_AGAIN_SECONDS)

    def _lost(self) -> None:
        self.stop()
        self._consumer_tag, self._held = "", None

    def _hurry(self, timeout: float) -> None:
        """Return what is held before so many seconds have passed."""
        self._seconds = max(_LEAST_HOLD_SECONDS, min(self._seconds, timeout / 3))

    def _log_refusal(self, error: exceptions.ChannelClosedByBroker) -> None:
        log.warning(
            "queue %r does not last without a consumer, and the broker lets no other one keep it "
            "while ours pauses: %s (%d); asking again each second for a minute, then it is left "
            "alone, and what waits in it may be lost with it",
            self._queue, line_of(error.reply_text), error.reply_code,
        )  # fmt: skip

    def _on_message(self, channel: Channel, method: Any, _properties: Any, _body: bytes) -> None:
        if self._consumer_tag:
            self._held = method.delivery_tag
        else:
            channel.basic_nack(method.delivery_tag, requeue=True)

    def _return(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._channel.basic_nack(held, requeue=True)

    def _renew_after(self, seconds: float) -> None:
        self._timer = self._client.ioloop.call_later(seconds, partial(self._renew, seconds))

    def _renew(self, seconds: float) -> None:
        if self._channel.is_open:
            self._return()
            self._renew_after(seconds)

    def stop(self) -> None:
        if self._timer is not None:
            self._client.ioloop.remove_timeout(self._timer)
            self._timer = None
