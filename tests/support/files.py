"""Records, file sinks, a limit on files and the look at what is left, for the file sink's tests."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import logfan
from logfan_sinks.file import FileSink

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp()


def record(
    body: bytes | str,
    *,
    routing_key: str = "app",
    received_at: float = NOON,
    redelivered: bool = False,
    **properties: Any,
) -> logfan.Record:
    """A message to the exchange `logs`; `properties` are those of AMQP, headers among them."""
    raw = body.encode() if isinstance(body, str) else body
    known = logfan.Properties(**properties)
    return logfan.Record(raw, "logs", routing_key, redelivered, received_at, known)


def numbered(start: int, stop: int) -> list[logfan.Record]:
    """Records whose bodies are `0000`, `0001`, …, in order."""
    return [record(f"{number:04}") for number in range(start, stop)]


class Watch(FileSink):
    """The file sink with a clock that the test moves."""

    time = NOON

    def now(self) -> float:
        return self.time


def made(path: Path | str, **options: Any) -> Watch:
    """A sink that is not opened yet; raw lines by default."""
    return Watch(FileSink.Config(path=str(path), **{"format": "raw", **options}), name="archive")


@contextmanager
def opened(path: Path | str, **options: Any) -> Iterator[Watch]:
    """A sink, opened, and closed afterwards."""
    sink = made(path, **options)
    sink.open()
    try:
        yield sink
    finally:
        sink.close()


def deliver(sink: logfan.Sink, records: Sequence[logfan.Record]) -> None:
    """What the host does with a batch: write it, then flush."""
    sink.write(records)
    sink.flush()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this: the kernel cuts a write short, then refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def held_open(folder: Path) -> list[str]:
    """The files below the folder that this process holds open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - may be no path at all
        except FileNotFoundError:
            continue
        if target.startswith(f"{folder}/"):
            found.append(target)
    return sorted(found)
