"""axe-core, which finds what keeps people from using a page: fetched with npm into the cache."""

import fcntl
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from logfan.testing.debian import cache_folder

_PACKAGE = "axe-core@4.14.1"
_SHA512 = (
    "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73"
    "4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5"
)
_FETCH_SECONDS = 300


class AxeUnavailable(Exception):
    """It cannot be had here; the text gives the reason."""


def script() -> str:
    """What a page runs to have `axe`; fetched at the first call."""
    if shutil.which("npm") is None:
        raise AxeUnavailable("this system has no npm")
    file = cache_folder() / "npm" / f"{_PACKAGE}.js"
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            _fetch(file)
    return file.read_text(encoding="utf-8")


def _fetch(file: Path) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".new-") as scratch:
        try:
            done = subprocess.run(
                ["npm", "pack", "--silent", _PACKAGE], cwd=scratch, check=False,
                capture_output=True, text=True, timeout=_FETCH_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise AxeUnavailable(f"npm took more than {_FETCH_SECONDS} s for {_PACKAGE}") from None
        if done.returncode:
            raise AxeUnavailable(f"{_PACKAGE} cannot be fetched: {done.stderr[-300:]}")
        archive = Path(scratch) / done.stdout.strip()
        if hashlib.sha512(archive.read_bytes()).hexdigest() != _SHA512:
            raise AxeUnavailable(f"what npm fetched is not the {_PACKAGE} that is expected")
        new = Path(scratch) / "axe.js"
        with tarfile.open(archive) as packed:
            member = packed.extractfile("package/axe.min.js")
            assert member is not None
            new.write_bytes(member.read())
        new.rename(file)
