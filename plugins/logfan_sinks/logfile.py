"""One open log file: whole lines appended, made durable, or taken back; mended after a crash."""

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
    errno.EFBIG: "the file is as large as it may become",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EIO: "input/output error",
    errno.EISDIR: "is a directory",
    errno.ENOTDIR: "a part of the path is no directory",
    errno.ELOOP: "a part of the path is a symbolic link, which is refused",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many open files; lower max_open_files, or raise the service's LimitNOFILE",
    errno.ESTALE: "the network file system lost the file",
}


def unavailable(path: str, error: OSError) -> SinkUnavailable:
    """The error in words, as the sink's trouble."""
    name = errno.errorcode.get(error.errno or 0, "")
    words = _WORDS.get(error.errno or 0, (error.strerror or str(error)).lower())
    return SinkUnavailable(f"{path}: {words} ({name})" if name else f"{path}: {words}")


class LogFile:
    """Opened for appending, by this process alone."""

    def __init__(self, path: str, *, durable: bool, untrusted: int, log: logging.Logger) -> None:
        """Open or create it, with its folders. `durable`: `sync` makes what was written durable.
        In the last `untrusted` parts of the path symbolic links are refused.
        Raises SinkUnavailable."""
        self.path = path
        self.size = 0
        """In bytes, as it was at the last look, and what was appended since."""
        self.period = 0
        """Which rotation period it belongs to; kept here for the sink."""
        self.regular = True
        """False for a device, which neither rotates nor is mended."""
        self._durable = durable
        self._unsynced = False
        self._unsettled = 0
        self._fd = -1
        try:
            self._open(untrusted)
            if self.regular:
                self._lock()
                self._mend(log)
        except OSError as error:
            self.close()
            raise unavailable(path, error) from None
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Write all of it. Raises SinkUnavailable; `take_back` then leaves no half line behind."""
        view = memoryview(data)
        self._unsynced = True
        try:
            while view:
                count = os.write(self._fd, view)
                self._unsettled += count
                self.size += count
                view = view[count:]
        except OSError as error:
            raise unavailable(self.path, error) from None

    def sync(self) -> None:
        """Return once what was written is durable. Raises SinkUnavailable."""
        if not self._unsynced:
            return
        try:
            if self._durable and self.regular:
                os.fdatasync(self._fd)
        except OSError as error:
            # The kernel may have dropped the pages and forgotten the error: only writing it all
            # again, to a file opened anew, makes sure.
            raise unavailable(self.path, error) from None
        self._unsynced = False
        if self.regular and os.fstat(self._fd).st_nlink == 0:
            raise SinkUnavailable(f"{self.path}: was deleted while it was written; opening it anew")

    def settle(self) -> None:
        """What was appended so far stays: `take_back` goes no further back than this."""
        self._unsettled = 0

    def take_back(self) -> None:
        """Cut off what was appended since the last `settle`: the host will write it again."""
        unsettled, self._unsettled = self._unsettled, 0
        if not (unsettled and self.regular):
            return
        # Counted from the present end: whoever copied and emptied the file meanwhile, as
        # logrotate's copytruncate does, must not have it grown again. Where the cut fails, a half
        # line is mended at the next open.
        with suppress(OSError):
            os.ftruncate(self._fd, max(0, os.fstat(self._fd).st_size - unsettled))

    def is_current(self) -> bool:
        """Whether the path still leads to this file: nobody renamed or deleted it."""
        here = os.fstat(self._fd)
        self.size = here.st_size
        try:
            there = os.stat(self.path)  # noqa: PTH116 - on the hot path
        except OSError:
            return False
        return os.path.samestat(there, here)

    @property
    def modified_at(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return os.fstat(self._fd).st_mtime

    def close(self) -> None:
        """Let go of it. What was not synced may not be durable."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self, untrusted: int) -> None:
        path = Path(self.path)
        # Also for reading: mending looks for the end of the last line.
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        if untrusted:
            _refuse_links(list(path.parents)[: untrusted - 1])
            flags |= os.O_NOFOLLOW
        make_folders(path.parent)
        try:
            self._fd = os.open(self.path, flags)
        except FileNotFoundError:
            self._fd = os.open(self.path, flags | os.O_CREAT, _MODE)
            if self._durable:
                sync_folder(path.parent)
        os.set_blocking(self._fd, True)
        mode = os.fstat(self._fd).st_mode
        self.regular = stat.S_ISREG(mode)
        if not (self.regular or stat.S_ISCHR(mode)):
            raise SinkUnavailable(f"{self.path}: is neither a regular file nor a device")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkUnavailable(
                f"{self.path}: {_holder(os.fstat(self._fd).st_ino)} writes to it; give each "
                "instance and each sink a path of its own, for example with {instance}"
            ) from None

    def _mend(self, log: logging.Logger) -> None:
        """Cut off a last line without its end: a crash tore it, and it was never acknowledged."""
        self.size = os.fstat(self._fd).st_size
        end = _end_of_last_line(self._fd, self.size)
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


def _holder(inode: int) -> str:
    """Who holds the lock on this file, as far as the kernel tells."""
    # A line reads `3: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF`.
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                pid = int(words[4])
                return "another sink of this daemon" if pid == os.getpid() else f"process {pid}"
    return "another process"


def make_folders(folder: Path) -> None:
    """Make what is missing, and make that durable. Raises OSError."""
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        try:
            new.mkdir(_FOLDER_MODE)
        except FileExistsError:
            if not new.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(new)) from None
        sync_folder(new.parent)


def _refuse_links(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "symbolic link", str(folder))


def sync_folder(folder: Path) -> None:
    """Make new, renamed and removed names in the folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems cannot sync a folder; their renames are as durable as they get.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)
