"""What was published on one channel and awaits its confirm: a table that lives and ends with it.

Confirms count messages by number, from 1 on each channel, and a return names none. A channel that
is being closed may still deliver both, so a table's callbacks are bound to it, and one that was
dropped counts nothing any more. It knows the channel's methods, and nothing of a connection.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Any, Generic, TypeVar

from pika import spec

from logfan.amqp.pika_internals import Channel

T = TypeVar("T")


class Confirms(Generic[T]):
    """One channel's. Used on the thread of its connection."""

    def __init__(
        self,
        channel: Channel,
        *,
        on_confirm: Callable[[T, bool], None],
        on_return: Callable[[], None],
    ) -> None:
        """`on_confirm` gets the token of a message, and whether the broker took it; `on_return` is
        called for each one that reached no queue, before its confirm, which is yes."""
        self.channel = channel
        self._on_confirm = on_confirm
        self._on_return = on_return
        self._waiting: dict[int, tuple[int, T]] = {}
        self._published = 0
        self._over = False
        self.size = 0
        """Bytes of the bodies that await their confirm."""

    def __len__(self) -> int:
        """How many messages may have arrived or not."""
        return len(self._waiting)

    def confirm_select(self, *, callback: Callable[[Any], None]) -> None:
        """Ask for confirms; `callback` gets the broker's yes. Call it once, before `publish`."""
        self.channel.add_on_return_callback(self._returned)
        self.channel.confirm_delivery(self._confirmed, callback=callback)

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, token: T
    ) -> None:
        """Publish with the mandatory flag."""
        self._published += 1
        self._waiting[self._published] = (len(body), token)
        self.size += len(body)
        self.channel.basic_publish(exchange, routing_key, body, properties, mandatory=True)

    def drop(self) -> list[T]:
        """The channel is left: what still comes on it counts no more. Returns the tokens of what
        may have arrived or not, in their order."""
        self._over = True
        tokens = [token for _, token in self._waiting.values()]
        self._waiting.clear()
        self.size = 0
        return tokens

    def _returned(self, *_: Any) -> None:
        if not self._over:
            self._on_return()

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        numbers = [method.delivery_tag]
        if method.multiple:
            numbers = list(takewhile(lambda known: known <= method.delivery_tag, self._waiting))
        for number in numbers:
            if number not in self._waiting:  # dropped meanwhile, by what a confirm led to
                continue
            size, token = self._waiting.pop(number)
            self.size -= size
            self._on_confirm(token, isinstance(method, spec.Basic.Ack))
