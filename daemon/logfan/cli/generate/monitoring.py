"""`logfan generate alerts` and `dashboard`: what Prometheus and Grafana take as it is."""

from pathlib import Path

import click

_FILES = Path(__file__).parent / "files"


@click.command(short_help="Print alert rules for Prometheus.")
def alerts() -> None:
    """Print alert rules for Prometheus; each names the part of the operator's page to open.

    \b
      logfan generate alerts > /etc/prometheus/rules/logfan.yml

    The name of the scrape job is logfan.
    """
    click.echo((_FILES / "alerts.yml").read_text("utf-8"), nl=False)


@click.command(short_help="Print a dashboard for Grafana.")
def dashboard() -> None:
    """Print a dashboard for Grafana, as its import takes it.

    \b
      logfan generate dashboard > logfan.json
    """
    click.echo((_FILES / "dashboard.json").read_text("utf-8"), nl=False)
