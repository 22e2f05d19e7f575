"""Takes what programs publish out of a private RabbitMQ, as bytes and with their properties."""

import base64
import bz2
import gzip
import lzma
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

import pika
import pika.spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import BasicProperties

from logfan.amqp_properties import decode_properties
from logfan.testing.node import RabbitNode
from publishers.messages import TEXTS
from support.waiting import wait_until

EXCHANGE, QUEUE = "logs", "recorded"
OTHER = "other"


class _Properties(BasicProperties):  # type: ignore[misc]  # pika ships no types
    """pika's, with the bytes that the broker sent."""

    def decode(self, encoded: bytes, offset: int = 0) -> Self:
        self.raw = encoded[offset:]
        read: Self = super().decode(encoded, offset)
        return read


class Recorder:
    """A queue behind the exchange `logs`, and what arrived in it."""

    def __init__(self, node: RabbitNode) -> None:
        pika.spec.props[_Properties.INDEX] = _Properties
        self._node = node
        # No heartbeat: nothing is read while a program runs, or is built.
        self._connection = pika.BlockingConnection(pika.URLParameters(f"{node.url}?heartbeat=0"))
        self.channel: BlockingChannel = self._connection.channel()
        self.channel.exchange_declare(EXCHANGE, "fanout")
        self.channel.queue_declare(QUEUE, durable=True)
        self.channel.queue_bind(QUEUE, EXCHANGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def take(self, publisher: str) -> list[dict[str, Any]]:
        """All messages of a publisher that has ended, in the order of their arrival."""
        # A connection is gone once all that came on it is in the queues.
        wait_until(lambda: self._connections() == 1, what=f"{publisher} is disconnected")
        messages = []
        while (got := self.channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
            delivery, properties, body = got
            messages.append(_written(publisher, delivery, properties, body))
        return messages

    def count(self) -> int:
        """How many messages wait to be taken."""
        return int(self.channel.queue_declare(QUEUE, passive=True).method.message_count)

    def _connections(self) -> int:
        self._connection.process_data_events(0)
        return int(self._node.eval("length(rabbit_networking:local_connections())"))


def _written(publisher: str, delivery: Any, properties: _Properties, body: bytes) -> dict[str, Any]:
    """A message as the corpus has it."""
    # pika cuts floats to whole numbers.
    values = decode_properties(properties.raw)._asdict()
    given = {name: readable(value) for name, value in values.items() if value not in (None, {})}
    message: dict[str, Any] = {
        "publisher": publisher,
        "logged": _which(body, str(values["headers"])),
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "received_at": round(time.time(), 3),
        "properties": given,
        "properties_base64": base64.b64encode(properties.raw).decode(),
    }
    try:
        message["body"] = body.decode()
    except UnicodeDecodeError:
        message["body_base64"] = base64.b64encode(body).decode()
    return message


def _which(body: bytes, headers: str) -> str:
    """What was logged: the texts are looked for in the body, unpacked where it is packed."""
    seen = [body, headers.encode()]
    for unpack in (zlib.decompress, gzip.decompress, bz2.decompress, lzma.decompress):
        with suppress(ValueError, OSError, EOFError, zlib.error, lzma.LZMAError):
            seen.append(unpack(body))
    # Of two lines the second: the first is escaped, or ends otherwise.
    ends = {name: text.rpartition("\n")[2].encode() for name, text in TEXTS.items()}
    found = [name for name, end in ends.items() if any(end in one for one in seen)]
    return found[0] if found else OTHER


def readable(value: Any) -> Any:
    """A value of a property or a header as JSON, for whoever reads the corpus."""
    if isinstance(value, Mapping):
        return {name: readable(inside) for name, inside in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [readable(inside) for inside in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
