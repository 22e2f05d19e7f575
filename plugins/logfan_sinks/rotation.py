"""What a rotated file is called, how it is compressed, and how long it stays.

It touches the files that were rotated from one path and nobody else's; compressing and removing
happens on a thread of its own.
"""

import gzip
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import zstandard

from logfan_sinks.logfile import sync_folder
from logfan_sinks.paths import STAMP

_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_PART = ".part"
_OURS = ("", ".gz", ".zst", ".gz.part", ".zst.part")
_STAMP_FORMAT = ".%Y%m%dT%H%M%S.%fZ"
_CHUNK = 1 << 20
_WAITING_MAX = 1000
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How many rotated files stay, or how old they may become in seconds."""

    count: int | None = None
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Rotated:
    """One file that was rotated from a path."""

    file: Path
    stamp: str
    at: datetime
    suffix: str
    """Empty, or how it is compressed; with `.part` behind it where that was not finished."""


def rotated_name(path: Path, now: float) -> Path:
    """A free name beside the file, after all others even where the clock was set back:
    `app.log.20261124T101500.123456Z`."""
    when = datetime.fromtimestamp(now, UTC)
    for rotated in rotated_files(path)[-1:]:
        when = max(when, rotated.at + timedelta(microseconds=1))
    return path.with_name(path.name + when.strftime(_STAMP_FORMAT))


def rotated_files(path: Path) -> list[Rotated]:
    """The files rotated from this path, oldest first; nobody else's."""
    found = []
    for name in os.listdir(path.parent):  # noqa: PTH208 - names alone are wanted
        stamp = STAMP.match(name, len(path.name)) if name.startswith(path.name) else None
        if stamp is None or name[stamp.end() :] not in _OURS:
            continue
        with suppress(ValueError):  # digits that are no time: nothing that we wrote
            when = datetime.fromisoformat(stamp[0][1:])
            found.append(Rotated(path.with_name(name), stamp[0], when, name[stamp.end() :]))
    return sorted(found, key=lambda rotated: rotated.file.name)


class Archivist:
    """Prunes and compresses rotated files on a thread of its own, one at a time."""

    def __init__(self, *, compress: str, keep: Keep, log: logging.Logger) -> None:
        self._suffix = _SUFFIXES[compress]
        self._keep = keep
        self._log = log
        self._stop = threading.Event()
        self._waiting: queue.Queue[tuple[Path, float] | None] = queue.Queue(_WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name="archivist", daemon=True)
        self._thread.start()

    def tend(self, path: Path, now: float) -> None:
        """Prune, then compress, what was rotated from this path, also by a run that crashed."""
        # Where too much waits, it is done when this path is rotated or opened the next time.
        with suppress(queue.Full):
            self._waiting.put_nowait((path, now))

    def close(self) -> None:
        """Stop soon; what is half compressed is begun anew by the next run."""
        self._stop.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._stop.is_set():
            path, now = item
            try:
                self._tend(path, now)
            except OSError as error:
                self._log.warning("%s: rotated files were not tended: %s", path, error)

    def _tend(self, path: Path, now: float) -> None:
        # First make room: compressing needs some.
        self._prune(rotated_files(path), now)
        for rotated in rotated_files(path):
            if rotated.suffix.endswith(_PART):
                rotated.file.unlink(missing_ok=True)
            elif self._suffix and not rotated.suffix:
                self._compress(rotated.file)

    def _compress(self, file: Path) -> None:
        """Under another name first, so that a crash leaves either the old file or the new one."""
        part, final = Path(f"{file}{self._suffix}{_PART}"), Path(f"{file}{self._suffix}")
        try:
            if not self._compress_to(part, file):
                return
            part.rename(final)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(file.parent)
        file.unlink()

    def _compress_to(self, part: Path, file: Path) -> bool:
        """False where it was told to stop."""
        with file.open("rb") as source, part.open("wb") as target:
            os.fchmod(target.fileno(), os.fstat(source.fileno()).st_mode & 0o777)
            with _compressor(target, self._suffix) as write:
                while chunk := source.read(_CHUNK):
                    if self._stop.is_set():
                        return False
                    write(chunk)
            target.flush()
            os.fsync(target.fileno())
        return True

    def _prune(self, files: list[Rotated], now: float) -> None:
        # By stamp: a crash can leave a file and its compressed copy, which count as one.
        if self._keep.count is not None:
            stamps = sorted({rotated.stamp for rotated in files})
            old = set(stamps[: max(0, len(stamps) - self._keep.count)])
        else:
            oldest = now - (self._keep.age or 0)
            old = {rotated.stamp for rotated in files if rotated.at.timestamp() < oldest}
        for rotated in files:
            if rotated.stamp in old:
                rotated.file.unlink(missing_ok=True)


@contextmanager
def _compressor(target: IO[bytes], suffix: str) -> Iterator[Callable[[bytes], Any]]:
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6, filename="") as file:
            yield file.write
    else:
        with zstandard.ZstdCompressor(level=3).stream_writer(target, closefd=False) as writer:
            yield writer.write
