"""Carries the steps of `topology` out on a connection, on a new channel after each refusal."""

from collections.abc import Callable
from typing import Any

from pika import exceptions

from logfan import topology


class Declaring:
    """One walk through `steps`; ends in a call of `on_done` or of `on_unfit`."""

    def __init__(
        self,
        connection: Any,
        steps: topology.Steps,
        *,
        on_done: Callable[[Any, topology.Declared], None],
        on_unfit: Callable[[topology.Unfit], None],
    ) -> None:
        """`on_done` gets an open channel. Nothing is called any more once the connection ended."""
        self._connection = connection
        self._steps = steps
        self._on_done = on_done
        self._on_unfit = on_unfit
        self._channel: Any = None
        self._over = False

    def begin(self) -> None:
        """Ask the first question."""
        self._step(None)

    def _step(self, answer: topology.Answer | None) -> None:
        try:
            step = next(self._steps) if answer is None else self._steps.send(answer)
        except StopIteration as end:
            declared = end.value
            self._with_channel(lambda: self._done(declared))
        except topology.Unfit as unfit:
            self._over = True
            self._on_unfit(unfit)
        else:
            self._with_channel(lambda: self._do(step))

    def _done(self, declared: topology.Declared) -> None:
        self._over = True
        self._on_done(self._channel, declared)

    def _with_channel(self, then: Callable[[], None]) -> None:
        if self._channel is not None:
            then()
            return

        def opened(channel: Any) -> None:
            self._channel = channel
            channel.add_on_close_callback(self._on_channel_end)
            then()

        if self._connection.is_open:
            self._connection.channel(on_open_callback=opened)

    def _do(self, step: topology.Step) -> None:
        channel = self._channel
        if isinstance(step, topology.DeclareExchange):
            channel.exchange_declare(
                step.name, step.type, passive=step.passive, durable=step.durable,
                callback=self._on_yes,
            )  # fmt: skip
        elif isinstance(step, topology.DeclareQueue):
            channel.queue_declare(
                step.name, passive=step.passive, durable=step.durable, exclusive=step.exclusive,
                auto_delete=step.auto_delete, arguments=dict(step.arguments),
                callback=self._on_yes,
            )  # fmt: skip
        else:
            channel.queue_bind(step.queue, step.exchange, step.routing_key, callback=self._on_yes)

    def _on_yes(self, frame: Any) -> None:
        if not self._over:
            self._step(topology.Answer(queue=getattr(frame.method, "queue", None) or ""))

    def _on_channel_end(self, channel: Any, error: BaseException) -> None:
        if self._over or channel is not self._channel:
            return
        if not isinstance(error, exceptions.ChannelClosedByBroker):
            return  # it went with its connection, whose end tells why
        self._channel = None
        self._step(topology.Answer(error.reply_code, error.reply_text))
