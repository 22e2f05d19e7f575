"""What a sink wants later stands aside: it is acknowledged last, and holds up nothing."""

import logging

import pytest

from support import model
from support.model import REQUIRED, Message, Truth, body_of
from support.model_daemon import PREFETCH, THIRD, Daemon


def make(*troubles: str) -> tuple[Daemon, Truth]:
    """A daemon that has read messages with these troubles."""
    truth = Truth()
    queue = [Message(n, body_of(n, trouble, 24)) for n, trouble in enumerate(troubles)]
    truth.published = len(queue)
    daemon = Daemon(truth, queue)
    daemon.connect()
    return daemon, truth


def go_on(daemon: Daemon, seconds: float, *, letters: bool | None = None) -> None:
    """`letters`: whether they are confirmed; None where the broker does not answer."""
    until = daemon.truth.time.now + seconds
    while daemon.truth.time.now < until:
        daemon.read(10)
        daemon.work()
        if letters is not None:
            daemon.post.resolve(works=letters)
            daemon.work()
        daemon.loop()
        daemon.turn()
        assert not daemon.truth.faults
        daemon.truth.time.now += 0.5


@pytest.fixture
def _for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_TIMES_PUT_OFF", 1_000_000)


@pytest.mark.usefixtures("_for_ever")
@pytest.mark.parametrize("sink", REQUIRED)
def test_all_others_are_written_and_acknowledged_beyond_the_prefetch(sink: str) -> None:
    daemon, truth = make(f"wait-{sink}", *[""] * (4 * PREFETCH))
    go_on(daemon, 20.0)
    assert truth.acked == {*range(1, 4 * PREFETCH + 1)}
    worker = daemon.workers[REQUIRED.index(sink)]
    assert worker.failure == "takes 1 record later: not yet", "an operator sees it"
    assert worker.takes_records
    daemon.kill()


@pytest.mark.usefixtures("_for_ever")
def test_one_alone_in_its_batch_does_not_have_the_next_one_wait() -> None:
    daemon, truth = make("wait-a")
    go_on(daemon, 60.0)
    daemon.queue.append(Message(1, body_of(1, "", 24)))
    truth.published = 2
    go_on(daemon, 1.0)
    assert truth.acked == {1}
    daemon.kill()


@pytest.mark.usefixtures("_for_ever")
def test_where_all_are_wanted_later_the_sink_is_down_until_it_takes_another() -> None:
    daemon, truth = make(*["wait-a"] * (PREFETCH - 1))
    go_on(daemon, 60.0)
    (failure,) = {worker.failure for worker in daemon.workers[:1]}
    assert failure == f"takes {PREFETCH - 1} records later: not yet"
    assert daemon.stores[0]._put_off.keys() == {*range(PREFETCH - 1)}
    daemon.queue.append(Message(PREFETCH - 1, body_of(PREFETCH - 1, "", 24)))
    truth.published += 1
    go_on(daemon, 2.0)
    assert truth.acked == {PREFETCH - 1}
    assert daemon.workers[0].takes_records
    assert len(daemon.workers[0]._recovery.later.held) == PREFETCH - 1
    daemon.kill()


def test_where_all_were_wanted_later_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_TIMES_PUT_OFF", 6)
    daemon, truth = make(*["wait-a"] * (2 * PREFETCH))
    go_on(daemon, 100.0)
    assert truth.held["a"] == [*range(2 * PREFETCH)]
    assert truth.acked == {*range(2 * PREFETCH)}
    daemon.kill()


def test_it_is_offered_again_at_a_growing_pace_and_acknowledged_once_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "_TIMES_PUT_OFF", 8)
    daemon, truth = make("wait-a", *[""] * 10)
    began = truth.time.now
    go_on(daemon, 25.0)  # 0.2, 0.4 … 12.8 s after each other, in steps of 0.5
    assert 0 not in truth.acked
    go_on(daemon, 35.0)
    assert truth.acked == {*range(11)}
    assert daemon.workers[0].failure is None
    assert truth.held["a"][-1] == 0
    assert truth.time.now - began < 61.0
    daemon.kill()


def test_what_is_refused_at_last_and_cannot_be_dead_lettered_stands_aside_as_before() -> None:
    daemon, truth = make("waste-a", *[""] * 10)
    go_on(daemon, 30.0, letters=False)
    assert truth.acked == {*range(1, 11)}, "it is acknowledged without its letter"
    assert daemon.workers[0].failure == "1 refused record cannot be dead-lettered: no confirm"
    go_on(daemon, 60.0, letters=True)
    assert truth.acked == {*range(11)}
    assert truth.letters == {("a", 0)}
    assert daemon.workers[0].is_up
    daemon.kill()


@pytest.mark.usefixtures("_for_ever")
@pytest.mark.parametrize("letters", [True, False])
def test_once_it_is_late_it_is_published_again_or_else_handed_back_alone(letters: bool) -> None:
    daemon, truth = make("wait-a", *[""] * 10)
    go_on(daemon, THIRD)
    assert daemon.channel is not None
    under_way = daemon.post.under_way
    assert len(under_way) == 0, "that was too early"
    go_on(daemon, 2.0)
    assert [one.renew for sending in under_way for one in sending.refusals] == [True]
    go_on(daemon, 2 * THIRD, letters=letters)
    assert daemon.channel.nacks == (0 if letters else 1)
    assert (0 in truth.acked) == letters
    daemon.kill()


@pytest.mark.usefixtures("_for_ever")
def test_what_was_abandoned_meanwhile_is_let_go_of_and_offered_anew() -> None:
    daemon, truth = make("wait-a", *[""] * 3)
    go_on(daemon, 5.0)
    daemon.lose(0, 0, PREFETCH)
    daemon.connect()
    go_on(daemon, 5.0)
    assert daemon.workers[0].held == 1
    assert truth.acked == {1, 2, 3}
    daemon.kill()


@pytest.mark.usefixtures("_for_ever")
def test_a_stop_asks_once_more_and_an_optional_sink_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon, truth = make("wait-optional", "")
    go_on(daemon, 100.0)
    before = daemon.stores[2]._put_off[0]
    with caplog.at_level(logging.WARNING):
        for worker in daemon.workers:
            worker.retry_now()
        daemon.work()
        assert daemon.stores[2]._put_off[0] == before + 1
        daemon.workers[2].stop()
        daemon.work()
    assert daemon.strands[2].over
    assert "sink optional: stopped with 1 messages not written" in caplog.text
    assert truth.acked == {0, 1}
    daemon.kill()


def test_a_sink_that_is_down_meanwhile_is_offered_it_once_it_is_up() -> None:
    daemon, truth = make("wait-a", *[""] * 3)
    daemon.read(10)
    daemon.work()
    daemon.stores[0].state = "down"
    go_on(daemon, 50.0)
    daemon.stores[0].state = "up"
    go_on(daemon, 40.0)
    assert truth.acked == {0, 1, 2, 3}
    daemon.kill()
