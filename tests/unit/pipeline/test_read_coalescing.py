"""How long deliveries gather before the next read."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from logfan.amqp.binding import QueueStatus
from logfan.amqp.connection import new_loop
from logfan.pipeline.completions import Completions
from logfan.pipeline.consumer import Consumer
from logfan.pipeline.flow_control import (
    GOOD_BYTES,
    GOOD_READ,
    LEAST_ROOM,
    MOST_SECONDS,
    MOST_SECONDS_BEHIND,
    ReadCoalescing,
)
from logfan.telemetry.metrics import ConsumerStats
from support.model_daemon import SETTINGS

ROOM = 1_000_000


def read(pace: ReadCoalescing, rate: float, seconds: float, *, each: int = 10) -> float:
    """The waits of that many seconds of reads that bring `each` messages, summed up."""
    waits, at, gap = 0.0, 100.0, each / rate
    while at < 100.0 + seconds:
        waits += pace.wait(at, each, each * 100, room=ROOM)
        at += gap
    return waits


def behind() -> ReadCoalescing:
    """One that knows of a backlog."""
    pace = ReadCoalescing(100.0)
    pace.most = MOST_SECONDS_BEHIND
    return pace


def rushed(rate: float) -> ReadCoalescing:
    """The same, that has seen so many messages a second, until 101.0."""
    pace = behind()
    pace.wait(101.0, int(rate), 0, room=ROOM)
    return pace


def test_light_traffic_never_waits() -> None:
    assert read(ReadCoalescing(100.0), rate=1_000, seconds=1, each=1) == 0
    assert read(ReadCoalescing(100.0), rate=4_000, seconds=1) == 0


def test_a_burst_of_a_few_messages_does_not_wait() -> None:
    pace = ReadCoalescing(100.0)
    assert [pace.wait(100.0 + n / 100_000, 1, 100, room=ROOM) for n in range(40)] == [0.0] * 40
    assert pace.wait(101.0, 1, 100, room=ROOM) == 0


def test_many_small_reads_wait_once_it_is_known_that_much_comes() -> None:
    fitting = GOOD_BYTES / 100 - 10
    assert read(behind(), rate=100_000, seconds=1) > 0.9 * 10_000 * fitting / 100_000
    assert read(ReadCoalescing(100.0), rate=40_000, seconds=0.01) == 0


def test_it_waits_for_a_good_read_at_the_present_rate() -> None:
    assert rushed(100_000).wait(101.0, GOOD_READ - 300, 100, room=ROOM) == pytest.approx(300e-5)
    assert rushed(100_000).wait(101.0, GOOD_READ - 100, 100, room=ROOM) == pytest.approx(100e-5)


def test_it_never_waits_longer_than_the_most() -> None:
    pace = rushed(6_000)
    assert pace.wait(101.0, 1, 100, room=ROOM) == MOST_SECONDS_BEHIND
    pace.most = MOST_SECONDS
    assert pace.wait(101.0, 1, 100, room=ROOM) == MOST_SECONDS


def test_a_large_read_goes_on_at_once() -> None:
    assert read(ReadCoalescing(100.0), rate=40_000, seconds=1, each=GOOD_READ) == 0


def test_it_waits_for_no_more_bytes_than_the_socket_holds() -> None:
    assert rushed(20_000).wait(101.0, 63, 63 * 1024, room=ROOM) == pytest.approx(1 / 20_000)
    assert rushed(20_000).wait(101.0, 64, GOOD_BYTES, room=ROOM) == 0
    assert rushed(20_000).wait(101.0, 1, 2 * GOOD_BYTES, room=ROOM) == 0


def test_it_waits_for_no_more_than_the_broker_may_send() -> None:
    some = LEAST_ROOM + 20
    assert rushed(40_000).wait(101.0, 10, 100, room=some) == pytest.approx(some / 40_000)


def test_where_hardly_anything_may_come_it_does_not_wait() -> None:
    assert rushed(40_000).wait(101.0, 10, 100, room=LEAST_ROOM) > 0
    for room in (LEAST_ROOM - 1, 0, -5):
        assert rushed(40_000).wait(101.0, 10, 100, room=room) == 0


def test_it_ends_with_the_rush() -> None:
    pace = ReadCoalescing(100.0)
    read(pace, rate=40_000, seconds=1)
    assert pace.wait(105.0, 1, 100, room=ROOM) == 0


def test_each_look_at_the_queue_decides_for_how_long() -> None:
    loop, events = new_loop(), cast(Any, SimpleNamespace(on_fault=None))
    consumer = Consumer(
        settings=SETTINGS, stats=ConsumerStats(), ioloop=loop, workers=[],
        completions=Completions(0, lambda call: call()), events=events,
    )  # fmt: skip
    for waiting, most in ((GOOD_READ, MOST_SECONDS_BEHIND), (3, MOST_SECONDS)):
        consumer.on_queue_status(QueueStatus(messages=waiting))
        assert consumer._dispatcher.flow._coalescing.most == most
    loop.close()
