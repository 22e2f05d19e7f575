"""The table of dead letters, for pipes and for terminals of any width."""

import re

import click
import pytest

from logfan.cli.dlq_view import refused_warning, table
from logfan.dead_letters.letter import FIRST_FAILED_AT, REASON, SINK, Letter
from logfan.dead_letters.survey import Found, Survey
from logfan.record import Properties

NOON = "2026-11-24T12:00:00.000Z"
LONG = "status 400: [bold]the field[/bold] :smile: is not known \x1b[2J" + " and so on" * 20


def printed(found: Survey, columns: int | None) -> list[str]:
    return [click.unstyle(line) for line in table(found, columns=columns)]


def survey(*reasons: str, foreign: int = 0) -> Survey:
    found = Survey()
    for number, reason in enumerate([*reasons, *[""] * foreign]):
        ours = number < len(reasons)
        headers = {SINK: "archive", REASON: reason, FIRST_FAILED_AT: NOON} if ours else {}
        letter = Letter(b"x" * 2048, Properties(headers=headers))
        found.add(Found(number, letter, 2048, 0, letter))
    return found


def test_a_pipe_gets_a_line_for_each_reason_and_no_space_at_its_end() -> None:
    lines = printed(survey("too old", "too old", LONG, foreign=1), columns=None)
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert cells[0] == ["count", "oldest", "newest", "bytes", "sink", "reason"]
    assert cells[1] == ["2", NOON, NOON, "4.0 KiB", "archive", "too old"]
    assert cells[2][5].startswith(r"status 400: [bold]the field[/bold] :smile: is not known \x1b[")
    assert cells[2][5].endswith("and so on")
    assert cells[3] == ["1", "-", "-", "2.0 KiB", "-", "(not put there by logfan)"]
    assert len(lines) == 4
    assert all(line == line.rstrip() and line.isprintable() for line in lines)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_all_of_it_within_its_width(columns: int) -> None:
    lines = printed(survey("too old", LONG), columns=columns)
    assert max(map(len, lines)) <= columns
    column = lines[0].index("reason")
    assert column <= columns - 20
    shown = "".join("".join(line[column:].split()) for line in lines[1:])
    assert "".join(LONG.replace("\x1b", r"\x1b").split()) in shown


def test_the_most_frequent_come_first_and_the_rest_is_counted() -> None:
    lines = printed(survey(*(f"reason {n:02}" for n in range(40)), "reason 39"), columns=None)
    assert len(lines) == 32
    assert lines[1].endswith("reason 39")
    assert lines[31] == "and 10 dead letters of 10 more reasons; --json shows all"


def test_letters_too_large_for_a_copy_are_counted_with_their_most_deliveries() -> None:
    assert refused_warning({}) == ""
    one = refused_warning({7: 3})
    assert one.startswith("1 dead letter is larger than the broker takes now (max_message_size)")
    assert "up to 3 times" in one
    two = refused_warning({7: 3, 9: 12})
    assert two.startswith("2 dead letters are larger")
    assert "up to 12 times" in two
