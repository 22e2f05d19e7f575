"""The catalogue: plain numbers on the hot path, a collector that exposes them at the scrape.

Each number has one writer: the consumer's I/O thread for `ConsumerStats`, a sink's own thread for
its `SinkStats` (but `dropped`, which the I/O thread counts). Readers may be a little behind.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from logfan.runtime.clock import SYSTEM_CLOCK, Clock
from logfan.telemetry.sink_health import Health

# From a sink in memory to one on a bad disk; from a local broker to a long outage of a sink.
WRITE_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                1.0, 2.5, 5.0, 10.0, 60.0)  # fmt: skip
DELIVERY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                   10.0, 30.0, 60.0, 300.0, 1800.0)  # fmt: skip


class Histogram:
    """Counts by upper bound, in seconds; the last count is of what is above every bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` observations of `value`."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        total = 0
        result: list[tuple[str, float]] = []
        for bound, count in zip((*self.bounds, math.inf), list(self.counts), strict=True):
            total += count
            result.append(("+Inf" if bound == math.inf else str(bound), total))
        return result


@dataclass(slots=True)
class ConsumerStats:
    """What the consumer counts."""

    connected: bool = False
    consuming: bool = False
    connections_opened: int = 0
    connections_failed: int = 0
    connections_lost: int = 0
    received_messages: int = 0
    received_bytes: int = 0
    redelivered: int = 0
    acked: int = 0
    requeued: int = 0
    abandoned: int = 0
    in_flight_bytes: int = 0
    delivery_count_max: int = 0
    """The highest `x-delivery-count` of a message so far."""
    queue_ready: int | None = None
    """None where it is not known."""
    rebound: int = 0
    oldest: Callable[[], float | None] = lambda: None
    """When the oldest unacknowledged message was received, in monotonic seconds; None where there
    is none. Set by the dispatcher, and called at the scrape."""
    dead_letters_waiting: int | None = None
    """None where it is not known."""
    delivery_seconds: Histogram = field(default_factory=lambda: Histogram(DELIVERY_BOUNDS))

    def note_dead_letters(self, waiting: int | None) -> None:
        """So many wait in the dead-letter queue. Called by the dead letters' thread."""
        self.dead_letters_waiting = waiting

    def note_delivery_count(self, count: int) -> None:
        """A quorum queue says that it delivered a message so often before."""
        self.delivery_count_max = max(self.delivery_count_max, count)

    @property
    def in_flight_messages(self) -> int:
        """Received and neither acknowledged, requeued nor abandoned."""
        return max(0, self.received_messages - self.acked - self.requeued - self.abandoned)


@dataclass(slots=True)
class SinkStats:
    """What one sink's worker counts."""

    health: Health = field(default_factory=lambda: Health(0.0))
    """Put here by who runs the sink."""
    paused: bool = False
    """Refuses too much, so that nothing more of it is dead-lettered."""
    written: int = 0
    rejected: int = 0
    dropped: int = 0
    retries: int = 0
    dead_lettered: int = 0
    write_seconds: Histogram = field(default_factory=lambda: Histogram(WRITE_BOUNDS))


@dataclass(slots=True)
class Stats:
    """All there is to count."""

    consumer: ConsumerStats = field(default_factory=ConsumerStats)
    sinks: dict[str, SinkStats] = field(default_factory=dict)
    _known: dict[str, SinkStats] = field(default_factory=dict)

    def configure(self, names: Sequence[str]) -> None:
        """Have numbers for just these sinks; those that stay, or come back, go on counting."""
        self._known.update(self.sinks)
        self.sinks = {name: self._known.get(name, SinkStats()) for name in names}


class LogfanCollector(Collector):
    """Exposes the numbers. All label sets exist from the start."""

    def __init__(self, stats: Stats, version: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._stats = stats
        self._version = version
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape, on an HTTP thread."""
        yield _labelled(
            GaugeMetricFamily(
                "logfan_build_info", "1, with the version as a label", labels=["version"]
            ),
            {(self._version,): 1},
        )
        yield from self._consumer(self._stats.consumer)
        yield from self._sinks(dict(self._stats.sinks))

    def _consumer(self, stats: ConsumerStats) -> Iterator[Metric]:
        # Read once, in the reverse order of the writer's, so that the parts never exceed the whole;
        # what is in flight is derived, so that the sum always holds within one exposition.
        acked, requeued, abandoned = stats.acked, stats.requeued, stats.abandoned
        received = stats.received_messages
        yield _gauge("connected", "1 while a connection to the broker is open", stats.connected)
        yield _gauge("consuming", "1 while subscribed to the queue", stats.consuming)
        yield _labelled(
            CounterMetricFamily(
                "logfan_connections", "Connections to the broker, by outcome", labels=["outcome"]
            ),
            {
                ("opened",): stats.connections_opened,
                ("failed",): stats.connections_failed,
                ("lost",): stats.connections_lost,
            },
        )
        yield _counter("received_messages", "Messages delivered by the broker", received)
        yield _counter("received_bytes", "Bytes of their bodies", stats.received_bytes)
        yield _counter(
            "redelivered_messages",
            "Messages that the broker marked as redelivered",
            stats.redelivered,
        )
        yield _counter("acked_messages", "Messages acknowledged", acked)
        yield _counter("requeued_messages", "Messages handed back to the broker", requeued)
        yield _counter(
            "abandoned_messages",
            "Messages unacknowledged when their channel went away; the broker delivers them again",
            abandoned,
        )
        in_flight = received - acked - requeued - abandoned
        yield _gauge("in_flight_messages", "Messages received and not yet acknowledged", in_flight)
        yield _gauge("in_flight_bytes", "Bytes of their bodies", stats.in_flight_bytes)
        oldest = stats.oldest()
        yield _gauge(
            "oldest_unacknowledged_seconds",
            "Since when the oldest message in flight waits for its acknowledgement; 0 without one",
            0.0 if oldest is None else max(0.0, self._clock.monotonic() - oldest),
        )
        yield _gauge(
            "delivery_count_max",
            "The most often that a quorum queue delivered one message before, since the start",
            stats.delivery_count_max,
        )
        ready = math.nan if stats.queue_ready is None else stats.queue_ready
        yield _gauge("queue_ready_messages", "Messages waiting in the queue; NaN if unknown", ready)
        yield _counter(
            "rebound", "Times that the queue's binding was gone and was made again", stats.rebound
        )
        dead = math.nan if stats.dead_letters_waiting is None else stats.dead_letters_waiting
        yield _gauge(
            "dead_letters_waiting", "Messages in the dead-letter queue; NaN if unknown", dead
        )
        histogram = HistogramMetricFamily(
            "logfan_delivery_seconds", "From the receipt of a message to its acknowledgement"
        )
        delivery = stats.delivery_seconds
        histogram.add_metric([], delivery.buckets(), delivery.sum)
        yield histogram

    def _sinks(self, sinks: Mapping[str, SinkStats]) -> Iterator[Metric]:
        records = CounterMetricFamily(
            "logfan_sink_records", "Records by sink and outcome", labels=["sink", "outcome"]
        )
        retries = CounterMetricFamily(
            "logfan_sink_retries",
            "Attempts of a sink that failed and are made again",
            labels=["sink"],
        )
        dead = CounterMetricFamily(
            "logfan_dead_lettered_records", "Records sent to the dead-letter queue", labels=["sink"]
        )
        up = GaugeMetricFamily("logfan_sink_up", "1 while the sink takes records", labels=["sink"])
        down = GaugeMetricFamily(
            "logfan_sink_down_seconds", "Since when the sink is down; 0 while it is up",
            labels=["sink"],
        )  # fmt: skip
        paused = GaugeMetricFamily(
            "logfan_sink_paused", "1 while the sink refuses more than dead_letter.max_ratio allows",
            labels=["sink"],
        )  # fmt: skip
        seconds = HistogramMetricFamily(
            "logfan_sink_write_seconds", "Write and flush of one batch", labels=["sink"]
        )
        now = self._clock.monotonic()
        for name, stats in sinks.items():
            # Asked once, so that both say the same.
            down_since = stats.health.down_since(now)
            for outcome in ("written", "rejected", "dropped"):
                records.add_metric([name, outcome], getattr(stats, outcome))
            retries.add_metric([name], stats.retries)
            dead.add_metric([name], stats.dead_lettered)
            up.add_metric([name], float(down_since is None))
            down.add_metric([name], 0.0 if down_since is None else max(0.0, now - down_since))
            paused.add_metric([name], float(stats.paused))
            seconds.add_metric([name], stats.write_seconds.buckets(), stats.write_seconds.sum)
        yield from (records, retries, dead, up, down, paused, seconds)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"logfan_{name}", words, float(value))


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(f"logfan_{name}", words, float(value))


def _labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[tuple[str, ...], float]
) -> Metric:
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
