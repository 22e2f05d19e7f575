"""The catalogue: plain numbers on the hot path, a collector that exposes them at the scrape.

Each number has one writer: the consumer's I/O thread for `ConsumerStats`, but the dead letters'
for `dead_letters_waiting`; a sink's own thread for its `SinkStats`; `dropped` is the I/O thread's,
and the sink's at its end. Readers may be a little behind.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from logfan.runtime.clock import SYSTEM_CLOCK, Clock
from logfan.runtime.foreign_text import line_of
from logfan.telemetry.sink_health import Health, Pause

# From a sink in memory to one on a bad disk; from a local broker to a long outage of a sink.
WRITE_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                1.0, 2.5, 5.0, 10.0, 60.0)  # fmt: skip
DELIVERY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                   10.0, 30.0, 60.0, 300.0, 1800.0)  # fmt: skip
REASONS = 20
"""So many reasons of dead letters are counted apart for each sink."""
OTHER_REASONS = "(other reasons)"
_REASON_CHARACTERS = 200


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
    delivery_count_max: int = 0
    """The highest `x-delivery-count` of a message so far."""
    queue_ready: int | None = None
    """None where it is not known."""
    queue_seen_at: float = 0.0
    """When the broker gave `queue_ready`, in monotonic seconds."""
    rebound: int = 0
    oldest: Callable[[], float | None] = lambda: None
    """When the oldest unacknowledged message was received, in monotonic seconds; None where there
    is none. Set by the dispatcher, and called at the scrape."""
    bytes_held: Callable[[], int] = lambda: 0
    """Bytes of the bodies in flight; as well."""
    dead_letters_waiting: int | None = None
    """None where it is not known."""
    delivery_seconds: Histogram = field(default_factory=lambda: Histogram(DELIVERY_BOUNDS))

    def note_dead_letters(self, waiting: int | None) -> None:
        """So many wait in the dead-letter queue. Called by the dead letters' thread."""
        self.dead_letters_waiting = waiting

    @property
    def in_flight_messages(self) -> int:
        """Received and neither acknowledged, requeued nor abandoned."""
        return max(0, self.received_messages - self.acked - self.requeued - self.abandoned)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of their bodies."""
        return self.bytes_held()


@dataclass(slots=True)
class SinkStats:
    """What one sink's worker counts."""

    health: Health = field(default_factory=lambda: Health(0.0))
    """Put here by who runs the sink."""
    pause: Pause = field(default_factory=Pause)
    """As an operator asked. It stays over a reload."""
    paused: bool = False
    """Refuses too much, so that nothing more of it is dead-lettered."""
    written: int = 0
    rejected: int = 0
    dropped: int = 0
    filtered: int = 0
    """Not chosen by `where`, or not in the sample."""
    undecided: int = 0
    """Kept or dropped by `on_error`, as their body decides in `where` and is no JSON, or cannot be
    decoded."""
    retries: int = 0
    dead_lettered: int = 0
    dead_letter_reasons: dict[str, int] = field(default_factory=dict)
    """How many were dead-lettered for each reason: `note_dead_letter`."""
    write_seconds: Histogram = field(default_factory=lambda: Histogram(WRITE_BOUNDS))

    def note_dead_letter(self, reason: str) -> None:
        """The broker confirmed the dead letter of a record that was refused for this reason."""
        self.rejected += 1
        self.dead_lettered += 1
        reasons, short = self.dead_letter_reasons, line_of(reason, _REASON_CHARACTERS)
        if short not in reasons and len(reasons) >= REASONS:
            short = OTHER_REASONS
        # A new one: a reader never meets a table that grows under it.
        self.dead_letter_reasons = {**reasons, short: reasons.get(short, 0) + 1}


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


_Family = type[CounterMetricFamily] | type[GaugeMetricFamily]

# Type, name without `logfan_`, help, and the number of `ConsumerStats` or `_derived`.
_CONSUMER: tuple[tuple[_Family, str, str, str], ...] = (
    (GaugeMetricFamily, "connected", "1 while a connection to the broker is open", "connected"),
    (GaugeMetricFamily, "consuming", "1 while subscribed to the queue", "consuming"),
    (CounterMetricFamily, "received_messages", "Messages delivered by the broker",
     "received_messages"),
    (CounterMetricFamily, "received_bytes", "Bytes of the bodies delivered", "received_bytes"),
    (CounterMetricFamily, "redelivered_messages", "Messages that the broker marked as redelivered",
     "redelivered"),
    (CounterMetricFamily, "acked_messages", "Messages acknowledged", "acked"),
    (CounterMetricFamily, "requeued_messages", "Messages handed back to the broker", "requeued"),
    (CounterMetricFamily, "abandoned_messages",
     "Messages unacknowledged when their channel went away; the broker delivers them again",
     "abandoned"),
    (GaugeMetricFamily, "in_flight_messages", "Messages received and not yet acknowledged",
     "in_flight_messages"),
    (GaugeMetricFamily, "in_flight_bytes",
     "Bytes of the bodies in flight, and of large headers", "in_flight_bytes"),
    (GaugeMetricFamily, "oldest_unacknowledged_seconds",
     "How long the oldest message in flight waits for its acknowledgement; 0 without one",
     "oldest_seconds"),
    (GaugeMetricFamily, "delivery_count_max",
     "How often a quorum queue delivered one message before, at most, since the start",
     "delivery_count_max"),
    (GaugeMetricFamily, "queue_ready_messages",
     "Messages that wait in the queue; NaN where that is not known", "queue_ready"),
    (CounterMetricFamily, "rebound", "How often the queue's binding was lost and made again",
     "rebound"),
    (GaugeMetricFamily, "dead_letters_waiting",
     "Messages in the dead-letter queue, asked every 5 s; NaN without a connection for them",
     "dead_letters_waiting"),
)  # fmt: skip

# The same with a label `sink`; the number is of `SinkStats`, or derived.
_SINK: tuple[tuple[_Family, str, str, str], ...] = (
    (CounterMetricFamily, "sink_retries", "Failed attempts that are made again", "retries"),
    (CounterMetricFamily, "dead_lettered_records", "Records sent to the dead-letter queue",
     "dead_lettered"),
    (CounterMetricFamily, "sink_undecided_records",
     "Records whose body decides in where and is no JSON, or cannot be decoded; see on_error",
     "undecided"),
    (GaugeMetricFamily, "sink_up", "1 while the sink takes records", "up"),
    (GaugeMetricFamily, "sink_down_seconds", "How long the sink has been down; 0 while it is up",
     "down_seconds"),
    (GaugeMetricFamily, "sink_paused",
     "1 while the sink refuses more than dead_letter.max_ratio allows", "paused"),
    (GaugeMetricFamily, "sink_pause_seconds",
     "How long the sink has been paused by logfan pause; 0 while it is not", "pause_seconds"),
)  # fmt: skip


class LogfanCollector(Collector):
    """Exposes the numbers. All label sets exist from the start."""

    def __init__(self, stats: Stats, version: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._stats = stats
        self._version = version
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape, on an HTTP thread."""
        build = GaugeMetricFamily(
            "logfan_build_info", "1, with the version as a label", labels=["version"]
        )
        build.add_metric([self._version], 1)
        yield build
        now = self._clock.monotonic()
        yield from _consumer(self._stats.consumer, now)
        yield from _sinks(dict(self._stats.sinks), now)


def _consumer(stats: ConsumerStats, now: float) -> Iterator[Metric]:
    # Read once, in the reverse order of the writer's, so that the parts never exceed the whole;
    # what is in flight is derived, so that the sum always holds within one exposition.
    values = {one.name: getattr(stats, one.name) for one in reversed(fields(stats))}
    values["in_flight_messages"] = values["received_messages"] - sum(
        values[name] for name in ("acked", "requeued", "abandoned")
    )
    values["in_flight_bytes"] = stats.in_flight_bytes
    oldest = stats.oldest()
    values["oldest_seconds"] = 0.0 if oldest is None else max(0.0, now - oldest)
    for family, name, meaning, number in _CONSUMER:
        value = values[number]
        yield family(f"logfan_{name}", meaning, math.nan if value is None else float(value))
    connections = CounterMetricFamily(
        "logfan_connections", "Connections to the broker, by outcome", labels=["outcome"]
    )
    for outcome in ("opened", "failed", "lost"):
        connections.add_metric([outcome], values[f"connections_{outcome}"])
    yield connections
    yield HistogramMetricFamily(
        "logfan_delivery_seconds", "From the receipt of a message to its acknowledgement",
        buckets=stats.delivery_seconds.buckets(), sum_value=stats.delivery_seconds.sum,
    )  # fmt: skip


def _sinks(sinks: Mapping[str, SinkStats], now: float) -> Iterator[Metric]:
    families = [
        family(f"logfan_{name}", meaning, labels=["sink"]) for family, name, meaning, _ in _SINK
    ]
    records = CounterMetricFamily(
        "logfan_sink_records", "Records, by outcome", labels=["sink", "outcome"]
    )
    seconds = HistogramMetricFamily(
        "logfan_sink_write_seconds", "Write and flush of one batch", labels=["sink"]
    )
    for name, stats in sinks.items():
        # Asked once, so that both agree.
        down_since = stats.health.down_since(now)
        down_seconds = 0.0 if down_since is None else max(0.0, now - down_since)
        pause_seconds = max(0.0, now - stats.pause.since) if stats.pause.is_on(now) else 0.0
        derived = {
            "up": down_since is None, "down_seconds": down_seconds, "pause_seconds": pause_seconds,
        }  # fmt: skip
        for metric, (*_, number) in zip(families, _SINK, strict=True):
            value = derived[number] if number in derived else getattr(stats, number)
            metric.add_metric([name], float(value))
        for outcome in ("written", "rejected", "dropped", "filtered"):
            records.add_metric([name, outcome], getattr(stats, outcome))
        seconds.add_metric([name], stats.write_seconds.buckets(), stats.write_seconds.sum)
    yield from (records, *families, seconds)
