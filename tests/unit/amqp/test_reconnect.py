"""The pace of the way back."""

import pytest

from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.reconnect import Reconnect, StartupPolicy
from logfan.config.settings import ReconnectSettings

LOST, REFUSED, UNREACHABLE = (
    ConnectionFailure(cause, "why") for cause in (Cause.LOST, Cause.REFUSED, Cause.UNREACHABLE)
)


class Way:
    """Attempts one after the other, each after the wait that was asked for."""

    def __init__(self, **settings: str) -> None:
        self.now = 0.0
        policy = StartupPolicy()
        self._reconnect = Reconnect(ReconnectSettings.model_validate(settings), policy)

    def lives(self, seconds: float) -> float:
        """A subscription for so long, then it is lost. The wait that follows."""
        self._reconnect.connected()
        self._reconnect.subscribed(self.now)
        self.now += seconds
        return self.fails(LOST)

    def fails(self, failure: ConnectionFailure) -> float:
        """An attempt, or what came of it, is over. The wait that follows."""
        wait = self._reconnect.delay(failure, self.now, brokers=1)
        assert wait is not None
        self.now += wait
        return wait


@pytest.mark.parametrize("seconds", [3.1, 6.0, 3600.0])
def test_after_a_subscription_that_lived_for_a_while_the_wait_is_short(seconds: float) -> None:
    """As where one node of a cluster after the other goes away."""
    way = Way()
    assert max(way.lives(seconds) for _ in range(50)) <= 0.5


@pytest.mark.parametrize("seconds", [0.1, 2.9])
def test_one_that_is_soon_lost_waits_longer_and_longer_up_to_the_maximum(seconds: float) -> None:
    way = Way()
    waits = [way.lives(seconds) for _ in range(12)]
    assert waits[0] <= 0.5
    assert waits[3] > 1.0
    assert all(15.0 <= wait <= 30.0 for wait in waits[7:])
    way.lives(3.1)
    assert way.lives(0.1) <= 1.0


def test_what_is_refused_waits_longer_and_longer() -> None:
    way = Way()
    assert [way.fails(REFUSED) for _ in range(10)][-1] >= 15.0


def test_an_address_where_nobody_is_costs_two_seconds_at_most_and_slows_nothing_else() -> None:
    way = Way()
    assert max(way.fails(UNREACHABLE) for _ in range(50)) <= 2.0
    assert way.lives(0.1) <= 0.5


def test_an_address_where_nobody_is_waits_for_initial_where_that_is_more() -> None:
    way = Way(initial="5s", max="60s")
    assert all(2.5 <= way.fails(UNREACHABLE) <= 5.0 for _ in range(20))
