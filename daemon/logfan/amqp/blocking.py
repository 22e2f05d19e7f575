"""One connection for a command that does one thing after the other: the loop turns while it waits.

Whatever ends the connection, and a signal too, is raised between two turns, never in the middle of
a frame: what was asked of the broker until then is known.
"""

import select
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pika import exceptions
from pika.adapters.select_connection import IOLoop

from logfan.amqp import connection as wire
from logfan.amqp.failures import Cause, ConnectionFailure, failure_of
from logfan.amqp.parameters import parameters
from logfan.config.amqp_url import address_of
from logfan.config.settings import Settings
from logfan.faults import Faults
from logfan.runtime.foreign_text import line_of

_TICK_SECONDS = 0.1
"""How soon a signal is seen while nothing arrives."""
_CLOSE_SECONDS = 3.0


class BrokerError(Exception):
    """The broker said no or went away; `trouble` says why."""

    def __init__(self, trouble: ConnectionFailure) -> None:
        super().__init__(trouble.why)
        self.trouble = trouble


class Refused(Exception):
    """The broker closed the channel, and with it whatever that channel held."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Interrupted(Exception):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class BlockingConnection:
    """A connection to the first of the configured brokers that answers."""

    def __init__(
        self, settings: Settings, *, on_blocked: Callable[[str], None] = lambda _why: None
    ) -> None:
        """Connects. `on_blocked` hears why the broker takes nothing for now, and an empty text
        once it takes messages again. Raises LinkError."""
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._over: ConnectionFailure | None = None
        self._signal = 0
        self.address = ""
        """Of the broker that answered, or was tried last, for people to read."""
        try:
            self._connection = self._connect(settings)
        except BrokerError:
            self._loop.close()
            raise
        self._connection.add_on_connection_blocked_callback(
            lambda _connection, frame: on_blocked(line_of(frame.method.reason) or "no reason given")
        )
        self._connection.add_on_connection_unblocked_callback(
            lambda _connection, _frame: on_blocked("")
        )
        self._tick()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # A second Ctrl-C may have come in the middle of a frame: then nothing more can be said.
        if kind is None or issubclass(kind, Exception):
            self.close()

    def interrupt(self, number: int) -> None:
        """Raise Interrupted, once, from what waits now or next. For a signal's handler."""
        self._signal = number

    def turn(self) -> None:
        """Turn the loop once: send, read, wait a moment where there is nothing to do.

        Raises LinkError when the connection is over, and Interrupted.
        """
        self._loop.poll()
        self._loop.process_timeouts()
        self.check()
        if self._signal:
            number, self._signal = self._signal, 0
            raise Interrupted(number)

    def check(self) -> None:
        """Raise LinkError where the connection is over."""
        if self._over is not None:
            raise BrokerError(self._over)

    def until(self, done: Callable[[], object]) -> None:
        """Turn the loop until `done()` is true."""
        while not done():
            self.turn()

    def time_limit(self, seconds: float) -> Callable[[], bool]:
        """A function that says whether so much time has passed, and wakes who waits for it."""
        passed: list[bool] = []
        self._loop.call_later(seconds, lambda: passed.append(True))
        return lambda: bool(passed)

    @property
    def frame_max(self) -> int:
        """The most bytes of a frame, as agreed with the broker; 0 without a limit."""
        return int(self._connection.params.frame_max)

    def lane(self) -> "BlockingChannel":
        """A new channel."""
        return BlockingChannel(self, self._connection)

    def wait_readable(self, fd: int) -> None:
        """Turn the loop until there is something to read, or the end."""
        if not _can_wait_for(fd):
            return
        seen: list[int] = []
        self._loop.add_handler(fd, lambda _fd, events: seen.append(events), IOLoop.READ)
        try:
            self.until(lambda: seen)
        finally:
            self._loop.remove_handler(fd)

    def close(self) -> None:
        """Close the connection, and wait for the broker's yes, though not for long."""
        if self._over is None:
            too_late = self.time_limit(_CLOSE_SECONDS)
            if not (self._connection.is_closed or self._connection.is_closing):
                self._connection.close()
            while not too_late() and self._over is None:
                self._loop.poll()
                self._loop.process_timeouts()
        self._loop.close()

    def _tick(self) -> None:
        self._loop.call_later(_TICK_SECONDS, self._tick)

    def _connect(self, settings: Settings) -> Any:
        rabbitmq = settings.rabbitmq
        try:
            urls = rabbitmq.read_urls()
        except Faults as faults:
            raise BrokerError(ConnectionFailure(Cause.REFUSED, str(faults))) from None
        trouble = ConnectionFailure(Cause.UNREACHABLE, "no URL")
        for url in urls:
            address = address_of(url)
            try:
                wanted = parameters(
                    url, heartbeat=rabbitmq.heartbeat, tls=rabbitmq.tls,
                    instance=settings.instance,
                )  # fmt: skip
                self.address = address
                return self._open(wanted, address)
            except OSError as error:
                trouble = failure_of(error, address, was_open=False)
            except BrokerError as error:
                trouble = error.trouble
        raise BrokerError(trouble)

    def _open(self, wanted: Any, address: str) -> Any:
        opened: list[Any] = []
        failed: list[ConnectionFailure] = []

        def on_end(_connection: Any, error: BaseException | None) -> None:
            trouble = failure_of(error, address, was_open=bool(opened))
            if opened:
                self._over = trouble
            else:
                failed.append(trouble)

        wire.Connection(
            wanted, on_open_callback=opened.append, on_open_error_callback=on_end,
            on_close_callback=on_end, custom_ioloop=self._loop,
        )  # fmt: skip
        self.until(lambda: opened or failed)
        if failed:
            raise BrokerError(failed[0])
        return opened[0]


class BlockingChannel:
    """A channel. Where the broker closes it, whoever waits for it gets Refused."""

    def __init__(self, link: BlockingConnection, connection: Any) -> None:
        self.link = link
        self._refused: Refused | None = None
        opened: list[Any] = []
        self.channel = connection.channel(on_open_callback=opened.append)
        """pika's."""
        self.channel.add_on_close_callback(self._on_end)
        self.until(lambda: opened)

    def ask(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a method of the channel, and wait for the broker's answer: its method frame."""
        answers: list[Any] = []
        self.check()
        method(*arguments, **keywords, callback=answers.append)
        self.until(lambda: answers)
        return answers[0].method

    def until(self, done: Callable[[], object]) -> None:
        """Turn the loop until `done()` is true."""
        while not done():
            self.check()
            self.link.turn()

    def check(self) -> None:
        """Raise Refused or LinkError where the channel is closed."""
        if self._refused is not None:
            raise self._refused
        self.link.check()

    def _on_end(self, _channel: Any, error: BaseException) -> None:
        if isinstance(error, exceptions.ChannelClosedByBroker):
            self._refused = Refused(error.reply_code, error.reply_text)


def _can_wait_for(fd: int) -> bool:
    """False for regular files and their like: they are always ready."""
    with select.epoll() as probe:
        try:
            probe.register(fd, select.EPOLLIN)
        except PermissionError:
            return False
    return True
