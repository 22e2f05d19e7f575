"""The retry policy of the consumer: the delays, and what ends it: failures before its first
subscription, and those that are final at any time. Sans-I/O."""

from dataclasses import dataclass
from typing import Literal, Self

from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.config.settings import ReconnectSettings
from logfan.runtime.backoff import Backoff

_UNREACHABLE_MAX_SECONDS = 2.0
"""A refused TCP connect costs nothing: ask often, so that we are back soon."""
_STABLE_SECONDS = 3.0
"""A subscription that lived so long resets the back-off. A larger value would
delay a client that loses one node of a cluster after the other."""


@dataclass(frozen=True, slots=True)
class StartupPolicy:
    """Which failures before the first subscription end the consumer, rather than being retried."""

    retry_refused: bool = True
    """Retry a declaration that was refused for good: only where it worked once before, with this
    very config."""
    retry_absent: bool = True
    """Retry where the broker does not answer, or refuses the login."""

    @classmethod
    def at_start(cls, startup: Literal["retry", "fail"]) -> Self:
        """As `rabbitmq.startup` has it."""
        return cls(retry_refused=False, retry_absent=startup == "retry")

    def gives_up(self, failure: ConnectionFailure, attempts: int, brokers: int) -> bool:
        """Whether to end after so many attempts, with so many brokers to try in turn."""
        if failure.at_declaration:
            return not self.retry_refused
        return not self.retry_absent and attempts >= brokers


class Reconnect:
    """When the consumer tries again, and whether. Times are monotonic seconds."""

    def __init__(self, settings: ReconnectSettings, startup: StartupPolicy) -> None:
        """`startup`: what ends the consumer before it was subscribed once."""
        self._startup = startup
        self._backoff = Backoff(settings.initial, settings.max)
        # Apart, so that a long absence does not slow the return once the broker answers again.
        most = min(settings.max, max(settings.initial, _UNREACHABLE_MAX_SECONDS))
        self._unreachable = Backoff(settings.initial, most)
        self._subscribed_at: float | None = None
        self._has_worked = False
        self._failures = 0

    def connected(self) -> None:
        """The broker answers."""
        self._unreachable.reset()

    def subscribed(self, now: float) -> None:
        """The consumer is subscribed; again, after a pause."""
        self._has_worked = True
        if self._subscribed_at is None:
            self._subscribed_at = now

    def delay(
        self, failure: ConnectionFailure, now: float, *, brokers: int, no_progress: bool = False
    ) -> float | None:
        """The subscription, or the attempt at one, has failed: seconds until the next attempt, at
        one of so many brokers; None where there is none. `no_progress`: it ended as the one before,
        and nothing was acknowledged on either."""
        self._failures += 1
        since, self._subscribed_at = self._subscribed_at, None
        if since is not None and now - since >= _STABLE_SECONDS and not no_progress:
            self._backoff.reset()
        may_end = failure.is_final or not self._has_worked
        if may_end and self._startup.gives_up(failure, self._failures, brokers):
            return None
        unreachable = failure.cause is Cause.UNREACHABLE
        return (self._unreachable if unreachable else self._backoff).next()
