"""One contestant as a process: started, its processor time followed from outside, ended."""

import ctypes
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from bench.clocks import CpuClock
from bench.entrants import Start

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_END_SECONDS = 40.0


class Process:
    """A contestant. As a context manager it is killed at the end."""

    def __init__(self, start: Start, folder: Path) -> None:
        self._log = folder / "contestant.log"
        self.started = time.time()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                start.command, cwd=folder, env=start.environ, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        self.pid = self._process.pid
        self.cpu = CpuClock(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def sample(self) -> None:
        """Note how much processor time it has used. Raises RuntimeError where it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended ({self._process.returncode}): {self.log()}")
        self.cpu.sample()

    def memory_kib(self) -> int:
        """The most memory it ever held."""
        match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(match[1]) if match else 0

    def stop(self) -> int:
        """TERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"it did not end within {_END_SECONDS:.0f} s of TERM") from None

    def log(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace").strip()[-1500:]


def _die_with_parent() -> None:
    """Whoever ends the bench, however, leaves no contestant behind."""
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
