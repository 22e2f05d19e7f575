"""Looks at the queue and its bindings every 5 s, on a channel of its own.

To ask for what is gone closes the channel; so it is not the consumer's.
"""

from typing import Any, Protocol

from logfan.amqp.binding import Binding, QueueStatus
from logfan.amqp.client import Client, Declaring
from logfan.amqp.pika_internals import Channel
from logfan.amqp.topology import Declared

LOOK_SECONDS = 5.0
_OFTEN_SECONDS = 0.25


class MonitorEvents(Protocol):
    """What a monitor reports, on the I/O thread."""

    def on_queue_status(self, look: QueueStatus) -> None:
        """What the queue and its bindings look like, every 5 s."""

    def on_monitor_refused(self, why: str) -> None:
        """There is no channel for it."""


class QueueMonitor:
    """One connection's. `begin`, and `stop` at last."""

    def __init__(
        self,
        client: Client,
        channel: Channel,
        binding: Binding,
        declared: Declared,
        events: MonitorEvents,
    ) -> None:
        self._client = client
        self._binding = binding
        self._declared = declared
        self._events = events
        self._declaring: Declaring[QueueStatus] = Declaring(
            client, on_done=self._on_looked, on_mismatch=lambda _: None, channel=channel
        )
        self._timer: Any = None
        self._seconds = LOOK_SECONDS
        self._over = False

    def begin(self) -> None:
        """Look now, and from now on; once it has begun this does nothing."""
        if self._timer is None:
            self._look()

    def often(self) -> bool:
        """Look now, and four times a second from now on. False once it is over."""
        if self._over:
            return False
        self._seconds = _OFTEN_SECONDS
        if self._timer is not None:
            self._client.ioloop.remove_timeout(self._timer)
        self._look()
        return True

    def stop(self) -> None:
        self._over = True
        if self._timer is not None:
            self._client.ioloop.remove_timeout(self._timer)
            self._timer = None

    def _look(self) -> None:
        if self._over or not self._client.is_open:
            return
        self._timer = self._client.ioloop.call_later(self._seconds, self._look)
        self._declaring.begin(self._binding.look(self._declared))

    def _on_looked(self, _channel: Channel, look: QueueStatus) -> None:
        if not self._over:
            self._events.on_queue_status(look)
