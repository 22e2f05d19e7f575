"""Sinks with one planted defect each and a careful one, against a real server or file: the suite
for authors sees what is wrong with each, and says it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import planted_defects
from support.planted_defects import DEFECTS

pytestmark = pytest.mark.slow
FILE = Path(planted_defects.__file__)


def run(*tests: str) -> "subprocess.CompletedProcess[str]":
    command = [
        sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider",
        "-o", "filterwarnings=", *tests,
    ]  # fmt: skip
    environ = {"COLUMNS": "2000", "PYTHONPATH": str(FILE.parents[1]), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, cwd=FILE.parents[2], env=environ, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> str:
    """What pytest prints of every defect: the one test that must see it."""
    chosen = [f"(Test{one.cls.__name__} and {one.test.split('[')[0]})" for one in DEFECTS.values()]
    return run(str(FILE), "-k", " or ".join(chosen)).stdout


@pytest.mark.parametrize("name", DEFECTS)
def test_the_suite_sees_it_and_says_what_it_is(report: str, name: str) -> None:
    defect = DEFECTS[name]
    cls, test = re.escape(f"::Test{defect.cls.__name__}::"), re.escape(defect.test)
    failed = re.findall(rf"^FAILED \S+{cls}\w*{test}.*? - (.*)$", report, re.MULTILINE)
    print(f"| {name} | {defect.test} | {failed[0] if failed else 'not seen'} |")
    assert failed, report
    assert re.search(defect.message, failed[0]), failed[0]


def test_the_careful_sink_passes_without_a_skip() -> None:
    done = run(f"{FILE}::TestCareful")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^4\d passed in ", done.stdout, re.MULTILINE), done.stdout[-500:]
