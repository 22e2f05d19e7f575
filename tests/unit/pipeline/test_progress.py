"""Whether coming back gets anywhere."""

from logfan.amqp.reconnect import Reconnect
from logfan.config.settings import ReconnectSettings
from logfan.pipeline.flow_control import Window
from logfan.pipeline.progress import ENDS, Progress


def test_ends_of_one_kind_without_an_acknowledgement_are_counted() -> None:
    progress = Progress()
    assert [progress.ended("541", acked=0, telling=True) for _ in range(3)] == [1, 2, ENDS]
    assert progress.ended("541", acked=1, telling=True) == 1
    assert progress.ended("lost", acked=1, telling=True) == 1
    assert progress.ended("lost", acked=1, telling=True) == 2


def test_a_connection_that_is_lost_at_rest_tells_nothing() -> None:
    progress = Progress()
    assert [progress.ended("lost", acked=5, telling=False) for _ in range(9)] == [0] * 9


def test_the_prefetch_stays_at_one_until_as_many_have_come_as_may_be_held() -> None:
    window = Window(100, 1 << 20)
    window.limit(1)
    assert window.prefetch == 1
    assert [window.grow(33, 33) for _ in range(3)] == [False] * 3
    assert window.grow(33, 33)
    assert window.prefetch == 2
    window.limit(10)
    assert window.prefetch == 2


def test_who_comes_back_in_vain_waits_longer_each_time() -> None:
    reconnect = Reconnect(ReconnectSettings())
    waits = []
    for number in range(8):
        reconnect.subscribed(number * 100.0)
        reconnect.ended(number * 100.0 + 20.0, vain=True)
        waits.append(reconnect._backoff.next())
    assert waits[-1] > 10
    reconnect.subscribed(900.0)
    reconnect.ended(920.0)
    assert reconnect._backoff.next() <= 0.5
