"""Carries the steps of `topology` out on a connection, on a new channel after each refusal."""

from collections.abc import Callable
from typing import Any, Generic

from pika import exceptions

from logfan.amqp import topology
from logfan.amqp.topology import T

_FREE_SECONDS = 0.05


class Declaring(Generic[T]):
    """One walk through `steps`; ends in a call of `on_done` or of `on_mismatch`. Then `again` may
    take the next one, on the same channel while that lives."""

    def __init__(
        self,
        connection: Any,
        steps: topology.Walk[T],
        *,
        on_done: Callable[[Any, T], None],
        on_mismatch: Callable[[topology.TopologyMismatch], None],
        channel: Any = None,
    ) -> None:
        """`on_done` gets an open channel. Nothing is called any more once the connection ended.
        `channel`: an open one to begin on."""
        self._connection = connection
        self._steps = steps
        self._on_done = on_done
        self._on_mismatch = on_mismatch
        self._channel: Any = None
        self._over = False
        if channel is not None:
            self._on_channel(channel)

    def begin(self) -> None:
        """Ask the first question."""
        self._step(None)

    def again(self, steps: topology.Walk[T]) -> None:
        """Walk through these, once the walk before has ended; else they are forgotten."""
        if self._over:
            self._steps, self._over = steps, False
            self._step(None)

    def _step(self, answer: topology.Answer | None) -> None:
        try:
            step = next(self._steps) if answer is None else self._steps.send(answer)
        except StopIteration as end:
            result = end.value
            self._with_channel(lambda: self._done(result))
        except topology.TopologyMismatch as mismatch:
            self._over = True
            self._on_mismatch(mismatch)
        else:
            self._with_channel(lambda: self._do(step))

    def _done(self, result: T) -> None:
        self._over = True
        self._on_done(self._channel, result)

    def _with_channel(self, then: Callable[[], None]) -> None:
        if self._channel is not None:
            then()
            return

        def opened(channel: Any) -> None:
            self._on_channel(channel)
            then()

        if not self._connection.is_open:
            return
        try:
            self._connection.channel(on_open_callback=opened)
        except exceptions.NoFreeChannels:
            # pika frees the number of the one that was closed only after its callback.
            self._connection.ioloop.call_later(_FREE_SECONDS, lambda: self._with_channel(then))

    def _on_channel(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_end)

    def _do(self, step: topology.Step) -> None:
        method, arguments = topology.request(step)
        getattr(self._channel, method)(**arguments, callback=self._on_yes)

    def _on_yes(self, frame: Any) -> None:
        if not self._over:
            method = frame.method
            queue, messages = getattr(method, "queue", None), getattr(method, "message_count", 0)
            self._step(topology.Answer(queue=queue or "", messages=messages or 0))

    def _on_channel_end(self, channel: Any, error: BaseException) -> None:
        if channel is not self._channel:
            return
        if not isinstance(error, exceptions.ChannelClosedByBroker):
            return  # it went with its connection, whose end has the reason
        self._channel = None
        if self._over:
            return
        self._step(topology.Answer(error.reply_code, error.reply_text))
