"""One answer to whether a sink is up: for metrics, /readyz, status and log alike."""

import logging
import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from logfan.pipeline.completions import Completions
from logfan.pipeline.in_flight import InFlightTracker
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.record import Properties, Record
from logfan.runtime.backoff import Backoff
from logfan.sink import Sink, SinkConfig, SinkUnavailable
from logfan.telemetry.metrics import LogfanCollector, Stats
from logfan.telemetry.sink_health import HANGS_AFTER_SECONDS, Health, Pause, Reminders, duration
from support.waiting import wait_until


def up(now: float) -> Health:
    health = Health(now)
    health.failure = None
    return health


def test_a_sink_is_down_from_its_start_until_it_is_opened() -> None:
    health = Health(100.0)
    assert (health.why(105.0), health.down_seconds(105.0)) == ("not opened yet", 5.0)
    health.failure = None
    assert (health.why(105.0), health.down_seconds(105.0)) == (None, 0.0)


def test_who_does_not_return_is_down_from_the_moment_that_it_is_too_long() -> None:
    health = up(0.0)
    health.busy_since = 100.0
    assert health.down_since(129.9) is None
    assert health.down_since(130.0) == 130.0
    assert health.down_seconds(145.0) == 15.0
    assert health.why(145.0) == "has not returned for 45 s"


def test_one_outage_may_begin_as_a_hang_and_go_on_as_a_failure() -> None:
    health = up(0.0)
    health.busy_since = 100.0
    health.failed("boom", 100.0, 150.0)
    health.busy_since = None
    assert health.down_since(200.0) == 130.0
    health.failed("boom again", 210.0, 220.0)
    assert (health.down_since(230.0), health.why(230.0)) == (130.0, "boom again")
    health.busy_since = 220.0
    assert health.why(260.0) == "boom again; and has not returned for 40 s"


def test_a_fault_stays_whatever_the_sink_does() -> None:
    health = up(0.0)
    health.failing_since = 7.0
    health.fault = "thread archivist ended: SystemExit"
    assert (health.down_since(9.0), health.why(9.0)) == (7.0, "thread archivist ended: SystemExit")


def test_a_paused_sink_is_down_until_the_limit_or_the_end_of_the_pause() -> None:
    pause = Pause()
    health = Health(0.0, pause)
    health.recovered(1.0)
    pause.begin(100.0, 60.0, "paused")
    assert (health.down_since(99.0), health.why(159.9)) == (100.0, "paused")
    health.failed("boom", 90.0, 95.0)
    assert (health.down_since(120.0), health.why(120.0)) == (95.0, "paused; and boom")
    health.recovered(121.0)
    assert (health.down_since(160.0), health.why(160.0)) == (None, None)
    pause.begin(200.0, 60.0, "paused")
    pause.begin(230.0, 10.0, "paused for less")
    assert (pause.since, pause.until, health.why(239.0)) == (200.0, 240.0, "paused for less")
    pause.end(235.0)
    assert health.down_since(235.0) is None
    pause.end(236.0)
    assert pause.until == 235.0


def test_reminders_come_at_growing_intervals_and_begin_anew_with_an_outage() -> None:
    reminders = Reminders()
    reminded = [now for now in range(20_000) if reminders.is_due(0.0, float(now))]
    assert reminded[:6] == [60, 180, 420, 900, 1860, 3780]
    assert {later - earlier for earlier, later in pairwise(reminded[6:])} == {3600}
    assert not reminders.is_due(None, 20_000.0)
    assert not reminders.is_due(20_001.0, 20_050.0)
    assert reminders.is_due(20_001.0, 20_061.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_reported_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


class HandClock:
    """Moved by hand; whoever waits goes on at once."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(0.001)


class Moody(Sink):
    """Hangs or fails as the test wants it."""

    def __init__(self) -> None:
        super().__init__(SinkConfig(), name="moody")
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.why = ""

    def write(self, records: Sequence[Record]) -> None:
        self.inside.set()
        self.go_on.wait(60)
        if self.why:
            raise SinkUnavailable(self.why)


class Watched:
    """A worker that was handed one record, and its metrics."""

    def __init__(self) -> None:
        self.clock, self.sink, stats = HandClock(), Moody(), Stats()
        stats.configure(["moody"])
        self.registry = CollectorRegistry()
        self.registry.register(LogfanCollector(stats, "9.9", self.clock))
        self.worker = SinkWorker(
            sink=self.sink, limits=Limits(100, 1000), backoff=Backoff(0.001, 0.001),
            stats=stats.sinks["moody"], completions=Completions(1, lambda _: None), number=0,
            clock=self.clock,
        )  # fmt: skip
        record = Record(b"a", "logs", "", False, 0.0, Properties())
        self.batch = InFlightTracker(1).open((record,), 1, 1, 0.0)
        self.worker.start()
        wait_until(lambda: self.worker.is_up, "it is up")
        self.worker.submit(self.batch)
        assert self.sink.inside.wait(60)

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"logfan_sink_{name}", {"sink": "moody"})

    def finish(self) -> None:
        self.sink.why = ""
        self.sink.go_on.set()
        wait_until(lambda: not self.worker.held, "it is written")
        self.worker.stop()
        assert self.worker.join(60)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("logfan")]


def test_a_hang_shows_in_metrics_and_log_at_the_same_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    one = Watched()
    one.clock.now += HANGS_AFTER_SECONDS - 0.1
    one.worker.look()
    assert (one.metric("up"), one.metric("down_seconds"), one.worker.failure) == (1.0, 0.0, None)
    assert messages(caplog) == []
    one.clock.now += 5.1
    one.worker.look()
    one.worker.look()
    assert (one.metric("up"), one.metric("down_seconds")) == (0.0, 5.0)
    assert one.worker.failure == "has not returned for 35 s"
    assert not one.worker.is_up
    (line,) = messages(caplog)
    assert "sink moody: has not returned from a call of its own code for 35 s" in line
    assert line.endswith("1 message held")
    one.clock.now += 56
    one.worker.look()
    assert messages(caplog)[1:] == [
        "sink moody: still down, for 1 min 1 s now: has not returned for 91 s; 1 message held"
    ]
    one.sink.go_on.set()
    wait_until(lambda: one.worker.is_up, "it is up again")
    assert messages(caplog)[2:] == [
        "sink moody: up again; it was down for 1 min 1 s (had not returned for 1 min 31 s)"
    ]
    assert (one.metric("up"), one.metric("down_seconds")) == (1.0, 0.0)
    one.finish()


def test_an_outage_is_reported_again_with_what_it_holds_and_its_end_with_how_long_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    one = Watched()
    one.sink.why = "the store is away"
    one.sink.go_on.set()
    wait_until(lambda: one.worker.stats.retries > 5, "it is tried again")
    for _ in range(1000):
        one.clock.now += 1
        one.worker.look()
    one.sink.why = ""
    wait_until(lambda: not one.worker.held, "it is written")
    first, *reminders, last = messages(caplog)
    assert first.startswith("sink moody: the store is away; retrying in")
    assert [words.split(": ")[1] for words in reminders] == [
        f"still down, for {after} now" for after in ("1 min", "3 min", "7 min", "15 min")
    ]
    assert all(words.endswith("the store is away; 1 message held") for words in reminders)
    assert last.startswith("sink moody: up again; it was down for 16 min 40 s (")
    one.finish()


@pytest.mark.slow
def test_a_failure_whose_text_changes_each_time_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Watched()
    one.sink.why = "port 1"
    one.sink.go_on.set()
    for n in range(200):
        one.sink.why = f"attempt {n * 'x'}"
        retries = one.worker.stats.retries
        wait_until(lambda before=retries: one.worker.stats.retries > before, "tried")  # type: ignore[misc]
    assert len(messages(caplog)) <= 10
    one.finish()
