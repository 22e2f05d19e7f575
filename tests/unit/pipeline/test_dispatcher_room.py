"""What has no room is turned away, but for what its queue may drop once it is returned."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from pika import spec

from support.model import BUDGET, Message, Truth, body_of
from support.model_daemon import Daemon

LIMIT = 3


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """One that holds most of its budget, of a queue that drops after three returns."""
    truth = Truth()
    daemon = Daemon(truth, [Message(0, body_of(0, "", BUDGET - 50))])
    daemon.connect()
    daemon.read(2)
    daemon.read(1)
    daemon.dispatcher._delivery_limit = LIMIT
    assert daemon.stats.in_flight_bytes == BUDGET - 50
    yield daemon
    daemon.kill()


def deliver(daemon: Daemon, count: int) -> None:
    """Another one as large, which was delivered so often before."""
    channel = daemon.channel
    assert channel is not None
    message = Message(1, body_of(1, "", BUDGET - 50), redelivered=True)
    channel.unacked[2] = message, 1
    method = spec.Basic.Deliver("tag", channel._note(message), True, "logs", "")
    properties = spec.BasicProperties(headers={"x-delivery-count": count})
    daemon.dispatcher.deliver(cast(Any, channel), method, properties, message.body)


def test_what_has_a_life_to_spare_is_turned_away(daemon: Daemon) -> None:
    deliver(daemon, LIMIT - 2)
    assert daemon.stats.requeued == 1


def test_a_last_delivery_is_kept_whatever_the_room(daemon: Daemon) -> None:
    deliver(daemon, LIMIT - 1)
    daemon.dispatcher.on_read_end()
    assert daemon.stats.requeued == 0
    assert daemon.dispatcher._tracker.messages == 2
    assert daemon.dispatcher._tracker._open[-1].rejection is not None


def test_after_a_pause_for_want_of_room_it_waits_until_that_one_fits(daemon: Daemon) -> None:
    """Half of the budget would be free long before."""
    deliver(daemon, 1)
    flow = daemon.dispatcher.flow
    assert not flow.window.is_low(daemon.dispatcher._tracker.size)
    assert flow._turned_away_size == BUDGET - 50
    assert flow.window.prefetch == 1
    assert not flow.window.has_room(BUDGET // 4, flow._turned_away_size)


def test_one_window_of_a_queue_that_is_gone_is_held_beside_the_next(daemon: Daemon) -> None:
    dispatcher, tracker = daemon.dispatcher, daemon.dispatcher._tracker
    windows, left = [], []
    for number in (1, 2):
        windows.append(tracker._open[0])
        left.append(dispatcher.end(requeue=False, gone="the queue is gone"))
        assert daemon.channel is not None
        daemon.channel.close()
        daemon.channel = None
        daemon.connect()
        daemon.queue.append(Message(number, body_of(number, "", 12)))
        daemon.read(2)
        daemon.read(1)
    assert [one.abandoned for one in windows] == [False, True]
    assert left == [0, 1], "a stop counts just what is lost"
