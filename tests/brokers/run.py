"""The tests that need a broker on one version of RabbitMQ after another, and a table of what came
out: the integration tests, the share of chaos that `make test` has, and its mutants.

`python -m brokers.run [--versions "3.10 4.0"] [--seconds 2400] [--report FILE]`, as `make brokers`
calls it. So many tests run at once as the variable `WORKERS` gives. Exits 1 where a test failed, a
version could not be had, or the time was up.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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


@dataclass(slots=True)
class Outcome:
    """What came out on one version of something."""

    version: str
    source: str
    """Where it comes from."""
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    missing: str = ""
    """Why the version cannot be had; empty where it can."""
    failure: str = ""
    """What ended the run beside a test that failed."""

    @property
    def good(self) -> bool:
        return not (self.failed or self.missing or self.failure) and self.passed > 0

    def row(self) -> str:
        """Its line of the table."""
        result = self.missing or self.failure or ("passed" if self.good else "FAILED")
        return (
            f"| {self.version} | {self.source} | {self.passed} | {len(self.failed)} | "
            f"{len(self.skipped)} | {self.seconds:.0f} s | {result} |"
        )

    def run(self, python: str | Path, tests: Sequence[str], seconds: float, **environ: str) -> None:
        """Have this Python run the tests, for at most so many seconds."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results.xml"
            workers = ["-n", os.environ.get("WORKERS", "2"), "--dist", "worksteal"]
            command = [python, "-m", "pytest", "-q", *workers, f"--junit-xml={results}", *tests]
            code = _run(command, seconds, environ)
            self._read(results)
        if code is None:
            self.failure = f"not done after {seconds:.0f} s"
        elif code not in (0, 1):
            self.failure = f"pytest ended with {code}"
        self.seconds = time.monotonic() - began

    def _read(self, results: Path) -> None:
        """Take over what pytest wrote down."""
        if not results.exists():
            return
        for case in ET.parse(results).iter("testcase"):
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed.append(name)
            elif case.find("skipped") is not None:
                self.skipped.append(name)
            else:
                self.passed += 1


def _run(command: Sequence[str | Path], seconds: float, environ: Mapping[str, str]) -> int | None:
    """The command's exit code, or None where the time was up."""
    environment = {**os.environ, **environ}
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


def table(what: str, outcomes: Sequence[Outcome]) -> str:
    """The results, as Markdown."""
    lines = [f"| {what} | from | passed | failed | skipped | time | result |", f"|{' --- |' * 7}"]
    lines += [outcome.row() for outcome in outcomes]
    for outcome in outcomes:
        for word, names in (("failed", outcome.failed), ("skipped", outcome.skipped)):
            lines += [f"\n{outcome.version} {word}: `{name}`" for name in names]
    return "\n".join(lines) + "\n"


def report_on(
    what: str,
    versions: Iterable[str],
    tests: Sequence[str],
    attempt: Callable[[str, Sequence[str], float], Outcome],
    report: str,
) -> list[Outcome]:
    """The command line: call `attempt(version, tests, seconds left)` for each version, print the
    table and write it to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--versions", default=" ".join(versions), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2400.0, help="for all of them together")
    parser.add_argument("--report", type=Path, default=Path(report))
    parser.add_argument("tests", nargs="*", default=tests)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    outcomes = []
    for version in options.versions.split():
        print(f"\n{what} {version}", flush=True)
        left = max(1.0, deadline - time.monotonic())
        outcomes.append(attempt(version, options.tests, left))
    print(f"\n{table(what, outcomes)}")
    options.report.write_text(table(what, outcomes))
    print(f"written to {options.report}")
    return outcomes


def try_version(asked: str, tests: Sequence[str], seconds: float) -> Outcome:
    """Run the tests on this version of RabbitMQ."""
    outcome = Outcome(asked, SUITES.get(asked, "-"))
    try:
        node = RabbitNode(version=asked)
    except NodeUnavailable as error:
        outcome.missing = str(error)
        return outcome
    outcome.version = node.version
    node.close()
    outcome.run(sys.executable, tests, seconds, PRIVATE_RABBITMQ=asked)
    return outcome


def main() -> int:
    """Try all versions, print the table and write it to a file."""
    outcomes = report_on("RabbitMQ", SUITES, TESTS, try_version, "brokers-report.md")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
