"""A server that tests start on loopback, in a folder of its own, and crash and start again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from logfan.testing.started import Started
from support.forked import die_with_parent
from support.waiting import wait_until

_STOP_SECONDS = 30


class ServerProcess(Started):
    """Subclass it with `start` and `is_ready`. As a context manager it runs until the end of the
    `with`, and its folder is removed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"logfan-{name}-"))
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def launch(self, command: Sequence[str]) -> None:
        """Start the process, and wait until `is_ready`. On the main thread, with which it ends."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        wait_until(self._is_up, f"{self.name} is up (see {self.log})")

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{self.name} ended: {tail}")
        return self.is_ready()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: a crash. What it has on disk stays."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: it hangs, and so does whoever waits for it. Returns once all of it stands."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(self._stands, f"{self.name} stands")

    def _stands(self) -> bool:
        stats = (task / "stat" for task in Path(f"/proc/{self.pid}/task").iterdir())
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Crash it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def listens(port: int) -> bool:
    """Whether something takes connections at this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
