"""`logfan check`: config and plugins, offline."""

from pathlib import Path

import click

from logfan.cli.common import config_option, instance_option, refuse, warn
from logfan.faults import Faults


@click.command()
@config_option
@instance_option
def check(config: Path | None, instance: str | None) -> None:
    """Validate config and plugins, offline.

    Prints every fault with the path of its key, and exits 78 where there is one.
    """
    from logfan.config.loader import prepare

    try:
        prepared = prepare(config, instance=instance)
    except Faults as faults:
        refuse(faults, config)
    warn(prepared.warnings)
    settings = prepared.settings
    sinks = ", ".join(f"{spec.name} ({spec.kind.kind})" for spec in prepared.sinks)
    click.echo(f"{prepared.path}: {click.style('ok', fg='green')}")
    click.echo(f"  exchange {settings.exchange.name} → queue {settings.queue.name}, ", nl=False)
    click.echo(f"prefetch {settings.rabbitmq.prefetch}")
    click.echo(f"  sinks: {sinks}")
