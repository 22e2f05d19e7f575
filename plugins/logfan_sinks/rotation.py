"""What a rotated file is called, how it is compressed, and how long it stays."""

import gzip
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import zstandard

from logfan_sinks.logfile import sync_folder

_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_STAMP = re.compile(r"\.\d{8}T\d{6}\.\d{6}Z")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Keep:
    """How many rotated files stay, or how old they may become in seconds."""

    count: int | None = None
    age: float | None = None


def rotated_name(path: Path, now: float) -> Path:
    """A free name beside the file: `app.log.20261124T101500.123456Z`."""
    while True:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = path.with_name(f"{path.name}.{stamp}")
        if not any(Path(f"{name}{suffix}").exists() for suffix in _SUFFIXES.values()):
            return name
        now += 0.000001


def rotated_files(path: Path) -> list[Path]:
    """The files rotated from this path, oldest first; nobody else's."""
    found = []
    for candidate in path.parent.iterdir() if path.parent.is_dir() else ():
        rest = candidate.name.removeprefix(path.name)
        stamp = _STAMP.match(rest)
        if rest != candidate.name and stamp and rest[stamp.end() :] in _SUFFIXES.values():
            found.append(candidate)
    return sorted(found)


class Archivist:
    """Compresses and prunes rotated files on a thread of its own, one at a time."""

    def __init__(self, *, compress: str, keep: Keep, log: logging.Logger) -> None:
        self._suffix = _SUFFIXES[compress]
        self._keep = keep
        self._log = log
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "archivist")

    def tend(self, path: Path, now: float) -> None:
        """Compress what was rotated from this path, also by a run that crashed; then prune."""
        self._thread.submit(self._tend, path, now)

    def close(self) -> None:
        """Stop soon; what is half compressed is begun anew by the next run."""
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _tend(self, path: Path, now: float) -> None:
        try:
            for part in path.parent.glob(f"{_escape(path.name)}.*.part"):
                part.unlink(missing_ok=True)
            if self._suffix:
                for file in rotated_files(path):
                    if _STAMP.search(file.name) and file.name.endswith("Z"):
                        self._compress(file)
            self._prune(path, now)
        except OSError as error:
            self._log.warning("%s: rotated files were not tended: %s", path, error)

    def _compress(self, file: Path) -> None:
        part, final = Path(f"{file}{self._suffix}.part"), Path(f"{file}{self._suffix}")
        mode = file.stat().st_mode
        with file.open("rb") as source, part.open("wb") as target:
            os.fchmod(target.fileno(), mode & 0o777)
            with _compressor(target, self._suffix) as write:
                while chunk := source.read(_CHUNK):
                    if self._stop.is_set():
                        part.unlink(missing_ok=True)
                        return
                    write(chunk)
            target.flush()
            os.fsync(target.fileno())
        part.rename(final)
        sync_folder(file.parent)
        file.unlink()

    def _prune(self, path: Path, now: float) -> None:
        files = rotated_files(path)
        if self._keep.count is not None:
            too_many = files[: max(0, len(files) - self._keep.count)]
        else:
            oldest = now - (self._keep.age or 0)
            too_many = [file for file in files if _rotated_at(file) < oldest]
        for file in too_many:
            with suppress(FileNotFoundError):
                file.unlink()


@contextmanager
def _compressor(target: IO[bytes], suffix: str) -> Iterator[Callable[[bytes], Any]]:
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6, filename="") as file:
            yield file.write
    else:
        with zstandard.ZstdCompressor(level=3).stream_writer(target, closefd=False) as writer:
            yield writer.write


def _rotated_at(file: Path) -> float:
    stamp = _STAMP.search(file.name)
    if stamp is None:
        return 0.0
    return datetime.strptime(f"{stamp[0]}+0000", ".%Y%m%dT%H%M%S.%fZ%z").timestamp()


def _escape(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
