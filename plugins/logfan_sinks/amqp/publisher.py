"""A connection that publishes many messages at a time, and knows of each what became of it.

pika's loop turns only inside of the calls here, so the connection has no heartbeat: the kernel's
keepalive finds a peer that is gone.
"""

import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pika
from pika.adapters.select_connection import SelectConnection
from pika.exceptions import AMQPError

import logfan

_CLOSE_SECONDS = 5.0
_FRAME_BYTES = 7 + 12 + 1
"""A frame's header and end, and the content header before the properties."""
_MAX_SIZE = re.compile(r"larger than (?:configured )?max size (\d+)")
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


@dataclass(slots=True, eq=False)
class Message:
    """One message on its way."""

    place: int
    routing_key: str
    body: bytes
    properties: pika.BasicProperties
    returned: str = ""
    """Why it reached no queue."""
    settled: bool = False


class Publisher:
    """Publishes to one exchange. One thread."""

    def __init__(
        self, parameters: pika.ConnectionParameters, exchange: str, timeout: float
    ) -> None:
        """Connect, and have a channel with confirms. Raises `logfan.SinkUnavailable`."""
        self.blocked = False
        self._exchange = exchange
        self._timeout = timeout
        self._failure: str | None = None
        self.max_bytes: int | None = None
        """The largest body that the broker takes; known once it closed the channel over one."""
        self._done = False
        self._under_way: deque[Message] = deque()
        self._first_tag = 1
        self.later: dict[int, str] = {}
        """The places of messages that were not taken, and why: returned, or refused for now."""
        parameters.heartbeat = 0
        parameters.tcp_options = dict(_KEEPALIVE)
        parameters.blocked_connection_timeout = None
        self._channel: Any = None
        self._connection = SelectConnection(
            parameters, on_open_callback=self._on_open,
            on_open_error_callback=lambda _, error: self._fail(_reason(error)),
            on_close_callback=lambda _, error: self._fail(_reason(error)),
        )  # fmt: skip
        try:
            self._until(lambda: self._done, "no answer to the handshake")
        except logfan.SinkUnavailable:
            self.close()
            raise

    @property
    def frame_bytes(self) -> int:
        """How many bytes of properties fit a frame."""
        most: int = self._connection.params.frame_max
        return most - _FRAME_BYTES

    def begin(self) -> None:
        """A new batch: its messages have places of their own."""
        self._check()
        self.later = {}

    def publish(self, message: Message) -> None:
        """Send it, without waiting."""
        self._check()
        self._channel.basic_publish(
            self._exchange, message.routing_key, message.body, message.properties, mandatory=True
        )
        self._under_way.append(message)

    def settle(self, most: int) -> None:
        """Wait until no more than so many are under way. Raises `logfan.SinkUnavailable` where the
        broker is silent, blocks, or goes away."""
        self._until(lambda: len(self._under_way) <= most, "no confirm")

    @property
    def under_way(self) -> int:
        """How many wait for their confirm."""
        return len(self._under_way)

    def close(self) -> None:
        """Close the connection, within a few seconds."""
        connection, loop = self._connection, self._connection.ioloop
        with suppress(AMQPError):
            connection.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        while not connection.is_closed and time.monotonic() < deadline:
            timer = loop.call_later(_CLOSE_SECONDS, loop.stop)
            with suppress(AssertionError):  # pika, of a handshake that is left
                loop.start()  # until `_fail` stops it
            loop.remove_timeout(timer)
        loop.close()

    # What pika calls

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._set_done())

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked

    def _set_done(self) -> None:
        self._done = True
        self._connection.ioloop.stop()

    def _on_channel_close(self, _: Any, error: BaseException) -> None:
        if found := _MAX_SIZE.search(str(getattr(error, "reply_text", ""))):
            self.max_bytes = int(found[1])
        self._fail(_reason(error))

    def _on_return(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        """It comes before the confirm of its message; equal messages stand for each other."""
        for message in self._under_way:
            same = message.body == body and message.routing_key == method.routing_key
            if same and not message.returned:
                message.returned = f"{method.reply_text} ({method.reply_code})"
                return

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        last = method.delivery_tag - self._first_tag
        first = 0 if method.multiple else last
        for message in islice(self._under_way, first, last + 1):
            if message.settled:
                continue
            message.settled = True
            if message.returned:
                self.later[message.place] = f"reaches no queue: {message.returned}"
            elif method.NAME != "Basic.Ack":
                self.later[message.place] = (
                    "the broker does not take it (nack): a queue may be full"
                )
        # The place of one stays until those before it are confirmed.
        while self._under_way and self._under_way[0].settled:
            self._under_way.popleft()
            self._first_tag += 1
        self._connection.ioloop.stop()

    # The loop

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        self._connection.ioloop.stop()

    def _check(self) -> None:
        if self._failure is not None:
            raise logfan.SinkUnavailable(self._failure)

    def _until(self, holds: Callable[[], bool], silent: str) -> None:
        """Turn the loop until it holds. The time runs anew whenever something comes."""
        loop = self._connection.ioloop
        while not holds():
            self._check()
            before = time.monotonic()
            timer = loop.call_later(self._timeout, loop.stop)
            loop.start()  # until one of the callbacks stops it
            loop.remove_timeout(timer)
            if time.monotonic() - before >= self._timeout and not holds():
                self._check()
                why = "; it blocks publishers (an alarm of memory or disk)" if self.blocked else ""
                raise logfan.SinkUnavailable(f"{silent} for {self._timeout:g} s{why}")


def _reason(error: Any) -> str:
    """The innermost cause of what pika reports."""
    nested = (*getattr(error, "exceptions", ())[-1:], getattr(error, "exception", None))
    for inner in (*nested, *getattr(error, "args", ())):
        if isinstance(inner, BaseException):
            return _reason(inner)
    code = getattr(error, "reply_code", None)
    if code is not None:
        return f"{error.reply_text} ({code})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
