"""Whether coming back gets anywhere."""

from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.reconnect import Reconnect, StartupPolicy
from logfan.config.settings import ReconnectSettings
from logfan.pipeline.flow_control import ENDS, Consume, Do, FlowControl, Signal, Tick, Window
from logfan.pipeline.in_flight import InFlightTracker
from logfan.record import Properties, Record


def flow_of(messages: int) -> FlowControl:
    """`messages`: so many are held."""
    held = InFlightTracker(1)
    if messages:
        held.open([Record(b"", "", "", False, 0.0, Properties())] * messages, messages, 0, 0.0)
    return FlowControl(held, prefetch=100, max_bytes=1 << 20, ack_timeout=90.0, now=0.0)


def acknowledged(flow: FlowControl, acked: int) -> FlowControl:
    """So many, for longer than a second."""
    for now in (1.0, 2.0):
        flow.step(Tick(now, None, [], acked, 0, acked))
    return flow


def test_ends_of_one_kind_without_an_acknowledgement_are_counted() -> None:
    flow = flow_of(1)
    assert [flow.note_end("541") for _ in range(2)] == [1, 2]
    assert flow.window.prefetch == 100
    assert flow.note_end("541") == ENDS
    assert flow.window.prefetch == 1, "what stands before the cause is written once"
    assert acknowledged(flow, 1).note_end("541") == 1
    assert flow.note_end("lost") == 1
    assert flow.note_end("lost") == 2


def test_what_was_acknowledged_within_the_last_second_does_not_count() -> None:
    flow = flow_of(1)
    assert flow.note_end("541") == 1
    flow.step(Tick(1.0, None, [], 1, 0, 1))
    assert flow.note_end("541") == 2


def test_a_connection_that_is_lost_at_rest_shows_nothing() -> None:
    flow = flow_of(0)
    assert [flow.note_end("lost") for _ in range(9)] == [0] * 9
    assert flow.note_end("541", undeliverable=True) == 1


def test_what_waits_for_its_dead_letter_is_no_reason_for_an_end() -> None:
    """It is not written again: only its letter is sent."""
    flow = flow_of(1)
    flow._in_flight.aside_messages = 1
    assert [flow.note_end("lost") for _ in range(9)] == [0] * 9


def test_what_waits_for_its_dead_letter_does_not_take_up_a_prefetch_that_was_cut() -> None:
    flow = flow_of(1)
    held = flow._in_flight
    for _ in range(ENDS):
        flow.note_end("541")
    assert flow.window.prefetch == 1
    flow.step(Signal.SUBSCRIBED)
    flow.note_waiting(5)
    assert flow.step(Tick(1.0, None, [], 1, 0, 0)) == (), "a sink has it"
    held.aside_messages = 1
    assert flow.step(Tick(2.0, None, [], 1, 0, 0)) == (Do.CANCEL,)
    assert flow.step(Signal.CANCELLED) == (Consume(1),)
    assert flow.step(Tick(3.0, None, [], 2, 0, 1)) == (), "another one came"
    flow.note_waiting(0)
    assert flow.step(Tick(4.0, None, [], 2, 0, 1)) == (), "none waits"
    held.messages = held.aside_messages = 100
    flow.note_waiting(5)
    assert flow.step(Tick(5.0, None, [], 2, 0, 1)) == (), "as many as may be held at all"


def test_windows_that_are_handed_back_three_times_come_in_tens() -> None:
    flow = flow_of(20)
    for number in range(ENDS):
        assert flow.window.prefetch == 100
        flow.step(Signal.SUBSCRIBED)
        flow.step(Tick(100.0 * number, 100.0 * number - 40.0, ["a"], 0, 0, 0))
        assert flow.step(Signal.CANCELLED) == (Do.HAND_BACK,)
        flow.step(Signal.CLOSED)
    assert flow.window.prefetch == 10


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
    reconnect = Reconnect(ReconnectSettings(), StartupPolicy())
    lost = ConnectionFailure(Cause.LOST, "lost")
    waits = []
    for number in range(8):
        reconnect.subscribed(number * 100.0)
        wait = reconnect.delay(lost, number * 100.0 + 20.0, brokers=1, no_progress=True)
        waits.append(wait or 0.0)
    assert waits[-1] > 10
    reconnect.subscribed(900.0)
    assert (reconnect.delay(lost, 920.0, brokers=1) or 9.0) <= 0.5
