"""Dead letters for the eye and for machines: nothing that a terminal would obey gets through."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
import orjson

from logfan.dead_letters.survey import Found, Row, Survey
from logfan.json_format import dumps
from logfan.record import Properties
from logfan.telemetry.log_output import one_line

_BODY_CHARACTERS = 4000
_VALUE_CHARACTERS = 500
_REASON_CHARACTERS = 300
_ROWS = 30
_WIDE_COLUMNS = 120
_PIPE_COLUMNS = 1000
"""More than a row can have: a pipe gets each row as one line."""
_FOREIGN = "(not put there by logfan)"


def size_of(count: int) -> str:
    """`1.5 MiB`"""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{count} B"


def letters(count: int) -> str:
    """`1 dead letter`, `2 dead letters`"""
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def table(survey: Survey, *, columns: int | None) -> Iterator[str]:
    """A row for each sink and reason, the most frequent first: fitted into a terminal's columns,
    or, for a pipe (None), a line each."""
    from rich.console import Console
    from rich.table import Table

    rows = survey.sorted()
    shown = rows[:_ROWS]
    if survey.foreign.count:
        shown.append(("-", _FOREIGN, survey.foreign))
    narrow = columns is not None and columns < _WIDE_COLUMNS
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("count", "oldest", "newest", "bytes", "sink", "reason"):
        number, time = name in ("count", "bytes"), name in ("oldest", "newest")
        grid.add_column(
            name, justify="right" if number else "left", no_wrap=number, overflow="fold",
            max_width=len("12:00:00.000Z") if narrow and time else None,
        )  # fmt: skip
    for sink, reason, row in shown:
        times = [_short(at or "-", 24) for at in (row.oldest, row.newest)]
        if narrow:  # the date above the time
            times = [at.replace("T", " ") for at in times]
        grid.add_row(
            f"{row.count:,}", *times, size_of(row.size), _short(sink, 64),
            _short(reason, _REASON_CHARACTERS),
        )  # fmt: skip
    console = Console(
        width=columns or _PIPE_COLUMNS, force_terminal=False,
        markup=False, highlight=False, emoji=False,
    )  # fmt: skip
    with console.capture() as capture:
        console.print(grid)
    head, *lines = [line.rstrip() for line in capture.get().splitlines()]
    yield from (click.style(head, bold=True), *lines)
    if len(rows) > _ROWS:
        rest = sum(row.count for _, _, row in rows[_ROWS:])
        yield f"and {letters(rest)} of {len(rows) - _ROWS:,} more reasons; --json shows all"


def survey_json(queue: str, waiting: int, survey: Survey) -> str:
    """All of it as one object."""
    rows: list[dict[str, Any]] = [
        {"sink": sink, "reason": reason, **_row_json(row)} for sink, reason, row in survey.sorted()
    ]
    return _json(
        {
            "queue": queue, "messages": waiting, "read": survey.count, "rows": rows,
            "foreign": _row_json(survey.foreign), "deliveries_max": survey.deliveries,
        }
    )  # fmt: skip


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "count": row.count, "bytes": row.size,
        "oldest": row.oldest or None, "newest": row.newest or None,
    }  # fmt: skip


def delivery_warning(deliveries: int) -> str:
    """What an operator should know of messages in a quorum queue of which no copy can be made, and
    which came back so often; else empty."""
    if not deliveries:
        return ""
    return (
        f"messages that logfan did not put there were delivered up to {deliveries} times, once for "
        "each look, and no copy can be made of them (user_id, CC or BCC are set): where this "
        "quorum queue has a delivery limit, those beyond it are dropped; purge them, or take them "
        "out by other means"
    )


def refused_warning(refused: Mapping[int, int]) -> str:
    """What an operator should know of letters in a quorum queue that are too large to be copied:
    each with its count of deliveries; empty where there are none."""
    if not refused:
        return ""
    are, them = ("is", "it") if len(refused) == 1 else ("are", "them")
    return (
        f"{letters(len(refused))} {are} larger than the broker takes now (max_message_size), and "
        f"no copy can be made of {them}; delivered up to {max(refused.values())} times, once for "
        "each look: where this quorum queue has a delivery limit, what is beyond it is dropped; "
        f"raise max_message_size at the broker and replay {them}, or purge {them}"
    )


def letter_json(found: Found) -> str:
    """The letter with its whole body, as one line."""
    letter = found.letter
    entry: dict[str, Any] = {}
    if found.ours:
        entry = {
            "sink": letter.sink, "reason": letter.reason, "attempts": letter.attempts,
            "first_failed_at": letter.first_failed_at, "exchange": letter.exchange,
            "routing_key": letter.routing_key, "queue": letter.queue,
        }  # fmt: skip
    properties = _properties(found)
    entry |= {"properties": dict(_set(properties)), "headers": properties.headers}
    return _json({**entry, "body": letter.body})


def letter_text(number: int, found: Found) -> Iterator[str]:
    """The letter as lines for people; a long body is cut."""
    letter = found.letter
    if found.ours:
        times = "1 attempt" if letter.attempts == 1 else f"{letter.attempts:,} attempts"
        what = f"refused by sink {letter.sink} after {times}"
        yield _head(number, f"{what}, first at {letter.first_failed_at}")
        yield _line("reason", letter.reason)
        origin = f"exchange {letter.exchange!r}, routing key {letter.routing_key!r}"
        yield _line("from", f"{origin}, queue {letter.queue!r}")
    else:
        yield _head(number, _FOREIGN)
    properties = _properties(found)
    for name, value in _set(properties):
        yield _line(name, _short(str(value), _VALUE_CHARACTERS))
    for name, value in properties.headers.items():
        text = value if isinstance(value, str) else _json(value)
        yield _line("header", f"{name} = {_short(text, _VALUE_CHARACTERS)}")
    yield from _body_lines(letter.body)
    yield ""


def _head(number: int, text: str) -> str:
    return click.style(f"{number:,}. {one_line(text)}", bold=True)


def _line(name: str, value: str) -> str:
    return f"   {_short(name, 16):<16}  {one_line(value)}"


def _body_lines(body: bytes) -> Iterator[str]:
    text = _text(body)
    kind = "" if text is not None else ", not text: as base64"
    yield _line("body", f"{len(body):,} bytes{kind}")
    if text is None:
        text = base64.b64encode(body[:_BODY_CHARACTERS]).decode()
        left = len(body) - _BODY_CHARACTERS
    else:
        left = len(body) - len(text[:_BODY_CHARACTERS].encode())
        text = text[:_BODY_CHARACTERS]
    for line in text.removesuffix("\n").split("\n") if text else ():
        yield f"      {one_line(line)}"
    if left > 0:
        yield click.style(f"      … {left:,} bytes more; --json shows all", dim=True)


def _text(body: bytes) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _properties(found: Found) -> Properties:
    return found.letter.original() if found.ours else found.letter.properties


def _set(properties: Properties) -> Iterator[tuple[str, Any]]:
    """The properties that the publisher set, but for headers."""
    for name, value in properties._asdict().items():
        if value is not None and name != "headers":
            yield name, value


def _json(value: Any) -> str:
    # ASCII alone: this may be looked at on a terminal, too.
    return json.dumps(orjson.loads(dumps(value)))


def _short(text: str, most: int) -> str:
    safe = one_line(text)
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"
