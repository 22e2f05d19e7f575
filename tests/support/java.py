"""Servers that run on Java: their jars from Maven, kept in the cache, and their process."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from logfan.testing.debian import cache_folder
from support.daemon import die_with_parent
from support.waiting import wait_until

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


class JavaServer:
    """One process of Java in a folder of its own, which is removed at the end."""

    def __init__(self, name: str, classpath: Sequence[Path], heap: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"logfan-{name}-"))
        self.log = self.folder / "server.log"
        self._name, self._heap = name, heap
        # "/*": all jars of a folder.
        self._classpath = os.pathsep.join(str(p / "*" if p.is_dir() else p) for p in classpath)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        """The command line for this main class and its arguments. Starts fast rather than runs
        fast, with little memory."""
        return [
            "java", f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Xshare:auto", f"-Djava.io.tmpdir={self.folder}", "-cp", self._classpath, *arguments,
        ]  # fmt: skip

    def launch(self, *arguments: str) -> None:
        """Start the process, and wait until `is_ready`. On the main thread, with which it ends."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(*arguments), cwd=self.folder, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        wait_until(self._is_up, f"{self._name} is up (see {self.log})")

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{self._name} ended: {tail}")
        return self.is_ready()

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for that. Its data stays."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def signal(self, how: signal.Signals) -> None:
        """SIGSTOP has it hang, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(how)

    def remove(self) -> None:
        """Crash it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
