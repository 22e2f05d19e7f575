"""One record as one line: JSON with its origin, text safe for a terminal, or the bytes. Pure."""

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import orjson

from logfan import Properties, Record

Format = Literal["json", "text", "raw"]

# Beside the headers, in the order of the line; what the publisher left out is left out.
_PROPERTIES = (
    "message_id", "timestamp", "app_id", "type", "content_type", "content_encoding",
    "correlation_id", "reply_to", "user_id", "priority", "delivery_mode", "expiration",
)  # fmt: skip
_NO_PROPERTIES = Properties()
_MAX_DEPTH = 32

# Everything that moves a cursor, breaks a line, or turns the direction of the text.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def encoder(form: Format) -> Callable[[Record], bytes]:
    """The function that makes a line, without its newline, of a record."""
    return {"json": encode_json, "text": encode_text, "raw": encode_raw}[form]


def encode_raw(record: Record) -> bytes:
    """The body's bytes as they are."""
    return record.body


def encode_text(record: Record) -> bytes:
    """The body as UTF-8 text, control characters escaped (`\\n`, `\\x1b`, `\\u202e`)."""
    return escape(record.text).encode()


def escape(text: str) -> str:
    """The text without anything that a terminal would obey. A backslash stays as it is."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def encode_json(record: Record) -> bytes:
    """One object: received_at, exchange, routing_key, the properties that are set, and the body: as
    JSON where it is JSON (to a depth of 1,024), as a string where it is UTF-8, else as base64."""
    entry: dict[str, Any] = {
        "received_at": rfc3339(record.received_at),
        "exchange": record.exchange,
        "routing_key": record.routing_key,
    }
    if record.redelivered:
        entry["redelivered"] = True
    properties = record.properties
    if properties != _NO_PROPERTIES:
        for name in _PROPERTIES:
            value = getattr(properties, name)
            if value is not None:
                entry[name] = value
        if properties.headers:
            entry["headers"] = dict(properties.headers)
    entry["body"] = _body(record)
    try:
        return orjson.dumps(entry, _encodable, orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):
        # Broken text or a very deep table: rare, so it is looked for only after it was found.
        cleaned = {key: _clean(value) for key, value in entry.items() if key != "body"}
        return orjson.dumps({**cleaned, "body": entry["body"]}, _encodable)


@lru_cache(maxsize=256)
def rfc3339(seconds: float) -> str:
    """`2026-11-24T10:00:00.123456Z`. All records of one read share the time."""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _body(record: Record) -> Any:
    body = record.body
    try:
        record.json()
    except ValueError:
        try:
            return body.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(body).decode()}
    # The publisher's own bytes: large numbers, the order of keys and double keys stay as they are.
    # JSON has no raw line breaks inside strings, so each of them is layout.
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return orjson.Fragment(body)


def _encodable(value: Any) -> Any:
    """What orjson does not know of the types that AMQP headers have."""
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode()}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Decimal):
        return str(value)
    return str(value)


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
