"""When to try again: exponential, capped, jittered. Sans-I/O; the caller waits."""

import random
from collections.abc import Callable


class Backoff:
    """The delays between attempts, in seconds: doubling from `initial` up to `maximum`."""

    def __init__(
        self,
        initial: float,
        maximum: float,
        *,
        jitter: bool = True,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """With `jitter` each delay lies between its half and its whole, so that many daemons
        that lost one broker do not come back in step."""
        self._initial = initial
        self._maximum = maximum
        self._jitter = jitter
        self._rng = rng
        self.attempts = 0
        """Failures since the last `reset`."""

    def next(self) -> float:
        """Count a failure and give the delay before the next attempt."""
        # 2 ** 64 times any delay is past every maximum; without a cap the float overflows.
        whole = min(self._maximum, self._initial * 2.0 ** min(self.attempts, 64))
        self.attempts += 1
        return whole * (0.5 + 0.5 * self._rng()) if self._jitter else whole

    def without_jitter(self) -> "Backoff":
        """Another one with the same delays, whole, from the first on."""
        return Backoff(self._initial, self._maximum, jitter=False)

    def reset(self) -> None:
        """It worked: the next failure waits `initial` again."""
        self.attempts = 0
