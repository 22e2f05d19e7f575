"""The daemon's own catalogue."""

import math
import re

from prometheus_client import CollectorRegistry, generate_latest

from logfan.telemetry.metrics import Histogram, LogfanCollector, Stats

CATALOGUE = {
    "logfan_build_info": "gauge",
    "logfan_connected": "gauge",
    "logfan_consuming": "gauge",
    "logfan_connections_total": "counter",
    "logfan_received_messages_total": "counter",
    "logfan_received_bytes_total": "counter",
    "logfan_redelivered_messages_total": "counter",
    "logfan_acked_messages_total": "counter",
    "logfan_requeued_messages_total": "counter",
    "logfan_abandoned_messages_total": "counter",
    "logfan_dead_lettered_records_total": "counter",
    "logfan_in_flight_messages": "gauge",
    "logfan_in_flight_bytes": "gauge",
    "logfan_oldest_unacknowledged_seconds": "gauge",
    "logfan_dead_letters_waiting": "gauge",
    "logfan_delivery_count_max": "gauge",
    "logfan_queue_ready_messages": "gauge",
    "logfan_rebound_total": "counter",
    "logfan_sink_records_total": "counter",
    "logfan_sink_retries_total": "counter",
    "logfan_sink_undecided_records_total": "counter",
    "logfan_sink_up": "gauge",
    "logfan_sink_down_seconds": "gauge",
    "logfan_sink_paused": "gauge",
    "logfan_sink_pause_seconds": "gauge",
    "logfan_sink_write_seconds": "histogram",
    "logfan_delivery_seconds": "histogram",
}


def exposed(stats: Stats) -> str:
    registry = CollectorRegistry()
    registry.register(LogfanCollector(stats, "9.9"))
    return generate_latest(registry).decode()


def test_the_catalogue_is_complete_and_nothing_more() -> None:
    stats = Stats()
    stats.configure(["a"])
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposed(stats), re.MULTILINE))
    assert types == CATALOGUE


def test_all_label_sets_are_there_from_the_start() -> None:
    stats = Stats()
    stats.configure(["a", "b"])
    text = exposed(stats)
    for outcome in ("opened", "failed", "lost"):
        assert f'logfan_connections_total{{outcome="{outcome}"}} 0.0' in text
    for sink in ("a", "b"):
        for outcome in ("written", "rejected", "dropped"):
            assert f'logfan_sink_records_total{{outcome="{outcome}",sink="{sink}"}} 0.0' in text
        assert f'logfan_sink_write_seconds_count{{sink="{sink}"}} 0.0' in text
        assert f'logfan_sink_down_seconds{{sink="{sink}"}}' in text
    assert 'logfan_build_info{version="9.9"} 1.0' in text
    assert "logfan_queue_ready_messages NaN" in text
    assert "logfan_dead_letters_waiting NaN" in text
    assert "logfan_oldest_unacknowledged_seconds 0.0" in text


def test_received_is_the_sum_of_its_ends() -> None:
    stats = Stats()
    consumer = stats.consumer
    consumer.received_messages, consumer.acked = 100, 60
    consumer.requeued, consumer.abandoned = 5, 15
    assert "logfan_in_flight_messages 20.0" in exposed(stats)
    assert consumer.in_flight_messages == 20


def test_a_histogram_is_cumulative_at_the_scrape() -> None:
    histogram = Histogram([1.0, 2.0])
    histogram.observe(1.0)
    histogram.observe(1.5, 3)
    histogram.observe(99.0)
    assert histogram.buckets() == [("1.0", 1), ("2.0", 4), ("+Inf", 5)]
    assert math.isclose(histogram.sum, 104.5)


def test_a_reload_keeps_the_numbers_of_sinks_that_stay() -> None:
    stats = Stats()
    stats.configure(["a", "b"])
    stats.sinks["a"].written = 7
    stats.configure(["a", "c"])
    assert list(stats.sinks) == ["a", "c"]
    assert stats.sinks["a"].written == 7
