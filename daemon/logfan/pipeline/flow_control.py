"""How much is taken from the broker, and how fast: the window, backpressure, coalesced reads.

`Window` bounds what is in flight: messages by the prefetch, bodies by a budget of bytes.
`BackpressureGate` pauses reading for moments before that budget is full. `ReadCoalescing` lets
deliveries gather for milliseconds under load. None of them touches a socket: the gate pauses what
it is given.
"""

from typing import Protocol

_SPARE = 4
"""So many times the present prefetch must fit before it grows: sizes vary."""
HOLD_SECONDS = 2.0
"""Reading pauses for so long at most."""
MOST_SECONDS = 0.010
GOOD_READ = 400
"""A read of so many messages is large enough,"""
GOOD_BYTES = 64 * 1024
"""or one of so many bytes of bodies: much more than that the socket would not hold meanwhile."""
_FAST = 5_000
"""Messages a second from which on it is worth to wait."""
LEAST_ROOM = 100
"""Where fewer may come meanwhile the window is small: it would be empty before the wait is over."""
_LOOK_SECONDS = 0.01


class Window:
    """How much may be in flight: the prefetch to subscribe with, and the budget of bytes."""

    def __init__(self, prefetch: int, max_bytes: int) -> None:
        self._most = prefetch
        self._max_bytes = max_bytes
        self.prefetch = prefetch
        """What to subscribe with next."""
        self._patience = 0
        """So many messages must come before it grows."""

    def has_room(self, held: int, size: int) -> bool:
        """Whether a body of `size` bytes may come to the `held` ones. A single one always may."""
        return not held or held + size <= self._max_bytes

    def has_room_for_all(self, held: int, size: int) -> bool:
        """Whether several bodies of `size` bytes in all may come to the `held` ones."""
        return held + size <= self._max_bytes

    def is_low(self, held: int) -> bool:
        """Whether so little is held that deliveries may begin again."""
        return held * 2 <= self._max_bytes

    def shrink(self, messages: int, size: int) -> None:
        """The budget was full with `messages` of `size` bytes in all: take no more the next time
        than what fits at that size."""
        if messages and size:
            self.prefetch = max(1, min(self._most, self._max_bytes * messages // size))

    def fit(self, size: int) -> None:
        """Messages of `size` bytes are among those that come: take no more than fits of them, until
        all that was on its way has passed. What does not fit is returned, and some queues count
        that."""
        if size:
            self.limit(max(1, self._max_bytes // size))

    def limit(self, most: int) -> None:
        """Take no more than so many at a time, until as many have come as may be held at all."""
        self.prefetch, self._patience = min(self.prefetch, most), self._most

    def grow(self, messages: int, size: int) -> bool:
        """Whether `messages` of `size` bytes in all, received lately, show that the prefetch may
        be larger; then it is."""
        self._patience = max(0, self._patience - messages)
        if self._patience or self.prefetch >= self._most or messages < self.prefetch:
            return False
        if size * self.prefetch * _SPARE > self._max_bytes * messages:
            return False
        self.prefetch = min(self._most, self.prefetch * 2)
        return True


class Reading(Protocol):
    """What can be held: a connection."""

    def hold(self) -> bool:
        """Read nothing until `go_on`; False where that cannot be."""

    def go_on(self) -> None:
        """Read again."""


class BackpressureGate:
    """Pauses the reading of one subscription after the other.

    Where the broker sends faster than the sinks write, the budget of bytes fills. To read on then,
    to unsubscribe and to requeue what does not fit makes the broker send large messages twice. So
    reading pauses shortly before the budget is full, and resumes once half of it is written: what
    is not read waits in the broker. It pauses for `HOLD_SECONDS` at most, as heartbeats and cancels
    wait there, too.
    """

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: the budget."""
        self._most = most_bytes
        self._of: Reading | None = None
        self._since: float | None = None
        self._vain = False

    def look(self, held: int, now: float, reading: Reading | None) -> None:
        """`held` bytes are in flight at `now` (monotonic, in seconds)."""
        if reading is not self._of:
            self._of, self._since, self._vain = reading, None, False
        low = held * 2 <= self._most
        if reading is None:
            return
        if self._since is not None:
            late = now - self._since >= HOLD_SECONDS
            if low or late:
                # A sink that is slow or down is no matter of moments.
                self._since, self._vain = None, late and not low
                reading.go_on()
        elif low:
            self._vain = False
        elif held * 4 >= self._most * 3 and not self._vain and reading.hold():
            self._since = now


class ReadCoalescing:
    """How long deliveries may gather before the next read of the socket.

    Under load a broker sends a little, and a little again. Each read costs the same whatever it
    brings: the turn of the loop, a batch for each sink, a flush, a completion, an acknowledgement.
    On the cores that we share with the broker those costs slow it down, too. So where messages come
    fast the next read waits until enough for a good batch will have come. Light traffic never
    waits.
    """

    def __init__(self, now: float) -> None:
        """`now` is monotonic, in seconds, here and below."""
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
        return min(MOST_SECONDS, wanted / self._rate)
