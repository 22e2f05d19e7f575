"""The suite over broker versions, tried on a handful of tests that need no broker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brokers.run import ROOT
from support.waiting import PATIENCE_SECONDS

TESTS = """
import os, time, pytest
def test_it_gets_the_version(): assert os.environ["PRIVATE_RABBITMQ"] == "3.10"
def test_that_fails(): assert not os.environ.get("FAIL")
@pytest.mark.skip(reason="no")
def test_that_is_skipped(): pass
def test_that_hangs(): time.sleep(float(os.environ.get("HANG", "0")))
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    return file


def run(folder: Path, *arguments: object, **environ: str) -> tuple[int, str]:
    """The exit code and the report."""
    report = folder / "report.md"
    done = subprocess.run(
        [sys.executable, "-m", "brokers.run", "--report", report, *map(str, arguments)],
        cwd=folder, env={**os.environ, "PYTHONPATH": f"{ROOT}/tests", **environ},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert report.exists(), done.stderr
    assert report.read_text() in done.stdout
    return done.returncode, report.read_text()


def test_a_version_that_passes_has_its_line(tests: Path, tmp_path: Path) -> None:
    code, report = run(tmp_path, "--versions", "3.10", tests)
    assert code == 0
    assert report.splitlines()[2].startswith("| 3.10.")
    assert "| bookworm | 3 | 0 | 1 |" in report
    assert "skipped: `test_some::test_that_is_skipped`" in report


def test_what_failed_is_named_and_is_the_exit_code(tests: Path, tmp_path: Path) -> None:
    code, report = run(tmp_path, "--versions", "3.10", tests, FAIL="1")
    assert code == 1
    assert "| bookworm | 2 | 1 | 1 |" in report
    assert "FAILED" in report
    assert "failed: `test_some::test_that_fails`" in report


def test_time_is_bounded_and_a_version_that_cannot_be_had_is_reported(
    tests: Path, tmp_path: Path
) -> None:
    code, report = run(tmp_path, "--versions", "2.8 3.10", "--seconds", 4, tests, HANG="60")
    assert code == 1
    assert "RabbitMQ 2.8 is not among those known" in report
    assert "not done after" in report
