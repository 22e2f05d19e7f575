"""A drop-in sink that does what it is ordered to: fail, hang, be slow, refuse, want some later,
crash the process, raise what has no text, end its own thread.

Orders come through a file that it reads before each write; what it did stands in another, so that
a test knows that its fault really happened. What it takes it appends to a file of raw bodies,
durable in `flush`, and cut back to the last flush where a write is made again.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import logfan

_POLL_SECONDS = 0.01
_HANG_SECONDS_MAX = 120.0
_NUMBER = re.compile(rb'^(?:\{"id":"|id=)\w+-(\d+)')


class _NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class _ExitsWhenRead(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)

    __repr__ = __str__


class _NotEvenText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - a plugin may be wrong


class _Stop(BaseException):
    def __str__(self) -> str:
        raise KeyboardInterrupt


ODD: Sequence[Callable[[], BaseException]] = (
    _NoText,
    _ExitsWhenRead,
    _NotEvenText,
    _Stop,
    lambda: SystemExit(0),
    KeyboardInterrupt,
    GeneratorExit,
    lambda: logfan.SinkUnavailable("half of a character: \udc80"),
    lambda: RuntimeError("long " * 2_000_000),
    lambda: logfan.RecordsRejected({-1: "a record that was not offered"}),
    lambda: ExceptionGroup("a group", [_NoText(), _NotEvenText()]),
)
"""What a sink's code may raise, and the host must outlive."""


class Troubled(logfan.Sink):
    """Takes records into a file, unless it was ordered not to."""

    class Config(logfan.SinkConfig):
        path: str
        """Where to."""
        orders: str
        """The file that holds the present order: empty, fail, slow, later, crash, abort, odd with
        a number of `ODD`, die, or hang. A write that hangs goes on once the order is another one,
        be it `hang` with more words."""
        deeds: str
        """The file that what was done is appended to, a line each."""
        refuse: int = 0
        """Refuse every so-manieth record for good; 0 refuses none."""
        late: int = 0
        """Every so-manieth is wanted later while the order is `later`."""

    _fd = -1
    _durable_size = 0

    def open(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, self._durable_size)
            return
        self._fd = os.open(self.config.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        # What a crash tore was not acknowledged.
        kept = Path(self.config.path).read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._fd, kept)
        self._durable_size = kept

    def write(self, records: Sequence[logfan.Record]) -> None:
        self._obey(len(records))
        refused = self._refused(records)
        later = self._later(records, refused)
        left = refused.keys() | later.keys()
        taken = [r.body + b"\n" for i, r in enumerate(records) if i not in left]
        view = memoryview(b"".join(taken))
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise logfan.SinkUnavailable(f"{self.config.path}: {error.strerror}") from None
        if left:
            raise logfan.RecordsRejected(refused, later=later)

    def flush(self) -> None:
        os.fdatasync(self._fd)
        self._durable_size = os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _later(self, records: Sequence[logfan.Record], refused: Collection[int]) -> dict[int, str]:
        """Every so-manieth, while it is ordered so."""
        late = self.config.late
        if self._order() != "later" or not late:
            return {}
        found = {
            index: f"number {number} is wanted later"
            for index, number in enumerate(_numbers(records))
            if number % late == late - 1 and index not in refused
        }
        if found:
            self._did("later", len(found))
        return found

    def _refused(self, records: Sequence[logfan.Record]) -> dict[int, str]:
        if not self.config.refuse:
            return {}
        return {
            index: f"number {number} is refused"
            for index, number in enumerate(_numbers(records))
            if number % self.config.refuse == self.config.refuse - 1
        }

    def _obey(self, count: int) -> None:
        order = self._order()
        if order.startswith("hang"):
            self._hang(order, count)
        elif order == "slow":
            self._did("slow", count)
            time.sleep(0.2)
        elif order == "fail":
            self._did("fail", count)
            raise logfan.SinkUnavailable("ordered to fail")
        elif order == "crash":
            self._did("crash", count)
            os._exit(3)
        elif order == "abort":
            self._did("abort", count)
            os.abort()
        elif order.startswith("odd"):
            self._did("odd", count)
            odd = ODD[int(order.split()[1])]
            raise odd()
        elif order == "die":
            self._did("die", count)
            sys.settrace(_end_the_thread)

    def _hang(self, order: str, count: int) -> None:
        self._did("hang", count)
        deadline = time.monotonic() + _HANG_SECONDS_MAX
        while self._order() == order and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _order(self) -> str:
        try:
            return Path(self.config.orders).read_text().strip()
        except OSError:
            return ""

    def _did(self, deed: str, count: int) -> None:
        with Path(self.config.deeds).open("a") as deeds:
            deeds.write(f"{deed} {count}\n")


def _numbers(records: Sequence[logfan.Record]) -> list[int]:
    return [int(m[1]) if (m := _NUMBER.match(r.body)) else 0 for r in records]


def _end_the_thread(frame: FrameType, _event: str, _argument: Any) -> None:
    """Called with each function that this thread enters. In the host's own code, where nothing of
    a plugin is called, it raises what ends a thread without a word."""
    if frame.f_code.co_filename.endswith("/logfan/pipeline/worker.py"):
        raise SystemExit


@logfan.hookimpl
def register_sinks(register: Callable[..., None]) -> None:
    """The kind `troubled`."""
    register("troubled", Troubled)
