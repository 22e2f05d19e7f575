"""The only room that knows pika's inside: what it read into records; a cancel without rejects."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pika
from pika import frame, spec
from pika.adapters.utils import io_services_utils

from logfan.api import Properties, Record
from logfan.codec import decode_properties, decode_table, encode_table
from logfan.letters import PREFIX, Letter

_PACKED = "x-logfan-packed"
# A content header must fit into one frame (128 KiB with RabbitMQ's settings), ours included.
_HEADERS_BYTES = 100_000
_FRAME_HEADER_BYTES = 7
_CONTENT_HEADER_BYTES = 12


class RawProperties:
    """The properties of one delivery, undecoded until somebody asks."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


class Connection(pika.SelectConnection):  # type: ignore[misc]
    """pika's connection, but no properties of a message can make it fail.

    Where a later pika reads frames in another way, `_read_frame` is called by nobody, and
    properties are decoded by pika itself, as before.
    """

    def _read_frame(self) -> tuple[int, Any]:
        buffer = self._frame_buffer
        if len(buffer) < _FRAME_HEADER_BYTES or buffer[0] != spec.FRAME_HEADER:
            read: tuple[int, Any] = super()._read_frame()
            return read
        end = _FRAME_HEADER_BYTES + int.from_bytes(buffer[3:7], "big")
        if len(buffer) <= end:
            return 0, None
        if buffer[end] != spec.FRAME_END:
            raise pika.exceptions.InvalidFrameError("Invalid FRAME_END marker")
        channel = int.from_bytes(buffer[1:3], "big")
        body_size = int.from_bytes(buffer[11:19], "big")
        raw = bytes(buffer[_FRAME_HEADER_BYTES + _CONTENT_HEADER_BYTES : end])
        return end + 1, frame.Header(channel, body_size, RawProperties(raw))


def to_record(
    method: spec.Basic.Deliver,
    properties: RawProperties | spec.BasicProperties,
    body: bytes,
    received_at: float,
) -> Record:
    """One delivery as a record; its properties are decoded when somebody looks at them."""
    return Record(
        body,
        _text(method.exchange),
        _text(method.routing_key),
        method.redelivered,
        received_at,
        partial(to_properties, properties),
    )


def _text(short: str | bytes) -> str:
    """pika leaves a short string that is not UTF-8 as bytes."""
    return short if isinstance(short, str) else short.decode("utf-8", "backslashreplace")


def to_properties(properties: RawProperties | spec.BasicProperties) -> Properties:
    """What pika handed over as our properties."""
    if isinstance(properties, RawProperties):
        return decode_properties(properties.raw)
    return decode_properties(b"".join(properties.encode()))


def broker_version(connection: Any) -> tuple[int, ...]:
    """RabbitMQ's version, such as (4, 0, 5); empty where the broker does not tell."""
    told = (connection.server_properties or {}).get("version", "")
    return tuple(int(part) for part in re.findall(r"\d+", _text(told))[:3])


def read_more() -> None:
    """Have pika read 128 KiB at a time rather than 4 KiB: a large body is copied less often."""
    transport = getattr(io_services_utils, "_AsyncBaseTransport", None)
    if transport is not None and hasattr(transport, "_MAX_RECV_BYTES"):
        transport._MAX_RECV_BYTES = 128 * 1024


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


def packed(letter: Letter) -> Letter:
    """The letter with headers that fit into a frame: those that do not go in front of the body."""
    headers = letter.properties.headers
    theirs = encode_table({n: v for n, v in headers.items() if not n.startswith(PREFIX)})
    if len(theirs) <= _HEADERS_BYTES:
        return letter
    ours = {n: v for n, v in headers.items() if n.startswith(PREFIX)} | {_PACKED: len(theirs)}
    return Letter(theirs + letter.body, replace(letter.properties, headers=ours))


def whole(record: Record) -> Record:
    """The record with the headers that `packed` put before its body; others as they are, and so
    is one that only claims to be packed."""
    if record.exchange or _PACKED not in record.headers:
        return record
    try:
        letter = unpacked(Letter(record.body, record.properties))
    except ValueError:
        return record
    return Record(
        letter.body, record.exchange, record.routing_key, record.redelivered, record.received_at,
        letter.properties,
    )  # fmt: skip


def unpacked(letter: Letter) -> Letter:
    """What `packed` was given. Raises ValueError where the body is not what the header says."""
    headers = dict(letter.properties.headers)
    size = headers.pop(_PACKED, None)
    if size is None:
        return letter
    try:
        theirs, end = decode_table(letter.body, 0)
    except struct.error as error:
        raise ValueError(f"{_PACKED} is {size}, but no headers stand before the body") from error
    if end != size:
        raise ValueError(f"{_PACKED} is {size}, but the headers before the body have {end} bytes")
    return Letter(letter.body[end:], replace(letter.properties, headers={**theirs, **headers}))
