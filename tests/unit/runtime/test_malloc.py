"""What is free goes back to the system, though something small lies beside it; large bodies use
the same memory again as long as they come."""

import subprocess
import sys

_PROGRAM = """
import sys
from pathlib import Path
from logfan.runtime import malloc as memory

assert memory.return_what_is_free()
if sys.argv[1] == "kept":
    memory.keep_blocks()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

bytearray(30 << 20)  # from here on glibc takes smaller blocks out of an arena
before = resident()
large, small = [], []
for n in range(int(sys.argv[2])):
    large.append(bytes(1 << 20).replace(b"\\0", b"x"))
    small.append(bytes(1000 + n))
held = resident() - before
large.clear()
kept = resident() - before
if sys.argv[1] == "kept":
    assert memory.give_back()
print(held, kept, resident() - before)
"""


def held_kept_left(how: str, blocks: int) -> tuple[int, int, int]:
    """MiB while so many blocks are in use, once they are not, and after all is given back."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how, str(blocks)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    held, kept, left = map(int, done.stdout.split())
    return held, kept, left


def test_what_is_free_goes_back() -> None:
    held, kept, _ = held_kept_left("with", 40)
    assert held >= 38
    assert kept < 8


def test_kept_blocks_are_there_for_the_next_and_go_back_in_the_end() -> None:
    held, kept, left = held_kept_left("kept", 12)
    assert held >= 11
    assert kept >= 11
    assert left < 4


def test_no_more_of_them_is_kept_at_the_end_of_the_heap_than_is_worth_it() -> None:
    held, kept, _ = held_kept_left("kept", 40)
    assert held >= 38
    assert kept <= 17
