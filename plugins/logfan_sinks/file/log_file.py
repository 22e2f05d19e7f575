"""One open log file: whole lines appended, made durable, or taken back; mended after a crash."""

import errno
import fcntl
import logging
import os
import resource
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from logfan import SinkUnavailable
from logfan_sinks.file.directories import folder_of, sync_folder, turn

_MODE = 0o640
_OURS = "user.logfan"
"""An attribute of the files that this sink made, where the file system has some."""
# Also for reading: mending looks for the end of the last line. A pipe must not block.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
_TRIES = 5
_BLOCK = 65536
_LARGE_BYTES = 256 << 10
MOST_BUFFERS = 1024
"""So many one call of the system takes (IOV_MAX)."""
_MESSAGES = {
    errno.ENOSPC: "disk full",
    errno.EFBIG: "the file is as large as it may become",
    errno.EROFS: "the file system is read-only",
    errno.EPERM: "not permitted",
    errno.ENOTDIR: "a part of the path is no directory",
    errno.ELOOP: "a part of the path is a symbolic link, which is refused",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many open files; lower max_open_files, or raise the service's LimitNOFILE",
    errno.ESTALE: "the network file system lost the file",
    errno.EILSEQ: "the file system takes no such name",
}
_ANOTHER_SINK = "another sink of this daemon"
_NO_INODES = (
    "no free inodes, though there is room for bytes: remove files, or have messages bring about "
    "fewer (max_files)"
)
_NO_LOCKS = (
    "the file system has no locks (flock), without which two processes could tear each other's "
    "lines; mount it with locks (NFS: without nolock, with lockd running), or take a path on "
    "another file system"
)
_TAKEN_FOR_GOOD = frozenset(
    (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
)
_TAKEN = _TAKEN_FOR_GOOD | {errno.EINVAL, errno.EILSEQ, errno.ENODEV}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM)


def unavailable(path: str, error: OSError) -> SinkUnavailable:
    """The error as a failure of the sink, with what to do about it."""
    name = errno.errorcode.get(error.errno or 0, "")
    what = _MESSAGES.get(error.errno or 0, (error.strerror or str(error)).lower())
    if error.errno == errno.ENOSPC and _has_no_inodes(path):
        what = _NO_INODES
    return SinkUnavailable(f"{path}: {what} ({name})" if name else f"{path}: {what}")


def _has_no_inodes(path: str) -> bool:
    for place in (Path(path), *Path(path).parents):
        with suppress(OSError):
            disk = os.statvfs(place)
            return disk.f_files > 0 and disk.f_favail == 0 and disk.f_bavail > 0
    return False


class Taken(SinkUnavailable):
    """A name that a message decided on is something else already, and no file for its lines."""

    def __init__(self, why: str, *, lasting: bool) -> None:
        super().__init__(why)
        self.lasting = lasting
        """Whether waiting does not help."""


class Held(SinkUnavailable):
    """Another process, or another sink, has the file open and locked."""

    def __init__(self, path: str, here: os.stat_result) -> None:
        holder = _holder(here.st_ino)
        super().__init__(
            f"{path}: {holder} writes to it; give each instance and each sink a path "
            "of its own, for example with {instance}"
        )
        self.identity = (here.st_dev, here.st_ino)
        self.is_ours = holder == _ANOTHER_SINK
        """Whether it is another sink of this daemon."""


class Full(SinkUnavailable):
    """There is no room. A line longer than `most_bytes` never finds any; None: not known."""

    def __init__(self, why: str, most_bytes: int | None) -> None:
        super().__init__(why)
        self.most_bytes = most_bytes


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What was appended to a file that was closed or moved aside before it was settled."""

    place: str
    untrusted: int
    identity: tuple[int, int]
    size: int
    """The file's."""
    count: int
    """Bytes at its end that are not settled."""
    aside: bool = False
    """Whether it was rotated: with nothing in it, it would count among those that stay."""

    def take_back(self) -> None:
        """Cut it off, where the file is there and has not been written to since."""
        name = os.path.basename(self.place)  # noqa: PTH119 - text alone
        with suppress(OSError), folder_of(self.place, self.untrusted) as folder:
            fd = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                here = os.fstat(fd)
                if (here.st_dev, here.st_ino, here.st_size) == (*self.identity, self.size):
                    os.ftruncate(fd, self.size - self.count)
                    if self.aside and self.size == self.count:
                        os.unlink(name, dir_fd=folder)
            finally:
                os.close(fd)


class LogFile:
    """Opened for appending, by this process alone."""

    def __init__(
        self, path: str, *, durable: bool, untrusted: int, beginning: bytes, log: logging.Logger
    ) -> None:
        """Open or create it, with its folders. `durable`: `sync` makes what was written durable.
        In the last `untrusted` parts of the path, which messages decided on, symbolic links are
        refused. `beginning`: of each line; empty where lines have none in common.
        Raises SinkUnavailable; `Taken` where that is a matter of the untrusted parts."""
        self.path = path
        self.names: list[str] = []
        """The paths under which the sink knows it: more than one where the file system takes
        several names for the same, such as A and a. Kept here for `OpenFiles`."""
        self.size = 0
        """In bytes, as it was at the last look, and what was appended since."""
        self.period = 0
        """Which rotation period it belongs to; kept here for `OpenFiles`."""
        self.regular = True
        """False for a device, which neither rotates nor is mended."""
        self.place = path
        """Where it lies: the path, or where the operator's own link for the file leads."""
        self._durable = durable
        self._untrusted = untrusted
        self._beginning = beginning
        self._log = log
        self._unsynced = False
        self._unsettled = 0
        self._identity = (0, 0)  # when it was opened
        self._fd = -1
        try:
            if not untrusted and Path(path).is_symlink():
                self.place = os.path.realpath(path)
            # Behind a link nothing is made: it may lead to a disk that is not mounted.
            with folder_of(self.place, untrusted, make=self.place == path) as folder:
                with turn(folder):
                    self._take(folder)
                self._begin(folder)
        except OSError as error:
            self.close()
            raise self._failure(error) from None
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> tuple[int, int]:
        """What the file is, whatever it is called."""
        here = os.fstat(self._fd)
        return here.st_dev, here.st_ino

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write all of them, `MOST_BUFFERS` at most, in order. Raises SinkUnavailable; `take_back`
        then leaves no half line behind."""
        begin = self.size
        self._unsynced = True
        try:
            left: Sequence[bytes | memoryview] = buffers
            while left:
                count = os.writev(self._fd, left)
                self._unsettled += count
                self.size += count
                left = _behind(left, count)
        except OSError as error:
            failure = unavailable(self.path, error)
            if error.errno in _NO_ROOM:
                raise Full(str(failure), self._most_bytes()) from None
            raise failure from None
        size = self.size - begin
        if size >= _LARGE_BYTES and self._durable and self.regular:
            # Linux writes it to the disk from now on, and not only once `sync` waits for that.
            with suppress(OSError):
                os.posix_fadvise(self._fd, begin, size, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Return once what was written is durable, under this path: what renamed the file
        meanwhile may have read and compressed it already. Raises SinkUnavailable."""
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
        if self.regular and not self._is_at_its_path():
            raise SinkUnavailable(
                f"{self.path}: was moved or deleted while it was written; opening it anew"
            )

    def settle(self) -> None:
        """What was appended so far stays: `take_back` goes no further back than this."""
        self._unsettled = 0

    @property
    def unsettled(self) -> Unsettled | None:
        """What would have to be taken back once this is closed."""
        if not (self._unsettled and self.regular):
            return None
        here = os.fstat(self._fd)
        return Unsettled(
            self.place, self._untrusted, (here.st_dev, here.st_ino), here.st_size, self._unsettled
        )

    def carry(self, unsettled: Unsettled | None) -> None:
        """It was closed meanwhile: what was not settled then is still not."""
        if unsettled is not None and unsettled.size == self.size:
            self._unsettled += unsettled.count

    def take_back(self) -> None:
        """Cut off what was appended since the last `settle`: the host will write it again."""
        unsettled, self._unsettled = self._unsettled, 0
        if not (unsettled and self.regular):
            return
        # Counted from the present end: where the file was copied and emptied meanwhile, as
        # logrotate's copytruncate does, must not have it grown again. Where the cut fails, a half
        # line is mended at the next open.
        with suppress(OSError):
            os.ftruncate(self._fd, max(0, os.fstat(self._fd).st_size - unsettled))

    def rotate(self, name_aside: Callable[[int, str], str]) -> Unsettled | None:
        """Move the file aside and go on with a new one of the same name, locked all the time.
        `name_aside` gets folder and name, and gives a free name. Gives what is not settled of the
        old one. Raises SinkUnavailable."""
        self.sync()
        left = self.unsettled
        old, name = self._fd, os.path.basename(self.place)  # noqa: PTH119 - text alone
        try:
            with folder_of(self.place, self._untrusted) as folder:
                with turn(folder):
                    if not _is_called(folder, name, old):
                        raise SinkUnavailable(f"{self.path}: was replaced; opening it anew")
                    aside = name_aside(folder, name)
                    os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
                    self._take(folder)
                    os.close(old)
                self._unsettled = 0
                self._begin(folder)
        except OSError as error:
            raise unavailable(self.path, error) from None
        beside = self.place[: len(self.place) - len(name)] + aside
        return left and replace(left, place=beside, aside=True)

    def is_current(self) -> bool:
        """Whether the path still leads to this file: it was neither renamed nor deleted."""
        here = os.fstat(self._fd)
        self.size = here.st_size
        try:
            there = os.stat(self.path)  # noqa: PTH116 - on the hot path
        except OSError:
            return False
        return os.path.samestat(there, here)

    def _is_at_its_path(self) -> bool:
        try:
            there = os.stat(self.path)  # noqa: PTH116 - on the hot path
        except OSError:
            return False
        # The second look is for file systems that number a file anew while it is open.
        return (there.st_dev, there.st_ino) == self._identity or os.path.samestat(
            there, os.fstat(self._fd)
        )

    @property
    def modified_at(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return os.fstat(self._fd).st_mtime

    def close(self) -> None:
        """Let go of it. What was not synced may not be durable."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _take(self, folder: int) -> None:
        """Open or create it, and lock it. Without the lock nothing is done to it."""
        name = os.path.basename(self.place)  # noqa: PTH119 - text alone
        flags = _FLAGS | os.O_NOFOLLOW if self._untrusted else _FLAGS
        for _ in range(_TRIES):
            try:
                fd = os.open(name, flags, dir_fd=folder)
            except FileNotFoundError:
                fd = os.open(name, flags | os.O_CREAT, _MODE, dir_fd=folder)
                with suppress(OSError):  # many file systems take none, and do without
                    os.setxattr(fd, _OURS, b"1")
            try:
                if self._locked(fd) and not _is_called(folder, name, fd):
                    # The process that held it moved it aside before: it is no longer this file.
                    os.close(fd)
                    continue
            except BaseException:
                os.close(fd)
                raise
            os.set_blocking(fd, True)
            here = os.fstat(fd)
            self._fd, self._identity = fd, (here.st_dev, here.st_ino)
            return
        raise SinkUnavailable(f"{self.path}: is moved or replaced again and again")

    def _locked(self, fd: int) -> bool:
        here = os.fstat(fd)
        self.regular = stat.S_ISREG(here.st_mode)
        if not self.regular:
            if self._untrusted:
                raise Taken(f"{self.path}: is no regular file", lasting=True)
            if not stat.S_ISCHR(here.st_mode):
                raise SinkUnavailable(f"{self.path}: is neither a regular file nor a device")
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(self.path, here) from None
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            raise SinkUnavailable(f"{self.path}: {_NO_LOCKS} ({name})") from None
        return True

    def _failure(self, error: OSError) -> SinkUnavailable:
        """The sink's failure or, where the folder above all that messages decided on is sound,
        that of the name alone."""
        failure = unavailable(self.path, error)
        if not self._untrusted:
            return failure
        parts = self.path.split("/")
        above = "/".join(parts[: -self._untrusted])
        # Path.is_dir raises where it may not look.
        if os.path.isdir(above or ("/" if self.path[:1] == "/" else ".")):  # noqa: PTH112
            if error.errno in _TAKEN:
                return Taken(str(failure), lasting=error.errno in _TAKEN_FOR_GOOD)
            # Where nothing is there yet, it is the folder above that refuses.
            first = "/".join(parts[: len(parts) - self._untrusted + 1])
            if error.errno in _DENIED and os.path.lexists(first):
                return Taken(str(failure), lasting=False)
        return failure

    def _begin(self, folder: int) -> None:
        """Make a new file's name durable, and an old one's last line whole."""
        if not self.regular:
            return
        self.size = os.fstat(self._fd).st_size
        if self.size:
            self._mend()
        if not self.size and self._durable:
            # Also where it was there and empty: a crash may have come between making it and this.
            sync_folder(folder)

    def _most_bytes(self) -> int | None:
        """The longest line that fits if all else is removed, as far as is known."""
        limits = [resource.getrlimit(resource.RLIMIT_FSIZE)[0]]
        with suppress(OSError):
            disk = os.fstatvfs(self._fd)
            limits.append(disk.f_blocks * disk.f_frsize or -1)
        return min((limit for limit in limits if limit > 0), default=None)

    def _mend(self) -> None:
        """Make the last line whole where it has no end. One that was surely written here, and so
        torn by a crash, is cut off, as it was never acknowledged; any other stays and is ended."""
        end = _end_of_last_line(self._fd, self.size)
        size = self.size - end
        if not size:
            return
        if self._is_ours(end):
            self._log.warning(
                "%s: cut off a torn last line of %d bytes, left by a crash; its message was not "
                "acknowledged and comes again", self.path, size,
            )  # fmt: skip
            os.ftruncate(self._fd, end)
            self.size = end
        else:
            self._log.warning(
                "%s: its last line, of %d bytes, has no end and may be another program's; it stays "
                "and gets a line end", self.path, size,
            )  # fmt: skip
            self.size += os.write(self._fd, b"\n")
        os.fdatasync(self._fd)

    def _is_ours(self, at: int) -> bool:
        """Whether what begins at `at` and has no end was surely written here, or is all NUL."""
        made_here = self._was_made_here()
        if not self._beginning:
            return made_here or (at > 0 and _is_void(self._fd, at))
        begin = os.pread(self._fd, len(self._beginning), at)
        if begin == self._beginning:
            return True
        # A crash of the machine leaves zeros where the bytes did not get to the disk.
        looks_so = self._beginning.startswith(begin.rstrip(b"\0"))
        return (made_here and looks_so) or _is_void(self._fd, at)

    def _was_made_here(self) -> bool:
        with suppress(OSError):
            return bool(os.getxattr(self._fd, _OURS))
        return False


def _is_called(folder: int, name: str, fd: int) -> bool:
    """Whether the name still leads to this file; by the operator's own link it may."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder), os.fstat(fd))
    except FileNotFoundError:
        return False


def _behind(buffers: Sequence[bytes | memoryview], count: int) -> Sequence[bytes | memoryview]:
    """What is left of them behind their first `count` bytes."""
    if count >= sum(map(len, buffers)):
        return ()
    at = 0
    while count >= len(buffers[at]):
        count -= len(buffers[at])
        at += 1
    return [memoryview(buffers[at])[count:], *buffers[at + 1 :]]


def _end_of_last_line(fd: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _is_void(fd: int, at: int) -> bool:
    """Whether all behind `at` is zeros."""
    while block := os.pread(fd, _BLOCK, at):
        if block.count(0) != len(block):
            return False
        at += len(block)
    return True


def _holder(inode: int) -> str:
    """What holds the lock on this file, as far as the kernel shows it."""
    # A line reads `3: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF`.
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                pid = int(fields[4])
                return _ANOTHER_SINK if pid == os.getpid() else f"process {pid}"
    return "another process"
