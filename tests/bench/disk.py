"""What the disk alone takes: written by one thread that does nothing else, and synced.

No durable sink can be faster than this; where large bodies come, it is what a drain is held by.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

LINE_BYTES, SYNC_BYTES, TOTAL_BYTES = 1 << 20, 8 << 20, 256 << 20
"""A line; what is synced at once, as a sink's batch by default; all of it."""
_TIMES = 3


def durable_rate(
    folder: Path, total: int = TOTAL_BYTES, now: Callable[[], float] = time.monotonic
) -> float:
    """Bytes a second, the median of three new files. `total`: bytes of each, a multiple of
    `SYNC_BYTES`."""
    return median(total / _seconds(folder, total, now) for _ in range(_TIMES))


def _seconds(folder: Path, total: int, now: Callable[[], float]) -> float:
    line = os.urandom(LINE_BYTES - 1) + b"\n"
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        began = now()
        for at in range(0, total, LINE_BYTES):
            file.write(line)
            # As the file sink does it: the disk begins with it while the next one is written.
            os.posix_fadvise(file.fileno(), at, LINE_BYTES, os.POSIX_FADV_DONTNEED)
            if (at + LINE_BYTES) % SYNC_BYTES == 0:
                os.fdatasync(file.fileno())
        return now() - began
