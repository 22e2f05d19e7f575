"""What `logfan top` shows, from what is known of each daemon. Sans-I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from logfan.cli import status_view as view
from logfan.cli.status_client import Daemon, safe
from logfan.telemetry.sink_health import duration

KEYS = "sort: s state  n name  r rate  h held  b batch  d dead   space pause  q quit"
_LEAST_TROUBLES = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one daemon."""

    url: str
    daemon: Daemon | None = None
    """Its last answer."""
    why_away: str | None = None
    """Why it does not answer; None while it does, or was not asked yet."""
    away_since: float = 0.0
    """In seconds since 1970, as `now` below."""
    now: float = 0.0

    def away(self, why: str, now: float) -> "Seen":
        since = now if self.why_away is None else self.away_since
        return replace(self, why_away=why, away_since=since, now=now)

    @property
    def line(self) -> str:
        """For a pipe."""
        if self.why_away is not None or self.daemon is None:
            why = safe(self.why_away or "not asked yet")
            return f"{view.clock(self.now)} {safe(self.url)} state=away why={why}"
        return view.one_line(self.url, self.daemon)


@dataclass(frozen=True, slots=True)
class Screen:
    """The terminal, and what the keys asked for."""

    columns: int
    rows: int
    sort: str = "s"
    paused: bool = False
    ascii_only: bool = False


def screen(daemons: Sequence[Seen], on: Screen) -> list[Text]:
    """Line by line, as many as the terminal has; the last one names the keys."""
    body = list(_one(daemons[0], on) if len(daemons) == 1 else _several(daemons, on))
    room = max(1, on.rows - 1)
    if len(body) > room:
        hidden = len(body) - room + 1
        body = [*body[: room - 1], Text(f"and {hidden} more lines", view.QUIET)]
    lines = [*body, *[Text()] * (room - len(body)), _footer(on)]
    for line in lines:
        line.truncate(on.columns)
    return lines


def _footer(on: Screen) -> Text:
    name, _ = view.SORTS[on.sort]
    line = Text(f"{KEYS}", view.QUIET)
    if on.paused:
        return Text("PAUSED, as it was at the last look; space goes on  q quits", view.DOUBTFUL)
    start = KEYS.index(f"{on.sort} {name}")
    line.stylize("not dim bold", start, start + len(name) + 2)
    return line


def _one(seen: Seen, on: Screen) -> Iterator[Text]:
    if seen.why_away is not None or seen.daemon is None:
        yield from _away(seen)
        return
    daemon = seen.daemon
    lines = list(view.head(seen.url, daemon, columns=on.columns))
    lines.append(Text())
    lines += view.numbers(daemon, columns=on.columns, ascii_only=on.ascii_only)
    lines.append(Text())
    sinks = sorted(daemon.sinks, key=view.SORTS[on.sort][1])
    lines += view.sinks(sinks, daemon.now, columns=on.columns)
    yield from lines
    left = on.rows - 1 - len(lines) - 2
    if left >= _LEAST_TROUBLES:
        fitting: list[Text] = []
        for most in range(1, left + 1):
            more = list(view.troubles(daemon, columns=on.columns, most=most))
            if len(more) - 2 > left:
                break
            fitting = more
        yield from fitting


def _away(seen: Seen) -> Iterator[Text]:
    if seen.why_away is None:
        yield Text(f"asking {safe(seen.url)}", view.QUIET)
        return
    lasts = duration(max(0.0, seen.now - seen.away_since))
    yield Text.assemble(
        ("AWAY", view.BAD), f"  {safe(seen.url)} does not answer for {lasts}: {safe(seen.why_away)}"
    )
    if seen.daemon is not None:
        last = seen.daemon
        yield Text(
            f"      last seen {view.clock(last.now)}: {safe(last.state)}, "
            f"{view.count(last.in_flight)} in flight", view.QUIET,
        )  # fmt: skip


_TITLES = ("in/s", 8), ("ack/s", 8), ("in flight", 9), ("waiting", 9), ("drained in", 14)


def _several(daemons: Sequence[Seen], on: Screen) -> Iterator[Text]:
    """A row for each daemon, then the sinks of all."""
    taken = sum(cells + 1 for _, cells in _TITLES) + 11
    own = max(10, min(on.columns - taken, max(len(_name(one)) for one in daemons)))
    titles = " ".join(f"{title:>{cells}}" for title, cells in _TITLES)
    yield Text(f"{'daemon':<{own}} {'state':<10} {titles}", view.QUIET)
    for one in daemons:
        daemon = one.daemon
        if one.why_away is not None or daemon is None:
            why = safe(one.why_away or "asking")
            yield Text.assemble(f"{_name(one)[:own]:<{own}} ", ("away", view.BAD), f"       {why}")
            continue
        values = (
            view.per_second(daemon.rate.received), view.per_second(daemon.rate.acknowledged),
            view.count(daemon.in_flight),
            view.known(daemon.queue_ready),
            view.drain(daemon)[0],
        )  # fmt: skip
        cells = " ".join(f"{value:>{c}}" for value, (_, c) in zip(values, _TITLES, strict=True))
        style = view.GOOD if daemon.ready else view.BAD
        yield Text.assemble(
            f"{_name(one)[:own]:<{own}} ", (f"{safe(daemon.state)[:10]:<10}", style), f" {cells}"
        )
    yield Text()
    rows = [
        (sink, _name(one), one.daemon.now)
        for one in daemons
        if one.daemon is not None and one.why_away is None
        for sink in one.daemon.sinks
    ]
    rows.sort(key=lambda row: view.SORTS[on.sort][1](row[0]))
    if rows:
        owners = [owner for _, owner, _ in rows]
        yield from view.sinks(
            [sink for sink, _, _ in rows], rows[0][2], columns=on.columns, owners=owners
        )


def _name(one: Seen) -> str:
    """The instance's name where it has one; else where it answers."""
    instance = one.daemon.instance if one.daemon is not None else ""
    return safe(instance or one.url.partition("://")[2])
