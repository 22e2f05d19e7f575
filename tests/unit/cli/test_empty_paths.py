"""A path that is empty on the command line, as of a variable that is not set."""

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
def test_it_is_named_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "the path is empty" in " ".join(done.output.split())
    assert not any(tmp_path.iterdir())
