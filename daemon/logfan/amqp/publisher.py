"""Publish with confirms and the mandatory flag, many at a time: `emit`, `demo`, `dlq replay`.

`dlq` publishes through an `IsolatingWindow`, also its fresh copies of letters that were looked at.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import pika

from logfan.amqp import topology
from logfan.amqp.blocking import BlockingChannel, BlockingConnection, BrokerError, Refused
from logfan.amqp.broker_features import PRECONDITION_FAILED
from logfan.amqp.confirms import Confirms
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.config.settings import Settings

_WINDOW_MESSAGES = 1000
_WINDOW_BYTES = 16 << 20


class Window:
    """What was published on one channel and awaits its confirm, bounded in messages and bytes."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.confirmed = 0
        """Messages that the broker confirmed, those it returned among them."""
        self.returned = 0
        """Messages that reached no queue. A return comes before the confirm of its message."""
        self.rejected = 0
        """Messages that the broker would not take."""
        self._channel = channel
        self._taken: list[Any] = []
        self._confirms: Confirms[Any] = Confirms(
            channel.pika, on_confirm=self._on_confirm, on_return=self._on_return
        )
        channel.ask(self._confirms.confirm_select)

    def __len__(self) -> int:
        """How many messages may have arrived or not."""
        return len(self._confirms)

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, token: Any = None
    ) -> None:
        """Publish; where the window is full, wait until half of it is confirmed."""
        confirms = self._confirms
        if len(confirms) >= _WINDOW_MESSAGES or confirms.size >= _WINDOW_BYTES:
            self._wait(
                lambda: (
                    len(confirms) <= _WINDOW_MESSAGES // 2 and confirms.size <= _WINDOW_BYTES // 2
                )
            )
        self._channel.check()
        confirms.publish(exchange, routing_key, body, properties, token)

    def drain(self, too_late: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing awaits its confirm, or it is too late for that."""
        self._wait(lambda: not self._confirms or too_late())

    def _wait(self, done: Callable[[], bool]) -> None:
        answered = self._channel.connection.expect("basic.publish")
        try:
            self._channel.until(done)
        finally:
            answered()

    def taken(self) -> list[Any]:
        """The tokens of the messages that the broker took and routed, since the last call. A return
        comes before its own confirm but names no message: from then on no confirm is trusted."""
        taken, self._taken = self._taken, []
        return taken

    def drop(self) -> list[Any]:
        """The channel is left. Returns the tokens of what may have arrived or not, in order."""
        return self._confirms.drop()

    def _on_return(self) -> None:
        self.returned += 1

    def _on_confirm(self, token: Any, taken: bool) -> None:
        if taken:
            self.confirmed += 1
            if token is not None and not self.returned:
                self._taken.append(token)
        else:
            self.rejected += 1


class _Message(NamedTuple):
    exchange: str
    routing_key: str
    body: bytes
    properties: Any
    token: Any


class IsolatingWindow:
    """Windows, one after the other: a message over which the broker closes the channel (406: it is
    larger than max_message_size, or has the user_id of another user) costs no other one.

    A message that may be such a one goes alone: one that is larger than all that the broker took so
    far, of which there are few in any order of sizes but a growing one. Where the broker refuses
    another one, those under way are sent again one by one; some may arrive twice then.
    """

    def __init__(
        self,
        open_channel: Callable[[], BlockingChannel],
        on_refused: Callable[[Any, Refused], None],
    ) -> None:
        """`on_refused` gets the token of a message that the broker refuses. Raises BrokerError."""
        self._open_channel = open_channel
        self._on_refused = on_refused
        self._largest = -1
        self._too_large: tuple[int, Refused] | None = None
        """The smallest size that the broker would not take, and its reply."""
        self._taken: list[Any] = []
        self._rejected = self._returned = 0
        self._window = Window(open_channel())

    @property
    def rejected(self) -> int:
        """Messages that the broker would not take into the queue."""
        return self._rejected + self._window.rejected

    @property
    def returned(self) -> int:
        """Messages that reached no queue."""
        return self._returned + self._window.returned

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Any,
        token: Any,
        *,
        alone: bool = False,
    ) -> None:
        """Publish; where the window is full, wait. `alone`: wait before and after."""
        message = _Message(exchange, routing_key, body, properties, token)
        if self._too_large is not None and len(body) >= self._too_large[0]:
            self._on_refused(token, self._too_large[1])
        elif alone or len(body) > self._largest:
            self.drain()
            self._send(message)
            self.drain()
        else:
            self._send(message)

    def drain(self, too_late: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing awaits its confirm, or it is too late for that."""
        try:
            self._window.drain(too_late)
        except Refused as refused:
            self._isolate(refused)
        self._collect()

    def taken(self) -> list[Any]:
        """See `Window.taken`."""
        self._collect()
        taken, self._taken = self._taken, []
        return taken

    def _send(self, message: _Message) -> None:
        try:
            self._window.publish(*message[:4], message)
        except Refused as refused:
            self._isolate(refused)
            self._window.publish(*message[:4], message)

    def _isolate(self, refused: Refused) -> None:
        """Find the message that it is about, on a new channel."""
        self._collect()
        left: list[_Message] = self._window.drop()
        if refused.code != PRECONDITION_FAILED or not left:
            raise refused
        self._rejected, self._returned = self.rejected, self.returned
        self._window = Window(self._open_channel())
        if len(left) == 1:
            if refused.is_size:
                self._too_large = len(left[0].body), refused
            self._on_refused(left[0].token, refused)
            return
        for message in left:
            self._send(message)
            self.drain()

    def _collect(self) -> None:
        for message in self._window.taken():
            self._largest = max(self._largest, len(message.body))
            self._taken.append(message.token)


class Publisher:
    """Publishes to the configured exchange, on a connection of its own."""

    def __init__(
        self, settings: Settings, *, on_blocked: Callable[[str], None] = lambda _why: None
    ) -> None:
        """Connects and declares the exchange, as `exchange.declare` says. `on_blocked`: see
        `BlockingConnection`. Raises BrokerError."""
        self._exchange = settings.exchange
        self.connection = BlockingConnection(settings, on_blocked=on_blocked)
        try:
            self.connection.declare(topology.publish_to(settings.exchange))
            self._window = Window(self.connection.channel(f"exchange {settings.exchange.name!r}"))
        except BrokerError:
            self.connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.connection.__exit__(kind)

    @property
    def confirmed(self) -> int:
        """How many messages the broker has put into a queue."""
        return max(0, self._window.confirmed - self._window.returned)

    @property
    def unroutable(self) -> int:
        """How many messages reached no queue."""
        return self._window.returned

    @property
    def unconfirmed(self) -> int:
        """How many were sent and may have arrived or not."""
        return len(self._window)

    def publish(
        self, body: bytes, *, routing_key: str = "", properties: Mapping[str, Any] | None = None
    ) -> bool:
        """Publish and wait for the confirm. False where the message reached no queue.

        `properties` are pika's names. Raises BrokerError and Interrupted.
        """
        before = self.unroutable
        self.send(body, routing_key=routing_key, properties=properties)
        self.drain()
        return self.unroutable == before

    def send(
        self, body: bytes, *, routing_key: str = "", properties: Mapping[str, Any] | None = None
    ) -> None:
        """Publish without waiting, but where too many await their confirm."""
        basic = pika.BasicProperties(**{"delivery_mode": 2, **(properties or {})})
        self._window.publish(self._exchange.name, routing_key, body, basic)
        self._check()

    def drain(self, seconds: float | None = None) -> None:
        """Wait for the confirms of all that was sent, though no longer than `seconds`."""
        if seconds is None:
            self._window.drain()
        else:
            self._window.drain(self.connection.time_limit(seconds))
        self._check()

    def _check(self) -> None:
        if self._window.rejected:
            why = f"the broker did not take the message (exchange {self._exchange.name!r})"
            raise BrokerError(ConnectionFailure(Cause.LOST, why))
