"""How much is taken from the broker, and when: one state machine, sans-I/O.

`FlowControl.step` turns what happens (a read, a message without room, an acknowledgement, the
second that passed) into what the dispatcher does (pause reading, cancel the consumer, consume
again, hand the window back). `Window` bounds what is in flight: messages by the prefetch, bodies by
a budget of bytes. `ReadCoalescing` lets deliveries gather for milliseconds under load.

There are two ways to take less. Reading pauses for moments, before the budget is full: what is not
read waits in the broker. Where that does not help there is no consumer for a while, on a channel
that stays open: see `Reason`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from logfan.pipeline.in_flight import InFlightTracker

_SPARE = 4
"""So many times the present prefetch must fit before it grows: sizes vary."""
HOLD_SECONDS = 2.0
"""Backpressure pauses reading for so long at most: heartbeats and cancels wait there, too."""
GOOD_READ = 800
"""A read of so many messages is large enough,"""
GOOD_BYTES = 64 * 1024
"""or one of so many bytes of bodies: much more than that the socket would not hold meanwhile."""
MOST_SECONDS, MOST_SECONDS_BEHIND = 0.0015, 0.010
"""So long deliveries gather at most: where they come as they are published, and where so many wait
in the queue that milliseconds are no matter."""
_FAST = 5_000
"""Messages a second from which on it is worth to wait."""
LEAST_ROOM = 100
"""Where fewer may come meanwhile the window is small: it would be empty before the wait is over."""
_LOOK_SECONDS = 0.01
_HOLD_SHARE = 1 / 3
"""Of the broker's acknowledgement timeout: so long a window waits for a sink."""
_LEAST_HOLD_SECONDS = 1.0
ENDS = 3
"""So many ends in a row show that coming back as before leads nowhere."""
_FEW = 10
"""So many messages a sink gets at a time that has never completed a window: enough for one to prove
another bad."""


class Reason(Enum):
    """Why there is no consumer for a while although the channel is open."""

    FULL = "the budget of bytes is full"
    OUTAGE = "a required sink is down for long"
    RESIZE = "to consume with another prefetch"


_TAKES_NOTHING = (Reason.FULL, Reason.OUTAGE)


class _Consumer(Enum):
    """Ours, at the broker."""

    NO_CHANNEL = "before a connection has its consumer, and after its end"
    CONSUMING = "deliveries come, or are asked for"
    CANCELLING = "cancelled; deliveries come until the broker confirms it"
    CANCELLED = "the broker has confirmed it; the channel stays"


# Events


class Signal(Enum):
    """Events without figures."""

    SUBSCRIBED = "the broker has confirmed the consumer"
    CANCELLED = "the broker has confirmed that the consumer is gone"
    CALLED_OFF = "the consumer is still there, and nothing was asked of the broker"
    SETTLED = "less is in flight: acknowledged, or handed back"
    STOP = "no new deliveries from now on"
    CLOSED = "the channel is given up, and nothing is in flight any more"


@dataclass(slots=True)
class ReadEnd:
    """A read of the socket brought so many messages with bodies of `size` bytes."""

    now: float
    """Monotonic, in seconds, here and below."""
    messages: int
    size: int


@dataclass(slots=True)
class TurnedAway:
    """A message with a body of `size` bytes had no room and is returned."""

    size: int


@dataclass(slots=True)
class Tick:
    """A second has passed."""

    now: float
    oldest: float | None
    """When the oldest message was received that some sink has not completed."""
    unready: Sequence[str]
    """The required sinks that take nothing now."""
    received: int
    """Messages since the start, and the bytes of their bodies."""
    received_bytes: int
    acked: int
    """Messages since the start."""


Event = Signal | ReadEnd | TurnedAway | Tick

# Actions


class Do(Enum):
    """Actions without figures."""

    PAUSE_READING = "read nothing until RESUME_READING"
    RESUME_READING = "read again"
    CANCEL = "cancel the consumer, and keep a queue that goes with its last one"
    CALL_OFF = "do not cancel it, where that was not asked of the broker yet; see CALLED_OFF"
    LEAVE = "cancel the consumer for good"
    HAND_BACK = "return to the broker what some sink has not completed"
    DRAINED = "after STOP: nothing comes any more, and nothing is in flight"


@dataclass(frozen=True, slots=True)
class Coalesce:
    """Read nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume again on the same channel."""

    prefetch: int


@dataclass(frozen=True, slots=True)
class Report:
    """Log this, and show it as the state."""

    text: str


Action = Do | Coalesce | Consume | Report
Actions = tuple[Action, ...]


class FlowControl:
    """Decides what is read, when there is a consumer, and with which prefetch."""

    def __init__(
        self,
        in_flight: InFlightTracker,
        *,
        prefetch: int,
        max_bytes: int,
        ack_timeout: float,
        now: float,
    ) -> None:
        """`max_bytes`: the budget of bodies. `ack_timeout`: how long the broker waits for an
        acknowledgement, in seconds."""
        self._in_flight = in_flight
        self._max_bytes = max_bytes
        self.window = Window(prefetch, max_bytes)
        """Its `prefetch` is what to consume with."""
        self.ack_timeout = ack_timeout
        self.hold_seconds = ack_timeout * _HOLD_SHARE
        """So long a window waits for a sink before it is handed back."""
        self._coalescing = ReadCoalescing(now)
        self._consumer = _Consumer.NO_CHANNEL
        self._reason: Reason | None = None
        self._stopping = False
        self._paused_at: float | None = None
        """Since when backpressure pauses reading."""
        self._pause_failed = False
        """It did so for as long as it may, and half of the budget was not written."""
        self._turned_away_size = 0
        """The size of the largest message that was turned away in the pause, or in the last one."""
        self._short = False
        """The consumer has less than the prefetch, as messages were in flight when it came."""
        self._waiting: int | None = None
        """How many wait in the queue, when last seen."""
        self._received_before = (0, 0)
        self._acked_before = (0, 0)
        """At the tick before the last one, and at the last one."""
        self._ends = 0
        self._last_end: tuple[object, int] = None, 0
        """Its cause, and what was acknowledged until then."""

    def has_room(self, size: int, messages: int = 1, *, last_delivery: bool = False) -> bool:
        """Whether messages with bodies of `size` bytes in all may be taken in. `last_delivery`: the
        queue may drop it once it is returned, so it is kept whatever the room."""
        if last_delivery or self._reason in _TAKES_NOTHING:
            return last_delivery
        fits = self._in_flight.size + size <= self._max_bytes
        return fits or (messages == 1 and self.window.has_room(self._held(), size))

    @property
    def is_full(self) -> bool:
        """Whether nothing more comes before something of what is in flight is written."""
        waits = self._stopping or self._reason is not None or self._paused_at is not None
        return waits or self._in_flight.messages >= self.window.prefetch

    def note_timeout(self, seconds: float) -> bool:
        """The broker waits no longer than this for an acknowledgement. True where that is news."""
        hold = max(seconds * _HOLD_SHARE, _LEAST_HOLD_SECONDS)
        if hold >= self.hold_seconds:
            return False
        self.hold_seconds, self.ack_timeout = hold, hold / _HOLD_SHARE
        return True

    def note_waiting(self, messages: int | None) -> None:
        """So many wait in the queue, when last seen; None where that is not known."""
        self._waiting = messages
        is_behind = messages is not None and messages >= GOOD_READ
        self._coalescing.most = MOST_SECONDS_BEHIND if is_behind else MOST_SECONDS

    def note_end(self, cause: object, *, undeliverable: bool = False) -> int:
        """The subscription is about to end for this cause. Returns how often that was so with
        nothing acknowledged in between. What stands before the cause is written again each time: so
        after `ENDS` the next one gets one message at a time. An end counts where messages are held,
        but for those that wait for their dead letters, and where the cause is a message that the
        broker cannot deliver."""
        held = self._in_flight.messages > self._in_flight.aside_messages
        if self._count_end(cause, counts=undeliverable or held) >= ENDS:
            self.window.limit(1)
        return self._ends

    def _count_end(self, cause: object, *, counts: bool) -> int:
        # What was acknowledged just now may not have reached the broker.
        end = cause, self._acked_before[0]
        if end != self._last_end:
            self._ends, self._last_end = 0, end
        self._ends += counts
        return self._ends

    def step(self, event: Event) -> Actions:
        """What to do now that this has happened, in this order."""
        match event:
            case ReadEnd():
                return self._on_read_end(event)
            case Signal.SETTLED:
                return self._on_settled()
            case TurnedAway(size):
                return self._on_turned_away(size)
            case Tick():
                return self._on_tick(event)
            case Signal.SUBSCRIBED:
                return self._on_subscribed()
            case Signal.CANCELLED:
                return self._on_cancelled()
            case Signal.CALLED_OFF:
                return self._on_called_off()
            case Signal.STOP:
                return self._on_stop()
            case Signal.CLOSED:
                return self._on_closed()

    # Reading

    def _on_read_end(self, event: ReadEnd) -> Actions:
        """Where the broker sends faster than the sinks write, the budget fills. To read on then, to
        cancel and to return what does not fit makes the broker send large messages twice. So
        reading pauses shortly before the budget is full, until half of it is written; once only
        where that takes too long: a sink that is slow or down is no matter of moments."""
        in_flight = self._in_flight
        if self._stopping:
            return ()
        if (in_flight.size - in_flight.aside_size) * 4 >= self._max_bytes * 3 and not (
            self._pause_failed
            or self._paused_at is not None
            or self._reason is not None
            or self._consumer is not _Consumer.CONSUMING
        ):
            self._paused_at = event.now
            return (Do.PAUSE_READING,)
        # Half of the window may gather; the other half keeps the broker and the sinks at work.
        room = self.window.prefetch // 2 - in_flight.messages
        seconds = self._coalescing.wait(event.now, event.messages, event.size, room=room)
        return (Coalesce(seconds),) if seconds else ()

    @property
    def _is_low(self) -> bool:
        """Whether half of the budget is free, but for what waits for its dead letter."""
        return (self._in_flight.size - self._in_flight.aside_size) * 2 <= self._max_bytes

    def _resume_reading(self) -> Actions:
        if self._paused_at is None:
            return ()
        self._paused_at = None
        return (Do.RESUME_READING,)

    # The consumer

    def _on_subscribed(self) -> Actions:
        if self._consumer is _Consumer.NO_CHANNEL:
            self._consumer = _Consumer.CONSUMING
            if self._stopping:
                return self._cancel(Do.LEAVE)
        return ()

    def _on_turned_away(self, size: int) -> Actions:
        actions: Actions = ()
        if self._reason not in _TAKES_NOTHING:
            messages, held = self._in_flight.messages, self._in_flight.size
            self.window.shrink(messages + 1, held + size)
            self._turned_away_size = 0
            actions = self._pause(
                Reason.FULL,
                f"in flight are {messages:,} messages of {held:,} bytes, as much as "
                f"rabbitmq.max_in_flight_bytes allows beside one of {size:,}; unsubscribed until "
                "half of it is written and that one fits",
            )
        if size > self._turned_away_size:
            self._turned_away_size = size
            self.window.fit(size)
        return actions

    def _on_tick(self, event: Tick) -> Actions:
        self._acked_before = self._acked_before[1], event.acked
        held_for = 0.0 if event.oldest is None else event.now - event.oldest
        reading: Actions = ()
        if self._paused_at is not None and event.now - self._paused_at >= HOLD_SECONDS:
            self._pause_failed, reading = not self._is_low, self._resume_reading()
        if held_for > self.hold_seconds:
            return reading + self._on_overdue(held_for, event.unready)
        if self._stopping:
            return reading + self._call_off()
        if self._reason is not None:
            return reading + self._consume_again(ready=not event.unready)
        if self._consumer is _Consumer.CONSUMING and self._is_to_resize(event):
            return reading + self._pause(Reason.RESIZE)
        return reading

    def _on_overdue(self, seconds: float, unready: Sequence[str]) -> Actions:
        """A required sink completes nothing: give the window back before the broker takes it."""
        if self._stopping or self._consumer is _Consumer.NO_CHANNEL:
            return ()
        before, names = self._reason, ", ".join(unready) or "a required sink"
        actions = self._pause(
            Reason.OUTAGE,
            f"sink {names} has held messages for {seconds:.0f} s; unsubscribed until it is up",
        )
        if before is Reason.OUTAGE:
            actions = ()
        return actions + self._hand_back() if self._consumer is _Consumer.CANCELLED else actions

    def _pause(self, reason: Reason, text: str = "") -> Actions:
        self._reason = reason
        return (*((Report(text),) if text else ()), *self._cancel())

    def _cancel(self, how: Do = Do.CANCEL) -> Actions:
        if self._consumer is not _Consumer.CONSUMING:
            return ()
        self._consumer = _Consumer.CANCELLING
        return (*self._resume_reading(), how)

    def _on_cancelled(self) -> Actions:
        self._consumer = _Consumer.CANCELLED
        if self._reason is Reason.OUTAGE:
            return self._hand_back()
        return self._consume_again(ready=False) + self._drained()

    def _call_off(self) -> Actions:
        """The cancel, where a pause is over before it began: another consumer is waited for, which
        the broker refuses."""
        return (Do.CALL_OFF,) if self._consumer is _Consumer.CANCELLING else ()

    def _on_called_off(self) -> Actions:
        self._consumer, self._reason = _Consumer.CONSUMING, None
        self._short = False  # else it would be tried again each second
        return self._cancel(Do.LEAVE) if self._stopping else ()

    def _hand_back(self) -> Actions:
        held = self._in_flight.messages > self._in_flight.aside_messages
        if held and self._count_end(Reason.OUTAGE, counts=True) >= ENDS:
            self.window.limit(_FEW)
        return (Do.HAND_BACK,)

    def _on_settled(self) -> Actions:
        actions: Actions = ()
        if (self._pause_failed or self._paused_at is not None) and self._is_low:
            self._pause_failed, actions = False, self._resume_reading()
        if self._reason is not None:
            actions += self._consume_again(ready=False)
        return actions + self._drained() if self._stopping else actions

    def _consume_again(self, *, ready: bool) -> Actions:
        """Where the reason of a pause is gone. `ready`: whether all required sinks are known to
        take records."""
        if self._stopping or not self._is_over(ready):
            return ()
        if self._consumer is not _Consumer.CANCELLED:
            return self._call_off()
        # What is in flight does not count against the prefetch of a consumer that comes later.
        held = self._in_flight.messages
        prefetch = self.window.prefetch - held
        if prefetch <= 0:
            if not self._passes_by:
                return ()
            prefetch = 1
        self._reason, self._short = None, held > 0
        self._consumer = _Consumer.CONSUMING
        return (Consume(prefetch),)

    @property
    def _passes_by(self) -> bool:
        """Whether one more may come beside what waits for its dead letter, which is all there is
        and as much as a prefetch that was cut allows: else nothing would come as long as it
        waits."""
        in_flight = self._in_flight
        is_aside = in_flight.messages == in_flight.aside_messages
        return is_aside and in_flight.messages < self.window.most

    def _is_over(self, ready: bool) -> bool:
        if self._reason is Reason.FULL:
            held = self._held()
            # Else what was turned away would be again and again, which some queues count.
            return self.window.is_low(held) and self.window.has_room(held, self._turned_away_size)
        if self._reason is Reason.RESIZE:
            return self._in_flight.messages == self._in_flight.aside_messages
        return ready

    def _held(self) -> int:
        """Bytes that are held; none where only what waits for its dead letter is, as a message as
        large as the budget would wait for that."""
        in_flight = self._in_flight
        return in_flight.size if in_flight.messages > in_flight.aside_messages else 0

    def _is_to_resize(self, event: Tick) -> bool:
        """A prefetch that was cut for large messages grows when they are small."""
        messages, size = self._received_before
        self._received_before = event.received, event.received_bytes
        grows = self.window.grow(event.received - messages, event.received_bytes - size)
        aside = self._in_flight.aside_messages
        if aside >= self.window.prefetch and self._passes_by and event.received == messages:
            return self._waiting != 0
        return grows or (self._short and not aside)

    # The end

    def _on_stop(self) -> Actions:
        self._stopping = True
        leave = self._call_off() or self._cancel(Do.LEAVE)
        return (*self._resume_reading(), *leave, *self._drained())

    def _on_closed(self) -> Actions:
        self._consumer, self._reason = _Consumer.NO_CHANNEL, None
        self._short = self._pause_failed = False
        return (*self._resume_reading(), *self._drained())

    def _drained(self) -> Actions:
        is_over = self._consumer in (_Consumer.NO_CHANNEL, _Consumer.CANCELLED)
        is_drained = self._stopping and is_over and not self._in_flight.messages
        return (Do.DRAINED,) if is_drained else ()


class Window:
    """How much may be in flight: the prefetch to subscribe with, and the budget of bytes."""

    def __init__(self, prefetch: int, max_bytes: int) -> None:
        self.most = prefetch
        """It is never more."""
        self._max_bytes = max_bytes
        self.prefetch = prefetch
        """What to subscribe with next."""
        self._limited_for = 0
        """So many messages must come before it grows."""

    def has_room(self, held: int, size: int) -> bool:
        """Whether a body of `size` bytes may come to the `held` ones. A single one always may."""
        return not held or held + size <= self._max_bytes

    def is_low(self, held: int) -> bool:
        """Whether so little is held that deliveries may begin again."""
        return held * 2 <= self._max_bytes

    def shrink(self, messages: int, size: int) -> None:
        """The budget was full with `messages` of `size` bytes in all: take no more the next time
        than what fits at that size."""
        if messages and size:
            self.prefetch = max(1, min(self.most, self._max_bytes * messages // size))

    def fit(self, size: int) -> None:
        """Messages of `size` bytes are among those that come: take no more than fits of them, until
        all that was on its way has passed. What does not fit is returned, and some queues count
        that."""
        if size:
            self.limit(max(1, self._max_bytes // size))

    def limit(self, most: int) -> None:
        """Take no more than so many at a time, until as many have come as may be held at all."""
        self.prefetch, self._limited_for = min(self.prefetch, most), self.most

    def grow(self, messages: int, size: int) -> bool:
        """Whether `messages` of `size` bytes in all, received lately, show that the prefetch may
        be larger; then it is."""
        self._limited_for = max(0, self._limited_for - messages)
        if self._limited_for or self.prefetch >= self.most or messages < self.prefetch:
            return False
        if size * self.prefetch * _SPARE > self._max_bytes * messages:
            return False
        self.prefetch = min(self.most, self.prefetch * 2)
        return True


class ReadCoalescing:
    """How long deliveries may gather before the next read of the socket.

    Each read costs the same, whatever it brings. Where messages come fast, the next one waits until
    enough for a good batch will have come. Light traffic never waits.
    """

    def __init__(self, now: float) -> None:
        """`now` is monotonic, in seconds, here and below."""
        self.most = MOST_SECONDS
        """So many seconds to wait at most."""
        self._since = now
        self._count = 0
        self._rate = 0.0

    def wait(self, now: float, messages: int, size: int, *, room: int) -> float:
        """How many seconds to wait after a read that brought so many messages of `size` bytes in
        all. `room`: how many more may come meanwhile, so that the broker never stands still."""
        self._count += messages
        passed = now - self._since
        if passed >= _LOOK_SECONDS:
            self._rate = self._count / passed
            self._since, self._count = now, 0
        fitting = (GOOD_BYTES - size) * messages / max(1, size)
        wanted = min(GOOD_READ - messages, fitting, room)
        if self._rate < _FAST or wanted <= 0 or room < LEAST_ROOM:
            return 0.0
        return min(self.most, wanted / self._rate)
