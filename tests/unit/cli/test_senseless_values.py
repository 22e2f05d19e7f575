"""What the command line holds and cannot be meant: an empty path, as of a variable that is not set,
and a time that is no number."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main


@pytest.mark.parametrize(
    "command",
    [
        ("check", "-c", ""), ("run", "--config", ""), ("status", "--config="), ("test", ""),
        ("generate", "plugin", "shout", "--folder", ""), ("status", "--ca-file", ""),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_path_is_named_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "the path is empty" in " ".join(done.output.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("top", "--interval"), ("try", "--timeout")], ids=" ".join)
@pytest.mark.parametrize("seconds", ["nan", "-nan", "inf", "1e300", "0", "x"])
def test_no_command_waits_for_a_time_that_is_none(command: tuple[str, ...], seconds: str) -> None:
    done = CliRunner().invoke(main, [*command, seconds])
    assert done.exit_code == 2
    assert f"Invalid value for '{command[1]}'" in done.output
