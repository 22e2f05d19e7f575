"""One connection for a command that does one thing after the other: the loop turns while it waits.

Whatever ends the connection, and a signal too, is raised between two turns, never in the middle of
a frame: what was asked of the broker until then is known.
"""

import re
import select
import time
from collections.abc import Callable
from typing import Any, Self

from pika import exceptions
from pika.adapters.select_connection import IOLoop

from logfan.amqp.broker_features import (
    PRECONDITION_FAILED,
    acknowledgement_timeout,
    passes_by_itself,
)
from logfan.amqp.client import Brokers, Client, mismatch_failure
from logfan.amqp.connection import Receiver
from logfan.amqp.failures import BrokerError, Cause, ConnectionFailure
from logfan.amqp.pika_internals import Channel
from logfan.amqp.topology import Steps, T, TopologyMismatch
from logfan.config.settings import Settings
from logfan.runtime.foreign_text import line_of

__all__ = ["BlockingChannel", "BlockingConnection", "BrokerError", "Interrupted", "Refused"]

_TICK_SECONDS = 0.1
"""How soon a signal is seen while nothing arrives."""


_BLOCKED_SECONDS = 6.0
"""After a signal, so long for the broker to read again what is sent."""
_TIMED_OUT = re.compile(r"delivery acknowledgement .{0,80}timed out")


class Refused(BrokerError):
    """The broker closed the channel, and with it whatever that channel held."""

    def __init__(self, what: str, code: int, text: str) -> None:
        self.reply = f"{text} ({code})"
        self.code = code
        self.is_size = code == PRECONDITION_FAILED and "message size" in text
        """Whether a message was larger than the broker's `max_message_size`."""
        passing = passes_by_itself(code, text)
        cause = Cause.BUSY if passing else Cause.REFUSED
        failure = ConnectionFailure(cause, f"{what}: {self.reply}", at_declaration=not passing)
        if code == PRECONDITION_FAILED and _TIMED_OUT.search(text):
            timeout = acknowledgement_timeout(code, text)  # RabbitMQ 4.3 says -1 ms here
            why = f"{what}: the broker took back what was held for longer than its consumer_timeout"
            why += f" ({timeout:g} s); call it again" if timeout else "; call it again"
            failure = ConnectionFailure(Cause.LOST, why, timeout=timeout)
        super().__init__(failure)


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
        """Connects. `on_blocked` gets the reason where the broker takes nothing for now, and an
        empty text once it takes messages again. Raises BrokerError."""
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._over: ConnectionFailure | None = None
        self._signal = 0
        self._is_late: Callable[[], bool] | None = None
        """Since a signal came."""
        self.give_up_at: float | None = None
        """By `time.monotonic`: who waits past it gets a BrokerError."""
        self._brokers = Brokers(settings, self._loop)
        try:
            self._client = self._connect()
        except BrokerError:
            self._loop.close()
            raise
        self._client.connection.add_on_connection_blocked_callback(
            lambda _connection, frame: on_blocked(line_of(frame.method.reason) or "no reason given")
        )
        self._client.connection.add_on_connection_unblocked_callback(
            lambda _connection, _frame: on_blocked("")
        )
        self._tick()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A second Ctrl-C may have come in the middle of a frame: then nothing more can be sent.
        if kind is None or issubclass(kind, Exception):
            self.close()

    @property
    def address(self) -> str:
        """Of the broker that answered, for people to read."""
        return self._brokers.address

    def interrupt(self, number: int) -> None:
        """Raise Interrupted, once, from what waits now or next. For a signal's handler."""
        self._signal = number

    def turn(self) -> None:
        """Turn the loop once: send, read, wait a moment where there is nothing to do.

        Raises BrokerError when the connection is over, or the broker does not read soon after a
        signal, and Interrupted.
        """
        self._loop.poll()
        self._loop.process_timeouts()
        self.check()
        if self._signal:
            number, self._signal = self._signal, 0
            self._is_late = self.time_limit(_BLOCKED_SECONDS)
            raise Interrupted(number)
        if self._is_late is not None and self._is_late() and self._client.is_blocked:
            why = f"{self.address} blocks who publishes, and does not answer"
            raise BrokerError(ConnectionFailure(Cause.LOST, why))
        if self.give_up_at is not None and time.monotonic() > self.give_up_at:
            why = f"{self.address} did not answer in time"
            raise BrokerError(ConnectionFailure(Cause.LOST, why))

    def check(self) -> None:
        """Raise BrokerError where the connection is over."""
        if self._over is not None:
            raise BrokerError(self._over)

    def until(self, done: Callable[[], object]) -> None:
        while not done():
            self.turn()

    def time_limit(self, seconds: float) -> Callable[[], bool]:
        """A function that returns whether so much time has passed, and wakes what waits for it."""
        passed: list[bool] = []
        self._loop.call_later(seconds, lambda: passed.append(True))
        return lambda: bool(passed)

    @property
    def agreed(self) -> Any:
        """What was agreed with the broker: `frame_max` in bytes and `channel_max`, 0 without a
        limit; `heartbeat` in seconds, 0 where there are none."""
        return self._client.connection.params

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's; empty where it does not report one."""
        return self._client.version

    def channel(self, what: str = "the channel") -> "BlockingChannel":
        """A new channel. `what` names it where the broker closes it. Raises BrokerError."""
        self.check()
        return BlockingChannel(self, self._client.connection.channel, what)

    def expect(self, what: str) -> Callable[[], None]:
        return self._client.expect(what)

    def declare(self, steps: Steps[T]) -> T:
        """Carry these steps out. Raises BrokerError where what exists does not fit."""
        results: list[T] = []
        mismatches: list[TopologyMismatch] = []

        def done(channel: Channel, result: T) -> None:
            channel.close()
            results.append(result)

        self._client.declare(steps, on_done=done, on_mismatch=mismatches.append)
        self.until(lambda: results or mismatches)
        if mismatches:
            raise BrokerError(mismatch_failure(mismatches[0]))
        return results[0]

    def watch(self, queue: str, receiver: Receiver) -> "BlockingChannel":
        """Consume the queue, without acknowledgements, until the end of the connection. Returns the
        channel. Raises Refused."""
        channel = self.channel(f"queue {queue!r}")
        answers: list[Any] = []
        self._client.connection.consume(
            channel.pika, queue, receiver, answers.append, auto_ack=True
        )
        channel.until(lambda: answers)
        return channel

    def wait_readable(self, fd: int, check: Callable[[], None] = lambda: None) -> None:
        """Turn the loop until there is something to read, or the end. `check` may raise, too."""
        if not _can_wait_for(fd):
            return
        seen: list[int] = []
        self._loop.add_handler(fd, lambda _fd, events: seen.append(events), IOLoop.READ)
        try:
            while not seen:
                self.turn()
                check()
        finally:
            self._loop.remove_handler(fd)

    def close(self) -> None:
        """Close the connection, and wait for the broker's yes, though not for long."""
        closed: list[bool] = []
        self._client.close(lambda: closed.append(True))
        while not (closed and self._client.connection.is_closed):
            self._loop.poll()
            self._loop.process_timeouts()
        self._loop.close()

    def _tick(self) -> None:
        self._loop.call_later(_TICK_SECONDS, self._tick)

    def _connect(self) -> Client:
        """Try each broker once."""
        tried = 0
        while True:
            tried += 1
            opened: list[Client] = []
            self._over = None
            try:
                self._brokers.connect(opened.append, self._on_end)
                self.until(lambda opened=opened: opened)  # type: ignore[misc]
                return opened[0]
            except BrokerError:
                if tried >= self._brokers.count:
                    raise

    def _on_end(self, _client: Client, failure: ConnectionFailure) -> None:
        self._over = failure


class BlockingChannel:
    """A channel. Where the broker closes it, what waits for it raises Refused."""

    def __init__(
        self, connection: BlockingConnection, open_channel: Callable[..., Any], what: str
    ) -> None:
        self.connection = connection
        self._what = what
        self._refused: Refused | None = None
        opened: list[Any] = []
        self.pika: Channel = open_channel(on_open_callback=opened.append)
        """pika's channel."""
        self.pika.add_on_close_callback(self._on_end)
        self.until(lambda: opened)

    def ask(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a method of the channel, and wait for the broker's answer: its method frame."""
        answers: list[Any] = []
        self.check()
        answered = self.connection.expect(method.__name__.replace("_", "."))
        try:
            method(*arguments, **keywords, callback=answers.append)
            self.until(lambda: answers)
        finally:
            answered()
        return answers[0].method

    def until(self, done: Callable[[], object]) -> None:
        while not done():
            self.check()
            self.connection.turn()

    def wait_readable(self, fd: int) -> None:
        """Turn the loop until there is something to read; raise what `check` raises."""
        self.connection.wait_readable(fd, self.check)

    def check(self) -> None:
        """Raise Refused, or another BrokerError, where the channel is closed."""
        if self._refused is not None:
            raise self._refused
        self.connection.check()

    def _on_end(self, _channel: Channel, error: BaseException) -> None:
        if isinstance(error, exceptions.ChannelClosedByBroker):
            self._refused = Refused(self._what, error.reply_code, error.reply_text)


def _can_wait_for(fd: int) -> bool:
    """False for regular files and their like: they are always ready."""
    with select.epoll() as probe:
        try:
            probe.register(fd, select.EPOLLIN)
        except PermissionError:
            return False
    return True
