"""What RabbitMQ itself publishes: its log, its events, and a trace of all messages."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pika
from pika.exceptions import AMQPError

from logfan.testing.node import RabbitNode, erlang_binary
from publishers.messages import TEXTS
from publishers.recorder import QUEUE, Recorder
from support.waiting import wait_until

_LOG = ("log.exchange = true", "log.exchange.level = debug")
SETTINGS = {
    "broker": (("rabbitmq_event_exchange",), _LOG),
    "broker-json": ((), (*_LOG, "log.exchange.formatter = json")),
}
"""Plugins, and lines of the config."""
LOG, EVENTS, TRACE = "amq.rabbitmq.log", "amq.rabbitmq.event", "amq.rabbitmq.trace"
Programs = Iterator[tuple[str, Callable[[], object]]]


def programs(node: RabbitNode, recorder: Recorder) -> Programs:
    """Each by its name."""
    yield "rabbitmq-log", partial(_bound, node, recorder, LOG, _log, len(TEXTS))
    yield "rabbitmq-event", partial(_bound, node, recorder, EVENTS, _events, 8)
    yield "rabbitmq-trace", partial(_bound, node, recorder, TRACE, _trace, len(TEXTS))


def programs_as_json(node: RabbitNode, recorder: Recorder) -> Programs:
    """The log with the formatter `json`."""
    yield "rabbitmq-log-json", partial(_bound, node, recorder, LOG, _log, len(TEXTS))


def _bound(
    node: RabbitNode, recorder: Recorder, exchange: str, act: Callable[..., object], least: int
) -> None:
    """Records what comes from the exchange while `act` runs, until so many messages are there."""
    wait_until(lambda: _exists(node, exchange), f"the broker has {exchange}")
    recorder.channel.queue_bind(QUEUE, exchange, "#")
    act(node)
    wait_until(lambda: recorder.count() >= least, f"{least} messages of {exchange}")
    recorder.channel.queue_unbind(QUEUE, exchange, "#")


def _exists(node: RabbitNode, exchange: str) -> bool:
    name = f'rabbit_misc:r(<<"/">>, exchange, {erlang_binary(exchange)})'
    return "true" in node.eval(
        f"case rabbit_exchange:lookup({name}) of {{ok, _}} -> true; _ -> no end."
    )


def _log(node: RabbitNode) -> None:
    """The texts through the broker's own log, and its error for a login that is refused."""
    for name, text in TEXTS.items():
        level = "info" if name == "lines" else name
        line = f"binary_to_list({erlang_binary(text)})"
        node.eval(f'logger:{level}("~ts", [{line}], #{{domain => [rabbitmq]}}).')
    _refused(node)


def _refused(node: RabbitNode) -> None:
    parameters = pika.URLParameters(node.url)
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    with suppress(AMQPError):
        pika.BlockingConnection(parameters).close()


def _events(node: RabbitNode) -> None:
    """A connection, a queue that comes and goes, and a login that is refused."""
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    channel.queue_declare("orders")
    channel.queue_delete("orders")
    connection.close()
    _refused(node)


def _trace(node: RabbitNode) -> None:
    """Messages that are published while the broker traces them."""
    node.eval('rabbit_trace:start(<<"/">>).')
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    for name, text in TEXTS.items():
        level = "info" if name == "lines" else name
        properties = pika.BasicProperties(headers={"level": level}, app_id="shop")
        channel.basic_publish(
            "amq.fanout", f"shop.{level}", f"{level}: {text}".encode(), properties
        )
    connection.close()
    node.eval('rabbit_trace:stop(<<"/">>).')
