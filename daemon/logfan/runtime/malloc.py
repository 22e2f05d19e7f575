"""Has the C library give memory back that is free. Touches the allocator's settings.

glibc keeps an arena for each thread and raises, by itself, the size from which a block comes from
the kernel and goes back to it. With a thread for each sink that writes batches of all sizes, its
arenas grew to ten times what was in use, for hours, without a leak anywhere. So blocks of 256 KiB
come from the kernel; but while large bodies come one after the other each new page of them would
cost more than all else that is done with it, and so those use the same blocks again.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
BLOCK_BYTES = 256 * 1024
"""Blocks from this size on come from the kernel, as a rule."""
_KEPT_BLOCK_BYTES = 4 << 20
_KEPT_FREE_BYTES = 16 << 20
_ARENAS = 2
_kept = False


def return_what_is_free() -> bool:
    """Call it early, before other threads begin. False where the C library has no such settings."""
    # Any of these set by hand ends glibc's own adjusting.
    return _set(_M_ARENA_MAX, _ARENAS) and give_back()


def keep_blocks() -> None:
    """From now on large blocks are used again, until `give_back`."""
    global _kept  # noqa: PLW0603 - the allocator is one for all
    if not _kept:
        _kept = True
        _set_sizes(_KEPT_BLOCK_BYTES, _KEPT_FREE_BYTES)


def give_back() -> bool:
    """No longer; and what is free goes back to the kernel. False where the C library cannot."""
    global _kept  # noqa: PLW0603 - as above
    _kept = False
    done = _set_sizes(BLOCK_BYTES, BLOCK_BYTES)
    if done:
        ctypes.CDLL(None).malloc_trim(0)
    return done


def _set_sizes(block: int, free: int) -> bool:
    return _set(_M_MMAP_THRESHOLD, block) and _set(_M_TRIM_THRESHOLD, free)


def _set(setting: int, value: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    done: int = mallopt(setting, value)
    return done == 1
