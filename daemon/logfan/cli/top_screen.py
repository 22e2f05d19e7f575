"""The terminal of `logfan top`: alternate screen, keys without Enter, and the way back."""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live

from logfan.cli.status_view import SORTS
from logfan.cli.top_view import Screen, Seen, screen
from logfan.runtime import signals

_KEY_BYTES = 64
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)?")
"""An arrow, or what a terminal sends by itself."""
_REDRAW_SECONDS = 0.25
"""How soon a changed size of the terminal shows."""


def watch(
    daemons: Sequence[Callable[[], Seen]], interval: float, ends: Sequence[int]
) -> int | None:
    """Show them until `q`, which returns None, or one of the signals `ends`, which is returned.
    Ctrl-Z gives the terminal back until the program goes on."""
    view = _View(daemons, interval)
    with _woken_by([*ends, signal.SIGTSTP]) as (wake, came):
        while True:
            number = view.run(wake, came)
            if number != signal.SIGTSTP:
                return number
            came.clear()
            _suspend()


class _View:
    def __init__(self, daemons: Sequence[Callable[[], Seen]], interval: float) -> None:
        self._daemons = daemons
        self._interval = interval
        self._console = Console(highlight=False)
        self._on = Screen(80, 24, ascii_only=self._console.options.ascii_only)
        self._shown: list[Seen] = []

    def run(self, wake: int, came: list[int]) -> int | None:
        """Until a key or a signal ends it; the terminal is as it was before."""
        with _keys_at_once(), Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False,
            redirect_stderr=False,
        ) as live:  # fmt: skip
            while not came:
                self._draw(live)
                if self._wait(wake):
                    return None
        return came[0]

    def _draw(self, live: Live) -> None:
        if not self._on.paused or not self._shown:
            self._shown = [seen() for seen in self._daemons]
        # Asked each time, and not of $COLUMNS, which stays as the terminal once was.
        width, height = os.get_terminal_size(sys.stdout.fileno())
        self._console.size = ConsoleDimensions(width, height)
        self._on = replace(self._on, columns=width, rows=height)
        live.update(Group(*screen(self._shown, self._on)), refresh=True)

    def _wait(self, wake: int) -> bool:
        """For a key, a signal, or the next look. True where it is to quit."""
        ready, _, _ = select.select([sys.stdin, wake], [], [], min(self._interval, _REDRAW_SECONDS))
        if wake in ready:
            os.read(wake, _KEY_BYTES)
        if sys.stdin not in ready:
            return False
        pressed = os.read(sys.stdin.fileno(), _KEY_BYTES).decode("latin-1")
        if not pressed:
            return True  # the terminal is gone
        for key in _SEQUENCE.sub("", pressed).lower():
            if key == "q":
                return True
            if key == " ":
                self._on = replace(self._on, paused=not self._on.paused)
            elif key in SORTS:
                self._on = replace(self._on, sort=key)
        return False


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Keys come without Enter and are not shown."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        yield
    finally:
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(terminal, termios.TCSANOW, before)


@contextmanager
def _woken_by(numbers: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """These signals make a descriptor readable, and are kept in a list."""
    came: list[int] = []
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        with signals.handling({number: lambda got, _frame: came.append(got) for number in numbers}):
            yield reader, came
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _suspend() -> None:
    """As Ctrl-Z does by itself."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)
