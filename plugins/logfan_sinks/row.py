"""A record as a row: what the sinks of databases have in common. Sans-I/O."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import AfterValidator

import logfan

_ISO = "%Y-%m-%dT%H:%M:%S.%f"
_MESSAGE_CHARS = 10_000
_ID_BYTES = 512
"""An index takes no text without end: some 2,700 bytes in PostgreSQL."""
_UTF8_CHAR_BYTES = 4
_level, _message = logfan.field("level").read, logfan.field("message").read
_time = logfan.field("time").read


def _checked(name: str) -> str:
    logfan.field(name)
    return name


FieldName = Annotated[str, AfterValidator(_checked)]
"""A field's name in a config, checked when it is read."""


class Row(NamedTuple):
    """The columns."""

    id: str | None
    """The hash of one that an index or a database does not take as it is."""
    received_at: float
    """Seconds since 1970 (UTC)."""
    exchange: str
    routing_key: str
    level: str | None
    message: str
    headers: str | None
    """JSON; None where there are none."""
    properties: str | None
    """JSON of those that are set; None where none are."""
    body: str | bytes
    """Text where it is UTF-8."""


def row_of(record: logfan.Record, identity: Sequence[str] = ()) -> Row:
    """Never raises for what a message holds."""
    given = record.properties._asdict()
    headers = given.pop("headers")
    properties = {name: value for name, value in given.items() if value is not None}
    return Row(
        _indexable(record.id(*identity)),
        record.received_at,
        text_of(record.exchange),
        text_of(record.routing_key),
        _level(record),
        text_of(_message(record)[:_MESSAGE_CHARS]),
        json_of(headers) if headers else None,
        json_of(properties) if properties else None,
        _body(record.body),
    )


def time_of(record: logfan.Record) -> str:
    """The record's own time, as 2026-11-25T23:59:59.000Z; without one that of its receipt."""
    own: str | None = _time(record)
    return own or datetime.fromtimestamp(record.received_at, UTC).strftime(_ISO)[:-3] + "Z"


def text_of(text: str) -> str:
    """The text as UTF-8 can carry it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _indexable(identity: str | None) -> str | None:
    """Equal ones stay equal, and different ones differ: nothing is cut or replaced."""
    if identity is None:
        return None
    is_short = len(identity) * _UTF8_CHAR_BYTES <= _ID_BYTES
    if is_short and identity.isascii() and "\0" not in identity:
        return identity
    encoded = identity.encode("utf-8", "surrogatepass")
    if len(encoded) <= _ID_BYTES and "\0" not in identity and text_of(identity) == identity:
        return identity
    return hashlib.blake2b(encoded, digest_size=32).hexdigest()


def _body(body: bytes) -> str | bytes:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def json_of(value: Any) -> str:
    """JSON of headers or properties, whatever they hold."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # text that is no Unicode, or a number beyond 64 bits
        return orjson.dumps(_tame(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return dict(value) if hasattr(value, "keys") else str(value)


def _tame(value: Any, depth: int = 0) -> Any:
    if depth > 100:
        return "…"
    if isinstance(value, str):
        return text_of(value)
    if hasattr(value, "items"):
        return {text_of(str(key)): _tame(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_tame(one, depth + 1) for one in value]
    if value is None or isinstance(value, bool | float):
        return value
    return value if isinstance(value, int) and abs(value) < 1 << 63 else text_of(str(_plain(value)))
