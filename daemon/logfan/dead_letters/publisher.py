"""Publishes refused records to the dead-letter queue: persistent, mandatory, confirmed.

It has a connection and a thread of its own: a broker that throttles or blocks who publishes must
not slow the consumer. Workers hand refusals over with `send` and wait for what came of it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pika import exceptions
from pika.adapters.select_connection import IOLoop

from logfan.amqp import connection as wire
from logfan.amqp import topology
from logfan.amqp.broker_features import NOT_FOUND, broker_version
from logfan.amqp.confirms import Confirms
from logfan.amqp.declaration import Declaring
from logfan.amqp.failures import Cause, ConnectionFailure, failure_of
from logfan.amqp.parameters import parameters
from logfan.amqp.queue_kinds import Shape
from logfan.amqp_properties import EncodedProperties
from logfan.config.amqp_url import address_of
from logfan.config.settings import Settings
from logfan.dead_letters import header_overflow
from logfan.dead_letters.letter import Refusal, Unsent, letter_of
from logfan.faults import Faults
from logfan.runtime.backoff import Backoff
from logfan.runtime.foreign_text import describe, line_of
from logfan.runtime.threads import OwnThread

log = logging.getLogger(__name__)

_RECONNECT_MAX_SECONDS = 5.0
_CLOSE_SECONDS = 3.0
_BLOCKED_SECONDS = 300.0
"""So long the broker may block who publishes before the attempt counts as failed."""
_IN_FLIGHT_BYTES = 16 << 20
"""So much may await its confirm before more is published; a single letter always may."""
_TICK_SECONDS = 1.0
_UNNEEDED_TICKS = 5
_COUNT_TICKS = 5
_OF_A_LETTER = (406, 501, 502, 505, 541)
"""What the broker says where it is what was published that it does not take: too large, a frame it
cannot read, an error of its own."""


class Sending:
    """Refusals on their way. `wait` for the end; `failures` then says which did not arrive."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = refusals
        self.failures: dict[int, Unsent] = {}
        """By the index of the refusal."""
        self._left = len(refusals)
        self._done = threading.Event()

    def wait(self, seconds: float) -> bool:
        """True once it is known of each one whether it is confirmed."""
        return self._done.wait(seconds)

    def end(self, index: int, failure: Unsent | None) -> None:
        """Called once for each, by the thread that publishes."""
        if failure is not None:
            self.failures[index] = failure
        self._left -= 1
        if self._left <= 0:
            self._done.set()

    def fail(self, failure: Unsent) -> None:
        """None of them can be sent."""
        for index in range(len(self.refusals)):
            self.end(index, failure)


@dataclass(frozen=True, slots=True)
class _Parcel:
    """One refusal of a sending."""

    sending: Sending
    index: int
    alone: bool
    """Whether it is sent while no other awaits its confirm."""

    @property
    def refusal(self) -> Refusal:
        return self.sending.refusals[self.index]

    def end(self, failure: Unsent | None = None) -> None:
        """What became of it; None: the broker confirmed it."""
        self.sending.end(self.index, failure)


class DeadLetters:
    """The one way to the dead-letter queue."""

    def __init__(
        self,
        settings: Settings,
        on_fault: Callable[[], None],
        is_connected: Callable[[], bool] = lambda: True,
        on_count: Callable[[int | None], None] = lambda _count: None,
    ) -> None:
        """`on_fault` is called where the thread has ended and should not have: see `fault`.
        `is_connected` tells whether the consumer has its connection: it comes first.
        `on_count` is called on the thread with how many letters wait in the queue; None: that is
        not known any more."""
        self._tell_count = on_count
        self._ticks = 0
        self._counting = False
        self._is_connected = is_connected
        self.queue = settings.dead_letter_queue
        self._settings = settings
        self._ioloop = IOLoop()
        self._thread = OwnThread("dead-letters", self._run, on_fault)
        rabbitmq = settings.rabbitmq
        self._backoff = Backoff(
            min(rabbitmq.reconnect.initial, _RECONNECT_MAX_SECONDS),
            min(rabbitmq.reconnect.max, _RECONNECT_MAX_SECONDS),
        )
        self._attempts = 0
        self._address = ""
        self._begun = False
        self._connection: Any = None
        self._open: list[Any] = []
        """The connections that are open, those among them that are being left."""
        self._was_open = False
        self._waiting: deque[_Parcel] = deque()
        self._confirms: Confirms[_Parcel] | None = None
        """Of the live channel; None while there is none."""
        self._alone = False
        self._unneeded_ticks = 0
        self._barred = ""
        """Why the queue is no place for letters; empty where it is one."""
        self._closing = False
        self._told = ""
        self._shape: Shape | None = None
        """What the queue was like when it was last declared."""

    # What other threads call

    def start(self) -> None:
        """Start the thread. It connects once `begin` was called or something is sent."""
        self._thread.start()

    def begin(self) -> None:
        """The consumer is subscribed: connect and see to the queue, as often as that takes."""
        with suppress(Exception):  # the loop is closed: the process is about to end
            self._ioloop.add_callback_threadsafe(self._begin)

    def send(self, refusals: Sequence[Refusal]) -> Sending:
        """Publish these; they are safe once the result says so."""
        sending = Sending(refusals)
        try:
            self._ioloop.add_callback_threadsafe(lambda: self._accept(sending))
        except Exception:  # noqa: BLE001 - the loop is closed: the process is about to end
            sending.fail(Unsent("stopped"))
        return sending

    def finish(self, seconds: float) -> bool:
        """Close the connection and end the thread. True where it ended."""
        self._thread.may_end()
        if self._thread.is_alive:
            self._ioloop.add_callback_threadsafe(self._finish)
        return self._thread.join(seconds)

    @property
    def fault(self) -> str | None:
        """How the thread ended where it should not have; None while all is well."""
        return self._thread.fault

    # The thread

    def _run(self) -> None:
        why = "stopped"
        try:
            self._tick()
            self._ioloop.start()
        except BaseException as error:
            why = f"internal fault: {describe(error)}"
            raise
        finally:
            self._closing = True
            self._fail_all(why)
            self._ioloop.close()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._connect()

    def _tick(self) -> None:
        """Once a second: a connection that the consumer may be waiting for, as a user's are
        counted, is given up. Without a consumer nothing is refused."""
        self._ioloop.call_later(_TICK_SECONDS, self._tick)
        self._ticks += 1
        if self._ticks % _COUNT_TICKS == 0:
            self._count()
        if self._is_connected() or self._connection is None:
            self._unneeded_ticks = 0
            return
        self._unneeded_ticks += 1
        if self._unneeded_ticks >= _UNNEEDED_TICKS and self._connection.is_open:
            why = "closed, as the consumer has no connection"
            self._lose(ConnectionFailure(Cause.LOST, why), close=True)

    def _count(self) -> None:
        """Ask how many letters wait. Where the queue is gone this closes the channel, and it is
        declared anew. A broker that blocks publishers answers late: one question at a time."""
        channel = self._confirms.channel if self._confirms is not None else None
        if channel is not None and channel.is_open and not (self._counting or self._barred):
            self._counting = True
            channel.queue_declare(
                self.queue, passive=True, callback=partial(self._on_counted, channel)
            )

    def _on_counted(self, channel: Any, frame: Any) -> None:
        if self._confirms is not None and channel is self._confirms.channel:
            self._counting = False
            self._tell_count(frame.method.message_count)

    def _accept(self, sending: Sending) -> None:
        if self._closing:
            sending.fail(Unsent("stopped"))
            return
        self._waiting.extend(
            _Parcel(sending, index, refusal.alone) for index, refusal in enumerate(sending.refusals)
        )
        self._begin()
        self._pump()

    def _pump(self) -> None:
        """Publish what may be published now."""
        while (confirms := self._confirms) is not None and self._waiting:
            alone = self._waiting[0].alone
            if confirms and (alone or self._alone or confirms.size >= _IN_FLIGHT_BYTES):
                return
            self._alone = alone
            parcel = self._waiting.popleft()
            if parcel.refusal.renew and self._settings.queue.type == "exclusive":
                parcel.end(Unsent("an exclusive queue has no name to publish to"))
            elif self._barred and not parcel.refusal.renew:
                parcel.end(Unsent(self._barred))
            else:
                self._publish(parcel, confirms)

    def _publish(self, parcel: _Parcel, confirms: Confirms[_Parcel]) -> None:
        frame_max = self._connection.params.frame_max
        own, queue = self._settings.queue, self.queue
        try:
            letter = letter_of(parcel.refusal, own.name)
            if parcel.refusal.renew:
                letter, queue = letter.replay(), own.name
            letter = header_overflow.packed(letter, frame_max)
            encoded = EncodedProperties(letter.properties)
        except Exception as error:
            # A fault of ours, but one record's: the others' way must not end with it.
            log.exception("a dead letter cannot be written; please report it")
            parcel.end(Unsent(f"internal fault: {describe(error)}", own=True))
            return
        confirms.publish("", queue, letter.body, encoded, parcel)

    # What became of it

    def _on_verdict(self, parcel: _Parcel, taken: bool) -> None:
        if taken:
            parcel.end()
        else:
            queue = self._settings.queue.name if parcel.refusal.renew else self.queue
            why = (
                f"the broker did not take them into queue {queue!r}; is that full (x-max-length)? "
                "`logfan dlq replay` or `purge` makes room"
            )
            parcel.end(Unsent(why))
        self._pump()

    def _on_return(self) -> None:
        # Which of them it was does not matter: a queue that is gone took those before along.
        self._lose(
            ConnectionFailure(Cause.LOST, f"queue {self.queue!r} is gone; it is declared anew"),
            close=True,
        )

    # The connection

    def _connect(self) -> None:
        if self._closing:
            return
        if not self._is_connected():
            self._ioloop.call_later(_TICK_SECONDS, self._connect)
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
            self._lose(ConnectionFailure(Cause.UNREACHABLE, str(error)))
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
        self._open.append(connection)
        if self._closing or connection is not self._connection:
            return
        self._was_open = True
        if not self._is_connected():
            # A letter sent now would be of a delivery that comes again; and a user's connections
            # may be counted, so that the consumer waits for this one.
            why = "closed, as the consumer has no connection"
            self._lose(ConnectionFailure(Cause.LOST, why), close=True)
            return
        steps = topology.dead_letter_queue(
            self.queue, self._settings.queue.kind, known=self._shape,
            version=broker_version(connection),
        )  # fmt: skip
        Declaring(
            connection,
            steps,
            on_done=self._on_declared,
            on_mismatch=partial(self._unfit, connection),
        ).begin()

    def _unfit(self, connection: Any, mismatch: topology.TopologyMismatch) -> None:
        """The queue is no place for letters. Records may still go back to the daemon's own queue;
        after a while the queue is looked at again."""
        if connection is not self._connection:
            return
        self._shape = mismatch.shape or self._shape
        self._barred = line_of(mismatch)
        self._tell(f"dead letters cannot be sent: {self._barred}")
        self._fail_all(self._barred)
        if connection.is_open:
            connection.channel(on_open_callback=self._on_channel)
        self._ioloop.call_later(_RECONNECT_MAX_SECONDS, partial(self._look_again, connection))

    def _look_again(self, connection: Any) -> None:
        if connection is self._connection:
            self._lose(ConnectionFailure(Cause.LOST, self._barred), close=True)

    def _on_declared(self, channel: Any, declared: topology.Declared) -> None:
        if channel.connection is not self._connection:
            return  # of a connection that was left meanwhile
        self._shape = declared.shape
        for remark in declared.remarks:
            log.warning("%s", remark)
        self._barred = ""
        self._on_channel(channel)

    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_end)
        confirms: Confirms[_Parcel] = Confirms(
            channel, on_verdict=self._on_verdict, on_return=self._on_return
        )
        confirms.begin(callback=lambda _: self._on_ready(channel, confirms))

    def _on_ready(self, channel: Any, confirms: Confirms[_Parcel]) -> None:
        if channel.connection is not self._connection:
            return
        self._confirms = confirms
        self._alone = False
        if not self._barred:
            self._backoff.reset()
            self._told = ""
        self._pump()
        self._count()

    def _on_channel_end(self, channel: Any, error: BaseException) -> None:
        if channel.connection is self._connection and isinstance(
            error, exceptions.ChannelClosedByBroker
        ):
            why = f"the broker closed the channel: {line_of(error.reply_text)} ({error.reply_code})"
            if error.reply_code == NOT_FOUND:
                why = f"queue {self.queue!r} is gone; it is declared anew"
            if not (error.reply_code in _OF_A_LETTER and self._suspects(why)):
                self._lose(ConnectionFailure(Cause.LOST, why), close=True)

    def _on_connection_end(self, connection: Any, error: BaseException | None) -> None:
        if connection in self._open:
            self._open.remove(connection)
        if self._closing:
            self._stop_once_closed()
            return
        if connection is not self._connection:
            return  # closed on purpose, after a trouble that was told
        trouble = failure_of(error, self._address, was_open=self._was_open)
        if not (
            isinstance(error, exceptions.ConnectionClosedByBroker)
            and error.reply_code in _OF_A_LETTER
            and self._suspects(trouble.why)
        ):
            self._lose(trouble)

    def _suspects(self, why: str) -> bool:
        """The broker refused something that was published, and named nothing: with a single letter
        on its way it was that one; else each is sent again by itself. False where none was."""
        suspects = self._confirms.drop() if self._confirms is not None else []
        if len(suspects) == 1:
            suspects[0].end(Unsent(why, own=True))
        else:
            self._waiting.extendleft(reversed([replace(one, alone=True) for one in suspects]))
        if suspects:
            self._leave(close=True)
        return bool(suspects)

    def _lose(self, trouble: ConnectionFailure, *, close: bool = False) -> None:
        """One way back: whoever waits is told, and the next connection is tried after a while."""
        if self._waiting or self._confirms or trouble.kind is Cause.REFUSED:
            self._tell(f"dead letters cannot be sent: {trouble.why}")
        self._fail_all(trouble.why)
        self._leave(close=close)

    def _leave(self, *, close: bool) -> None:
        connection, self._connection, self._confirms = self._connection, None, None
        self._counting = False
        self._tell_count(None)
        if close and connection is not None and connection.is_open:
            connection.close()
        if not self._closing:
            self._ioloop.call_later(self._backoff.next(), self._connect)

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            log.warning("%s", words)

    def _fail_all(self, why: str) -> None:
        failed = self._confirms.drop() if self._confirms is not None else []
        failed += self._waiting
        self._confirms = None
        self._waiting.clear()
        for parcel in failed:
            parcel.end(Unsent(why))

    def _finish(self) -> None:
        self._closing = True
        self._fail_all("stopped")
        for connection in self._open:
            if connection.is_open:
                connection.close()
        self._ioloop.call_later(_CLOSE_SECONDS, self._ioloop.stop)
        self._stop_once_closed()

    def _stop_once_closed(self) -> None:
        # pika cannot close in order what is not open yet: that socket goes with the loop.
        if not self._open:
            self._ioloop.stop()
