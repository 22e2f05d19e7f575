"""A broker, sinks and dead letters made by hand, which check all that is asked of them.

The broker holds the daemon to AMQP's rules and to the promise: what it is asked to forget must lie
in every required sink, or in the dead letters. The sinks remember what they raised, so that a
refusal can be held against the evidence.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

from pika import spec

from logfan.amqp.connection import Receiver
from logfan.amqp.delivery_parser import Run
from logfan.amqp.topology import Declared
from logfan.dead_letters.letter import Refusal, Unsent
from logfan.record import Properties, Record
from logfan.sink import RecordsRejected, Sink, SinkConfig, SinkUnavailable
from support.strands import Strand, Time

REQUIRED = ("a", "b")
SINKS = (*REQUIRED, "optional")
_TIMES_PUT_OFF = 3
BUDGET = 400
"""Bytes of bodies that the daemon may hold."""


@dataclass(slots=True, order=True)
class Message:
    """A message by its number: the order of publishing."""

    number: int
    body: bytes = field(compare=False)
    redelivered: bool = field(default=False, compare=False)


def body_of(number: int, failure: str, size: int) -> bytes:
    """`failure`: `poison-SINK`, `refuse-SINK` (at write), `late-SINK` (at flush), `wait-SINK`
    (wanted later, and taken then), `waste-SINK` (wanted later, and refused then), or none."""
    return f"{number}|{failure}|".encode().ljust(size, b".")


def number_of(record: Record) -> int:
    return int(record.body.split(b"|", 1)[0])


def failure_of(record: Record) -> str:
    return record.body.split(b"|", 2)[1].decode()


class Truth:
    """What really is: what was published, where it lies, and which rules were broken."""

    def __init__(self) -> None:
        self.time = Time()
        self.published = 0
        self.acked: set[int] = set()
        self.delivered: Counter[int] = Counter()
        self.held: dict[str, list[int]] = {name: [] for name in SINKS}
        """What each sink holds durably, in the order in which it came."""
        self.times_held: dict[str, Counter[int]] = {name: Counter() for name in SINKS}
        self.letters: set[tuple[str, int]] = set()
        """The dead letters that were confirmed."""
        self.unordered = False
        """A sink failed without a reason: where records are offered alone, the order changes."""
        self.overtaken: set[int] = set()
        """What a sink wanted later."""
        self.bugs: dict[str, bool] = dict.fromkeys(SINKS, False)
        """Sinks that failed without a reason with records that are good."""
        self.in_flight: dict[int, tuple[Message, int]] = {}
        """What the present channel has delivered and not got back."""
        self.last_copies: set[int] = set()
        """Of a queue that is gone: the present daemon alone has them."""
        self.taken_over: set[int] = set()
        """All that ever were such."""
        self.lost: set[int] = set()
        """Last copies of a daemon that ended, or that held those of another queue already."""
        self.faults: list[str] = []

    def is_settled(self, sink: str, number: int) -> bool:
        return self.times_held[sink][number] > 0 or (sink, number) in self.letters

    def is_everywhere(self, number: int) -> bool:
        """Whether each required sink has it, or its letter is sent."""
        return all(self.is_settled(sink, number) for sink in REQUIRED)

    def lose(self, numbers: Iterable[int]) -> None:
        """What of these is not in each sink is in no queue and no daemon any more."""
        self.lost |= {number for number in numbers if not self.is_everywhere(number)}

    @property
    def is_at_rest(self) -> bool:
        """Nothing that was published is still to be acknowledged or written."""
        over = self.acked | self.lost | {*filter(self.is_everywhere, self.taken_over)}
        return len(over) == self.published


class Channel:
    """The broker's side of one channel: one consumer at a time, and frames on their way."""

    def __init__(self, queue: list[Message], truth: Truth, *, can_be_held: bool) -> None:
        self.is_open = True
        self.can_be_held = can_be_held
        self.held = False
        """The daemon reads nothing of it for now,"""
        self.held_at = 0.0
        """since then."""
        self.frames: deque[Message | Callable[[], None]] = deque()
        self.unacked: dict[int, tuple[Message, int]] = {}
        """By delivery tag: the message, and which consumer it was for."""
        self.read: dict[int, int] = {}
        """The unacked tags that the daemon has read, with the size of the body."""
        self.acks = self.nacks = 0
        truth.in_flight = self.unacked
        self._queue, self._truth = queue, truth
        self._tag_sent = self._tag_read = 0
        self._consumer, self._consuming, self._prefetch = 0, False, 0
        self._fit: int | None = None
        """How many fit into the budget at their size, where it was more that came."""

    def pause_reading(self) -> None:
        self.held, self.held_at = self.can_be_held, self._truth.time.now

    def consume(self, prefetch: int, on_consuming: Callable[[], None]) -> None:
        assert self.is_open
        assert not self._consuming
        assert self._fit is None or prefetch <= self._fit, f"{prefetch} where {self._fit} fit"
        self._fit = None
        self._consumer += 1
        self._consuming, self._prefetch = True, prefetch
        self.frames.append(on_consuming)

    def cancel(self, on_cancelled: Callable[[], None]) -> None:
        assert self.is_open
        self._consuming = False
        self._fit = self._how_many_fit()
        self.frames.append(on_cancelled)

    def _how_many_fit(self) -> int | None:
        """At the mean size of those up to the first that went beyond the budget."""
        for count, size in enumerate(accumulate(self.read.values()), 1):
            if size > BUDGET and count > 1:
                return max(1, BUDGET * count // size)
        return None

    def send(self) -> None:
        """Put on the way what the prefetch allows. Like RabbitMQ it counts for each consumer."""
        theirs = sum(consumer == self._consumer for _, consumer in self.unacked.values())
        while self.is_open and self._consuming and self._queue and theirs < self._prefetch:
            message = self._queue.pop(0)
            self._tag_sent += 1
            self.unacked[self._tag_sent] = message, self._consumer
            self.frames.append(message)
            theirs += 1

    def read_frames(self, count: int, receiver: Receiver, longest: int) -> None:
        """The daemon reads up to `count` frames. Messages that never came before come in runs
        of up to `longest`, all others (and with 0 all) one by one."""
        run: list[Message] = []
        for _ in range(min(count, len(self.frames))):
            frame = self.frames.popleft()
            is_plain = isinstance(frame, Message) and not frame.redelivered
            if run and (len(run) == longest or not is_plain):
                self._deliver_run(run, receiver)
                run = []
            if not isinstance(frame, Message):
                frame()
            elif is_plain and longest:
                run.append(frame)
            else:
                method = spec.Basic.Deliver("tag", self._note(frame), frame.redelivered, "logs", "")
                receiver.deliver(cast(Any, self), method, spec.BasicProperties(), frame.body)
        if run:
            self._deliver_run(run, receiver)

    def _deliver_run(self, run: list[Message], receiver: Receiver) -> None:
        records = [Record(m.body, "logs", "", False, self._truth.time.now, Properties) for m in run]
        for message in run:
            self._note(message)
        size = sum(record.size for record in records)
        delivered = Run(records, self._tag_read, size, wire_size=size, end=0)
        receiver.on_deliveries(cast(Any, self), delivered)

    @property
    def messages_read(self) -> int:
        """How many messages the daemon has read on it."""
        return self._tag_read

    def _note(self, message: Message) -> int:
        """It was read. Its delivery tag."""
        self._tag_read += 1
        self._truth.delivered[message.number] += 1
        self.read[self._tag_read] = len(message.body)
        return self._tag_read

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        for message in self._take(tag, multiple=multiple):
            self.acks += 1
            missing = [s for s in REQUIRED if not self._truth.is_settled(s, message.number)]
            assert not missing, f"message {message.number} was acknowledged without {missing}"
            self._truth.acked.add(message.number)

    def basic_nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> None:
        assert requeue
        for message in self._take(tag, multiple=multiple):
            self.nacks += 1
            self._requeue(message)

    def close(self, *, queue_gone: bool = False) -> None:
        """Everything that is not acknowledged goes back, whether it was read or not. With
        `queue_gone` what was read does not; the others are published to another queue."""
        self.is_open = False
        for tag in self.read if queue_gone else ():
            del self.unacked[tag]
        for message, _ in self.unacked.values():
            self._requeue(message)
        self.unacked.clear()
        self.read.clear()

    def _take(self, tag: int, *, multiple: bool) -> list[Message]:
        assert self.is_open, "spoken on a channel that is closed"
        assert tag in self.unacked, f"unknown delivery tag {tag}"
        assert tag in self.read, f"delivery tag {tag} was not read yet"
        tags = [t for t in self.unacked if t == tag or (multiple and t < tag)]
        for one in tags:
            del self.read[one]
        return [self.unacked.pop(one)[0] for one in tags]

    def _requeue(self, message: Message) -> None:
        message.redelivered = True
        insort(self._queue, message)


class ModelSubscription:
    """What a dispatcher asks of a `Subscription`."""

    address = "model"

    def __init__(
        self,
        channel: Channel,
        on_consuming: Callable[[Any, Declared], None],
        rests: list[float],
    ) -> None:
        """`rests` is where it notes how long nothing should be read, in seconds."""
        self.channel = channel
        self.connection = self
        self._on_consuming = on_consuming
        self.pause_reading_for = rests.append

    def pause_reading(self) -> bool:
        assert not self.channel.held, "held twice"
        self.channel.pause_reading()
        return self.channel.held

    def resume_reading(self) -> None:
        assert self.channel.held, "not held"
        self.channel.held = False

    def send_at_once(self) -> None:
        """Nothing of the model waits to be sent."""

    def consume(self, prefetch: int) -> None:
        if self.channel.is_open:
            self.channel.consume(prefetch, lambda: self._on_consuming(self, Declared("model")))

    def pause(self, seconds: float, on_cancelled: Callable[[], None]) -> None:
        assert seconds > 0
        self.cancel(on_cancelled)

    def call_off(self) -> bool:
        return False

    def cancel(self, on_cancelled: Callable[[], None]) -> None:
        if self.channel.is_open:
            self.channel.cancel(on_cancelled)
        else:
            on_cancelled()


class Store(Sink):
    """A sink that fails on demand, and keeps what was flushed."""

    def __init__(self, name: str, truth: Truth, strand: Strand) -> None:
        super().__init__(SinkConfig(), name=name)
        self.state = "up"
        """Or `down`, `flush-down`, `flush-bug`, `bug`."""
        self.slow = False
        self.dead = False
        self._truth, self._strand = truth, strand
        self._written: list[int] = []
        self._late: dict[int, str] = {}
        self._refused: set[int] = set()
        self._offered: list[int] = []
        self._put_off: Counter[int] = Counter()
        self._alone: Counter[int] = Counter()
        self._is_suspected = False
        self._taken_since: set[int] = set()

    def has_refused(self, number: int) -> bool:
        """Whether it reported that itself."""
        return number in self._refused

    def has_evidence(self, number: int) -> bool:
        """It failed alone again and again since the sink was last down, and another was taken."""
        return self._alone[number] >= 3 and bool(self._taken_since - {number})

    def open(self) -> None:
        self._written, self._late = [], {}
        if self.state == "down":
            raise self._down()

    def write(self, records: Sequence[Record]) -> None:
        self._offered = [number_of(record) for record in records]
        self._look_at_what_is_offered()
        self._linger()
        failures = [failure_of(record) for record in records]
        if self.state == "down":
            raise self._down()
        if self.state == "bug" or f"poison-{self.name}" in failures:
            raise self._bug(innocent=self.state == "bug")
        refused = {i: "refused" for i, t in enumerate(failures) if t == f"refuse-{self.name}"}
        waits, later = (f"wait-{self.name}", f"waste-{self.name}"), {}
        for i, number in enumerate(self._offered):
            if failures[i] in waits and self._put_off[number] < _TIMES_PUT_OFF:
                later[i] = "not yet"
                self._put_off[number] += 1
                self._truth.overtaken.add(number)
            elif failures[i] == waits[1]:
                refused[i] = "refused at last"
        self._late = {i: "late" for i, t in enumerate(failures) if t == f"late-{self.name}"}
        left = {*refused, *later, *self._late}
        self._written = [n for i, n in enumerate(self._offered) if i not in left]
        self._refused |= {self._offered[i] for i in refused}
        if refused or later:
            raise RecordsRejected(refused, later=later)

    def flush(self) -> None:
        self._linger()
        if self.state == "flush-down":
            raise self._down()
        if self.state == "flush-bug":
            raise self._bug(innocent=True)
        if self._late:
            late, self._late = self._late, {}
            self._refused |= {self._offered[i] for i in late}
            raise RecordsRejected(late)
        self._truth.held[self.name] += self._written
        self._truth.times_held[self.name].update(self._written)
        if self._is_suspected:
            self._taken_since.update(self._written)
        self._written = []

    def _look_at_what_is_offered(self) -> None:
        live = {message.number for message, _ in self._truth.in_flight.values()}
        live |= self._truth.last_copies
        for number in [] if self.dead else self._offered:
            if self._truth.times_held[self.name][number] >= self._truth.delivered[number]:
                self._truth.faults.append(f"{self.name} was offered {number} again for nothing")
            if self.name in REQUIRED and number not in live:
                self._truth.faults.append(f"{self.name} was offered {number}, which was abandoned")

    def _linger(self) -> None:
        if self.slow:
            self._strand.park(lambda: True)
        if self.dead:
            raise SinkUnavailable("the process is dead")

    def _down(self) -> SinkUnavailable:
        self._is_suspected = False
        self._alone.clear()
        self._taken_since.clear()
        return SinkUnavailable("down")

    def _bug(self, *, innocent: bool) -> ValueError:
        self._is_suspected = self._truth.unordered = True
        self._truth.bugs[self.name] |= innocent
        if len(self._offered) == 1:
            self._alone.update(self._offered)
        return ValueError("a bug")


class ModelSending:
    """Refusals on their way."""

    def __init__(self, refusals: Sequence[Refusal], time: Time, strand: Strand) -> None:
        self.refusals = refusals
        self.failures: dict[int, Unsent] = {}
        self.done = False
        self._time, self._strand = time, strand

    def wait(self, seconds: float) -> bool:
        until = self._time.now + seconds
        if not self.done and seconds:
            self._strand.park(lambda: self.done or self._time.now >= until)
        return self.done


class Post:
    """The way to the dead-letter queue of one daemon."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self.under_way: list[ModelSending] = []
        self._judged: set[tuple[str, int]] = set()

    def send(self, store: Store, strand: Strand, refusals: Sequence[Refusal]) -> ModelSending:
        for refusal in refusals:
            key = store.name, number_of(refusal.record)
            if key not in self._judged:  # a letter that was not sent is sent again
                self._judge(store, refusal)
                self._judged.add(key)
        sending = ModelSending(refusals, self._truth.time, strand)
        self.under_way.append(sending)
        return sending

    def resolve(self, *, works: bool) -> None:
        """The broker confirms all that is under way, or the attempt fails."""
        under_way, self.under_way = self.under_way, []
        for sending in under_way:
            if works:
                letters = {(r.sink, number_of(r.record)) for r in sending.refusals}
                self._truth.letters |= letters
            else:
                failure = Unsent("no confirm")
                sending.failures = dict.fromkeys(range(len(sending.refusals)), failure)
            sending.done = True

    def _judge(self, store: Store, refusal: Refusal) -> None:
        number, failure = number_of(refusal.record), failure_of(refusal.record)
        assert refusal.sink == store.name
        assert refusal.attempts > 0
        assert refusal.first_failed_at > 0
        if store.has_refused(number) and failure.endswith(f"-{store.name}"):
            return
        if refusal.renew and number in self._truth.overtaken:
            return
        assert store.has_evidence(number), f"{number} is dead-lettered by {store.name} for nothing"
        if not self._truth.bugs[store.name]:
            assert failure == f"poison-{store.name}", f"{number} never failed alone but for others"
