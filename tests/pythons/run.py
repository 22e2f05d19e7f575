"""The fast tests and the main job on one version of Python after another, and a table of what came
out.

`python -m pythons.run [--versions "3.11 3.14"] [--seconds 2400] [--report FILE] [TEST…]`, as
`make pythons` calls it. Exits 1 where a test failed or the time was up; a version that cannot be
had is in the table and is no failure.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from brokers.run import ROOT, Outcome, report_on
from logfan.testing import debian, versions

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
"""Debian's release with each version. What a release serves may move on."""
TESTS = [
    str(ROOT / "tests" / name)
    for name in (
        "test_architecture.py", "test_locks.py", "unit", "contract", "guard",
        "integration/test_main_job.py",
    )
]  # fmt: skip
ENVIRONMENTS = ROOT / ".venv-pythons"
_VERSION = "import platform; print(platform.python_version())"


def interpreter(version: str) -> tuple[Path, str]:
    """A Python of this version, and where it comes from. Raises debian.DebianUnavailable."""
    for program, source in _installed(version):
        if version_of(program).startswith(f"{version}."):
            return program, source
    if version not in SUITES:
        raise debian.DebianUnavailable(f"none is installed, and no release of Debian has {version}")
    suite = SUITES[version]
    finish = partial(versions.run_by_own_loader, programs="usr/bin")
    root = debian.unpacked(f"python{version}", always=("python3",), suite=suite, finish=finish)
    return root / f"usr/bin/python{version}", f"Debian's {suite}"


def _installed(version: str) -> Iterator[tuple[Path, str]]:
    name = f"python{version}"
    for folder in os.get_exec_path():
        yield Path(folder) / name, "installed"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for program in sorted(pyenv.glob(f"versions/{version}.*/bin/{name}")):
        yield program, "pyenv"


def version_of(program: Path) -> str:
    """The version that the program reports; empty where it does not run."""
    if not program.exists():
        return ""
    done = subprocess.run(
        [program, "-c", _VERSION], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip()


def environment(program: Path, version: str) -> Path:
    """An environment of this Python with the locked packages and logfan; its Python.

    Raises subprocess.CalledProcessError.
    """
    folder = ENVIRONMENTS / version
    python, stamp = folder / "bin/python", folder / ".installed"
    locks = [ROOT / name for name in (".requirements.lock", ".requirements-oldest.lock")]
    wanted = f"{program} {[lock.read_text() for lock in locks]}"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([program, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    install: list[str | Path] = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", python,
        "install",
    ]  # fmt: skip
    subprocess.run([*install, f"pip=={metadata.version('pip')}"], check=True)
    subprocess.run([*install, "--require-hashes", "-r", locks[0]], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
    oldest = ["--no-deps", "--target", str(folder / "oldest")]
    subprocess.run([*install, "--require-hashes", *oldest, "-r", locks[1]], check=True)
    stamp.write_text(wanted)
    return python


def try_version(asked: str, tests: Sequence[str], seconds: float) -> Outcome:
    """Run the tests on this version of Python."""
    outcome = Outcome(asked, "-")
    try:
        program, outcome.source = interpreter(asked)
        outcome.version = version_of(program)
        python = environment(program, asked)
    except debian.DebianUnavailable as error:
        outcome.missing = f"not to be had: {error}"
    except subprocess.CalledProcessError as error:
        outcome.failure = f"its environment cannot be made (exit code {error.returncode})"
    else:
        outcome.run(python, tests, seconds)
    return outcome


def main() -> int:
    """Try all versions, print the table and write it to a file."""
    outcomes = report_on("Python", VERSIONS, TESTS, try_version, "pythons-report.md")
    return 0 if all(outcome.good or outcome.missing for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
