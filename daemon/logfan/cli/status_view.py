"""A daemon's status for the eye, from 80 columns on: `logfan status` and `logfan top`. Sans-I/O.

Everything is plain text in a style, never markup: names and reasons are those of others.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from logfan.cli.status_client import Daemon, Sink, safe
from logfan.telemetry.sink_health import duration

GOOD, BAD, DOUBTFUL, QUIET, STRONG = "green", "bold red", "yellow", "dim", "bold"
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"
_LABEL_CELLS = 15
_VALUE_CELLS = 11
_CHARTED = " 10 min"
_TROUBLES = 5
_REASONS = 5
_KIB, _MIB = 1 << 10, 1 << 20

# Column, cells, and the text of a sink. The name takes what is left.
_COLUMNS: Sequence[tuple[str, int, Callable[[Sink], str]]] = (
    ("rate/s", 8, lambda sink: per_second(sink.rate)),
    ("batch", 8, lambda sink: seconds(sink.batch_seconds)),
    ("held", 7, lambda sink: count(sink.held)),
    ("retries", 7, lambda sink: count(sink.retries)),
    ("dead", 6, lambda sink: count(sink.dead_lettered)),
    ("dropped", 7, lambda sink: count(sink.dropped)),
)
_STATE_CELLS = 19
_OPTIONAL = " (optional)"
_LEAST_NAME_CELLS, _GOOD_NAME_CELLS = 12, 19
_GOOD_COLUMNS = 80
_DROPPED_FIRST = "dropped", "batch", "rate/s", "held", "retries", "dead"
"""Which columns a narrow terminal does without."""

SORTS: dict[str, tuple[str, Callable[[Sink], Any]]] = {
    "s": ("state", lambda sink: (sink.state == "up", not sink.required, sink.name)),
    "n": ("name", lambda sink: sink.name),
    "r": ("rate", lambda sink: (-sink.rate, sink.name)),
    "h": ("held", lambda sink: (-sink.held, sink.name)),
    "b": ("batch", lambda sink: (-sink.batch_seconds, sink.name)),
    "d": ("dead", lambda sink: (-sink.dead_lettered, sink.name)),
}
"""What the sinks are sorted by, by the key that asks for it."""


def whole(url: str, daemon: Daemon, *, columns: int, ascii_only: bool = False) -> Iterator[Text]:
    """All that `logfan status` shows of a daemon, line by line."""
    yield from head(url, daemon, columns=columns)
    yield Text()
    yield from numbers(daemon, columns=columns, ascii_only=ascii_only)
    yield Text()
    yield from sinks(daemon.sinks, daemon.now, columns=columns)
    if daemon.dead_letters:
        yield Text()
        yield Text("dead letters since the start", STRONG)
        for row in daemon.dead_letters[:_REASONS]:
            line = f"{count(row.count):>6}  {safe(row.sink)}: {safe(row.reason)}"
            yield from wrapped(line, columns, indent=8)
    yield from troubles(daemon, columns=columns, most=_TROUBLES)


def head(url: str, daemon: Daemon, *, columns: int) -> Iterator[Text]:
    """Which daemon it is, whether it is ready, what it does and since when. That a sink is down
    stands with the sinks."""
    instance = f" {safe(daemon.instance)}" if daemon.instance else ""
    up = duration(max(0.0, daemon.now - daemon.started_at))
    yield Text.assemble(
        (f"logfan {safe(daemon.version)}{instance}", STRONG),
        (f"  {safe(url)}  pid {daemon.pid}, started {up} ago", QUIET),
    )
    verdict = ("READY", GOOD) if daemon.ready else ("NOT READY", BAD)
    since = f"{safe(daemon.state)} for {lasting(daemon.since, daemon.now)}"
    first, *more = wrapped(f"{since}: {safe(daemon.detail)}", columns, first=len(verdict[0]) + 2)
    yield Text.assemble(verdict, "  ", first.plain.strip())
    yield from more
    of_sinks = {f"sink {one.name} is down: {one.failure}" for one in daemon.sinks}
    for reason in daemon.reasons:
        if reason not in of_sinks:
            yield from wrapped(safe(reason), columns, first=2, indent=2, style=BAD)


def numbers(daemon: Daemon, *, columns: int, ascii_only: bool = False) -> Iterator[Text]:
    """What flows, what is in flight, what waits and for how long."""
    room = max(10, min(60, columns - _LABEL_CELLS - _VALUE_CELLS - len(_CHARTED) - 4))
    charts = daemon.history
    rows: list[tuple[str, str, str | Text]] = [
        ("in", f"{per_second(daemon.rate.received)}/s",
         Text(spark(charts.received, room, ascii_only) + _CHARTED, "cyan")),
        ("acknowledged", f"{per_second(daemon.rate.acknowledged)}/s",
         Text(spark(charts.acknowledged, room, ascii_only), "cyan")),
        ("waiting", known(daemon.queue_ready),
         Text(spark([one or 0 for one in charts.queue_ready], room, ascii_only), "magenta")),
        ("time to drain", *drain(daemon)),
        ("in flight", count(daemon.in_flight), in_flight(daemon)),
        ("redelivered", count(daemon.redelivered),
         f"{count(daemon.requeued)} handed back to the broker"),
        ("dead letters", known(daemon.dead_letters_waiting), "wait in the dead-letter queue"),
    ]  # fmt: skip
    for label, value, rest in rows:
        yield Text.assemble(
            (f"{label:<{_LABEL_CELLS}}", QUIET), (f"{value:>{_VALUE_CELLS}}", STRONG), "  ", rest
        )


def drain(daemon: Daemon) -> tuple[str, str]:
    """How long until nothing waits, and what that is taken from."""
    published, acknowledged = daemon.rate.published, daemon.rate.acknowledged
    if daemon.queue_ready == 0:
        return "-", "nothing waits"
    if daemon.queue_ready is None or published is None:
        return "unknown", "not seen long enough yet"
    if daemon.time_to_drain_seconds is not None:
        return duration(daemon.time_to_drain_seconds), f"at {per_second(published)}/s published"
    grows = published - acknowledged
    if grows >= 0.05:
        return "never", f"it grows by {per_second(grows)}/s ({per_second(published)}/s published)"
    return "never", "it does not shrink"


def in_flight(daemon: Daemon) -> str:
    """Against the window, in bytes, and the age of the oldest."""
    text = f"of {count(daemon.prefetch)}, {size(daemon.in_flight_bytes)}"
    oldest = daemon.oldest_unacknowledged_seconds
    return f"{text}; the oldest for {duration(oldest)}" if oldest >= 1.0 else text


def sinks(
    rows: Sequence[Sink], now: float, *, columns: int, owners: Sequence[str] = ()
) -> Iterator[Text]:
    """A row for each sink, and below it why it is down. `owners`: the daemon of each row."""
    own = max((cell_len(name) for name in owners), default=0)
    own = min(own, columns // 5 - 2) + 1 if own else 0
    is_narrow = own > 0 or columns < _GOOD_COLUMNS
    name_cells = _LEAST_NAME_CELLS if is_narrow else _GOOD_NAME_CELLS
    shown = _columns(columns - own - name_cells - 1 - _STATE_CELLS)
    taken = own + 1 + _STATE_CELLS + sum(cells + 1 for _, cells, _ in shown)
    longest = max((cell_len(safe(one.name)) for one in rows), default=0)
    name_cells = max(_LEAST_NAME_CELLS, min(columns - taken, longest + len(_OPTIONAL)))
    titles = " ".join(f"{title:>{cells}}" for title, cells, _ in shown)
    first = set_cell_size("daemon", own) if own else ""
    yield Text(
        f"{first}{set_cell_size('sink', name_cells)} {'state':<{_STATE_CELLS}} {titles}", QUIET
    )
    for place, sink in enumerate(rows):
        name = safe(sink.name) + ("" if sink.required else _OPTIONAL)
        state = f"{safe(sink.state)} {lasting(sink.since, now)}"
        cells = " ".join(f"{text(sink):>{width}}" for _, width, text in shown)
        owner = set_cell_size(_cut(owners[place], own - 1), own) if own else ""
        yield Text.assemble(
            (owner, QUIET),
            set_cell_size(_cut(name, name_cells), name_cells),
            " ",
            (set_cell_size(_cut(state, _STATE_CELLS), _STATE_CELLS), style_of(sink)),
            f" {cells}",
        )
        if sink.failure is not None:
            yield from wrapped(safe(sink.failure), columns, first=2, indent=2, style=style_of(sink))


def _columns(room: int) -> Sequence[tuple[str, int, Callable[[Sink], str]]]:
    """Those that fit into so many cells."""
    shown = [*_COLUMNS]
    for title in _DROPPED_FIRST:
        if sum(cells + 1 for _, cells, _ in shown) > room:
            shown = [column for column in shown if column[0] != title]
    return shown


def troubles(daemon: Daemon, *, columns: int, most: int) -> Iterator[Text]:
    """The last of them, the newest last, each on one line or as many as it needs."""
    last = daemon.troubles[-most:] if most > 0 else []
    if not last:
        return
    yield Text()
    yield Text("last troubles", STRONG)
    for one in last:
        again = f" ({one.count} times)" if one.count > 1 else ""
        yield from wrapped(f"{clock(one.at)} {safe(one.text)}{again}", columns, indent=9)


def style_of(sink: Sink) -> str:
    """Red is what holds messages back."""
    if sink.state == "up":
        return GOOD
    return BAD if sink.required and sink.state != "opening" else DOUBTFUL


def wrapped(
    text: str, columns: int, *, first: int = 0, indent: int = 0, style: str = ""
) -> Iterator[Text]:
    """In lines of the terminal's width."""
    start = first
    while text:
        room = max(20, columns - start)
        line = set_cell_size(text, room) if cell_len(text) > room else text
        if cell_len(text) > room:
            line = line.rstrip(" ")
            at = line.rfind(" ")
            line = line[:at] if at > room // 2 else line
        yield Text(" " * start + line, style)
        text, start = text[len(line) :].lstrip(" "), indent


def one_line(url: str, daemon: Daemon) -> str:
    """For a pipe: all that matters on one line, as `key=value`."""
    waiting, drains = daemon.queue_ready, daemon.time_to_drain_seconds
    down = [safe(one.name) for one in daemon.sinks if one.state != "up"]
    parts = {
        "state": safe(daemon.state), "ready": "yes" if daemon.ready else "no",
        "in": f"{daemon.rate.received:.1f}", "acknowledged": f"{daemon.rate.acknowledged:.1f}",
        "in_flight": f"{daemon.in_flight}/{daemon.prefetch}",
        "waiting": "unknown" if waiting is None else str(waiting),
        "time_to_drain": "unknown" if drains is None else f"{drains:.0f}",
        "redelivered": str(daemon.redelivered), "dead_letters": known(daemon.dead_letters_waiting),
        "down": ",".join(down) or "none",
    }  # fmt: skip
    line = " ".join(f"{key}={value}" for key, value in parts.items())
    return f"{clock(daemon.now)} {safe(url)} {line}"


def spark(values: Sequence[float], cells: int, ascii_only: bool = False) -> str:
    """The values as a line of blocks, the newest at its right end, the highest as a full block."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    step = max(1, -(-len(values) // cells))
    # From the end, so that the newest stand together and nothing moves but by a whole step.
    groups = [values[max(0, end - step) : end] for end in range(len(values), 0, -step)]
    means = [sum(group) / len(group) for group in reversed(groups)]
    top = max(means, default=0.0)
    if top <= 0.0:
        return blocks[1] * len(means)
    return "".join(blocks[max(1, round(mean / top * (len(blocks) - 1)))] for mean in means)


def clock(at: float) -> str:
    """The time of day here."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def lasting(since: float, now: float) -> str:
    return duration(max(0.0, now - since))


def count(number: int) -> str:
    """`1,203`, `123k`, `4.5M`."""
    if abs(number) < 100_000:
        return f"{number:,}"
    return f"{number / 1e3:.0f}k" if abs(number) < 1_000_000 else f"{number / 1e6:.1f}M"


def known(number: int | None) -> str:
    return "unknown" if number is None else count(number)


def per_second(rate: float) -> str:
    """`0`, `0.4`, `12`, `1,203`."""
    return f"{rate:.1f}" if 0.05 <= abs(rate) < 9.95 else count(round(rate))


def seconds(value: float) -> str:
    """`-` where there is none, `400 us`, `12 ms`, `1.5 s`."""
    if value <= 0.0:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    if value < 1.0:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s" if value < 100.0 else f"{count(round(value))} s"


def size(number: int) -> str:
    """`0 B`, `1.2 MiB`."""
    if number < _KIB:
        return f"{number} B"
    return f"{number / _KIB:.0f} KiB" if number < _MIB else f"{number / _MIB:.1f} MiB"


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "~"
