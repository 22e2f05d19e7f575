"""Where a file lies: its folder as a descriptor, reached without following what others may plant.

All that is done to a file by its name is done relative to such a descriptor, so a folder
cannot be swapped for a link between the check and the use.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER_MODE = 0o750
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TURN_SECONDS = 0.5
_TURN_PAUSE_SECONDS = 0.002


@contextmanager
def folder_of(path: str, untrusted: int, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that holds this file. In the last `untrusted` parts of the path,
    which messages decided on, symbolic links are refused. `make`: make what is missing, durably.
    Raises OSError."""
    parts = path.split("/")
    inner = parts[-untrusted:-1] if untrusted else []
    outer = "/".join(parts[: len(parts) - 1 - len(inner)])
    base = Path(outer or ("/" if path.startswith("/") else "."))
    if make:
        make_folders(base)
    fd = os.open(base, _FOLDER)
    try:
        for name in inner:
            below = _below(fd, name, make=make)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _below(fd: int, name: str, *, make: bool) -> int:
    try:
        return _enter(fd, name)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE, dir_fd=fd)
        _sync_new(fd, name)
        return _enter(fd, name)


def _enter(fd: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
    except NotADirectoryError as error:
        # Also what the kernel answers for a link.
        if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "symbolic link", name) from error
        raise


def make_folders(folder: Path) -> None:
    """Make what is missing, and make that durable. Raises OSError."""
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        try:
            new.mkdir(FOLDER_MODE)
        except FileExistsError:
            if not new.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(new)) from None
        fd = os.open(new.parent, _FOLDER)
        try:
            _sync_new(fd, new.name)
        finally:
            os.close(fd)


def _sync_new(fd: int, name: str) -> None:
    """Make the name of a new folder durable; where that fails it is removed. The next attempt would
    find it there, and sync nothing. Raises OSError."""
    try:
        sync_folder(fd)
    except OSError:
        with suppress(OSError):  # another instance may use it, and has synced it then
            os.rmdir(name, dir_fd=fd)
        raise


def sync_folder(fd: int) -> None:
    """Make new, renamed and removed names in the folder durable. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems cannot sync a folder; their renames are as durable as they get.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


@contextmanager
def turn(fd: int) -> Iterator[None]:
    """One at a time of all that open or rotate a file in this folder.

    So no other takes a name in the moment between its file's move aside and the new file. It is a
    courtesy among instances of logfan: one that keeps it for long is not waited for, and each file
    has a lock of its own beside.
    """
    until = time.monotonic() + _TURN_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_TURN_PAUSE_SECONDS)
                continue
        except OSError:
            pass  # a file system without locks for folders
        break
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
