"""One way to connect, for the consumer, the dead letters and the commands: the configured brokers
in turn, and a client of one of them, whose end is reported once.
"""

from collections.abc import Callable
from typing import Any

import pika
from pika import exceptions
from pika.adapters.select_connection import IOLoop

from logfan.amqp import topology
from logfan.amqp.broker_features import broker_version
from logfan.amqp.connection import Connection
from logfan.amqp.declaration import Declaring
from logfan.amqp.failures import (
    BrokerError,
    Cause,
    ConnectionFailure,
    failure_of,
)
from logfan.amqp.parameters import parameters
from logfan.amqp.topology import T, TopologyMismatch, Walk
from logfan.config.amqp_url import address_of
from logfan.config.settings import Settings
from logfan.faults import Faults

_CLOSE_SECONDS = 3.0


class Client:
    """A connection to one broker. Used on the thread of its loop."""

    def __init__(
        self,
        ioloop: IOLoop,
        url: str,
        wanted: pika.connection.Parameters,
        fast: bool,
        on_open: "Callable[[Client], None]",
        on_end: "Callable[[Client, ConnectionFailure], None]",
    ) -> None:
        """Begins to connect. See `Brokers.connect`; `fast`: `rabbitmq.fast_path`."""
        self.address = address_of(url)
        """The broker's, for people to read."""
        self._ioloop = ioloop
        self._on_open = on_open
        self._on_end = on_end
        self._was_open = self._is_over = False
        self._on_closed: Callable[[], None] | None = None
        self.connection = Connection(
            wanted,
            on_open_callback=self._opened,
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
            custom_ioloop=ioloop,
            fast=fast,
        )

    @property
    def is_open(self) -> bool:
        """Whether channels can be opened."""
        return bool(self.connection.is_open)

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's; empty where it does not report one."""
        return broker_version(self.connection)

    def channel(self, then: Callable[[Any], None]) -> None:
        """Open a channel, and go on with it: with None where the connection may have no more."""

        def opened(channel: Any) -> None:
            if not self._is_over:
                then(channel)

        try:
            self.connection.channel(on_open_callback=opened)
        except exceptions.NoFreeChannels:
            then(None)

    def declare(
        self,
        steps: Walk[T],
        *,
        on_done: Callable[[Any, T], None],
        on_mismatch: Callable[[TopologyMismatch], None],
    ) -> None:
        """Carry the steps out: ends in a call of one of the two, `on_done` with an open channel,
        unless the connection ends first."""

        def done(channel: Any, result: T) -> None:
            if not self._is_over:
                on_done(channel, result)

        def mismatched(mismatch: TopologyMismatch) -> None:
            if not self._is_over:
                on_mismatch(mismatch)

        Declaring(self.connection, steps, on_done=done, on_mismatch=mismatched).begin()

    def close(self, then: Callable[[], None] = lambda: None) -> None:
        """Close the connection, and go on once the broker agreed or 3 s have passed. `on_open` and
        `on_end` are called no more."""
        self._is_over = True
        if self.connection.is_closed:
            then()
            return
        self._on_closed = then
        self._ioloop.call_later(_CLOSE_SECONDS, self._closed)
        if not self.connection.is_closing:
            self.connection.close()

    def _opened(self, _connection: Any) -> None:
        self._was_open = True
        if not self._is_over:
            self._on_open(self)

    def _ended(self, _connection: Any, error: BaseException | None) -> None:
        if self._is_over:
            self._closed()
            return
        self._is_over = True
        self._on_end(self, failure_of(error, self.address, was_open=self._was_open))

    def _closed(self) -> None:
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()


class Brokers:
    """The configured brokers, tried in turn."""

    def __init__(
        self,
        settings: Settings,
        ioloop: IOLoop,
        *,
        purpose: str = "",
        blocked_seconds: float | None = None,
    ) -> None:
        """`purpose` becomes a part of the connection's name. `blocked_seconds`: so long the broker
        may block who publishes before the connection counts as lost."""
        self._settings = settings
        self._ioloop = ioloop
        self._purpose = purpose
        self._blocked_seconds = blocked_seconds
        self._attempts = 0
        self.count = 1
        """How many there were at the last attempt."""
        self.address = ""
        """Of the one that was tried last, for people to read."""

    def connect(
        self,
        on_open: Callable[[Client], None],
        on_end: Callable[[Client, ConnectionFailure], None],
    ) -> Client:
        """Begin to connect to the next one. `on_open` is called once it is open; `on_end` once,
        where it could not be opened or ended by itself. Raises BrokerError where there is nothing
        to begin with."""
        rabbitmq = self._settings.rabbitmq
        try:
            urls = rabbitmq.read_urls()
        except Faults as faults:
            raise BrokerError(ConnectionFailure(Cause.UNREACHABLE, str(faults))) from None
        self.count = len(urls)
        url = urls[self._attempts % len(urls)]
        self._attempts += 1
        self.address = address_of(url)
        try:
            wanted = parameters(
                url, heartbeat=rabbitmq.heartbeat, tls=rabbitmq.tls,
                instance=self._settings.instance,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise BrokerError(failure_of(error, self.address, was_open=False)) from None
        wanted.client_properties["connection_name"] += self._purpose
        wanted.blocked_connection_timeout = self._blocked_seconds
        return Client(self._ioloop, url, wanted, rabbitmq.fast_path, on_open, on_end)


def mismatch_failure(mismatch: topology.TopologyMismatch) -> ConnectionFailure:
    """What a topology that cannot be used means for the connection."""
    cause = Cause.BUSY if mismatch.passes else Cause.REFUSED
    return ConnectionFailure(cause, str(mismatch), at_declaration=not mismatch.passes)
