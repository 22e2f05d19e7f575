"""strace, installed or unpacked from Debian's package."""

import os
import shutil
from collections.abc import Mapping

from logfan.testing.debian import unpacked
from support.needed import needed


def tracer() -> tuple[str, Mapping[str, str]]:
    """The program, and the environment that it needs. Skips where there is none, but in CI."""
    installed = shutil.which("strace")
    if installed is not None:
        return installed, os.environ
    with needed("strace is needed: "):
        root = unpacked("strace")
    libraries = ":".join({str(path.parent) for path in root.rglob("*.so*")})
    return str(root / "usr/bin/strace"), {**os.environ, "LD_LIBRARY_PATH": libraries}
