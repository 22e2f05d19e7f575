"""A thread that the daemon cannot do without, and one that serves: where it ends before it may,
that is a fault.

No part may be dead while the rest looks alive. The thread itself reports how it ended, with its
traceback in the log; `fault` looks besides whether it is still there.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from socketserver import BaseServer

from logfan.runtime.foreign_text import describe, traceback_of

log = logging.getLogger(__name__)

_STOP_SECONDS = 2.0
_WHAT_NEXT = (
    "the daemon ends with 70, or goes back to the old config where a reload is under way, and the "
    "broker has what is not acknowledged"
)


class OwnThread:
    """One thread. `start` it, allow its end with `may_end`, wait with `join`."""

    def __init__(self, name: str, work: Callable[[], None], on_fault: Callable[[], None]) -> None:
        """`on_fault` is called once, on the thread, where `work` raised, or returned before it
        might; also by `start`, where the system has no thread to give."""
        self.name = name
        self._title = f"thread {name}"
        """What it is called in a fault."""
        self._work = work
        self._on_fault = on_fault
        self._may_end = False
        self.was_started = False
        """Whether it ever ran. Python's own `ident` is set a moment before `is_alive` is true."""
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it. Never raises: what cannot start is a fault."""
        try:
            self.try_start()
        except BaseException as error:  # noqa: BLE001 - RuntimeError or MemoryError: there is no thread
            self._end(f"cannot be started: {describe(error)}", "")

    def try_start(self) -> threading.Thread:
        """Start it. Raises RuntimeError where the system has no thread to give."""
        self._thread.start()
        self.was_started = True
        return self._thread

    def may_end(self) -> None:
        """From now on it may return."""
        self._may_end = True

    def join(self, seconds: float) -> bool:
        """Wait for its end; True where it ended, or never began."""
        if not self.was_started:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def fault(self) -> str | None:
        """How it ended where it should not have; None while all is well. Any thread may ask."""
        gone = self.was_started and not self._thread.is_alive()
        if gone and self._fault is None and not self._may_end:
            self._fault = f"{self._title} is gone"
        return self._fault

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the thread is over
            self._end(f"ended: {describe(error)}", traceback_of(error))
        else:
            if not self._may_end:
                self._end("ended without being asked to", "")

    def _end(self, how: str, traceback: str) -> None:
        # The state first: who is asked whether all is well looks at it, whatever fails below.
        self._fault = f"{self._title} {how}"
        try:
            log.critical("%s", self._report(how), extra={"traceback": traceback})
        finally:
            self._on_fault()

    def _report(self, how: str) -> str:
        return f"internal fault: {self._title} {how}; {_WHAT_NEXT}; please report it"


class SinkThread(OwnThread):
    """One that a sink started: where it ends, that is for the sink's author to mend."""

    def __init__(
        self, name: str, work: Callable[[], None], on_fault: Callable[[], None], *,
        sink: str, code: str,
    ) -> None:  # fmt: skip
        """`on_fault` as `OwnThread` calls it. `code`: the sink's class, and where that is."""
        super().__init__(name, work, on_fault)
        self._title = f"thread {name} of sink {sink}"
        self._sink, self._code = sink, code
        self.may_end()

    def _report(self, how: str) -> str:
        return (
            f"sink {self._sink} ({self._code}): its thread {self.name} {how}; {_WHAT_NEXT}; the "
            "sink's author must handle the exception in the work that start_thread got"
        )


class ServerThread(OwnThread):
    """A server that is bound, and serves from `start` to `stop` on a thread of its own."""

    def __init__(
        self, name: str, server: BaseServer, on_fault: Callable[[], None], *, poll_seconds: float
    ) -> None:
        """`on_fault` as `OwnThread` calls it. `poll_seconds`: see `BaseServer.serve_forever`."""
        self._server = server
        super().__init__(name, partial(server.serve_forever, poll_interval=poll_seconds), on_fault)

    def stop(self) -> None:
        """Close the listener; what is under way ends by itself."""
        self.may_end()
        if self.is_alive:
            self._server.shutdown()
        self._server.server_close()
        self.join(_STOP_SECONDS)
