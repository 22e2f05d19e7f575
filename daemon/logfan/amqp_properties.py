"""AMQP properties from the bytes of a content header, and into them. Sans-I/O.

pika does this too, but cuts floats to whole numbers and raises on what other clients may send: a
header of NaN, a time far off, a type it does not know. One such message would end the consumer
again and again. Here every message can be read, and a dead letter carries what was published.
"""

import calendar
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Generic, TypeVar

from logfan.record import NO_HEADERS, Properties

REPLAY = "x-logfan-replay"
"""The sink that a message in the daemon's own queue is meant for, and no other."""
UNREADABLE = "x-logfan-unreadable"
"""The header that holds the bytes of a field table from where nobody can read it."""

_SHORT_BYTES = 255
_SHORT, _OCTET, _TIME, _TABLE = range(4)
_KINDS = {"headers": _TABLE, "delivery_mode": _OCTET, "priority": _OCTET, "timestamp": _TIME}
_read_time = struct.Struct(">Q").unpack_from
_OWN = Properties._fields.index("correlation_id") + 1
_ID = Properties._fields.index("message_id")
_DEPTH = 100
"""So deep may tables and lists be nested; what is deeper is kept as bytes."""
# In the order of the specification; the first has the highest of the flag bits.
_FLAGS = {
    "content_type": 15, "content_encoding": 14, "headers": 13, "delivery_mode": 12, "priority": 11,
    "correlation_id": 10, "reply_to": 9, "expiration": 8, "message_id": 7, "timestamp": 6,
    "type": 5, "user_id": 4, "app_id": 3, "cluster_id": 2,
}  # fmt: skip

_HAS_ID, _HAS_TIME = 1 << _FLAGS["message_id"], 1 << _FLAGS["timestamp"]
_VARYING = 1 << _FLAGS["headers"] | 1 << _FLAGS["correlation_id"] | 1
"""With these no message is like the next one; the lowest bit announces more flags."""
_MOST_KNOWN, _MOST_KNOWN_BYTES, _MOST_SHAPES = 1000, 2000, 8
_new = tuple.__new__  # `_make` costs three times as much

V = TypeVar("V")
Shape = tuple[int, bytes, int, dict[bytes, V]]
"""Of properties with a message id: how many bytes stand before it (and its length), these bytes,
how many the time behind it has; and what is known, by the bytes that follow."""
NO_SHAPE: Shape[Any] = (0, b"no properties begin so", 0, {})


class Known(Generic[V]):
    """What was made of properties before, by their bytes: a publisher's messages differ in their
    ids and times, or in nothing. Bounded. Read and added to on any thread."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.count = 0
        self.whole: dict[bytes, V] = {}
        """By all bytes, of messages without an id and a time."""
        self.shapes: dict[bytes, list[Shape[V]]] = {}
        """By the bytes of the flags, of messages with an id."""

    def shape_of(self, raw: bytes) -> Shape[V]:
        """The one that these bytes begin with."""
        for shape in self.shapes.get(raw[:2], ()):
            if raw.startswith(shape[1]):
                return shape
        return NO_SHAPE

    def learn(self, raw: bytes, value: V) -> None:
        """`value` was made of these bytes, and would be of any that have another id or time."""
        flags = int.from_bytes(raw[:2])
        time_bytes = 8 if flags & _HAS_TIME else 0
        if flags & _VARYING or not 2 <= len(raw) <= _MOST_KNOWN_BYTES:
            return
        before = id_end = 0
        if flags & _HAS_ID:
            before = _id_place(raw, flags)
            id_end = before + 1 + raw[before] if before < len(raw) else len(raw) + 1
        elif time_bytes:
            return
        if id_end + time_bytes > len(raw):
            return  # cut short
        if self.count >= _MOST_KNOWN:
            self.forget()
        self.count += 1
        if not before:
            self.whole[raw] = value
            return
        shape = self.shape_of(raw)
        if shape is NO_SHAPE:
            shape = before, raw[:before], time_bytes, {}
            shapes = self.shapes.setdefault(raw[:2], [])
            if len(shapes) >= _MOST_SHAPES:
                shapes.clear()
            shapes.append(shape)
        shape[3][raw[id_end + time_bytes :]] = value


_known: Known[tuple[Any, ...]] = Known()


class EncodedProperties:
    """What pika's `basic_publish` takes as properties: an object that can `encode`."""

    INDEX = 60  # the class `basic`

    def __init__(self, properties: Properties) -> None:
        flags, pieces = 0, []
        for name, bit in _FLAGS.items():
            value = getattr(properties, name)
            if value is None or (name == "headers" and not value):
                continue
            flags |= 1 << bit
            if name == "headers":
                pieces.append(encode_table(value))
            elif name == "timestamp":
                pieces.append(struct.pack(">Q", value))
            elif name in ("delivery_mode", "priority"):
                pieces.append(struct.pack("B", value))
            else:
                pieces.append(_short(value))
        self._bytes = struct.pack(">H", flags) + b"".join(pieces)

    def encode(self) -> list[bytes]:
        """The flags and the list of properties."""
        return [self._bytes]


def decode_properties(raw: bytes) -> Properties:
    """The properties of a content header, from its flags on. What cannot be read is left out, but
    for the bytes of headers, which `UNREADABLE` keeps."""
    for before, start, time_bytes, commons in _known.shapes.get(raw[:2], ()):
        if raw[:before] == start and len(raw) > before:
            id_end = before + 1 + raw[before]
            common = commons.get(raw[id_end + time_bytes :])
            if common is not None and id_end + time_bytes <= len(raw):
                message_id = raw[before + 1 : id_end].decode("utf-8", "backslashreplace")
                timestamp = _read_time(raw, id_end)[0] if time_bytes else None
                own = NO_HEADERS, message_id, timestamp, None
                return _new(Properties, own + common)
    properties: Any = _known.whole.get(raw)
    if properties is None:
        properties = _decode_each(raw)
        _known.learn(raw, properties if properties.message_id is None else properties[_OWN:])
    decoded: Properties = properties
    return decoded


def _decode_each(raw: bytes) -> Properties:
    values: list[Any] = [*_UNSET]
    size = len(raw)
    try:
        flags = raw[0] << 8 | raw[1]
        at, more = 2, flags & 1
        while more:
            more = struct.unpack_from(">H", raw, at)[0] & 1
            at += 2
        for place, kind in _plan(flags):
            # By hand, most frequent first.
            if kind == _SHORT:
                start = at + 1
                at = start + raw[at]
                if at > size:
                    break
                values[place] = raw[start:at].decode("utf-8", "backslashreplace")
            elif kind == _OCTET:
                values[place] = raw[at]
                at += 1
            elif kind == _TIME:
                (values[place],) = _read_time(raw, at)
                at += 8
            else:
                values[place], at = decode_table(raw, at)
    except (struct.error, IndexError):
        pass  # cut short: the broker sends no such thing, and what came before still counts
    return _new(Properties, values)


def _id_place(raw: bytes, flags: int) -> int:
    """Where the message id begins, with its length; behind the end where the bytes are cut short.
    No headers may stand before it."""
    at = 2
    for place, kind in _plan(flags):
        if place == _ID or at >= len(raw):
            break
        at += 1 if kind == _OCTET else 1 + raw[at]
    return at


@lru_cache(maxsize=4096)
def _plan(flags: int) -> Sequence[tuple[int, int]]:
    """What to read one after the other: the place among the properties, and the kind."""
    return [
        (Properties._fields.index(name), _KINDS.get(name, _SHORT))
        for name, bit in _FLAGS.items()
        if flags >> bit & 1
    ]


def decode_table(raw: bytes, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """The field table that begins at `at`, and where it ends. Raises struct.error where its length
    does not fit; what cannot be read inside is kept as `UNREADABLE`."""
    (size,) = struct.unpack_from(">I", raw, at)
    at, end = at + 4, at + 4 + size
    if end > len(raw):
        raise struct.error("a field table longer than its frame")
    table: dict[str, Any] = {}
    while at < end:
        start = at
        try:
            name, at = _read_short(raw, at)
            table[name], at = _read_value(raw, at, end, depth)
        except (struct.error, IndexError, KeyError):
            table[UNREADABLE] = raw[start:end]
            break
    return table, end


def _read_value(raw: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    if depth > _DEPTH:
        raise KeyError("nested too deeply")
    kind, at = raw[at : at + 1], at + 1
    if kind in _FIXED:
        layout, into = _FIXED[kind]
        values = struct.unpack_from(layout, raw, at)
        value, at = into(*values), at + struct.calcsize(layout)
    elif kind in b"Sx":
        (size,) = struct.unpack_from(">I", raw, at)
        value, at = raw[at + 4 : at + 4 + size], at + 4 + size
        value = _text(value) if kind == b"S" else value
    elif kind == b"F":
        value, at = decode_table(raw, at, depth + 1)
    elif kind == b"A":
        (size,) = struct.unpack_from(">I", raw, at)
        at, stop = at + 4, at + 4 + size
        value = []
        while at < stop:
            item, at = _read_value(raw, at, stop, depth + 1)
            value.append(item)
    else:
        raise KeyError(kind)
    if at > end:
        raise struct.error("a field longer than its table")
    return value, at


def _read_short(raw: bytes, at: int) -> tuple[str, int]:
    at, end = at + 1, at + 1 + raw[at]
    if end > len(raw):
        raise struct.error("a short string longer than its frame")
    return str(raw[at:end], "utf-8", "backslashreplace"), end


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _moment(seconds: int) -> datetime | int:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds


def _as_it_is(value: Any = None) -> Any:
    return value


# As RabbitMQ reads them, which differs from the specification in places.
_UNSET = Properties()
_FIXED: Mapping[bytes, tuple[str, Callable[..., Any]]] = {
    b"t": (">B", bool), b"b": (">b", _as_it_is), b"B": (">B", _as_it_is), b"U": (">h", _as_it_is),
    b"u": (">H", _as_it_is), b"s": (">h", _as_it_is), b"I": (">i", _as_it_is),
    b"i": (">I", _as_it_is), b"l": (">q", _as_it_is), b"L": (">q", _as_it_is),
    b"f": (">f", _as_it_is), b"d": (">d", _as_it_is), b"T": (">Q", _moment), b"V": ("", _as_it_is),
    b"D": (">Bi", lambda places, number: Decimal(number).scaleb(-places)),
}  # fmt: skip


def encode_table(table: Mapping[str, Any]) -> bytes:
    """A field table, its length first. Keys that are too long are cut."""
    body = b"".join([_short(name) + _value(value) for name, value in table.items()])
    return struct.pack(">I", len(body)) + body


def _short(text: str) -> bytes:
    raw = text.encode("utf-8", "backslashreplace")[:_SHORT_BYTES]
    return struct.pack("B", len(raw)) + raw


def _value(value: Any) -> bytes:
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return struct.pack(">cq", b"l", value)
    if isinstance(value, float):
        return struct.pack(">cd", b"d", value)
    if isinstance(value, bytes):
        return struct.pack(">cI", b"x", len(value)) + value
    if isinstance(value, datetime):
        return struct.pack(">cq", b"T", calendar.timegm(value.utctimetuple()))
    if isinstance(value, Mapping):
        return b"F" + encode_table(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = b"".join([_value(item) for item in value])
        return struct.pack(">cI", b"A", len(items)) + items
    if isinstance(value, Decimal):
        return _decimal(value)
    raw = str(value).encode("utf-8", "backslashreplace")
    return struct.pack(">cI", b"S", len(raw)) + raw


def _decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -255 <= exponent <= 0:
        number = int("".join(map(str, digits))) * (-1 if sign else 1)
        if -(1 << 31) <= number < 1 << 31:
            return struct.pack(">cBi", b"D", -exponent, number)
    return _value(str(value))
