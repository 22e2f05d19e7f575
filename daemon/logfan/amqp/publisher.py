"""Publish with confirms and the mandatory flag, many at a time: `emit`, `demo`, `dlq replay`.

The fresh copies of letters that were looked at (`dead_letters/refreshing.py`) use `Window`, too.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import pika

from logfan.amqp import topology
from logfan.amqp.blocking import BlockingChannel, BlockingConnection, BrokerError
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

    def _on_return(self) -> None:
        self.returned += 1

    def _on_confirm(self, token: Any, taken: bool) -> None:
        if taken:
            self.confirmed += 1
            if token is not None and not self.returned:
                self._taken.append(token)
        else:
            self.rejected += 1


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
