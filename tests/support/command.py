"""`logfan` as people call it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from support.waiting import PATIENCE_SECONDS

LOGFAN = [sys.executable, "-m", "logfan"]


def logfan(
    *arguments: str, folder: Path | None = None, stdin: str | bytes = b"", **environ: str
) -> "subprocess.CompletedProcess[str]":
    """What it printed, and its exit code."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*LOGFAN, *arguments], cwd=folder, input=given, capture_output=True, check=False,
        env={**os.environ, **environ}, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
