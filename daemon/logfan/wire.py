"""The only room that knows pika's inside: what it read into records; a cancel without rejects."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika import spec

from logfan.api import NO_HEADERS, Properties, Record

_PLAIN = (
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip


def to_record(
    method: spec.Basic.Deliver,
    properties: spec.BasicProperties,
    body: bytes,
    received_at: float,
) -> Record:
    """One delivery as a record; its properties are converted when somebody looks at them."""
    return Record(
        body,
        _text(method.exchange),
        _text(method.routing_key),
        method.redelivered,
        received_at,
        partial(_to_properties, properties),
    )


def _text(short: str | bytes) -> str:
    """pika leaves a short string that is not UTF-8 as bytes."""
    return short if isinstance(short, str) else short.decode("utf-8", "backslashreplace")


def _to_properties(properties: spec.BasicProperties) -> Properties:
    values = {name: getattr(properties, name) for name in _PLAIN}
    values = {n: _text(v) if isinstance(v, bytes) else v for n, v in values.items()}
    return Properties(headers=properties.headers or NO_HEADERS, **values)


def cancel(
    channel: pika.channel.Channel, consumer_tag: str, on_cancelled: Callable[[], None]
) -> None:
    """Cancel a consumer and go on taking what the broker had already sent, until it confirms.

    pika's own `basic_cancel` rejects those deliveries at once; a quorum queue counts each such
    reject as a failed delivery. So the method is sent without telling pika that the consumer is
    being cancelled; where its inside is not as expected, pika's own way is the fallback.
    """

    def done(_frame: Any) -> None:
        on_cancelled()

    rpc = getattr(channel, "_rpc", None)
    if rpc is None:
        channel.basic_cancel(consumer_tag, callback=done)
        return
    rpc(
        spec.Basic.Cancel(consumer_tag=consumer_tag, nowait=False),
        done,
        [(spec.Basic.CancelOk, {"consumer_tag": consumer_tag})],
    )
