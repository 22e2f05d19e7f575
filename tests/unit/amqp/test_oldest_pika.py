"""The fast way fits the oldest pika that may be installed, as well as the locked one."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OLDEST = Path(sys.prefix) / "oldest"
CASES = 1_000
_RUN = """
import sys, pika, pytest
assert pika.__version__ == sys.argv[1], pika.__version__
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def oldest_allowed() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = next(one for one in project["dependencies"] if one.startswith("pika>="))
    return str(bounds).removeprefix("pika>=").split(",")[0]


def test_the_oldest_pika_allowed_is_the_one_that_is_tested() -> None:
    pinned = re.findall(
        r"^pika==(\S+)", (ROOT / ".requirements-oldest.lock").read_text(), re.MULTILINE
    )
    assert pinned == [oldest_allowed()]


@pytest.mark.slow
def test_the_oldest_pika_is_read_alike() -> None:
    if not (OLDEST / "pika").is_dir() and not os.environ.get("CI"):
        pytest.skip("`make test` installs it")
    names = ("connection_fuzz", "pika_compatibility", "read_pause")
    tests = [f"tests/unit/amqp/test_{name}.py" for name in names]
    environment = {**os.environ, "PYTHONPATH": str(OLDEST), "LOGFAN_FUZZ_CASES": str(CASES)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, oldest_allowed(), *tests],
        check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
