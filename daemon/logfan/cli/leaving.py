"""The end of a command: over an exception that nothing handles, and although plugins hold the
process, for whose threads and executors the interpreter would wait without end."""

import errno
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

import click

from logfan.runtime.foreign_text import describe, traceback_of
from logfan.telemetry.log_output import one_line

log = logging.getLogger(__name__)

_SECONDS = 3.0
"""So long the interpreter may take to end."""


def report(error: Exception) -> int:
    """Show an exception that nothing handles. Returns the exit code."""
    with suppress(OSError):  # standard error may be what cannot be written
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            # The interpreter writes what is left in the buffer at its end; failing there is a 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            why = os.strerror(error.errno).lower()
            click.echo(f"error  the output cannot be written: {why}", err=True)
        else:
            fault = f"error  internal fault: {describe(error)}; please report it"
            for line in (*traceback_of(error).splitlines(), fault):
                click.echo(one_line(line), err=True)
    return os.EX_SOFTWARE


def leave(code: int) -> None:
    """From now on the interpreter has a few seconds to end; then the process does, with this code.
    To be called last: all is settled by now."""
    try:
        threading.Thread(target=_leave_behind, args=(code,), daemon=True).start()
    except RuntimeError:  # the system has no thread to give: none could end it later
        _end(code)


def _leave_behind(code: int) -> None:
    time.sleep(_SECONDS)
    ours = (threading.main_thread(), threading.current_thread())
    names = [repr(thread.name) for thread in threading.enumerate() if thread not in ours]
    log.warning(
        "a plugin holds the process %.0f s after the stop (%s); it is left behind",
        _SECONDS,
        f"threads: {', '.join(names)}" if names else "code that runs at the exit",
    )
    _end(code)


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
