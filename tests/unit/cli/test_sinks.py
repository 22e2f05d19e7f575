"""`logfan sinks`: what it shows of options of any type, and of a config that is not sound."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from support.drop_ins import add_drop_in

PLUGIN = '''
from collections.abc import Callable
from enum import Enum
from typing import Any, Optional

import logfan
from pydantic import Field, SecretStr, field_validator

class Level(Enum):
    LOW = "low"
    HIGH = "high"

class Part(logfan.SinkConfig):
    size: logfan.Size = 2048
    """How large."""
    parts: "list[Part]" = []

class Odd(logfan.Sink):
    """Takes all."""
    class Config(logfan.SinkConfig):
        from_: str = Field(alias="from")
        level: Level = Level.LOW
        token: SecretStr | None = None
        wait: logfan.Duration = 90.0
        part: Optional[Part] = None
        parts: list[Part] = Field(default_factory=list)
        hosts: dict[str, int] = {}
        pair: tuple[int, str] | bool = True
        odd: Callable[[], None] | Any = None
        whither: "str" = Field(default="here", description="Whither.")

    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("odd", Odd)
'''
SHOWN = {
    "from": ("string, required", ""),
    "level": ('"low" | "high", default "low"', ""),
    "token": ("password, default none", ""),
    "wait": ('duration, default "90s"', ""),
    "part": ("table, default none", ""),
    "part.size": ('size, default "2KiB"', "How large."),
    "parts": ("list of tables, default empty", ""),
    "parts[].size": ('size, default "2KiB"', "How large."),
    "parts[].parts[].parts[].size": ('size, default "2KiB"', "How large."),
    "pair": ("list of values or boolean, default true", ""),
    "odd": ("value, default none", ""),
    "whither": ('string, default "here"', "Whither."),
    "required": ("boolean, default true", "false: its failure never holds a message back, and"),
    "batch.max_bytes": ('size, default "8MiB"', "Most bytes of bodies."),
    "retry.max": ('duration, default "30s"', "The longest delay."),
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    add_drop_in(tmp_path, "odd", PLUGIN)
    file = tmp_path / "config.toml"
    file.write_text(f'[plugins]\ndirectories = ["{tmp_path}/plugins"]\n')
    return file


def test_an_option_of_any_type_is_shown(config: Path) -> None:
    done = CliRunner().invoke(main, ["sinks", "odd", "-c", str(config)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert 'from = "…"' in lines
    for key, (shown, meaning) in SHOWN.items():
        at = lines.index(f"{key}  {shown}")
        assert lines[at + 1].startswith(f"    {meaning}" if meaning else "")
    assert "kind  " not in done.output


def test_a_config_that_holds_itself_is_shown(config: Path) -> None:
    plugin = config.parent / "plugins/odd.py"
    plugin.write_text(
        PLUGIN.replace(
            "        level: Level",
            '        or_: "Optional[Odd.Config]" = None\n        level: Level',
        )
    )
    done = CliRunner().invoke(main, ["sinks", "odd", "-c", str(config)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert 'from = "…"' in lines
    assert 'or_.or_.level  "low" | "high", default "low"' in lines


def test_the_kinds_are_listed_whatever_else_is_wrong(config: Path) -> None:
    config.write_text(f"{config.read_text()}[rabbitmq]\nprefetch = 0\n")
    done = CliRunner().invoke(main, ["sinks", "-c", str(config)])
    assert done.exit_code == 0, done.output
    kinds = [line.split()[0] for line in done.output.splitlines()[::2]]
    assert kinds == sorted(kinds)
    assert {"file", "metrics", "odd", "stdout"} <= {*kinds}


@pytest.mark.parametrize("text", ["plugins = 5\n", "[plugins\n", "[plugins]\ndirectory = 5\n"])
def test_a_fault_of_the_plugins_table_comes_after_the_kinds(config: Path, text: str) -> None:
    config.write_text(text)
    done = CliRunner().invoke(main, ["sinks", "-c", str(config)])
    assert done.exit_code == 78
    assert "stdout" in done.stdout
    assert "1 fault" in done.stderr
