"""`logfan pause`: a sink of the running daemon is left alone for a moment."""

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from logfan.cli.common import Command, command_line, config_option, duration, fail, instance_option
from logfan.config.units import format_duration

_LOOK_SECONDS = 0.2
_QUIET_SECONDS = 10.0
"""So long it is waited for the end of the call that is under way."""


def _limit(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    seconds = duration(context, option, value)
    if seconds == 0:
        raise click.BadParameter(f"{value} is no time at all; `logfan resume` ends a pause")
    return seconds


def sink_of_daemon(command: Command) -> Command:
    """Which sink of which daemon: `SINK`, `--config` and `--instance`."""
    return click.argument("sink")(config_option(instance_option(command)))


@click.command()
@sink_of_daemon
@click.option(
    "--for", "seconds", callback=_limit, metavar="DURATION",
    help='How long at most, such as "90s"; 10m by default. A second pause sets a new limit.',
)  # fmt: skip
def pause(sink: str, config: Path | None, instance: str | None, seconds: float | None) -> None:
    """Leave SINK of the running daemon alone for a moment, such as for work on its other side.

    Its messages wait, unacknowledged; the other sinks go on until the prefetch is in flight. Then
    nothing more is taken from the queue. The pause ends by itself, with `logfan resume`, and with
    the daemon. Runs as root or as the daemon's user. Exits 69 where no daemon answers.
    """
    ask = daemon_of(config, instance)
    answer = ask({"do": "pause", "sink": sink, "seconds": seconds})
    if (longest := answer.get("longest")) is not None:
        raise click.BadParameter(
            f"not more than {format_duration(longest)}, a third of the broker's acknowledgement "
            "timeout; pause the sink again to extend it", param_hint="--for",
        )  # fmt: skip
    _wait_until_quiet(lambda: ask({"do": "look", "sink": sink}), sink)
    again = ", which was paused before," if answer["was_paused"] else ""
    click.echo(f"sink {sink}{again} is {answer['why']}; `logfan resume {sink}` ends that")
    if not answer["required"]:
        click.echo("it is not required: what does not fit into its queue is dropped, and counted")


def _wait_until_quiet(look: Callable[[], dict[str, Any]], sink: str) -> None:
    """A call may be under way: no other follows."""
    deadline = time.monotonic() + _QUIET_SECONDS
    while look()["busy_seconds"]:
        if time.monotonic() > deadline:
            click.echo(
                f"sink {sink} has not returned from the call that was under way; after it nothing "
                "more is offered", err=True,
            )  # fmt: skip
            return
        time.sleep(_LOOK_SECONDS)


def daemon_of(
    config: Path | None, instance: str | None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Asks the running daemon of this config. Exits 69 where there is none, 77 where this user may
    not, 2 where it is not clear which, and where it has no such sink."""
    from logfan import control
    from logfan.config.file_permissions import absolute

    path = absolute(config) if config is not None else None
    # The daemon may have been started with what a link leads to.
    target = path.resolve() if path is not None else None

    def found() -> Path:
        paths = control.sockets(path, instance, os.environ)
        paths = paths or control.sockets(target, instance, os.environ)
        if len(paths) > 1:
            paths = [one for one in paths if control.is_alive(one)]
        if not paths:
            of = f" as instance {instance!r}" if instance is not None else ""
            raise control.NoDaemon(
                f"no daemon runs with the config {path or '(none)'}{of}, or it runs as a user "
                "whose $XDG_RUNTIME_DIR is not set here"
            )
        if len(paths) > 1:
            names = ", ".join(sorted({control.instance_of(one) for one in paths}))
            raise click.UsageError(f"several daemons have this config; --instance, one of: {names}")
        return paths[0]

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = control.ask(found(), request)
        except control.NoDaemon as why:
            fail(str(why), os.EX_UNAVAILABLE)
        except control.NotPermitted as place:
            fail(
                f"{place}: only root and the daemon's own user may; try sudo "
                f"{command_line()} {shlex.join(sys.argv[1:])}",
                os.EX_NOPERM,
            )
        if "unknown" in answer:
            names = ", ".join(answer["unknown"])
            raise click.BadParameter(
                f"no sink {request['sink']!r}; there are: {names}", param_hint="SINK"
            )
        if "error" in answer:
            fail(answer["error"], os.EX_UNAVAILABLE)
        return answer

    return ask
