"""The targets that the project set itself, and how far a run came."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.entrants import AIO_PIKA, CUMULATIVE, FASTSTREAM, LIMIT, ONE, THREE, files_of
from bench.plan import BACKLOG, MAIN, SINKS, SIZE
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


def most_possible(results: Results) -> list[str]:
    """What came out for the C limit where the broker is what decides, in words."""
    parts = (
        (ratio(LIMIT, CUMULATIVE), "{:.2f} of bare pika with cumulative acks"),
        (
            _against_the_better(LIMIT, FASTSTREAM, AIO_PIKA),
            "{:.2f} of the faster of FastStream and aio-pika",
        ),
        (growth(LIMIT), "{:+.1f} % a message from a backlog of 10,000 to 1,000,000"),
    )
    found = [(measure(results), words) for measure, words in parts]
    return [words.format(value) for value, words in found if value is not None]


def _cpu(name: str) -> Measure:
    def measure(results: Results) -> float | None:
        middle = results.median(MAIN, entrant=name)
        return middle.cpu_us if middle else None

    return measure


def each_further_sink(results: Results) -> float | None:
    """Microseconds of processor a message and sink: the slope over the numbers of sinks."""
    middles = results.medians(SINKS)
    if len(middles) < 2:
        return None
    return slope((files_of(middle.case.entrant), middle.cpu_us) for middle in middles)


def growth(name: str) -> Measure:
    """Per cent that a message takes longer from the largest backlog than from 10,000."""

    def measure(results: Results) -> float | None:
        middles = {middle.case.count: middle for middle in results.medians(BACKLOG, entrant=name)}
        if 1_000_000 not in middles or 10_000 not in middles:
            return None
        return (middles[1_000_000].us_a_message / middles[10_000].us_a_message - 1) * 100

    return measure


def _memory(results: Results) -> float | None:
    middle = results.median(BACKLOG, entrant=THREE, count=1_000_000)
    return middle.memory_mib * 1.048576 if middle else None


def _start(results: Results) -> float | None:
    middle = results.median(MAIN, entrant=ONE)
    return middle.start_seconds if middle else None


def _latency(share: str) -> Measure:
    def measure(results: Results) -> float | None:
        for latency in results.latencies:
            if latency.asked == 1_000:
                return float(getattr(latency, share))
        return None

    return measure


TARGETS = (
    Target("drain rate, one raw file, against the C limit", 0.80, 0.95, "x",
           ratio(ONE, LIMIT), more_is_better=True),
    Target("drain rate, three sinks, against the C limit", 0.70, 0.85, "x",
           ratio(THREE, LIMIT), more_is_better=True),
    Target("drain rate, three sinks, against bare pika, cumulative acks, no sink", 1.3, 1.6, "x",
           ratio(THREE, CUMULATIVE), more_is_better=True),
    Target("… against the faster of FastStream and aio-pika", 5, 8, "x",
           _against_the_better(THREE, FASTSTREAM, AIO_PIKA), more_is_better=True),
    Target("CPU a message, one raw file", 7, 5, "µs", _cpu(ONE)),
    Target("CPU a message, three sinks", 11, 8, "µs", _cpu(THREE)),
    Target("what each further raw file sink adds", 2, 1, "µs", each_further_sink),
    Target("latency at 1,000 messages a second, p50", 3, 1, "ms", _latency("p50")),
    Target("latency at 1,000 messages a second, p99", 15, 5, "ms", _latency("p99")),
    Target("peak memory, 1,000,000 messages, three sinks", 70, 45, "MB", _memory),
    Target("growth of time a message, backlog of 10,000 to 1,000,000", 10, 0, "%", growth(THREE)),
    Target("start of logfan run to consuming", 0.8, 0.4, "s", _start),
    Target("1 MiB bodies: bytes a second against the C limit", 0.7, 0.9, "x",
           ratio(ONE, LIMIT, SIZE, size=1 << 20), more_is_better=True),
)  # fmt: skip
