"""`logfan emit`: publish messages and report what became of them."""

import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import (
    ends,
    fail,
    interrupts_to,
    report_blocked,
    takes_settings,
)
from logfan.cli.progress import progress

if TYPE_CHECKING:
    from logfan.amqp.publisher import Publisher
    from logfan.config.settings import Settings

_LONG_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_LAST_CONFIRMS_SECONDS = 3.0


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


@click.command()
@takes_settings
@click.option(
    "--routing-key", "-k", default="", callback=_short_string,
    help="The routing key; a fanout ignores it.",
)  # fmt: skip
@click.option(
    "--header", "-H", "headers", multiple=True, metavar="NAME=VALUE", callback=_headers,
    help="A header.",
)  # fmt: skip
@click.option(
    "--content-type", callback=_short_string, help="The content type, such as application/json."
)
@click.argument("texts", nargs=-1, metavar="[TEXT…]")
def emit(
    settings: "Settings",
    routing_key: str,
    headers: dict[str, str],
    content_type: str | None,
    texts: tuple[str, ...],
) -> None:
    """Publish each TEXT, or each line of standard input, to the exchange.

    Each message is persistent, has a message id of its own (RUN-NUMBER), is confirmed by the
    broker, and reported where it reached no queue (exit 69).
    """
    from logfan.amqp.publisher import Publisher

    properties: dict[str, Any] = {"headers": headers} if headers else {}
    if content_type:
        properties["content_type"] = content_type
    publisher: Publisher | None = None
    with ends(lambda: _done(publisher)):
        publisher = Publisher(settings, on_blocked=report_blocked)
        with publisher, interrupts_to(publisher.connection.interrupt):
            _publish(publisher, texts, routing_key, properties)
    if publisher.unroutable:
        name = settings.exchange.name
        fail(
            f"{publisher.unroutable:,} of {publisher.confirmed + publisher.unroutable:,} messages "
            f"reached no queue: none is bound to exchange {name!r}; they are gone",
            os.EX_UNAVAILABLE,
        )
    click.echo(f"{publisher.confirmed:,} confirmed", err=True)


def _done(publisher: "Publisher | None") -> str:
    """How far it came, for the end of a sentence."""
    if publisher is None:
        return ""
    done = f"; {publisher.confirmed:,} messages were confirmed"
    if publisher.unroutable:
        done += f", {publisher.unroutable:,} reached no queue"
    if publisher.unconfirmed:
        done += f", {publisher.unconfirmed:,} more may have arrived or not"
    return done


def _publish(
    publisher: "Publisher",
    texts: tuple[str, ...],
    routing_key: str,
    properties: dict[str, Any],
) -> None:
    from logfan.amqp.blocking import Interrupted

    bodies, size = _bodies(texts, publisher)
    run = uuid.uuid4()
    typed = not texts and sys.stdin is not None and sys.stdin.isatty()
    long = not typed and (size is None or size >= _LONG_BYTES)
    try:
        with progress("publishing", size, long=long, unit="bytes") as advance:
            for number, body in enumerate(bodies, 1):
                own = {**properties, "message_id": f"{run}-{number}"}
                publisher.send(body, routing_key=routing_key, properties=own)
                advance(len(body) + 1)
            publisher.drain()
    except Interrupted:
        publisher.drain(_LAST_CONFIRMS_SECONDS)
        raise


def _bodies(texts: tuple[str, ...], publisher: "Publisher") -> tuple[Iterable[bytes], int | None]:
    """The messages, and the size of the input in bytes where it is known."""
    if texts:
        bodies = [os.fsencode(text) for text in texts]
        return bodies, sum(len(body) + 1 for body in bodies)
    if sys.stdin is None:
        return (), None
    if sys.stdin.isatty():
        click.echo("reading lines; end with Ctrl-D", err=True)
    fd = sys.stdin.fileno()
    return _lines(fd, publisher), os.fstat(fd).st_size or None


def _lines(fd: int, publisher: "Publisher") -> Iterator[bytes]:
    """Each line, as soon as it is there; meanwhile confirms are taken and heartbeats sent."""
    rest = bytearray()
    while True:
        publisher.connection.wait_readable(fd)
        chunk = os.read(fd, _READ_BYTES)
        if not chunk:
            break
        rest += chunk
        if b"\n" in chunk:
            *lines, last = rest.split(b"\n")
            rest = last
            for line in lines:
                yield bytes(line.removesuffix(b"\r"))
    if rest:
        yield bytes(rest.removesuffix(b"\r"))
