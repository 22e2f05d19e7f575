"""Small disks: a program run in a mount namespace of its own, with a tmpfs that it alone sees."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def on_a_disk(disk: Path, program: str, *, options: str = "size=1m") -> str:
    """Run the Python program with a new tmpfs mounted at `disk`, which it gets as its argument;
    what it printed. Skips where nothing can be mounted, which is for an ordinary user only."""
    disk.mkdir(exist_ok=True)
    script = disk.with_name("program.py")
    script.write_text(textwrap.dedent(program))
    ours = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", *ours, "--mount", "sh", "-c"]
    mount = 'mount -t tmpfs -o "$0" none "$1"'
    tried = subprocess.run(
        [*unshare, mount, options, disk], check=False, capture_output=True, text=True, timeout=60
    )
    if tried.returncode:
        pytest.skip(f"no such disk can be mounted here: {tried.stderr.strip()}")
    done = subprocess.run(
        [*unshare, f'{mount} && exec "$2" "$3" "$1"', options, disk, sys.executable, script],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
