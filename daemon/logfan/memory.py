"""Has the C library give memory back that is free. Touches the allocator's settings, once.

glibc keeps an arena for each thread and raises, by itself, the size from which a block comes from
the kernel and goes back to it. With a thread for each sink that writes batches of all sizes, its
arenas grew to ten times what was in use, for hours, without a leak anywhere.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_BLOCK_BYTES = 256 * 1024
_ARENAS = 2


def return_what_is_free() -> bool:
    """Call it early, before other threads begin. False where the C library has no such settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Any of these set by hand ends glibc's own adjusting.
    settings = (
        (_M_MMAP_THRESHOLD, _BLOCK_BYTES), (_M_TRIM_THRESHOLD, _BLOCK_BYTES),
        (_M_ARENA_MAX, _ARENAS),
    )  # fmt: skip
    results = [mallopt(setting, value) for setting, value in settings]
    return results == [1, 1, 1]
