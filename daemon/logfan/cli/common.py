"""What several commands share: options, faults for people, and exit codes."""

import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click

from logfan.faults import Fault, Faults
from logfan.runtime import signals
from logfan.telemetry.log_output import one_line

_LEAST_COLUMNS = 40
_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d*)?")
EXIT_SIGNAL = 128
"""And the signal's number: 130 after Ctrl-C."""
CONFIG_PLACES = (Path("config.toml"), Path("/etc/logfan/config.toml"))
"""Where a config is found without being named."""

Command = TypeVar("Command", bound=Callable[..., Any])


class FilePath(click.Path):
    """A path on the command line. An empty one would be the working directory, and comes of a
    variable that is not set."""

    def __init__(self, **how: Any) -> None:
        super().__init__(path_type=Path, **how)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("the path is empty; name a file, or leave this out", param, ctx)
        return super().convert(value, param, ctx)


def config_option(command: Command) -> Command:
    """`--config FILE`: the command gets the file that was found, or None."""
    return _config_option(lambda _context, _option, path: path or _find_config())(command)


def config_option_of_group(group: Command) -> Command:
    """`--config FILE` before the command of a group; each that has the option gets it."""

    def hand_down(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
        if path is not None and isinstance(context.command, click.Group):
            context.default_map = {name: {"config": path} for name in context.command.commands}

    return _config_option(hand_down, expose_value=False)(group)


def _config_option(callback: Callable[..., Any], **more: Any) -> Callable[[Command], Command]:
    return click.option(
        # A file that cannot be read is a fault of the config (78), not of usage (2).
        "--config", "-c", "config", type=FilePath(readable=False), metavar="FILE",
        callback=callback, help="The config file; else the first of $LOGFAN_CONFIG, ./config.toml, "
        "/etc/logfan/config.toml.", **more,
    )  # fmt: skip


def _find_config() -> Path | None:
    """`$LOGFAN_CONFIG`, else ./config.toml, else the system's, else None.

    A file that is there and cannot be read is found: going on to the next would hide that.
    """
    if named := os.environ.get("LOGFAN_CONFIG"):
        return Path(named)
    return next((path for path in CONFIG_PLACES if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def duration(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """The callback of an option such as `90s`: in seconds."""
    from logfan.config.units import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Seconds(click.FloatRange):
    """A duration such as `10s`; a plain number is in seconds. Bounds and default are in seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from logfan.config.units import parse_duration

        if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value):
            try:
                value = parse_duration(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def instance_option(command: Command) -> Command:
    return click.option(
        "--instance", metavar="NAME", help="Which of several daemons this is; for file names."
    )(command)


def command_line() -> str:
    """How this program was called, to be typed again in the same folder."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m logfan"
    in_path = shutil.which(Path(called).name)
    if in_path is not None and Path(in_path).absolute() == Path(called).absolute():
        return Path(called).name
    return shlex.quote(called)


def interrupts_to(interrupt: Callable[[int], None]) -> AbstractContextManager[None]:
    """INT and TERM call `interrupt` with their number, so that work ends where it is known what was
    done; a second one raises KeyboardInterrupt at once."""

    def give_up() -> None:
        raise KeyboardInterrupt

    handler = signals.first_and_second(interrupt, give_up)
    return signals.handling({signal.SIGINT: handler, signal.SIGTERM: handler})


def fitted(text: str, *, first: int = 0, indent: int = 0, err: bool = False) -> str:
    """For a terminal: in lines of its width, those after the first indented. `first`: so many cells
    stand before the text. A pipe gets it on one line."""
    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    columns = max(_LEAST_COLUMNS, shutil.get_terminal_size().columns)
    lines = textwrap.wrap(
        text, columns, initial_indent=" " * first, subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines)[first:]


def _echo(word: str, colour: str, text: str) -> None:
    """On standard error, behind a word in colour, without what a terminal would obey."""
    start = len(word) + 2
    text = fitted(one_line(text), first=start, indent=start, err=True)
    with suppress(OSError):  # the disk below standard error is full: the exit code says it, too
        click.echo(f"{click.style(word, fg=colour)}  {text}", err=True)


def report(faults: Iterable[Fault], path: Path | None) -> None:
    """Every fault on a line of its own, on standard error."""
    faults = [*faults]
    for fault in faults:
        _echo("fault", "red", str(fault))
    where = f" in {path}" if path is not None else ""
    with suppress(OSError):
        click.echo(f"{len(faults)} fault{'s' if len(faults) != 1 else ''}{where}", err=True)


def refuse(faults: Faults, path: Path | None) -> NoReturn:
    """Report the faults and exit 78."""
    report(faults.faults, path)
    raise SystemExit(os.EX_CONFIG)


@contextmanager
def sound(path: Path | None) -> Iterator[None]:
    """Within, the config is read: its faults are reported, and end the command with 78."""
    try:
        yield
    except Faults as faults:
        refuse(faults, path)


def takes_settings(command: Command) -> Command:
    """`--config` and `--instance`, for a command that runs no sink: it gets the settings. Exits 78
    where the config has faults."""

    @wraps(command)
    def called(config: Path | None, instance: str | None, **options: Any) -> None:
        from logfan.config.loader import read_settings

        with sound(config):
            settings = read_settings(config, instance=instance)
        command(settings, **options)

    return cast("Command", config_option(instance_option(called)))


@contextmanager
def ends(so_far: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Exit with a line and the right code where the broker or a signal ends the work within.

    `so_far` gives what was done, for the end of that line.
    """
    from logfan.amqp.blocking import BrokerError, Interrupted
    from logfan.amqp.failures import Cause

    try:
        yield
    except BrokerError as error:
        refused = error.failure.cause is Cause.REFUSED
        fail(f"{error}{so_far()}", os.EX_NOPERM if refused else os.EX_UNAVAILABLE)
    except Interrupted as signalled:
        interrupted(so_far(), signalled.number)
    except KeyboardInterrupt:
        interrupted(so_far())


def interrupted(so_far: str = "", number: int = signal.SIGINT) -> NoReturn:
    """End as one that this signal interrupts."""
    fail(f"interrupted{so_far}", EXIT_SIGNAL + number)


def fail(message: str, code: int) -> NoReturn:
    """Print it to standard error and exit."""
    _echo("error", "red", message)
    raise SystemExit(code)


def warn(messages: Iterable[str]) -> None:
    for message in messages:
        _echo("warning", "yellow", message)


def report_blocked(why: str) -> None:
    """For `BlockingConnection`: report that the broker takes no messages now, and when it does."""
    if why:
        warn([blocked_message(why)])
    else:
        click.echo("the broker takes messages again; going on", err=True)


def blocked_message(why: str) -> str:
    """What it means that the broker blocks publishers, and what to do."""
    ways = []
    if "memory" in why:
        ways.append("let its queues drain, give it more memory or raise vm_memory_high_watermark")
    if "disk" in why:
        ways.append("free disk space on it or lower disk_free_limit")
    return (
        f"the broker blocks all publishers, as it is {why}; waiting until it takes messages again. "
        f"To end that, {', and '.join(ways) or 'ask the broker for its alarms'} "
        "(`rabbitmq-diagnostics alarms`); Ctrl-C gives up"
    )
