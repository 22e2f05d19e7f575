"""Publishes refused records to the dead-letter queue: persistent, mandatory, confirmed.

It has a connection and a thread of its own: a broker that throttles or blocks who publishes must
not slow the consumer. Workers hand refusals over with `send` and wait for what came of it.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from pika import exceptions, spec
from pika.adapters.select_connection import IOLoop

from logfan import packing, topology, wire
from logfan.backoff import Backoff
from logfan.broker import Kind, Trouble, address_of, broker_version, parameters, trouble_of
from logfan.codec import EncodedProperties
from logfan.config import Settings
from logfan.declaring import Declaring
from logfan.faults import Faults
from logfan.letters import Refusal, letter_of
from logfan.shape import QUORUM, Shape

log = logging.getLogger(__name__)

_RECONNECT_MAX_SECONDS = 5.0
_CLOSE_SECONDS = 3.0
_BLOCKED_SECONDS = 300.0
"""So long the broker may block who publishes before the attempt counts as failed."""


class Sending:
    """Refusals on their way. `wait` for the end; `failure` then says why not, or None."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = refusals
        self.failure: str | None = None
        self.unconfirmed = len(refusals)
        self._done = threading.Event()

    def wait(self, seconds: float) -> bool:
        """True once every one is confirmed, or the attempt has failed."""
        return self._done.wait(seconds)

    def end(self, failure: str | None) -> None:
        """Called once, by the thread that publishes."""
        self.failure = failure
        self._done.set()


class DeadLetters:
    """The one way to the dead-letter queue."""

    def __init__(self, settings: Settings, on_fault: Callable[[BaseException], None]) -> None:
        """`on_fault` is called, on the thread, where it ended by a fault of our own."""
        self._tell_fault = on_fault
        self.queue = settings.dead_letter_queue
        self._settings = settings
        self._ioloop = IOLoop()
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
        rabbitmq = settings.rabbitmq
        self._backoff = Backoff(
            min(rabbitmq.reconnect.initial, _RECONNECT_MAX_SECONDS),
            min(rabbitmq.reconnect.max, _RECONNECT_MAX_SECONDS),
        )
        self._attempts = 0
        self._address = ""
        self._connection: Any = None
        self._channel: Any = None
        self._was_open = False
        self._waiting: list[Sending] = []
        self._unconfirmed: dict[int, Sending] = {}
        self._published = 0
        self._closing = False
        self._told = ""
        self._shape: Shape | None = None
        """What the queue was like when it was last declared."""

    # What other threads call

    def start(self) -> None:
        """Connect and see to the queue, as often as that takes."""
        self._thread.start()

    def send(self, refusals: Sequence[Refusal]) -> Sending:
        """Publish these; they are safe once the result says so."""
        sending = Sending(refusals)
        try:
            self._ioloop.add_callback_threadsafe(lambda: self._accept(sending))
        except Exception:  # noqa: BLE001 - the loop is closed: the process is about to end
            sending.end("stopped")
        return sending

    def finish(self, seconds: float) -> bool:
        """Close the connection and end the thread. True where it ended."""
        if self._thread.is_alive():
            self._ioloop.add_callback_threadsafe(self._finish)
            self._thread.join(seconds)
        return not self._thread.is_alive()

    # The thread

    def _run(self) -> None:
        why = "stopped"
        try:
            self._connect()
            self._ioloop.start()
        except Exception as error:  # noqa: BLE001 - told to the main thread, which exits 70
            why = f"internal fault: {error!r}"
            self._tell_fault(error)
        finally:
            self._closing = True
            self._fail_all(why)
            self._ioloop.close()

    def _accept(self, sending: Sending) -> None:
        if self._closing:
            sending.end("stopped")
        elif self._channel is None:
            self._waiting.append(sending)
        else:
            self._publish(sending)

    def _publish(self, sending: Sending) -> None:
        try:
            queue = self._settings.queue.name
            letters = [packing.packed(letter_of(refusal, queue)) for refusal in sending.refusals]
            encoded = [EncodedProperties(letter.properties) for letter in letters]
        except Exception as error:
            # A fault of ours, but one record's: the others' way must not end with it.
            log.exception("a dead letter cannot be written; please report it")
            sending.end(f"internal fault: {error!r}")
            return
        for letter, properties in zip(letters, encoded, strict=True):
            self._published += 1
            self._unconfirmed[self._published] = sending
            self._channel.basic_publish("", self.queue, letter.body, properties, mandatory=True)

    # What became of it

    def _on_confirm(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        taken = isinstance(frame.method, spec.Basic.Ack)
        if not multiple:
            tags = [tag]
        else:
            tags = list(takewhile(lambda known: known <= tag, self._unconfirmed))
        for known in tags:
            sending = self._unconfirmed.pop(known, None)
            if sending is None:
                continue
            if not taken:
                sending.failure = f"the broker did not take them into queue {self.queue!r}"
            sending.unconfirmed -= 1
            if not sending.unconfirmed:
                sending.end(sending.failure)

    def _on_return(self, *_: Any) -> None:
        # Which of them it was does not matter: a queue that is gone took those before along.
        self._lose(
            Trouble(Kind.LOST, f"queue {self.queue!r} is gone; it is declared anew"), close=True
        )

    # The connection

    def _connect(self) -> None:
        if self._closing:
            return
        rabbitmq = self._settings.rabbitmq
        self._was_open = False
        try:
            urls = rabbitmq.read_urls()
            url = urls[self._attempts % len(urls)]
            self._attempts += 1
            self._address = address_of(url)
            wanted = parameters(
                url, heartbeat=rabbitmq.heartbeat, tls=rabbitmq.tls,
                instance=self._settings.instance,
            )  # fmt: skip
        except (Faults, OSError, ValueError) as error:
            self._lose(Trouble(Kind.UNREACHABLE, str(error)))
            return
        wanted.client_properties["connection_name"] += " dead letters"
        wanted.blocked_connection_timeout = _BLOCKED_SECONDS
        self._connection = wire.Connection(
            wanted,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_connection_end,
            on_close_callback=self._on_connection_end,
            custom_ioloop=self._ioloop,
        )

    def _on_open(self, connection: Any) -> None:
        self._was_open = True
        if self._closing:
            return
        steps = topology.dead_letter_queue(
            self.queue, quorum=self._settings.queue.kind == QUORUM, known=self._shape,
            version=broker_version(connection),
        )  # fmt: skip
        Declaring(connection, steps, on_done=self._on_declared, on_unfit=self._on_unfit).begin()

    def _on_unfit(self, unfit: topology.Unfit) -> None:
        self._shape = unfit.shape or self._shape
        self._lose(Trouble(Kind.REFUSED, str(unfit), at_declaration=True), close=True)

    def _on_declared(self, channel: Any, declared: topology.Declared) -> None:
        self._shape = declared.shape
        for remark in declared.remarks:
            log.warning("%s", remark)
        channel.add_on_close_callback(self._on_channel_end)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready(channel))

    def _on_ready(self, channel: Any) -> None:
        if channel.connection is not self._connection:
            return
        self._channel = channel
        self._published = 0
        self._backoff.reset()
        self._told = ""
        waiting, self._waiting = self._waiting, []
        for sending in waiting:
            self._publish(sending)

    def _on_channel_end(self, channel: Any, error: BaseException) -> None:
        if channel.connection is self._connection and isinstance(
            error, exceptions.ChannelClosedByBroker
        ):
            why = f"the broker closed the channel: {error.reply_text} ({error.reply_code})"
            self._lose(Trouble(Kind.LOST, why), close=True)

    def _on_connection_end(self, connection: Any, error: BaseException | None) -> None:
        if self._closing:
            self._ioloop.stop()
            return
        if connection is not self._connection:
            return  # closed on purpose, after a trouble that was told
        self._lose(trouble_of(error, self._address, was_open=self._was_open))

    def _lose(self, trouble: Trouble, *, close: bool = False) -> None:
        """One way back: whoever waits is told, and the next connection is tried after a while."""
        connection, self._connection, self._channel = self._connection, None, None
        why = f"dead letters cannot be sent: {trouble.why}"
        if self._waiting or self._unconfirmed or trouble.kind is Kind.REFUSED:
            self._tell(why)
        self._fail_all(trouble.why)
        if close and connection is not None and connection.is_open:
            connection.close()
        if not self._closing:
            self._ioloop.call_later(self._backoff.next(), self._connect)

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            log.warning("%s", words)

    def _fail_all(self, why: str) -> None:
        failed = [*self._waiting, *dict.fromkeys(self._unconfirmed.values())]
        self._waiting.clear()
        self._unconfirmed.clear()
        for sending in failed:
            sending.end(why)

    def _finish(self) -> None:
        self._closing = True
        self._fail_all("stopped")
        connection = self._connection
        if connection is None or not connection.is_open:
            # pika cannot close in order what is not open yet: the socket goes with the loop.
            self._ioloop.stop()
            return
        self._ioloop.call_later(_CLOSE_SECONDS, self._ioloop.stop)
        connection.close()
