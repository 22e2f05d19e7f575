"""Publish with confirms and the mandatory flag, many at a time: `emit`, `demo` and `dlq replay`."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import pika

from logfan.amqp.blocking import BlockingChannel, BlockingConnection, BrokerError, Refused
from logfan.amqp.confirms import Confirms
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.config.settings import Settings

_NOT_FOUND = 404
_WINDOW_MESSAGES = 1000
_WINDOW_BYTES = 16 << 20


class Window:
    """What was published on one channel and awaits its confirm, bounded in messages and bytes."""

    def __init__(
        self, lane: BlockingChannel, on_confirmed: Callable[[Any], None] = lambda _token: None
    ) -> None:
        """`on_confirmed` gets the token of each message that the broker took and routed, or
        returned: see `returned`."""
        self.confirmed = 0
        """Messages that the broker confirmed, those it returned among them."""
        self.returned = 0
        """Messages that reached no queue. A return comes before the confirm of its message."""
        self.rejected = 0
        """Messages that the broker would not take."""
        self._lane = lane
        self._on_confirmed = on_confirmed
        self._confirms: Confirms[Any] = Confirms(
            lane.channel, on_verdict=self._on_verdict, on_return=self._on_return
        )
        lane.ask(self._confirms.begin)

    def __len__(self) -> int:
        """How many messages may have arrived or not."""
        return len(self._confirms)

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, token: Any = None
    ) -> None:
        """Publish; where the window is full, wait until half of it is confirmed."""
        confirms = self._confirms
        if len(confirms) >= _WINDOW_MESSAGES or confirms.size >= _WINDOW_BYTES:
            self._lane.until(
                lambda: (
                    len(confirms) <= _WINDOW_MESSAGES // 2 and confirms.size <= _WINDOW_BYTES // 2
                )
            )
        self._lane.check()
        confirms.publish(exchange, routing_key, body, properties, token)

    def drain(self, too_late: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing awaits its confirm, or it is too late for that."""
        self._lane.until(lambda: not self._confirms or too_late())

    def _on_return(self) -> None:
        self.returned += 1

    def _on_verdict(self, token: Any, taken: bool) -> None:
        if taken:
            self.confirmed += 1
            self._on_confirmed(token)
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
        self.link = BlockingConnection(settings, on_blocked=on_blocked)
        try:
            self._window = Window(self._open())
        except Refused as refused:
            self.link.close()
            raise self._error(refused) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.link.__exit__(kind, error, traceback)

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

        `properties` are pika's names. Raises LinkError and Interrupted.
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
        try:
            self._window.publish(self._exchange.name, routing_key, body, basic)
        except Refused as refused:
            raise self._error(refused) from None
        self._check()

    def drain(self, seconds: float | None = None) -> None:
        """Wait for the confirms of all that was sent, though no longer than `seconds`."""
        try:
            if seconds is None:
                self._window.drain()
            else:
                self._window.drain(self.link.time_limit(seconds))
        except Refused as refused:
            raise self._error(refused) from None
        self._check()

    def _check(self) -> None:
        if self._window.rejected:
            why = f"the broker did not take the message (exchange {self._exchange.name!r})"
            raise BrokerError(ConnectionFailure(Cause.LOST, why))

    def _open(self) -> BlockingChannel:
        exchange = self._exchange
        lane = self.link.lane()
        if exchange.declare != "never":
            try:
                lane.ask(lane.channel.exchange_declare, exchange.name, exchange.type, passive=True)
            except Refused as refused:
                if refused.code != _NOT_FOUND or exchange.declare == "passive":
                    raise
                lane = self.link.lane()
                lane.ask(
                    lane.channel.exchange_declare, exchange.name, exchange.type,
                    durable=exchange.durable,
                )  # fmt: skip
        return lane

    def _error(self, refused: Refused) -> BrokerError:
        why = f"exchange {self._exchange.name!r}: {refused}"
        return BrokerError(ConnectionFailure(Cause.REFUSED, why, at_declaration=True))
