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
    LineTooLong,
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
    work = _Work()
    try:
        with ends(work.so_far):
            work.run(settings, texts, routing_key, properties_of(headers, content_type))
    except LineTooLong as error:
        fail(f"{error}{work.so_far()}", os.EX_NOPERM)
    if unroutable := work.publisher.unroutable:
        name = settings.exchange.name
        fail(
            f"{unroutable:,} of {work.publisher.confirmed + unroutable:,} messages "
            f"reached no queue: none is bound to exchange {name!r}; they are gone",
            os.EX_UNAVAILABLE,
        )
    click.echo(f"{work.publisher.confirmed:,} confirmed", err=True)


class _Work:
    """What is published, and how far that came."""

    publisher: "Publisher"
    _refused = 0
    """The number of the message that the broker refused."""

    def run(
        self, settings: "Settings", texts: tuple[str, ...], routing_key: str,
        properties: dict[str, Any],
    ) -> None:  # fmt: skip
        """Raises BrokerError, Interrupted and LineTooLong."""
        from logfan.amqp.blocking import Interrupted
        from logfan.amqp.publisher import Publisher

        self.publisher = publisher = Publisher(settings, on_blocked=report_blocked)
        with publisher, interrupts_to(publisher.connection.interrupt):
            try:
                self._publish(texts, routing_key, properties)
            except (Interrupted, LineTooLong):
                publisher.drain(_LAST_CONFIRMS_SECONDS)
                raise

    def _publish(
        self, texts: tuple[str, ...], routing_key: str, properties: dict[str, Any]
    ) -> None:
        publisher = self.publisher
        bodies, size = _bodies(texts, publisher)
        run, largest = uuid.uuid4(), -1
        typed = not texts and sys.stdin is not None and sys.stdin.isatty()
        long = not typed and (size is None or size >= _LONG_BYTES)
        with progress("publishing", size, long=long, unit="bytes") as advance:
            for number, body in enumerate(bodies, 1):
                own = {**properties, "message_id": f"{run}-{number}"}
                if len(body) > largest:
                    self._publish_alone(number, body, routing_key, own)
                    largest = len(body)
                else:
                    publisher.send(body, routing_key=routing_key, properties=own)
                advance(len(body) + 1)
            publisher.drain()

    def _publish_alone(
        self, number: int, body: bytes, routing_key: str, properties: dict[str, Any]
    ) -> None:
        """One that is larger than all before it may be larger than the broker takes. There are few
        of them, and it is known of each what became of it."""
        from logfan.amqp.blocking import Refused

        self.publisher.drain()
        try:
            self.publisher.publish(body, routing_key=routing_key, properties=properties)
        except Refused:
            self._refused = number
            raise

    def so_far(self) -> str:
        """How far it came, for the end of a sentence."""
        if not hasattr(self, "publisher"):
            return ""
        publisher = self.publisher
        done = f"; {publisher.confirmed:,} messages were confirmed"
        if publisher.unroutable:
            done += f", {publisher.unroutable:,} reached no queue"
        if self._refused:
            done += f"; message {self._refused:,} has not arrived, nor has what follows it"
        elif publisher.unconfirmed:
            done += f", {publisher.unconfirmed:,} more may have arrived or not"
        return done


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
