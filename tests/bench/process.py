"""One contestant as a process: started, its processor time followed from outside, ended."""

import ctypes
import os
import re
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.entrants import Start

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_END_SECONDS = 40.0


class Process:
    """A contestant. As a context manager it is killed at the end."""

    def __init__(self, start: Start, folder: Path) -> None:
        self._log = folder / "contestant.log"
        self.samples: list[tuple[float, float]] = []
        """Moments, and the seconds of processor (user and system) that it had used until then."""
        self.started = time.time()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                start.command, cwd=folder, env=start.environ, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        self.pid = self._process.pid
        # The kernel's clock of another process (see clock_getcpuclockid): no cost for it.
        self._clock = (~self.pid << 3) | 2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def sample(self) -> None:
        """Note how much processor time it has used. Raises RuntimeError where it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended ({self._process.returncode}): {self.log()}")
        self.samples.append((time.time(), time.clock_gettime(self._clock)))

    def cpu_at(self, at: float) -> float:
        """Seconds of processor used until then, between two samples by their share."""
        return interpolated(self.samples, at)

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


def interpolated(samples: Sequence[tuple[float, float]], at: float) -> float:
    """The value at that moment, on the line between the samples around it."""
    after = bisect_left(samples, (at, 0.0))
    if after == 0:
        return samples[0][1]
    if after == len(samples):
        return samples[-1][1]
    (t0, v0), (t1, v1) = samples[after - 1], samples[after]
    return v0 + (v1 - v0) * (at - t0) / (t1 - t0)


def _die_with_parent() -> None:
    """Whoever ends the bench, however, leaves no contestant behind."""
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
