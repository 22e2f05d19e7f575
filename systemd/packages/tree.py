"""The tree that package and image share: logfan and its libraries in `/usr/lib/logfan`."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from logfan.testing.debian import unpacked

ROOT = Path(__file__).parents[2]
LIBRARIES = "usr/lib/logfan"
UNITS = "usr/lib/systemd/system"
STEP_SECONDS = 600
"""No step of a build takes longer, on a busy machine either."""
_DEBIAN = Path(__file__).parent / "debian"
_VENV, _COMMAND = "/opt/logfan/bin/logfan", "/usr/bin/logfan"
_OLDEST_GLIBC = 17
"""Of glibc 2: the first whose number stands in the name of a wheel."""


def debian_python() -> str:
    """The version of Debian's python3 here, such as 3.11."""
    minimal = unpacked("python3-minimal", closure=False)
    return (minimal / "usr/bin/python3").readlink().name.removeprefix("python")


def write_tree(stage: Path, dist: Path) -> None:
    """Libraries by their hashes, logfan, its command and its units."""
    libraries = stage / LIBRARIES
    _install_locked(libraries, dist / "constraints.txt")
    [wheel] = dist.glob("logfan-*.whl")
    with zipfile.ZipFile(wheel) as archive:  # as it is, it finds its own shared files
        archive.extractall(libraries)
    [shared] = libraries.glob("logfan-*.data/data/lib/systemd/system")
    (stage / UNITS).mkdir(parents=True)
    for unit in shared.iterdir():
        unit.write_text(unit.read_text("utf-8").replace(_VENV, _COMMAND), "utf-8")
        put(stage / UNITS / unit.name, unit.read_text("utf-8"))
    put(stage / _COMMAND.lstrip("/"), (_DEBIAN / "logfan").read_text("utf-8"), executable=True)


def put(path: Path, text: str, *, executable: bool = False) -> None:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755 if executable else 0o644)


def _install_locked(target: Path, constraints: Path) -> None:
    """For Debian's Python and C library, whatever Python this runs on."""
    entries = constraints.read_text("utf-8").splitlines(keepends=True)
    locked = target.parent / "locked.txt"
    put(locked, "".join(line for line in entries if not line.startswith("logfan==")))
    newest = int(str(os.confstr("CS_GNU_LIBC_VERSION")).rpartition(".")[2])
    wheels = [
        f"--platform=manylinux_2_{minor}_{platform.machine()}"
        for minor in range(newest, _OLDEST_GLIBC - 1, -1)
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install",
         "--target", target, "--no-compile", "--no-deps", "--require-hashes",
         "--only-binary=:all:", "--implementation=cp", f"--python-version={debian_python()}",
         *wheels, "-r", locked],
        check=True, timeout=STEP_SECONDS,
    )  # fmt: skip
    locked.unlink()
    shutil.rmtree(target / "bin")
    for file in target.rglob("*.so*"):  # Debian's are not executable
        file.chmod(0o644)
