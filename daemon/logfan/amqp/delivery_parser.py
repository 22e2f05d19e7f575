"""Deliveries from the bytes of the wire into records, in one pass. Sans-I/O.

A delivery is three frames: the method `basic.deliver`, a content header and, in most cases, one
body frame. Between the messages of one consumer hardly anything differs but the delivery tag, the
properties and the body, so what surrounds them is compared and not decoded anew. Whatever is not
just that (a body in several frames or none, other methods and channels, a message that is not whole
yet, one that came before) is left where it stands: `scan` ends there, and pika reads on.
`LargeBody` puts a body together that comes in several frames, or in several reads.

Source: AMQP 0-9-1, sections 2.3.5 and 4.2.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from logfan.json_trees import LONG, SMALL_BYTES
from logfan.record import UNPARSED, Origin, Properties, Record

FRAME_END = 0xCE
_DELIVER = struct.pack(">HH", 60, 60)
_BASIC = struct.pack(">HH", 60, 0)
"""The class of a content header, and its weight."""
_METHOD, _HEADER, BODY = 1, 2, 3
FRAME = struct.Struct(">BHI")
_BODY_FRAME = struct.Struct(">Q")
"""As one number: the end of the frame before, the type, the channel; the size."""
_CONTENT = struct.Struct(">3sI4s")
"""Of a content header frame: the type and the channel; the size; the class and the weight."""
_SIZE = struct.Struct(">Q")
_HEADER_BYTES = 19
"""Of a content header frame, up to the flags of the properties."""
_LEAST_HEADER = 14
_LEAST_TAIL = 8 + 1 + 1 + 1
"""The tag, whether redelivered, and two empty strings."""
_MOST_TAIL = _LEAST_TAIL + 255 + 255
_MOST_TAILS = 10_000


@dataclass(slots=True)
class Run:
    """Deliveries that came one after the other, their tags without a gap."""

    records: list[Record]
    last_tag: int
    size: int
    """Bytes of all bodies."""
    end: int
    """Where in the data the first byte after them is."""


Layout = tuple[bytes, struct.Struct, int]
"""For method frames of one size: their first bytes, up to the delivery tag; how to unpack them and
the content header behind them; their length."""


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
        self._start = _DELIVER + bytes((len(tag),)) + tag
        self._layouts: dict[int, Layout] = {}
        self._tails: dict[bytes, tuple[str, str] | None] = {}
        self._last = self._layout(len(self._start) + _LEAST_TAIL)
        self._headers: dict[bytes, int] = {}
        self._next_header = struct.pack(">BH", _HEADER, channel)
        self._next_body = int.from_bytes(struct.pack(">BBH", FRAME_END, BODY, channel)) << 32

    def scan(self, data: bytes, at: int, received_at: float) -> Run | None:
        """The whole deliveries of this consumer from `at` on; None where there is not one."""
        records: list[Record] = []
        add, new = records.append, Record.__new__
        origins: dict[bytes, Origin] = {}
        head, layout, length = self._last
        unpack, unpack_body = layout.unpack_from, _BODY_FRAME.unpack_from
        headers, next_body, apart = self._headers, self._next_body, self._apart
        size, last = 0, -1
        try:
            while True:
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
                    origin = self._origin(tail, received_at)
                    if origin is None:
                        break
                    origins[tail] = origin
                header_bytes = headers.get(header) or self._header(header)
                at_header = at + length
                header_end = at_header + header_bytes
                body_at = header_end + 8
                end = body_at + body_size
                if (
                    not header_bytes or not body_size or (tag != last + 1 and last >= 0)
                    or unpack_body(data, header_end)[0] != next_body + body_size
                    or data[end] != FRAME_END
                ):  # fmt: skip
                    break
                raw = data[at_header + _HEADER_BYTES : header_end]
                if not origin.exchange and apart in raw:
                    break
                record = new(Record)
                record._body = data[body_at:end]
                record._origin = origin
                record._properties = raw
                record._json = UNPARSED if body_size <= SMALL_BYTES else LONG
                add(record)
                size += body_size
                last = tag
                at = end + 1
        except (struct.error, IndexError):
            pass  # the rest is not whole yet
        self._last = head, layout, length
        return Run(records, last, size, at) if records else None

    def begun(self, data: bytes, at: int) -> int | None:
        """The size of the body of the delivery at `at` that is not whole yet; 0 while it is not
        known. None where what stands there is nothing that `scan` would take with more behind
        it."""
        if len(data) < at + FRAME.size:
            return 0
        layout = self._last if data.startswith(self._last[0], at) else self._layout_at(data, at)
        if layout is None:
            return None
        head, _, length = layout
        header_at = at + length
        if len(data) < header_at:
            return 0
        ends = self._ends(data[at + len(head) + 8 : header_at])
        if ends is None:
            return None
        if len(data) < header_at + FRAME.size:
            return 0
        kind, channel, size = FRAME.unpack_from(data, header_at)
        if kind != _HEADER or channel != self._channel:
            return None
        body_at = header_at + FRAME.size + size + 1
        if len(data) < body_at:
            return 0
        header = data[header_at : header_at + _CONTENT.size]
        is_ordinary = header in self._headers or self._header(header)
        raw = data[header_at + _HEADER_BYTES : body_at - 1]
        if not is_ordinary or (not ends[0] and self._apart in raw):
            return None
        (body_size,) = _SIZE.unpack_from(data, header_at + _CONTENT.size)
        if not body_size or data[body_at - 1] != FRAME_END:
            return None
        if len(data) < body_at + FRAME.size:
            return int(body_size)
        if FRAME.unpack_from(data, body_at) != (BODY, self._channel, body_size):
            return None
        return int(body_size) if len(data) <= body_at + FRAME.size + body_size else None

    def _layout_at(self, data: bytes, at: int) -> Layout | None:
        """How to read the delivery at `at`; None where there is none of this consumer."""
        kind, channel, size = FRAME.unpack_from(data, at)
        tail = size - len(self._start)
        if kind != _METHOD or channel != self._channel or not _LEAST_TAIL <= tail <= _MOST_TAIL:
            return None
        if not data.startswith(self._start, at + FRAME.size):
            return None
        return self._layout(size)

    def _layout(self, size: int) -> Layout:
        known = self._layouts.get(size)
        if known is None:
            head = FRAME.pack(_METHOD, self._channel, size) + self._start
            length = FRAME.size + size + 1
            layout = struct.Struct(f">{len(head)}sQ{length - len(head) - 8}s11sQ")
            known = self._layouts[size] = head, layout, length
        return known

    def _header(self, header: bytes) -> int:
        """The size of the content header frame that begins so, without the byte at its end; 0
        where it is none that is read here."""
        kind, size, basic = _CONTENT.unpack(header)
        if kind != self._next_header or basic != _BASIC or size < _LEAST_HEADER:
            return 0
        if len(self._headers) >= _MOST_TAILS:
            self._headers.clear()
        self._headers[header] = FRAME.size + size
        return FRAME.size + int(size)

    def _origin(self, tail: bytes, received_at: float) -> Origin | None:
        """Where a message with this end of its method frame comes from; None where pika shall
        read it."""
        ends = self._ends(tail)
        return ends and Origin(*ends, False, received_at, self._decode)

    def _ends(self, tail: bytes) -> tuple[str, str] | None:
        """`_split`, as often as a tail is new."""
        if tail not in self._tails:
            if len(self._tails) >= _MOST_TAILS:
                self._tails.clear()
            self._tails[tail] = _split(tail)
        return self._tails[tail]


def _split(tail: bytes) -> tuple[str, str] | None:
    """Exchange and routing key; None for a message that came before, and for odd bytes."""
    exchange_end = 2 + tail[1]
    if tail[0] or exchange_end >= len(tail) or tail[-1] != FRAME_END:
        return None
    if exchange_end + 1 + tail[exchange_end] + 1 != len(tail):
        return None
    try:
        return tail[2:exchange_end].decode(), tail[exchange_end + 1 : -1].decode()
    except UnicodeDecodeError:
        return None
