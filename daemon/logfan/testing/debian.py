"""Debian packages unpacked into a cache folder: no root, no installation, no service.

Standard library only, and runnable by its path before anything is installed:
`python3 daemon/logfan/testing/debian.py PACKAGE…` prints the folder that holds them.
"""

import argparse
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_APT_SECONDS = 600
_LOOK_SECONDS = 0.1
_NEEDED = ("apt-get", "dpkg", "dpkg-query")
_SYSTEM_LISTS = Path("/var/lib/apt/lists")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LIBRARIES = ("lib", "zlib1g")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch; the fields mean what the arguments of `unpacked` mean."""

    packages: Sequence[str]
    closure: bool
    always: Sequence[str]
    suite: str

    def __str__(self) -> str:
        return ", ".join(self.packages) + (f" of {self.suite}" if self.suite else "")


class DebianUnavailable(Exception):
    """The packages cannot be fetched here; the text gives the reason and what to do instead."""


def cache_folder() -> Path:
    """Where unpacked packages are kept: `logfan` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "logfan"


def tool(package: str, path: str) -> Path:
    """A program of a package (`prometheus`, `usr/bin/promtool`): the installed one, else unpacked.

    For programs that need nothing beside them. Raises DebianUnavailable.
    """
    installed = Path("/") / path
    found = installed if installed.exists() else unpacked(package, closure=False) / path
    if not found.exists():
        raise DebianUnavailable(f"Debian's package {package} holds no {path}")
    return found


def unpacked(
    *packages: str,
    closure: bool = True,
    always: Sequence[str] = (),
    suite: str = "",
    finish: Callable[[Path, Path], None] | None = None,
) -> Path:
    """The folder that holds these packages, fetched and unpacked at the first call.

    With `closure`, the libraries come along that they depend on and the system lacks; so do
    dependencies whose names begin with one of `always`, even where the system has them. With
    `suite` (`trixie`, `sid`) they come from that release of Debian, with every library of it.
    `finish(new, final)` may adapt what was unpacked in `new` before it becomes `final`. Several
    processes may call at once: one fetches. Raises DebianUnavailable.
    """
    root = cache_folder() / "debian" / _system() / suite / "+".join(packages)
    if _is_complete(root):
        return root
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise DebianUnavailable(f"this system has no {', '.join(missing)}: it is not a Debian")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _lock(root.parent / ".lock"):
            if not _is_complete(root):
                wanted = Wanted(packages, closure, tuple(always), suite)
                _make(root, wanted, finish)
    except OSError as error:
        raise DebianUnavailable(
            f"the cache folder {root.parent} cannot be filled ({error.strerror}); set "
            "XDG_CACHE_HOME to one that can"
        ) from error
    return root


def _system() -> str:
    # What was unpacked runs on this release and this kind of machine; a home may be shared.
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'linux')}-{release.get('VERSION_ID', '')}-{platform.machine()}"


def _is_complete(root: Path) -> bool:
    # What was unpacked may hold its own path: a cache that was moved is fetched anew.
    marker = root / ".complete"
    return marker.is_file() and marker.read_text() == str(root)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that fetches packages", last=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(root: Path, wanted: Wanted, finish: Callable[[Path, Path], None] | None) -> None:
    """Fill `root` atomically: it appears with all of its content."""
    for abandoned in (root, *root.parent.glob(".new-*")):
        shutil.rmtree(abandoned, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=root.parent))
    try:
        _fetch(wanted, new)
        if finish is not None:
            finish(new, root)
        (new / ".complete").write_text(str(root))
        new.rename(root)
    finally:
        for no_longer in (new, *_own_apt(root.parent)):
            shutil.rmtree(no_longer, ignore_errors=True)
    _say(f"ready: {wanted}", last=True)


def _fetch(wanted: Wanted, into: Path) -> None:
    """Download and unpack; with package lists of our own where the system's will not do."""
    archives: list[Path] = []
    if not wanted.suite and _has_lists(_SYSTEM_LISTS):
        try:
            archives = _download(wanted, into, ())
        except DebianUnavailable as error:
            _say(f"{error}; trying newer package lists", last=True)
    if not archives:
        own = _update_lists(into.parent, wanted.suite)
        archives = _download(wanted, into, own)
    # By this a dpkg that runs in the folder, as in a chroot, knows what is there.
    status = into / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    for number, archive in enumerate(archives, 1):
        _say(f"unpacking {number} of {len(archives)}: {archive.name.partition('_')[0]}")
        _run(["dpkg", "-x", str(archive), str(into)])
        with status.open("a") as file:
            fields = _run(["dpkg", "--field", str(archive)])
            file.write(f"{fields}Status: install ok installed\n\n")
        archive.unlink()


def _has_lists(folder: Path) -> bool:
    return any(folder.glob("*_Packages*"))


def _own_apt(cache: Path) -> tuple[Path, Path]:
    """Where apt keeps its package lists, and its archives, when it may not use the system's."""
    return cache / ".lists", cache / ".apt"


def _update_lists(cache: Path, suite: str) -> Sequence[str]:
    """Fetch package lists into a folder of our own; returns the options that make apt use it."""
    lists, archives = _own_apt(cache)
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (archives / "archives/partial").mkdir(parents=True, exist_ok=True)
    options = [
        f"-oDir::State::Lists={lists}",
        f"-oDir::Cache={archives}",
        # Run by root, apt would turn into a user who may not write here.
        "-oAPT::Sandbox::User=",
        # Descriptions and icons, which are of no use here.
        "-oAcquire::Languages=none",
        "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    ]
    if suite:
        sources = archives / "suite.sources"
        options += [f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=/dev/null"]
        sources.write_text(_sources(suite, _KEYRING))
    update = ["apt-get", *options, "-oDebug::NoLocking=1", "-q", "update"]
    _say(f"fetching Debian's package lists {suite}".rstrip(), last=not _is_live())
    try:
        _run(update)
    except DebianUnavailable:
        # One source out of several that does not answer need not be the one we need.
        if _has_lists(lists):
            return options
        if not suite:
            raise
        # A newer release may be signed by keys that are younger than this installation.
        newer = unpacked("debian-archive-keyring", closure=False) / _KEYRING.relative_to("/")
        sources.write_text(_sources(suite, newer))
        _run(update)
    return options


def _sources(suite: str, keyring: Path) -> str:
    """apt's description of another release, on the mirror that this system's own release is on."""
    release = platform.freedesktop_os_release()
    wanted = f"{release.get('VERSION_CODENAME', '')} main"
    if release.get("ID") != "debian":
        raise DebianUnavailable(f"packages of {suite} can only be fetched on a Debian")
    form = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    for line in _run(["apt-get", "indextargets", *form]).splitlines():
        mirror, _, what = line.partition(" ")
        if what == wanted:
            signed = f"Signed-By: {keyring}\n" if keyring.exists() else ""
            return f"Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n{signed}"
    raise DebianUnavailable(f"apt's sources name no mirror for {wanted}, so none for {suite}")


def _download(wanted: Wanted, into: Path, options: Sequence[str]) -> list[Path]:
    """The packages' files. apt checks their signatures and hashes."""
    # Our own lock keeps others away; apt's could be taken by root only.
    apt = ["apt-get", *options, "-oDebug::NoLocking=1", "-q"]
    names = _closure(wanted, apt) if wanted.closure else wanted.packages
    _say(f"fetching {len(names)} of Debian's packages: {wanted}", last=not _is_live())

    def show() -> None:
        sizes = [file.stat().st_size for file in into.glob("*.deb")]
        if _is_live() and sizes:
            _say(f"fetching {len(sizes)} of {len(names)} packages, {sum(sizes) / 1e6:.0f} MB")

    _run([*apt, "download", *names], cwd=into, show=show)
    return sorted(into.glob("*.deb"))


def _closure(wanted: Wanted, apt: Sequence[str]) -> Sequence[str]:
    """The packages, and of all that they depend on what a private copy needs."""
    plan = _run(
        [*apt, "-s", "-oDir::State::status=/dev/null", "--no-install-recommends", "install",
         *wanted.packages]
    )  # fmt: skip
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    listing = _run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\\n"])
    installed = {line.split()[-1] for line in listing.splitlines() if line.startswith("ii")}
    # Another release's libraries go with its C library, whatever this system has.
    has = set() if wanted.suite else installed
    return [
        name
        for name in names
        if name in wanted.packages
        or name.startswith(tuple(wanted.always))
        or (name.startswith(_LIBRARIES) and name not in has)
    ]


def _run(
    command: Sequence[str], *, cwd: Path | None = None, show: Callable[[], None] = lambda: None
) -> str:
    """The program's standard output; `show` is called again and again while it runs."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    deadline = time.monotonic() + _APT_SECONDS
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise DebianUnavailable(f"{command[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    show()
                if time.monotonic() > deadline:
                    raise DebianUnavailable(f"{command[0]} took more than {_APT_SECONDS} s")
        finally:
            process.kill()
    if process.returncode:
        lines = errors.strip() or output.strip() or f"exit code {process.returncode}"
        raise DebianUnavailable(f"{command[0]} failed: {lines.splitlines()[-1]}")
    return output


def _is_live() -> bool:
    return sys.stderr.isatty()


def _say(text: str, *, last: bool = False) -> None:
    """Progress on standard error: one changing line on a terminal, elsewhere the last ones."""
    if _is_live():
        sys.stderr.write(f"\r\x1b[K  {text}" + ("\n" if last else ""))
    elif last:
        sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Print the folder that holds the packages named on the command line, unpacked."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--suite", default="", help="another release of Debian")
    parser.add_argument("--no-closure", action="store_true", help="these packages alone")
    arguments = parser.parse_args()
    try:
        closure = not arguments.no_closure
        root = unpacked(*arguments.packages, closure=closure, suite=arguments.suite)
    except DebianUnavailable as error:
        sys.exit(f"cannot fetch {', '.join(arguments.packages)}: {error}")
    sys.stdout.write(f"{root}\n")


if __name__ == "__main__":
    main()
