"""The ledger: never an acknowledgement past an open batch, never one of another generation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logfan.api import Properties, Record
from logfan.pipeline.in_flight import Batch, Ledger


def records(count: int) -> tuple[Record, ...]:
    return (Record(b"x", "logs", "", False, 0.0, Properties()),) * count


def test_a_batch_is_acknowledged_once_every_required_sink_has_it() -> None:
    ledger = Ledger(2)
    batch = ledger.open(records(3), 3, 3, 0.0)
    ledger.settle(batch, 0)
    assert ledger.advance() is None
    ledger.settle(batch, 1)
    ack = ledger.advance()
    assert ack is not None
    assert (ack.tag, ack.messages) == (3, 3)
    assert ledger.messages == 0
    assert ledger.size == 0


def test_one_sink_that_settles_twice_does_not_settle_for_the_other() -> None:
    ledger = Ledger(2)
    batch = ledger.open(records(1), 1, 1, 0.0)
    ledger.settle(batch, 0)
    ledger.settle(batch, 0)
    assert ledger.advance() is None


def test_the_watermark_stops_at_the_first_open_batch() -> None:
    ledger = Ledger(1)
    first, second, third = (ledger.open(records(10), 10 * n, 10, 0.0) for n in (1, 2, 3))
    ledger.settle(second, 0)
    ledger.settle(third, 0)
    assert ledger.advance() is None
    ledger.settle(first, 0)
    ack = ledger.advance()
    assert ack is not None
    assert (ack.tag, ack.messages) == (30, 30)


def test_a_settlement_of_an_earlier_generation_is_dropped() -> None:
    ledger = Ledger(1)
    old = ledger.open(records(5), 5, 5, 0.0)
    assert ledger.abandon() == 5
    assert old.abandoned
    new = ledger.open(records(5), 5, 5, 0.0)
    ledger.settle(old, 0)
    assert ledger.advance() is None
    ledger.settle(new, 0)
    assert ledger.advance() is not None


def test_without_a_required_sink_everything_is_settled_at_once() -> None:
    ledger = Ledger(0)
    ledger.open(records(2), 2, 2, 0.0)
    assert ledger.advance() is not None


def test_a_tag_out_of_order_is_refused() -> None:
    ledger = Ledger(1)
    ledger.open(records(1), 7, 1, 0.0)
    with pytest.raises(ValueError, match="delivery tag 7 after 7"):
        ledger.open(records(1), 7, 1, 0.0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.randoms())
def test_in_any_order_of_settlements_all_tags_are_acknowledged_in_order(
    sizes: list[int], rng: object
) -> None:
    ledger = Ledger(1)
    batches, tag = [], 0
    for size in sizes:
        tag += size
        batches.append(ledger.open(records(size), tag, size, 0.0))
    rng.shuffle(batches)  # type: ignore[attr-defined]
    acknowledged = []
    for batch in batches:
        ledger.settle(batch, 0)
        ack = ledger.advance()
        if ack is not None:
            acknowledged.append(ack.tag)
    assert acknowledged == sorted(set(acknowledged))
    assert acknowledged[-1] == tag


def kept_of(ledger: Ledger) -> list[int]:
    return [one.last_tag for one in ledger.aside]


def test_what_stands_aside_is_never_covered_by_an_acknowledgement() -> None:
    ledger = Ledger(2)
    first, second = ledger.open(records(5), 5, 5, 0.0), ledger.open(records(3), 8, 3, 1.0)
    (kept,) = ledger.keep(first, [2], 0)
    for batch in (first, second):
        for sink in (0, 1):
            ledger.settle(batch, sink)
    ack = ledger.advance()
    assert ack is not None
    assert (ack.tag, ack.singles) == (2, [4, 5, 6, 7, 8])
    assert ack.messages == 7
    assert (ledger.messages, ledger.size, ledger.open_messages) == (1, 1, 0)
    assert kept_of(ledger) == [3]
    assert (ledger.oldest, ledger.oldest_held) == (None, 0.0)
    third = ledger.open(records(2), 10, 2, 2.0)
    ledger.settle(kept, 0)
    ack = ledger.advance()
    assert ack is not None
    assert (ack.tag, ack.singles, ack.messages) == (0, [3], 1)
    for sink in (0, 1):
        ledger.settle(third, sink)
    ack = ledger.advance()
    assert ack is not None
    assert (ack.tag, ack.singles) == (10, ()), "with nothing aside one acknowledgement does"
    assert (ledger.messages, ledger.size) == (0, 0)


def test_what_two_sinks_keep_stands_aside_until_both_are_rid_of_it() -> None:
    ledger = Ledger(2)
    batch = ledger.open(records(2), 2, 2, 0.0)
    (mine,), (theirs,) = ledger.keep(batch, [1], 0), ledger.keep(batch, [1], 1)
    assert mine is theirs
    ledger.settle(batch, 0)
    ledger.settle(batch, 1)
    ledger.settle(mine, 0)
    ack = ledger.advance()
    assert ack is not None
    assert (ack.tag, ack.singles) == (1, [])
    assert ledger.advance() is None
    ledger.settle(mine, 1)
    ack = ledger.advance()
    assert ack is not None
    assert ack.singles == [2]


def test_an_outage_hands_back_what_is_open_and_not_what_stands_aside() -> None:
    ledger = Ledger(1)
    batch, later = ledger.open(records(2), 2, 2, 0.0), ledger.open(records(3), 5, 3, 0.0)
    (kept,) = ledger.keep(batch, [0], 0)
    ledger.settle(batch, 0)
    ledger.advance()
    assert ledger.open_tags == [3, 4, 5]
    assert ledger.abandon(but_aside=True) == 3
    assert (later.abandoned, kept.abandoned) == (True, False)
    assert (ledger.messages, ledger.last_tag) == (1, 1)
    assert ledger.abandon() == 1
    assert kept.abandoned
    assert ledger.messages == 0


def test_one_that_is_kept_of_a_batch_that_was_abandoned_is_abandoned_too() -> None:
    ledger = Ledger(1)
    batch = ledger.open(records(2), 2, 2, 0.0)
    (before,) = ledger.keep(batch, [0], 0)
    ledger.abandon()
    (after,) = ledger.keep(batch, [1], 0)
    assert (before.abandoned, after.abandoned) == (True, True)


@settings(deadline=None)
@given(st.data())
def test_in_any_order_each_tag_is_acknowledged_once_and_only_when_it_is_settled(
    data: st.DataObject,
) -> None:
    ledger, tag = Ledger(1), 0
    unacked: set[int] = set()
    held: set[int] = set()
    batches = []
    kept: list[Batch] = []

    def take(_: object = None) -> None:
        ack = ledger.advance()
        if ack is None:
            return
        covered = {one for one in unacked if one <= ack.tag} | {*ack.singles}
        assert covered <= unacked
        assert not covered & held
        assert len(covered) == ack.messages
        unacked.difference_update(covered)
        assert ledger.messages == len(unacked)

    for size in data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=10)):
        tag += size
        batch = ledger.open(records(size), tag, size, 0.0)
        tags = range(tag - size + 1, tag + 1)
        unacked.update(tags)
        held.update(tags)
        batches.append((batch, tags))
    order: list[int] = data.draw(st.permutations(range(len(batches))))
    for batch, tags in [batches[n] for n in order]:
        places = data.draw(st.lists(st.integers(0, len(tags) - 1), unique=True))
        kept += ledger.keep(batch, places, 0) if places else ()
        held.difference_update(one for n, one in enumerate(tags) if n not in places)
        ledger.settle(batch, 0)
        take()
        wanted: bool = data.draw(st.booleans())
        if kept and wanted:
            one = kept.pop(data.draw(st.integers(0, len(kept) - 1)))
            held.discard(one.last_tag)
            ledger.settle(one, 0)
            take()
    for one in kept:
        held.discard(one.last_tag)
        ledger.settle(one, 0)
        take()
    assert not unacked


class LedgerMachine(RuleBasedStateMachine):
    """Deliveries, settlements and lost channels in any order, against a model of plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(2)
        self.tag = 0
        self.acked = 0
        self.batches: list[tuple[object, set[int]]] = []
        self.old: list[object] = []

    @rule(size=st.integers(1, 5))
    def deliver(self, size: int) -> None:
        self.tag += size
        self.batches.append((self.ledger.open(records(size), self.tag, size, 0.0), {0, 1}))

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), sink=st.integers(0, 1))
    def settle(self, data: st.DataObject, sink: int) -> None:
        batch, owed = data.draw(st.sampled_from(self.batches))
        owed.discard(sink)
        self.ledger.settle(batch, sink)  # type: ignore[arg-type]

    @precondition(lambda self: self.old)
    @rule(data=st.data(), sink=st.integers(0, 1))
    def settle_late(self, data: st.DataObject, sink: int) -> None:
        self.ledger.settle(data.draw(st.sampled_from(self.old)), sink)  # type: ignore[arg-type]

    @rule()
    def lose_the_channel(self) -> None:
        self.old += [batch for batch, _ in self.batches]
        self.batches.clear()
        self.ledger.abandon()
        self.tag = self.acked = 0

    @rule()
    def advance(self) -> None:
        expected = 0
        while self.batches and not self.batches[0][1]:
            expected = self.batches.pop(0)[0].last_tag  # type: ignore[attr-defined]
        ack = self.ledger.advance()
        assert (ack.tag if ack else 0) == expected
        self.acked = expected or self.acked

    @invariant()
    def in_flight_is_what_is_not_acknowledged(self) -> None:
        assert self.ledger.messages == self.tag - self.acked


TestLedgerMachine = LedgerMachine.TestCase
