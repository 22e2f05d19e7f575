"""`constraints.txt` is the lock, as far as it is for running."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packages.constraints import constraints, of_wheel

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / ".requirements.lock").read_text("utf-8")


def _entries(text: str) -> dict[str, list[str]]:
    """Each package with its version, marker and hashes."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line[:1].isalnum():
            locked = Requirement(line.rstrip(" \\"))
            lines = found[canonicalize_name(locked.name)] = [f"{locked.specifier};{locked.marker}"]
        elif not line.startswith("#"):
            lines.append(line.strip(" \\"))
    return found


def test_each_line_is_the_locks_with_all_hashes() -> None:
    lock = _entries(LOCK)
    entries = _entries(constraints())
    assert entries.items() <= lock.items()
    assert all(len(lines) > 1 for lines in entries.values())


def test_it_names_what_logfan_and_its_extras_need_and_nothing_of_development() -> None:
    named = _entries(constraints()).keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {need for name in extras if name != "testing" for need in extras[name]}
    for need in map(Requirement, declared | {*project["dependencies"]}):
        assert canonicalize_name(need.name) in named
    # What these need in turn; and what only tests, linters and builds need.
    assert {"pydantic-core", "psycopg-binary", "pygments"} <= named
    assert not named & {"pytest", "mypy", "ruff", "hatchling", "packaging", "moto", "cryptography"}


def test_pip_takes_it_as_a_file_of_constraints_which_has_no_extras() -> None:
    assert "psycopg[binary]" in LOCK
    assert "[" not in constraints()


def test_the_wheel_has_a_line_with_its_hash(tmp_path: Path) -> None:
    wheel = tmp_path / "logfan-1.2.3-py3-none-any.whl"
    wheel.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert of_wheel(wheel) == f"logfan==1.2.3 --hash=sha256:{empty}\n"
