"""Whether what a sink wants later is about those records, or the sink is down."""

from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry
from logfan.pipeline.put_off import PutOff
from logfan.record import Properties, Record


def entries(count: int) -> list[Entry]:
    records = tuple(Record(b"x", "logs", "", False, 0.0, Properties()) for _ in range(count))
    batch = Batch(records, count, count, 0.0, set())
    return [Entry(record, batch, place) for place, record in enumerate(records)]


def test_one_record_shows_nothing_and_a_second_one_shows_a_sink_that_is_down() -> None:
    put_off = PutOff()
    seen = []
    for _ in range(2):
        put_off.add(entries(1), taken=7)
        seen.append(put_off.is_down)
    assert seen == [False, True]
    assert not put_off.is_theirs(7)


def test_several_that_came_together_show_it_at_once() -> None:
    put_off = PutOff()
    put_off.add(entries(2), taken=0)
    assert put_off.is_down


def test_one_that_is_taken_shows_that_the_reason_is_theirs() -> None:
    put_off = PutOff()
    put_off.add(entries(3), taken=7)
    assert put_off.is_theirs(8)
    assert len(put_off.take()) == 3
    assert not put_off.is_theirs(9), "none is left"
    again = PutOff()
    again.add(entries(1), taken=7)
    again.add(entries(1), taken=9)
    assert not again.is_down, "it took others since"


def test_it_is_remembered_that_nothing_was_taken_where_none_is_left_meanwhile() -> None:
    put_off = PutOff()
    put_off.add(entries(1), taken=7)
    put_off.take()
    put_off.add(entries(1), taken=7)
    assert put_off.is_down


def test_others_are_wanted_at_once_and_of_a_sink_that_is_down_not_before_its_pace() -> None:
    put_off = PutOff()
    assert not put_off.wants_others(0.0), "nothing was put off"
    put_off.add(entries(1), taken=0)
    put_off.wait(10.0, pace=30.0)
    assert put_off.wants_others(10.0)
    put_off.add(entries(1), taken=0)
    put_off.wait(10.0, pace=0.0)
    assert (put_off.wants_others(10.9), put_off.wants_others(11.0)) == (False, True)
    put_off.wait(10.0, pace=30.0)
    assert (put_off.wants_others(39.9), put_off.wants_others(40.0)) == (False, True)


def test_what_the_broker_delivers_again_is_let_go_of() -> None:
    put_off = PutOff()
    gone, kept = entries(2), entries(1)
    put_off.add([*gone, *kept], taken=0)
    gone[0].batch.abandoned = True
    assert put_off.take_abandoned() == gone
    assert put_off.take() == kept
