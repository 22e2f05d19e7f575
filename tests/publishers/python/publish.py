"""Publishes with one of Python's libraries: `publish.py NAME URL`. Each logs what `README.md` says.

A library that has a handler for RabbitMQ publishes with it; others format, and pika publishes.
"""

# The libraries are in an environment of their own.
# mypy: ignore-errors

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlparse

import pika

EXCHANGE = "logs"
TEXTS = {
    "debug": "cache is warm",
    "info": "order 4711 is paid",
    "warning": "disk is 91 % full",
    "error": "payment failed",
    "lines": "two lines:\nthe second",
    "critical": "no disk is left",
}
LEVEL_OF = {"lines": "info"}
PUBLISHERS: dict[str, Callable[[str], None]] = {}


def publisher(function: Callable[[str], None]) -> Callable[[str], None]:
    """Register a publisher by its name."""
    PUBLISHERS[function.__name__.replace("_", "-")] = function
    return function


class Sender:
    """Publishes bodies with pika."""

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def send(self, body: str | bytes, key: str = "", **properties: Any) -> None:
        body = body.encode() if isinstance(body, str) else body
        self.channel.basic_publish(EXCHANGE, key, body, pika.BasicProperties(**properties))


class Handler(logging.Handler):
    """What most programs write by themselves: the formatted record is the body."""

    def __init__(self, sender: Sender, formatter: logging.Formatter, **properties: Any) -> None:
        super().__init__()
        self.sender, self.properties = sender, properties
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self.sender.send(self.format(record), **self.properties)


def log_all(logger: Any, **fields: Any) -> None:
    """Log each text at its level; the error with an exception."""
    logger.debug(TEXTS["debug"], **fields)
    logger.info(TEXTS["info"], **fields)
    logger.warning(TEXTS["warning"], **fields)
    try:
        raise ValueError("card declined")  # noqa: TRY301 - an error that is caught is logged
    except ValueError:
        logger.exception(TEXTS["error"], **fields)
    logger.info(TEXTS["lines"], **fields)
    logger.critical(TEXTS["critical"], **fields)


def stdlib(handler: logging.Handler, **fields: Any) -> None:
    logger = logging.getLogger("shop")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers = [handler]
    log_all(logger, **({"extra": fields} if fields else {}))
    logging.shutdown()


def formatted(url: str, formatter: logging.Formatter, **fields: Any) -> None:
    stdlib(Handler(Sender(url), formatter), **fields)


@publisher
def logging_text(url: str) -> None:
    formatted(url, logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


@publisher
def logging_dashes(url: str) -> None:
    formatted(url, logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))


@publisher
def logging_basic_config(url: str) -> None:
    formatted(url, logging.Formatter(logging.BASIC_FORMAT))


@publisher
def python_json_logger(url: str) -> None:
    from pythonjsonlogger.json import JsonFormatter

    formatted(url, JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"), order=4711)


@publisher
def python_json_logger_renamed(url: str) -> None:
    from pythonjsonlogger.json import JsonFormatter

    renamed = {"levelname": "severity", "message": "msg"}
    formatted(
        url, JsonFormatter("%(levelname)s %(message)s", rename_fields=renamed, timestamp=True)
    )


@publisher
def json_log_formatter(url: str) -> None:
    import json_log_formatter

    formatted(url, json_log_formatter.VerboseJSONFormatter(), order=4711)


@publisher
def ecs_logging(url: str) -> None:
    import ecs_logging

    formatted(url, ecs_logging.StdlibFormatter(), order=4711)


def structlogged(url: str, *last: Any, stamp: Any = "iso", **fields: Any) -> None:
    import structlog

    sender = Sender(url)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt=stamp, utc=True),
            *last,
        ],
        wrapper_class=structlog.BoundLogger,
        logger_factory=lambda *_: _Printer(sender),
    )
    log_all(structlog.get_logger(), **fields)


class _Printer:
    """What structlog calls with the rendered line."""

    def __init__(self, sender: Sender) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = sender.send
        self.exception = sender.send


@publisher
def structlog_json(url: str) -> None:
    import structlog

    structlogged(
        url, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(), order=4711
    )


@publisher
def structlog_dicts(url: str) -> None:
    """With the time in seconds, a number that JSON has not, and the traceback as a structure."""
    import structlog

    structlogged(
        url, structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(),
        stamp=None, load=float("nan"),
    )  # fmt: skip


@publisher
def structlog_console(url: str) -> None:
    import structlog

    structlogged(url, structlog.dev.ConsoleRenderer(colors=True), order=4711)


@publisher
def structlog_logfmt(url: str) -> None:
    import structlog

    structlogged(
        url, structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
    )  # fmt: skip


@publisher
def ecs_logging_structlog(url: str) -> None:
    import ecs_logging
    import structlog

    structlogged(url, structlog.processors.format_exc_info, ecs_logging.StructlogFormatter())


def logurud(url: str, **options: Any) -> None:
    from loguru import logger

    logger.remove()
    logger.add(Sender(url).send, level="DEBUG", **options)
    log_all(logger)


@publisher
def loguru_text(url: str) -> None:
    logurud(url, colorize=False)


@publisher
def loguru_colour(url: str) -> None:
    logurud(url, colorize=True)


@publisher
def loguru_serialized(url: str) -> None:
    logurud(url, serialize=True)


@publisher
def eliot(url: str) -> None:
    import eliot

    sender = Sender(url)
    eliot.add_destinations(lambda message: sender.send(json.dumps(message)))
    for name, text in TEXTS.items():
        eliot.log_message(message_type=f"shop:{name}", message=text)


@publisher
def logbook_queue(url: str) -> None:
    import logbook
    from logbook.queues import MessageQueueHandler

    handler = MessageQueueHandler(url, queue="recorded", level="DEBUG")
    with handler.applicationbound():
        log_all(logbook.Logger("shop"))
    handler.close()


@publisher
def uvicorn(url: str) -> None:
    from uvicorn.logging import DefaultFormatter

    formatted(url, DefaultFormatter("%(levelprefix)s %(message)s", use_colors=True))


@publisher
def gunicorn(url: str) -> None:
    from gunicorn.glogging import Logger

    formatted(url, logging.Formatter(Logger.error_fmt, Logger.datefmt))


@publisher
def celery_log(url: str) -> None:
    from celery import Celery
    from celery.utils.log import ColorFormatter

    formatted(url, ColorFormatter(Celery().conf.worker_log_format, use_color=True))


@publisher
def celery_task(url: str) -> None:
    """A task, as its worker would get it: a JSON body, and the headers of protocol 2."""
    from celery import Celery
    from kombu import Exchange, Queue

    app = Celery(broker=url)
    queue = Queue("recorded", Exchange(EXCHANGE, type="fanout", durable=False), no_declare=True)
    app.conf.update(task_queues=[queue], task_default_queue="recorded", task_compression="gzip")
    app.send_task("shop.pay", args=[TEXTS["info"]], kwargs={"order": 4711})
    app.close()


def by_kombu(url: str, **options: Any) -> None:
    from kombu import Connection, Exchange, Producer

    with Connection(url) as connection:
        exchange = Exchange(EXCHANGE, type="fanout", durable=False, no_declare=True)
        producer = Producer(connection, exchange)
        for name, text in TEXTS.items():
            body = {"level": LEVEL_OF.get(name, name).upper(), "message": text, "order": 4711}
            producer.publish(body, **options)


@publisher
def kombu_json(url: str) -> None:
    by_kombu(url)


@publisher
def kombu_gzip(url: str) -> None:
    by_kombu(url, compression="gzip")


@publisher
def kombu_bzip2(url: str) -> None:
    by_kombu(url, compression="bzip2")


@publisher
def kombu_lzma(url: str) -> None:
    by_kombu(url, compression="lzma")


@publisher
def kombu_pickle(url: str) -> None:
    by_kombu(url, serializer="pickle")


def by_logstash(url: str, version: int) -> None:
    from logstash.handler_amqp import AMQPLogstashHandler

    at = urlparse(url)
    handler = AMQPLogstashHandler(
        host=at.hostname, port=at.port, username=at.username, password=at.password,
        exchange=EXCHANGE, exchange_type="fanout", message_type="shop", durable=False,
        version=version, tags=["shop"],
    )  # fmt: skip
    stdlib(handler, order=4711)


@publisher
def python_logstash(url: str) -> None:
    by_logstash(url, 1)


@publisher
def python_logstash_old(url: str) -> None:
    by_logstash(url, 0)


@publisher
def python_logstash_async(url: str) -> None:
    from logstash_async.formatter import LogstashFormatter

    class Text(LogstashFormatter):  # gives bytes for its own transports
        def format(self, record: logging.LogRecord) -> str:
            made = super().format(record)
            return made.decode() if isinstance(made, bytes) else made

    formatted(url, Text(), order=4711)


@publisher
def graypy(url: str) -> None:
    """GELF, which is zlib without a word of it."""
    from graypy.handler import BaseGELFHandler

    sender = Sender(url)

    class Gelf(BaseGELFHandler):
        def emit(self, record: logging.LogRecord) -> None:
            sender.send(self.makePickle(record))

    stdlib(Gelf(), order=4711)


@publisher
def pygelf(url: str) -> None:
    from pygelf.handlers import BaseHandler

    sender = Sender(url)

    class Gelf(BaseHandler):
        level = logging.NOTSET

        def handle(self, record: logging.LogRecord) -> bool:
            sender.send(self.convert_record_to_gelf(record))
            return True

    stdlib(Gelf(compress=False, debug=True, include_extra_fields=True), order=4711)


@publisher
def python_logging_rabbitmq(url: str) -> None:
    from python_logging_rabbitmq import RabbitMQHandler

    at = urlparse(url)
    handler = RabbitMQHandler(
        host=at.hostname, port=at.port, username=at.username, password=at.password,
        exchange=EXCHANGE, declare_exchange=False, fields={"service": "shop"},
    )  # fmt: skip
    stdlib(handler)
    handler.close()


def by_opentelemetry(url: str, encode: Callable[[Any], bytes], content_type: str) -> None:
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import (
        LogRecordExporter,
        LogRecordExportResult,
        SimpleLogRecordProcessor,
    )
    from opentelemetry.sdk.resources import Resource

    sender = Sender(url)

    class Exporter(LogRecordExporter):
        def export(self, batch: Any) -> Any:
            for one in batch:
                sender.send(encode(one), content_type=content_type)
            return LogRecordExportResult.SUCCESS

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

        def shutdown(self) -> None: ...

    provider = LoggerProvider(Resource.create({"service.name": "shop"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(Exporter()))
    stdlib(LoggingHandler(logger_provider=provider), order=4711)
    provider.shutdown()


@publisher
def opentelemetry_json(url: str) -> None:
    by_opentelemetry(url, lambda one: one.to_json().encode(), "application/json")


def _otlp(one: Any) -> Any:
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    return encode_logs([one])


@publisher
def opentelemetry_otlp_json(url: str) -> None:
    from google.protobuf.json_format import MessageToJson

    by_opentelemetry(url, lambda one: MessageToJson(_otlp(one)).encode(), "application/json")


@publisher
def opentelemetry_otlp_protobuf(url: str) -> None:
    by_opentelemetry(url, lambda one: _otlp(one).SerializeToString(), "application/x-protobuf")


@publisher
def aio_pika_headers(url: str) -> None:
    """The text is the body; the rest is in headers and properties."""
    import aio_pika

    async def run() -> None:
        connection = await aio_pika.connect(url)
        async with connection:
            exchange = await (await connection.channel()).get_exchange(EXCHANGE)
            for name, text in TEXTS.items():
                message = aio_pika.Message(
                    text.encode(), content_type="text/plain", app_id="shop", type="log",
                    headers={"level": LEVEL_OF.get(name, name).upper(), "order": 4711},
                    timestamp=datetime.now(UTC), message_id=f"shop-{name}", priority=3,
                )  # fmt: skip
                await exchange.publish(message, routing_key="shop")

    asyncio.run(run())


@publisher
def pika_topics(url: str) -> None:
    """The text is the body, and the level is the last word of the routing key."""
    sender = Sender(url)
    for name, text in TEXTS.items():
        sender.send(text, f"shop.{LEVEL_OF.get(name, name)}")


@publisher
def pika_latin_1(url: str) -> None:
    """A character set of its own, as the content type says."""
    sender = Sender(url)
    for name, text in TEXTS.items():
        line = f"{LEVEL_OF.get(name, name)}: café: {text}"
        sender.send(line.encode("iso-8859-1"), content_type="text/plain; charset=iso-8859-1")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("\n".join(PUBLISHERS))
    else:
        PUBLISHERS[sys.argv[1]](sys.argv[2])
