"""What a run measures, in which order, and how often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench import results
from bench.bodies import PLAIN, SHAPES, TRACED
from bench.entrants import (
    AIO_PIKA,
    CUMULATIVE,
    EACH,
    FASTSTREAM,
    KOMBU,
    LIMIT,
    ONE,
    SLOW_PATH,
    THREE,
    TUTORIAL,
    WHERE,
    with_files,
)
from bench.results import Case

MAIN, SHAPE, BACKLOG, SINKS, SIZE, PREFETCH, QUEUE = (
    "main", "shape", "backlog", "sinks", "size", "prefetch", "queue",
)  # fmt: skip
INSTANCES, QUEUES = "instances", "queues"


@dataclass(frozen=True, slots=True)
class Rate:
    """A latency to measure. `rate` is messages a second, or `share` of what `of` says."""

    label: str
    seconds: float
    rate: float = 0.0
    share_of_drain: float = 0.0
    share_of_flow: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups of cases with how many rounds each is measured, the main one first; then latencies.
    What matters most comes first, as time may run out."""

    groups: Sequence[tuple[int, Sequence[Case]]]
    rates: Sequence[Rate]
    seconds: float
    """When this is up nothing new is begun."""
    spread: bool = False
    """Whether the broker needs the consistent-hash exchange."""

    def turns(self, absent: Sequence[str]) -> Iterator[Case]:
        """Every single drain, contestants in turns: each round begins with another one."""
        for rounds, cases in self.groups:
            present = [case for case in cases if case.entrant not in absent]
            for number in range(rounds):
                at = number * len(present) // rounds
                yield from present[at:]
                yield from present[:at]


def _main(name: str, count: int) -> Case:
    return Case(MAIN, name, count, prefetch=1 if name == TUTORIAL else results.PREFETCH)


def _with_headers(*names: str, count: int) -> list[Case]:
    """Of the main table: with the headers that programs send."""
    return [Case(MAIN, name, count, shape=TRACED) for name in names]


def whole(seconds: float) -> Plan:
    """`make bench`. The counts give each drain some three seconds."""
    main = (
        (LIMIT, 100_000), (ONE, 100_000), (THREE, 100_000), (WHERE, 100_000), (CUMULATIVE, 70_000),
        (SLOW_PATH, 40_000), (EACH, 40_000), (KOMBU, 20_000), (AIO_PIKA, 13_000),
        (FASTSTREAM, 8_000), (TUTORIAL, 5_000),
    )  # fmt: skip
    trio = (LIMIT, ONE, CUMULATIVE)
    headers = _with_headers(LIMIT, ONE, THREE, count=100_000)
    shapes = [shape for shape in SHAPES if shape not in (PLAIN, TRACED)]
    prefetches = ((1, 4_000), (10, 15_000), (100, 25_000), (1_000, 40_000), (10_000, 40_000))
    sizes = ((100, 40_000), (1 << 10, 30_000), (10 << 10, 8_000), (100 << 10, 1_500))
    return Plan(
        groups=(
            (3, [*headers, *(_main(name, count) for name, count in main)]),
            (1, [Case(SHAPE, name, 60_000, shape=s) for s in shapes for name in (LIMIT, THREE)]),
            (3, [Case(BACKLOG, name, 10_000) for name in (LIMIT, THREE)]),
            (1, [Case(BACKLOG, name, n) for n in (100_000, 1_000_000) for name in (LIMIT, THREE)]),
            (2, [Case(SIZE, name, 250, size=1 << 20) for name in trio]),
            (2, [Case(SINKS, with_files(number), 40_000) for number in (1, 2, 4, 8)]),
            (1, [Case(SIZE, name, count, size=size) for size, count in sizes for name in trio]),
            (1, [Case(PREFETCH, name, n, prefetch=p) for p, n in prefetches for name in trio]),
            (1, [Case(QUEUE, name, 40_000, queue="quorum") for name in (*trio, THREE)]),
        ),
        rates=(
            Rate("100/s", 8, rate=100),
            Rate("1,000/s", 8, rate=1_000),
            Rate("10,000/s", 5, rate=10_000),
            Rate("80 % of what flows through", 5, share_of_flow=0.8),
            Rate("80 % of the drain rate", 4, share_of_drain=0.8),
        ),
        seconds=seconds,
    )


def quick(seconds: float) -> Plan:
    """`make bench-quick`: the main comparisons, once or twice, smaller."""
    main = (
        (LIMIT, 60_000), (ONE, 60_000), (THREE, 60_000), (WHERE, 60_000), (CUMULATIVE, 40_000),
        (AIO_PIKA, 6_000), (FASTSTREAM, 5_000),
    )  # fmt: skip
    headers = _with_headers(LIMIT, THREE, count=60_000)
    return Plan(
        groups=(
            (2, [*headers, *(_main(name, count) for name, count in main)]),
            (2, [Case(SIZE, name, 80, size=1 << 20) for name in (LIMIT, ONE)]),
            (1, [Case(SINKS, with_files(number), 30_000) for number in (1, 4)]),
        ),
        rates=(Rate("1,000/s", 4, rate=1_000),),
        seconds=seconds,
    )


def scale(seconds: float) -> Plan:
    """`make bench-scale`: several instances on one queue, then several queues."""
    # What is drained while the last of them starts does not count: the more there are, the more.
    sizes = ((1, 100_000), (2, 120_000), (4, 160_000))
    names = (ONE, THREE)
    return Plan(
        groups=(
            (
                2,
                [Case(INSTANCES, name, count, instances=n) for name in names for n, count in sizes],
            ),
            (2, [Case(QUEUES, name, count, queues=n) for name in names for n, count in sizes]),
        ),
        rates=(),
        seconds=seconds,
        spread=True,
    )


def tiny(seconds: float) -> Plan:
    """To work on the bench itself: everything once, hardly anything of it."""
    return _shrunk(whole(seconds))


def tiny_scale(seconds: float) -> Plan:
    """The same of `scale`."""
    return _shrunk(scale(seconds))


def _shrunk(full: Plan) -> Plan:
    groups = [
        (1, [replace(case, count=max(20, min(case.count // 50, 2_000))) for case in cases])
        for _, cases in full.groups
    ]  # fmt: skip
    rates = [
        Rate(rate.label, 0.5, rate.rate, rate.share_of_drain, rate.share_of_flow)
        for rate in full.rates
    ]
    return Plan(groups, rates, full.seconds, full.spread)


PLANS = {
    "whole": whole, "quick": quick, "scale": scale, "tiny": tiny, "tiny-scale": tiny_scale,
}  # fmt: skip
