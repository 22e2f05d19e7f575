"""`logfan resume`: a sink's pause is over before its time."""

from pathlib import Path

import click

from logfan.cli.pause import daemon_of, sink_of_daemon
from logfan.telemetry.sink_health import duration


@click.command()
@sink_of_daemon
def resume(sink: str, config: Path | None, instance: str | None) -> None:
    """End the pause of SINK, as `logfan pause` began it.

    Runs as root or as the daemon's user. Exits 69 where no daemon answers.
    """
    answer = daemon_of(config, instance)({"do": "resume", "sink": sink})
    if answer["was_paused"]:
        after = f"after a pause of {duration(answer['lasts_seconds'])}"
        click.echo(f"sink {sink} goes on {after}; held: {answer['held']:,}")
    else:
        why = f"; it is down: {answer['why']}" if answer["why"] else ""
        click.echo(f"sink {sink} was not paused{why}")
