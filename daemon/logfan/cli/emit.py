"""`logfan emit`: publish messages and say what became of them."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from logfan.cli.common import (
    EXIT_REFUSED,
    EXIT_UNAVAILABLE,
    config_option,
    fail,
    instance_option,
    refuse,
)
from logfan.faults import Faults

if TYPE_CHECKING:
    from logfan.publish import Publisher

_LONG_BYTES = 64 * 1024


@click.command()
@config_option
@instance_option
@click.option("--routing-key", "-k", default="", help="The routing key; a fanout ignores it.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME=VALUE", help="A header.")
@click.option("--content-type", help="The content type, such as application/json.")
@click.argument("texts", nargs=-1, metavar="[TEXT…]")
def emit(
    config: Path | None,
    instance: str | None,
    routing_key: str,
    headers: tuple[str, ...],
    content_type: str | None,
    texts: tuple[str, ...],
) -> None:
    """Publish each TEXT, or each line of standard input, to the exchange.

    Each message is persistent, confirmed by the broker, and told of where it reached no queue
    (exit 69).
    """
    from logfan.broker import Kind
    from logfan.publish import Publisher, PublishError
    from logfan.setup import find_config, prepare

    properties: dict[str, Any] = {"headers": _headers(headers)} if headers else {}
    if content_type:
        properties["content_type"] = content_type
    try:
        settings = prepare(config, instance=instance).settings
    except Faults as faults:
        refuse(faults, find_config(config, os.environ))
    sent = _Sent()
    try:
        with Publisher(settings) as publisher:
            _publish(publisher, texts, routing_key, properties, sent)
    except PublishError as error:
        refused = error.trouble.kind is Kind.REFUSED
        done = f"; {sent.confirmed:,} messages were confirmed before that" if sent.confirmed else ""
        fail(f"{error}{done}", EXIT_REFUSED if refused else EXIT_UNAVAILABLE)
    except KeyboardInterrupt:
        fail(f"interrupted; {sent.confirmed:,} messages were confirmed", 130)
    if sent.lost:
        name = settings.exchange.name
        fail(
            f"{sent.lost:,} of {sent.confirmed + sent.lost:,} messages reached no queue: none is "
            f"bound to exchange {name!r}; they are gone",
            EXIT_UNAVAILABLE,
        )
    click.echo(f"{sent.confirmed:,} confirmed", err=True)


class _Sent:
    """What became of the messages."""

    confirmed = 0
    lost = 0


def _publish(
    publisher: "Publisher",
    texts: tuple[str, ...],
    routing_key: str,
    properties: dict[str, Any],
    sent: _Sent,
) -> None:
    bodies, size = _bodies(texts)
    with _progress(size) as progress:
        for body in bodies:
            if publisher.publish(body, routing_key=routing_key, properties=properties):
                sent.confirmed += 1
            else:
                sent.lost += 1
            if progress is not None:
                progress.update(len(body) + 1)


def _bodies(texts: tuple[str, ...]) -> tuple[Iterable[bytes], int | None]:
    """The messages, and the size of the input in bytes where it is known."""
    if texts:
        bodies = [os.fsencode(text) for text in texts]
        return bodies, sum(len(body) + 1 for body in bodies)
    if sys.stdin.isatty():
        click.echo("reading lines; end with Ctrl-D", err=True)
    try:
        status = os.fstat(sys.stdin.fileno())
        size = status.st_size or None
    except (OSError, ValueError):
        size = None
    return _lines(), size


def _lines() -> Iterator[bytes]:
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def _progress(size: int | None) -> Any:
    """A bar on a terminal where the input is long; else nothing."""
    long = size is None or size >= _LONG_BYTES
    if not (sys.stderr.isatty() and long and not sys.stdin.isatty()):
        return nullcontext()
    return _Bar(size)


class _Bar:
    def __init__(self, size: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("publishing"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("publishing", total=size)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)


def _headers(pairs: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--header")
        headers[name] = value
    return headers
