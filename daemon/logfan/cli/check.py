"""`logfan check`: config and plugins, offline."""

from pathlib import Path

import click

from logfan.cli.common import config_option, fitted, instance_option, sound, warn


@click.command()
@config_option
@instance_option
@click.option("--connect", is_flag=True, help="Then ask the broker, too, as `logfan doctor` does.")
def check(config: Path | None, instance: str | None, connect: bool) -> None:
    """Validate config and plugins, offline.

    Prints every fault with the path of its key, and exits 78 where there is one. With --connect it
    goes on with the checks of `logfan doctor` that concern connection, login, exchange and queues,
    and exits 1 on a danger, 69 where no broker can be reached.
    """
    from logfan.config.loader import made_of, prepare

    with sound(config):
        prepared = prepare(config, instance=instance)
        made_of(prepared.sinks, prepared.settings.instance)
    warn(prepared.warnings)
    settings = prepared.settings
    sinks = ", ".join(f"{spec.name} ({spec.kind.kind})" for spec in prepared.sinks)
    click.echo(f"{prepared.path}: {click.style('ok', fg='green')}")
    click.echo(f"  exchange {settings.exchange.name} → queue {settings.queue.name}, ", nl=False)
    click.echo(f"prefetch {settings.rabbitmq.prefetch}")
    click.echo(fitted(f"  sinks: {sinks}", indent=4))
    if connect:
        from logfan.cli.doctor import examine
        from logfan.doctor.checks import SHORT
        from logfan.doctor.examination import Examination

        with Examination(prepared) as exam:
            examine(exam, SHORT, as_json=False)
