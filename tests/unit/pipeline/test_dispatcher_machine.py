"""Dispatcher, tracker, workers and recovery together, in any order of events: nothing is lost.

The real ones run against a broker, sinks and dead letters made by hand (`support.model`). Each
worker is a strand (`support.strands`): it runs only while a rule waits for it, so an example is
the same each time. Time is moved by hand.

`LOGFAN_MACHINE_EXAMPLES=5000` runs so many, drawn anew each time.
"""

import logging
import os
from collections.abc import Iterator
from itertools import filterfalse

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.model import BUDGET, REQUIRED, SINKS, Message, Truth, body_of
from support.model_daemon import PAUSING, PREFETCH, SETTINGS, THIRD, Daemon

LIGHT, HEAVY = (12, 12, 12, 40, 100), (12, 12, 12, 40, 150, 390, 900)
KINDS = "poison", "refuse", "late", "wait", "waste"
TROUBLES = [f"{kind}-{sink}" for kind in KINDS for sink in SINKS]
LONGEST = st.sampled_from((PREFETCH, PREFETCH, 2, 0))
"""How many messages may come as one run; with 0 each comes by itself."""
ENDS = ("lose", "lose", "lose", "gone", "gone", "stop", "stop", "kill")


class DispatcherMachine(RuleBasedStateMachine):
    """What may happen, in any order; what must hold after each; and how it must end."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = Truth()
        self.queue: list[Message] = []
        self.poison = dict.fromkeys(SINKS, 0)
        self.daemon = Daemon(self.truth, self.queue)
        self.heavy = False
        self.settings = SETTINGS

    @initialize(heavy=st.booleans(), can_be_held=st.booleans(), pausing=st.booleans())
    def begin(self, heavy: bool, can_be_held: bool, pausing: bool) -> None:
        """Heavy messages and poison not in one example: where no other record fits into the
        window beside the poison, nothing proves it, and it stands for ever."""
        self.heavy = heavy
        if pausing:
            self.settings = PAUSING
            self.daemon = Daemon(self.truth, self.queue, PAUSING)
        self.daemon.can_be_held = can_be_held
        self.daemon.connect()
        self.daemon.read(1)

    # The publisher

    @rule(size=st.integers(0, 6), count=st.integers(1, 4))
    def publish(self, size: int, count: int) -> None:
        sizes = HEAVY if self.heavy else LIGHT
        for _ in range(count):
            self._publish("", sizes[size % len(sizes)])

    @rule(trouble=st.sampled_from(TROUBLES), size=st.sampled_from((24, 60)))
    def publish_trouble(self, trouble: str, size: int) -> None:
        kind, sink = trouble.split("-")
        if kind == "poison":
            # A window of nothing but poison cannot be distinguished from a sink that is down.
            if self.heavy or self.poison[sink] == 2:
                return
            self.poison[sink] += 1
        self._publish(trouble, size)
        self._publish("", size)

    def _publish(self, trouble: str, size: int) -> None:
        number = self.truth.published
        self.truth.published += 1
        self.queue.append(Message(number, body_of(number, trouble, size)))

    # The daemon's threads

    @rule(frames=st.integers(1, 10), longest=LONGEST)
    def read(self, frames: int, longest: int) -> None:
        self.daemon.read(frames, longest)

    @rule()
    def loop(self) -> None:
        self.daemon.loop()

    @rule(sink=st.integers(0, 2))
    def work_one(self, sink: int) -> None:
        strand = self.daemon.strands[sink]
        if strand.is_ready:
            strand.resume()

    @rule(frames=st.integers(3, 10), longest=LONGEST)
    def go_on(self, frames: int, longest: int) -> None:
        self.daemon.read(frames, longest)
        self.daemon.work()
        self.daemon.loop()

    @rule(
        seconds=st.sampled_from((0.3, 1.0, 7.0, 40.0, 40.0, THIRD + 1)),
        times=st.integers(1, 8),
        work=st.booleans(),
    )
    def pass_time(self, seconds: float, times: int, work: bool) -> None:
        for _ in range(times):
            self.truth.time.now += seconds
            if work:
                self.daemon.work()
            self.daemon.turn()

    # Trouble

    @rule(
        sink=st.integers(0, 2),
        state=st.sampled_from(("up", "up", "down", "flush-down", "flush-bug", "bug")),
        slow=st.booleans(),
    )
    def change_sink(self, sink: int, state: str, slow: bool) -> None:
        self.daemon.stores[sink].state = state
        self.daemon.stores[sink].slow = slow

    @rule(works=st.booleans())
    def dead_letters(self, works: bool) -> None:
        self.daemon.post.resolve(works=works)

    @precondition(lambda self: self.daemon.channel is not None and self.daemon.channel.unacked)
    @rule(
        how=st.sampled_from(ENDS),
        unseen=st.integers(0, 3),
        late=st.integers(0, 3),
        longest=st.sampled_from((PREFETCH, 0)),
    )
    def end(self, how: str, unseen: int, late: int, longest: int) -> None:
        """The channel is lost, or its queue with it, TERM comes, or kill -9."""
        if how in ("lose", "gone"):
            for _ in range(unseen + late):  # so that something is on its way
                self._publish("", 12)
            self.daemon.lose(unseen, late, longest, queue_gone=how == "gone")
        elif how == "kill":
            self.daemon.kill()
            self._start_again()
        elif not self.daemon.stopping:
            self.daemon.stop()

    @precondition(lambda self: self.daemon.channel is None and not self.daemon.stopping)
    @rule()
    def connect(self) -> None:
        self.daemon.connect()

    @precondition(lambda self: self.daemon.stopping)
    @rule()
    def finish(self) -> None:
        drained = self.daemon.drained
        self.daemon.finish()
        self.numbers_add_up()
        if drained:
            assert self.daemon.stats.in_flight_messages == 0
        self._start_again()

    def _start_again(self) -> None:
        can_be_held = self.daemon.can_be_held
        self.daemon = Daemon(self.truth, self.queue, self.settings)
        self.daemon.can_be_held = can_be_held
        self.daemon.connect()

    # What always holds

    @invariant()
    def no_rule_is_broken(self) -> None:
        assert not self.truth.faults

    @invariant()
    def numbers_add_up(self) -> None:
        daemon, stats, channel = self.daemon, self.daemon.stats, self.daemon.channel
        tracker = daemon.dispatcher._tracker
        left = stats.acked + stats.requeued + stats.abandoned + tracker.messages
        assert stats.received_messages == left
        reads = daemon.reads + (channel.messages_read if channel is not None else 0)
        assert stats.received_messages == reads
        acks, nacks = (channel.acks, channel.nacks) if channel is not None else (0, 0)
        assert stats.acked == daemon.acks + acks
        assert stats.requeued == daemon.nacks + nacks
        read = channel.read if channel is not None else {}
        assert len(read) == tracker.messages
        assert sum(read.values()) == tracker.size
        assert stats.in_flight_bytes == tracker.size

    @invariant()
    def no_last_copy_is_forgotten(self) -> None:
        assert self.daemon.last_copies <= PREFETCH

    @invariant()
    def the_budget_holds(self) -> None:
        read = self.daemon.channel.read if self.daemon.channel is not None else {}
        # Beside what only waits for its dead letter one message may come, however large.
        others = len(read) - self.daemon.dispatcher._tracker.aside_messages
        assert others <= 1 or sum(read.values()) <= BUDGET
        assert len(read) <= PREFETCH

    # How it ends

    def teardown(self) -> None:
        try:
            self._mend()
            self._run_until_quiet()
            self._nothing_is_lost()
        finally:
            self.daemon.kill()

    def _mend(self) -> None:
        for store in self.daemon.stores:
            store.state, store.slow = "up", False
        if self.settings is PAUSING:  # the operator allows more
            self.settings = SETTINGS
            self.daemon.kill()
            self._start_again()
        if self.daemon.stopping:
            self._drain()
            self.daemon.finish()
            self._start_again()
        if self.daemon.channel is None:
            self.daemon.connect()

    def _drain(self) -> None:
        """With all mended it must come to an end, but for poison: no more company comes."""
        for _ in range(100):
            if self.daemon.drained and not self.daemon.last_copies:
                return
            self._all_go_on()
        assert any(self.poison.values()), "asked to stop, and never drained"

    def _all_go_on(self) -> None:
        for _ in range(40):
            self.daemon.read(1)
            worked = self.daemon.work()
            self.daemon.post.resolve(works=True)
            self.daemon.loop()
            if not worked:
                break
        self.no_rule_is_broken()
        self.numbers_add_up()
        self.no_last_copy_is_forgotten()
        self.the_budget_holds()
        self.truth.time.now += 1.0
        self.daemon.turn()

    def _run_until_quiet(self) -> None:
        """Some company now and then: without another record nothing is proven. One message a
        read: where a batch fills half the budget, no company comes for a poison in it."""
        for turn in range(1, 200):
            if self.truth.is_at_rest:
                return
            self._all_go_on()
            if turn % 20 == 0:
                self.truth.time.now += THIRD
            if turn % 5 == 0 and not self.queue:
                self._publish("", 12)
        raise AssertionError(
            f"only {len(self.truth.acked)} of {self.truth.published} are acknowledged: "
            f"{[w.failure for w in self.daemon.workers]}, {self.daemon.dispatcher.flow._reason}"
        )

    def _nothing_is_lost(self) -> None:
        assert not self.queue
        for sink in REQUIRED:
            for number in {*range(self.truth.published)} - self.truth.lost:
                assert self.truth.is_settled(sink, number), (sink, number)
            if not self.truth.unordered:
                held = filterfalse(self.truth.overtaken.__contains__, self.truth.held[sink])
                first = list(dict.fromkeys(held))
                assert first == sorted(first)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Backing off is logged at length; here it is what the test is about."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_lost_whatever_happens_in_whatever_order() -> None:
    drawn_anew = os.environ.get("LOGFAN_MACHINE_EXAMPLES")
    run_state_machine_as_test(
        DispatcherMachine,
        settings=settings(
            max_examples=int(drawn_anew or 120),
            derandomize=drawn_anew is None,
            stateful_step_count=40,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("trouble", ["refuse-a", "late-a"])
def test_after_an_outage_of_the_dead_letters_the_window_comes_back(trouble: str) -> None:
    """The sink is open all the time, and what it refused was handed back: it is not down."""
    truth, queue = Truth(), [Message(0, body_of(0, trouble, 24)), Message(1, body_of(1, "", 24))]
    daemon = Daemon(truth, queue)
    daemon.connect()
    daemon.read(10)
    daemon.work()
    daemon.post.resolve(works=False)
    daemon.work()
    assert daemon.workers[0].failure == "1 refused record cannot be dead-lettered: no confirm"
    truth.time.now += THIRD + 1
    for _ in range(5):
        daemon.turn()
        daemon.read(10)
        daemon.work()
        daemon.post.resolve(works=True)
        daemon.loop()
        truth.time.now += 1
    assert truth.acked == {0, 1}
    daemon.kill()


def test_without_any_way_for_a_letter_its_record_alone_is_handed_back_and_late() -> None:
    truth, queue = Truth(), [Message(0, body_of(0, "refuse-a", 24)), Message(1, body_of(1, "", 24))]
    daemon = Daemon(truth, queue)
    daemon.connect()
    daemon.read(10)

    def go_on(seconds: float) -> None:
        until = truth.time.now + seconds
        while truth.time.now < until:
            daemon.work()
            daemon.post.resolve(works=False)
            daemon.work()
            daemon.loop()
            daemon.turn()
            truth.time.now += 10.0

    go_on(2 * THIRD)
    assert daemon.channel is not None
    assert truth.acked == {1}
    assert (daemon.channel.nacks, daemon.stats.requeued) == (0, 0), "that was too early"
    assert daemon.workers[0].failure == "1 refused record cannot be dead-lettered: no confirm"
    go_on(THIRD)
    assert daemon.channel.nacks == 1
    for _ in range(3):
        daemon.read(10)
        daemon.work()
        daemon.post.resolve(works=True)
        daemon.work()
        daemon.loop()
        truth.time.now += 40.0
    assert truth.acked == {0, 1}
    assert truth.held["a"] == [1]
    daemon.kill()


@pytest.mark.parametrize("longest", [PREFETCH, 0], ids=["in a run", "one by one"])
def test_what_is_on_its_way_when_a_sink_is_down_for_long_is_handed_back(longest: int) -> None:
    truth, queue = Truth(), [Message(n, body_of(n, "", 12)) for n in range(PREFETCH)]
    daemon = Daemon(truth, queue)
    daemon.stores[0].state = "down"
    daemon.connect()
    daemon.read(1)
    daemon.read(2, longest)  # the others are sent, and not read yet
    daemon.work()
    truth.time.now += THIRD + 1
    daemon.turn()
    assert daemon.channel is not None
    daemon.read(PREFETCH - 2, longest)
    assert len(daemon.channel.read) == 2, "taken in, to be handed back with the window"
    assert daemon.channel.nacks == PREFETCH - 2
    daemon.read(1)  # the cancellation is confirmed
    assert daemon.channel.nacks == PREFETCH
    daemon.kill()


def test_what_all_have_is_acknowledged_though_one_call_completes_more_than_that() -> None:
    truth, queue = Truth(), [Message(n, body_of(n, "", 12)) for n in range(2)]
    daemon = Daemon(truth, queue)
    daemon.connect()
    daemon.read(2)  # the answer, and the first message
    daemon.read(1)
    first, second = daemon.dispatcher._tracker._open
    for name in REQUIRED:
        truth.times_held[name][0] += 1
    daemon.completions.done(1, [first])
    assert not daemon.calls, "one sink owes it still: there is nothing to wake the loop for"
    daemon.completions.done(0, [first, second])
    daemon.loop()
    assert truth.acked == {0}
    daemon.kill()


def test_a_record_goes_to_the_queue_again_once_it_is_late_however_long_the_back_off_is() -> None:
    truth, queue = Truth(), [Message(0, body_of(0, "refuse-a", 24))]
    rabbitmq = SETTINGS.rabbitmq.model_copy(update={"acknowledgement_timeout": 60.0})
    daemon = Daemon(truth, queue, SETTINGS.model_copy(update={"rabbitmq": rabbitmq}))
    began = truth.time.now
    daemon.connect()
    daemon.read(10)
    again: list[bool] = []
    while truth.time.now < began + 22.0:
        daemon.work()
        again += [one.renew for sending in daemon.post.under_way for one in sending.refusals]
        if any(again):
            break
        daemon.post.resolve(works=False)
        daemon.work()
        daemon.loop()
        daemon.turn()
        truth.time.now += 0.5
    assert again[-1], f"none but letters, of which {len(again)}"
    assert truth.time.now > began + 20.0, "that was too early"
    daemon.kill()
