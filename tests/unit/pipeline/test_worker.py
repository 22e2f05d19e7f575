"""One sink's worker: written, flushed, then settled; a failing sink is tried again alone."""

import gzip
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from logfan.dead_letters.letter import Refusal, Unsent
from logfan.pipeline import set_aside
from logfan.pipeline.completions import Completions
from logfan.pipeline.in_flight import Batch
from logfan.pipeline.set_aside import Send
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.record import Properties, Record
from logfan.runtime.backoff import Backoff
from logfan.sink import RecordsRejected, Sink, SinkConfig, SinkUnavailable
from logfan.stage.redact import Redactor
from logfan.stage.stage import Stage
from logfan.stage.where import Where
from logfan.telemetry.metrics import SinkStats
from support.letters import Sent
from support.waiting import wait_until


class Recorder(Sink):
    """Writes down every call, and fails when the test wants it."""

    def __init__(self) -> None:
        super().__init__(SinkConfig(), name="recorder")
        self.calls: list[str] = []
        self.taken: list[bytes] = []
        self.sizes: list[int] = []
        self.failures: list[BaseException] = []
        self.open_failures: list[BaseException] = []
        self.gate = threading.Event()
        self.gate.set()

    def open(self) -> None:
        self.calls.append("open")
        if self.open_failures:
            raise self.open_failures.pop(0)

    def write(self, records: Sequence[Record]) -> None:
        self.calls.append("write")
        self.gate.wait(60)
        if self.failures:
            raise self.failures.pop(0)
        self.sizes.append(len(records))
        self.taken += [record.body for record in records]

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")


class Completed(Completions):
    """Writes down what is completed, and does nothing else."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__(1, lambda _: None)
        self._calls = calls
        self.batches: list[Batch] = []

    def done(self, sink: int, batches: Sequence[Batch]) -> None:
        self._calls.append("settled")
        self.batches += batches


class Bench:
    """A worker at work, with the ledger's batches and what it settled."""

    def __init__(
        self,
        limits: Limits,
        *,
        required: bool = True,
        send: Send | None = None,
        stage: Stage | None = None,
    ) -> None:
        self.sink = Recorder()
        self.stats = SinkStats()
        completions = Completed(self.sink.calls)
        self.completed, self.tracker = completions.batches, completions.tracker
        self.worker = SinkWorker(
            sink=self.sink, limits=limits, backoff=Backoff(0.001, 0.01), stats=self.stats,
            completions=completions, number=0 if required else None, send=send, stage=stage,
        )  # fmt: skip
        self._tag = 0

    def submit(self, *bodies: bytes) -> Batch:
        self._tag += len(bodies)
        records = tuple(Record(body, "logs", "", False, 0.0, Properties()) for body in bodies)
        batch = self.tracker.open(records, self._tag, sum(map(len, bodies)), 0.0)
        self.worker.submit(batch)
        return batch

    def finish(self) -> None:
        self.worker.stop()
        assert self.worker.join(60)

    def run(self) -> None:
        """Have it do what it was given while it stood still, and end."""
        self.worker.start()
        self.finish()


Make = Callable[..., Bench]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Bench] = []

    def bench(limits: Limits | None = None, *, start: bool = True, **keywords: Any) -> Bench:
        made.append(Bench(limits or Limits(5000, 1 << 20), **keywords))
        if start:
            made[-1].worker.start()
        return made[-1]

    yield bench
    for one in made:
        one.sink.gate.set()
        one.worker.give_up()


def test_a_batch_is_settled_after_write_and_flush(make: Make) -> None:
    bench = make()
    batch = bench.submit(b"a", b"b")
    bench.finish()
    assert bench.sink.calls == ["open", "write", "flush", "settled", "close"]
    assert bench.completed == [batch]
    assert bench.sink.taken == [b"a", b"b"]
    assert bench.stats.written == 2


def test_what_waits_is_written_as_one(make: Make) -> None:
    bench = make(start=False)
    batches = [bench.submit(b"%d" % n) for n in range(10)]
    bench.run()
    assert bench.sink.sizes == [10]
    assert bench.completed == batches


def test_a_write_never_holds_more_than_the_limits(make: Make) -> None:
    bench = make(Limits(max_records=3, max_bytes=1 << 20), start=False)
    bench.submit(*[b"%d" % n for n in range(8)])
    bench.submit(b"8", b"9")
    bench.submit(b"10", b"11")
    bench.run()
    assert max(bench.sink.sizes) <= 3
    assert bench.sink.taken == [b"%d" % n for n in range(12)]
    assert len(bench.completed) == 3


def test_bytes_limit_a_write_too_but_a_large_record_still_passes(make: Make) -> None:
    bench = make(Limits(max_records=100, max_bytes=10), start=False)
    bench.submit(b"1234", b"5678", b"x" * 50, b"90")
    bench.run()
    assert bench.sink.sizes == [2, 1, 1]
    assert len(bench.completed) == 1


@pytest.mark.parametrize(
    "failure",
    [
        SinkUnavailable("disk full"), ValueError("a bug"), SystemExit(3), KeyboardInterrupt(),
        RecordsRejected({7: "names a record that is not there"}),
    ],
    ids=["unavailable", "bug", "exit", "interrupt", "nonsense"],
)  # fmt: skip
def test_any_failure_is_tried_again_until_it_works(make: Make, failure: BaseException) -> None:
    bench = make(start=False)
    bench.sink.failures = [failure, failure, failure]
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    assert len(bench.completed) == 1
    assert bench.stats.retries == 3
    assert bench.sink.calls[:3] == ["open", "write", "open"]


def test_a_sink_that_cannot_open_is_down_and_tried_again(make: Make) -> None:
    bench = make(start=False)
    bench.sink.open_failures = [SinkUnavailable("no disk")] * 3
    assert bench.worker.failure == "not opened yet"
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]


def test_an_abandoned_batch_is_not_written(make: Make) -> None:
    bench = make()
    bench.sink.gate.clear()
    bench.submit(b"first")
    wait_until(lambda: "write" in bench.sink.calls, "the first is being written")
    bench.submit(b"second")
    bench.tracker.abandon()
    bench.sink.gate.set()
    bench.finish()
    assert bench.sink.taken == [b"first"]


def test_an_abandoned_batch_is_not_retried(make: Make) -> None:
    bench = make(start=False)
    bench.sink.failures = [SinkUnavailable("down")] * 10_000
    bench.submit(b"a")
    bench.worker.start()
    wait_until(lambda: bench.stats.retries > 2, "it is tried again")
    bench.tracker.abandon()
    wait_until(lambda: bench.worker.held == 0, "it is let go")
    bench.sink.failures.clear()
    bench.finish()
    assert bench.sink.taken == []


def test_a_reopen_opens_after_what_was_submitted(make: Make) -> None:
    bench = make()
    bench.submit(b"a")
    wait_until(lambda: bench.completed, "the first is settled")
    bench.worker.reopen()
    wait_until(lambda: bench.sink.calls.count("open") == 2, "it is opened anew")
    bench.submit(b"b")
    bench.finish()
    assert bench.sink.taken == [b"a", b"b"]
    assert bench.stats.retries == 0


def test_given_up_it_ends_and_settles_nothing(make: Make) -> None:
    bench = make(start=False)
    bench.sink.failures = [SinkUnavailable("down")] * 10_000
    bench.submit(b"a")
    bench.worker.start()
    wait_until(lambda: bench.stats.retries > 2, "it is tried again")
    bench.worker.give_up()
    assert bench.worker.join(60)
    assert bench.completed == []
    assert bench.sink.calls[-1] == "close"


def test_an_optional_sink_drops_beyond_its_queue_and_counts_it(make: Make) -> None:
    limits = Limits(5000, 1 << 20, waiting_records=4, waiting_bytes=1 << 20)
    bench = make(limits, required=False)
    bench.sink.gate.clear()
    for n in range(10):
        bench.submit(b"%d" % n)
    assert bench.stats.dropped == 6
    bench.sink.gate.set()
    bench.finish()
    assert bench.sink.taken == [b"0", b"1", b"2", b"3"]
    assert bench.stats.written + bench.stats.dropped == 10


def test_linger_waits_for_company_but_not_for_what_cannot_come(make: Make) -> None:
    bench = make(Limits(5000, 1 << 20, linger=30.0, window=3))
    for n in range(3):
        bench.submit(b"%d" % n)
    # The window of three is in hand: waiting the half minute out would be in vain.
    wait_until(lambda: len(bench.completed) == 3, "all is settled")
    assert bench.sink.sizes == [3]


def test_an_order_not_to_linger_that_meets_the_one_before_holds(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the sink's thread has taken the one before, and has not obeyed it yet."""
    bench = make(Limits(5000, 1 << 20, linger=600.0), start=False)
    obey, more = bench.worker._obey, [b"second"]

    def meanwhile(order: Any) -> None:
        if more:
            bench.submit(more.pop())
            bench.worker.hurry()
        obey(order)

    monkeypatch.setattr(bench.worker, "_obey", meanwhile)
    bench.submit(b"first")
    bench.worker.hurry()
    bench.worker.start()
    wait_until(lambda: len(bench.completed) == 2, "both are written", 20.0)


def test_a_bug_is_reported_with_its_traceback_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bench = make(start=False)
    bench.sink.failures = [ValueError("a bug") for _ in range(5)]
    bench.submit(b"a")
    bench.run()
    logged = [record for record in caplog.records if "a bug" in record.getMessage()]
    assert len(logged) == 1
    assert "raise self.failures.pop(0)\nValueError: a bug" in logged[0].__dict__["traceback"]
    assert "1 message held" in logged[0].getMessage()


class Hostile(Exception):
    """Raises whatever it is asked for: its text, its class, its attributes."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


class HostileReasons(RecordsRejected):
    """Its reasons cannot be read."""

    def __init__(self) -> None:
        Exception.__init__(self, "no reasons")

    @property
    def reasons(self) -> dict[int, str]:  # type: ignore[override]
        raise SystemExit(4)


class HostileUnavailable(SinkUnavailable):
    """Has no text."""

    __str__ = __repr__ = Hostile.__str__


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Hostile(), "Hostile (its text cannot be read)"),
        (HostileUnavailable(), "HostileUnavailable (its text cannot be read)"),
        (HostileReasons(), "SystemExit: 4"),
        (RecordsRejected({Hostile(): "who"}), "Hostile (its text cannot be read)"),  # type: ignore[dict-item]
        (ValueError("\ud800" + "x" * (10 << 20)), "ValueError: \\ud800xxx"),
        (SinkUnavailable("y" * (10 << 20)), "yyyyy"),
    ],
    ids=["error", "unavailable", "reasons", "index", "long", "long unavailable"],
)
def test_a_failure_whose_text_is_hostile_ends_no_worker(
    make: Make, caplog: pytest.LogCaptureFixture, failure: BaseException, words: str
) -> None:
    caplog.set_level(logging.WARNING)
    bench = make(start=False)
    bench.sink.failures = [failure] * 2
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    (logged,) = [one.getMessage() for one in caplog.records if "retrying" in one.getMessage()]
    assert words in logged
    assert len(logged) < 1200


class Post:
    """Takes every refusal at once."""

    def __init__(self) -> None:
        self.failures: dict[int, Unsent] = {}
        self.reasons: list[str] = []

    def send(self, refusals: Sequence[Refusal]) -> "Post":
        self.reasons += [refusal.reason for refusal in refusals]
        return self

    def wait(self, seconds: float) -> bool:
        return True


def test_a_reason_that_is_hostile_or_endless_is_cut_where_it_is_taken(make: Make) -> None:
    post = Post()
    bench = make(start=False, send=post.send)
    reasons: dict[int, Any] = {0: Hostile(), 1: "x" * (10 << 20), 2: "\ud800"}
    bench.sink.failures = [RecordsRejected(reasons)]
    batch = bench.submit(b"a", b"b", b"c", b"d")
    bench.run()
    assert bench.completed == [batch]
    assert post.reasons[0] == "Hostile (its text cannot be read)"
    assert len(post.reasons[1]) == 1000
    assert post.reasons[2] == "\\ud800"


class Returned(Sent):
    """Dead letters that the broker does not take, until it does."""

    def __init__(self) -> None:
        super().__init__()
        self.works = False

    def __call__(self, refusals: Sequence[Refusal]) -> "Sent":
        self.refusals += refusals
        self.failures = {} if self.works else dict.fromkeys(range(len(refusals)), Unsent("full"))
        return self


def test_a_dead_letter_does_not_wait_for_a_sink_that_lingers(make: Make) -> None:
    sent = Returned()
    bench = make(Limits(5000, 8 << 20, linger=600.0), start=False, send=sent)
    bench.sink.failures = [RecordsRejected({0: "bad"})]
    bench.submit(b"bad", b"good")
    bench.worker.hurry()
    bench.worker.start()
    wait_until(lambda: "cannot be dead-lettered" in (bench.worker.failure or ""), "it waits")
    bench.submit(b"more")
    sent.works = True
    wait_until(lambda: bench.stats.rejected == 1, "the letter is sent", 20.0)
    wait_until(lambda: bench.worker.failure is None, "all is well")


def test_a_dead_letter_does_not_wait_for_a_sink_that_is_down(make: Make) -> None:
    sent = Returned()
    bench = make(start=False, send=sent)
    bench.sink.failures = [RecordsRejected({0: "bad"})]
    bench.submit(b"bad", b"good")
    bench.worker.start()
    wait_until(lambda: "cannot be dead-lettered" in (bench.worker.failure or ""), "it waits")
    bench.sink.failures = [SinkUnavailable("away", retry_after=3600.0)]
    bench.submit(b"more")
    wait_until(lambda: "away" in (bench.worker.failure or ""), "the sink is down")
    sent.works = True
    wait_until(lambda: bench.worker.held == 1, "the letter is sent")
    assert (bench.stats.rejected, bench.worker.failure) == (1, "away")


class Unanswered(Sent):
    """The broker does not take the first dead letter, and has not answered the others yet."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, refusals: Sequence[Refusal]) -> "Sent":
        is_first = not self.refusals
        self.refusals += refusals
        if is_first:
            self.failures = {0: Unsent("too large", own=True)}
            return self
        self.answers.clear()
        later = Unanswered()
        later.answers = self.answers
        return later

    def wait(self, seconds: float) -> bool:
        return self.answers.wait(seconds)


def test_a_letter_under_way_is_not_forgotten_where_another_one_is_to_be_sent(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "_OFFER_SECONDS", (0.01, 0.01))
    sent = Unanswered()
    bench = make(start=False, send=sent)
    bench.sink.failures = [RecordsRejected({0: "bad"}) for _ in range(10)]
    bench.submit(b"large")
    bench.worker.start()
    wait_until(lambda: len(sent.refusals) == 2, "its letter is sent again, alone")
    bench.submit(b"other")
    wait_until(lambda: len(bench.sink.failures) == 7, "the other one is refused")
    assert not bench.worker.join(2.5), "longer than an answer is waited for"
    sent.answers.set()
    wait_until(lambda: len(sent.refusals) == 3, "the other one's letter is sent")
    sent.answers.set()
    wait_until(lambda: bench.worker.held == 0, "both are done")
    assert [one.record.body for one in sent.refusals] == [b"large", b"large", b"other"]


ODD = Stage(where=Where.of({"n": [1, 3, 5, 7]}), redactor=Redactor(["n"]))


def numbers(count: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(count)]


def test_a_sink_gets_what_is_chosen_and_the_rest_is_settled(make: Make) -> None:
    bench = make(stage=ODD, start=False)
    batches = [bench.submit(*numbers(4)), bench.submit(b'{"n":2}'), bench.submit(b"text")]
    bench.run()
    assert bench.completed == batches
    assert bench.sink.taken == [b'{"n":"[redacted]"}'] * 2 + [b"text"]
    assert (bench.stats.written, bench.stats.filtered, bench.stats.undecided) == (3, 3, 1)


def test_a_batch_of_which_nothing_is_chosen_is_settled_without_a_write(make: Make) -> None:
    bench = make(stage=ODD)
    batch = bench.submit(b'{"n":2}')
    bench.finish()
    assert bench.completed == [batch]
    assert bench.sink.calls == ["open", "settled", "close"]


@pytest.mark.parametrize("failure", [SinkUnavailable("full"), ValueError("a bug")])
def test_what_is_filtered_is_counted_once_however_often_the_rest_is_tried(
    make: Make, failure: BaseException
) -> None:
    bench = make(stage=ODD, start=False, send=Sent())
    bench.sink.failures = [failure] * 5
    bench.submit(*numbers(8))
    bench.run()
    assert (bench.stats.written, bench.stats.filtered) == (4, 4)
    assert len(bench.sink.taken) == 4


def test_a_refusal_names_the_record_as_it_was_delivered(make: Make) -> None:
    sent = Sent()
    bench = make(stage=ODD, start=False, send=sent)
    bench.sink.failures = [RecordsRejected({1: "no"})]
    bench.submit(*numbers(6))
    bench.run()
    assert [one.record.body for one in sent.refusals] == [b'{"n":3}']
    assert (bench.stats.written, bench.stats.rejected, bench.stats.filtered) == (2, 1, 3)


def test_a_record_over_which_the_stage_fails_is_dead_lettered(make: Make) -> None:
    class Broken(Redactor):
        def apply(self, record: Record) -> Record:
            if record.body == b"bad":
                raise RuntimeError("over this one")
            return record

    sent = Sent()
    bench = make(stage=Stage(redactor=Broken()), start=False, send=sent)
    bench.submit(b"a", b"bad", b"b")
    bench.run()
    assert [one.record.body for one in sent.refusals] == [b"bad"]
    assert (
        "the stage before the sink failed: RuntimeError: over this one" in sent.refusals[0].reason
    )
    assert bench.sink.taken == [b"a", b"b"]


def test_what_is_wanted_later_is_offered_again_alone(make: Make) -> None:
    sent = Sent()
    bench = make(start=False, send=sent)
    bench.sink.failures = [
        RecordsRejected({0: "no"}, later={2: "busy", 3: "busy"}),
        RecordsRejected(later={0: "busy"}),
    ]
    batch = bench.submit(b"0", b"1", b"2", b"3", b"4")
    bench.run()
    assert bench.sink.taken == [b"2"]
    assert [one.record.body for one in sent.refusals] == [b"0"]
    assert (bench.stats.written, bench.stats.rejected, bench.stats.retries) == (4, 1, 2)
    assert bench.completed[0] == batch, "all but what stands aside"
    assert [one.records[0].body for one in bench.completed[1:]] == [b"3", b"2"]
    assert bench.sink.calls.count("open") == 1


def test_the_pace_that_a_sink_asks_for_is_kept(make: Make) -> None:
    bench = make(start=False)
    bench.sink.failures = [
        SinkUnavailable("busy", 0.3),
        RecordsRejected(later={0: "x"}, retry_after=0.3),
    ]
    bench.submit(b"a")
    began = time.monotonic()
    bench.worker.start()
    wait_until(lambda: bench.sink.taken, "it is taken")
    assert time.monotonic() - began >= 0.6


def test_a_long_pace_reads_well(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make(start=False)
    bench.sink.failures = [SinkUnavailable("busy", 99_999)]
    bench.submit(b"a")
    bench.worker.start()
    wait_until(lambda: "busy; retrying in 1 h; 1 message held" in caplog.text, "it is logged")
    bench.worker.retry_now()
    bench.finish()
    assert bench.sink.taken == [b"a"]


def test_a_pace_may_be_the_text_of_a_header(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make(start=False)
    bench.sink.failures = [SinkUnavailable("busy", " 20 ")]
    bench.submit(b"a")
    bench.worker.start()
    wait_until(lambda: "busy; retrying in 20 s" in caplog.text, "it is logged")
    bench.worker.retry_now()
    bench.finish()
    assert "retry_after" not in caplog.text


@pytest.mark.parametrize("pace", ["Wed, 21 Oct 2026 07:28:00 GMT", timedelta(seconds=5), [5]])
def test_a_pace_that_is_no_number_is_logged_once_with_the_sink(
    make: Make, caplog: pytest.LogCaptureFixture, pace: Any
) -> None:
    bench = make(start=False)
    bench.sink.failures = [
        SinkUnavailable("busy", pace), SinkUnavailable("away", pace),
        RecordsRejected(later={0: "x"}, retry_after=pace),
    ]  # fmt: skip
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    (line,) = [one for one in caplog.messages if "retry_after" in one]
    assert line == (
        f"sink recorder: asks for retry_after = {pace!r}, which is no number of seconds: the sink "
        "is tried again by its retry.* instead; a mistake of the plugin's author"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"0": "why"}, "names record '0', a str: an index is an int, the place in what write got"),
        ({1: "why"}, "names record 1 of a batch of 1: the index is the place in what write got"),
        ({True: "why"}, "names record True, a bool: an index is an int"),
    ],
)
def test_an_index_that_is_none_is_named_with_the_way_out(
    make: Make, caplog: pytest.LogCaptureFixture, given: Any, words: str
) -> None:
    bench = make(start=False)
    bench.sink.failures = [RecordsRejected(given)]
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    assert f"ValueError: RecordsRejected {words}" in caplog.text


async def _later() -> None: ...


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda: False, "returned False; it must return None where all is taken"),
        (lambda: RecordsRejected({0: "no"}), "returned a RecordsRejected; it must return None"),
        (lambda: SinkUnavailable, "returned a type; it must return None"),
        (_later, "returned a coroutine, so it has done nothing yet"),
        (lambda: (n for n in "a"), "returned a generator, so it has done nothing yet"),
        (lambda: map(str, ()), "returned a map, so it has done nothing yet"),
    ],
    ids=["False", "rejected", "unavailable", "coroutine", "generator", "map"],
)
@pytest.mark.parametrize("method", ["write", "flush"])
@pytest.mark.filterwarnings("ignore:coroutine")
def test_what_is_returned_in_place_of_work_or_of_an_error_settles_nothing(
    make: Make,
    caplog: pytest.LogCaptureFixture,
    method: str,
    returned: Callable[[], object],
    words: str,
) -> None:
    bench = make(start=False)
    real = getattr(bench.sink, method)
    first = iter([returned])

    def once(*given: Any) -> object:
        return one() if (one := next(first, None)) is not None else real(*given)

    setattr(bench.sink, method, once)
    bench.submit(b"a")
    bench.run()
    assert bench.stats.retries == 1
    assert f"TypeError: {method} {words}" in caplog.text
    assert bench.sink.taken[-1:] == [b"a"]
    assert len(bench.completed) == 1


def test_another_value_that_is_returned_is_no_failure(make: Make) -> None:
    bench = make(start=False)
    bench.sink.flush = lambda: 5  # type: ignore[method-assign, assignment]
    bench.submit(b"a")
    bench.run()
    assert bench.stats.retries == 0
    assert len(bench.completed) == 1


def test_a_refusal_at_open_names_what_open_may_raise(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make(start=False)
    bench.sink.open_failures = [RecordsRejected({0: "no"})]
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    assert "open raised RecordsRejected, and has no records; raise SinkUnavailable" in caplog.text


def test_records_come_as_a_tuple_on_every_way(make: Make) -> None:
    bench = make(start=False)
    seen: list[type] = []

    def write(records: Sequence[Record]) -> None:
        seen.append(type(records))
        if len(seen) < 3:
            raise ValueError("not yet")

    bench.sink.write = write  # type: ignore[method-assign]
    bench.submit(b"a", b"b")
    bench.run()
    assert seen == [tuple] * 3


@pytest.mark.parametrize("given", [["no"], "no", None, 0])
def test_a_refusal_without_indexes_names_what_it_takes(given: Any) -> None:
    words = f"^RecordsRejected takes {{index: why}}, not a {type(given).__name__}: the index is"
    with pytest.raises(TypeError, match=words):
        RecordsRejected(given)
    with pytest.raises(TypeError, match=words):
        RecordsRejected({0: "no"}, later=given)


def test_a_refusal_of_a_subclass_without_indexes_is_a_failure_that_names_them(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(RecordsRejected):
        def __init__(self) -> None:
            self.reasons = ["no"]  # type: ignore[assignment]

    bench = make(start=False)
    bench.sink.failures = [Own()]
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    assert "TypeError: RecordsRejected takes {index: why}, not a list" in caplog.text


@pytest.mark.parametrize(
    "pace", [float("nan"), float("-inf"), -1, "soon", "nan", None, [], True, 10**400]
)
def test_a_pace_that_is_none_is_no_pace(make: Make, pace: Any) -> None:
    bench = make(start=False)
    bench.sink.failures = [SinkUnavailable("busy", pace)]
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]


def test_a_record_cannot_be_refused_and_wanted_later(make: Make) -> None:
    bench = make(start=False)
    bench.sink.failures = [RecordsRejected({0: "no"}, later={0: "busy"})]
    bench.submit(b"a")
    bench.run()
    assert bench.sink.taken == [b"a"]
    assert bench.stats.rejected == 0


def test_small_bodies_that_become_large_are_written_in_pieces(make: Make) -> None:
    large = [gzip.compress(b"%d" % n * (300 << 10)) for n in range(10)]
    bench = make(stage=Stage(decode_bytes=1 << 20), start=False)
    batches = [bench.submit(*large[:7]), bench.submit(*large[7:], b"plain")]
    bench.run()
    assert bench.sink.sizes == [3, 3, 3, 2]
    assert [body[:1] for body in bench.sink.taken] == [b"%d" % n for n in range(10)] + [b"p"]
    assert bench.completed == batches
    assert bench.stats.written == 11


@pytest.mark.parametrize("failure", [SinkUnavailable("full"), ValueError("a bug")])
@pytest.mark.parametrize("count", [1, 4, 8])
def test_pieces_that_a_sink_does_not_take_come_again_in_pieces(
    make: Make, failure: BaseException, count: int
) -> None:
    large = [gzip.compress(b"%d" % n * (300 << 10)) for n in range(10)]
    sent = Sent()
    bench = make(stage=Stage(decode_bytes=1 << 20), start=False, send=sent)
    bench.sink.failures = [failure] * count
    bench.submit(*large)
    bench.run()
    assert max(bench.sink.sizes) <= 3
    assert sorted(body[:1] for body in bench.sink.taken) == [b"%d" % n for n in range(10)]
    assert (bench.stats.written, sent.refusals) == (10, [])


def test_a_refusal_in_a_later_piece_names_the_record_as_it_was_delivered(make: Make) -> None:
    large = [gzip.compress(b"%d" % n * (300 << 10)) for n in range(6)]
    sent = Sent()
    bench = make(stage=Stage(decode_bytes=1 << 20), start=False, send=sent)
    bench.sink.failures = [SinkUnavailable("full"), RecordsRejected({2: "no"})]
    bench.submit(*large)
    bench.run()
    assert [one.record.body for one in sent.refusals] == [large[2]]
    assert (bench.stats.written, bench.stats.rejected) == (5, 1)


def test_a_body_that_cannot_be_decoded_goes_on_and_is_logged_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    torn = b"\x1f\x8b torn"
    bench = make(stage=Stage(decode_bytes=1 << 20))
    for tag in (2, 4, 6):
        records = (Record(torn, "logs", "", False, 0.0, Properties(content_encoding="gzip")),) * 2
        bench.worker.submit(bench.tracker.open(records, tag, 12, 0.0))
    bench.finish()
    assert bench.sink.taken == [torn] * 6
    assert (bench.stats.written, bench.stats.undecided) == (6, 6)
    lines = [one.getMessage() for one in caplog.records if "decoded" in one.getMessage()]
    assert len(lines) == 1
    assert "sink recorder: the body cannot be decoded: gzip: the stream is" in lines[0]


def test_a_paused_sink_is_offered_nothing_and_nothing_counts_as_a_retry(make: Make) -> None:
    bench = make()
    bench.submit(b"before")
    wait_until(lambda: bench.completed, "it is written")
    bench.worker.pause(3600.0)
    bench.submit(b"a")
    bench.submit(b"b")
    wait_until(lambda: not bench.worker.is_up, "it is paused")
    bench.worker.retry_now()
    bench.worker.pause(3600.0)
    assert bench.worker.failure is not None
    assert bench.worker.failure.startswith("paused by `logfan pause` until ")
    assert bench.sink.taken == [b"before"]
    bench.worker.resume()
    wait_until(lambda: not bench.worker.held, "it goes on")
    assert bench.worker.is_up
    assert bench.sink.taken == [b"before", b"a", b"b"]
    assert bench.sink.calls.count("open") == 2
    assert (bench.stats.retries, bench.stats.written) == (0, 3)
    bench.finish()


def test_a_pause_that_comes_during_a_call_begins_with_its_end(make: Make) -> None:
    bench = make()
    bench.sink.gate.clear()
    bench.submit(b"a")
    wait_until(lambda: "write" in bench.sink.calls, "it writes")
    bench.submit(b"b")
    handed_back = bench.submit(b"c")
    bench.worker.pause(3600.0)
    bench.sink.gate.set()
    wait_until(lambda: bench.worker.held == 2, "it has returned, and is settled")
    for _ in range(3):
        bench.worker.retry_now()
        wait_until(lambda: not bench.worker._runner.wake.is_set(), "it looks again")
    handed_back.abandoned = True
    assert bench.sink.taken == [b"a"]
    bench.worker.resume()
    bench.finish()
    assert bench.sink.taken == [b"a", b"b"]
    assert bench.stats.retries == 0


def test_a_pause_that_comes_while_a_sink_opens_begins_with_its_end(make: Make) -> None:
    bench = make(start=False)

    def pause(calls: list[str]) -> None:
        bench.worker.pause(3600.0)
        bench.sink.open = lambda: calls.append("open again")  # type: ignore[method-assign]

    bench.sink.open = lambda: pause(bench.sink.calls)  # type: ignore[method-assign]
    bench.submit(b"a")
    bench.worker.start()
    wait_until(lambda: bench.worker.has_opened, "it is open")
    wait_until(lambda: not bench.worker.busy_seconds(), "it has returned")
    assert bench.sink.taken == []
    bench.worker.resume()
    bench.finish()
    assert bench.sink.taken == [b"a"]
    assert bench.sink.calls[0] == "open again"


def test_a_failing_sink_is_not_tried_while_it_is_paused_and_a_stop_need_not_wait(
    make: Make,
) -> None:
    bench = make()
    bench.sink.failures = [SinkUnavailable("away")] * 1000
    bench.submit(b"a")
    wait_until(lambda: bench.stats.retries > 1, "it is tried again and again")
    bench.worker.pause(3600.0)
    wait_until(lambda: not bench.worker.busy_seconds(), "it has returned")
    calls = len(bench.sink.calls)
    bench.worker.retry_now()
    bench.worker.stop()
    assert not bench.worker.join(0.2), "something is held"
    assert len(bench.sink.calls) == calls
    bench.worker.give_up()
    assert bench.worker.join(60)
    assert bench.sink.taken == []
    assert bench.stats.retries == 1000 - len(bench.sink.failures), "a pause is no retry"


def test_what_waits_for_a_sink_that_is_down_is_let_go_once_it_is_abandoned(make: Make) -> None:
    bench = make()
    bench.submit(b"a")
    wait_until(lambda: bench.completed, "it has opened")
    bench.sink.open_failures = [SinkUnavailable("down")] * 10_000
    bench.worker.reopen()
    wait_until(lambda: bench.stats.retries > 1, "it is down")
    for number in range(5):
        bench.submit(b"%d" % number)
        bench.tracker.abandon()
    bench.submit(b"kept")
    wait_until(lambda: bench.worker.held == 1, "the others are let go")
    bench.sink.open_failures.clear()
    bench.finish()
    assert bench.sink.taken == [b"a", b"kept"]


@pytest.mark.parametrize("required", [True, False])
def test_a_stop_does_not_wait_for_a_sink_that_is_down_and_need_not_be_up(
    make: Make, required: bool
) -> None:
    """What it held was abandoned, or it is optional and misses it."""
    bench = make(required=required)
    bench.submit(b"a")
    wait_until(lambda: bench.stats.written, "it has opened")
    bench.sink.open_failures = [SinkUnavailable("down", retry_after=600.0)] * 10
    bench.worker.reopen()
    wait_until(lambda: bench.stats.retries, "it is down")
    bench.submit(b"b", b"c")
    if required:
        bench.tracker.abandon()
    bench.worker.stop()
    assert bench.worker.join(30)
    assert bench.sink.taken == [b"a"]
    assert bench.stats.dropped == (0 if required else 2)


def test_what_a_sink_failed_over_is_let_go_once_it_is_abandoned_not_after_the_wait(
    make: Make,
) -> None:
    bench = make()
    bench.sink.failures = [SinkUnavailable("down", retry_after=600.0)] * 10
    bench.submit(b"a", b"b")
    wait_until(lambda: bench.stats.retries, "it is down")
    bench.tracker.abandon()
    wait_until(lambda: bench.worker.held == 0, "it is let go")
    assert bench.stats.retries == 1
    bench.worker.give_up()


def test_a_reopen_opens_once(make: Make) -> None:
    """A sink that asks for time gets it."""
    bench = make()
    bench.submit(b"a")
    wait_until(lambda: bench.completed, "it has opened")
    bench.sink.open_failures = [SinkUnavailable("down", retry_after=600.0)] * 10
    bench.worker.reopen()
    wait_until(lambda: bench.stats.retries, "it is down")
    assert not bench.worker.join(0.1)
    assert bench.sink.calls.count("open") == 2
    bench.worker.retry_now()
    wait_until(lambda: bench.sink.calls.count("open") == 3, "it is tried again")


def test_a_sink_that_hangs_in_open_writes_nothing_once_it_was_given_up(make: Make) -> None:
    """It may return long after a reload, when another has its records."""
    bench = make()
    bench.submit(b"a")
    wait_until(lambda: bench.completed, "it has opened")
    inside, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        let_go.wait(60)

    bench.sink.failures = [SinkUnavailable("down")]
    bench.sink.open = hang  # type: ignore[method-assign]
    bench.submit(b"b")
    assert inside.wait(60)
    bench.worker.give_up()
    let_go.set()
    assert bench.worker.join(60)
    assert bench.sink.taken == [b"a"]
    assert bench.sink.calls[-1] == "close"
