"""How long deliveries may gather before the next read of the socket. Pure.

Under load a broker sends a little, and a little again. Each read costs the same whatever it brings:
the turn of the loop, a batch for each sink, a flush, a settlement, an acknowledgement. On the cores
that we share with the broker those costs slow it down, too. So where messages come fast the next
read waits until enough for a good batch will have come. Light traffic never waits.
"""

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


class ReadCoalescing:
    """Counts what comes, and says how long to wait."""

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
