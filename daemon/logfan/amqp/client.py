"""One way to connect, for the consumer, the dead letters and the commands: the configured brokers
in turn, and a client of one of them, whose end is reported once. It opens channels, and carries the
steps of `topology` out, on a new channel after each refusal.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Generic

import pika
from pika import exceptions
from pika.adapters.select_connection import IOLoop

from logfan import __version__
from logfan.amqp import topology
from logfan.amqp.broker_features import broker_version
from logfan.amqp.connection import Connection
from logfan.amqp.failures import (
    HANDSHAKE_SECONDS,
    BrokerError,
    Cause,
    ConnectionFailure,
    failure_of,
)
from logfan.amqp.pika_internals import Channel
from logfan.amqp.topology import Steps, T, TopologyMismatch
from logfan.config import amqp_url
from logfan.config.amqp_url import address_of
from logfan.config.settings import Settings, TlsSettings
from logfan.faults import Faults
from logfan.runtime.tls import client_context

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 3.0
_ANSWER_SECONDS = 90.0
"""So long nothing but heartbeats may come while a request waits. Longer than the nodes of a cluster
take to find that one of them is gone (net_ticktime)."""
_HEARTBEAT_BYTES = 8
_FREE_SECONDS = 0.05


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
        self.ioloop = ioloop
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
        self._is_blocked = False
        self.connection.add_on_connection_blocked_callback(lambda *_: self._block(True))
        self.connection.add_on_connection_unblocked_callback(lambda *_: self._block(False))

    @property
    def is_open(self) -> bool:
        """Whether channels can be opened."""
        return bool(self.connection.is_open)

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's; empty where it does not report one."""
        return broker_version(self.connection)

    def channel(self, then: Callable[[Channel | None], None]) -> None:
        """Open a channel, and go on with it: with None where the connection may have no more. Once
        the connection ended `then` is not called."""

        def opened(channel: Channel) -> None:
            answered()
            if not self._is_over:
                then(channel)

        if not self.is_open:
            return
        answered = self.expect("channel.open")
        try:
            self.connection.channel(on_open_callback=opened)
        except exceptions.NoFreeChannels:
            answered()
            then(None)

    def expect(self, what: str) -> Callable[[], None]:
        """The broker is to answer this request: where nothing but heartbeats comes for 90 s, the
        connection counts as lost, unless the broker has reported that it takes nothing for now.
        Call what is returned once the answer is there."""
        timer: Any = None

        def wait() -> Any:
            return self.ioloop.call_later(_ANSWER_SECONDS, partial(look, self._came()))

        def look(before: int) -> None:
            nonlocal timer
            if self._is_over:
                return
            if self._is_blocked or self._came() != before:
                timer = wait()
                return
            why = f"{self.address} has not answered {what} for {_ANSWER_SECONDS:.0f} s"
            self._is_over = True
            self._on_end(self, ConnectionFailure(Cause.LOST, why))
            self.connection.abort()

        timer = wait()
        return lambda: self.ioloop.remove_timeout(timer)

    @property
    def is_blocked(self) -> bool:
        """The broker has reported that it takes nothing for now: it does not even read."""
        return self._is_blocked

    def _block(self, is_blocked: bool) -> None:
        self._is_blocked = is_blocked

    def _came(self) -> int:
        """Bytes that the broker sent, but for its heartbeats and as much of each other frame."""
        connection = self.connection
        came: int = connection.bytes_received - _HEARTBEAT_BYTES * connection.frames_received
        return came

    def declare(
        self,
        steps: Steps[T],
        *,
        on_done: Callable[[Channel, T], None],
        on_mismatch: Callable[[TopologyMismatch], None],
    ) -> None:
        """Carry the steps out. See `Declaring`."""
        Declaring(self, on_done=on_done, on_mismatch=on_mismatch).begin(steps)

    def close(self, then: Callable[[], None] | None = None) -> None:
        """Close the connection, and go on once the broker agreed or 3 s have passed. `on_open` and
        `on_end` are called no more. Who closes it without a word does not end another's waiting."""
        self._is_over = True
        if self.connection.is_closed:
            if then is not None:
                then()
            return
        if then is not None:
            self._on_closed = then
        self.ioloop.call_later(_CLOSE_SECONDS, self._give_up)
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

    def _give_up(self) -> None:
        if not self.connection.is_closed:
            self.connection.abort()
        self._closed()

    def _closed(self) -> None:
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()


class Declaring(Generic[T]):
    """Carries steps out, on the open channel or on a new one; then `begin` may take the next ones,
    on the same channel while that lives. They end in a call of one of the two, `on_done` with an
    open channel, unless the connection ends first."""

    def __init__(
        self,
        client: Client,
        *,
        on_done: Callable[[Channel, T], None],
        on_mismatch: Callable[[TopologyMismatch], None],
        channel: Channel | None = None,
    ) -> None:
        self._client = client
        self._steps: Steps[T] | None = None
        self._on_done = on_done
        self._on_mismatch = on_mismatch
        self._channel: Channel | None = None
        self._answered: Callable[[], None] = lambda: None
        if channel is not None:
            self._use(channel)

    def begin(self, steps: Steps[T]) -> None:
        """Carry these out; where those before are still under way, these are forgotten."""
        if self._steps is None:
            self._steps = steps
            self._step(None)

    def _step(self, answer: topology.Answer | None) -> None:
        if self._steps is None or not self._client.is_open:
            return
        try:
            step = next(self._steps) if answer is None else self._steps.send(answer)
        except StopIteration as end:
            result = end.value
            self._with_channel(lambda channel: self._done(channel, result))
        except TopologyMismatch as mismatch:
            self._steps = None
            self._on_mismatch(mismatch)
        else:
            self._with_channel(lambda channel: self._do(channel, step))

    def _done(self, channel: Channel, result: T) -> None:
        self._steps = None
        self._on_done(channel, result)

    def _with_channel(self, then: Callable[[Channel], None]) -> None:
        if self._channel is not None:
            if self._channel.is_open:  # else it closes with its connection
                then(self._channel)
            return

        def opened(channel: Channel | None) -> None:
            if channel is None:
                # pika frees the number of the one that was closed only after its callback.
                self._client.ioloop.call_later(_FREE_SECONDS, lambda: self._with_channel(then))
                return
            self._use(channel)
            then(channel)

        self._client.channel(opened)

    def _use(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_end)

    def _do(self, channel: Channel, step: topology.Step) -> None:
        method, arguments = topology.request(step)
        self._answered = self._client.expect(f"{method.replace('_', '.')} of {step}")
        getattr(channel, method)(**arguments, callback=self._on_yes)

    def _on_yes(self, frame: Any) -> None:
        self._answered()
        method = frame.method
        queue, messages = getattr(method, "queue", None), getattr(method, "message_count", 0)
        self._step(topology.Answer(queue=queue or "", messages=messages or 0))

    def _on_channel_end(self, channel: Channel, error: BaseException) -> None:
        self._answered()
        # One that is closed by us, or with its connection, is no answer.
        if channel is self._channel and isinstance(error, exceptions.ChannelClosedByBroker):
            self._channel = None
            self._step(topology.Answer(error.reply_code, error.reply_text))


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


def parameters(
    url: str, *, heartbeat: float, tls: TlsSettings, instance: str
) -> pika.connection.Parameters:
    """pika's parameters for one URL. `heartbeat` in seconds.

    Raises TlsFileError, an OSError, where a TLS file cannot be used.
    """
    # Not by pika's own reading of URLs, whose messages about a wrong one quote it.
    address = amqp_url.parse(url)
    result = pika.ConnectionParameters(
        host=address.host, port=address.port, virtual_host=address.vhost,
        heartbeat=max(1, round(heartbeat)), connection_attempts=1,
        socket_timeout=_CONNECT_SECONDS, stack_timeout=HANDSHAKE_SECONDS,
    )  # fmt: skip
    result.client_properties = {
        "product": "logfan",
        "version": __version__,
        "connection_name": f"logfan {instance}@{socket.gethostname()}".replace(" @", "@"),
    }
    if address.user is not None and address.password is not None:
        result.credentials = pika.PlainCredentials(address.user, address.password)
    if address.tls:
        context = client_context(tls.ca_file, tls.cert_file, tls.key_file, verify=tls.verify)
        result.ssl_options = pika.SSLOptions(context, address.host)
        if tls.cert_file is not None and address.user is None:
            result.credentials = pika.credentials.ExternalCredentials()
    return result


def mismatch_failure(mismatch: topology.TopologyMismatch) -> ConnectionFailure:
    """What a topology that cannot be used means for the connection."""
    cause = Cause.BUSY if mismatch.passes else Cause.REFUSED
    return ConnectionFailure(cause, str(mismatch), at_declaration=not mismatch.passes)
