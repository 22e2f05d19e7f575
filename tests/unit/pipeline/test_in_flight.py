"""The tracker: never an acknowledgement past an open batch, nor one of another generation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logfan.pipeline.in_flight import Batch, InFlightTracker
from logfan.record import Properties, Record


def records(count: int) -> tuple[Record, ...]:
    return (Record(b"x", "logs", "", False, 0.0, Properties()),) * count


def test_a_batch_is_acknowledged_once_every_required_sink_has_it() -> None:
    tracker = InFlightTracker(2)
    batch = tracker.open(records(3), 3, 3, 0.0)
    tracker.complete(batch, 0)
    assert tracker.advance() is None
    tracker.complete(batch, 1)
    ack = tracker.advance()
    assert ack is not None
    assert (ack.tag, ack.messages) == (3, 3)
    assert tracker.messages == 0
    assert tracker.size == 0


def test_one_sink_that_completes_twice_does_not_complete_for_the_other() -> None:
    tracker = InFlightTracker(2)
    batch = tracker.open(records(1), 1, 1, 0.0)
    tracker.complete(batch, 0)
    tracker.complete(batch, 0)
    assert tracker.advance() is None


def test_the_watermark_stops_at_the_first_open_batch() -> None:
    tracker = InFlightTracker(1)
    first, second, third = (tracker.open(records(10), 10 * n, 10, 0.0) for n in (1, 2, 3))
    tracker.complete(second, 0)
    tracker.complete(third, 0)
    assert tracker.advance() is None
    tracker.complete(first, 0)
    ack = tracker.advance()
    assert ack is not None
    assert (ack.tag, ack.messages) == (30, 30)


def test_what_no_queue_has_any_more_stays_with_the_sinks_and_moves_no_watermark() -> None:
    tracker = InFlightTracker(2)
    old = tracker.open(records(5), 5, 5, 0.0)
    (aside,) = tracker.keep(old, [3], 0)
    assert tracker.abandon(is_last_copy=True) == 5
    assert not any(one.abandoned for one in (old, aside))
    assert tracker.messages == 0
    new = tracker.open(records(5), 5, 5, 0.0)
    tracker.complete(old, 0)
    tracker.complete(old, 1)
    assert tracker.advance() is None
    held = [tracker.last_copies]  # one waits for its dead letter
    tracker.complete(aside, 0)
    assert [*held, tracker.last_copies] == [1, 0]
    tracker.advance()
    assert not tracker._last_copies, "no record is kept in memory"
    tracker.abandon()
    assert new.abandoned


def test_a_completion_of_an_earlier_generation_is_dropped() -> None:
    tracker = InFlightTracker(1)
    old = tracker.open(records(5), 5, 5, 0.0)
    assert tracker.abandon() == 5
    assert old.abandoned
    new = tracker.open(records(5), 5, 5, 0.0)
    tracker.complete(old, 0)
    assert tracker.advance() is None
    tracker.complete(new, 0)
    assert tracker.advance() is not None


def test_without_a_required_sink_everything_is_complete_at_once() -> None:
    tracker = InFlightTracker(0)
    tracker.open(records(2), 2, 2, 0.0)
    assert tracker.advance() is not None


def test_a_tag_out_of_order_is_refused() -> None:
    tracker = InFlightTracker(1)
    tracker.open(records(1), 7, 1, 0.0)
    with pytest.raises(ValueError, match="delivery tag 7 after 7"):
        tracker.open(records(1), 7, 1, 0.0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.randoms())
def test_in_any_order_of_completions_all_tags_are_acknowledged_in_order(
    sizes: list[int], rng: object
) -> None:
    tracker = InFlightTracker(1)
    batches, tag = [], 0
    for size in sizes:
        tag += size
        batches.append(tracker.open(records(size), tag, size, 0.0))
    rng.shuffle(batches)  # type: ignore[attr-defined]
    acknowledged = []
    for batch in batches:
        tracker.complete(batch, 0)
        ack = tracker.advance()
        if ack is not None:
            acknowledged.append(ack.tag)
    assert acknowledged == sorted(set(acknowledged))
    assert acknowledged[-1] == tag


def kept_of(tracker: InFlightTracker) -> list[int]:
    return [one.last_tag for one in tracker.aside]


def test_what_stands_aside_is_never_covered_by_an_acknowledgement() -> None:
    tracker = InFlightTracker(2)
    first, second = tracker.open(records(5), 5, 5, 0.0), tracker.open(records(3), 8, 3, 1.0)
    (kept,) = tracker.keep(first, [2], 0)
    for batch in (first, second):
        for sink in (0, 1):
            tracker.complete(batch, sink)
    ack = tracker.advance()
    assert ack is not None
    assert (ack.tag, ack.singles) == (2, [4, 5, 6, 7, 8])
    assert ack.messages == 7
    assert (tracker.messages, tracker.aside_messages, tracker.aside_size) == (1, 1, 1)
    assert kept_of(tracker) == [3]
    assert (tracker.oldest, tracker.oldest_held) == (None, 0.0)
    third = tracker.open(records(2), 10, 2, 2.0)
    tracker.complete(kept, 0)
    ack = tracker.advance()
    assert ack is not None
    assert (ack.tag, ack.singles, ack.messages) == (0, [3], 1)
    for sink in (0, 1):
        tracker.complete(third, sink)
    ack = tracker.advance()
    assert ack is not None
    assert (ack.tag, ack.singles) == (10, []), "with nothing aside one acknowledgement does"
    assert (tracker.messages, tracker.size) == (0, 0)


def test_what_two_sinks_keep_stands_aside_until_both_are_rid_of_it() -> None:
    tracker = InFlightTracker(2)
    batch = tracker.open(records(2), 2, 2, 0.0)
    (mine,), (theirs,) = tracker.keep(batch, [1], 0), tracker.keep(batch, [1], 1)
    assert mine is theirs
    tracker.complete(batch, 0)
    tracker.complete(batch, 1)
    tracker.complete(mine, 0)
    ack = tracker.advance()
    assert ack is not None
    assert (ack.tag, ack.singles) == (1, [])
    assert tracker.advance() is None
    tracker.complete(mine, 1)
    ack = tracker.advance()
    assert ack is not None
    assert ack.singles == [2]


def test_an_outage_hands_back_what_is_open_and_not_what_stands_aside() -> None:
    tracker = InFlightTracker(1)
    batch, later = tracker.open(records(2), 2, 2, 0.0), tracker.open(records(3), 5, 3, 0.0)
    (kept,) = tracker.keep(batch, [0], 0)
    tracker.complete(batch, 0)
    tracker.advance()
    assert tracker.open_tags == [3, 4, 5]
    assert tracker.abandon(but_aside=True) == 3
    assert (later.abandoned, kept.abandoned) == (True, False)
    assert (tracker.messages, tracker.last_tag) == (1, 1)
    assert tracker.abandon() == 1
    assert kept.abandoned
    assert tracker.messages == 0


def test_one_that_is_kept_of_a_batch_that_was_abandoned_is_abandoned_too() -> None:
    tracker = InFlightTracker(1)
    batch = tracker.open(records(2), 2, 2, 0.0)
    (before,) = tracker.keep(batch, [0], 0)
    tracker.abandon()
    (after,) = tracker.keep(batch, [1], 0)
    assert (before.abandoned, after.abandoned) == (True, True)


@settings(deadline=None)
@given(st.data())
def test_in_any_order_each_tag_is_acknowledged_once_and_only_when_it_is_complete(
    data: st.DataObject,
) -> None:
    tracker, tag = InFlightTracker(1), 0
    unacked: set[int] = set()
    held: set[int] = set()
    batches = []
    kept: list[Batch] = []

    def take(_: object = None) -> None:
        ack = tracker.advance()
        if ack is None:
            return
        covered = {one for one in unacked if one <= ack.tag} | {*ack.singles}
        assert covered <= unacked
        assert not covered & held
        assert len(covered) == ack.messages
        unacked.difference_update(covered)
        assert tracker.messages == len(unacked)

    for size in data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=10)):
        tag += size
        batch = tracker.open(records(size), tag, size, 0.0)
        tags = range(tag - size + 1, tag + 1)
        unacked.update(tags)
        held.update(tags)
        batches.append((batch, tags))
    order: list[int] = data.draw(st.permutations(range(len(batches))))
    for batch, tags in [batches[n] for n in order]:
        places = data.draw(st.lists(st.integers(0, len(tags) - 1), unique=True))
        kept += tracker.keep(batch, places, 0) if places else ()
        held.difference_update(one for n, one in enumerate(tags) if n not in places)
        tracker.complete(batch, 0)
        take()
        wanted: bool = data.draw(st.booleans())
        if kept and wanted:
            one = kept.pop(data.draw(st.integers(0, len(kept) - 1)))
            held.discard(one.last_tag)
            tracker.complete(one, 0)
            take()
    for one in kept:
        held.discard(one.last_tag)
        tracker.complete(one, 0)
        take()
    assert not unacked


class TrackerMachine(RuleBasedStateMachine):
    """Deliveries, completions and lost channels in any order, against a model of plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = InFlightTracker(2)
        self.tag = 0
        self.acked = 0
        self.batches: list[tuple[object, set[int]]] = []
        self.old: list[object] = []

    @rule(size=st.integers(1, 5))
    def deliver(self, size: int) -> None:
        self.tag += size
        self.batches.append((self.tracker.open(records(size), self.tag, size, 0.0), {0, 1}))

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), sink=st.integers(0, 1))
    def complete(self, data: st.DataObject, sink: int) -> None:
        batch, pending = data.draw(st.sampled_from(self.batches))
        pending.discard(sink)
        self.tracker.complete(batch, sink)  # type: ignore[arg-type]

    @precondition(lambda self: self.old)
    @rule(data=st.data(), sink=st.integers(0, 1))
    def complete_late(self, data: st.DataObject, sink: int) -> None:
        self.tracker.complete(data.draw(st.sampled_from(self.old)), sink)  # type: ignore[arg-type]

    @rule()
    def lose_the_channel(self) -> None:
        self.old += [batch for batch, _ in self.batches]
        self.batches.clear()
        self.tracker.abandon()
        self.tag = self.acked = 0

    @rule()
    def advance(self) -> None:
        expected = 0
        while self.batches and not self.batches[0][1]:
            expected = self.batches.pop(0)[0].last_tag  # type: ignore[attr-defined]
        ack = self.tracker.advance()
        assert (ack.tag if ack else 0) == expected
        self.acked = expected or self.acked

    @invariant()
    def in_flight_is_what_is_not_acknowledged(self) -> None:
        assert self.tracker.messages == self.tag - self.acked


TestTrackerMachine = TrackerMachine.TestCase
