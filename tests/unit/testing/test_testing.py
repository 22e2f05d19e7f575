"""What authors of sinks test with: the pipeline without a broker, the clock, the records."""

import threading
from collections.abc import Sequence

import pytest

import logfan
from logfan.testing import FakeClock, Pipeline, hostile_records, record
from support.waiting import wait_until


class Flaky(logfan.Sink):
    """Fails as often as the test wants it."""

    failures = 0

    def open(self) -> None:
        self.opened = getattr(self, "opened", 0) + 1
        self.taken: list[bytes] = getattr(self, "taken", [])
        self.closed = False

    def write(self, records: Sequence[logfan.Record]) -> None:
        if self.failures:
            self.failures -= 1
            raise logfan.SinkUnavailable("not now")
        self.taken += [one.body for one in records]

    def close(self) -> None:
        self.closed = True


def flaky(name: str = "flaky") -> Flaky:
    return Flaky(Flaky.Config(), name=name)


def test_a_pipeline_acknowledges_only_what_all_sinks_have() -> None:
    good, bad = flaky("good"), flaky("bad")
    bad.failures = 10**9
    with Pipeline(good, bad) as pipeline:
        pipeline.deliver(record("a"), record("b"))
        with pytest.raises(TimeoutError, match=r"0 of 2 acknowledged.*bad.*not now"):
            pipeline.wait_acked(2, seconds=0.2)
        assert good.taken == [b"a", b"b"]
        bad.failures = 0
        pipeline.wait_acked(2)
        pipeline.deliver(record("c"))
        pipeline.wait_acked(3)
    assert good.taken == bad.taken == [b"a", b"b", b"c"]
    assert (good.opened, good.closed, bad.closed) == (1, True, True)
    assert pipeline.numbers["good"].retries == 0
    assert pipeline.numbers["bad"].retries > 0


def test_what_is_acknowledged_is_true_at_any_moment() -> None:
    sink = flaky()
    with Pipeline(sink) as pipeline:
        pipeline.deliver(record("a"), record("b"))
        wait_until(lambda: pipeline.acked == 2, "without a call of wait_acked")
        sink.failures = 10**9
        pipeline.deliver(record("c"))
        wait_until(lambda: pipeline.numbers["flaky"].retries > 2, "the sink fails")
        assert pipeline.acked == 2
        sink.failures = 0
    assert pipeline.acked == len(sink.taken)


class Picky(Flaky):
    """Refuses what is odd, and asks for time."""

    asks = 1

    def write(self, records: Sequence[logfan.Record]) -> None:
        if self.asks:
            self.asks -= 1
            raise logfan.SinkUnavailable("later", retry_after=3600)
        odd = {at: "odd" for at, one in enumerate(records) if int(one.body) % 2}
        self.taken += [one.body for at, one in enumerate(records) if at not in odd]
        if odd:
            raise logfan.RecordsRejected(odd)


def test_a_pipeline_shows_what_was_refused_and_waits_for_no_pace() -> None:
    picky, good = Picky(Picky.Config(), name="picky"), flaky("good")
    with Pipeline(picky, good) as pipeline:
        pipeline.deliver(*(record(str(n)) for n in range(4)))
        pipeline.wait_acked(4)
    assert picky.taken == [b"0", b"2"]
    assert len(good.taken) == 4
    refused = pipeline.refused["picky"]
    assert [(one.record.body, one.reason) for one in refused] == [(b"1", "odd"), (b"3", "odd")]
    assert pipeline.refused["good"] == []


def test_a_pipeline_tells_sinks_of_one_name_apart() -> None:
    with pytest.raises(ValueError, match="one name"):
        Pipeline(flaky(), flaky())


def test_a_wait_on_the_fake_clock_ends_when_the_clock_passes_it() -> None:
    clock, event, ended = FakeClock(), threading.Event(), threading.Event()

    def wait() -> None:
        clock.wait(event, 60.0)
        ended.set()

    start = clock.monotonic()
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    clock.advance(59.0)
    assert not ended.wait(0.05)

    # The thread may have begun to wait after the first step: then it waits for one step more.
    def past_the_end() -> bool:
        clock.advance(1.0)
        return ended.is_set()

    wait_until(past_the_end, "the wait is over")
    thread.join(60)
    assert not event.is_set()
    assert clock.monotonic() - start >= 60.0


def test_a_wait_on_the_fake_clock_ends_when_its_event_is_set() -> None:
    clock, event = FakeClock(), threading.Event()
    threading.Timer(0.05, event.set).start()
    assert clock.wait(event, 3600.0)


def test_hostile_records_are_what_they_are_called() -> None:
    records = hostile_records()
    assert records["large"].size == 16 << 20
    assert records["empty"].body == b""
    with pytest.raises(UnicodeDecodeError):
        records["not utf-8"].body.decode()
    with pytest.raises(ValueError, match="not JSON"):
        records["deep json"].json()
    assert records["escapes in json"].json()["level"] == "error"
