"""The file sink killed between each two of its calls to the system: nothing acknowledged is lost,
nothing is there twice, and the next run makes good what was half done."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from support import stopping
from support.files import deliver, made, numbered
from support.waiting import wait_until


@pytest.mark.slow
def test_killed_at_any_step_of_writing_rotating_and_compressing(tmp_path: Path) -> None:
    # The archivist's calls fall between the sink's in any order, so one pass may by chance stop
    # before no call of some kind: then there is another.
    seen: set[str] = set()
    for turn in range(5):
        seen |= every_step(tmp_path / str(turn))
        if {"mkdir", "writev", "fdatasync", "rename", "fsync"} <= seen:
            return
    raise AssertionError(f"killed before these only: {seen}")


def every_step(folder: Path) -> set[str]:
    """One pass: killed before the first call, before the second, and so on. Before which."""
    folder.mkdir()
    program = [sys.executable, stopping.__file__, str(folder)]
    subprocess.run(program, check=True, timeout=120, capture_output=True)
    runs = sorted(folder.iterdir())
    steps = [(run / "killed-at").read_text() for run in runs]
    assert len(steps) > 50
    assert steps[-1] == ""
    for run, step in zip(runs, steps, strict=True):
        acked = int((run / "acked").read_text() or 0)
        there = mended(run / "logs")
        assert there == list(range(len(there))), f"{run.name} {step}: {there}"
        assert len(there) >= acked, f"{run.name}, killed before {step}"
    return set(steps)


def mended(logs: Path) -> list[int]:
    """The next run: opens, finishes what was begun, goes on; what the run before it left."""
    rotate = {"size": "20B", "keep": 100, "compress": "gzip"}
    sink = made(logs / "a.log", rotate=rotate)
    sink.open()
    deliver(sink, numbered(9999, 10000))
    wait_until(lambda: not stopping.not_compressed(logs), f"all of {logs} is compressed")
    sink.close()
    lines = []
    for file in [*sorted(logs.glob("a.log.*")), logs / "a.log"]:
        raw = file.read_bytes()
        lines += (gzip.decompress(raw) if file.suffix == ".gz" else raw).split(b"\n")[:-1]
    assert lines.pop() == b"9999"
    return [int(line) for line in lines]
