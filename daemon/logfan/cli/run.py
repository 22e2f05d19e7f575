"""`logfan run`: the daemon in the foreground."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import click

from logfan.cli.common import config_option, fail, instance_option, sound

log = logging.getLogger(__name__)

_LEAVE_SECONDS = 3.0
"""So long the interpreter may take to end, once the daemon has stopped."""


@click.command()
@config_option
@instance_option
def run(config: Path | None, instance: str | None) -> None:
    """Run the daemon in the foreground.

    SIGTERM and SIGINT drain and stop it, SIGHUP reopens files and reloads the config.
    """
    with _hangups_wait(), _no_garbage():
        from logfan.config.file_permissions import absolute
        from logfan.config.loader import prepare
        from logfan.daemon import Daemon
        from logfan.telemetry import log_output
        from logfan.telemetry.http_server import ListenError

        # Fixed here, so that a reload reads the same file, whatever appears elsewhere meanwhile.
        path = absolute(config) if config is not None else None
        again = partial(prepare, path, instance=instance)
        with sound(config):
            prepared = again()
    log_output.configure(prepared.settings.log.level, prepared.settings.log.format)
    daemon = Daemon(prepared, again, environ=os.environ)
    try:
        code = daemon.run()
    except ListenError as error:
        fail(str(error), os.EX_CONFIG)
    # While the interpreter ends it takes our handlers away, but not this.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_leave_behind, args=(code,), daemon=True).start()
    raise SystemExit(code)


def _leave_behind(code: int) -> None:
    """End the process where a plugin's threads or executors do not: the interpreter would wait for
    them without end. All is settled by now, and the exit code is kept."""
    time.sleep(_LEAVE_SECONDS)
    ours = (threading.main_thread(), threading.current_thread())
    names = [repr(thread.name) for thread in threading.enumerate() if thread not in ours]
    log.warning(
        "a plugin holds the process %.0f s after the stop (%s); it is left behind",
        _LEAVE_SECONDS,
        f"threads: {', '.join(names)}" if names else "code that runs at the exit",
    )
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


@contextmanager
def _hangups_wait() -> Iterator[None]:
    """A HUP that comes while the config is read waits for the daemon's handler. After the daemon's
    end it does nothing, instead of ending the process before its exit code."""
    handler = signal.signal(signal.SIGHUP, lambda *_: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGHUP, handler)
        raise


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is loaded here stays for good: no collection looks through it, neither again and again
    while it grows, which is a twentieth of the start, nor ever after."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
