"""What counts as evidence against a record, and how much a sink may refuse."""

from collections.abc import Callable, Sequence

import pytest

from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry, Refusals, RetryQueue
from logfan.testing import record


def entries(*names: str) -> list[Entry]:
    batch = Batch((), 0, 0, 0.0, {0})
    return [Entry(record(name), batch) for name in names]


def queue_of(pending: Sequence[Entry], *, refusing: bool = True) -> RetryQueue:
    queue = RetryQueue(max_records=1000, max_bytes=1 << 20, refusing=refusing)
    queue.extend(pending)
    return queue


class Run:
    """Offers until all is gone or `most` offers were made."""

    def __init__(self, pending: Sequence[Entry], bad: Callable[[str, int], bool]) -> None:
        """`bad(name, n)`: whether offer number `n` with this record in it fails."""
        self.queue = queue_of(pending)
        self.taken: list[str] = []
        self.refused: list[Entry] = []
        self.offers = 0
        self.bad = bad

    def go(self, most: int = 200) -> "Run":
        while self.offers < most and (offer := self.queue.offer()):
            self.offers += 1
            names = [entry.record.text for entry in offer]
            if any(self.bad(name, self.offers) for name in names):
                proven = self.queue.failed(offer, "boom", 1.0)
                self.queue.remove(proven)
                self.refused += proven
            else:
                self.queue.taken(offer)
                self.taken += names
        return self

    @property
    def names_refused(self) -> list[str]:
        return [entry.record.text for entry in self.refused]


@pytest.mark.parametrize(
    "names", ["pa", "ap", "apb", "aapb", "pab", "abcdefp"], ids=lambda names: f"in {names}"
)
def test_one_bad_record_is_found_wherever_it_stands(names: str) -> None:
    run = Run(entries(*names), lambda name, _: name == "p").go()
    assert run.names_refused == ["p"]
    assert run.taken == [name for name in names if name != "p"]


def test_several_bad_records_are_found_and_the_others_keep_their_order() -> None:
    names = ["a", "p1", "b", "p2", "p3", "c", "d", "p4"]
    run = Run(entries(*names), lambda name, _: name[0] == "p").go()
    assert sorted(run.names_refused) == ["p1", "p2", "p3", "p4"]
    assert run.taken == ["a", "b", "c", "d"]


def test_a_sink_that_takes_nothing_refuses_nothing() -> None:
    run = Run(entries(*"abcdef"), lambda *_: True).go()
    assert run.refused == []
    assert run.taken == []


@pytest.mark.parametrize("count", [10, 1000])
def test_one_bad_record_of_many_costs_few_offers(count: int) -> None:
    names = [f"g{n}" for n in range(count)]
    names[count // 3] = "p"
    run = Run(entries(*names), lambda name, _: name == "p").go()
    assert run.names_refused == ["p"]
    assert run.taken == [name for name in names if name != "p"]
    assert run.offers <= 6 + 2 * count.bit_length()


@pytest.mark.parametrize("down", range(1, 30))
def test_after_an_outage_the_order_is_kept_but_for_what_was_offered_first(down: int) -> None:
    names = [f"g{n}" for n in range(100)]
    run = Run(entries(*names), lambda _, offer: offer <= down).go(down + 1)
    early = run.taken[:]
    run.go()
    assert run.taken == [*early, *(name for name in names if name not in early)]
    assert run.offers <= down + 30


@pytest.mark.parametrize("up", [range(5, 6), range(5, 7), range(8, 10), range(30, 33)], ids=str)
def test_a_sink_that_goes_down_among_suspects_refuses_nothing(up: range) -> None:
    run = Run(entries(*"abcdefghijklmnopqrst"), lambda _, offer: offer not in up).go(400)
    assert run.refused == []
    assert 0 < len(run.taken) < 20


def test_a_record_alone_is_no_evidence_against_itself() -> None:
    run = Run(entries("p"), lambda *_: True).go()
    assert run.refused == []
    assert run.queue.needs_others
    run.queue.extend(entries("a"))
    run.bad = lambda name, _: name == "p"
    run.go(400)
    assert run.names_refused == ["p"]
    assert run.taken == ["a"]


def test_company_is_offered_one_record_at_a_time_until_the_suspect_is_proven() -> None:
    run = Run(entries("p"), lambda *_: True).go()
    run.queue.extend(entries(*"abcdef"))
    taken: list[int] = []
    while run.queue.isolating:
        offer = run.queue.offer()
        if offer[0].record.text == "p":
            run.queue.remove(run.queue.failed(offer, "boom", 1.0))
        else:
            taken.append(len(offer))
            run.queue.taken(offer)
    assert taken == [1, 1]
    assert len(run.queue.offer()) == 4


def test_unavailable_is_evidence_against_no_record() -> None:
    pending = entries("a", "p")
    queue = queue_of(pending)
    for _ in range(10):
        for _ in range(7):
            assert queue.failed(queue.offer(), "boom", 1.0) == ()
        assert len(queue.offer()) == 1
        queue.unavailable(queue.offer(), 1.0)
        assert queue.offer() == pending


def test_attempts_and_the_first_failure_are_remembered() -> None:
    run = Run(entries("a", "p"), lambda name, _: name == "p").go()
    (bad,) = run.refused
    assert bad.attempts == 6
    assert bad.first_failed_at == 1.0
    assert bad.reason == "boom"


def test_what_was_abandoned_is_offered_no_more() -> None:
    pending = [*entries("a", "b"), *entries("c")]
    queue = queue_of(pending)
    queue.unavailable(queue.offer(), 1.0)
    pending[0].batch.abandoned = True
    assert queue.remove_abandoned() == pending[:2]
    assert queue.offer() == pending[2:]


def test_an_offer_is_bounded_in_records_and_bytes() -> None:
    queue = RetryQueue(max_records=2, max_bytes=4, refusing=True)
    queue.extend(entries("a", "b", "c", "ddd", "ee", "f" * 9, "g"))
    offers = []
    while offer := queue.offer():
        offers.append("".join(entry.record.text for entry in offer))
        queue.taken(offer)
    assert offers == ["ab", "cddd", "ee", "f" * 9, "g"]


def test_without_a_dead_letter_queue_records_are_offered_together_for_ever() -> None:
    queue = queue_of(entries("a", "p"), refusing=False)
    for _ in range(50):
        assert len(queue.offer()) == 2
        assert queue.failed(queue.offer(), "boom", 1.0) == ()


@pytest.mark.parametrize(
    ("ratio", "counts", "allowed"),
    [
        (0.5, [("refused", 500)], True),
        (0.5, [("refused", 501)], False),
        (0.5, [("refused", 500), ("refused", 1)], False),
        (0.5, [("refused", 500), ("taken", 500), ("refused", 1)], True),
        (0.5, [("refused", 500), ("taken", 499), ("refused", 2)], False),
        (1.0, [("refused", 5000)], True),
        (0.001, [("refused", 1), ("taken", 999), ("refused", 1)], True),
    ],
)
def test_the_last_thousand_decide_whether_it_is_too_much(
    ratio: float, counts: list[tuple[str, int]], allowed: bool
) -> None:
    refusals = Refusals(ratio)
    result = True
    for what, count in counts:
        if what == "taken":
            refusals.taken(count)
        else:
            result = refusals.refused(count) == count
    assert result == allowed


def test_the_first_of_an_offer_may_be_offered_alone_and_none_is_lost() -> None:
    pending = entries(*"abcdefgh")
    queue = queue_of(pending)
    queue.cut(6)
    for _ in range(3):
        queue.failed(queue.offer()[:6], "boom", 1.0)
    assert queue.offer() == pending[:3]
    queue.cut(2)
    assert queue.offer() == pending[:2]
    left: list[Entry] = []
    while offer := queue.offer():
        queue.taken(offer)
        left += offer
    assert left == pending
