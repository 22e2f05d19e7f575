"""Whether the broker delivers what waits."""

from logfan.pipeline.standstill import STANDSTILL_SECONDS, Standstill


def seconds_until_anew(
    standstill: Standstill, begin: float, *, waiting: int = 1, received: int = 0
) -> float | None:
    """At a look each 5 s, for two hours."""
    for passed in range(0, 7200, 5):
        if standstill.look(begin + passed, waiting=waiting, received=received) is not None:
            return passed
    return None


def test_messages_that_wait_and_never_come_ask_for_another_consumer() -> None:
    assert seconds_until_anew(Standstill(), 100.0) == STANDSTILL_SECONDS


def test_an_empty_queue_is_a_quiet_one() -> None:
    assert seconds_until_anew(Standstill(), 100.0, waiting=0) is None


def test_where_another_consumer_changes_nothing_the_next_one_is_made_later() -> None:
    standstill, begin, each = Standstill(), 0.0, []
    for _ in range(9):
        passed = seconds_until_anew(standstill, begin)
        assert passed is not None
        each.append(passed)
        begin += passed + 5
    assert each == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_what_comes_begins_it_anew() -> None:
    standstill = Standstill()
    assert seconds_until_anew(standstill, 0.0) == STANDSTILL_SECONDS
    assert seconds_until_anew(standstill, 100.0, received=1) == STANDSTILL_SECONDS
    for received in range(1_000):
        assert standstill.look(200.0 + 5 * received, waiting=9, received=received) is None


def test_a_queue_that_was_empty_or_a_pause_between_two_looks_begins_it_anew() -> None:
    standstill = Standstill()
    assert standstill.look(0.0, waiting=1, received=0) is None
    assert standstill.look(20.0, waiting=0, received=0) is None
    assert standstill.look(40.0, waiting=1, received=0) is None
    standstill.over()
    assert standstill.look(75.0, waiting=1, received=0) is None
    assert standstill.look(105.0, waiting=1, received=0) == STANDSTILL_SECONDS
