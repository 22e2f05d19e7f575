"""`make bench`: every contestant in turns on one private broker, then medians, ratios, targets.

`python -m bench.run [PLAN=whole|quick|scale|tiny|tiny-scale] [SECONDS=…] [REPORT=FILE] [JSON=FILE]
[CHARTS=FOLDER] [FROM=FILE]`. FROM shows the results of an earlier run's JSON in place of a new one.
Exits 1 where a contestant lost messages or broke down. Targets that are missed are printed and fail
nothing.
"""

import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import chart, contest, crowd, disk, entrants, latency, plan, table
from bench.build import logfan_as_installed, programs
from bench.clocks import CpuClock
from bench.entrants import CUMULATIVE, ONE
from bench.plan import INSTANCES, MAIN, QUEUES, SIZE, Plan, Rate
from bench.results import Case, Median, Results
from bench.stage import MOST_QUEUES, PLUGIN, QUEUE, Observer, Stage, queues_of
from chaos.run import interrupt, options_of
from logfan.testing.node import RabbitNode

_SECONDS = {"whole": 820.0, "quick": 90.0, "scale": 220.0, "tiny": 600.0, "tiny-scale": 600.0}
_WARM_UP = 20_000
_FLOW_SECONDS = 3.0
_DRAINS = {INSTANCES: crowd.drain, QUEUES: crowd.drain}
_MAIN_SHARE = 0.55
"""Of the time at most: on a slow machine one round less, so that the rest is measured, too."""


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    names = ("PLAN", "SECONDS", "REPORT", "JSON", "CHARTS", "FROM")
    options = options_of(arguments, {**dict.fromkeys(names, ""), "PLAN": "whole"})
    if options is None or options["PLAN"] not in plan.PLANS:
        return 2
    signal.signal(signal.SIGTERM, interrupt)
    # Tables are not squeezed where the output is no terminal.
    console = Console(width=None if sys.stdout.isatty() else 220)
    if options["FROM"]:
        results = Results.from_json(Path(options["FROM"]).read_text())
    else:
        seconds = float(options["SECONDS"] or _SECONDS[options["PLAN"]])
        results = measure(plan.PLANS[options["PLAN"]](seconds), console)
    table.show(results, console)
    if options["JSON"]:
        Path(options["JSON"]).write_text(results.as_json())
    if options["REPORT"]:
        Path(options["REPORT"]).write_text(table.markdown(results))
    if options["CHARTS"]:
        chart.write_all(results, Path(options["CHARTS"]))
    return 1 if results.failures else 0


def measure(wanted: Plan, console: Console) -> Results:
    """Carry the plan out on a broker of its own."""
    began = time.monotonic()
    with stage(spread=wanted.spread) as scene:
        results = Results(facts=_facts(scene))
        cast = dict.fromkeys(case.entrant for _, cases in wanted.groups for case in cases)
        results.absent = {name: why for name in cast if (why := entrants.why_absent(name, scene))}
        turns = list(wanted.turns(list(results.absent)))
        with _progress(console, len(turns) + len(wanted.rates)) as progress:
            runner = Runner(scene, results, progress, began + wanted.seconds)
            try:
                runner.carry_out(turns, wanted.rates)
            except KeyboardInterrupt:
                results.failures.append("interrupted; what was measured until then is shown")
    if results.drains:
        share = median(drain.others_share for drain in results.drains)
        results.facts["other programs took"] = f"{share:.0%} of the cores (median of the drains)"
    results.facts["took"] = f"{time.monotonic() - began:.0f} s"
    return results


@contextmanager
def stage(*, spread: bool = False) -> Iterator[Stage]:
    """The broker, its observer and the programs, in a folder that is gone afterwards. `spread`:
    with the consistent-hash exchange, and several queues to look at."""
    logfan_as_installed()
    plugins = [PLUGIN] if spread else []
    queues = queues_of(MOST_QUEUES) if spread else [QUEUE]
    with (
        tempfile.TemporaryDirectory(prefix="logfan-bench-") as name,
        RabbitNode(plugins=plugins) as node,
    ):
        folder = Path(name)
        with Observer(node, folder, queues) as observer:
            broker = CpuClock(observer.broker_pid)
            yield Stage(node, folder, programs(folder), observer, broker)


class Runner:
    """Takes one measurement after another and keeps what came out."""

    def __init__(self, scene: Stage, results: Results, progress: Progress, deadline: float) -> None:
        self._stage, self._results, self._progress = scene, results, progress
        self._deadline = deadline
        self._seconds = deadline - time.monotonic()
        self._task = next(iter(progress.task_ids))

    def carry_out(self, turns: Sequence[Case], rates: Sequence[Rate]) -> None:
        """The main comparisons, which come first, then the latencies, then the rest."""
        self._warm_up()
        first = sum(case.group == MAIN for case in turns)
        whole, self._deadline = self._deadline, time.monotonic() + _MAIN_SHARE * self._seconds
        for case in turns[:first]:
            self.drain(case)
        self._deadline = whole
        for rate in rates:
            self.latency(rate)
        for case in turns[first:]:
            self.drain(case)
        if any(case.group == SIZE for case in turns) and not self._is_late("the disk alone"):
            self._show("the disk alone")
            self._results.disk_rate = disk.durable_rate(self._stage.folder)

    def _warm_up(self) -> None:
        """A drain that is thrown away: the broker's code and the page cache get warm."""
        name = CUMULATIVE if not entrants.why_absent(CUMULATIVE, self._stage) else ONE
        self._show("warming up")
        contest.drain(self._stage, Case("warm-up", name, _WARM_UP))

    def drain(self, case: Case) -> None:
        """One drain, reported in a line."""
        if self._is_late(str(case)):
            return
        self._show(f"{case.group}: {case.entrant}")
        try:
            drain = _DRAINS.get(case.group, contest.drain)(self._stage, case)
        except contest.ContestFailed as failure:
            self._failed(failure)
        else:
            self._results.drains.append(drain)
            self._progress.console.print(
                table.line_of(Median.of([drain])), highlight=False, soft_wrap=True
            )
        self._progress.advance(self._task)

    def latency(self, wanted: Rate) -> None:
        """One latency, reported in a line."""
        if self._is_late(f"latency at {wanted.label}"):
            return
        self._show(f"latency: {wanted.label}")
        try:
            rate = self._rate(wanted)
            if rate:
                found = latency.measure(self._stage, rate, wanted.seconds, wanted.label)
                self._results.latencies.append(found)
                self._progress.console.print(
                    f"p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms, worst {found.worst:.1f} ms  "
                    f"latency: {found.label}", highlight=False, soft_wrap=True,
                )  # fmt: skip
        except contest.ContestFailed as failure:
            self._failed(failure)
        self._progress.advance(self._task)

    def _rate(self, wanted: Rate) -> float:
        if wanted.share_of_drain:
            middle = self._results.median(MAIN, entrant=ONE)
            return wanted.share_of_drain * middle.rate if middle else 0.0
        if wanted.share_of_flow:
            return wanted.share_of_flow * latency.flow(self._stage, _FLOW_SECONDS)
        return wanted.rate

    def _is_late(self, what: str) -> bool:
        if time.monotonic() < self._deadline:
            return False
        self._results.skipped.append(what)
        return True

    def _failed(self, failure: Exception) -> None:
        self._results.failures.append(str(failure))
        self._progress.console.print(
            f"FAILED: {failure}", style="red", highlight=False, soft_wrap=True
        )

    def _show(self, text: str) -> None:
        self._progress.update(self._task, description=text)


def _progress(console: Console, total: int) -> Progress:
    progress = Progress(
        MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(),
        TextColumn("{task.description}"), console=console, transient=True,
    )  # fmt: skip
    progress.add_task("", total=total)
    return progress


def _facts(scene: Stage) -> dict[str, str]:
    day = time.strftime("%-d %B %Y", time.gmtime())
    return {
        "date": day,
        "machine": f"{os.cpu_count()} cores, {_processor()}, Linux {platform.release()}",
        "versions": f"logfan {version('logfan')}, RabbitMQ {scene.node.version}, "
        f"Python {platform.python_version()}, pika {version('pika')}",
        "clients": ", ".join(_clients()) or "none",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _clients() -> list[str]:
    """The other clients' versions, as their environment has them."""
    folders = entrants.CLIENTS.parent.parent.glob("lib/python*/site-packages/*.dist-info")
    wanted = ("aio_pika", "faststream", "kombu", "pika", "uvloop")
    found = [folder.name.removesuffix(".dist-info").rpartition("-") for folder in folders]
    return sorted(
        f"{name.replace('_', '-')} {number}" for name, _, number in found if name in wanted
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
