"""On a terminal of 80 columns no command has a line that is longer."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from logfan.cli import main
from support.command import start
from support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
COLUMNS = 80
CONFIG = (
    'rabbitmq.urls = ["amqp://guest:guest@example.org"]\nplugins.directories = []\n'
    '[exchange]\nname = "logs-of-the-whole-company"\n'
)
SINKS = "".join(
    f'[sinks.a-name-that-is-rather-long-{number}]\nkind = "stdout"\n' for number in range(6)
)
FAULTY = '[sinks.archive]\nkind = "file"\npath = "/no/such/folder/at/all/of/this/machine/a.log"\n'


def commands(group: click.Group, *above: str) -> Iterator[list[str]]:
    """Each command, and each within it, as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        assert command is not None
        yield [*above, name]
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)


ALL = [[], *commands(main)]


def on_terminal(folder: Path, *words: str) -> tuple[int, list[str]]:
    """The exit code, and the lines that a terminal of 80 columns gets."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environ = {**os.environ, "TERM": "xterm"}
    environ.pop("COLUMNS", None)
    process = start(
        words, folder=folder, environ=environ, stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    seen = b""
    with suppress(OSError):
        while piece := os.read(terminal, 65536):
            seen += piece
    os.close(terminal)
    text = re.sub(r"\x1b\[[\d;]*m", "", seen.decode())
    return process.wait(PATIENCE_SECONDS), text.replace("\r", "").splitlines()


def test_the_walk_finds_commands_and_those_within_them() -> None:
    assert ["pause"] in ALL
    assert ["dlq", "list"] in ALL
    assert ["generate", "alerts"] in ALL


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_the_help_of_each_command_fits(words: list[str]) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=COLUMNS)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].startswith("Usage: ")
    assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize(
    ("words", "code", "config"),
    [
        ("sinks", 0, CONFIG),
        ("sinks file", 0, CONFIG),
        ("sinks kafka", 0, CONFIG),
        ("check", 0, CONFIG + SINKS),
        ("check", 78, CONFIG + FAULTY + '[sinks.x]\nkind = "file"\nformat = "yaml"\n'),
        ("status", 78, 'http.listen = "127.0.0.1:0"\n' + CONFIG),
        ("pause archive", 69, CONFIG),
    ],
)
def test_what_it_prints_fits(words: str, code: int, config: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(config)
    ended, lines = on_terminal(tmp_path, *words.split())
    assert ended == code, lines
    assert lines
    whole = [line for line in lines if len(line) > COLUMNS and " " in line.strip()]
    assert whole == []


def test_make_help_fits_and_names_every_target_that_is_explained() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert [line for line in shown.splitlines() if len(line) > COLUMNS] == []
    explained = re.findall(r"^([a-z-]+):.* ## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\S+)", shown, re.MULTILINE) == [name for name, _ in explained]
    flat = " ".join(shown.split())
    assert [what for _, what in explained if what not in flat] == []


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("--config x check", "logfan check --config x"),
        ("-c x dlq list", "logfan dlq -c x list"),
        ("--json status", "logfan status --json"),
        ("dlq --sink x show", "logfan dlq show --sink x"),
        ("generate --folder x plugin", "logfan generate plugin --folder x"),
    ],
)
def test_an_option_before_the_command_gets_a_hint_where_it_goes(typed: str, hint: str) -> None:
    shown = CliRunner().invoke(main, typed.split(), prog_name="logfan")
    assert shown.exit_code == 2
    assert f"goes behind the command: {hint}" in shown.output


@pytest.mark.parametrize("typed", ["--confg x", "--confg x check", "generate --folder x alerts"])
def test_an_option_that_the_command_does_not_have_gets_none(typed: str) -> None:
    shown = CliRunner().invoke(main, typed.split())
    assert shown.exit_code == 2
    assert "No such option" in shown.output
    assert "goes behind" not in shown.output


@pytest.mark.parametrize("typed", ["dlq --config FILE list", "dlq list --config FILE"])
def test_a_group_takes_the_config_before_its_command_as_well(typed: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("[rabbitmq]\nprefetch = 0\n")
    shown = CliRunner().invoke(main, typed.replace("FILE", str(config)).split())
    assert shown.exit_code == 78
    assert f"1 fault in {config}" in shown.output


def test_a_group_takes_the_config_for_commands_that_read_none() -> None:
    shown = CliRunner().invoke(main, ["generate", "--config", "away.toml", "alerts"])
    assert shown.exit_code == 0
    assert "LogfanDown" in shown.output
