"""Keeps a queue that goes with its last consumer, while logfan's own consumer pauses.

A second consumer on a channel of its own, with a prefetch of 1: it takes one message and holds it.
That one is returned now and then, before the broker's timeout for acknowledgements, and at the end.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from logfan.amqp.pika_internals import Channel


class StandIn:
    """One connection's: `begin` and `end`, as often as needed."""

    def __init__(self, ioloop: Any, channel: Channel, queue: str) -> None:
        self._ioloop = ioloop
        self._channel = channel
        self._queue = queue
        self._consumer_tag = ""
        self._held: int | None = None
        self._timer: Any = None

    def begin(self, seconds: float, then: Callable[[], None]) -> None:
        """Consume; then go on. A message is held for so many seconds at most."""
        if not self._channel.is_open or self._consumer_tag:
            then()
            return
        self._channel.basic_qos(prefetch_count=1)
        self._consumer_tag = self._channel.basic_consume(
            self._queue, self._on_message, callback=lambda _frame: then()
        )
        self._renew_after(seconds)

    def end(self) -> None:
        """Consume no more, and return what is held."""
        self.stop()
        tag, self._consumer_tag = self._consumer_tag, ""
        if tag and self._channel.is_open:
            self._channel.basic_cancel(tag)
            self._return()

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
        self._timer = self._ioloop.call_later(seconds, partial(self._renew, seconds))

    def _renew(self, seconds: float) -> None:
        if self._channel.is_open:
            self._return()
            self._renew_after(seconds)

    def stop(self) -> None:
        if self._timer is not None:
            self._ioloop.remove_timeout(self._timer)
            self._timer = None
