"""When to try again."""

from logfan.runtime.backoff import Backoff


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(0.5, 5.0, jitter=False)
    assert [backoff.next() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_reset_begins_anew() -> None:
    backoff = Backoff(0.5, 5.0, jitter=False)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next() == 0.5


def test_jitter_stays_between_the_half_and_the_whole() -> None:
    assert Backoff(2.0, 9.0, rng=lambda: 0.0).next() == 1.0
    assert Backoff(2.0, 9.0, rng=lambda: 1.0).next() == 2.0


def test_a_failure_without_end_never_overflows() -> None:
    backoff = Backoff(0.2, 30.0, jitter=False)
    assert [backoff.next() for _ in range(5_000)][-1] == 30.0
