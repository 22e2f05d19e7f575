"""A release, built once for the tests that install it."""

from pathlib import Path

import pytest

from support.release import make_dist


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dist(tmp_path_factory.mktemp("release") / "dist")
