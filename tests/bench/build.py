"""Compiles the C programs of the bench against Debian's librabbitmq, fetched without root, and
logfan itself.
"""

import compileall
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from logfan.testing import debian

_HERE = Path(__file__).parent
_SOURCES = {"fill": _HERE / "fill.c", "limit": _HERE / "contestants/limit.c"}
_COMPILE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs' paths, or why there are none."""

    fill: Path | None = None
    limit: Path | None = None
    why_none: str = ""


def logfan_as_installed() -> None:
    """Compile logfan as pip does where it installs a wheel. What is installed to be edited would
    be compiled at its first start, or at each one where PYTHONDONTWRITEBYTECODE is set."""
    for package in ("logfan", "logfan_sinks"):
        for place in import_module(package).__path__:
            compileall.compile_dir(place, quiet=1)


def programs(folder: Path) -> Programs:
    """Compile into `folder`. Where that cannot be done it says so and the bench goes on without."""
    compiler = shutil.which("cc")
    if compiler is None:
        return Programs(why_none="there is no C compiler (cc) here")
    try:
        root = debian.unpacked("librabbitmq-dev", "librabbitmq4", closure=False)
    except debian.DebianUnavailable as error:
        return Programs(why_none=f"librabbitmq cannot be fetched ({error})")
    library = root / f"usr/lib/{platform.machine()}-linux-gnu"
    for name, source in _SOURCES.items():
        done = subprocess.run(
            [compiler, "-O2", f"-I{root}/usr/include", source, "-o", folder / name,
             f"-L{library}", f"-Wl,-rpath,{library}", "-lrabbitmq"],
            check=False, capture_output=True, text=True, timeout=_COMPILE_SECONDS,
        )  # fmt: skip
        if done.returncode:
            why = f"{source.name} cannot be compiled: {done.stderr.strip()[-500:]}"
            return Programs(why_none=why)
    return Programs(fill=folder / "fill", limit=folder / "limit")
