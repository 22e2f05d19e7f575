"""Servers that run on Java: their jars from Maven, kept in the cache, and how they are started."""

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from logfan.testing.debian import cache_folder
from support.server_process import ServerProcess

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_FETCH_SECONDS = 600
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>logfan.tests</groupId><artifactId>{name}</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
)


class JavaUnavailable(Exception):
    """A server cannot be had here; the text gives the reason."""


def jars(name: str, *wanted: str) -> Path:
    """The folder of these artifacts (`GROUP:ARTIFACT:VERSION`) and all that they need, fetched at
    the first call. Several processes may call at once: one fetches."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise JavaUnavailable(f"this system has no {tool}")
    folder = cache_folder() / "java" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(name, wanted, folder)
    return folder


def _fetch(name: str, wanted: Sequence[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        pom, new = Path(scratch) / "pom.xml", Path(scratch) / "jars"
        dependencies = "".join(_DEPENDENCY.format(*one.split(":")) for one in wanted)
        pom.write_text(_POM.format(name=name, dependencies=dependencies))
        command = ["mvn", "-q", "-B", "-f", str(pom), _COPY, f"-DoutputDirectory={new}"]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_FETCH_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise JavaUnavailable(f"mvn took more than {_FETCH_SECONDS} s for {name}") from None
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if "ERROR" in line] or ["mvn failed"]
            raise JavaUnavailable(f"{name} cannot be fetched: {lines[0]}")
        new.rename(folder)


class JavaServer(ServerProcess):
    """A server that is a Java program."""

    def __init__(self, name: str, jars: Path, heap: str) -> None:
        super().__init__(name)
        self._jars, self._heap = jars, heap

    def java(self, *arguments: str) -> list[str]:
        """The command line for this main class or source file, and its arguments. Starts fast
        rather than runs fast, with little memory."""
        return [
            "java", f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Xshare:auto", f"-Djava.io.tmpdir={self.folder}", "-cp", f"{self._jars}/*",
            *arguments,
        ]  # fmt: skip
