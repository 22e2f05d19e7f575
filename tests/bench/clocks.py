"""Processor time, read from outside: of one process, and of the whole machine."""

import os
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class CpuClock:
    """Follows how much processor (user and system, all threads) a process has used."""

    def __init__(self, pid: int) -> None:
        # The kernel's clock of another process (see clock_getcpuclockid): no cost for it.
        self._clock = (~pid << 3) | 2
        self._samples: list[tuple[float, float]] = []

    def sample(self) -> None:
        """Note what it has used until now."""
        self._samples.append((time.time(), time.clock_gettime(self._clock)))

    def forget(self) -> None:
        """Begin anew."""
        self._samples.clear()
        self.sample()

    def at(self, moment: float) -> float:
        """Seconds used until then, between two samples by their share."""
        return interpolated(self._samples, moment)

    def between(self, begin: float, end: float) -> float:
        """Seconds used from the one moment to the other."""
        return self.at(end) - self.at(begin)

    @property
    def whole(self) -> float:
        """Seconds used from the first sample to the last."""
        return self._samples[-1][1] - self._samples[0][1]


def interpolated(samples: Sequence[tuple[float, float]], at: float) -> float:
    """The value at that moment, on the line between the samples around it."""
    after = bisect_left(samples, (at, 0.0))
    if after == 0:
        return samples[0][1]
    if after == len(samples):
        return samples[-1][1]
    (t0, v0), (t1, v1) = samples[after - 1], samples[after]
    return v0 + (v1 - v0) * (at - t0) / (t1 - t0)


def machine_busy() -> float:
    """Seconds of processor that all programs of this machine have used, and that its host took."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / _TICKS
