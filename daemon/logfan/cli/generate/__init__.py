"""`logfan generate`: ready files, printed, or written into a folder. A kind of them is a command in
a file of this package, named below."""

import click

from logfan.cli.common import config_option_of_group
from logfan.cli.generate.monitoring import alerts, dashboard
from logfan.cli.generate.plugin import plugin
from logfan.cli.generate.schema import schema
from logfan.cli.generate.shipped import config, unit
from logfan.cli.groups import Group


@click.group(cls=Group)
@config_option_of_group
def generate() -> None:
    """Print a ready file, or write the folder of a plugin.

    Of these `schema` alone reads the config.
    """


for _command in (plugin, config, unit, schema, alerts, dashboard):
    generate.add_command(_command)
