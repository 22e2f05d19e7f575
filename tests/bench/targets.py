"""The targets that the project set itself, and how far a run came."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.bodies import TRACED
from bench.entrants import AIO_PIKA, FASTSTREAM, LIMIT, ONE, THREE, WHERE, files_of
from bench.plan import BACKLOG, MAIN, PREFETCH, QUEUE, SINKS
from bench.results import Results, slope

Measure = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One row. `measure` gives None where the run did not measure it."""

    title: str
    reach: float
    beyond: float
    unit: str
    measure: Measure
    more_is_better: bool = False

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "not measured"
        sign = 1 if self.more_is_better else -1
        if sign * value >= sign * self.beyond:
            return "beyond"
        return "reached" if sign * value >= sign * self.reach else "NOT REACHED"

    def show(self, value: float | None) -> str:
        """A value in this row's unit."""
        if value is None:
            return "\N{EN DASH}"
        digits = 2 if self.unit in ("x", "s", "µs") else 1
        text = f"{value:.{digits}f}"
        return text if self.unit == "x" else f"{text} {self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """A target with what came out, ready to print."""

    title: str
    reach: str
    beyond: str
    measured: str
    verdict: str


def rows(results: Results) -> list[Row]:
    """All targets, in the project's order."""
    found = []
    for target in TARGETS:
        value = target.measure(results)
        found.append(
            Row(
                target.title,
                target.show(target.reach),
                target.show(target.beyond),
                target.show(value),
                target.verdict(value),
            )
        )
    return found


def ratio(name: str, of: str, group: str = MAIN, **wanted: object) -> Measure:
    """The drain rate of one against another's, both of the same run."""

    def measure(results: Results) -> float | None:
        ours = results.median(group, entrant=name, **wanted)
        theirs = results.median(group, entrant=of, **wanted)
        return ours.rate / theirs.rate if ours and theirs else None

    return measure


def _against_the_better(name: str, *others: str) -> Measure:
    def measure(results: Results) -> float | None:
        found = [value for other in others if (value := ratio(name, other)(results)) is not None]
        return min(found) if len(found) == len(others) else None

    return measure


def cpu_ratio(name: str, of: str, **wanted: object) -> Measure:
    """The processor's time a message of one against another's, both of the same run."""

    def measure(results: Results) -> float | None:
        ours = results.median(MAIN, entrant=name, **wanted)
        theirs = results.median(MAIN, entrant=of, **wanted)
        return ours.cpu_us / theirs.cpu_us if ours and theirs and theirs.cpu_us else None

    return measure


def each_further_sink(results: Results) -> float | None:
    """Microseconds of processor a message and sink: the slope over the numbers of sinks."""
    middles = results.medians(SINKS)
    if len(middles) < 2:
        return None
    return slope((files_of(middle.case.entrant), middle.cpu_us) for middle in middles)


def _memory(results: Results) -> float | None:
    middle = results.median(BACKLOG, entrant=THREE, count=1_000_000)
    return middle.memory_mib * 1.048576 if middle else None


def _start(results: Results) -> float | None:
    middle = results.median(MAIN, entrant=ONE)
    return middle.start_seconds if middle else None


def _latency(share: str, asked: int) -> Measure:
    def measure(results: Results) -> float | None:
        for latency in results.latencies:
            if latency.asked == asked:
                return float(getattr(latency, share))
        return None

    return measure


TARGETS = (
    Target("drain rate, one raw file, against the C limit", 0.92, 0.97, "x",
           ratio(ONE, LIMIT), more_is_better=True),
    Target("drain rate, three sinks, against the C limit", 0.85, 0.92, "x",
           ratio(THREE, LIMIT), more_is_better=True),
    Target("… with headers", 0.82, 0.90, "x",
           ratio(THREE, LIMIT, shape=TRACED), more_is_better=True),
    Target("… with where on each, against the same without", 0.95, 0.98, "x",
           ratio(WHERE, THREE), more_is_better=True),
    Target("… plain, against the faster of FastStream and aio-pika", 5, 8, "x",
           _against_the_better(THREE, FASTSTREAM, AIO_PIKA), more_is_better=True),
    Target("CPU a message, one raw file, against the C limit's", 1.7, 1.4, "x",
           cpu_ratio(ONE, LIMIT)),
    Target("CPU a message, three sinks, against the C limit's", 3.3, 2.5, "x",
           cpu_ratio(THREE, LIMIT)),
    Target("… with headers", 3.8, 2.9, "x", cpu_ratio(THREE, LIMIT, shape=TRACED)),
    Target("what each further raw file sink adds", 2, 1, "µs", each_further_sink),
    Target("quorum queue, one raw file, against the C limit", 0.75, 0.9, "x",
           ratio(ONE, LIMIT, QUEUE), more_is_better=True),
    Target("quorum queue, three sinks, against the C limit", 0.55, 0.7, "x",
           ratio(THREE, LIMIT, QUEUE), more_is_better=True),
    Target("prefetch 100, one raw file, against the C limit", 0.75, 0.9, "x",
           ratio(ONE, LIMIT, PREFETCH, prefetch=100), more_is_better=True),
    Target("latency at 1,000 messages a second, p50", 3, 1, "ms", _latency("p50", 1_000)),
    Target("latency at 1,000 messages a second, p99", 15, 5, "ms", _latency("p99", 1_000)),
    Target("latency at 10,000 messages a second, p50", 3, 1.5, "ms", _latency("p50", 10_000)),
    Target("latency at 10,000 messages a second, p99", 10, 5, "ms", _latency("p99", 10_000)),
    Target("peak memory, 1,000,000 messages, three sinks", 50, 45, "MB", _memory),
    Target("start of logfan run to consuming", 0.8, 0.4, "s", _start),
)  # fmt: skip
