"""`logfan run`: the daemon in the foreground."""

import logging
import os
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
