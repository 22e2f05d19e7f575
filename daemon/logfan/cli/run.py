"""`logfan run`: the daemon in the foreground."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from logfan.cli.common import config_option, fail, instance_option, sound


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
    with sound(config):
        daemon = Daemon(prepared, again, environ=os.environ)
    try:
        with sound(config):
            code = daemon.run()
    except ListenError as error:
        fail(str(error), os.EX_CONFIG)
    # While the interpreter ends it takes our handlers away, but not this.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise SystemExit(code)


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
