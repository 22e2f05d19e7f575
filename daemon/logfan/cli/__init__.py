"""The command `logfan`: each subcommand lives in a file of its own, loaded when it is called."""

import os
from importlib import import_module

from logfan.cli.descriptors import take_standard_ones

take_standard_ones()

import click  # noqa: E402 - after the descriptors

from logfan.cli.common import HintingGroup  # noqa: E402 - as above

# Loading a command costs its imports, so `--help` reads the summaries from here.
_COMMANDS = {
    "run": ("logfan.cli.run:run", "Run the daemon in the foreground."),
    "check": ("logfan.cli.check:check", "Validate config and plugins, offline."),
    "demo": ("logfan.cli.demo:demo", "Show it at work, on a private RabbitMQ."),
    "emit": ("logfan.cli.emit:emit", "Publish messages, with publisher confirms."),
    "dlq": ("logfan.cli.dlq:dlq", "Dead letters: list, show, replay to their sink, purge."),
    "sinks": ("logfan.cli.sinks:sinks", "List the sink kinds, or one kind's options."),
}


class _LazyGroup(HintingGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


# click leaves $NO_COLOR to each program.
_COLOR = False if os.environ.get("NO_COLOR") else None


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "color": _COLOR}
)
# By the name of the package: the version is looked up when it is asked for, which takes long.
@click.version_option(package_name="logfan", prog_name="logfan")
def main() -> None:
    """RabbitMQ log fan-out: every message to every sink, acknowledged only then.

    Every command takes --config FILE; without it the first of $LOGFAN_CONFIG, ./config.toml and
    /etc/logfan/config.toml is read. Exit codes: 0 done, 2 usage, 69 broker unavailable, 70
    internal fault, 75 stopped with messages handed back, 77 refused by the broker, 78 config or
    plugin fault.
    """
