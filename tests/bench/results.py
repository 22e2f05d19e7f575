"""What was measured: single drains and latencies, their medians and ratios, as JSON and back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

from bench.bodies import PLAIN, SHAPES

PREFETCH = 4000
"""But where another one is what is measured."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. `group` says which table it belongs to."""

    group: str
    entrant: str
    count: int
    size: int = 200
    prefetch: int = PREFETCH
    queue: str = "classic"
    instances: int = 1
    """Daemons on one queue, or on each of the queues."""
    shape: str = PLAIN
    """Of the messages: one of `bodies.SHAPES`."""
    queues: int = 0
    """Behind a consistent-hash exchange; 0: the one queue, without one."""

    @property
    def daemons(self) -> int:
        """How many there are together."""
        return self.instances * max(1, self.queues)

    def __str__(self) -> str:
        return (
            f"{self.entrant}, {self.count:,} messages of {self.size:,} bytes, {self.queue} queue, "
            f"prefetch {self.prefetch:,}, {SHAPES[self.shape]}"
            + (f", {self.queues} behind the hash exchange" if self.queues else "")
            + (f", {self.instances} instances" if self.instances > 1 else "")
        )


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain. The processor's seconds are user and system of the whole process, from the first
    delivery to the last ack; those of its start are apart."""

    case: Case
    seconds: float
    cpu_seconds: float
    memory_kib: int
    start_seconds: float
    start_cpu_seconds: float
    broker_cpu_seconds: float
    """What the broker used from the first delivery to the last ack."""
    others_share: float
    """Of the cores: what programs that have no part in this took meanwhile, the start included."""
    counted: int = 0
    """How many messages the figures stand for, where it is not all of them."""

    @property
    def count(self) -> int:
        """How many messages the figures stand for."""
        return self.counted or self.case.count

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.count * 1e6

    @property
    def broker_us(self) -> float:
        return self.broker_cpu_seconds / self.count * 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """From the publisher's stamp to the acknowledgement, in milliseconds."""

    entrant: str
    asked: float
    """Messages a second."""
    sent: float
    """What the publisher reached."""
    count: int
    label: str
    p50: float
    p99: float
    p999: float
    worst: float
    left: int = 0
    """How many messages were in the queue when the publisher had sent its last."""

    @property
    def sustained(self) -> bool:
        """The publisher kept its rate and the queue did not grow."""
        return self.sent > 0.97 * self.asked and self.left < max(20.0, 0.1 * self.asked)


@dataclass(frozen=True, slots=True)
class Median:
    """The middle of what several drains of one case gave, and the ends."""

    case: Case
    times: int
    rate: float
    rate_min: float
    rate_max: float
    cpu_us: float
    cpu_us_min: float
    cpu_us_max: float
    memory_mib: float
    start_seconds: float
    start_cpu_seconds: float
    broker_us: float
    count: float

    @property
    def us_a_message(self) -> float:
        return 1e6 / self.rate

    @classmethod
    def of(cls, drains: Sequence[Drain]) -> Self:
        rates = [drain.rate for drain in drains]
        cpu = [drain.cpu_us for drain in drains]
        return cls(
            case=drains[0].case,
            times=len(drains),
            rate=median(rates),
            rate_min=min(rates),
            rate_max=max(rates),
            cpu_us=median(cpu),
            cpu_us_min=min(cpu),
            cpu_us_max=max(cpu),
            memory_mib=median(drain.memory_kib for drain in drains) / 1024,
            start_seconds=median(drain.start_seconds for drain in drains),
            start_cpu_seconds=median(drain.start_cpu_seconds for drain in drains),
            broker_us=median(drain.broker_us for drain in drains),
            count=median(drain.count for drain in drains),
        )


@dataclass(slots=True)
class Results:
    """All of one run."""

    facts: dict[str, str] = field(default_factory=dict)
    drains: list[Drain] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Who could not take part, and why."""
    skipped: list[str] = field(default_factory=list)
    """What there was no time for."""
    failures: list[str] = field(default_factory=list)
    """Whoever lost messages or broke down."""
    disk_rate: float = 0.0
    """Bytes a second that the disk alone takes, see `disk.durable_rate`; 0.0: not measured."""

    def medians(self, group: str = "", **wanted: object) -> list[Median]:
        """One for each case, in the order in which they were first measured."""
        cases: dict[Case, list[Drain]] = {}
        for drain in self.drains:
            if group in ("", drain.case.group) and _fits(drain.case, wanted):
                cases.setdefault(drain.case, []).append(drain)
        return [Median.of(drains) for drains in cases.values()]

    def median(self, group: str, **wanted: object) -> Median | None:
        """The first of these; of messages without headers where no shape is given."""
        return next(iter(self.medians(group, **{"shape": PLAIN, **wanted})), None)

    def as_json(self) -> str:
        """Everything, single drains included, and the medians for whoever only reads."""
        data = asdict(self) | {"medians": [asdict(middle) for middle in self.medians()]}
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        data: dict[str, Any] = json.loads(text)
        drains = [Drain(**{**drain, "case": Case(**drain["case"])}) for drain in data["drains"]]
        return cls(
            facts=data["facts"],
            drains=drains,
            latencies=[Latency(**latency) for latency in data["latencies"]],
            absent=data["absent"],
            skipped=data["skipped"],
            failures=data["failures"],
            disk_rate=data.get("disk_rate", 0.0),
        )


def _fits(case: Case, wanted: dict[str, object]) -> bool:
    return all(getattr(case, key) == value for key, value in wanted.items())


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values: the smallest that at least this share of them does not exceed."""
    rank = -(-len(values) * share // 1)  # rounded up
    return values[max(0, min(len(values), int(rank)) - 1)]


def slope(points: Iterable[tuple[float, float]]) -> float:
    """How much y grows with each x: the line of least squares."""
    pairs = list(points)
    x_mean = sum(x for x, _ in pairs) / len(pairs)
    y_mean = sum(y for _, y in pairs) / len(pairs)
    below = sum((x - x_mean) ** 2 for x, _ in pairs)
    return sum((x - x_mean) * (y - y_mean) for x, y in pairs) / below
