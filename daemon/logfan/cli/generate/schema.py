"""`logfan generate schema`: a JSON schema of config.toml, with all sinks of the installation."""

import json
from pathlib import Path

import click

from logfan.cli.common import config_option, refuse
from logfan.faults import Faults


@click.command(short_help="Print a JSON schema of config.toml, for editors.")
@config_option
def schema(config: Path | None) -> None:
    """Print a JSON schema of config.toml, with all sinks that are installed here.

    Editors complete keys by it and mark mistyped ones:

    \b
      logfan generate schema > config.schema.json
      and as the first line of config.toml: #:schema ./config.schema.json
    """
    from logfan.config.json_schema import json_schema
    from logfan.config.loader import read_plugin_settings
    from logfan.plugins.discovery import discover

    plugins, faults = read_plugin_settings(config)
    found = discover(plugins.directories, plugins.disabled)
    made = json_schema(
        {kind: one.cls.Config for kind, one in found.kinds.items()},
        {kind: one.cls.Config for kind, one in found.transforms.items()},
    )
    click.echo(json.dumps(made, indent=2, ensure_ascii=False))
    if faults := [*faults, *found.faults]:
        refuse(Faults(faults), None)
