"""The pace of the one way back to the broker; what ends it before the first subscription.
Sans-I/O."""

from dataclasses import dataclass
from typing import Literal, Self

from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.config.settings import ReconnectSettings
from logfan.runtime.backoff import Backoff

_UNREACHABLE_MAX_SECONDS = 2.0
"""A refused TCP connect costs nothing: ask often, so that we are back soon."""
_STABLE_SECONDS = 3.0
"""A subscription that lived so long was good: the next failure starts with a short back-off. More
would hold up who loses one node of a cluster after the other."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Which failures before the first subscription end the consumer, rather than being retried."""

    refusal: bool = True
    """Wait for a declaration to be accepted that was refused for good: only where it worked once
    before, with this very config."""
    absence: bool = True
    """Wait for a broker that does not answer, or refuses the login."""

    @classmethod
    def at_start(cls, startup: Literal["retry", "fail"]) -> Self:
        """As `rabbitmq.startup` has it."""
        return cls(refusal=False, absence=startup == "retry")

    def is_over(self, failure: ConnectionFailure, attempts: int, ways: int) -> bool:
        """After so many attempts, with so many URLs to try in turn."""
        if failure.at_declaration:
            return not self.refusal
        return not self.absence and attempts >= ways


class Reconnect:
    """The pace of the attempts. Times are monotonic seconds."""

    def __init__(self, settings: ReconnectSettings) -> None:
        self._backoff = Backoff(settings.initial, settings.max)
        # Apart, so that a long absence does not slow the return once the broker answers again.
        self._unreachable = Backoff(settings.initial, min(settings.max, _UNREACHABLE_MAX_SECONDS))
        self._subscribed_at: float | None = None

    def connected(self) -> None:
        """The broker answers."""
        self._unreachable.reset()

    def subscribed(self, now: float) -> None:
        """It works."""
        if self._subscribed_at is None:
            self._subscribed_at = now

    def ended(self, now: float, *, vain: bool = False) -> None:
        """The subscription, or the attempt at one, is over. `vain`: it ended as the one before, and
        nothing was acknowledged on either."""
        lived = 0.0 if self._subscribed_at is None else now - self._subscribed_at
        if lived >= _STABLE_SECONDS and not vain:
            self._backoff.reset()
        self._subscribed_at = None

    def delay(self, failure: ConnectionFailure) -> float:
        """Seconds until the next attempt."""
        unreachable = failure.kind is Cause.UNREACHABLE
        return (self._unreachable if unreachable else self._backoff).next()
