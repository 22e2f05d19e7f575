"""How long deliveries may gather before the next read of the socket. Pure.

Under load a broker sends a little, and a little again. Each read costs the same whatever it brings:
the turn of the loop, a batch for each sink, a settlement, an acknowledgement. On the cores that we
share with the broker those costs slow it down, too. So where messages come fast and a read brought
few, the next one waits a moment. Light traffic never waits.
"""

WAIT_SECONDS = 0.002
_FAST = 5_000
"""Messages a second from which on it is worth to wait."""
_FULL_READ = 200
"""A read of so many messages is large enough."""
_LOOK_SECONDS = 0.01


class Pace:
    """Counts what comes, and says how long to wait."""

    def __init__(self, now: float) -> None:
        """`now` is monotonic, in seconds, here and below."""
        self._since = now
        self._count = 0
        self._fast = False

    def wait(self, now: float, messages: int, *, roomy: bool) -> float:
        """How many seconds to wait after a read that brought so many messages. `roomy`: whether
        the broker may send on while we do; else it waits for an acknowledgement of ours."""
        self._count += messages
        passed = now - self._since
        if passed >= _LOOK_SECONDS:
            self._fast = self._count >= _FAST * passed
            self._since, self._count = now, 0
        return WAIT_SECONDS if self._fast and roomy and messages < _FULL_READ else 0.0
