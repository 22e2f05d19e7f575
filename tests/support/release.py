"""What `make dist` makes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_dist(folder: Path) -> Path:
    """All of a release, in this folder."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "systemd")}
    build = [sys.executable, "-m", "packages.dist", str(folder)]
    done = subprocess.run(build, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
