"""`make soak`: a constant load without any fault, for long, to see that nothing grows.

`python -m chaos.soak [SECONDS=1800] [RATE=1000] [REPORT=FILE]`. How long a message takes from its
publishing to its acknowledgement is measured outside of the daemon: the publisher notes when it
publishes, the proxy when the acknowledgement passes; before that it was durable in every sink.
Exits 1 where memory, descriptors, threads or latency were not flat, or anything was lost.
"""

import os
import platform
import signal
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.report import percentile
from chaos.run import interrupt, options_of
from chaos.scene import Scene, Verdict, scene
from chaos.watcher import Vitals, added, vitals
from logfan import __version__
from logfan.testing.node import RabbitNode

_PERIODS_MIN = 6
_PERIOD_SECONDS = 60.0
_SAMPLES_PER_PERIOD = 20
_DESCRIPTORS_MAX, _THREADS_MAX, _MEMORY_MIB_MAX = 2.0, 1.0, 12.0
_SLOWER_MAX, _SLOWER_SECONDS = 3.0, 0.02
_TIMES = (
    "- publish → durable in every sink → acknowledged: p50 {:.1f} ms, p99 {:.1f} ms, max {:.1f} ms"
)
_HEAD = ("minute", "messages", "p50", "p99", "max", "memory", "descriptors", "threads")


@dataclass(frozen=True, slots=True)
class Period:
    """What one minute showed."""

    number: int
    latencies: Sequence[float]
    vitals: Vitals

    def row(self) -> list[str]:
        """Its line in the report."""
        times = [percentile(self.latencies, 50), percentile(self.latencies, 99)]
        times.append(max(self.latencies))
        return [
            str(self.number),
            f"{len(self.latencies):,}",
            *(f"{1000 * time:.1f} ms" for time in times),
            f"{self.vitals.memory_kib / 1024:.1f} MiB",
            f"{self.vitals.descriptors:.0f}",
            f"{self.vitals.threads:.0f}",
        ]


class Latencies:
    """Joins what the publisher wrote with what the proxy saw.

    There is one channel on either side and nothing is published or delivered twice, so delivery
    tag N is the Nth message that was published.
    """

    def __init__(self, scene: Scene) -> None:
        self._proxy = scene.proxy
        self._journal = scene.load.journal_path.open()
        self._published: array[int] = array("q")
        self._acked = 0
        self._seen = 0

    def take(self) -> list[float]:
        """Seconds from publishing to acknowledgement, of all acknowledged since the last call."""
        acks = self._proxy.acks[self._seen :]
        self._seen += len(acks)
        self._read()
        found: list[float] = []
        for at, tag in acks:
            last = min(tag, len(self._published))
            found += [at - self._published[number] / 1e9 for number in range(self._acked, last)]
            self._acked = max(self._acked, last)
        return found

    def _read(self) -> None:
        while True:
            place = self._journal.tell()
            line = self._journal.readline()
            if not line.endswith("\n"):
                self._journal.seek(place)
                return
            words = line.split()
            if words[0] == "p":
                self._published.append(int(words[3]))

    def close(self) -> None:
        self._journal.close()


def watch(
    scene: Scene, seconds: float, tell: Callable[[float, Period | None], None]
) -> list[Period]:
    """Look on for so long; a period for each minute, or for less where the time is short."""
    length = min(_PERIOD_SECONDS, seconds / _PERIODS_MIN)
    latencies = Latencies(scene)
    periods: list[Period] = []
    started = time.monotonic()
    while len(periods) * length < seconds - length / 2:
        samples: list[Vitals] = []
        ends = started + (len(periods) + 1) * length
        while time.monotonic() < ends:
            time.sleep(length / _SAMPLES_PER_PERIOD)
            samples.append(vitals(scene.daemon.pid))
            tell(time.monotonic() - started, None)
        middle = Vitals(
            statistics.median(sample.descriptors for sample in samples),
            statistics.median(sample.threads for sample in samples),
            statistics.median(sample.memory_kib for sample in samples),
        )
        taken = latencies.take()
        if not taken:
            raise AssertionError("nothing was acknowledged in this period: there is no load")
        periods.append(Period(len(periods) + 1, taken, middle))
        tell(time.monotonic() - started, periods[-1])
    latencies.close()
    return periods


def growth(periods: Sequence[Period]) -> dict[str, float]:
    """How much the last third lies above the first, the first period left out as warm-up."""
    later = periods[1:]
    return {
        "descriptors": added([period.vitals.descriptors for period in later]),
        "threads": added([period.vitals.threads for period in later]),
        "memory (MiB)": added([period.vitals.memory_kib / 1024 for period in later]),
    }


def not_flat(periods: Sequence[Period]) -> list[str]:
    """In words, what grew."""
    limits = (_DESCRIPTORS_MAX, _THREADS_MAX, _MEMORY_MIB_MAX)
    found = [
        f"{name} grew by {value:.1f} over the run, {limit:.0f} allowed"
        for (name, value), limit in zip(growth(periods).items(), limits, strict=True)
        if value > limit
    ]
    middles = [percentile(period.latencies, 50) for period in periods[1:]]
    third = len(middles) // 3 or 1
    first, last = statistics.median(middles[:third]), statistics.median(middles[-third:])
    if last > _SLOWER_MAX * first + _SLOWER_SECONDS:
        found.append(f"the median latency rose from {first:.3f} s to {last:.3f} s")
    return found


def as_markdown(
    periods: Sequence[Period], verdict: Verdict, faults: Sequence[str], *, broker: str, rate: float
) -> str:
    """The report."""
    everything = [latency for period in periods for latency in period.latencies]
    grown = ", ".join(f"{name} {value:.1f}" for name, value in growth(periods).items())
    result = "flat" if not faults else "NOT FLAT, or worse"
    lost = sum(len(finding.lost) for finding in verdict.findings)
    corrupt = sum(len(finding.corrupt) for finding in verdict.findings)
    duplicated = sum(finding.duplicated for finding in verdict.findings)
    times = [1000 * percentile(everything, percent) for percent in (50, 99, 100)]
    python = platform.python_version()
    head = [
        f"### {verdict.confirmed:,} messages at {rate:.0f} a second: {result}",
        "",
        f"- logfan {__version__}, RabbitMQ {broker}, Python {python}, {os.cpu_count()} cores",
        f"- lost {lost}, corrupt {corrupt}, duplicated {duplicated}",
        _TIMES.format(*times),
        f"- added between the first third and the last: {grown}",
        *(f"- **{fault}**" for fault in faults),
        "",
        f"| {' | '.join(_HEAD)} |",
        f"|{' --- |' * len(_HEAD)}",
    ]
    return "\n".join([*head, *(f"| {' | '.join(period.row())} |" for period in periods), ""])


@contextmanager
def _shown(seconds: float) -> Iterator[Callable[[float, Period | None], None]]:
    """A line for each period, and on a terminal a bar below them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("soak"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=seconds)

        def tell(passed: float, period: Period | None) -> None:
            progress.update(task, completed=passed)
            if period is not None:
                cells = zip(_HEAD, period.row(), strict=True)
                console.print("  ".join(f"{name} {cell}" for name, cell in cells), soft_wrap=True)

        yield tell


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    options = options_of(arguments, {"SECONDS": "1800", "RATE": "1000", "REPORT": "soak-report.md"})
    if options is None:
        return 2
    seconds, rate = float(options["SECONDS"]), float(options["RATE"])
    signal.signal(signal.SIGTERM, interrupt)
    with RabbitNode() as node, scene(node, rate=rate) as stage:
        stage.wait_flowing("the first start")
        with _shown(seconds) as tell:
            periods = watch(stage, seconds, tell)
        verdict = stage.finish()
        faults = [*verdict.faults(), *not_flat(periods)]
        if verdict.losses or verdict.resent:
            faults.append(f"{verdict.losses} connections were lost in a run without faults")
        text = as_markdown(periods, verdict, faults, broker=node.version, rate=rate)
    print(text)
    Path(options["REPORT"]).write_text(text)
    print(f"the report: {options['REPORT']}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
