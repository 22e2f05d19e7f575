"""What the numbers were lately: rates of the last 10 s, and a ring of 10 minutes. Sans-I/O.

The main thread notes a sample about once a second; any thread may read. What is kept is replaced
as a whole, never changed, so that no reader needs a lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from logfan.telemetry.metrics import Stats

RATE_SECONDS = 10.0
"""Rates are means of so long."""
INTERVAL_SECONDS = 5.0
POINTS = 120
"""The ring: a point each interval, 10 minutes in all."""
_CLOSEST_SECONDS = 0.5
"""Samples closer than this are not kept, and no rate is taken over less."""


@dataclass(frozen=True, slots=True)
class SinkSample:
    """One sink's counters."""

    written: int = 0
    batches: int = 0
    batch_seconds: float = 0.0
    """Of all these batches together."""


@dataclass(frozen=True, slots=True)
class Look:
    """How many messages waited in the queue."""

    messages: int
    at: float
    """When the broker answered, in monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment."""

    at: float
    """In monotonic seconds."""
    received: int = 0
    acknowledged: int = 0
    in_flight: int = 0
    queue: Look | None = None
    """The last look at the queue; None where nothing is known."""
    sinks: Mapping[str, SinkSample] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rates:
    """A second, over the last 10 s."""

    received: float = 0.0
    acknowledged: float = 0.0
    published: float | None = None
    """Into the queue: what was acknowledged, and by how much more is in the queue or in flight.
    None where the queue was not seen twice."""
    time_to_drain: float | None = None
    """Seconds until nothing waits, if all goes on like this. None where the queue does not shrink,
    or where that is not known."""


@dataclass(frozen=True, slots=True)
class SinkRates:
    """One sink's, over the last 10 s."""

    written: float = 0.0
    """Records a second."""
    batch_seconds: float = 0.0
    """The mean of a batch; 0.0 where there was none."""


@dataclass(frozen=True, slots=True)
class Point:
    """One interval of the ring."""

    received: float
    acknowledged: float
    queue_ready: int | None
    sinks: Mapping[str, float]
    """What each sink that was there all the time wrote a second."""


def sample_of(stats: Stats, at: float) -> Sample:
    """The counters as they are now, `at` monotonic seconds."""
    consumer = stats.consumer
    ready, seen_at = consumer.queue_ready, consumer.queue_seen_at
    sinks = {
        name: SinkSample(one.written, sum(one.write_seconds.counts), one.write_seconds.sum)
        for name, one in dict(stats.sinks).items()
    }
    return Sample(
        at, consumer.received_messages, consumer.acked, consumer.in_flight_messages,
        None if ready is None else Look(ready, seen_at), sinks,
    )  # fmt: skip


class History:
    """Samples in, rates out."""

    def __init__(self) -> None:
        self._recent: tuple[Sample, ...] = ()
        """The oldest first: one that is 10 s old or more, and all that came later."""
        self.points: tuple[Point, ...] = ()
        """The ring, the oldest first; fewer than `POINTS` after the start."""
        self._last: Sample | None = None
        """What the ring's last point ends with."""

    def note(self, sample: Sample) -> None:
        """Keep it. The main thread calls this at each tick; the clock decides what is kept."""
        if self._recent and sample.at - self._recent[-1].at < _CLOSEST_SECONDS:
            return
        old = sum(one.at <= sample.at - RATE_SECONDS for one in self._recent)
        self._recent = (*self._recent[max(0, old - 1) :], sample)
        if self._last is None:
            self._last = sample
            return
        elapsed = sample.at - self._last.at
        if elapsed < INTERVAL_SECONDS - _CLOSEST_SECONDS:
            return
        ready = None if sample.queue is None else sample.queue.messages
        before = self._last.sinks
        point = Point(
            (sample.received - self._last.received) / elapsed,
            (sample.acknowledged - self._last.acknowledged) / elapsed, ready,
            {
                name: (one.written - before[name].written) / elapsed
                for name, one in sample.sinks.items() if name in before
            },
        )  # fmt: skip
        # Where no sample came for long, the mean stands for each interval that is missing.
        missed = min(POINTS, max(1, round(elapsed / INTERVAL_SECONDS)))
        self.points = (*self.points, *[point] * missed)[-POINTS:]
        self._last = sample

    @property
    def until(self) -> float | None:
        """When the last point ended, in monotonic seconds; None before the first."""
        return self._last.at if self._last is not None else None

    def rates(self, now: Sample) -> Rates:
        """Up to this sample, which is not kept."""
        since = self._since(now)
        if since is None:
            return Rates()
        elapsed = now.at - since.at
        received = (now.received - since.received) / elapsed
        acknowledged = (now.acknowledged - since.acknowledged) / elapsed
        growth = self._growth(now)
        if growth is None or now.queue is None:
            return Rates(received, acknowledged)
        growth += (now.in_flight - since.in_flight) / elapsed
        published = max(0.0, acknowledged + growth)
        return Rates(received, acknowledged, published, _time_to_drain(now.queue, growth, now.at))

    def sink(self, name: str, now: Sample) -> SinkRates:
        """The same for one sink; zeros for one that is new."""
        since = self._since(now)
        if since is None or name not in since.sinks or name not in now.sinks:
            return SinkRates()
        before, after = since.sinks[name], now.sinks[name]
        batches = after.batches - before.batches
        seconds = after.batch_seconds - before.batch_seconds
        return SinkRates(
            (after.written - before.written) / (now.at - since.at),
            seconds / batches if batches > 0 else 0.0,
        )

    def _since(self, now: Sample) -> Sample | None:
        """The latest sample that is 10 s old, or the oldest; None where all are too young."""
        recent = [one for one in self._recent if one.at <= now.at - _CLOSEST_SECONDS]
        old = [one for one in recent if one.at <= now.at - RATE_SECONDS]
        return old[-1] if old else next(iter(recent), None)

    def _growth(self, now: Sample) -> float | None:
        """Of the waiting messages a second, between two looks at the queue."""
        if now.queue is None:
            return None
        looks = [one.queue for one in self._recent if one.queue is not None]
        before = next((look for look in looks if look.at <= now.queue.at - _CLOSEST_SECONDS), None)
        if before is None:
            return None
        return (now.queue.messages - before.messages) / (now.queue.at - before.at)


def _time_to_drain(queue: Look, growth: float, now: float) -> float | None:
    if queue.messages == 0:
        return 0.0
    if growth >= 0.0:
        return None
    return max(0.0, queue.messages / -growth - (now - queue.at))
