"""Deliveries from the bytes of the wire into records, in one pass. Sans-I/O.

A delivery is three frames, each with its type, channel, size and an end byte (CE):

    method          1 channel size | 60 60 consumer-tag | delivery-tag | redelivered exchange key CE
                    <------------ head ----------------> <- 8 bytes -> <--------- tail ----------->
    content header  2 channel size | 60 0 | body-size | flags and properties | CE
                    <----- header ------> <- 8 bytes-> <--- raw properties -->
    body            3 channel size | body | CE

Between the messages of one consumer only delivery tag, tail, body size, properties and body differ.
So `scan` takes a delivery apart with one `struct` call, compares head and header as bytes, and
looks the tail up. It stops at whatever is not just that: a body in several frames or none, other
methods and channels, a message that came before. There pika reads on; but a delivery of which only
the beginning has come (`begun`) waits for the next read. `LargeBody` puts a body together that
comes in several frames, or in several reads.

Source: AMQP 0-9-1, sections 2.3.5 and 4.2.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from logfan.json_trees import LONG, SMALL_BYTES
from logfan.record import UNPARSED, Origin, Properties, Record

FRAME_END = 0xCE
_METHOD, _HEADER, BODY = 1, 2, 3
FRAME = struct.Struct(">BHI")
"""How a frame begins: type, channel, size of what follows without the end byte."""
_DELIVER = struct.pack(">HH", 60, 60)
_BASIC = struct.pack(">HH", 60, 0)
"""The class of a content header, and its weight."""
_HEADER_START = struct.Struct(">3sI4s")
"""`header` above: type and channel; size; class and weight."""
_NUMBER = struct.Struct(">Q")
_PROPERTIES_AT = _HEADER_START.size + _NUMBER.size
"""In a content header frame: where the flags of the properties are."""
_LEAST_HEADER = 14
"""The least size of a content header: class, weight, body size, flags."""
_MOST_HEADER = 128 * 1024
"""What is larger pika reads, within its bounds."""
_LEAST_TAIL = 8 + 1 + 1 + 1
"""The delivery tag, whether redelivered, and two empty strings."""
_MOST_TAIL = _LEAST_TAIL + 255 + 255
_MOST_KNOWN = 10_000
"""So many tails, and so many headers, are remembered."""


@dataclass(slots=True)
class Run:
    """Deliveries that came one after the other, their tags without a gap."""

    records: list[Record]
    last_tag: int
    size: int
    """Bytes of all bodies."""
    wire_size: int
    """Bytes of all of it."""
    end: int
    """Where in the data the first byte after them is."""


Layout = tuple[bytes, struct.Struct, int]
"""For method frames of one size: their head; how to unpack them, and the content header behind them
up to the body size; their length."""


class Stream:
    """The deliveries of one consumer on one channel, and what is known of their frames."""

    def __init__(
        self,
        channel: int,
        consumer_tag: str,
        decode: Callable[[bytes], Properties],
        *,
        apart: bytes,
    ) -> None:
        """`decode`: properties from the bytes of a content header. `apart`: a message for the
        default exchange whose properties hold these bytes is left alone."""
        tag = consumer_tag.encode()
        self._decode = decode
        self._apart = apart
        self._channel = channel
        self._head_payload = _DELIVER + bytes((len(tag),)) + tag
        self._layouts: dict[int, Layout] = {}
        self._last = self._layout(len(self._head_payload) + _LEAST_TAIL)
        self._headers: dict[bytes, int] = {}
        self._header_type = struct.pack(">BH", _HEADER, channel)
        self._body_start = int.from_bytes(struct.pack(">BBH", FRAME_END, BODY, channel)) << 32

    def scan(self, data: bytes, at: int, received_at: float) -> Run | None:
        """The whole deliveries of this consumer from `at` on; None where there is not one."""
        records: list[Record] = []
        begin = at
        add, new = records.append, Record.__new__
        origins: dict[bytes, Origin] = {}
        head, layout, length = self._last
        unpack, unpack_number = layout.unpack_from, _NUMBER.unpack_from
        headers, body_start, apart = self._headers, self._body_start, self._apart
        size, last = 0, -1
        try:
            while True:
                # The method frame, and the header up to the body size
                found, tag, tail, header, body_size = unpack(data, at)
                if found != head:
                    other = self._layout_at(data, at)
                    if other is None:
                        break
                    head, layout, length = other
                    unpack = layout.unpack_from
                    found, tag, tail, header, body_size = unpack(data, at)
                origin = origins.get(tail)
                if origin is None:
                    source = _source(tail)
                    if source is None:
                        break
                    origin = origins[tail] = Origin(*source, False, received_at, self._decode)
                # The properties; header's end byte and body's start are compared as one number
                header_bytes = headers.get(header) or self._header(header)
                header_at = at + length
                header_end = header_at + header_bytes
                body_at = header_end + 8
                end = body_at + body_size
                if (
                    not header_bytes or not body_size or (tag != last + 1 and last >= 0)
                    or unpack_number(data, header_end)[0] != body_start + body_size
                    or data[end] != FRAME_END
                ):  # fmt: skip
                    break
                raw = data[header_at + _PROPERTIES_AT : header_end]
                if not origin.exchange and apart in raw:
                    break
                record = new(Record)
                record.body = data[body_at:end]  # type: ignore[misc] # it is made here
                record.origin = origin
                record._properties = raw
                record._json = UNPARSED if body_size <= SMALL_BYTES else LONG
                add(record)
                size += body_size
                last = tag
                at = end + 1
        except (struct.error, IndexError):
            pass  # what is left is not whole: see `begun`
        self._last = head, layout, length
        return Run(records, last, size, at - begin, at) if records else None

    def begun(self, data: bytes, at: int) -> int | None:
        """The body size of the delivery at `at`, of which only the beginning has come; 0 while it
        is not known. None where pika has to read on: it is whole, or `scan` will not take it when
        it is, or it does not show yet whose it is."""
        # The method frame
        if len(data) < at + FRAME.size:
            return 0
        layout = self._last if data.startswith(self._last[0], at) else self._layout_at(data, at)
        if layout is None:
            return None
        head, _, length = layout
        header_at = at + length
        if len(data) < header_at:
            return 0
        source = _source(data[at + len(head) + 8 : header_at])
        if source is None:
            return None
        # The content header
        if len(data) < header_at + FRAME.size:
            return 0
        kind, channel, size = FRAME.unpack_from(data, header_at)
        if kind != _HEADER or channel != self._channel or size < _LEAST_HEADER:
            return None
        body_at = header_at + FRAME.size + size + 1
        if len(data) < body_at:
            return 0 if size <= _MOST_HEADER else None
        header = data[header_at : header_at + _HEADER_START.size]
        is_ordinary = header in self._headers or self._header(header)
        raw = data[header_at + _PROPERTIES_AT : body_at - 1]
        if not is_ordinary or (not source[0] and self._apart in raw):
            return None
        (body_size,) = _NUMBER.unpack_from(data, header_at + _HEADER_START.size)
        if not body_size or data[body_at - 1] != FRAME_END:
            return None
        # The body frame
        if len(data) < body_at + FRAME.size:
            return int(body_size)
        if FRAME.unpack_from(data, body_at) != (BODY, self._channel, body_size):
            return None
        return int(body_size) if len(data) <= body_at + FRAME.size + body_size else None

    def _layout_at(self, data: bytes, at: int) -> Layout | None:
        """How to read the delivery at `at`; None where there is none of this consumer."""
        kind, channel, size = FRAME.unpack_from(data, at)
        left = size - len(self._head_payload)
        if kind != _METHOD or channel != self._channel or not _LEAST_TAIL <= left <= _MOST_TAIL:
            return None
        if not data.startswith(self._head_payload, at + FRAME.size):
            return None
        return self._layout(size)

    def _layout(self, size: int) -> Layout:
        known = self._layouts.get(size)
        if known is None:
            head = FRAME.pack(_METHOD, self._channel, size) + self._head_payload
            length = FRAME.size + size + 1
            layout = struct.Struct(f">{len(head)}sQ{length - len(head) - 8}s11sQ")
            known = self._layouts[size] = head, layout, length
        return known

    def _header(self, header: bytes) -> int:
        """The size of the content header frame that begins so, without the byte at its end; 0
        where it is none that is read here."""
        kind, size, basic = _HEADER_START.unpack(header)
        if kind != self._header_type or basic != _BASIC or size < _LEAST_HEADER:
            return 0
        if len(self._headers) >= _MOST_KNOWN:
            self._headers.clear()
        self._headers[header] = FRAME.size + size
        return FRAME.size + int(size)


@lru_cache(maxsize=_MOST_KNOWN)
def _source(tail: bytes) -> tuple[str, str] | None:
    """Exchange and routing key from the end of a method frame; None where pika reads the message:
    it came before, or the bytes are odd."""
    exchange_end = 2 + tail[1]
    if tail[0] or exchange_end >= len(tail) or tail[-1] != FRAME_END:
        return None
    if exchange_end + 1 + tail[exchange_end] + 1 != len(tail):
        return None
    try:
        return tail[2:exchange_end].decode(), tail[exchange_end + 1 : -1].decode()
    except UnicodeDecodeError:
        return None
