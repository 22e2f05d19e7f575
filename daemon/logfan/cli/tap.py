"""`logfan tap`: live messages, through a queue of its own that takes nothing from anyone."""

import select
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import config_option, ends, fail, instance_option, interrupts_to, sound
from logfan.faults import did_you_mean
from logfan.telemetry.log_output import one_line

if TYPE_CHECKING:
    from logfan.amqp.blocking import BlockingChannel, BlockingConnection
    from logfan.amqp.delivery_parser import Run
    from logfan.cli.tap_view import TapView
    from logfan.config.settings import Settings
    from logfan.stage.stage import Stage
    from logfan.stage.where import Where

_QUEUE_MESSAGES = 10_000
_QUEUE_BYTES = 32 << 20
_NEARLY_FULL = 0.8
_LOOK_SECONDS = 0.2
_REPORT_SECONDS = 5.0
_LAST_LINES_SECONDS = 1.0
_READ_BYTES = 128 * 1024
_NOT_WRITTEN = 1


def _where(_ctx: click.Context, _option: click.Parameter, text: str | None) -> "Where | None":
    """A value of TOML, as behind `where =` in the config."""
    from logfan.stage.where import Where

    if text is None:
        return None
    try:
        table = tomllib.loads(f"where = {text}")
    except (ValueError, RecursionError) as error:
        example = '{ level = ["error", "critical"] }'
        raise click.BadParameter(f"no TOML: {error}; write it as {example}") from None
    if [*table] != ["where"]:
        raise click.BadParameter("it is one value of TOML: a table, or a list of tables")
    try:
        return Where.of(table["where"])
    except ValueError as error:
        raise click.BadParameter(one_line(str(error))) from None


@click.command()
@config_option
@instance_option
@click.option(
    "--where", "-w", metavar="TOML", callback=_where,
    help="Only these, by the matchers of the sinks: '{ level = [\"error\"] }'.",
)  # fmt: skip
@click.option("--sink", "-s", metavar="NAME", help="What this sink gets, as it gets it.")
@click.option(
    "--limit", "-n", default=0, metavar="N", type=click.IntRange(min=0), help="End after so many."
)
@click.option(
    "--rate", "-r", default=0, metavar="N", type=click.IntRange(min=0),
    help="Show no more than so many a second; the others are skipped and counted.",
)  # fmt: skip
@click.option(
    "--format", "-f", "form", default="text", show_default=True,
    type=click.Choice(["text", "json", "raw"]),
    help="text: for people; json: an object a line; raw: the bodies.",
)  # fmt: skip
def tap(
    config: Path | None,
    instance: str | None,
    where: "Where | None",
    sink: str | None,
    limit: int,
    rate: int,
    form: str,
) -> None:
    """Show messages as they reach the exchange, from now on, until Ctrl-C.

    They come through a queue of tap's own: nothing is taken from the daemon or anyone else, no
    daemon needs to run, and the queue is gone when tap ends, however it ends. It holds the newest
    10,000 messages (32 MiB). What is not shown is counted at the end, on standard error.
    """
    from logfan.cli.tap_view import TapView
    from logfan.config.loader import read_settings

    with sound(config):
        settings = read_settings(config, instance=instance)
        stage = None if sink is None else _stage_of(sink, settings, config, instance)
    view = TapView(_output(form), where=where, stage=stage, limit=limit, rate=rate)
    with ends(lambda: f"; tap does not connect again; {view.summary()}" if view.received else ""):
        _tap(settings, view)
    if view.failure is not None:
        fail(f"{view.failure}; {view.summary()}", _NOT_WRITTEN)
    _note(view.summary())


def _stage_of(
    name: str, settings: "Settings", config: Path | None, instance: str | None
) -> "Stage | None":
    """What is done to records before this sink gets them. Raises Faults."""
    from logfan.config.loader import read_stages

    if name not in settings.sinks:
        near = did_you_mean(name, settings.sinks, "sinks")
        raise click.BadParameter(f"no sink {name!r} in the config{near}", param_hint="--sink")
    _, stages = read_stages(config, key=None, instance=instance)
    return stages[name]


def _output(form: str) -> Any:
    """The sink `stdout`, open: the same lines, colours and guards."""
    from logfan.plugins.discovery import discover
    from logfan.sink import SinkUnavailable

    cls = discover((), (), ("stdout",)).kinds["stdout"].cls
    output = cls(cls.Config.model_validate({"format": form}), name="tap", instance="")
    try:
        output.open()
    except SinkUnavailable as error:
        raise click.UsageError(str(error)) from None
    return output


def _tap(settings: "Settings", view: "TapView") -> None:
    """Until the limit, a signal, or the end of who reads. Raises BrokerError."""
    from logfan.amqp import topology
    from logfan.amqp.blocking import BlockingConnection, Interrupted

    with (
        suppress(Interrupted),
        BlockingConnection(settings) as connection,
        interrupts_to(connection.interrupt),
    ):
        steps = topology.tap(
            settings.exchange, settings.queue, most=_QUEUE_MESSAGES, most_bytes=_QUEUE_BYTES
        )
        queue = connection.declare(steps)
        channel = connection.watch(queue, _Receiver(view))
        exchange = settings.exchange.name
        _note(f"exchange {exchange!r} on {connection.address}, from now on; Ctrl-C ends")
        view.start()
        try:
            _Watch(connection, channel, queue, view).until_the_end()
        except Interrupted:
            view.end(0.0)
            raise
        finally:
            view.end(_LAST_LINES_SECONDS)


class _Receiver:
    """Hands all that comes to the view; see `connection.Receiver`."""

    read_bytes = _READ_BYTES
    now = staticmethod(time.time)

    def __init__(self, view: "TapView") -> None:
        self._view = view

    def on_deliveries(self, channel: Any, run: "Run") -> None:
        del channel
        self._view.offer(run.records)

    def deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        from logfan.amqp.connection import to_record

        del channel
        self._view.offer([to_record(method, properties, body, self.now())])

    def on_read_end(self) -> None:
        """Each run is handed over as it comes."""


@dataclass
class _Watch:
    """Turns the loop, and looks from time to time at what cannot be seen in the messages."""

    connection: "BlockingConnection"
    channel: "BlockingChannel"
    queue: str
    view: "TapView"
    is_cancelled: bool = False
    is_asking: bool = False
    reported: int = 0

    def __post_init__(self) -> None:
        self.channel.pika.add_on_cancel_callback(self._on_cancelled)

    def until_the_end(self) -> None:
        """Raises BrokerError and Interrupted."""
        from logfan.amqp.failures import BrokerError, Cause, ConnectionFailure

        is_read = _reader_of(sys.__stdout__)
        look_at = time.monotonic() + _LOOK_SECONDS
        report_at = time.monotonic() + _REPORT_SECONDS
        while not self.view.is_over and is_read():
            self.channel.check()
            self.connection.turn()
            if self.is_cancelled:
                why = "the broker cancelled tap's consumer: its queue was deleted, or lost its node"
                raise BrokerError(ConnectionFailure(Cause.LOST, why))
            now = time.monotonic()
            if now >= look_at and not self.is_asking:
                look_at = now + _LOOK_SECONDS
                self._look()
            if now >= report_at:
                report_at = now + _REPORT_SECONDS
                self._report()

    def _look(self) -> None:
        """A full queue drops its oldest messages: the broker does not report how many."""
        self.is_asking = True
        self.channel.pika.queue_declare(self.queue, passive=True, callback=self._on_length)

    def _on_length(self, frame: Any) -> None:
        self.is_asking = False
        view = self.view
        waiting = frame.method.message_count
        mean = view.received_bytes / max(1, view.received)
        if max(waiting / _QUEUE_MESSAGES, waiting * mean / _QUEUE_BYTES) >= _NEARLY_FULL:
            view.queue_was_full = True

    def _on_cancelled(self, _frame: Any) -> None:
        self.is_cancelled = True

    def _report(self) -> None:
        skipped = self.view.skipped
        if skipped > self.reported:
            _note(f"… {skipped - self.reported:,} skipped")
            self.reported = skipped


def _reader_of(stream: Any) -> Callable[[], bool]:
    """A function that returns whether anyone still reads: a pipe shows it without a message."""
    poller = select.poll()
    poller.register(stream.fileno(), 0)
    return lambda: (
        not any(events & (select.POLLERR | select.POLLHUP) for _, events in poller.poll(0))
    )


def _note(text: str) -> None:
    """A line on standard error, where anyone reads that."""
    with suppress(OSError):
        click.secho(text, err=True, dim=True)
