"""The tests that need a broker on one version of RabbitMQ after another, and a table of what came
out: the integration tests, the share of chaos that `make test` has, and its mutants.

`python -m brokers.run [--versions "3.10 4.0"] [--seconds 2400] [--report FILE]`, as `make brokers`
calls it. Exits 1 where a test failed, a version could not be had, or the time was up.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from logfan.testing.node import NodeUnavailable, RabbitNode
from logfan.testing.versions import SUITES

ROOT = Path(__file__).parents[2]
TESTS = [
    str(ROOT / "tests" / name)
    for name in ("integration", "chaos/test_chaos.py", "chaos/test_mutants.py")
]
HEAD = (
    "| RabbitMQ | of Debian's | passed | failed | skipped | time | result |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(slots=True)
class Outcome:
    """What came out on one version."""

    version: str
    suite: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.failed and not self.trouble and self.passed > 0

    def row(self) -> str:
        """Its line of the table."""
        word = self.trouble or ("passed" if self.good else "FAILED")
        return (
            f"| {self.version} | {self.suite} | {self.passed} | {len(self.failed)} | "
            f"{len(self.skipped)} | {self.seconds:.0f} s | {word} |"
        )


def try_version(asked: str, tests: Sequence[str], seconds: float) -> Outcome:
    """Run the tests on this version; at most so many seconds."""
    outcome = Outcome(asked, SUITES.get(asked, "-"))
    try:
        node = RabbitNode(version=asked)
    except NodeUnavailable as error:
        outcome.trouble = str(error)
        return outcome
    outcome.version = node.version
    node.close()
    print(f"\nRabbitMQ {node.version}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={results}", *tests]
        code = run(command, asked, seconds)
        read(results, outcome)
    if code is None:
        outcome.trouble = f"not done after {seconds:.0f} s"
    elif code not in (0, 1):
        outcome.trouble = f"pytest ended with {code}"
    outcome.seconds = time.monotonic() - began
    return outcome


def run(command: Sequence[str], asked: str, seconds: float) -> int | None:
    """Run pytest on this version; its exit code, or None where the time was up."""
    environment = {**os.environ, "PRIVATE_RABBITMQ": asked}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            # The daemons that its tests started as well; nodes are ended by their guards.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read(results: Path, outcome: Outcome) -> None:
    """Take over what pytest wrote down."""
    if not results.exists():
        return
    for case in ET.parse(results).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(name)
        elif case.find("skipped") is not None:
            outcome.skipped.append(name)
        else:
            outcome.passed += 1


def table(outcomes: Sequence[Outcome]) -> str:
    """The results, as Markdown."""
    lines = [*HEAD, *(outcome.row() for outcome in outcomes)]
    for outcome in outcomes:
        for word, names in (("failed", outcome.failed), ("skipped", outcome.skipped)):
            lines += [f"\n{outcome.version} {word}: `{name}`" for name in names]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Try all versions, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default=" ".join(SUITES), help="of: " + ", ".join(SUITES))
    parser.add_argument("--seconds", type=float, default=2400.0, help="for all of them together")
    parser.add_argument("--report", type=Path, default=Path("brokers-report.md"))
    parser.add_argument("tests", nargs="*", default=TESTS)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    outcomes = []
    for version in options.versions.split():
        left = max(1.0, deadline - time.monotonic())
        outcomes.append(try_version(version, options.tests, left))
    print(f"\n{table(outcomes)}")
    options.report.write_text(table(outcomes))
    print(f"written to {options.report}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
