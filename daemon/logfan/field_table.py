"""AMQP field tables from bytes and into them: the headers of messages. Sans-I/O.

Read as RabbitMQ does, which differs from the specification in places. What cannot be read is kept.
"""

import calendar
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

UNREADABLE = "x-logfan-unreadable"
"""The header that holds the bytes of a field table from where they cannot be read."""
UNREADABLE_ERRORS = (struct.error, IndexError, KeyError)
"""What `entries` and `read_value` raise at bytes that cannot be read."""
_SHORT_BYTES = 255
_DEPTH = 100
"""So deep may tables and lists be nested; what is deeper is kept as bytes."""
_NUMBERS = {
    b"t": ">?", b"b": ">b", b"B": ">B", b"U": ">h", b"u": ">H", b"s": ">h", b"I": ">i",
    b"i": ">I", b"l": ">q", b"L": ">q", b"f": ">f", b"d": ">d",
}  # fmt: skip


class FarMoment(int):
    """A timestamp beyond the calendar, in seconds since 1970 (UTC)."""


def decode_table(raw: bytes, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """The field table that begins at `at`, and where it ends. Raises struct.error where its length
    does not fit; what cannot be read inside is kept as `UNREADABLE`."""
    at, end = at + 4, at + 4 + length(raw, at)
    if end > len(raw):
        raise struct.error("a field table longer than its frame")
    table: dict[str, Any] = {}
    try:
        for name, _, read, value in entries(raw, at, end, depth):
            table[name], at = value, read
    except UNREADABLE_ERRORS:
        table[UNREADABLE] = raw[at:end]
    return table, end


def entries(raw: bytes, at: int, end: int, depth: int = 0) -> Iterator[tuple[str, int, int, Any]]:
    """The name, the start (of its type), the end and the value of each entry of a table."""
    while at < end:
        start = at + 1 + raw[at]
        if start > len(raw):
            raise struct.error("a name longer than its frame")
        name = short_text(raw[at + 1 : start])
        value, at = read_value(raw, start, end, depth)
        yield name, start, at, value


def read_value(raw: bytes, at: int, end: int, depth: int = 0) -> tuple[Any, int]:
    """The value that begins with its type at `at`, and where it ends: not behind `end`."""
    if depth > _DEPTH:
        raise KeyError("nested too deeply")
    kind, at = raw[at : at + 1], at + 1
    value: Any = None
    if kind in (b"S", b"x"):
        at, start = at + 4 + length(raw, at), at + 4
        value = text_or_bytes(raw[start:at]) if kind == b"S" else raw[start:at]
    elif kind in _NUMBERS:
        (value,) = struct.unpack_from(_NUMBERS[kind], raw, at)
        at += struct.calcsize(_NUMBERS[kind])
    elif kind == b"T":
        value, at = _moment(*struct.unpack_from(">Q", raw, at)), at + 8
    elif kind == b"D":
        places, number = struct.unpack_from(">Bi", raw, at)
        value, at = Decimal(number).scaleb(-places), at + 5
    elif kind == b"F":
        value, at = decode_table(raw, at, depth + 1)
    elif kind == b"A":
        at, stop = at + 4, at + 4 + length(raw, at)
        value = []
        while at < stop:
            item, at = read_value(raw, at, stop, depth + 1)
            value.append(item)
    elif kind != b"V":
        raise KeyError(kind)
    if at > end:
        raise struct.error("a field longer than its table")
    return value, at


def length(raw: bytes, at: int) -> int:
    """Of a table, a list or a long string: the four bytes at `at`."""
    (size,) = struct.unpack_from(">I", raw, at)
    return int(size)


def short_text(raw: bytes) -> str:
    """A short string, without its length: a name, or a property. Odd bytes are escaped."""
    return raw.decode("utf-8", "backslashreplace")


def text_or_bytes(raw: bytes) -> str | bytes:
    """A long string, without its length; as it is where it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _moment(seconds: int) -> datetime | FarMoment:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return FarMoment(seconds)


def encode_table(table: Mapping[str, Any]) -> bytes:
    """A field table, its length first. Keys that are too long are cut."""
    body = b"".join([encode_short(name) + _value(value) for name, value in table.items()])
    return struct.pack(">I", len(body)) + body


def encode_short(text: str) -> bytes:
    """A short string, its length first; cut where it is too long."""
    raw = text.encode("utf-8", "backslashreplace")[:_SHORT_BYTES]
    return struct.pack("B", len(raw)) + raw


def _value(value: Any) -> bytes:
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, FarMoment):
        return struct.pack(">cQ", b"T", value)
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
