"""Watches for a stream where the broker does not let us ask what a queue is.

A stream marks each delivery with its offset. The first one decides, before any message is taken
in: nothing of a stream is acknowledged or handed back.
"""

from collections.abc import Callable
from typing import Any

from logfan.amqp import connection
from logfan.amqp.connection import Receiver
from logfan.amqp.delivery_parser import Run

_OFFSET = "x-stream-offset"


class StreamWatch:
    """A receiver before another one, which gets nothing of a stream."""

    def __init__(self, receiver: Receiver, on_stream: Callable[[], None]) -> None:
        """`on_stream` is called once, where it is one."""
        self._receiver = receiver
        self._tell_stream = on_stream
        self._is_stream: bool | None = None
        self.read_bytes = receiver.read_bytes
        self.now = receiver.now
        self.on_read_end = receiver.on_read_end

    def deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """See `Receiver`."""
        if self._is_stream is None:
            self._decide(_OFFSET in connection.to_properties(properties).headers)
        if not self._is_stream:
            self._receiver.deliver(channel, method, properties, body)

    def on_deliveries(self, channel: Any, run: Run) -> None:
        """See `Receiver`."""
        if self._is_stream is None:
            self._decide(_OFFSET in run.records[0].headers)
        if not self._is_stream:
            self._receiver.on_deliveries(channel, run)

    def _decide(self, is_stream: bool) -> None:
        self._is_stream = is_stream
        if is_stream:
            self._tell_stream()
