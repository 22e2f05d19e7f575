"""`logfan run`: the daemon in the foreground."""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from logfan.cli.common import EXIT_CONFIG, config_option, fail, instance_option, refuse
from logfan.faults import Faults

log = logging.getLogger(__name__)


@click.command()
@config_option
@instance_option
def run(config: Path | None, instance: str | None) -> None:
    """Run the daemon in the foreground.

    SIGTERM and SIGINT drain and stop it, SIGHUP reopens files and reloads the config.
    """
    with _no_garbage():
        from logfan import logs
        from logfan.app import Daemon
        from logfan.http import ListenError
        from logfan.setup import find_config, prepare

        try:
            prepared = prepare(config, instance=instance)
        except Faults as faults:
            refuse(faults, find_config(config, os.environ))
    logs.configure(prepared.settings.log.level, prepared.settings.log.format)
    for warning in prepared.warnings:
        log.warning("%s", warning)
    daemon = Daemon(prepared, lambda: prepare(config, instance=instance), environ=os.environ)
    try:
        code = daemon.run()
    except ListenError as error:
        fail(str(error), EXIT_CONFIG)
    raise SystemExit(code)


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
