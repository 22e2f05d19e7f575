"""The files of a release: the same twice, sums that match, and pip takes its constraints."""

import subprocess
import sys
from pathlib import Path

import pytest

from logfan import __version__
from support.release import make_dist

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # the first one builds the release


def _run(*command: object, folder: Path | None = None, code: int = 0) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=folder, text=True, check=False, timeout=500,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def test_the_same_commit_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = make_dist(tmp_path / "again")
    assert (again / "SHA256SUMS").read_text() == (dist / "SHA256SUMS").read_text()
    listed = _run("sha256sum", "--check", "SHA256SUMS", folder=again).splitlines()
    assert len(listed) == len([*again.iterdir()]) - 1


def test_pip_installs_the_release_by_its_constraints_and_refuses_another_wheel(
    dist: Path, tmp_path: Path
) -> None:
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    install = (
        sys.executable, "-m", "pip", "--python", tmp_path / "venv/bin/python", "-q",
        "--disable-pip-version-check", "install", "--require-hashes",
        "--find-links", tmp_path, "-r", dist / "constraints.txt",
    )  # fmt: skip
    [wheel] = dist.glob("*.whl")
    other = tmp_path / wheel.name
    other.write_bytes(wheel.read_bytes() + b"more")
    assert "DO NOT MATCH THE HASHES" in _run(*install, code=1)
    other.write_bytes(wheel.read_bytes())
    _run(*install)
    logfan = tmp_path / "venv/bin/logfan"
    assert _run(logfan, "--version") == f"logfan, version {__version__}\n"
    kinds = _run(logfan, "sinks", folder=tmp_path)
    assert {"kafka", "postgres", "s3"} <= set(kinds.split())
    assert "not installed" not in kinds
