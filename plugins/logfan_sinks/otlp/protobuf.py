"""The messages of OpenTelemetry's log protocol, as bytes. Sans-I/O.

The numbers of fields are those of opentelemetry-proto 1.x, `logs/v1` and `common/v1`. By hand it
takes a third of what the generated classes do.
"""

import struct
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from logfan_sinks.row import json_of

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DOUBLE = struct.Struct("<d")
_LONG = struct.Struct("<Q")
_INT64 = 1 << 63
_MAX_DEPTH = 25
"""Each level is three messages in each other, and readers stop at 100. Deeper values are JSON."""
_SEVERITIES = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}


def varint(number: int) -> bytes:
    """An unsigned number of up to 64 bits."""
    number &= (1 << 64) - 1
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def field(number: int, content: bytes) -> bytes:
    """A field that holds bytes, text, or another message."""
    return _tag(number, _BYTES) + varint(len(content)) + content


def attribute(name: str, value: Any, number: int = 6) -> bytes:
    """A `KeyValue`, as field `number` of what it stands in."""
    return field(number, _key_value(name, value))


def _key_value(name: str, value: Any, depth: int = 0) -> bytes:
    return field(1, _utf8(name)) + field(2, any_value(value, depth))


def any_value(value: Any, depth: int = 0) -> bytes:
    """An `AnyValue`: whatever JSON or headers hold."""
    if isinstance(value, str):
        return field(1, _utf8(value))
    if value is None:
        return b""
    if depth > _MAX_DEPTH:
        return field(1, json_of(value).encode())
    if isinstance(value, bool):
        return _tag(2, _VARINT) + varint(value)
    if isinstance(value, int):
        if -_INT64 <= value < _INT64:
            return _tag(3, _VARINT) + varint(value)
        # As the specification has it: a double would lose digits, as of an id.
        return field(1, str(value).encode())
    if isinstance(value, float | Decimal):
        return _tag(4, _FIXED64) + _DOUBLE.pack(float(value))
    if isinstance(value, bytes):
        return field(7, value)
    if isinstance(value, Mapping):
        pairs = [field(1, _key_value(str(key), one, depth + 1)) for key, one in value.items()]
        return field(6, b"".join(pairs))
    if isinstance(value, list | tuple):
        return field(5, b"".join([field(1, any_value(one, depth + 1)) for one in value]))
    return field(1, _utf8(str(value)))


def log_record(
    *,
    seconds: float | None,
    observed: float,
    level: str | None,
    body: Any,
    attributes: Iterable[bytes],
    trace: tuple[bytes, bytes] | None,
) -> bytes:
    """A `LogRecord`. Times are seconds since 1970 (UTC); `trace` is (trace id, span id)."""
    parts = [] if seconds is None else [_tag(1, _FIXED64), _nanoseconds(seconds)]
    if level is not None:
        parts += _tag(2, _VARINT), varint(_SEVERITIES[level]), field(3, level.encode())
    parts.append(field(5, any_value(body)))
    parts += attributes
    if trace is not None:
        parts += field(9, trace[0]), field(10, trace[1])
    parts += _tag(11, _FIXED64), _nanoseconds(observed)
    return b"".join(parts)


def request(resource: Mapping[str, Any], records: Iterable[bytes]) -> bytes:
    """An `ExportLogsServiceRequest` with one resource and one scope."""
    attributes = b"".join([attribute(name, value, 1) for name, value in resource.items()])
    scope = field(1, field(1, b"logfan"))
    logs = b"".join([field(2, record) for record in records])
    return field(1, field(1, attributes) + field(2, scope + logs))


def partial_success(response: bytes) -> tuple[int, str]:
    """Of an `ExportLogsServiceResponse`: how many records were rejected, and why. (0, "") where
    none were. Raises ValueError where it is no such message."""
    rejected, why = 0, ""
    for number, content in _fields(response):
        if number == 1 and isinstance(content, bytes):
            for inner, value in _fields(content):
                if inner == 1 and isinstance(value, int):
                    rejected = value
                elif inner == 2 and isinstance(value, bytes):
                    why = value.decode("utf-8", "replace")
    return rejected, why


def _fields(message: bytes) -> Iterable[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("no message of protobuf")
        if at + size > len(message):
            raise ValueError("a torn message")
        yield tag >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError("a torn message")


def _nanoseconds(seconds: float) -> bytes:
    return _LONG.pack(min(max(round(seconds * 1e6) * 1000, 0), (1 << 64) - 1))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
