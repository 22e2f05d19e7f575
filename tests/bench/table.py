"""Results as tables: once as rows of words, shown on a terminal and as Markdown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from bench import disk, targets
from bench.bodies import PLAIN, SHAPES
from bench.entrants import CUMULATIVE, LIMIT, THREE, files_of, title_of
from bench.plan import BACKLOG, INSTANCES, MAIN, PREFETCH, QUEUE, QUEUES, SHAPE, SINKS, SIZE
from bench.results import Latency, Median, Results

_TO = "\N{EN DASH}"
_NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Grid:
    """A title, the names of the columns (the first to the left, the others to the right), rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def grids(results: Results) -> list[Grid]:
    """All tables that have a row, the targets last."""
    parts = (
        _main(results), _shapes(results), _sinks(results), _sizes(results),
        _by_prefetch(results), _queues(results), _backlogs(results), _several(results),
        _latencies(results), _targets(results),
    )  # fmt: skip
    return [grid for grid in parts if grid.rows]


def _main(results: Results) -> Grid:
    """The plain and the headers' row of a consumer stand one below the other."""
    plain = sorted(results.medians(MAIN, shape=PLAIN), key=lambda middle: -middle.rate)
    middles = [m for one in plain for m in results.medians(MAIN, entrant=one.case.entrant)]
    rows = []
    for middle in middles:
        limit = results.median(MAIN, entrant=LIMIT, shape=middle.case.shape)
        pika = results.median(MAIN, entrant=CUMULATIVE, shape=middle.case.shape)
        rows.append(
            (
                title(middle), rate(middle.rate), _spread(middle), _ratio(middle, limit),
                _ratio(middle, pika), us(middle.cpu_us), _cpu_ratio(middle, limit),
                us(middle.broker_us), f"{middle.memory_mib:.0f} MiB",
                f"{middle.start_seconds:.2f} s", str(middle.times),
            )
        )  # fmt: skip
    return Grid(
        "Draining a filled classic queue of 200-byte messages, prefetch 4,000",
        ("consumer", "messages a second", "spread", "of the limit", "of pika", "CPU a message",
         "of the limit's", "the broker's", "peak memory", "start", "times"),
        rows,
        "With headers: constant ones and traceparent, held against the C client with the same "
        "messages. The tutorial's consumer has prefetch 1, as in the tutorial. \"Of pika\" means: "
        "with cumulative acks. All but logfan do nothing with a message.",
    )  # fmt: skip


def _shapes(results: Results) -> Grid:
    rows = []
    for shape, words in SHAPES.items():
        group = SHAPE if results.medians(SHAPE, shape=shape) else MAIN
        limit = results.median(group, entrant=LIMIT, shape=shape)
        ours = results.median(group, entrant=THREE, shape=shape)
        if ours and results.medians(SHAPE):
            rows.append(
                (
                    words, rate(limit.rate) if limit else _NONE, rate(ours.rate),
                    _ratio(ours, limit), us(limit.cpu_us) if limit else _NONE, us(ours.cpu_us),
                    _cpu_ratio(ours, limit),
                )
            )  # fmt: skip
    return Grid(
        "What programs send: 200-byte messages of several shapes",
        ("messages", title_of(LIMIT), title_of(THREE), "of the limit", "CPU of the limit",
         "CPU of logfan", "of the limit's"),
        rows,
    )  # fmt: skip


def _sinks(results: Results) -> Grid:
    middles = results.medians(SINKS)
    note = ""
    each = targets.each_further_sink(results)
    if each is not None:
        note = f"Each further sink adds {each:.2f} µs of processor a message (least squares)."
    return Grid(
        "One to eight raw file sinks, each with fsync",
        ("sinks", "messages a second", "spread", "CPU a message", "peak memory"),
        [
            (
                str(files_of(middle.case.entrant)), rate(middle.rate), _spread(middle),
                us(middle.cpu_us), f"{middle.memory_mib:.0f} MiB",
            )
            for middle in middles
        ],
        note,
    )  # fmt: skip


def _sizes(results: Results) -> Grid:
    grid = _by(
        "Size of the bodies", "size", results, [MAIN, SIZE], lambda middle: middle.case.size,
        lambda size: f"{bytes_of(int(size))}", show=_rate_and_bytes,
    )  # fmt: skip
    return replace(grid, note=_of_the_disk(results))


def _of_the_disk(results: Results) -> str:
    if not results.disk_rate:
        return ""
    words = (
        f"The disk alone took {results.disk_rate / 1e6:,.0f} MB/s: lines of 1 MiB, one thread, an "
        f"fdatasync each {bytes_of(disk.SYNC_BYTES)}"
    )
    limit = results.median(SIZE, entrant=LIMIT, size=disk.LINE_BYTES)
    if limit:
        share = results.disk_rate / (limit.rate * limit.case.size)
        words += f". That is {share:.2f} of what the C client took, which keeps nothing"
    return f"{words}."


def _by_prefetch(results: Results) -> Grid:
    return _by(
        "Prefetch", "prefetch", results, [MAIN, PREFETCH], lambda middle: middle.case.prefetch,
        lambda prefetch: f"{prefetch:,}",
    )  # fmt: skip


def _queues(results: Results) -> Grid:
    names = {"classic": 0, "quorum": 1}
    return _by(
        "Type of the queue", "queue", results, [MAIN, QUEUE],
        lambda middle: names[middle.case.queue], lambda number: list(names)[int(number)],
    )  # fmt: skip


def _by(
    title: str,
    column: str,
    results: Results,
    groups: Sequence[str],
    key: Callable[[Median], int],
    label: Callable[[int], str],
    show: Callable[[Median], str] = lambda middle: rate(middle.rate),
) -> Grid:
    """A row for each value of `key`, a column for each contestant of the last group."""
    measured = results.medians(groups[-1], shape=PLAIN)
    names = list(dict.fromkeys(middle.case.entrant for middle in measured))
    cells = {
        (key(middle), middle.case.entrant): middle
        for group in groups
        for middle in results.medians(group, shape=PLAIN)
        if middle.case.entrant in names
    }
    rows = []
    for value in sorted({value for value, _ in cells} if measured else ()):
        row = [label(value)]
        for name in names:
            middle = cells.get((value, name))
            row.append(show(middle) if middle else _NONE)
            if name != LIMIT:
                row.append(_ratio(middle, cells.get((value, LIMIT))))
        rows.append(row)
    columns = [column]
    for name in names:
        columns += [title_of(name)] if name == LIMIT else [title_of(name), "of the limit"]
    return Grid(title, columns, rows)


def _backlogs(results: Results) -> Grid:
    middles = sorted(
        results.medians(BACKLOG), key=lambda middle: (middle.case.entrant, middle.case.count)
    )
    smallest = {
        middle.case.entrant: middle for middle in reversed(middles) if middle.case.count == 10_000
    }
    rows = []
    for middle in middles:
        base = smallest.get(middle.case.entrant)
        change = f"{(middle.us_a_message / base.us_a_message - 1) * 100:+.1f} %" if base else _NONE
        rows.append(
            (
                title_of(middle.case.entrant),
                f"{middle.case.count:,}",
                rate(middle.rate),
                _spread(middle),
                f"{middle.us_a_message:.2f} µs",
                change,
                us(middle.cpu_us),
                f"{middle.memory_mib:.0f} MiB",
                str(middle.times),
            )
        )
    return Grid(
        "Size of the backlog",
        ("consumer", "backlog", "messages a second", "spread", "time a message", "against 10,000",
         "CPU a message", "peak memory", "times"),
        rows,
    )  # fmt: skip


def _several(results: Results) -> Grid:
    """Several instances on one queue, and several queues."""
    rows = []
    for group, form in ((INSTANCES, "{} on one queue"), (QUEUES, "{}, a queue each")):
        middles = results.medians(group)
        for middle in middles:
            case = middle.case
            alone = results.median(
                group, entrant=case.entrant, instances=1, queues=min(1, case.queues)
            )
            rows.append(
                (
                    title_of(case.entrant), form.format(case.daemons), rate(middle.rate),
                    _spread(middle), _ratio(middle, alone), us(middle.cpu_us),
                    us(middle.broker_us), f"{middle.cpu_us * middle.rate / 1e6:.2f}",
                    f"{middle.broker_us * middle.rate / 1e6:.2f}",
                    f"{middle.memory_mib:.0f} MiB", f"{middle.count:,.0f}", str(middle.times),
                )
            )  # fmt: skip
    return Grid(
        "Several instances on one classic queue, and queues behind a consistent-hash exchange",
        ("consumer", "instances", "messages a second", "spread", "of one", "CPU a message",
         "the broker's", "cores taken", "by the broker", "peak memory", "counted", "times"),
        rows,
        "Everything is that of all instances and all queues together, from the moment when the "
        'last instance was ready; "counted" is how many messages were left then.',
    )  # fmt: skip


def _latencies(results: Results) -> Grid:
    return Grid(
        "From publish to durable and acknowledged: logfan, one raw file, fsync = batch",
        ("rate", "asked", "sent", "p50", "p99", "p99.9", "worst", "messages", "sustained"),
        [_latency(latency) for latency in results.latencies],
        "The publisher runs on the same two cores. Where a rate was not sustained, the queue "
        "grew, and the times are those of waiting in it.",
    )


def _latency(latency: Latency) -> Sequence[str]:
    times = (latency.p50, latency.p99, latency.p999, latency.worst)
    return (
        latency.label, f"{latency.asked:,.0f}", f"{latency.sent:,.0f}",
        *(f"{ms:,.1f} ms" for ms in times), f"{latency.count:,}",
        "yes" if latency.sustained else f"no, {latency.left:,} left",
    )  # fmt: skip


def _targets(results: Results) -> Grid:
    rows = [(r.title, r.reach, r.beyond, r.measured, r.verdict) for r in targets.rows(results)]
    if not results.medians(MAIN):  # a run that is about something else
        rows = []
    return Grid("Targets", ("measure", "to reach", "beyond", "measured", ""), rows)


def line_of(middle: Median) -> str:
    """What is printed while it runs, right after one drain."""
    case = middle.case
    return (
        f"{rate(middle.rate):>7}/s {us(middle.cpu_us):>9} {middle.memory_mib:4.0f} MiB "
        f"start {middle.start_seconds:.2f} s  {case.group}: {case}"
    )


def markdown(results: Results) -> str:
    """The whole report."""
    lines = [f"- {key}: {value}" for key, value in results.facts.items()]
    lines += [f"- left out: {title_of(name)}: {why}" for name, why in results.absent.items()]
    lines += [f"- no time for: {what}" for what in results.skipped]
    lines += [f"- **FAILED**: {what}" for what in results.failures]
    for grid in grids(results):
        lines += ["", f"### {grid.title}", "", _row(grid.columns)]
        lines.append(_row(["---", *["---:"] * (len(grid.columns) - 1)]))
        lines += [_row(row) for row in grid.rows]
        if grid.note:
            lines += ["", grid.note]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def show(results: Results, console: Console) -> None:
    """The same on a terminal."""
    for grid in grids(results):
        table = Table(title=grid.title, title_justify="left", caption=grid.note or None,
                      caption_justify="left")  # fmt: skip
        for number, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)
    for key, value in results.facts.items():
        console.print(f"{key}: {value}", highlight=False)
    for name, why in results.absent.items():
        console.print(f"left out: {title_of(name)}: {why}", style="yellow")
    for what in results.skipped:
        console.print(f"no time for: {what}", style="yellow")
    for what in results.failures:
        console.print(f"FAILED: {what}", style="red")


def rate(value: float) -> str:
    """Messages a second, to three or so places: more would pretend."""
    return (
        f"{round(value, -1 if value < 10_000 else -2):,.0f}" if value >= 1_000 else f"{value:.0f}"
    )


def us(value: float) -> str:
    return f"{value:.2f} µs" if value < 20 else f"{value:,.0f} µs"


def bytes_of(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def _rate_and_bytes(middle: Median) -> str:
    return f"{rate(middle.rate)} ({middle.rate * middle.case.size / 1e6:,.0f} MB/s)"


def _spread(middle: Median) -> str:
    return f"{rate(middle.rate_min)}{_TO}{rate(middle.rate_max)}"


def title(middle: Median) -> str:
    """The consumer, and what it is sent where that is not the plain messages."""
    words = title_of(middle.case.entrant)
    return words if middle.case.shape == PLAIN else f"{words}, with headers"


def _cpu_ratio(middle: Median, of: Median | None) -> str:
    return f"{middle.cpu_us / of.cpu_us:.2f}" if of and of.cpu_us else _NONE


def _ratio(middle: Median | None, of: Median | None) -> str:
    return f"{middle.rate / of.rate:.2f}" if middle and of else _NONE
