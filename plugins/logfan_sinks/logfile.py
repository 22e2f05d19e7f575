"""One open log file: appended to whole lines at a time, made durable, mended after a crash."""

import errno
import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from logfan import SinkUnavailable

_MODE = 0o640
_FOLDER_MODE = 0o750
_BLOCK = 65536
_WORDS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EIO: "input/output error",
    errno.EISDIR: "is a directory",
    errno.ENOTDIR: "a part of the path is no directory",
    errno.ELOOP: "a part of the path is a symbolic link, which is refused",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many open files",
    errno.ESTALE: "the network file system lost the file",
}


def unavailable(path: str, error: OSError) -> SinkUnavailable:
    """The error in words, as the sink's trouble."""
    name = errno.errorcode.get(error.errno or 0, "")
    words = _WORDS.get(error.errno or 0, (error.strerror or str(error)).lower())
    return SinkUnavailable(f"{path}: {words} ({name})" if name else f"{path}: {words}")


class LogFile:
    """Opened for appending, by this process alone."""

    def __init__(self, path: str, *, durable: bool, log: logging.Logger, trusted: str) -> None:
        """Open or create it, with its folders. `durable`: `sync` makes what was written durable.
        Below `trusted`, a folder, symbolic links are refused. Raises SinkUnavailable."""
        self.path = path
        self.size = 0
        self.period = 0
        """Which rotation period it belongs to; kept here for the sink."""
        self._durable = durable
        self._dirty = False
        self._fd = -1
        try:
            self._open(trusted)
            self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if self._regular:
                self._lock()
                self._mend(log)
        except OSError as error:
            self.close()
            raise unavailable(path, error) from None
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Write all of it, or nothing. Raises SinkUnavailable."""
        view = memoryview(data)
        try:
            self._dirty = True
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            if self._regular:
                # No half line stays behind: it would be written again as a whole.
                with suppress(OSError):
                    os.ftruncate(self._fd, self.size)
            raise unavailable(self.path, error) from None
        self.size += len(data)

    def sync(self) -> None:
        """Return once what was written is durable. Raises SinkUnavailable."""
        if not self._dirty:
            return
        try:
            if self._durable and self._regular:
                os.fdatasync(self._fd)
        except OSError as error:
            # The kernel may have dropped the pages and forgotten the error: only writing it all
            # again, to a file opened anew, makes sure.
            raise unavailable(self.path, error) from None
        self._dirty = False
        if self._regular and os.fstat(self._fd).st_nlink == 0:
            raise SinkUnavailable(f"{self.path}: was deleted while it was written; opening it anew")

    def is_current(self) -> bool:
        """Whether the path still leads to this file: nobody renamed or deleted it."""
        try:
            there = os.stat(self.path)  # noqa: PTH116 - on the hot path
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    @property
    def modified_at(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return os.fstat(self._fd).st_mtime

    @property
    def regular(self) -> bool:
        """False for a device, which neither rotates nor is mended."""
        return self._regular

    def close(self) -> None:
        """Let go of it. What was not synced may not be durable."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self, trusted: str) -> None:
        path = Path(self.path)
        _make_folders(path.parent)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        if trusted:
            _refuse_links(path.parent, Path(trusted))
            flags |= os.O_NOFOLLOW
        try:
            self._fd = os.open(self.path, flags | os.O_NONBLOCK)
        except FileNotFoundError:
            self._fd = os.open(self.path, flags | os.O_CREAT, _MODE)
            if self._durable:
                sync_folder(path.parent)
        os.set_blocking(self._fd, True)
        mode = os.fstat(self._fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise SinkUnavailable(f"{self.path}: is neither a regular file nor a device")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkUnavailable(
                f"{self.path}: another process writes to it; give each instance a path of its own, "
                "for example with {instance}"
            ) from None

    def _mend(self, log: logging.Logger) -> None:
        """Cut off a last line without its end: a crash tore it, and it was never acknowledged."""
        self.size = os.fstat(self._fd).st_size
        if self.size == 0:
            return
        with open(self.path, "rb") as file:  # noqa: PTH123 - a second descriptor, for reading
            end = _end_of_last_line(file.fileno(), self.size)
        if end < self.size:
            log.warning(
                "%s: cut off a torn last line of %d bytes, left by a crash; its message was not "
                "acknowledged and comes again", self.path, self.size - end,
            )  # fmt: skip
            os.ftruncate(self._fd, end)
            os.fdatasync(self._fd)
            self.size = end


def _end_of_last_line(fd: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _make_folders(folder: Path) -> None:
    """Make what is missing, and make that durable."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    for new in reversed(missing):
        with suppress(FileExistsError):
            new.mkdir(_FOLDER_MODE)
        sync_folder(new.parent)


def _refuse_links(folder: Path, trusted: Path) -> None:
    while folder != trusted and folder != folder.parent:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "symbolic link", str(folder))
        folder = folder.parent


def sync_folder(folder: Path) -> None:
    """Make new, renamed and removed names in the folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems cannot sync a folder; their renames are as durable as they get.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)
