"""systemd's own verdict on our units: `systemd-analyze`, installed or unpacked, and unit files."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from logfan.testing.debian import unpacked
from support.needed import needed

ROOT = Path(__file__).parents[2]
UNITS = ("logfan.service", "logfan@.service")


def unit_text(name: str) -> str:
    """A shipped unit."""
    return (ROOT / "systemd" / name).read_text(encoding="utf-8")


def directives(text: str) -> Mapping[str, Sequence[str]]:
    """`{"ExecStart": ["…"]}`: every directive, with its values in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in _pairs(text):
        found[key].append(value)
    return found


def seconds(value: str) -> int:
    """Seconds of a time span as our units write it: `45s`."""
    match = re.fullmatch(r"(\d+)s", value)
    assert match is not None, f"{value} is not written in seconds"
    return int(match[1])


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `systemd-analyze`. Skips where it cannot be had; fails in CI."""
    program, environ = _program()
    return subprocess.run(
        [program, *arguments, "--no-pager"], env=environ,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def _program() -> tuple[str, Mapping[str, str]]:
    installed = shutil.which("systemd-analyze")
    if installed is not None:
        return installed, os.environ
    with needed("systemd-analyze is needed: "):
        root = unpacked("systemd", "libsystemd-shared")
    libraries = ":".join({str(path.parent) for path in root.rglob("*.so*")})
    units = f"{root}/lib/systemd/system:"
    environ = {**os.environ, "LD_LIBRARY_PATH": libraries, "SYSTEMD_UNIT_PATH": units}
    return str(root / "usr/bin/systemd-analyze"), environ


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.isalnum():
            yield key, value
