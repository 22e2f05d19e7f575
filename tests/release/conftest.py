"""A release, built once for all tests that install it, also where several processes run them."""

import fcntl
import os
from pathlib import Path

import pytest

from support.release import make_dist


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    release = shared / "release"
    with (shared / "release.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (release / "SHA256SUMS").exists():  # which is written last
            make_dist(release)
    return release
