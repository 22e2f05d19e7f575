"""The command `logfan`: each subcommand lives in a file of its own, loaded when it is called."""

import os
import sys
from importlib import import_module
from keyword import iskeyword
from typing import Any

from logfan.cli.descriptors import take_standard_ones

take_standard_ones()

import click  # noqa: E402 - after the descriptors

from logfan.cli.groups import Group  # noqa: E402

# The function NAME of the module `logfan.cli.NAME`. Loading it costs its imports, so `--help`
# reads the summaries from here. A name that Python reserves ends with _ there.
_COMMANDS = {
    "run": "Run the daemon in the foreground.",
    "check": "Validate config and plugins, offline.",
    "doctor": "Ask the broker what would fail or lose messages, and explain it.",
    "test": "Check what each sink gets, by cases of your own, offline.",
    "try": "Write lines of standard input to the sinks, without a broker.",
    "demo": "Show it at work, on a private RabbitMQ.",
    "emit": "Publish messages, with publisher confirms.",
    "tap": "Show live messages, and take none of them away.",
    "status": "Print what running daemons do, what waits, and since when.",
    "top": "Watch running daemons live.",
    "pause": "Leave a sink of the running daemon alone for a moment.",
    "resume": "End a sink's pause.",
    "dlq": "Dead letters: list, show, replay to their sink, purge.",
    "sinks": "List the sink kinds, or one kind's options.",
    "generate": "Print a ready config or unit, or write the folder of a plugin.",
}


def _let_go_of_standard_error() -> None:
    """What a full disk did not take of it stays in its buffer, and the interpreter, which cannot
    write it at its end either, would end with 120."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class _LazyGroup(Group):
    """Knows its commands by name and summary, and loads the one that is called."""

    def main(self, *given: Any, **named: Any) -> Any:
        """As click's. Where the process is ours (who gives arguments calls from one of his own),
        an exception that nothing handles ends it with 70, and it ends although plugins hold it."""
        if given or named:
            return super().main(*given, **named)
        code: object = 0
        try:
            super().main()
        except SystemExit as end:
            code = end.code
        except Exception as error:  # noqa: BLE001 - whatever it is, 1 would stand for a verdict
            from logfan.cli.leaving import report

            code = report(error)
        _let_go_of_standard_error()
        if "logfan.plugins.discovery" in sys.modules:
            from logfan.cli.leaving import leave

            leave(code if isinstance(code, int) else 0)
        raise SystemExit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. Ctrl-C ends it as any signal does, also before it is loaded."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from logfan.cli.common import interrupted

            interrupted()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            own = f"{name}_" if iskeyword(str(name)) else str(name)
            command = getattr(import_module(f"logfan.cli.{own}"), own)
        return name, command, rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


# click leaves $NO_COLOR to each program.
_COLOR = False if os.environ.get("NO_COLOR") else None


@click.group(
    cls=_LazyGroup,
    commands={name: click.Command(name, short_help=summary) for name, summary in _COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "color": _COLOR},
)
# By the name of the package: the version is looked up when it is asked for, which takes long.
@click.version_option(package_name="logfan", prog_name="logfan")
def main() -> None:
    """RabbitMQ log fan-out: every message to every sink, acknowledged only then.

    Every command takes --config FILE; without it the first of $LOGFAN_CONFIG, ./config.toml and
    /etc/logfan/config.toml is read. Exit codes: 0 done, 1 a case failed, a record was not taken,
    a danger was found or a daemon is not ready (test, try, doctor, check --connect, status), 2
    usage, 69 broker unavailable or no daemon answers, 70 internal fault, 75 stopped with messages
    handed back, 77 refused by the broker or not permitted, 78 config or plugin fault.
    """
