"""Rates and the ring of ten minutes, by a clock that the test moves."""

from dataclasses import replace

import pytest

from logfan.telemetry.history import (
    INTERVAL_SECONDS,
    POINTS,
    History,
    Look,
    Rates,
    Sample,
    SinkRates,
    SinkSample,
    sample_of,
)
from logfan.telemetry.metrics import OTHER_REASONS, REASONS, Stats


class Flow:
    """A daemon's counters, moved on second by second, with a look at the queue every 5 s."""

    def __init__(self, ready: int | None = None) -> None:
        self.history = History()
        self.ready = ready
        self.now = Sample(1000.0)
        self._look()
        self.history.note(self.now)

    def _look(self) -> None:
        if self.ready is not None:
            self.now = replace(self.now, queue=Look(self.ready, self.now.at))

    def run(self, seconds: int, *, published: int = 0, acknowledged: int = 0) -> None:
        """So many a second. What is acknowledged was received in the same second."""
        for _ in range(seconds):
            if self.ready is not None:
                self.ready += published - acknowledged
            self.now = replace(
                self.now, at=self.now.at + 1.0, received=self.now.received + acknowledged,
                acknowledged=self.now.acknowledged + acknowledged,
            )  # fmt: skip
            if self.now.at % 5 == 0:
                self._look()
            self.history.note(self.now)

    @property
    def rates(self) -> Rates:
        return self.history.rates(self.now)


def test_rates_are_means_of_the_last_ten_seconds() -> None:
    flow = Flow()
    flow.run(60, acknowledged=1000)
    flow.run(5, acknowledged=0)
    assert flow.rates.acknowledged == flow.rates.received == 500.0
    flow.run(5, acknowledged=0)
    assert flow.rates.acknowledged == 0.0


def test_after_the_start_there_are_rates_over_what_there_is() -> None:
    flow = Flow()
    assert flow.rates == Rates()
    flow.run(2, acknowledged=50)
    assert flow.rates.acknowledged == 50.0


def test_nothing_is_known_of_a_queue_that_was_not_seen_twice() -> None:
    blind, once = Flow(), Flow(ready=100)
    blind.run(20, acknowledged=10)
    once.run(3, acknowledged=10)
    for flow in (blind, once):
        assert (flow.rates.published, flow.rates.time_to_drain) == (None, None)


@pytest.mark.parametrize("seconds", range(15, 21))
def test_time_to_drain_is_right_however_old_the_last_look_at_the_queue_is(seconds: int) -> None:
    flow = Flow(ready=100_000)
    flow.run(seconds, published=300, acknowledged=1300)
    assert flow.rates.published == pytest.approx(300.0)
    assert flow.rates.time_to_drain == pytest.approx(100.0 - seconds)


def test_a_queue_that_grows_or_stands_still_has_no_time_to_drain() -> None:
    for published in (100, 200):
        flow = Flow(ready=1000)
        flow.run(20, published=published, acknowledged=100)
        assert flow.rates.time_to_drain is None


def test_an_empty_queue_is_drained() -> None:
    flow = Flow(ready=0)
    flow.run(20, published=100, acknowledged=100)
    assert flow.rates.time_to_drain == 0.0


def test_a_window_that_fills_while_nothing_is_acknowledged_does_not_drain_the_queue() -> None:
    flow = Flow(ready=5000)
    flow.run(20)
    flow.now = replace(flow.now, received=1000, in_flight=1000, queue=Look(4000, flow.now.at))
    assert flow.rates.published == 0.0
    assert flow.rates.time_to_drain is None


def test_the_ring_holds_ten_minutes_and_no_more() -> None:
    flow = Flow(ready=0)
    flow.run(1200, acknowledged=7, published=7)
    points = flow.history.points
    assert len(points) == POINTS == 600 / INTERVAL_SECONDS
    assert {(one.received, one.acknowledged, one.queue_ready) for one in points} == {(7.0, 7.0, 0)}
    assert flow.now.at - 1.0 - INTERVAL_SECONDS < (flow.history.until or 0.0) <= flow.now.at


def test_where_no_sample_came_for_long_the_ring_keeps_to_the_clock() -> None:
    flow = Flow()
    flow.run(5, acknowledged=10)
    flow.now = replace(flow.now, at=flow.now.at + 20.0, acknowledged=flow.now.acknowledged + 40)
    flow.history.note(flow.now)
    assert [one.acknowledged for one in flow.history.points] == [10.0, 2.0, 2.0, 2.0, 2.0]


def test_samples_are_bounded_however_often_they_are_noted() -> None:
    history = History()
    for number in range(10_000):
        history.note(Sample(1000.0 + number / 100))
    assert len(history._recent) <= 23


def test_a_sink_has_its_rate_and_the_mean_time_of_its_batches() -> None:
    history = History()
    history.note(Sample(0.0, sinks={"a": SinkSample(100, 10, 5.0)}))
    now = Sample(10.0, sinks={"a": SinkSample(600, 60, 10.0), "new": SinkSample(9, 9, 9.0)})
    assert history.sink("a", now) == SinkRates(50.0, 0.1)
    assert history.sink("new", now) == history.sink("gone", now) == SinkRates()


def test_the_ring_has_the_rate_of_each_sink_that_was_there_all_the_time() -> None:
    history = History()
    history.note(Sample(0.0, sinks={"a": SinkSample(100), "gone": SinkSample(1)}))
    history.note(Sample(5.0, sinks={"a": SinkSample(600), "new": SinkSample(9)}))
    history.note(Sample(10.0, sinks={"a": SinkSample(600), "new": SinkSample(19)}))
    assert [one.sinks for one in history.points] == [{"a": 100.0}, {"a": 0.0, "new": 2.0}]


def test_a_sample_holds_what_the_stats_have() -> None:
    stats = Stats()
    stats.configure(["a"])
    stats.consumer.received_messages, stats.consumer.acked = 10, 7
    stats.consumer.queue_ready, stats.consumer.queue_seen_at = 3, 4.5
    stats.sinks["a"].written = 6
    stats.sinks["a"].write_seconds.observe(0.5)
    assert sample_of(stats, 5.0) == Sample(
        5.0, 10, 7, 3, Look(3, 4.5), {"a": SinkSample(6, 1, 0.5)}
    )


def test_reasons_of_dead_letters_are_counted_within_a_bound() -> None:
    stats = Stats()
    stats.configure(["a"])
    for number in range(100):
        for _ in range(2):
            stats.sinks["a"].note_dead_letter(f"bad {number}\n{'x' * 5000}")
    reasons = stats.sinks["a"].dead_letter_reasons
    assert len(reasons) == REASONS + 1
    assert reasons[OTHER_REASONS] == 2 * (100 - REASONS)
    assert sum(reasons.values()) == stats.sinks["a"].dead_lettered == 200
    assert max(map(len, reasons)) <= 200
