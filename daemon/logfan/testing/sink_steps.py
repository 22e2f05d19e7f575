"""A sink on a thread of its own, called step by step as the host does it, with a time limit; and
what it holds: threads and descriptors, without those of a server in the test itself."""

import errno
import linecache
import os
import queue
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from logfan.pipeline.sink_runner import pace_and_doubt, why_no_index, why_returned
from logfan.record import Record
from logfan.runtime.foreign_text import describe
from logfan.sink import RecordsRejected, Sink
from logfan.testing.records import change_of, state_of

_LETTING_GO_SECONDS = 5.0


@dataclass(slots=True)
class Outcome:
    """What a sink did with a batch."""

    error: BaseException | None = None
    """What it raised, but for RecordsRejected."""
    step: str = ""
    """In which method."""
    refused: dict[Any, str] = field(default_factory=dict)
    later: dict[Any, str] = field(default_factory=dict)

    @property
    def is_taken(self) -> bool:
        """Whether the host would acknowledge all of it."""
        return self.error is None and not self.refused and not self.later

    def must_not_raise(self, when: str = "") -> None:
        """Raises AssertionError, with its text and `when`."""
        if self.error is not None:
            text = f"{self.step} raised {describe(self.error)}"
            raise AssertionError(f"{text} {when}".rstrip()) from self.error


class Family:
    """The threads that one thread starts, itself or by others. A context manager, which sees the
    starts meanwhile."""

    def __init__(self, is_first: Callable[[threading.Thread], bool]) -> None:
        """`is_first`: whether this is the thread that they come from."""
        self._is_first = is_first
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._start = threading.Thread.start

    def __enter__(self) -> Self:
        real = self._start = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            current = threading.current_thread()
            if self._is_first(current) or current in self._threads:
                self._threads.add(thread)
            real(thread)

        threading.Thread.start = start  # type: ignore[assignment, method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        threading.Thread.start = self._start  # type: ignore[method-assign]

    def alive(self) -> list[threading.Thread]:
        """Those that run, but for the first."""
        return [one for one in self._threads if one.is_alive()]


class SinkSteps:
    """The four methods of one sink, each called on the sink's thread. A context manager, which at
    its end closes a sink that is open."""

    def __init__(self, sink: Sink[Any], seconds: float) -> None:
        """`seconds`: so long one step may take."""
        self.sink = sink
        self._seconds = seconds
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[BaseException | None, object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        self._family = Family(lambda thread: thread is self._thread)
        self._hangs = False
        self._is_open = False
        self._written: Sequence[Record] = ()
        self._before: Sequence[Mapping[str, object]] = ()

    def __enter__(self) -> Self:
        self._thread.start()
        self._family.__enter__()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self._is_open and not self._hangs:
                if kind is None:
                    self.must("close")
                else:
                    self.attempt("close")
        finally:
            self._orders.put(None)
            self._family.__exit__()

    def attempt(self, step: str, *arguments: object) -> BaseException | None:
        """Call one method. Returns what it raised; fails where it does not return in time."""
        if self._hangs:
            raise AssertionError("the sink hangs in an earlier step")
        if step == "open":
            self._is_open = True
        elif step == "close":
            self._is_open = False
        elif step == "write":
            (written,) = arguments
            self._note(written)  # type: ignore[arg-type] # as write takes them
        self._orders.put(lambda: getattr(self.sink, step)(*arguments))
        try:
            error, given = self._answers.get(timeout=self._seconds)
        except queue.Empty:
            self._hangs = True
            raise AssertionError(
                f"{step} has not returned for {self._seconds:g} s{self._where()}: a sink that "
                "hangs holds its messages for ever; wait for the other side with a time limit, "
                "then raise SinkUnavailable"
            ) from None
        if error is not None and not isinstance(error, Exception):
            raise AssertionError(
                f"{step} raised {type(error).__name__}, which is no Exception: code that catches "
                "Exception does not see it; raise SinkUnavailable, or let the cause through"
            ) from error
        if step in ("write", "flush"):
            assert given is None, why_returned(step, given)
        change = change_of(self._written, self._before)
        assert change is None, f"{step} {change}"
        _, odd = pace_and_doubt(error)
        assert not odd, f"{step} asks for retry_after = {odd}, which is no number of seconds"
        fault = next((one.fault for one in self.sink._logfan_threads if one.fault), None)
        assert fault is None, (
            f"{fault}: in the daemon this ends the process with 70; handle the exception in the "
            "work that start_thread got"
        )
        return error

    def _note(self, records: Sequence[Record]) -> None:
        """What these are like before the sink gets them. It may change the sequence, too."""
        self._written = (*records,)
        self._before = [state_of(one) for one in records]

    def must(self, step: str, *arguments: object, when: str = "") -> None:
        """Call one method, which must not raise. `when` goes into the failure."""
        Outcome(self.attempt(step, *arguments), step).must_not_raise(when)

    def offer(self, records: Sequence[Record], *, anew: bool = False) -> Outcome:
        """Write and flush, as the host does; `anew`: open first, as after a failure."""
        outcome = Outcome()
        if anew and (error := self.attempt("open")) is not None:
            return Outcome(error, "open")
        for step, arguments in (("write", [records]), ("flush", [])):
            error = self.attempt(step, *arguments)
            if isinstance(error, RecordsRejected):
                outcome.refused |= _named(error.reasons, len(records), step)
                outcome.later |= _named(error.later, len(records), step)
                error = self.attempt("flush") if step == "flush" else None  # of all the others
            if error is not None:
                outcome.error, outcome.step = error, step
                break
        return outcome

    def take(self, records: Sequence[Record]) -> None:
        """Write and flush what the sink has no reason to refuse."""
        outcome = self.offer(records)
        outcome.must_not_raise()
        refused = {**outcome.refused, **outcome.later}
        assert not refused, f"refused records that nothing is wrong with: {refused}"

    def threads(self) -> list[str]:
        """The threads that the sink started, itself or by others, and that run."""
        return [one.name for one in self._family.alive()]

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            error, given = None, None
            try:
                given = order()
            except BaseException as raised:  # noqa: BLE001 - the test judges it
                error = raised
            self._answers.put((error, given))

    def _where(self) -> str:
        """Where the sink's thread is: the line of the innermost frame that is the author's."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        own = type(self.sink).write.__code__.co_filename
        while frame is not None and frame.f_code.co_filename != own:
            frame = frame.f_back
        if frame is None:
            return ""
        line = linecache.getline(own, frame.f_lineno).strip()
        return f", in line {frame.f_lineno} of {Path(own).name} ({line})"


def _named(reasons: Mapping[int, str], count: int, step: str) -> Mapping[int, str]:
    wrong = next(filter(None, (why_no_index(index, count) for index in reasons)), None)
    assert wrong is None, f"RecordsRejected of {step} names record {wrong}"
    return reasons


def in_the_end(holds: Callable[[], bool], seconds: float = _LETTING_GO_SECONDS) -> bool:
    """Whether it holds within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def descriptors() -> dict[int, str]:
    """What is open in this process, by number; but for connections that a server in this process
    took in: who connected is the client."""
    found: dict[int, str] = {}
    addresses: dict[int, object] = {}
    listening: dict[int, object] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        number = int(name)
        try:
            found[number] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - no path
            if found[number].startswith("socket:"):
                address, is_listening, other = _socket(number)
                found[number] = f"a connection to {other}" if other else found[number]
                (listening if is_listening else addresses)[number] = address
        except OSError as error:
            found.pop(number, None)
            if error.errno not in (errno.ENOENT, errno.EBADF):
                raise
    ours = {number for number, own in addresses.items() if own in listening.values()}
    return {number: what for number, what in found.items() if number not in ours}


def _socket(number: int) -> tuple[object, bool, str]:
    """Its own address, whether it listens, and who is at the other end."""
    with socket.socket(fileno=os.dup(number)) as one:
        address = one.getsockname()
        # A server may listen at all addresses: the port identifies it.
        own = address[1] if isinstance(address, tuple) and len(address) > 1 else address
        listens = False
        if one.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        try:
            other = one.getpeername()
        except OSError:
            other = ""
        if isinstance(other, tuple) and len(other) > 1:
            return own, listens, f"{other[0]}:{other[1]}"
        return own, listens, str(other or "")


def left_open(before: Mapping[int, str]) -> list[str]:
    """What is open now and was not before."""
    return [what for number, what in descriptors().items() if before.get(number) != what]
