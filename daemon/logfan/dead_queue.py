"""The dead-letter queue, for operators: look without taking, publish again, remove.

Letters are held unacknowledged as long as this is open, so that each is seen once; what was not
acknowledged by then goes back to its place, however the process ends. A letter is acknowledged
only after the broker confirmed its copy.
"""

from collections import deque
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from logfan import packing, wire
from logfan.broker import Kind, Trouble
from logfan.letters import Letter, is_ours
from logfan.link import Lane, Link, LinkError, Refused

_NOT_FOUND = 404
_CONSUMER_LETTERS = 50_000
"""A prefetch has 16 bits: who reads more takes one consumer after the other."""
_IDLE_SECONDS = 1.0
_SILENT_SECONDS = 10.0
_OTHER_REASONS = "(other reasons)"
_REASONS = 1000
"""Kept apart; reasons that differ for each record would fill the memory."""
# Of the delivery, not of the letter: a copy must not carry them.
_OF_THE_DELIVERY = ("x-delivery-count", "x-acquired-count")


class NoSuchQueue(Exception):
    """The queue does not exist (yet)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message in the dead-letter queue."""

    tag: int
    letter: Letter
    size: int
    """Bytes of the body."""
    deliveries: int
    """How often the broker has counted a failed delivery of it; quorum queues only."""

    @property
    def ours(self) -> bool:
        """Whether logfan put it there."""
        return is_ours(self.letter.properties.headers)


@dataclass(slots=True)
class Row:
    """Letters that are alike."""

    count: int = 0
    size: int = 0
    """Bytes of their bodies."""
    oldest: str = ""
    newest: str = ""

    def add(self, found: Found) -> None:
        """Count one more."""
        at = found.letter.first_failed_at
        self.count += 1
        self.size += found.size
        self.oldest = min(self.oldest or at, at)
        self.newest = max(self.newest, at)


@dataclass(slots=True)
class Survey:
    """What is in the queue: by sink and reason, within a bound of memory."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    foreign: Row = field(default_factory=Row)
    deliveries: int = 0
    """The highest count of failed deliveries."""

    def add(self, found: Found) -> None:
        """Count one more."""
        self.deliveries = max(self.deliveries, found.deliveries)
        if not found.ours:
            self.foreign.add(found)
            return
        key = (found.letter.sink, found.letter.reason)
        if key not in self.rows and len(self.rows) >= _REASONS:
            key = (key[0], _OTHER_REASONS)
            if key not in self.rows and len(self.rows) >= 2 * _REASONS:
                key = ("(other sinks)", _OTHER_REASONS)
        self.rows.setdefault(key, Row()).add(found)

    def sorted(self) -> list[tuple[str, str, Row]]:
        """Sink, reason and row, the most frequent first; those that are not ours come last."""
        rows = [(sink, reason, row) for (sink, reason), row in self.rows.items()]
        return sorted(rows, key=lambda row: (-row[2].count, row[0], row[1]))

    @property
    def count(self) -> int:
        """All letters, those that are not ours among them."""
        return self.foreign.count + sum(row.count for row in self.rows.values())


_ACKS_AT_ONCE = 8


class DeadQueue:
    """The letters that were there when this was opened."""

    def __init__(self, link: Link, name: str) -> None:
        """Raises NoSuchQueue and LinkError."""
        self.name = name
        self._link = link
        try:
            self._lane = link.lane()
            self.count, _ = self._declared()
        except Refused as refused:
            if refused.code == _NOT_FOUND:
                raise NoSuchQueue(name) from None
            raise self._error(refused) from None
        self._arrived: deque[Found] = deque()
        self._taken: set[int] = set()
        self._gone = False
        self._lane.channel.add_on_cancel_callback(self._on_gone)

    def take(self, most: int) -> Generator[Found, None, None]:
        """The next letters in their order, `most` at the most. They stay in the queue, unseen by
        others, until `accept`, `hand_back` or the end. Raises LinkError and Interrupted."""
        try:
            while most > 0:
                wanted = min(most, _CONSUMER_LETTERS)
                got = 0
                for found in self._consume(wanted):
                    got += 1
                    yield found
                if got < wanted:
                    return
                most -= got
        except Refused as refused:
            raise self._error(refused) from None

    def accept(self, tags: Iterable[int], *, up_to: bool = False) -> None:
        """Acknowledge: these letters are removed. `up_to`: and all that were taken before."""
        wanted = sorted(tags)
        if not wanted:
            return
        before = {tag for tag in self._taken if tag <= wanted[-1]}
        try:
            self._lane.check()
            if up_to or before <= set(wanted):
                # One acknowledgement: a quorum queue's client on the broker's side puts off what
                # exceeds some dozens at once, and forgets it where the channel is closed then.
                self._lane.channel.basic_ack(wanted[-1], multiple=True)
                self._taken -= before
                return
            for start in range(0, len(wanted), _ACKS_AT_ONCE):
                for tag in wanted[start : start + _ACKS_AT_ONCE]:
                    self._lane.channel.basic_ack(tag)
                self._declared()
            self._taken -= set(wanted)
        except Refused as refused:
            raise self._error(refused) from None

    def sync(self) -> None:
        """Return once the broker has read what it was told: it goes in the channel's order."""
        try:
            self._declared()
        except Refused as refused:
            raise self._error(refused) from None

    def hand_back(self) -> None:
        """All that was taken and not accepted goes back to its place."""
        try:
            self._lane.check()
            # RabbitMQ 4.3 counts the end of a channel as a failed delivery, and this not.
            self._lane.channel.basic_nack(0, multiple=True, requeue=True)
            self._taken.clear()
            self.sync()
        except Refused as refused:
            raise self._error(refused) from None

    def _consume(self, most: int) -> Generator[Found, None, None]:
        lane = self._lane
        lane.ask(lane.channel.basic_qos, prefetch_count=most)
        tag = lane.ask(lane.channel.basic_consume, self.name, self._on_letter).consumer_tag
        got = 0
        try:
            while got < most and self._wait():
                while self._arrived and got < most:
                    got += 1
                    yield self._arrived.popleft()
        finally:
            with suppress(LinkError, Refused):
                lane.ask(lambda callback: wire.cancel(lane.channel, tag, lambda: callback(_DONE)))

    def _wait(self) -> bool:
        """Wait for a letter; False where there is none left."""
        silent = self._link.time_limit(_SILENT_SECONDS)
        while not self._arrived:
            idle = self._link.time_limit(_IDLE_SECONDS)
            self._lane.until(lambda idle=idle: self._arrived or self._gone or idle())  # type: ignore[misc]
            if self._gone:
                raise LinkError(Trouble(Kind.LOST, f"queue {self.name!r} was deleted meanwhile"))
            if self._arrived:
                break
            ready, _ = self._declared()
            if not ready and not self._arrived:
                return False
            if silent():
                why = f"queue {self.name!r} sends none of its {ready:,} messages; does it allow "
                raise LinkError(Trouble(Kind.LOST, f"{why}a single consumer, and has one?"))
        return True

    def _declared(self) -> tuple[int, int]:
        """How many messages wait, and how many consume them."""
        return declared(self._lane, self.name)

    def _on_letter(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._taken.add(method.delivery_tag)
        self._arrived.append(_found(method.delivery_tag, properties, body))

    def _on_gone(self, _frame: Any) -> None:
        self._gone = True

    def _error(self, refused: Refused) -> LinkError:
        why = f"queue {self.name!r}: {refused}"
        return LinkError(Trouble(Kind.REFUSED, why, at_declaration=True))


class _Done:
    method = None


_DONE = _Done()


def declared(lane: Lane, queue: str) -> tuple[int, int]:
    """How many messages wait in the queue, and how many consume it. Raises Refused."""
    answer = lane.ask(lane.channel.queue_declare, queue, passive=True)
    return answer.message_count, answer.consumer_count


def _found(tag: int, raw: Any, body: bytes) -> Found:
    properties = wire.to_properties(raw)
    headers = dict(properties.headers)
    deliveries = headers.get("x-delivery-count")
    for name in _OF_THE_DELIVERY:
        headers.pop(name, None)
    letter = packing.unpacked(Letter(body, properties._replace(headers=headers)))
    return Found(tag, letter, len(letter.body), deliveries if isinstance(deliveries, int) else 0)
