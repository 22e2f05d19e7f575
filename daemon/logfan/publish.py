"""Publish with confirms and the mandatory flag: what `emit` and `demo` send with. Blocks."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pika
from pika import exceptions

from logfan.broker import Kind, Trouble, address_of, parameters, trouble_of
from logfan.config import Settings
from logfan.faults import Faults

_NOT_FOUND = 404


class PublishError(Exception):
    """Nothing more can be published; `trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.why)
        self.trouble = trouble


class Publisher:
    """A connection to the first of the configured brokers that answers."""

    def __init__(self, settings: Settings) -> None:
        """Connects and sees to the exchange, as `exchange.declare` says. Raises PublishError."""
        self._settings = settings
        self._connection = self._connect()
        try:
            self._channel = self._open()
        except exceptions.AMQPError as error:
            raise self._error(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._connection.is_open:
            self._connection.close()

    def publish(
        self, body: bytes, *, routing_key: str = "", properties: Mapping[str, Any] | None = None
    ) -> bool:
        """Publish and wait for the confirm. False where the message reached no queue.

        `properties` are pika's names. Raises PublishError.
        """
        basic = pika.BasicProperties(**{"delivery_mode": 2, **(properties or {})})
        name = self._settings.exchange.name
        try:
            self._channel.basic_publish(name, routing_key, body, basic, mandatory=True)
        except exceptions.UnroutableError:
            return False
        except exceptions.NackError:
            why = f"the broker did not take the message (exchange {name!r})"
            raise PublishError(Trouble(Kind.LOST, why)) from None
        except exceptions.AMQPError as error:
            raise self._error(error) from None
        return True

    def _connect(self) -> Any:
        rabbitmq = self._settings.rabbitmq
        try:
            urls = rabbitmq.read_urls()
        except Faults as faults:
            raise PublishError(Trouble(Kind.REFUSED, str(faults))) from None
        trouble = Trouble(Kind.UNREACHABLE, "no URL")
        for url in urls:
            self._address = address_of(url)
            try:
                wanted = parameters(
                    url, heartbeat=rabbitmq.heartbeat, tls=rabbitmq.tls,
                    instance=self._settings.instance,
                )  # fmt: skip
                return pika.BlockingConnection(wanted)
            except (exceptions.AMQPError, OSError) as error:
                trouble = trouble_of(error, self._address, was_open=False)
        raise PublishError(trouble)

    def _open(self) -> Any:
        exchange = self._settings.exchange
        channel = self._connection.channel()
        if exchange.declare != "never":
            try:
                channel.exchange_declare(exchange.name, exchange.type, passive=True)
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != _NOT_FOUND or exchange.declare == "passive":
                    raise
                channel = self._connection.channel()
                channel.exchange_declare(exchange.name, exchange.type, durable=exchange.durable)
        channel.confirm_delivery()
        return channel

    def _error(self, error: exceptions.AMQPError) -> PublishError:
        if isinstance(error, exceptions.ChannelClosedByBroker):
            name = self._settings.exchange.name
            why = f"exchange {name!r}: {error.reply_text} ({error.reply_code})"
            return PublishError(Trouble(Kind.REFUSED, why, at_declaration=True))
        return PublishError(trouble_of(error, self._address, was_open=True))
