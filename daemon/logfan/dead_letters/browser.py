"""The dead-letter queue, for operators: look without taking, publish again, remove.

Letters are held unacknowledged as long as this is open, so that each is seen once; what was not
acknowledged by then goes back to its place, however the process ends. A letter is acknowledged
only after the broker confirmed its copy.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from itertools import groupby, takewhile
from typing import Any

from logfan.amqp import connection, topology
from logfan.amqp.blocking import (
    BlockingChannel,
    BlockingConnection,
    BrokerError,
    Interrupted,
    Refused,
)
from logfan.amqp.broker_features import NOT_FOUND
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.pika_internals import cancel
from logfan.amqp.queue_kinds import CLASSIC, browse_mismatch
from logfan.dead_letters import header_overflow
from logfan.dead_letters.letter import OF_THE_DELIVERY, Letter
from logfan.dead_letters.refreshing import Refresher, Uncopied
from logfan.dead_letters.survey import Found

_CONSUMER_LETTERS = 50_000
"""A prefetch has 16 bits: who reads more takes one consumer after the other."""
_FIRST_ROUND, _LARGEST_ROUND, _ROUND_GROWTH = 8, 1000, 4
"""Where looks count, few letters at a time are copied: a kill leaves few beside their copies."""
_IDLE_SECONDS = 1.0
_GIVE_UP_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_SILENT_SECONDS = 10.0
_ACKS_AT_ONCE = 8


class NoSuchQueue(Exception):
    """The queue does not exist (yet)."""


class DeadQueue:
    """The letters that were there when this was opened."""

    def __init__(self, connection: BlockingConnection, name: str, kind: str = CLASSIC) -> None:
        """`kind`: the `x-queue-type` that it should have. Raises NoSuchQueue and BrokerError."""
        self.name = name
        self._connection = connection
        try:
            self._channel = connection.channel(f"queue {name!r}")
            self.count, _ = self._declared()
        except Refused as refused:
            if refused.code == NOT_FOUND:
                raise NoSuchQueue(name) from None
            raise
        self._shape = connection.declare(topology.look_at(name, kind))
        why = browse_mismatch(name, self._shape) if self._shape is not None else ""
        if why:
            raise BrokerError(ConnectionFailure(Cause.REFUSED, why, at_declaration=True))
        self.refresher = Refresher(connection, name)
        """Makes the copies, and counts them."""
        self.missed = 0
        """How many of them others took, or removed, before they were looked at: `count` is without
        these from then on."""
        self._seen = 0
        self._arrived: deque[Found] = deque()
        self._taken: set[int] = set()
        self._commands = 0
        self._removed: set[int] = set()
        """Of those taken: to be acknowledged in their turn."""
        self._gone = False
        self._channel.pika.add_on_cancel_callback(self._on_gone)

    def take(self, most: int) -> Generator[Found, None, None]:
        """The next letters in their order, `most` at the most. They stay in the queue, unseen by
        others, until `accept`, `hand_back` or the end. Raises BrokerError and Interrupted."""
        counts = self._counts_looks
        size = _FIRST_ROUND if counts else _CONSUMER_LETTERS
        while most > 0:
            wanted = min(most, size)
            got = 0
            for found in self._consume(wanted):
                got += 1
                self._seen += 1
                yield found
            self._settle_copies()
            if got < wanted:
                self.missed += max(0, self.count - self._seen)
                self.count = self._seen
                return
            most -= got
            size = min(size * _ROUND_GROWTH, _LARGEST_ROUND if counts else _CONSUMER_LETTERS)

    def keep(self, found: Found) -> None:
        """This letter stays: where a look too many could lose it, a fresh copy replaces it."""
        self.refresher.keep(found.tag, found.raw, found.deliveries)

    def give_up(self) -> None:
        """After an interrupt: no letter that was copied may stay beside its copy, if that can be
        had at once. Never raises."""
        with suppress(BrokerError, Interrupted):
            self._settle_copies(self._connection.time_limit(_GIVE_UP_SECONDS))

    def _settle_copies(self, too_late: Callable[[], bool] = lambda: False) -> None:
        try:
            self.remove(self.refresher.settle(too_late))
        except Uncopied as error:
            self.remove(error.tags)
            raise

    def remove(self, tags: Iterable[int]) -> None:
        """These letters go, now or with `hand_back`. To acknowledge up to a tag costs the broker
        one command whatever the number; single ones wait until those before them are settled."""
        before = len(self._removed)
        self._removed.update(tags)
        if len(self._removed) == before:
            return
        settled = list(takewhile(self._removed.__contains__, sorted(self._taken)))
        if settled:
            self._settle(settled, self._channel.pika.basic_ack)

    def _settle(self, run: list[int], how: Callable[..., Any]) -> None:
        self._channel.check()
        how(run[-1], multiple=True)
        self._commands += 1
        if not self._commands % _ACKS_AT_ONCE:
            self._pause()
        self._taken.difference_update(run)
        self._removed.difference_update(run)

    def accept(self, tags: Iterable[int]) -> None:
        """These letters go at once, one by one where others that stay were taken before them."""
        self._channel.check()
        self.remove(tags)
        for number, tag in enumerate(sorted(self._removed), 1):
            self._channel.pika.basic_ack(tag)
            if not number % _ACKS_AT_ONCE:
                self._declared()
        self._taken -= self._removed
        self._removed.clear()

    def sync(self) -> None:
        """Return once the broker has read what was sent: it goes in the channel's order."""
        self._declared()

    def wait_readable(self, fd: int) -> None:
        """Wait until there is something to read. Raises BrokerError where the letters are no longer
        held, and Interrupted."""
        self._channel.wait_readable(fd)

    def hand_back(self) -> None:
        """All that was taken and not accepted goes back to its place."""
        for unseen in self._arrived:
            self.keep(unseen)
        self._arrived.clear()
        self._settle_copies()
        channel = self._channel.pika
        # RabbitMQ 4.3 counts the end of a channel as a failed delivery, and this not.
        back = partial(channel.basic_nack, requeue=True)
        self._channel.check()
        runs = groupby(sorted(self._taken), self._removed.__contains__)
        for removed, run in [(is_removed, list(tags)) for is_removed, tags in runs]:
            self._settle(run, channel.basic_ack if removed else back)
        self._pause()

    def _consume(self, most: int) -> Generator[Found, None, None]:
        channel = self._channel
        channel.ask(channel.pika.basic_qos, prefetch_count=most)
        tag = channel.ask(channel.pika.basic_consume, self.name, self._on_letter).consumer_tag
        got = 0
        try:
            while got < most and self._wait():
                while self._arrived and got < most:
                    got += 1
                    yield self._arrived.popleft()
        finally:
            cancelled: list[bool] = []
            with suppress(BrokerError):
                channel.check()
                cancel(channel.pika, tag, lambda: cancelled.append(True))
                channel.until(lambda: cancelled)

    def _wait(self) -> bool:
        """Wait for a letter; False where there is none left."""
        silent = self._connection.time_limit(_SILENT_SECONDS)
        while not self._arrived:
            idle = self._connection.time_limit(_IDLE_SECONDS)
            self._channel.until(lambda idle=idle: self._arrived or self._gone or idle())  # type: ignore[misc]
            if self._gone:
                raise BrokerError(
                    ConnectionFailure(Cause.LOST, f"queue {self.name!r} was deleted meanwhile")
                )
            if self._arrived:
                break
            ready, _ = self._declared()
            if not ready and not self._arrived:
                return False
            if silent():
                why = f"queue {self.name!r} sends none of its {ready:,} messages; does it allow "
                raise BrokerError(
                    ConnectionFailure(Cause.LOST, f"{why}a single consumer, and has one?")
                )
        return True

    def _pause(self) -> None:
        """Let the broker carry out what was sent: a quorum queue's client there puts off what
        exceeds some dozens of commands, and forgets it where the channel is closed then."""
        self._declared()
        if self._counts_looks and self._commands:
            self._channel.until(self._connection.time_limit(_PAUSE_SECONDS))

    @property
    def _counts_looks(self) -> bool:
        return self._shape is None or self._shape.counts_returns

    def _declared(self) -> tuple[int, int]:
        """How many messages wait, and how many consume them."""
        return declared(self._channel, self.name)

    def _on_letter(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._taken.add(method.delivery_tag)
        self._arrived.append(_found(method.delivery_tag, properties, body))

    def _on_gone(self, _frame: Any) -> None:
        self._gone = True


def declared(channel: BlockingChannel, queue: str) -> tuple[int, int]:
    """How many messages wait in the queue, and how many consume it. Raises Refused."""
    answer = channel.ask(channel.pika.queue_declare, queue, passive=True)
    return answer.message_count, answer.consumer_count


def _found(tag: int, raw: Any, body: bytes) -> Found:
    properties = connection.to_properties(raw)
    headers = dict(properties.headers)
    deliveries = headers.get("x-delivery-count")
    for name in OF_THE_DELIVERY:
        headers.pop(name, None)
    raw_letter = Letter(body, properties._replace(headers=headers))
    letter = header_overflow.unpacked(raw_letter)
    count = deliveries if isinstance(deliveries, int) else 0
    return Found(tag, letter, len(letter.body), count, raw_letter)
