"""`logfan run`: the daemon in the foreground."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import click

from logfan.cli.common import config_option, fail, instance_option, sound

_STOPS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOPS, signal.SIGHUP)


@click.command()
@config_option
@instance_option
def run(config: Path | None, instance: str | None) -> None:
    """Run the daemon in the foreground.

    SIGTERM and SIGINT drain and stop it, SIGHUP reopens files and reloads the config.
    """
    with _before_the_daemon(), sound(config):
        with _no_garbage():
            from logfan.config.file_permissions import absolute
            from logfan.config.loader import prepare
            from logfan.daemon import Daemon
            from logfan.telemetry import log_output
            from logfan.telemetry.http_server import ListenError

            # Fixed here, so that a reload reads the same file, whatever appears elsewhere later.
            path = absolute(config) if config is not None else None
            again = partial(prepare, path, instance=instance)
            prepared = again()
        log_output.configure(prepared.settings.log.level, prepared.settings.log.format)
        daemon = Daemon(prepared, again, environ=os.environ)
    try:
        with sound(config):
            code = daemon.run()
    except ListenError as error:
        fail(str(error), os.EX_CONFIG)
    # While the interpreter ends it takes our handlers away, but not this.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(code)


@contextmanager
def _before_the_daemon() -> Iterator[None]:
    """Until the daemon has handlers of its own a HUP waits for them, and TERM and INT end the
    process. From the end of this block on they wait, too. After the daemon's end all of them do
    nothing, instead of ending the process before its exit code."""
    handlers = {number: signal.signal(number, _stop_at_once) for number in _STOPS}
    handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, _nothing)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        for number in _STOPS:
            signal.signal(number, _nothing)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        raise


def _stop_at_once(*_: object) -> NoReturn:
    """Nothing was taken from the broker. The first process of a container would not even end
    without a handler; and no exception, which a plugin's code might catch."""
    os._exit(os.EX_OK)


def _nothing(*_: object) -> None:
    """A handler, where the signal is blocked: another thread might still get it."""


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
