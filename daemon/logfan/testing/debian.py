"""Debian packages unpacked into a cache folder: no root, no installation, no service.

Standard library only, and runnable by its path before anything is installed:
`python3 daemon/logfan/testing/debian.py PACKAGE…` prints the folder that holds them.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_APT_SECONDS = 600
_NEEDED = ("apt-get", "dpkg", "dpkg-query")


class DebianUnavailable(Exception):
    """The packages cannot be had here; the text says why and what to do instead."""


def cache_folder() -> Path:
    """Where unpacked packages are kept: `$XDG_CACHE_HOME/logfan`, or `~/.cache/logfan`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "logfan"


def unpacked(
    *packages: str,
    closure: bool = True,
    always: Sequence[str] = (),
    finish: Callable[[Path, Path], None] | None = None,
) -> Path:
    """The folder that holds these packages, fetched and unpacked at the first call.

    With `closure`, what they depend on and the system lacks comes along; so do dependencies
    whose names begin with one of `always`, even where the system has them. `finish(new, final)`
    may adapt what was unpacked in `new` before it becomes `final`. Raises DebianUnavailable.
    """
    root = cache_folder() / "debian" / "+".join(packages)
    marker = root / ".complete"
    if _is_complete(marker, root):
        return root
    missing = [tool for tool in _NEEDED if shutil.which(tool) is None]
    if missing:
        raise DebianUnavailable(f"this system has no {', '.join(missing)}: it is not a Debian")
    root.parent.mkdir(parents=True, exist_ok=True)
    with _lock(root.parent / ".lock"):
        if _is_complete(marker, root):
            return root
        shutil.rmtree(root, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=root.parent))
        try:
            _fetch(packages, new, closure=closure, always=always)
            if finish is not None:
                finish(new, root)
            (new / ".complete").write_text(str(root))
            new.rename(root)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


def _is_complete(marker: Path, root: Path) -> bool:
    # What was unpacked may hold its own path: a cache that was moved is fetched anew.
    return marker.is_file() and marker.read_text() == str(root)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(packages: Sequence[str], into: Path, *, closure: bool, always: Sequence[str]) -> None:
    """Download and unpack; with package lists of our own where the system's are absent or old."""
    own_lists = into.parent / "lists"
    system_lists = any(Path("/var/lib/apt/lists").glob("*Packages*"))
    options = [] if system_lists else _update_lists(own_lists)
    try:
        archives = _download(packages, into, options, closure=closure, always=always)
    except DebianUnavailable:
        if not system_lists:
            raise
        options = _update_lists(own_lists)
        archives = _download(packages, into, options, closure=closure, always=always)
    for number, archive in enumerate(archives, 1):
        _say(f"unpacking {number}/{len(archives)} {archive.name.partition('_')[0]}")
        _run(["dpkg", "-x", str(archive), str(into)])
        archive.unlink()
    _say(f"ready: {', '.join(packages)}", last=True)


def _update_lists(folder: Path) -> list[str]:
    """Fetch package lists into a folder of our own; returns the options that make apt use it."""
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    cache = folder.parent / "archives"
    (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
    options = [
        f"-oDir::State::Lists={folder}",
        f"-oDir::Cache={cache}",
        "-oDebug::NoLocking=1",
        "-oAPT::Update::Post-Invoke-Success::=",
    ]
    _say("fetching Debian's package lists")
    _run(["apt-get", *options, "-q", "update"])
    return options


def _download(
    packages: Sequence[str],
    into: Path,
    options: Sequence[str],
    *,
    closure: bool,
    always: Sequence[str],
) -> list[Path]:
    names = _closure(packages, options, always) if closure else list(packages)
    for archive in into.glob("*.deb"):
        archive.unlink()
    for number, name in enumerate(names, 1):
        _say(f"fetching {number}/{len(names)} {name}")
        # One at a time, so that progress can be shown; apt checks the signatures and the hashes.
        _run(["apt-get", *options, "-oDebug::NoLocking=1", "-q", "download", name], cwd=into)
    return sorted(into.glob("*.deb"))


def _closure(packages: Sequence[str], options: Sequence[str], always: Sequence[str]) -> list[str]:
    """The packages with all that they depend on, less what the system has."""
    plan = _run(
        ["apt-get", *options, "-s", "-oDir::State::status=/dev/null", "-oDebug::NoLocking=1",
         "--no-install-recommends", "install", *packages]
    )  # fmt: skip
    wanted = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    listing = _run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\\n"])
    installed = {line.split()[0] for line in listing.splitlines() if " ii" in line}
    keep = (*packages, *always)
    return [name for name in wanted if name.startswith(keep) or name not in installed]


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, check=False, timeout=_APT_SECONDS,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DebianUnavailable(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DebianUnavailable(f"{command[0]} failed: {said[-1] if said else done.returncode}")
    return done.stdout


def _say(text: str, *, last: bool = False) -> None:
    """Progress on standard error: one changing line on a terminal, else a line each."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K  {text}" + ("\n" if last else ""))
    else:
        sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Print the folder that holds the packages named on the command line, unpacked."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--no-closure", action="store_true", help="these packages alone")
    arguments = parser.parse_args()
    try:
        root = unpacked(*arguments.packages, closure=not arguments.no_closure)
    except DebianUnavailable as error:
        sys.exit(f"cannot fetch {', '.join(arguments.packages)}: {error}")
    sys.stdout.write(f"{root}\n")


if __name__ == "__main__":
    main()
