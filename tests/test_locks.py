"""The lock files install with every pip, today and after the next releases."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def _locked(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]


@pytest.mark.parametrize("name", [".requirements.lock", ".requirements-oldest.lock"])
def test_each_package_is_locked_to_one_version(name: str) -> None:
    for locked in _locked(name):
        assert [one.operator for one in locked.specifier] == ["=="], str(locked)


def test_an_extra_that_a_locked_package_asks_for_is_locked_too() -> None:
    """pip 23 takes the newest release for `coverage[toml]` where only `coverage` is locked."""
    extras = {canonicalize_name(one.name): one.extras for one in _locked(".requirements.lock")}
    for name in extras:
        try:
            asked = distribution(name).requires or []
        except PackageNotFoundError:  # for another platform or Python
            continue
        for need in map(Requirement, asked):
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            assert need.extras <= extras[canonicalize_name(need.name)], f"{name} needs {need}"
