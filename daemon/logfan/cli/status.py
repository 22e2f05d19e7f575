"""`logfan status`: what running daemons do, once."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logfan.cli.common import Command, FilePath, config_option, fail, refuse

if TYPE_CHECKING:
    from logfan.cli.status_client import Answer, Endpoint

EXIT_UNREADY = 1
_PIPE_COLUMNS = 100
_ASKED_AT_ONCE = 16


def daemons_arguments(command: Command) -> Command:
    """Which daemons: `[URL…]`, `--config` and `--ca-file`."""
    command = click.argument("urls", nargs=-1, metavar="[URL]...")(command)
    command = click.option(
        "--ca-file", type=FilePath(exists=True, dir_okay=False), metavar="FILE",
        help="The CA to trust for https URLs; else those of the system.",
    )(command)  # fmt: skip
    return config_option(command)


@click.command()
@daemons_arguments
@click.option("--json", "as_json", is_flag=True, help="One object, or a list for several URLs.")
def status(
    urls: Sequence[str], config: Path | None, ca_file: Path | None, *, as_json: bool
) -> None:
    """Print what running daemons do: what flows, what waits and for how long, each sink's state and
    since when.

    Each URL is where a daemon serves HTTP, as https://HOST:PORT; without one it is http.listen of
    the config. Exits 0 where all are ready, 1 where one is not, 69 where one does not answer.
    """
    answers = ask(endpoints(urls, config, ca_file))
    if as_json:
        _print_json(answers)
    else:
        _print(answers)
    away = [(endpoint, found) for endpoint, found in answers if isinstance(found, str)]
    if away:
        fail("; ".join(f"{endpoint.url}: {why}" for endpoint, why in away), os.EX_UNAVAILABLE)
    if not all(found.view.ready for _, found in answers if not isinstance(found, str)):
        raise SystemExit(EXIT_UNREADY)


def endpoints(
    urls: Sequence[str], config: Path | None, ca_file: Path | None
) -> Sequence["Endpoint"]:
    """Where to ask. Exits 2 for what is no URL, 78 where the config does not say where."""
    from logfan.cli.status_client import endpoint_of, endpoint_of_config
    from logfan.config.loader import read_http_settings
    from logfan.faults import Faults
    from logfan.runtime.tls import TlsFileError

    found = []
    for url in urls:
        try:
            found.append(endpoint_of(url, ca_file))
        except TlsFileError as error:
            raise click.BadParameter(error.problem, param_hint="--ca-file") from None
        except ValueError as error:
            raise click.BadParameter(f"{url!r}: {error}", param_hint="URL") from None
    if found:
        return found
    try:
        return [endpoint_of_config(read_http_settings(config))]
    except Faults as faults:
        refuse(faults, config)
    except TlsFileError as error:
        fail(f"http.tls.{error}", os.EX_CONFIG)
    except ValueError as error:
        fail(str(error), os.EX_CONFIG)


def ask(
    daemons: Sequence["Endpoint"],
) -> Sequence[tuple["Endpoint", "Answer | str"]]:
    """All at once. What each answers, or why there is no answer."""
    from logfan.cli.status_client import Unreachable

    def one(endpoint: "Endpoint") -> "Answer | str":
        try:
            return endpoint.fetch()
        except Unreachable as why:
            return str(why)

    with ThreadPoolExecutor(min(len(daemons), _ASKED_AT_ONCE)) as pool:
        return list(zip(daemons, pool.map(one, daemons), strict=True))


def _print_json(answers: Sequence[tuple["Endpoint", "Answer | str"]]) -> None:
    import orjson

    rows = [
        {"url": endpoint.url, "error": found}
        if isinstance(found, str)
        else {"url": endpoint.url, **found.raw}
        for endpoint, found in answers
    ]
    data = rows[0] if len(rows) == 1 else rows
    click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def _print(answers: Sequence[tuple["Endpoint", "Answer | str"]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from logfan.cli.status_view import whole

    replace_what_cannot_be_printed()
    console = Console(highlight=False, soft_wrap=True)
    columns = console.width if console.is_terminal else _PIPE_COLUMNS
    shown = [(endpoint, found) for endpoint, found in answers if not isinstance(found, str)]
    for number, (endpoint, found) in enumerate(shown):
        if number:
            console.print(Text())
        ascii_only = console.options.ascii_only
        for line in whole(endpoint.url, found.view, columns=columns, ascii_only=ascii_only):
            console.print(line)


def replace_what_cannot_be_printed() -> None:
    """A terminal's encoding may lack a letter of a name."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
