"""The completion files, read by the shells that `make test` may not have: zsh and fish."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from logfan.testing.debian import unpacked
from packages.completions import PLACES, completions

pytestmark = pytest.mark.long


def _in_shell(package: str, program: str, *arguments: object) -> str:
    """What Debian's shell prints; `logfan` is the one under test."""
    root = unpacked(package)
    libraries = ":".join({str(path.parent) for path in root.rglob("*.so*")})
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [root / program, *map(str, arguments)], check=False, text=True, timeout=100,
        env={**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_fish_completes_a_command_and_shows_what_it_does(tmp_path: Path) -> None:
    script = tmp_path / "logfan.fish"
    script.write_text(completions()[PLACES["fish"]])
    shown = _in_shell(
        "fish", "usr/bin/fish", "--no-config", "-c",
        f"source {script}; complete -C 'logfan generate da'",
    )  # fmt: skip
    assert shown == "dashboard\tPrint a dashboard for Grafana.\n"


def test_zsh_reads_its_file(tmp_path: Path) -> None:
    script = tmp_path / "_logfan"
    script.write_text(completions()[PLACES["zsh"]])
    assert script.read_text().startswith("#compdef logfan\n")
    assert _in_shell("zsh", "bin/zsh", "-f", "-n", script) == ""
