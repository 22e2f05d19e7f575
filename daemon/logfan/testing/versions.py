"""Where a RabbitMQ to run comes from: the installed one, or Debian's of this release or another.

A program of another release needs that release's C library. Nothing is installed and no root is
needed for it: each program becomes a script that runs it through the loader of its own release.
Standard library only.
"""

import platform
import shlex
from pathlib import Path

from logfan.testing import debian

INSTALLED = Path("/")
SUITES = {"3.10": "bookworm", "4.0": "trixie", "4.3": "sid"}
"""Debian's release for each version that can be asked for. What a release serves may move on."""

LOADER = "loader"
"""The folder, in a root of another release, with that release's loader by each program's name."""

_PACKAGE = "rabbitmq-server"


def fetched(version: str) -> Path:
    """The folder of Debian's RabbitMQ, unpacked: the one with this version, or this release's.

    Raises debian.DebianUnavailable.
    """
    if version and version not in SUITES:
        known = ", ".join(SUITES)
        raise debian.DebianUnavailable(f"RabbitMQ {version} is not among those known: {known}")
    suite = SUITES.get(version, "")
    if suite == platform.freedesktop_os_release().get("VERSION_CODENAME"):
        suite = ""
    adapt = _borrow_loader if suite else _relocate
    return debian.unpacked(_PACKAGE, always=("erlang-",), suite=suite, finish=adapt)


def library_path(root: Path) -> str:
    """What LD_LIBRARY_PATH must be for the programs below `root`; empty where nothing."""
    # A C library in there would break every program of this system that the broker calls.
    if root == INSTALLED or (root / LOADER).is_dir():
        return ""
    return ":".join(sorted({str(path.parent) for path in root.glob("usr/lib/*-linux-*/*.so*")}))


def _relocate(new: Path, final: Path) -> None:
    """Erlang's start scripts hold the path that they were built for."""
    for script in new.glob("usr/lib/erlang/**/bin/*erl"):
        if not _is_program(script) and not script.is_symlink():
            text = script.read_text()
            script.write_text(text.replace("/usr/lib/erlang", f"{final}/usr/lib/erlang"))


def _borrow_loader(new: Path, final: Path) -> None:
    _relocate(new, final)
    run_by_own_loader(new, final, "usr/lib/erlang")


def run_by_own_loader(new: Path, final: Path, programs: str) -> None:
    """Have every program in the folder `programs` run by the loader, and with the libraries, that
    lie in `new` as well. `final` is where `new` is moved afterwards."""
    loader = next(new.glob("usr/lib/*-linux-*/ld-*.so.*"), None)
    if loader is None:
        raise debian.DebianUnavailable("the packages hold no loader for programs")
    (new / LOADER).mkdir()
    for program in [path for path in (new / programs).rglob("*") if _is_program(path)]:
        # A process is called by the file that was run: each program gets a loader of its name.
        lent = new / LOADER / program.name
        if not lent.is_symlink():
            lent.symlink_to(Path("..") / loader.relative_to(new))
        real = program.with_name(f"{program.name}.elf")
        program.rename(real)
        called, libraries, renamed = (
            shlex.quote(str(final / path.relative_to(new))) for path in (lent, loader.parent, real)
        )
        program.write_text(
            f'#!/bin/sh\nexec {called} --library-path {libraries} --argv0 "$0" {renamed} "$@"\n'
        )
        program.chmod(0o755)


def _is_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or ".so" in path.suffixes:
        return False
    with path.open("rb") as file:
        return bool(path.stat().st_mode & 0o100) and file.read(4) == b"\x7fELF"
