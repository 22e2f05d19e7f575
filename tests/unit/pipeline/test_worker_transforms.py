"""A worker whose sink has transforms: evidence before a dead letter, indices that stay right."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import logfan
from logfan.dead_letters.letter import Unsent
from logfan.pipeline.completions import Completions
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.record import Record
from logfan.runtime.backoff import Backoff
from logfan.stage.redact import Redactor
from logfan.stage.stage import Stage
from logfan.telemetry.metrics import SinkStats
from logfan.testing import record
from support.letters import Sent
from support.waiting import wait_until

Apply = Callable[[Sequence[Record]], Sequence[Record | None]]


class Calls(logfan.Transform):
    """Does what a function does."""

    function: Apply

    def apply(self, records: Sequence[Record]) -> Sequence[Record | None]:
        return self.function(records)


class Memory(logfan.Sink):
    """Keeps what it takes, and raises what it is given."""

    def __init__(self) -> None:
        super().__init__(logfan.SinkConfig(), name="memory")
        self.taken: list[bytes] = []
        self.failures: list[BaseException] = []

    def write(self, records: Sequence[Record]) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, logfan.RecordsRejected):
            left = failure.reasons.keys() | failure.later.keys()
            self.taken += [one.body for at, one in enumerate(records) if at not in left]
        if failure is not None:
            raise failure
        self.taken += [one.body for one in records]


class Bench:
    """A worker with one transform."""

    def __init__(self, function: Apply, max_ratio: float = 1.0, *, letters: bool = True) -> None:
        transform = Calls(Calls.Config())
        transform.function = function
        self.sink, self.stats, self.letters = Memory(), SinkStats(), Sent()
        completions = Completions(1, lambda call: call())
        completions.on_completed = self._on_completed
        self.tracker = completions.tracker
        self.worker = SinkWorker(
            sink=self.sink, limits=Limits(100, 1 << 20), backoff=Backoff(0.001, 0.01),
            stats=self.stats, completions=completions, number=0,
            stage=Stage(
                transforms=[("t", transform)], redactor=Redactor(["headers.secret"])
            ),
            send=self.letters if letters else None, max_ratio=max_ratio,
        )  # fmt: skip
        self.given = self.acked = 0

    def submit(self, *records: bytes) -> Batch:
        self.given += len(records)
        made = tuple(record(body, message_id=body.decode()) for body in records)
        batch = self.tracker.open(made, self.given, sum(map(len, records)), 0.0)
        self.worker.submit(batch)
        return batch

    def _on_completed(self) -> None:
        ack = self.tracker.advance()
        self.acked += 0 if ack is None else ack.messages

    def finish(self) -> None:
        self.worker.stop()
        assert self.worker.join(60)
        assert self.acked == self.given
        stats = self.stats
        assert stats.written + stats.filtered + stats.rejected == self.given
        assert stats.written == len(self.sink.taken)

    def run(self) -> None:
        """Have it do what it was given while it stood still, and end."""
        self.worker.start()
        self.finish()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(function: Apply, *arguments: Any, **keywords: Any) -> Bench:
        made.append(Bench(function, *arguments, **keywords))
        return made[-1]

    yield build
    for one in made:
        one.worker.give_up()
        one.worker.join(60)


Make = Callable[..., Bench]


def numbers(start: int, stop: int) -> list[bytes]:
    return [b"%d" % n for n in range(start, stop)]


def marked(records: Sequence[Record]) -> list[Record | None]:
    """Every third is filtered, the others get a mark."""
    return [
        one.replace(body=one.body + b"!") if int(one.body) % 3 else None for one in records
    ]  # fmt: skip


def poisoned(*bad: bytes) -> Apply:
    def apply(records: Sequence[Record]) -> list[Record | None]:
        if any(one.body in bad for one in records):
            raise ValueError("cannot do it")
        return marked(records)

    return apply


def test_what_it_gives_is_written_and_the_rest_is_filtered(bench: Make) -> None:
    one = bench(marked)
    one.submit(*numbers(0, 6))
    one.run()
    assert one.sink.taken == [b"1!", b"2!", b"4!", b"5!"]
    assert (one.stats.written, one.stats.filtered) == (4, 2)


def test_a_record_over_which_it_fails_is_dead_lettered_as_it_came(bench: Make) -> None:
    one = bench(poisoned(b"4"))
    one.submit(*numbers(0, 8))
    one.worker.start()
    wait_until(lambda: one.acked == 8, "all is done")
    assert one.worker.is_up
    one.finish()
    assert one.sink.taken == [b"1!", b"2!", b"5!", b"7!"]
    (letter,) = one.letters.refusals
    assert (letter.record.body, letter.record.message_id) == (b"4", "4")
    assert letter.reason == "transform t failed: ValueError: cannot do it"
    assert letter.attempts == 3
    assert (one.stats.written, one.stats.filtered, one.stats.rejected) == (4, 3, 1)


def test_it_is_evidence_enough_where_all_others_are_filtered(bench: Make) -> None:
    one = bench(poisoned(b"4"))
    one.submit(b"3", b"4", b"6")
    one.run()
    assert [letter.record.body for letter in one.letters.refusals] == [b"4"]
    assert (one.sink.taken, one.stats.filtered) == ([], 2)


def test_where_it_fails_over_all_the_sink_is_down_and_all_is_held(bench: Make) -> None:
    works = threading.Event()

    def apply(records: Sequence[Record]) -> list[Record | None]:
        if not works.is_set():
            raise ValueError("no table")
        return marked(records)

    one = bench(apply, 0.001)
    one.submit(*numbers(0, 4))
    one.worker.start()
    wait_until(lambda: one.stats.retries >= 8, "it is tried again and again")
    one.submit(*numbers(4, 8))
    retries = one.stats.retries
    wait_until(lambda: one.stats.retries >= retries + 8, "with what came meanwhile, too")
    assert not one.worker.is_up
    assert one.worker.failure == "transform t failed: ValueError: no table"
    assert (one.sink.taken, one.letters.refusals, one.worker.held) == ([], [], 8)
    works.set()
    one.finish()
    assert sorted(one.sink.taken) == [b"1!", b"2!", b"4!", b"5!", b"7!"]
    assert one.letters.refusals == []


def test_what_failed_in_an_outage_is_no_evidence_once_it_is_over(bench: Make) -> None:
    """It comes back in the middle of a batch: the first of it failed, and others pass."""
    left = [40]

    def apply(records: Sequence[Record]) -> list[Record | None]:
        left[0] -= 1
        if left[0] > 0:
            raise ValueError("no table")
        return marked(records)

    one = bench(apply)
    one.submit(*numbers(0, 9))
    one.run()
    assert one.letters.refusals == []
    assert len(one.sink.taken) == 6


def test_one_alone_is_held_until_another_shows_that_it_works(bench: Make) -> None:
    one = bench(poisoned(b"4"))
    one.submit(b"4")
    one.worker.start()
    wait_until(lambda: one.stats.retries >= 8, "it is tried again and again")
    assert one.letters.refusals == []
    assert not one.worker.is_up
    one.submit(b"5")
    one.finish()
    assert [letter.record.body for letter in one.letters.refusals] == [b"4"]
    assert one.sink.taken == [b"5!"]


def test_more_of_it_than_max_ratio_pauses_the_sink(bench: Make) -> None:
    one = bench(poisoned(*numbers(0, 20)), 0.01)
    one.submit(*numbers(0, 30))
    one.worker.start()
    wait_until(lambda: one.stats.paused, "it is paused")
    retries = one.stats.retries
    wait_until(lambda: one.stats.retries >= retries + 3, "it stays so")
    assert len(one.letters.refusals) == 10
    assert "max_ratio (0.01)" in str(one.worker.failure)
    assert one.acked == 0


def test_without_dead_letters_it_is_held_and_the_others_go_on(bench: Make) -> None:
    one = bench(poisoned(b"4"), letters=False)
    one.submit(b"4", b"5")
    one.worker.start()
    wait_until(lambda: one.sink.taken == [b"5!"], "the other is written")
    one.submit(b"7")
    wait_until(lambda: one.sink.taken == [b"5!", b"7!"], "what comes later, too")
    assert "dead_letter.enabled is false" in str(one.worker.failure)
    assert (one.worker.held, one.stats.rejected) == (2, 0)


def test_one_that_is_unavailable_proves_nothing_and_its_pace_is_kept(bench: Make) -> None:
    calls: list[int] = []

    def apply(records: Sequence[Record]) -> list[Record | None]:
        calls.append(len(records))
        if len(calls) < 12 and any(one.body == b"4" for one in records):
            raise logfan.SinkUnavailable("busy", retry_after=0.02)
        return marked(records)

    one = bench(apply)
    one.submit(b"4", b"5")
    one.run()
    assert one.letters.refusals == []
    assert sorted(one.sink.taken) == [b"4!", b"5!"]


@pytest.mark.parametrize("again", [True, False])
def test_a_refusal_of_the_sink_names_the_record_that_it_got(bench: Make, again: bool) -> None:
    """Also where a transform filters another one each time."""
    turns: list[int] = []

    def apply(records: Sequence[Record]) -> list[Record | None]:
        turns.append(0)
        kept = 0 if again else len(turns) % 2
        return [
            one.replace(body=one.body + b"!") if int(one.body) % 2 == kept else None
            for one in records
        ]

    one = bench(apply)
    one.sink.failures = [logfan.RecordsRejected({1: "no"}, later={2: "busy"})]
    one.submit(*numbers(0, 6))
    one.worker.start()
    one.worker.stop()
    assert one.worker.join(60)
    second = b"2" if again else b"3"
    assert [letter.record.body for letter in one.letters.refusals] == [second]
    assert one.sink.taken == ([b"0!", b"4!"] if again else [b"1!"])
    assert one.stats.written + one.stats.filtered + one.stats.rejected == 6
    assert one.acked == 6


def test_a_sink_that_fails_is_offered_the_same_again(bench: Make) -> None:
    one = bench(marked)
    one.sink.failures = [ValueError("a bug")] * 7 + [logfan.SinkUnavailable("full")] * 3
    one.submit(*numbers(0, 9))
    one.run()
    assert sorted(one.sink.taken) == [b"1!", b"2!", b"4!", b"5!", b"7!", b"8!"]
    assert (one.stats.filtered, one.letters.refusals) == (3, [])


def test_one_whose_letter_is_not_taken_is_offered_again_as_the_sink_gets_it(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan.pipeline.set_aside._OFFER_SECONDS", (0.01, 0.02))
    one = bench(marked)
    one.letters.failures = {0: Unsent("too large", own=True)}
    one.sink.failures = [logfan.RecordsRejected({0: "no"})]
    one.submit(b"5", b"7")
    one.worker.start()
    wait_until(lambda: one.acked == 2, "it is taken after all")
    one.finish()
    assert one.sink.taken == [b"7!", b"5!"]


def test_one_that_hangs_counts_as_a_sink_that_hangs(bench: Make) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def apply(records: Sequence[Record]) -> list[Record | None]:
        entered.set()
        go_on.wait(60)
        return marked(records)

    one = bench(apply)
    one.submit(b"1")
    one.worker.start()
    assert entered.wait(60)
    assert one.worker.health.busy_since is not None
    go_on.set()
    one.finish()
    assert one.worker.health.busy_since is None


def test_what_a_step_of_the_host_fails_over_is_held_without_a_dead_letter_queue(
    bench: Make,
) -> None:
    is_wrong = threading.Event()
    is_wrong.set()

    def apply(records: Sequence[Record]) -> list[Record]:
        wrong: Any = {1: "a name of a header that `redact` fails over"}
        return [
            one.replace(headers=wrong) if one.body == b"1" and is_wrong.is_set() else one
            for one in records
        ]

    one = bench(apply, letters=False)
    one.submit(*numbers(0, 3))
    one.worker.start()
    wait_until(lambda: "enabled is false" in (one.worker.failure or ""), "it is held and named")
    one.submit(*numbers(3, 6))
    wait_until(lambda: one.sink.taken == [b"0", *numbers(2, 6)], "all others are taken")
    assert one.worker.fault is None
    is_wrong.clear()
    wait_until(lambda: one.acked == 6, "it is taken once the step does not fail")
    assert one.worker.is_up
    one.finish()
