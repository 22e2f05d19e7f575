"""Commands that run no sink need no plugin: none is looked for, and none may stand in their way."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main

NOWHERE = '[rabbitmq]\nurls = ["amqp://127.0.0.1:1"]\n'
BROKEN = {
    "a syntax error": "def broken(:\n",
    "an import that is not there": "import nothing_of_this_name\n",
    "an end of the process": "import os\nos._exit(3)\n",
    "a sink of no use": (
        "import logfan\n@logfan.hookimpl\ndef register_sinks(register): register('x', 5)\n"
    ),
}
COMMANDS = {
    "emit": ("emit", "x"),
    "dlq list": ("dlq", "list"),
    "dlq show": ("dlq", "show"),
    "dlq replay": ("dlq", "replay"),
    "dlq purge": ("dlq", "purge", "--yes"),
}


def called(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> tuple[int, str]:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, command)
    return done.exit_code, done.output


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_drop_in_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, command: str
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "broken.py").write_text(BROKEN[what])
    (tmp_path / "config.toml").write_text(
        f'{NOWHERE}[plugins]\ndirectories = ["{folder}"]\n[sinks.a]\nkind = "of the drop-in"\n'
        "option = 5\n"
    )
    code, output = called(tmp_path, monkeypatch, COMMANDS[command])
    assert code == 69, output
    assert "connection refused" in output
    assert "broken" not in output


@pytest.mark.parametrize("sinks", ["", "[sinks.a]\nkind = 5\n", "sinks = 5\n"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_sink_is_needed_nor_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, sinks: str
) -> None:
    (tmp_path / "config.toml").write_text(f"{sinks if 'sinks =' in sinks else ''}{NOWHERE}")
    if "sinks =" not in sinks:
        (tmp_path / "config.toml").write_text(f"{NOWHERE}{sinks}")
    code, output = called(tmp_path, monkeypatch, COMMANDS[command])
    assert code == 69, output


def test_a_key_of_the_http_side_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the service's alone, and `emit` runs as somebody else."""
    (tmp_path / "config.toml").write_text(f'{NOWHERE}[http]\ntls = {{ cert_file = "away.pem" }}\n')
    assert called(tmp_path, monkeypatch, ("emit", "x"))[0] == 69


@pytest.mark.parametrize("command", COMMANDS)
def test_other_faults_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "config.toml").write_text("[rabbitmq]\nprefetch = 0\n[qeue]\n")
    code, output = called(tmp_path, monkeypatch, COMMANDS[command])
    assert code == 78
    assert "rabbitmq.prefetch = 0" in output
    assert 'did you mean "queue"' in output


@pytest.mark.parametrize("command", ["check", "run"])
def test_check_and_run_need_every_drop_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "broken.py").write_text(BROKEN["a syntax error"])
    (tmp_path / "config.toml").write_text(
        f'[plugins]\ndirectories = ["{folder}"]\n[sinks.a]\nkind = "stdout"\n'
    )
    code, output = called(tmp_path, monkeypatch, (command,))
    assert code == 78
    assert "broken.py" in output
