"""What is read, and when there is a consumer: the state machine alone, in any order of events."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logfan.pipeline.flow_control import (
    GOOD_READ,
    HOLD_SECONDS,
    MOST_SECONDS,
    MOST_SECONDS_BEHIND,
    Actions,
    Coalesce,
    Consume,
    Do,
    FlowControl,
    ReadEnd,
    Report,
    Signal,
    Tick,
    TurnedAway,
)
from logfan.pipeline.in_flight import InFlightTracker

PREFETCH, BUDGET, TIMEOUT = 6, 100, 90.0


class Held(InFlightTracker):
    """What is in flight, as a test likes it."""

    def __init__(
        self, messages: int = 0, size: int = 0, aside_messages: int = 0, aside_size: int = 0
    ) -> None:
        super().__init__(1)
        self.messages, self.size = messages, size
        self.aside_messages, self.aside_size = aside_messages, aside_size


def flow_of(held: Held, prefetch: int = PREFETCH) -> FlowControl:
    flow = FlowControl(held, prefetch=prefetch, max_bytes=BUDGET, ack_timeout=TIMEOUT, now=0.0)
    assert flow.step(Signal.SUBSCRIBED) == ()
    return flow


class Reading:
    """What backpressure makes of so many bytes in flight, one moment after the other."""

    def __init__(self) -> None:
        self.held = Held()
        self.flow = flow_of(self.held)

    def at(self, now: float, *sizes: int) -> list[Any]:
        """`sizes`: of what is in flight, after one read or acknowledgement after the other."""
        found: list[Any] = []
        for size in sizes:
            grows = size > self.held.size
            self.held.messages, self.held.size = (1 if size else 0), size
            found += self.flow.step(ReadEnd(now, 1, 1) if grows else Signal.SETTLED)
        return found

    def tick(self, now: float) -> list[Any]:
        return [*self.flow.step(Tick(now, None, [], 0, 0, 0))]


ON, OFF = Do.RESUME_READING, Do.PAUSE_READING


def test_reading_pauses_shortly_before_the_budget_is_full_and_resumes_at_half_of_it() -> None:
    assert Reading().at(1.0, 10, 74, 75, 90, 51, 50, 74, 80, 100, 0) == [OFF, ON, OFF, ON]


def test_a_slow_sink_is_waited_for_once_and_not_again_before_half_is_written() -> None:
    reading = Reading()
    assert reading.at(1.0, 80) == [OFF]
    assert reading.tick(1.0 + HOLD_SECONDS - 0.1) == []
    assert reading.tick(1.0 + HOLD_SECONDS) == [ON]
    assert reading.at(4.0, 60, 90) == []
    assert reading.at(9.0, 50, 80) == [OFF]


def test_another_connection_begins_anew() -> None:
    reading = Reading()
    assert reading.at(1.0, 80) == [OFF]
    reading.held.messages = reading.held.size = 0
    assert reading.flow.step(Signal.CLOSED) == (ON,), "else its end could not be read"
    reading.flow.step(Signal.SUBSCRIBED)
    assert reading.at(9.0, 80) == [OFF]


def test_what_only_waits_for_its_dead_letter_pauses_no_reading() -> None:
    flow = flow_of(Held(2, 80, aside_messages=1, aside_size=60))
    assert flow.step(ReadEnd(1.0, 1, 20)) == ()


def test_a_full_budget_cancels_and_consumes_again_once_half_is_written_and_it_fits() -> None:
    held = Held(3, 90)
    flow = flow_of(held)
    assert not flow.has_room(40)
    (report, cancel) = flow.step(TurnedAway(40))
    assert isinstance(report, Report)
    assert cancel is Do.CANCEL
    assert flow.step(TurnedAway(60)) == (), "cancelled already"
    assert not flow.has_room(1), "nothing more before the broker has confirmed"
    assert flow.step(Signal.CANCELLED) == ()
    held.messages, held.size = 2, 50
    assert flow.step(Signal.SETTLED) == (), "the largest that was turned away does not fit"
    held.messages, held.size = 0, 0
    assert flow.step(Signal.SETTLED) == (Consume(1),), "as many as fit of the largest"


def test_an_outage_hands_the_window_back_once_the_broker_confirms_and_waits_for_the_sink() -> None:
    held = Held(3, 30)
    flow = flow_of(held)
    overdue = TIMEOUT / 3 + 1
    (report, cancel) = flow.step(Tick(overdue, 0.0, ["a"], 3, 30, 0))
    assert isinstance(report, Report)
    assert "sink a has held messages for 31 s" in report.text
    assert cancel is Do.CANCEL
    assert flow.step(Signal.CANCELLED) == (Do.HAND_BACK,)
    held.messages = held.size = 0
    assert flow.step(Signal.SETTLED) == ()
    assert flow.step(Tick(overdue + 1, None, ["a"], 3, 30, 0)) == ()
    assert flow.step(Tick(overdue + 2, None, [], 3, 30, 0)) == (Consume(PREFETCH),)


def test_a_consumer_that_is_cancelled_has_its_answer_read() -> None:
    flow = flow_of(Held(1, 80))
    assert flow.step(ReadEnd(1.0, 1, 80)) == (OFF,)
    (_, resume, cancel) = flow.step(Tick(2.0, 1.0 - TIMEOUT / 3, ["a"], 1, 80, 0))
    assert (resume, cancel) == (ON, Do.CANCEL)


def test_it_consumes_again_once_less_is_in_flight_than_its_prefetch() -> None:
    held = Held(4, 100)
    flow = flow_of(held)
    flow.step(TurnedAway(45))
    flow.step(Signal.CANCELLED)
    held.messages, held.size = 2, 10
    assert flow.step(Signal.SETTLED) == (), "two of that size fit, and two are there"
    held.messages, held.size = 1, 5
    assert flow.step(Signal.SETTLED) == (Consume(1),)


@pytest.mark.parametrize("last_delivery", [True, False])
def test_what_its_queue_may_drop_once_it_is_returned_has_room_always(last_delivery: bool) -> None:
    flow = flow_of(Held(1, BUDGET))
    assert flow.has_room(1, last_delivery=last_delivery) is last_delivery
    flow.step(TurnedAway(1))
    assert flow.has_room(1, last_delivery=last_delivery) is last_delivery


class FlowMachine(RuleBasedStateMachine):
    """A broker and sinks of figures alone. Each action is allowed when it comes, and in the end
    all goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()
        self.flow = FlowControl(
            self.held, prefetch=PREFETCH, max_bytes=BUDGET, ack_timeout=TIMEOUT, now=0.0
        )
        self.now = 0.0
        self.received = self.received_bytes = self.acked = 0
        self.sizes: list[int] = []
        """Of what is in flight, the oldest first,"""
        self.times: list[float] = []
        """and when it was received."""
        self.unready: list[str] = []
        self.connected = self.consuming = self.answered = self.cancelling = False
        self.stopping = self.drained = False
        self.refuses = self.waits = False
        """The broker takes no other consumer in place of ours, and it is asked again."""
        self.paused_at: float | None = None
        self.prefetch = 0

    # The broker

    @precondition(lambda self: not self.connected and not self.stopping)
    @rule()
    def connect(self) -> None:
        self.connected = self.consuming = self.answered = True
        self.prefetch = self.flow.window.prefetch
        self.do(self.flow.step(Signal.SUBSCRIBED))

    @precondition(lambda self: self.consuming and not self.answered)
    @rule()
    def confirm_consumer(self) -> None:
        self.answered = True
        self.do(self.flow.step(Signal.SUBSCRIBED))

    @rule(refuses=st.booleans())
    def refuse_another_consumer(self, refuses: bool) -> None:
        self.refuses = refuses

    @precondition(lambda self: self.cancelling and self.answered and self.paused_at is None)
    @rule()
    def confirm_cancel(self) -> None:
        """Where the broker refuses: it was asked for long enough."""
        self.consuming = self.cancelling = self.waits = False
        self.do(self.flow.step(Signal.CANCELLED))

    @precondition(lambda self: self.consuming and self.answered and self.paused_at is None)
    @rule(
        sizes=st.lists(st.sampled_from((1, 5, 20, 45, 120)), max_size=4),
        last_delivery=st.booleans(),
    )
    def read(self, sizes: list[int], last_delivery: bool) -> None:
        taken: list[int] = []
        for size in sizes[: max(0, self.prefetch - len(self.sizes))]:
            self.received, self.received_bytes = self.received + 1, self.received_bytes + size
            if not self.flow.has_room(size, last_delivery=last_delivery):
                assert not last_delivery, "returned, and its queue may drop it"
                self.do(self.flow.step(TurnedAway(size)))
                continue
            fits = self.held.size + size <= BUDGET or not self.held.messages
            assert fits or last_delivery, "taken in beyond the budget"
            taken.append(size)
            self._enter(size)
        if taken:
            self.do(self.flow.step(ReadEnd(self.now, len(taken), sum(taken))))

    def _enter(self, size: int) -> None:
        self.sizes.append(size)
        self.times.append(self.now)
        self._count()

    def _count(self) -> None:
        self.held.messages, self.held.size = len(self.sizes), sum(self.sizes)

    @precondition(lambda self: self.connected)
    @rule()
    def lose(self) -> None:
        self.connected = self.consuming = self.answered = self.cancelling = self.waits = False
        self.sizes, self.times = [], []
        self._count()
        self.do(self.flow.step(Signal.CLOSED))

    # The sinks, and time

    @precondition(lambda self: self.sizes)
    @rule(count=st.integers(1, PREFETCH))
    def settle(self, count: int) -> None:
        self.acked += len(self.sizes[:count])
        self.sizes, self.times = self.sizes[count:], self.times[count:]
        self._count()
        self.do(self.flow.step(Signal.SETTLED))

    @rule(unready=st.lists(st.sampled_from(("a", "b")), unique=True))
    def change_sinks(self, unready: list[str]) -> None:
        self.unready = unready

    @rule(seconds=st.sampled_from((1.0, 1.0, 1.0, TIMEOUT / 3)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        oldest = self.times[0] if self.times else None
        event = Tick(self.now, oldest, self.unready, self.received, self.received_bytes, self.acked)
        self.do(self.flow.step(event))
        paused = 0.0 if self.paused_at is None else self.now - self.paused_at
        assert paused < HOLD_SECONDS, "heartbeats and cancels wait as well"

    @precondition(lambda self: not self.stopping)
    @rule()
    def stop(self) -> None:
        self.stopping = True
        self.do(self.flow.step(Signal.STOP))
        assert not self.consuming or self.cancelling, "it goes on consuming"
        assert not self.waits, "the stop waits for what is refused"

    def do(self, actions: Actions) -> None:
        for action in actions:
            match action:
                case Do.PAUSE_READING:
                    assert self.paused_at is None
                    assert not self.cancelling, "the broker's answer would not be read"
                    self.paused_at = self.now
                case Do.RESUME_READING:
                    assert self.paused_at is not None
                    self.paused_at = None
                case Do.CANCEL | Do.LEAVE:
                    assert self.consuming
                    assert not self.cancelling
                    assert self.paused_at is None, "the broker's answer would not be read"
                    assert (action is Do.LEAVE) is self.stopping
                    self.cancelling = True
                    self.waits = self.refuses and action is Do.CANCEL
                case Do.CALL_OFF:
                    assert self.cancelling
                    if self.waits:
                        self.cancelling = self.waits = False
                        self.do(self.flow.step(Signal.CALLED_OFF))
                case Consume(prefetch):
                    assert self.connected
                    assert not self.consuming
                    assert not self.stopping
                    assert 0 < prefetch <= PREFETCH - self.held.messages
                    self.consuming, self.answered = True, False
                    self.prefetch = prefetch + self.held.messages
                case Do.HAND_BACK:
                    assert self.connected
                    assert not self.consuming, "the broker would send it again at once"
                    self.sizes, self.times = [], []
                    self._count()
                    self.do(self.flow.step(Signal.SETTLED))
                case Do.DRAINED:
                    self.drained = True
                case Coalesce(seconds):
                    assert 0 < seconds < 1
                case Report(text):
                    assert text

    @invariant()
    def it_is_drained_where_it_stops_and_nothing_is_left(self) -> None:
        assert self.drained is (
            self.drained or (self.stopping and not self.consuming and not self.sizes)
        )

    @invariant()
    def nothing_in_flight_pauses_no_reading(self) -> None:
        assert self.paused_at is None or self.sizes

    def teardown(self) -> None:
        """With the sinks up again and nothing in flight it reads, or it is drained."""
        self.unready = []
        if not self.connected and not self.stopping:
            self.connect()
        for _ in range(5):
            if self.consuming and not self.answered:
                self.confirm_consumer()
            if self.cancelling and self.paused_at is None and not self.waits:
                self.confirm_cancel()
            if self.sizes:
                self.settle(len(self.sizes))
            self.tick(1.0)
        assert self.paused_at is None
        assert self.drained if self.stopping else self.consuming and not self.cancelling


TestFlowMachine = FlowMachine.TestCase
TestFlowMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def test_deliveries_gather_for_longer_where_messages_wait_in_the_queue() -> None:
    """Then a millisecond more is no matter, and fewer reads cost less."""

    def gathers(waiting: int | None) -> float:
        flow = flow_of(Held(), prefetch=10_000)
        flow.note_waiting(waiting)
        flow.step(ReadEnd(1.0, 10_000, 1))
        (action,) = flow.step(ReadEnd(1.001, 1, 1))
        assert isinstance(action, Coalesce)
        return action.seconds

    assert gathers(None) == gathers(0) == gathers(GOOD_READ - 1) == MOST_SECONDS
    assert gathers(GOOD_READ) == MOST_SECONDS_BEHIND
