"""`logfan generate config` and `unit`: the files that are shipped, as they are."""

from importlib.metadata import files
from pathlib import Path

import click

from logfan.cli.common import fail

_CHECKOUT = Path(__file__).parents[4]
_MISSING = 1


@click.command(short_help="Print a config.toml with every key and its default.")
def config() -> None:
    """Print a config.toml with every key; what is commented out is the default.

    As a start: logfan generate config > config.toml
    """
    click.echo(_shipped("config.toml"), nl=False)


@click.command(short_help="Print the systemd unit.")
@click.option("--instances", is_flag=True, help="The template unit, for several daemons.")
def unit(instances: bool) -> None:
    """Print the systemd unit: for /etc/systemd/system/logfan.service.

    With --instances the template, for /etc/systemd/system/logfan@.service.
    """
    name = "logfan@.service" if instances else "logfan.service"
    click.echo(_shipped(f"systemd/{name}"), nl=False)


def _shipped(path: str) -> str:
    """The text of a file, of the checkout that this runs from, else of the installation."""
    here = _CHECKOUT / path
    if here.is_file() and (_CHECKOUT / "pyproject.toml").is_file():
        return here.read_text("utf-8")
    name = Path(path).name
    installed = [file for file in files("logfan") or () if file.name == name]
    if not installed:
        fail(f"this installation lacks the file {name}; install logfan anew", _MISSING)
    return Path(str(installed[0].locate())).read_text("utf-8")
