"""One record as one line: JSON with its origin, text safe for a terminal, or the bytes. Pure."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

import orjson

from logfan import Properties, Record

Format = Literal["json", "text", "raw"]

# What the publisher left out is left out. The first of the properties differ from message to
# message; the others are mostly the same for all messages of one publisher.
_OWN = 4
_COMMON_NAMES = Properties._fields[_OWN:]
_BODY = attrgetter("body")
_NEWLINE, _RETURN = b"\n\r"
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_MAX_DEPTH = 200
_LONG = 65536
_TABLE_MAX = 4096

# Everything that moves a cursor, breaks a line, or turns the direction of the text.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def encoder(form: Format) -> Callable[[Iterable[Record]], list[bytes]]:
    """The function that makes lines, without their newlines, of records."""
    return {"json": _all_json, "text": _all_text, "raw": _all_raw}[form]


def as_readable(record: Record) -> Record:
    """With its content_encoding undone; as it came where that cannot be done."""
    try:
        return record.decoded()
    except ValueError:
        return record


def _all_raw(records: Iterable[Record]) -> list[bytes]:
    return [*map(_BODY, records)]


def _all_text(records: Iterable[Record]) -> list[bytes]:
    return [*map(encode_text, records)]


def encode_raw(record: Record) -> bytes:
    """The body's bytes as they are."""
    return record.body


def encode_text(record: Record) -> bytes:
    """The body as UTF-8 text, control characters escaped (`\\n`, `\\x1b`, `\\u202e`)."""
    return escape(record.text).encode()


def escape(text: str) -> str:
    """The text without anything that a terminal would obey.

    A backslash stays as it is, so that paths and regular expressions read as they were written:
    the two characters `\\n` and a line break look the same here. Who must tell them apart takes
    the format `json`.
    """
    if text.isprintable():
        return text
    if len(text) <= _LONG:
        return _UNSAFE.sub(_escaped, text)
    return escape_long(text, _ESCAPES)


def escape_long(text: str, table: "EscapeTable") -> str:
    """Piece by piece by a table: a long body of nothing but control characters must not cost
    minutes, nor many times its size in memory."""
    pieces = (text[at : at + _LONG] for at in range(0, len(text), _LONG))
    return "".join([one if one.isprintable() else one.translate(table) for one in pieces])


class EscapeTable(dict[int, str]):
    """What each character becomes, found when it is first met; it stays small."""

    def __init__(self, escaped: Callable[[str], str]) -> None:
        super().__init__()
        self._escaped = escaped

    def __missing__(self, code: int) -> str:
        found = self._escaped(chr(code))
        if len(self) < _TABLE_MAX:
            self[code] = found
        return found


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


_ESCAPES = EscapeTable(lambda char: _UNSAFE.sub(_escaped, char))


def encode_json(record: Record) -> bytes:
    """One object: received_at, exchange, routing_key, `redelivered` where it is true, the
    properties and headers that are set, and the body: as JSON where it is JSON (to a depth of
    1,024), as a string where it is UTF-8, else as `{"base64": …}`."""
    return _all_json((record,))[0]


def _all_json(records: Iterable[Record]) -> list[bytes]:
    # Bytes put together by hand: this is on the road of every message, and a dict of all of it
    # would cost five times as much. The body goes in as it came, not parsed and written again.
    # What neighbours have in common is made once for them.
    lines = []
    origin, start = None, b""
    common: list[Any] | None = None
    rest = b""
    for record in records:
        if record.origin is not origin:
            origin = record.origin
            start = _origin(
                origin.received_at, origin.exchange, origin.routing_key, origin.redelivered
            )
        headers, message_id, timestamp, correlation_id, *theirs = record.properties
        if theirs != common:
            common, rest = theirs, _common(tuple(theirs)) + b',"body":'
        if headers or correlation_id is not None:
            own = _own(headers, message_id, timestamp, correlation_id)
        elif message_id is None:
            own = _time(timestamp)
        else:
            # The common case, at a third of the cost of a dict.
            own = _id(message_id) + _time(timestamp)
        body = record.body
        try:
            record.json()
        except ValueError:
            body = orjson.dumps(_text_or_base64(body))
        # The publisher's own bytes: large numbers, the order of keys and double keys stay as they
        # are. JSON has no raw line break inside a string: each of them, and what surrounds it, is
        # layout.
        if _NEWLINE in body or _RETURN in body:
            body = b"".join([line.strip() for line in body.splitlines()])
        lines.append(b"".join((start, own, rest, body, b"}")))
    return lines


@lru_cache(maxsize=1024)
def _origin(received_at: float, exchange: str, routing_key: str, redelivered: bool) -> bytes:
    """The line's beginning, an open object. All records of one read share the time."""
    origin: dict[str, Any] = {
        "received_at": rfc3339(received_at),
        "exchange": exchange,
        "routing_key": routing_key,
    }
    if redelivered:
        origin["redelivered"] = True
    return _dumps(origin)[:-1]


def _id(message_id: str) -> bytes:
    try:
        return b',"message_id":' + orjson.dumps(message_id)
    except TypeError:  # broken text
        return b"," + _dumps({"message_id": message_id})[1:-1]


@lru_cache(maxsize=1024)
def _time(timestamp: int | None) -> bytes:
    return b"" if timestamp is None else b',"timestamp":%d' % timestamp


def _own(
    headers: Mapping[str, Any], message_id: str | None, timestamp: int | None, other_id: str | None
) -> bytes:
    """What differs from message to message."""
    own: dict[str, Any] = {
        "message_id": message_id, "timestamp": timestamp, "correlation_id": other_id,
    }  # fmt: skip
    own = {name: value for name, value in own.items() if value is not None}
    if headers:
        own["headers"] = headers
    return b",%b" % _dumps(own)[1:-1]


@lru_cache(maxsize=1024)
def _common(values: tuple[Any, ...]) -> bytes:
    names = zip(_COMMON_NAMES, values, strict=True)
    known = {name: value for name, value in names if value is not None}
    return b"," + _dumps(known)[1:-1] if known else b""


@lru_cache(maxsize=256)
def rfc3339(seconds: float) -> str:
    """`2026-11-24T10:00:00.123456Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _text_or_base64(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _dumps(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, _encodable, _OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # Broken text, odd keys or a very deep table: rare, so it is looked for only after the fact.
        return orjson.dumps(_clean(value), _encodable, _OPTIONS)


def _encodable(value: Any) -> Any:
    """What orjson does not know of the types that AMQP headers have."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_or_base64(bytes(value))
    return dict(value) if isinstance(value, Mapping) else str(value)


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
