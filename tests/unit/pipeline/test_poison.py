"""What counts as evidence against a record, and how much a sink may refuse."""

from collections.abc import Callable, Sequence

import pytest

from logfan.pipeline.in_flight import Batch
from logfan.pipeline.poison import Entry, Recovery, Refusals
from logfan.testing import record


def entries(*names: str) -> list[Entry]:
    batch = Batch((), 0, 0, 0.0, (0,))
    return [Entry(record(name), batch) for name in names]


def recovery(pending: Sequence[Entry], *, refusing: bool = True) -> Recovery:
    return Recovery(pending, max_records=100, max_bytes=1 << 20, refusing=refusing)


class Run:
    """Offers until all is gone or `most` offers were made."""

    def __init__(self, pending: Sequence[Entry], bad: Callable[[str, int], bool]) -> None:
        """`bad(name, n)`: whether offer number `n` with this record in it fails."""
        self.one = recovery(pending)
        self.taken: list[str] = []
        self.refused: list[str] = []
        self.offers = 0
        self._bad = bad

    def go(self, most: int = 200) -> "Run":
        while self.offers < most and (offer := self.one.offer()):
            self.offers += 1
            names = [entry.record.text for entry in offer]
            if any(self._bad(name, self.offers) for name in names):
                proven = self.one.failed(offer, "boom", 1.0)
                if proven:
                    self.one.refuse(proven)
                    self.refused += [entry.record.text for entry in proven]
            else:
                self.one.taken(offer)
                self.taken += names
        return self


@pytest.mark.parametrize(
    "names", ["pa", "ap", "apb", "aapb", "pab", "abcdefp"], ids=lambda names: f"in {names}"
)
def test_one_bad_record_is_found_wherever_it_stands(names: str) -> None:
    run = Run(entries(*names), lambda name, _: name == "p").go()
    assert run.refused == ["p"]
    assert run.taken == [name for name in names if name != "p"]


def test_several_bad_records_are_found_and_the_others_keep_their_order() -> None:
    names = ["a", "p1", "b", "p2", "p3", "c", "d", "p4"]
    run = Run(entries(*names), lambda name, _: name[0] == "p").go()
    assert sorted(run.refused) == ["p1", "p2", "p3", "p4"]
    assert run.taken == ["a", "b", "c", "d"]


def test_a_sink_that_takes_nothing_refuses_nothing() -> None:
    run = Run(entries(*"abcdef"), lambda *_: True).go()
    assert run.refused == []
    assert run.taken == []


def test_a_sink_that_goes_down_while_records_come_alone_refuses_nothing() -> None:
    # Down but for offers 5 to 8, in which records are taken one at a time.
    run = Run(entries(*"abcdefghij"), lambda _, offer: not 5 <= offer <= 8).go()
    assert run.refused == []
    assert len(run.taken) == 4


def test_a_record_alone_is_no_evidence_against_itself() -> None:
    run = Run(entries("p"), lambda *_: True).go()
    assert run.refused == []
    assert run.one.wants_company
    run.one.extend(entries("a"))
    run._bad = lambda name, _: name == "p"
    run.go(400)
    assert run.refused == ["p"]
    assert run.taken == ["a"]


def test_unavailable_is_evidence_against_nobody() -> None:
    one = recovery(entries("a", "p"))
    for _ in range(50):
        one.unavailable(one.offer(), 1.0)
        assert not one.isolating
    assert not one.refused


def test_attempts_and_the_first_failure_are_remembered() -> None:
    pending = entries("a", "p")
    run = Run(pending, lambda name, _: name == "p").go()
    (bad,) = run.one.refused
    assert bad.attempts == 6
    assert bad.first_failed_at == 1.0
    assert bad.reason == "boom"


def test_what_was_abandoned_is_offered_no_more() -> None:
    pending = [*entries("a", "b"), *entries("c")]
    one = recovery(pending)
    one.unavailable(one.offer(), 1.0)
    pending[0].batch.abandoned = True
    assert [entry.record.text for entry in one.offer()] == ["c"]
    assert one.done == pending[:2]


def test_without_a_dead_letter_queue_records_are_offered_together_for_ever() -> None:
    one = recovery(entries("a", "p"), refusing=False)
    for _ in range(50):
        assert len(one.offer()) == 2
        assert one.failed(one.offer(), "boom", 1.0) == ()


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
            result = refusals.refused(count)
    assert result == allowed
