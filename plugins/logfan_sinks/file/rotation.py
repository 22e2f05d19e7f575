"""What a rotated file is called, how it is compressed, and how long it stays.

It touches the files that were rotated from one path and no others; compressing and removing
happens on a thread of its own.
"""

import errno
import gzip
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Annotated, Any, Literal, Self

import zstandard
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

import logfan
from logfan_sinks.file.directories import folder_of, sync_folder
from logfan_sinks.file.log_file import LogFile
from logfan_sinks.file.paths import STAMP

_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_PART = ".part"
_OURS = ("", ".gz", ".zst", ".gz.part", ".zst.part")
_STAMP_FORMAT = ".%Y%m%dT%H%M%S.%fZ"
_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WAITING_MAX = 1000
_CLOSE_SECONDS = 5.0
_AGAIN_SECONDS = 600.0
_FAILED_MAX = 10_000
_STAMP_BYTES = len(".20261124T101500.123456Z")
_GAP_SECONDS = 30 * 86400.0
_DOUBT_SECONDS = 86400.0
_AGE: TypeAdapter[float] = TypeAdapter(logfan.Duration)


def suffix_bytes(compress: str) -> int:
    """How much longer than the file's name those of its rotated ones may be."""
    return _STAMP_BYTES + (len(_SUFFIXES[compress] + _PART) if _SUFFIXES[compress] else 0)


@dataclass(frozen=True, slots=True)
class Keep:
    """How many rotated files stay, or how old they may become in seconds."""

    count: int | None = None
    age: float | None = None


def _keep(value: object) -> object:
    if isinstance(value, Keep):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Keep(count=value)
    if isinstance(value, str):
        with suppress(ValueError):
            return Keep(age=_positive(_AGE.validate_python(value)))
    raise ValueError('must be a number of files, such as 14, or an age, such as "30d"')


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than nothing")
    return value


class Rotate(logfan.SinkConfig):
    """When the file is moved aside and a new one begun, and what becomes of the old ones."""

    size: Annotated[logfan.Size, AfterValidator(_positive)] | None = None
    """Before the file grows beyond this size; what is written at once, a batch or 16 MiB of it, is
    not split."""
    every: Annotated[logfan.Duration, AfterValidator(_positive)] | None = None
    """With the first record after each multiple of this time in UTC: "1d" is midnight, "1h" the
    full hour."""
    keep: Annotated[
        Keep, BeforeValidator(_keep), WithJsonSchema({"type": ["integer", "string"]})
    ] = Field(default=14, validate_default=True)
    """How many rotated files stay, or for how long: 14, or "30d". It counts for each path by
    itself: with {date} or {hour} in it the files of earlier days stay."""
    compress: Literal["none", "gzip", "zstd"] = "none"
    """How rotated files are compressed."""

    def period(self, seconds: float) -> int:
        """A number that changes with each multiple of `every`; 0 without it."""
        return int(seconds // self.every) if self.every is not None else 0

    def is_due(self, file: LogFile, coming: int, now: float) -> bool:
        """Whether the file is moved aside before `coming` bytes are written to it."""
        if not file.regular or not file.size:
            return False
        too_large = self.size is not None and file.size + coming > self.size
        return too_large or self.period(now) != file.period

    @model_validator(mode="after")
    def _has_an_occasion(self) -> Self:
        if self.size is None and self.every is None:
            raise ValueError('needs size or every, for example size = "100MiB"')
        return self


@dataclass(frozen=True, slots=True)
class Rotated:
    """One file that was rotated from a path."""

    name: str
    stamp: str
    at: datetime
    suffix: str
    """Empty, or how it is compressed; with `.part` behind it where that was not finished."""
    regular: bool
    """False for a folder, a link or the like, which has such a name and is nothing of ours."""


def rotated_name(folder: int, name: str, now: float) -> str:
    """A free name beside the file, after all others even where the clock was set back:
    `app.log.20261124T101500.123456Z`."""
    when = datetime.fromtimestamp(now, UTC)
    for rotated in _of_such_names(folder, name)[-1:]:
        when = max(when, rotated.at + timedelta(microseconds=1))
    return name + when.strftime(_STAMP_FORMAT)


def rotated_files(folder: int, name: str) -> list[Rotated]:
    """The files in this folder that were rotated from this name, oldest first; no others."""
    return [rotated for rotated in _of_such_names(folder, name) if rotated.regular]


def _of_such_names(folder: int, name: str) -> list[Rotated]:
    """All that has the name of a file rotated from this one, oldest first."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            other = entry.name
            stamp = STAMP.match(other, len(name)) if other.startswith(name) else None
            if stamp is None or other[stamp.end() :] not in _OURS:
                continue
            with suppress(ValueError):  # digits that are no time: nothing that we wrote
                when = datetime.fromisoformat(stamp[0][1:])
                suffix = other[stamp.end() :]
                found.append(Rotated(other, stamp[0], when, suffix, _is_regular(entry)))
    return sorted(found, key=lambda rotated: rotated.name)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # some file systems have to look at the file itself
        return entry.is_file(follow_symlinks=False)
    return False


class Archivist:
    """Prunes and compresses rotated files on a thread of its own, one at a time."""

    def __init__(
        self,
        *,
        compress: str,
        keep: Keep,
        now: float,
        log: logging.Logger,
        start_thread: Callable[[str, Callable[[], None]], threading.Thread],
    ) -> None:
        """`now`: by the clock that stamps rotated files, in seconds since 1970. `start_thread` is
        the sink's."""
        self._suffix = _SUFFIXES[compress]
        self._keep = keep
        self._log = log
        self._began, self._since = now, time.monotonic()
        self._before = now
        """What has an earlier stamp was rotated before `_began`, by the clock as it was then."""
        self._doubted = False
        self._failed: dict[tuple[str, str], float] = {}
        """Path and name of the rotated files that could not be tended, and when, by the monotonic
        clock."""
        self._stop = threading.Event()
        self._waiting: queue.Queue[tuple[str, int, float] | None] = queue.Queue(_WAITING_MAX)
        self._thread = start_thread("archivist", self._run)

    def tend(self, path: str, untrusted: int, now: float) -> None:
        """Prune, then compress, what was rotated from this path, also by a run that crashed.
        In its last `untrusted` parts links are refused."""
        # Where too much waits, it is done when this path is rotated or opened the next time.
        with suppress(queue.Full):
            self._waiting.put_nowait((path, untrusted, now))

    def close(self) -> None:
        """Stop soon; what is half compressed is begun anew by the next run."""
        self._stop.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._stop.is_set():
            path, untrusted, now = item
            try:
                with folder_of(path, untrusted) as folder:
                    self._tend(folder, path, now)
            except OSError as error:
                self._log.warning("%s: rotated files were not tended: %s", path, error)
            except Exception:  # noqa: BLE001 - logged with its traceback
                # A failure with one file, of a compressor's own kind: no reason to stop all sinks.
                self._log.exception(
                    "%s: rotated files were not tended; it is tried again at the next rotation; "
                    "please report it", path,
                )  # fmt: skip

    def _tend(self, folder: int, path: str, now: float) -> None:
        name = os.path.basename(path)  # noqa: PTH119 - text alone
        # First make room: compressing needs some.
        stayed = self._prune(folder, path, rotated_files(folder, name), now)
        for rotated in rotated_files(folder, name):
            if rotated.suffix.endswith(_PART):
                with self._each(path, rotated.name):
                    _remove(folder, rotated.name)
            elif self._suffix and not rotated.suffix and rotated.name not in stayed:
                # What fails may do so at its very end: not the whole work with each rotation.
                failed_at = self._failed.get((path, rotated.name))
                if failed_at is None or time.monotonic() - failed_at >= _AGAIN_SECONDS:
                    with self._each(path, rotated.name):
                        self._compress(folder, rotated.name)

    @contextmanager
    def _each(self, path: str, name: str) -> Iterator[None]:
        """The trouble of one rotated file is logged once, and keeps no other from being tended."""
        try:
            yield
        except OSError as error:
            if (path, name) not in self._failed:
                if len(self._failed) >= _FAILED_MAX:
                    self._failed.clear()
                self._log.warning(
                    "%s: the rotated file %s could not be compressed or removed: %s; it is tried "
                    "again with later rotations, and the others are tended all the same",
                    path, name, error,
                )  # fmt: skip
            self._failed[path, name] = time.monotonic()
        else:
            self._failed.pop((path, name), None)

    def _compress(self, folder: int, name: str) -> None:
        """Under another name first, so that a crash leaves either the old file or the new one."""
        part, final = f"{name}{self._suffix}{_PART}", f"{name}{self._suffix}"
        try:
            if not self._compress_to(folder, part, name):
                return
            os.rename(part, final, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            _remove(folder, part)
        sync_folder(folder)
        _remove(folder, name)

    def _compress_to(self, folder: int, part: str, name: str) -> bool:
        """False where it has to stop."""
        _remove(folder, part)  # by a run that crashed
        with (
            _opened(folder, name, _READ, "rb") as source,
            _opened(folder, part, _WRITE, "wb") as target,
        ):
            status = os.fstat(source.fileno())
            os.fchmod(target.fileno(), status.st_mode & 0o777)
            with _compressor(target, self._suffix) as write:
                while chunk := source.read(_CHUNK):
                    if self._stop.is_set():
                        return False
                    write(chunk)
            target.flush()
            os.fsync(target.fileno())
        return True

    def _prune(self, folder: int, path: str, files: list[Rotated], now: float) -> Collection[str]:
        """Gives the names of those that should go and could not be removed."""
        # By stamp: a crash can leave a file and its compressed copy, which count as one.
        if self._keep.count is not None:
            stamps = sorted({rotated.stamp for rotated in files})
            old = set(stamps[: max(0, len(stamps) - self._keep.count)])
        else:
            if self._may_be_wrong(files, now):
                return ()
            oldest = now - (self._keep.age or 0)
            old = {rotated.stamp for rotated in files if rotated.at.timestamp() < oldest}
        stay = {rotated.name for rotated in files if rotated.stamp in old}
        for name in sorted(stay):
            with self._each(path, name):
                _remove(folder, name)
                stay.remove(name)
        return stay

    def _may_be_wrong(self, files: list[Rotated], now: float) -> bool:
        """Whether, by the clock, a month passed between the last rotated file and this run:
        it may be years ahead, as where a machine lost its time. Then nothing is removed by age for
        a day, in which NTP or the operator may set it right."""
        seconds = time.monotonic() - self._since
        if abs(now - self._began - seconds) > _GAP_SECONDS:  # it was set meanwhile
            self._began, self._since, seconds = now, time.monotonic(), 0.0
            # What made us look was rotated after that, and so a moment before `now`.
            self._before = now - _GAP_SECONDS / 2
        before = [stamp for one in files if (stamp := one.at.timestamp()) < self._before]
        doubt = (
            bool(before) and self._began - max(before) > _GAP_SECONDS and seconds < _DOUBT_SECONDS
        )
        if doubt and not self._doubted:
            self._log.warning(
                "%s: rotated %s, and the clock says %s: it may be wrong, so no file is removed by "
                "its age for a day", files[-1].name, _day(max(before)), _day(now),
            )  # fmt: skip
        self._doubted = doubt
        return doubt


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@contextmanager
def _opened(folder: int, name: str, flags: int, mode: str) -> Iterator[IO[bytes]]:
    """A regular file, and its descriptor closed whatever happens. Raises OSError."""
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", name)
        with os.fdopen(fd, mode, closefd=False) as file:
            yield file
    finally:
        os.close(fd)


@contextmanager
def _compressor(target: IO[bytes], suffix: str) -> Iterator[Callable[[bytes], Any]]:
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6, filename="") as file:
            yield file.write
    else:
        with zstandard.ZstdCompressor(level=3).stream_writer(target, closefd=False) as writer:
            yield writer.write
