"""Where `logfan demo` runs: a RabbitMQ of its own, or the configured one under own names."""

import json
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import CONFIG_PLACES, command_line
from logfan.telemetry.log_output import one_line

if TYPE_CHECKING:
    from logfan.config.settings import Settings

_NAME = "logfan-demo"
_EXPIRES_MS = 3_600_000
"""When the broker removes the queue of a demo that was killed."""
_OTHER_URLS = ("url_file", "tls")


def say(text: str) -> None:
    """A line of the demo's own, on standard error."""
    click.echo(f"{click.style('demo', fg='cyan')}  {one_line(text)}", err=True)


@contextmanager
def private_broker(settings: "Settings", path: Path | None) -> Iterator[Mapping[str, Any]]:
    """Run a private node, and give the overrides of the config. Raises NodeUnavailable."""
    from logfan.testing.node import RabbitNode

    say("starting a private RabbitMQ; no other broker is touched")
    kind = settings.exchange.type
    node = RabbitNode(plugins=["rabbitmq_consistent_hash_exchange"] if "hash" in kind else [])
    try:
        node.start()
        say(f"RabbitMQ {node.version} is up: {node.url} (user guest, password guest)")
        say(f"from a second terminal: {_emit(node.url, settings, path)}")
        own: dict[str, Any] = {
            "rabbitmq": {"urls": [node.url]},
            "exchange": {"declare": "auto"},
            "queue": {"declare": "auto"},
        }
        if "hash" not in kind:  # the samples and what `emit` sends have no routing key
            own["queue"]["routing_keys"] = None
        yield own
    finally:
        node.close()
        say("the private RabbitMQ is removed")


def _emit(url: str, settings: "Settings", path: Path | None) -> str:
    """What a second terminal, in the same folder, can publish with."""
    from logfan.config.settings import read_table

    words = [f"LOGFAN_RABBITMQ__URLS={shlex.quote(json.dumps([url]))}", command_line(), "emit"]
    in_file = read_table(path).get("rabbitmq", {}) if path is not None else {}
    if any(key in in_file for key in _OTHER_URLS):
        words.insert(0, f"LOGFAN_EXCHANGE__NAME={shlex.quote(settings.exchange.name)}")
        words += ["--config", "/dev/null"]
    elif path is not None and path not in CONFIG_PLACES:
        words += ["--config", shlex.quote(str(path))]
    return " ".join([*words, "hello"])


@contextmanager
def visited_broker(settings: "Settings", _path: Path | None) -> Iterator[Mapping[str, Any]]:
    """Names of the demo's own on the configured broker; what has them is removed at the end.

    Raises BrokerError where the broker is away or refuses.
    """
    from logfan.amqp.blocking import BlockingConnection

    name = f"{_NAME}-{secrets.token_hex(4)}"
    dead = f"{name}.dead"
    with BlockingConnection(settings) as connection:
        channel = connection.channel(f"exchange {name!r} may not be declared")
        # Gone with its last queue, so also where the demo is killed.
        channel.ask(channel.pika.exchange_declare, name, "fanout", auto_delete=True)
        where = connection.address
    say(f"using the broker at {where}: exchange and queue {name}, dead letters in {dead}")
    try:
        yield {
            "exchange": {"name": name, "type": "fanout", "declare": "auto", "durable": False},
            "queue": {
                "name": name, "type": "classic", "declare": "auto", "routing_keys": None,
                "arguments": {"x-expires": _EXPIRES_MS},
            },
            "dead_letter": {"queue": dead},
        }  # fmt: skip
    finally:
        _remove(settings, name, dead)


def _remove(settings: "Settings", name: str, dead: str) -> None:
    from logfan.amqp.blocking import BlockingConnection, BrokerError, Interrupted

    try:
        with BlockingConnection(settings) as connection:
            channel = connection.channel()
            channel.ask(channel.pika.queue_delete, name)
            channel.ask(channel.pika.queue_delete, dead)
            channel.ask(channel.pika.exchange_delete, name)
            say(f"removed from {connection.address}: exchange {name}, queues {name} and {dead}")
    except (BrokerError, Interrupted) as error:
        say(
            f"not removed, as {error}: exchange {name}, queues {name} and {dead}; remove them by "
            f"`rabbitmqctl delete_queue NAME`; the exchange goes with its queue"
        )
