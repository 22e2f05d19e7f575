"""Messages from the command line: their options, and each line of standard input as a body."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from logfan.cli.common import Command

_READ_BYTES = 64 * 1024
_LINE_BYTES_MAX = 512 << 20
"""RabbitMQ's own bound on `max_message_size`."""


def _short_string(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """An option of text that AMQP carries as a short string."""
    from logfan.config.amqp_limits import short_string
    from logfan.runtime.foreign_text import in_utf8

    try:
        return None if text is None else short_string(in_utf8(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _headers(
    _ctx: click.Context, _option: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, str]:
    """`NAME=VALUE`, once or many times."""
    from logfan.config.amqp_limits import table_problems
    from logfan.runtime.foreign_text import in_utf8

    headers = {}
    for pair in map(in_utf8, pairs):
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        headers[name] = value
    for name, _, problem in table_problems(headers):
        raise click.BadParameter(f"{name or 'headers'}: {problem}")
    return headers


def message_options(command: Command) -> Command:
    """`--routing-key`, `--header` and `--content-type`: the command gets `routing_key`, `headers`
    and `content_type`."""
    options = (
        click.option(
            "--routing-key", "-k", default="", callback=_short_string,
            help="The routing key; a fanout ignores it.",
        ),
        click.option(
            "--header", "-H", "headers", multiple=True, metavar="NAME=VALUE", callback=_headers,
            help="A header.",
        ),
        click.option(
            "--content-type", callback=_short_string,
            help="The content type, such as application/json.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def properties_of(headers: dict[str, str], content_type: str | None) -> dict[str, Any]:
    """What of the options are properties of a message: those that are set."""
    properties: dict[str, Any] = {"headers": headers} if headers else {}
    if content_type:
        properties["content_type"] = content_type
    return properties


def standard_input() -> int | None:
    """Its descriptor, None where there is none. At a terminal, how to end it is shown."""
    if sys.stdin is None:
        return None
    if sys.stdin.isatty():
        click.echo("reading lines; end with Ctrl-D", err=True)
    return sys.stdin.fileno()


class LineTooLong(Exception):
    """A line of the input is no message of any RabbitMQ."""

    def __init__(self) -> None:
        mebibytes = _LINE_BYTES_MAX >> 20
        super().__init__(
            f"a line of the input has more than {mebibytes} MiB, the most that RabbitMQ takes as a "
            "message, however it is set up; does the input hold newlines?"
        )


def batches_of_lines(
    fd: int, before_read: Callable[[], object] = lambda: None
) -> Iterator[list[bytes]]:
    """The lines that each read brings, as soon as they are there, without their line ends.
    `before_read` may wait until there is something to read. Raises LineTooLong."""
    rest = io.BytesIO()  # what it holds is had without a copy
    while True:
        before_read()
        chunk = os.read(fd, _READ_BYTES)
        if not chunk:
            break
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            rest.write(head)
            yield [line.removesuffix(b"\r") for line in _taken(rest).split(b"\n")]
        rest.write(tail)
        if rest.tell() > _LINE_BYTES_MAX:
            raise LineTooLong
    if rest.tell():
        yield [_taken(rest).removesuffix(b"\r")]


def _taken(buffer: io.BytesIO) -> bytes:
    """What it holds; it is empty then."""
    content = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return content
