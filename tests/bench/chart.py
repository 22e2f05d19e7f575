"""Results as SVG files, drawn by hand: bars and lines with labelled axes and values at the marks.

Each picture carries its own background and the colours for a light and a dark screen.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench import svg
from bench.bodies import PLAIN
from bench.entrants import CUMULATIVE, LIMIT, ONE, THREE, files_of, is_logfan, title_of
from bench.plan import BACKLOG, MAIN, PREFETCH, SINKS, SIZE
from bench.results import Median, Results
from bench.svg import Bar, Line
from bench.table import bytes_of, rate, title

_STYLES = {LIMIT: "limit", ONE: "ours", THREE: "ours2", CUMULATIVE: "other"}


def write_all(results: Results, folder: Path) -> list[Path]:
    """Write every picture that the results have figures for; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in CHARTS.items():
        picture = draw(results)
        if picture:
            (folder / f"{name}.svg").write_text(picture)
            written.append(folder / f"{name}.svg")
    return written


def drain_rate(results: Results) -> str:
    """Bars: messages a second of every contestant."""
    bars = []
    for middle in sorted(results.medians(MAIN), key=lambda middle: -middle.rate):
        limit = results.median(MAIN, entrant=LIMIT, shape=middle.case.shape)
        share = f" ({middle.rate / limit.rate:.2f})" if limit else ""
        bars.append(Bar(title(middle), middle.rate, rate(middle.rate) + share, _style(middle)))
    return svg.bars(
        "Messages a second, 200-byte bodies, prefetch 4,000 (of the limit)",
        "messages a second", bars,
    )  # fmt: skip


def processor(results: Results) -> str:
    """Bars: microseconds of processor a message."""
    middles = sorted(results.medians(MAIN), key=lambda middle: middle.cpu_us)
    bars = [Bar(title(m), m.cpu_us, f"{m.cpu_us:.1f} µs", _style(m)) for m in middles]
    return svg.bars("CPU a message, user and system, the whole process", "microseconds", bars)


def memory(results: Results) -> str:
    """Bars: peak memory."""
    middles = sorted(results.medians(MAIN), key=lambda middle: middle.memory_mib)
    bars = [Bar(title(m), m.memory_mib, f"{m.memory_mib:.0f} MiB", _style(m)) for m in middles]
    return svg.bars("Peak memory while draining, prefetch 4,000", "MiB", bars)


def size(results: Results) -> str:
    """Lines: bytes a second by the size of the bodies."""
    lines = _lines(
        results, (MAIN, SIZE), lambda m: m.case.size, lambda m: m.rate * m.case.size / 1e6
    )
    return svg.lines(
        "Megabytes a second, by the size of the bodies", "size of a body", "MB a second", lines,
        x_log=True, y_log=True, x_label=lambda value: bytes_of(int(value)),
    )  # fmt: skip


def prefetch(results: Results) -> str:
    """Lines: messages a second by prefetch."""
    lines = _lines(results, (MAIN, PREFETCH), lambda m: m.case.prefetch, lambda m: m.rate)
    return svg.lines(
        "Messages a second, by prefetch", "prefetch", "messages a second", lines, x_log=True
    )


def sinks(results: Results) -> str:
    """Lines: processor a message by the number of file sinks."""
    points = [(files_of(m.case.entrant), m.cpu_us) for m in results.medians(SINKS)]
    line = Line("raw files, each with fsync", sorted(points), "ours")
    return svg.lines(
        "CPU a message, by the number of file sinks", "file sinks", "microseconds",
        [line] if len(points) > 1 else [],
    )  # fmt: skip


def backlog(results: Results) -> str:
    """Lines: time a message by the size of the backlog."""
    lines = _lines(results, (BACKLOG,), lambda m: m.case.count, lambda m: m.us_a_message)
    return svg.lines(
        "Time a message, by the size of the backlog", "messages in the queue", "microseconds",
        lines, x_log=True,
    )  # fmt: skip


def latencies(results: Results) -> str:
    """Lines: latency at its quantiles, one line a rate."""
    names = ("p50", "p99", "p99.9", "worst")
    styles = ("other", "ours", "ours2", "limit")
    sustained = [latency for latency in results.latencies if latency.sustained]
    lines = [
        Line(
            f"{found.asked:,.0f} a second",
            list(enumerate((found.p50, found.p99, found.p999, found.worst))), style,
        )
        for found, style in zip(sustained, styles, strict=False)
    ]  # fmt: skip
    return svg.lines(
        "From publish to durable and acknowledged, one raw file", "of all messages",
        "milliseconds", lines, y_log=True, with_values=True,
        x_label=lambda value: names[int(value)],
    )  # fmt: skip


def _lines(
    results: Results,
    groups: Sequence[str],
    x: Callable[[Median], float],
    y: Callable[[Median], float],
) -> list[Line]:
    """A line for each contestant of the last group, with its points of all groups."""
    names = list(dict.fromkeys(m.case.entrant for m in results.medians(groups[-1])))
    found = []
    for name in names:
        points = {
            x(m): y(m)
            for group in groups
            for m in results.medians(group, entrant=name, shape=PLAIN)
        }
        if len(points) > 1:
            found.append(Line(title_of(name), sorted(points.items()), _STYLES.get(name, "other")))
    return found


def _style(middle: Median) -> str:
    name = middle.case.entrant
    return "ours" if is_logfan(name) else "limit" if name == LIMIT else "other"


CHARTS: dict[str, Callable[[Results], str]] = {
    "drain-rate": drain_rate,
    "cpu": processor,
    "memory": memory,
    "size": size,
    "prefetch": prefetch,
    "sinks": sinks,
    "backlog": backlog,
    "latency": latencies,
}
