"""strace, installed or unpacked from Debian's package."""

import os
import shutil
from collections.abc import Mapping

import pytest

from logfan.testing.debian import DebianUnavailable, unpacked


def tracer() -> tuple[str, Mapping[str, str]]:
    """The program, and the environment that it needs. Skips where there is none, but in CI."""
    installed = shutil.which("strace")
    if installed is not None:
        return installed, os.environ
    try:
        root = unpacked("strace")
    except DebianUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"strace is needed: {error}")
    libraries = ":".join({str(path.parent) for path in root.rglob("*.so*")})
    return str(root / "usr/bin/strace"), {**os.environ, "LD_LIBRARY_PATH": libraries}
