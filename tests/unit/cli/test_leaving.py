"""What nobody foresaw, as the end of a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from logfan.cli.common import report_blocked, warn
from logfan.cli.demo_broker import say
from logfan.cli.leaving import report
from logfan.runtime.foreign_text import hide


def test_it_is_shown_with_its_traceback_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    hide("s3cret-of-leaving")
    with pytest.raises(KeyError) as raised:
        raise KeyError("s3cret-of-leaving")
    assert report(raised.value) == os.EX_SOFTWARE
    shown = capsys.readouterr().err
    assert "test_leaving.py" in shown
    assert "error  internal fault: KeyError: " in shown
    assert "please report it" in shown
    assert "s3cret-of-leaving" not in shown


EVIL = "\x1b]52;c;aGk=\x07\x9b31m\u202eevil"


def test_no_foreign_text_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin's or a library's error, and the reason with which a broker blocks publishers."""
    report(RuntimeError(f"it failed{EVIL}\nforged"))
    report_blocked(f"low on memory{EVIL}")
    warn([f"foreign{EVIL}"])
    say(f"at {EVIL}")
    shown = capsys.readouterr().err
    assert shown.count("\\x1b]52;c;aGk=\\x07\\x9b31m\\u202eevil") == 5
    assert not {*EVIL} & {*shown} - {*"]52;c;aGk=31mevil"}


NO_THREADS = """
import sys, threading
from logfan.cli import main

def start(self):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
sys.argv = ["logfan", "check", "--config", sys.argv[1]]
main()
"""


def test_where_the_system_has_no_thread_to_give_it_ends_with_its_own_code(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[sinks.a]\nkind = "file"\n')
    ended = subprocess.run(
        [sys.executable, "-c", NO_THREADS, config],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "sinks.a.path" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == os.EX_CONFIG
