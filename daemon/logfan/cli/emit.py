"""`logfan emit`: publish messages and report what became of them."""

import os
import sys
import uuid
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import (
    ends,
    fail,
    interrupts_to,
    report_blocked,
    takes_settings,
)
from logfan.cli.messages import (
    batches_of_lines,
    message_options,
    properties_of,
    standard_input,
)
from logfan.cli.progress import progress

if TYPE_CHECKING:
    from logfan.amqp.publisher import Publisher
    from logfan.config.settings import Settings

_LONG_BYTES = 64 * 1024
_LAST_CONFIRMS_SECONDS = 3.0


@click.command()
@takes_settings
@message_options
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

    properties = properties_of(headers, content_type)
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
    fd = standard_input()
    if fd is None:
        return (), None
    batches = batches_of_lines(fd, partial(publisher.connection.wait_readable, fd))
    return chain.from_iterable(batches), os.fstat(fd).st_size or None
