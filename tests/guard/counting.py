"""Work counted instead of timed: bytecode instructions and calls, the same in each run.

What a C function does inside is not seen: one that is given more work counts as one call.
"""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True, slots=True)
class Counts:
    """Work, in all or for one of what a stretch is counted by."""

    instructions: float
    """Bytecode instructions of Python code."""
    calls: float
    """Calls of Python functions."""
    c_calls: float
    """Calls of functions written in C."""

    def each(self, number: int) -> "Counts":
        """For one of so many."""
        shares = (self.instructions / number, self.calls / number, self.c_calls / number)
        return Counts(*(round(share, 2) for share in shares))


class Counter:
    """Counts within `here` and `new_threads`. One thread at a time: there is no lock."""

    def __init__(self, *, idle: bool = False) -> None:
        """`idle`: counts nothing, in a run that only loads what the next one counts."""
        self._idle = idle
        self._instructions = self._calls = self._c_calls = 0

    @property
    def counts(self) -> Counts:
        """All that was counted so far."""
        return Counts(self._instructions, self._calls, self._c_calls)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Count on this thread: what is called inside of the `with`."""
        if self._idle:
            yield
            return
        before = sys.gettrace(), sys.getprofile()
        with _no_collection():
            sys.setprofile(self._on_call)
            sys.settrace(self._on_frame)
            try:
                yield
            finally:
                sys.settrace(before[0])
                sys.setprofile(before[1])

    @contextmanager
    def new_threads(self) -> Iterator[None]:
        """Count on the threads that are started inside of the `with`."""
        if self._idle:
            yield
            return
        before = threading.gettrace(), threading.getprofile()
        with _no_collection():
            threading.setprofile(self._on_call)
            threading.settrace(self._on_frame)
            try:
                yield
            finally:
                threading.settrace(before[0])
                threading.setprofile(before[1])

    def _on_frame(self, frame: FrameType, event: str, _value: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._on_instruction

    def _on_instruction(self, _frame: FrameType, event: str, _value: Any) -> Any:
        if event == "opcode":
            self._instructions += 1
        return self._on_instruction

    def _on_call(self, _frame: FrameType, event: str, _value: Any) -> None:
        if event == "call":
            self._calls += 1
        elif event == "c_call":
            self._c_calls += 1


@contextmanager
def _no_collection() -> Iterator[None]:
    # The collector may call back into Python, at a moment of its own.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
