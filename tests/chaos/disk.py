"""A small disk that can be filled: a tmpfs in a private mount namespace, for root alone.

A keeper process holds the namespace; everybody else reaches the mount through the keeper's root
in /proc. When the keeper ends the mount is gone, and no other process ever saw it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

_CHUNK = 4096


class DiskUnavailable(Exception):
    """No such disk is possible here; the text gives the reason."""


class SmallDisk:
    """Use it as a context manager; `path` is its folder."""

    def __init__(self, size: int) -> None:
        """`size` in bytes."""
        self._size = size
        self._fallback: subprocess.Popen[bytes] | None = None
        self.path = Path()

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            raise DiskUnavailable("only root can mount one, with unshare")
        script = f"mount -t tmpfs -o size={self._size} none /mnt && echo ready && exec cat"
        self._fallback = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._fallback.stdout is not None
        if self._fallback.stdout.readline() != b"ready\n":
            output = self._fallback.communicate()[1].decode()
            raise DiskUnavailable(f"a private mount is not possible: {output.strip()}")
        self.path = Path(f"/proc/{self._fallback.pid}/root/mnt")
        return self

    def __exit__(self, *_: object) -> None:
        if self._fallback is not None:
            self._fallback.communicate()

    @contextmanager
    def full(self) -> Iterator[Callable[[], None]]:
        """Not a page is free. Call what it gives to take what became free since, for example
        because a rotated file was compressed."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:

            def fill() -> None:
                # Others write meanwhile, so it is taken until there is really nothing.
                with suppress(OSError):
                    while True:
                        free = os.statvfs(self.path)
                        size = max(free.f_bavail * free.f_frsize, _CHUNK)
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)

            fill()
            try:
                yield fill
            finally:
                filler.unlink()
