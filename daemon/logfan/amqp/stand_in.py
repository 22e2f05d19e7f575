"""Keeps a queue that goes with its last consumer, while logfan's own consumer pauses.

A second consumer on a channel of its own, with a prefetch of 1: it takes one message and holds it.
That one is returned now and then, before the broker's timeout for acknowledgements, and at the end.
"""

from collections.abc import Callable
from typing import Any

from logfan.amqp.client import Client
from logfan.amqp.pika_internals import Channel


class StandIn:
    """One connection's. `open` in advance; then `begin` and `end`, as often as needed."""

    def __init__(self, client: Client, queue: str) -> None:
        self._client = client
        self._queue = queue
        self._channel: Channel | None = None
        self._consumer_tag = ""
        self._held: int | None = None
        self._timer: Any = None

    def open(self, then: Callable[[], None]) -> None:
        """Open the channel; then, also where there is none to be had, go on."""

        def opened(channel: Channel | None) -> None:
            self._channel = channel
            then()

        self._client.channel(opened)

    def begin(self, seconds: float, then: Callable[[], None]) -> None:
        """Consume; then go on. A message is held for so many seconds at most."""
        if self._channel is None or not self._channel.is_open or self._consumer_tag:
            then()
            return
        self._channel.basic_qos(prefetch_count=1)
        self._consumer_tag = self._channel.basic_consume(
            self._queue, self._on_message, callback=lambda _frame: then()
        )
        self._renew_after(self._channel, seconds)

    def end(self) -> None:
        """Consume no more, and return what is held."""
        self.stop()
        tag, self._consumer_tag = self._consumer_tag, ""
        if tag and self._channel is not None and self._channel.is_open:
            self._channel.basic_cancel(tag)
            self._return(self._channel)

    def _on_message(self, channel: Channel, method: Any, _properties: Any, _body: bytes) -> None:
        if self._consumer_tag:
            self._held = method.delivery_tag
        else:
            channel.basic_nack(method.delivery_tag, requeue=True)

    def _return(self, channel: Channel) -> None:
        held, self._held = self._held, None
        if held is not None:
            channel.basic_nack(held, requeue=True)

    def _renew_after(self, channel: Channel, seconds: float) -> None:
        def renew() -> None:
            if channel.is_open:
                self._return(channel)
                self._renew_after(channel, seconds)

        self._timer = self._client.ioloop.call_later(seconds, renew)

    def stop(self) -> None:
        if self._timer is not None:
            self._client.ioloop.remove_timeout(self._timer)
            self._timer = None
