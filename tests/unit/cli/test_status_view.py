"""What `status` and `top` show, line by line: right, and within the width, whatever is in it."""

from typing import Any

import pytest
from rich.cells import cell_len

from logfan.cli.status_client import Daemon, Sink
from logfan.cli.status_view import count, one_line, per_second, seconds, sinks, spark, whole
from logfan.cli.top_view import Screen, Seen, screen
from support.status import NOW, document, sink

URL = "http://127.0.0.1:9464"
LONG = "status 400: [bold]the field[/bold] :smile: \x1b[2J is not known" + " and so on" * 20
WIDE = "木" * 60


def shown(columns: int = 80, **changes: Any) -> list[str]:
    daemon = Daemon.model_validate(document(**changes))
    return [line.plain for line in whole(URL, daemon, columns=columns)]


def on_screen(*daemons: Seen, **options: Any) -> list[str]:
    options = {"columns": 80, "rows": 24, **options}
    return [line.plain for line in screen(list(daemons), Screen(**options))]


def seen(**changes: Any) -> Seen:
    return Seen(URL, Daemon.model_validate(document(**changes)))


def line_of(lines: list[str], start: str) -> str:
    return next(line for line in lines if line.startswith(start))


def test_it_says_who_it_is_what_it_does_and_since_when() -> None:
    lines = shown()
    assert lines[0] == f"logfan 9.9 blue  {URL}  pid 4711, started 2 h 5 min ago"
    assert lines[1] == (
        "READY  consuming for 12 min 20 s: consuming queue logfan at 127.0.0.1:5672"
    )
    assert " 1,203/s " in line_of(lines, "in ")
    assert " 1,190/s " in line_of(lines, "acknowledged")
    assert " 12,345 " in line_of(lines, "waiting")
    assert "1 min 5 s  at 1,003/s published" in line_of(lines, "time to drain")
    assert "1,000  of 1,000, 1.2 MiB; the oldest for 12 min 21 s" in line_of(lines, "in flight")
    assert "3  wait in the dead-letter queue" in line_of(lines, "dead letters")
    assert line_of(lines, "archive").split() == (
        ["archive", "up", "1", "h", "56", "min", "1,203", "4", "ms", "0", "0", "0"]
    )
    assert line_of(lines, "metrics").startswith("metrics (optional) up ")
    assert "     3  archive: not JSON" in lines
    assert lines[-1].endswith("it was bad (3 times)")


def test_a_sink_that_is_down_has_its_reason_once() -> None:
    down = sink("archive", state="down", since=NOW - 61.0, failure="the disk is full", rate=0.0)
    lines = shown(
        ready=False, sinks=[down],
        reasons=["sink archive is down: the disk is full", "not consuming: paused"],
    )  # fmt: skip
    assert lines[1].startswith("NOT READY  ")
    assert lines[2] == "  not consuming: paused"
    row = lines.index(line_of(lines, "archive"))
    assert "down 1 min 1 s" in lines[row]
    assert lines[row + 1] == "  the disk is full"
    assert sum("the disk is full" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("changes", "shown_as"),
    [
        ({"queue_ready": 0, "time_to_drain_seconds": 0.0}, "-  nothing waits"),
        ({"queue_ready": None, "time_to_drain_seconds": None}, "unknown  not seen long enough"),
        (
            {
                "time_to_drain_seconds": None,
                "rate": {"received": 5.0, "acknowledged": 5.0, "published": 45.0},
            },
            "never  it grows by 40/s (45/s published)",
        ),
        (
            {
                "time_to_drain_seconds": None,
                "rate": {"received": 5.0, "acknowledged": 5.0, "published": None},
            },
            "unknown  not seen long enough",
        ),
    ],
)
def test_time_to_drain_where_there_is_none(changes: dict[str, Any], shown_as: str) -> None:
    assert shown_as in line_of(shown(**changes), "time to drain")


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_whatever_is_in_it_every_line_fits_and_none_of_it_is_obeyed(columns: int) -> None:
    hostile = [
        sink(LONG, state="down", failure=LONG, held=123_456_789, retries=99_999, rate=1e9),
        sink(WIDE, required=False, state="paused", failure=WIDE, batch_seconds=1e5),
    ]
    changes = {
        "sinks": hostile, "detail": LONG, "reasons": [LONG, WIDE], "ready": False,
        "troubles": [{"at": NOW, "text": LONG}, {"at": NOW, "text": WIDE}],
        "dead_letters": [{"sink": "a", "reason": LONG, "count": 10**9}],
    }  # fmt: skip
    lines = shown(columns, **changes)
    assert max(map(cell_len, lines)) <= columns
    assert all(line.isprintable() for line in lines)
    assert "".join(LONG.replace("\x1b", r"\x1b").split()) in "".join("".join(lines).split())
    one = seen(**changes)
    for daemons in ((one,), (one, one.away(LONG, NOW), Seen(URL))):
        lines = on_screen(*daemons, columns=columns, rows=24)
        assert len(lines) == 24
        assert max(map(cell_len, lines)) <= columns
        assert all(line.isprintable() for line in lines)
    assert one_line(URL, Daemon.model_validate(document(**changes))).isprintable()


def test_the_screen_is_full_and_never_more_than_full() -> None:
    many = seen(sinks=[sink(f"sink-{number:02}") for number in range(40)])
    lines = on_screen(many)
    assert len(lines) == 24
    assert lines[-2] == "and 30 more lines"
    assert lines[-1].startswith("sort: ")
    assert on_screen(seen(), rows=40)[-4].endswith("it was bad (3 times)") or any(
        "it was bad" in line for line in on_screen(seen(), rows=40)
    )
    assert len(on_screen(seen(), rows=5)) == 5


def test_the_sinks_are_sorted_as_the_keys_ask() -> None:
    rows = [
        sink("b", rate=1.0, held=5, batch_seconds=0.1, dead_lettered=1),
        sink("a", rate=3.0, held=1, batch_seconds=0.2, dead_lettered=3),
        sink("c", rate=2.0, held=9, batch_seconds=0.3, dead_lettered=2, state="down"),
    ]
    order = {
        key: "".join(
            line[0] for line in on_screen(seen(sinks=rows), sort=key) if line[1:5] == "    "
        )
        for key in "snrhbd"
    }
    assert order == {"s": "cab", "n": "abc", "r": "acb", "h": "cba", "b": "cab", "d": "acb"}


def test_several_daemons_have_a_row_each_and_their_sinks_together() -> None:
    lines = on_screen(
        seen(instance="blue", sinks=[sink("archive")]),
        Seen("http://10.2.3.4:9464").away("connection refused", NOW),
        seen(instance="red", ready=False, sinks=[sink("search", state="down", failure="no")]),
    )
    assert line_of(lines, "blue").split()[:3] == ["blue", "consuming", "1,203"]
    assert line_of(lines, "10.2.3.4:9464").split()[1:] == ["away", "connection", "refused"]
    sinks = [line.split()[:3] for line in lines[lines.index("") + 2 :]]
    assert sinks[0] == ["red", "search", "down"]
    assert ["blue", "archive", "up"] in sinks


def test_of_several_daemons_80_columns_have_what_is_stuck_and_what_was_refused() -> None:
    owner = "10.20.30.40:9464"
    row = sink("archive", held=999, retries=42, dead_lettered=7)
    lines = on_screen(*[seen(instance=owner, sinks=[row])] * 2)
    title = lines.index(line_of(lines, "daemon         sink"))
    assert lines[title].split()[-4:] == ["rate/s", "held", "retries", "dead"]
    assert lines[title + 1].split()[-4:] == ["1,203", "999", "42", "7"]
    narrow = [line.plain for line in sinks([Sink(**row)], NOW, columns=60)]
    assert narrow[0].split() == ["sink", "state", "held", "retries", "dead"]


def test_a_daemon_that_went_away_is_shown_with_what_was_last_seen() -> None:
    gone = seen().away("connection refused", NOW + 60.0).away("connection refused", NOW + 75.0)
    lines = on_screen(gone)
    assert lines[0] == f"AWAY  {URL} does not answer for 15 s: connection refused"
    assert lines[1].endswith("consuming, 1,000 in flight")
    assert "state=away why=connection refused" in gone.line


def test_a_line_for_a_pipe_has_it_all() -> None:
    line = seen(sinks=[sink("a", state="down", failure="no"), sink("b")]).line
    assert line.split(" ", 1)[1] == (
        f"{URL} state=consuming ready=yes in=1203.2 acknowledged=1190.0 in_flight=1000/1000 "
        "waiting=12345 time_to_drain=65 redelivered=12 dead_letters=3 down=a"
    )


def test_a_sparkline_ends_with_the_newest_and_has_its_highest_as_a_full_block() -> None:
    assert spark([0.0, 4.0, 8.0], 10) == "▁▄█"
    assert spark([0.0] * 120, 40) == "▁" * 40
    assert spark([], 10) == ""
    assert spark([*[0.0] * 117, 9.0, 9.0, 9.0], 40)[-2:] == "▁█"
    assert spark([0.0, 8.0], 10, ascii_only=True).isascii()
    assert all(len(spark([1.0] * n, 50)) <= 50 for n in range(121))


def test_numbers_stay_short() -> None:
    assert [count(n) for n in (0, 99_999, 123_456, 4_500_000)] == ["0", "99,999", "123k", "4.5M"]
    assert [per_second(r) for r in (0.0, 0.4, 9.9, 12.3)] == ["0", "0.4", "9.9", "12"]
    assert [seconds(s) for s in (0.0, 0.0004, 0.012, 1.5)] == ["-", "400 us", "12 ms", "1.5 s"]
