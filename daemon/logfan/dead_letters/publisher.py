"""Publishes refused records to the dead-letter queue: persistent, mandatory, confirmed.

It has a connection and a thread of its own: a broker that throttles or blocks who publishes must
not slow the consumer. Workers hand refusals over with `send` and wait for what came of it, 2 s at
most: then the records stand aside.
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

from logfan.amqp import topology
from logfan.amqp.broker_features import NOT_FOUND
from logfan.amqp.client import Brokers, Client
from logfan.amqp.confirms import Confirms
from logfan.amqp.failures import BrokerError, Cause, ConnectionFailure
from logfan.amqp.queue_kinds import Shape
from logfan.amqp_properties import EncodedProperties
from logfan.config.settings import Settings
from logfan.dead_letters import header_overflow
from logfan.dead_letters.letter import Refusal, Unsent, letter_of
from logfan.runtime.backoff import Backoff
from logfan.runtime.foreign_text import describe, line_of
from logfan.runtime.threads import OwnThread

log = logging.getLogger(__name__)

_RECONNECT_MAX_SECONDS = 5.0
_BLOCKED_SECONDS = 300.0
"""So long the broker may block who publishes before the attempt counts as failed."""
_SILENT_TICKS = 300
"""After so many in which letters waited and none was confirmed, the attempt counts as failed."""
_IN_FLIGHT_BYTES = 16 << 20
"""So much may await its confirm before more is published; a single letter always may."""
_TICK_SECONDS = 1.0
_UNNEEDED_TICKS = 5
_COUNT_TICKS = 5
_OF_A_LETTER = (406, 501, 502, 505, 541)
"""The broker's codes where it is what was published that it does not take: too large, a frame it
cannot read, an error of its own."""
_WITHOUT_CONSUMER = "closed, as the consumer has no connection"


class Sending:
    """Refusals on their way. `wait` for the end; `failures` then has those that did not arrive."""

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
        """`on_fault` is called where the thread has ended and should not have.
        `is_connected`: whether the consumer has its connection: it comes first.
        `on_count` is called on the thread with how many letters wait in the queue; None: that is
        not known any more."""
        self._on_count = on_count
        self._ticks = 0
        self._counting = False
        self._is_connected = is_connected
        self.queue = settings.dead_letter_queue
        self._settings = settings
        self._ioloop = IOLoop()
        self.thread = OwnThread("dead-letters", self._run, on_fault)
        reconnect = settings.rabbitmq.reconnect
        self._backoff = Backoff(reconnect.initial, min(reconnect.max, _RECONNECT_MAX_SECONDS))
        self._brokers = Brokers(
            settings, self._ioloop, purpose=" dead letters", blocked_seconds=_BLOCKED_SECONDS
        )
        self._begun = False
        self._client: Client | None = None
        self._leaving = 0
        """How many connections are being closed."""
        self._waiting: deque[_Parcel] = deque()
        self._confirms: Confirms[_Parcel] | None = None
        """Of the live channel; None while there is none."""
        self._alone = False
        self._unneeded_ticks = self._silent_ticks = 0
        self._barred = ""
        """Why the queue is no place for letters; empty where it is one."""
        self._closing = False
        self._warned = ""
        self._shape: Shape | None = None
        """What the queue was like when it was last declared."""

    # What other threads call

    def start(self) -> None:
        """Start the thread. It connects once `begin` was called or something is sent."""
        self.thread.start()

    def begin(self) -> None:
        """The consumer is subscribed: connect and see to the queue, as often as that takes."""
        with suppress(Exception):  # the loop is closed: the process is about to end
            self._ioloop.add_callback_threadsafe(self._begin)

    def send(self, refusals: Sequence[Refusal]) -> Sending:
        """Publish these; they are safe once the result has no failure."""
        sending = Sending(refusals)
        try:
            self._ioloop.add_callback_threadsafe(lambda: self._accept(sending))
        except Exception:  # noqa: BLE001 - the loop is closed: the process is about to end
            sending.fail(Unsent("stopped"))
        return sending

    def finish(self, seconds: float) -> bool:
        """Close the connection and end the thread. True where it ended."""
        self.thread.may_end()
        if self.thread.is_alive:
            self._ioloop.add_callback_threadsafe(self._finish)
        return self.thread.join(seconds)

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
        counted, is given up. Without a consumer nothing is refused. So is one on which the broker
        leaves letters, or the question of how many there are, without an answer."""
        self._ioloop.call_later(_TICK_SECONDS, self._tick)
        self._ticks += 1
        waits = self._waiting or self._confirms or self._counting
        self._silent_ticks = self._silent_ticks + 1 if waits and self._client is not None else 0
        if self._silent_ticks >= _SILENT_TICKS:
            self._lose(f"the broker has confirmed none for {_SILENT_TICKS} s")
        if self._ticks % _COUNT_TICKS == 0:
            self._count()
        if self._is_connected() or self._client is None:
            self._unneeded_ticks = 0
            return
        self._unneeded_ticks += 1
        if self._unneeded_ticks >= _UNNEEDED_TICKS and self._client.is_open:
            self._lose(_WITHOUT_CONSUMER)

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
            self._on_count(frame.method.message_count)

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
        frame_max = confirms.channel.connection.params.frame_max
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

    def _on_confirm(self, parcel: _Parcel, taken: bool) -> None:
        self._silent_ticks = 0
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
        self._lose(f"queue {self.queue!r} is gone; it is declared anew")

    # The connection

    def _connect(self) -> None:
        if self._closing:
            return
        if not self._is_connected():
            self._ioloop.call_later(_TICK_SECONDS, self._connect)
            return
        try:
            self._client = self._brokers.connect(self._on_open, self._on_end)
        except BrokerError as error:
            self._end(error.failure)

    def _on_open(self, client: Client) -> None:
        if not self._is_connected():
            # A letter sent now would be of a delivery that comes again; and a user's connections
            # may be counted, so that the consumer waits for this one.
            self._lose(_WITHOUT_CONSUMER)
            return
        client.connection.add_on_connection_blocked_callback(self._on_blocked)
        steps = topology.dead_letter_queue(
            self.queue, self._settings.queue.kind, known=self._shape, version=client.version
        )
        client.declare(
            steps, on_done=self._on_declared, on_mismatch=partial(self._mismatched, client)
        )

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        log.warning(
            "the broker blocks all publishers, as it is %s: refused records wait unacknowledged "
            "until it takes dead letters again; `rabbitmq-diagnostics alarms` shows why",
            line_of(frame.method.reason) or "short of something",
        )

    def _mismatched(self, client: Client, mismatch: topology.TopologyMismatch) -> None:
        """The queue is no place for letters. Records may still go back to the daemon's own queue;
        after a while the queue is looked at again."""
        self._shape = mismatch.shape or self._shape
        self._barred = line_of(mismatch)
        self._warn(f"dead letters cannot be sent: {self._barred}")
        self._fail_all(self._barred)
        client.channel(self._on_channel)
        self._ioloop.call_later(_RECONNECT_MAX_SECONDS, partial(self._look_again, client))

    def _look_again(self, client: Client) -> None:
        if client is self._client:
            self._lose(self._barred)

    def _on_declared(self, channel: Any, declared: topology.Declared) -> None:
        self._shape = declared.shape
        for remark in declared.remarks:
            log.warning("%s", remark)
        self._barred = ""
        self._on_channel(channel)

    def _on_channel(self, channel: Any) -> None:
        if channel is None:
            return  # there is none to be had until the connection is left
        channel.add_on_close_callback(self._on_channel_end)
        confirms: Confirms[_Parcel] = Confirms(
            channel, on_confirm=self._on_confirm, on_return=self._on_return
        )
        confirms.confirm_select(callback=lambda _: self._on_ready(confirms))

    def _is_live(self, channel: Any) -> bool:
        """Whether this is a channel of the connection that is used, and not of one being closed."""
        return self._client is not None and channel.connection is self._client.connection

    def _on_ready(self, confirms: Confirms[_Parcel]) -> None:
        if not self._is_live(confirms.channel):
            return
        self._confirms = confirms
        self._alone = False
        if not self._barred:
            self._backoff.reset()
            self._warned = ""
        self._pump()
        self._count()

    def _on_channel_end(self, channel: Any, error: BaseException) -> None:
        if not (self._is_live(channel) and isinstance(error, exceptions.ChannelClosedByBroker)):
            return
        why = f"the broker closed the channel: {line_of(error.reply_text)} ({error.reply_code})"
        if error.reply_code == NOT_FOUND:
            why = f"queue {self.queue!r} is gone; it is declared anew"
        if not self._suspects(error.reply_code, why):
            self._lose(why)

    def _on_end(self, _client: Client, failure: ConnectionFailure) -> None:
        if not self._suspects(failure.code, failure.why):
            self._end(failure)

    def _suspects(self, code: int, why: str) -> bool:
        """The broker may have refused something that was published, and named nothing: with a
        single letter on its way it was that one; else each is sent again by itself. False where
        it is about something else."""
        if code not in _OF_A_LETTER or not self._confirms:
            return False
        suspects = self._confirms.drop()
        if len(suspects) == 1:
            suspects[0].end(Unsent(why, own=True))
        else:
            self._waiting.extendleft(reversed([replace(one, alone=True) for one in suspects]))
        self._leave()
        return True

    def _lose(self, why: str) -> None:
        self._end(ConnectionFailure(Cause.LOST, why))

    def _end(self, failure: ConnectionFailure) -> None:
        """One way back: all that waits fails with the reason; the next connection is tried after
        the back-off."""
        if self._waiting or self._confirms or failure.cause is Cause.REFUSED:
            self._warn(f"dead letters cannot be sent: {failure.why}")
        self._fail_all(failure.why)
        self._leave()

    def _leave(self) -> None:
        client, self._client, self._confirms = self._client, None, None
        self._counting = False
        self._on_count(None)
        if client is not None:
            self._leaving += 1
            client.close(self._left)
        if not self._closing:
            self._ioloop.call_later(self._backoff.next(), self._connect)

    def _left(self) -> None:
        self._leaving -= 1
        if self._closing and not self._leaving:
            self._ioloop.stop()

    def _warn(self, message: str) -> None:
        if message != self._warned:
            self._warned = message
            log.warning("%s", message)

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
        self._leaving += 1
        self._leave()
        self._left()
