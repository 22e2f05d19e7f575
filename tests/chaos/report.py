"""What was done and what came out: as text for the terminal, as Markdown. Sans-I/O."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.scene import Scene, Verdict
from logfan import __version__

Table = Sequence[Sequence[str]]


@dataclass(slots=True)
class Facts:
    """Of one run."""

    seed: str
    seconds: float
    crashes: int
    losses: int
    scrapes: int
    lives: int
    growth: dict[str, float]
    long_lives: int
    done: dict[str, int]
    recoveries: dict[str, list[float]]
    proxy: dict[str, int]
    broker: str = ""
    starved: float = 0.0
    left: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, scene: Scene, *, seed: str, seconds: float) -> "Facts":
        """What the scene counted."""
        growth, long_lives = scene.watcher.growth()
        counts = scene.proxy.counts
        proxy = {name: getattr(counts, name) for name in ("connections", "reset", "held")}
        notes = ["a cluster of three nodes, the queue on one of them"] if scene.clustered else []
        if scene.disk is None and not scene.clustered:
            notes.append("no small disk could be had (root only), so none was filled")
        return cls(
            seed=seed, seconds=seconds, crashes=scene.crashes, losses=scene.watcher.losses,
            scrapes=scene.watcher.scrapes, lives=scene.daemon.lives, growth=growth,
            long_lives=long_lives, done=dict(scene.done), recoveries=scene.recoveries,
            proxy=proxy, notes=notes, starved=scene.starved_max,
        )  # fmt: skip


def as_markdown(facts: Facts, verdict: Verdict) -> str:
    """The whole report."""
    parts = [f"### {_headline(verdict)}", "", *(f"- {line}" for line in _summary(facts, verdict))]
    for title, table in _tables(facts, verdict):
        head, *rows = table
        parts += ["", f"**{title}**", "", _row(head), _row(["---"] * len(head)), *map(_row, rows)]
    if faults := verdict.faults():
        parts += ["", "**What broke**", "", *(f"- {fault}" for fault in faults)]
    return "\n".join(parts) + "\n"


def as_text(facts: Facts, verdict: Verdict) -> str:
    """The same in columns."""
    parts = ["", *_summary(facts, verdict)]
    for title, table in _tables(facts, verdict):
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        parts += ["", title]
        for row in table:
            cells = [
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            parts.append("  " + "  ".join(cells).rstrip())
    if faults := verdict.faults():
        parts += ["", "What broke", *(f"  {fault}" for fault in faults)]
    return "\n".join([*parts, "", _headline(verdict)])


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _headline(verdict: Verdict) -> str:
    lost = sum(len(finding.lost) for finding in verdict.findings)
    corrupt = sum(len(finding.corrupt) + len(finding.torn) for finding in verdict.findings)
    broken = len(verdict.faults())
    end = "every invariant held" if not broken else f"{broken} invariants BROKE"
    return f"{verdict.confirmed:,} confirmed, {lost} lost, {corrupt} corrupt; {end}"


def _summary(facts: Facts, verdict: Verdict) -> list[str]:
    times = [time for times in facts.recoveries.values() for time in times]
    growth = facts.growth
    lines = [
        f"seed `{facts.seed}`, {facts.seconds:.0f} s, {os.cpu_count()} cores",
        (
            f"logfan {__version__}, RabbitMQ {facts.broker}, Python {platform.python_version()}, "
            f"Linux {platform.release()}"
        ),
        (
            f"{facts.lives} lives of the daemon, {facts.crashes} crashes, {facts.losses} "
            f"connections or consumers lost; the proxy saw {facts.proxy['connections']} connections"
        ),
        (
            f"{verdict.confirmed:,} messages confirmed; {verdict.resent:,} published "
            "again under the same id, as no confirm had come"
        ),
        (
            f"back after {statistics.median(times):.2f} s (median), {percentile(times, 95):.2f} s "
            f"(p95), {max(times):.2f} s (worst); 10 s allowed"
        ),
        f"of that, waiting for a core that the machine did not have: {facts.starved:.1f} s at most",
        f"received = acked + requeued + abandoned + in flight at {facts.scrapes:,} scrapes",
        (
            f"most added within one of {facts.long_lives} long lives: {growth['descriptors']:.0f} "
            f"descriptors, {growth['threads']:.0f} threads, {growth['memory_kib'] / 1024:.1f} MiB"
        ),
        *facts.notes,
    ]
    if facts.left:
        lines.append(f"the time was over with {facts.left} faults not done")
    return lines


def _tables(facts: Facts, verdict: Verdict) -> list[tuple[str, Table]]:
    faults: list[list[str]] = [["fault", "times", "back: median", "p95", "worst"]]
    for name, times in sorted(facts.recoveries.items(), key=lambda item: -len(item[1])):
        faults.append(
            [
                name, str(facts.done.get(name, 1)),
                f"{statistics.median(times):.2f} s", f"{percentile(times, 95):.2f} s",
                f"{max(times):.2f} s",
            ]
        )  # fmt: skip
    sinks: list[list[str]] = [
        [
            "sink", "held", "refused", "lost", "unrouted", "unexpected", "corrupt", "torn",
            "misordered", "late", "duplicated", "explained", "files",
        ]
    ]  # fmt: skip
    for f in verdict.findings:
        numbers = (
            f.distinct, f.refused, len(f.lost), f.unrouted, len(f.unexpected), len(f.corrupt),
            len(f.torn), len(f.misordered), f.late, f.duplicated, verdict.duplicates_max, f.files,
        )  # fmt: skip
        sinks.append([f.sink, *(f"{number:,}" for number in numbers)])
    return [("What was done", faults), ("What each sink holds", sinks)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
