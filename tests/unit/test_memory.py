"""What is free goes back to the system, though something small lies beside it."""

import subprocess
import sys

_PROGRAM = """
import sys
from pathlib import Path
from logfan import memory

if sys.argv[1] == "with":
    assert memory.return_what_is_free()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

bytearray(30 << 20)  # from here on glibc takes smaller blocks out of an arena
before = resident()
large, small = [], []
for n in range(40):
    large.append(bytes(1 << 20).replace(b"\\0", b"x"))
    small.append(bytes(1000 + n))
held = resident() - before
large.clear()
print(held, resident() - before)
"""


def held_and_kept(how: str) -> tuple[int, int]:
    """MiB while 40 MiB are in use, and once they are not."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    held, kept = done.stdout.split()
    return int(held), int(kept)


def test_what_is_free_goes_back() -> None:
    held, kept = held_and_kept("with")
    assert held >= 38
    assert kept < 8
