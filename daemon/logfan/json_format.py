"""Records as lines of JSON: where they come from, their properties, the body as it came. Sans-I/O.

The bytes are put together by hand: this is on the path of every message, and a dict of all of it
would cost five times as much. What neighbours have in common is made once for them; the bytes of
properties that are like earlier ones become JSON without being decoded.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from logfan.amqp_properties import NO_SHAPE, Known
from logfan.charsets import PIECE_BYTES, is_utf8, pieces_of
from logfan.json_trees import Odd
from logfan.record import UNPARSED, Properties, Record

# What the publisher left out is left out. The first of the properties differ from message to
# message; the others are mostly the same for all messages of one publisher.
_OWN = 4
_COMMON_NAMES = Properties._fields[_OWN:]
_NEWLINE, _RETURN = b"\n\r"
_ID_KEY, _BODY_KEY, _CLOSE = b',"message_id":', b',"body":', b"}"
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_MAX_DEPTH = 200
_known: Known[bytes] = Known()
"""What follows the id and the time in JSON, until the body."""


def json_lines(records: Iterable[Record]) -> list[bytes]:
    """Each record as one JSON object on one line, without the newline.

    It holds received_at, exchange, routing_key, `redelivered` where it is true, the properties and
    headers that are set, and the body: as JSON where it is JSON (to a depth of 1,024, and so many
    values as `Record.json` parses), as a string where it is UTF-8, else as `{"base64": …}`.
    """
    lines: list[bytes] = []
    add, dumps, join = lines.append, orjson.dumps, b"".join
    origin, start, start_id = None, b"", b""
    before, beginning, time_bytes, rests = NO_SHAPE
    last_time = time = b""
    for record in records:
        if record._origin is not origin:
            origin = record._origin
            start = _origin(
                origin.received_at, origin.exchange, origin.routing_key, origin.redelivered
            )
            start_id = start + _ID_KEY
        body = record._body
        parsed = record._json
        if parsed is UNPARSED:
            parsed = record._parse()
        if type(parsed) is Odd:
            body, is_json = _json_of(record)
            if not is_json:
                body = _no_json(body)
        # The publisher's own bytes: large numbers, the order of keys and double keys stay as they
        # are. JSON has no raw line break inside a string: each of them, and what surrounds it, is
        # layout.
        if _NEWLINE in body or _RETURN in body:
            body = join(_on_one_line(body))
        raw = record._properties
        if type(raw) is bytes:
            if not raw.startswith(beginning):
                before, beginning, time_bytes, rests = _known.shape_of(raw)
            if before < len(raw):
                id_end = before + 1 + raw[before]
                end = id_end + time_bytes
                rest = rests.get(raw[end:])
                if rest is not None and end <= len(raw):
                    if raw[id_end:end] != last_time:
                        last_time = raw[id_end:end]
                        time = b',"timestamp":%d' % int.from_bytes(last_time) if last_time else b""
                    message_id = raw[before + 1 : id_end].decode("utf-8", "backslashreplace")
                    add(join((start_id, dumps(message_id), time, rest, body, _CLOSE)))
                    continue
        add(join((start, _members(record), body, _CLOSE)))
    return lines


def json_pieces(record: Record) -> Iterator[bytes]:
    """The line that `json_lines` makes of this record, in pieces: where the body is long, this
    holds no more than the body and a piece of it."""
    origin = record._origin
    yield _origin(origin.received_at, origin.exchange, origin.routing_key, origin.redelivered)
    yield _members(record)
    body, is_json = _json_of(record)
    if not is_json:
        yield from _text_pieces(body) if is_utf8(body) else _base64_pieces(body)
    elif _NEWLINE in body or _RETURN in body:
        yield from _on_one_line(body)
    else:
        yield body
    yield _CLOSE


def _json_of(record: Record) -> tuple[bytes, bool]:
    """The body's JSON, or the body, and which of them. Nothing that was parsed is held."""
    parsed = record._parse()
    if type(parsed) is not Odd:
        return record.body, True
    return (record.body, False) if parsed.body is None else (parsed.body, True)


def _no_json(body: bytes) -> bytes:
    if len(body) <= PIECE_BYTES:
        return orjson.dumps(_text_or_base64(body))
    return b"".join(_text_pieces(body) if is_utf8(body) else _base64_pieces(body))


def _text_pieces(body: bytes) -> Iterator[bytes]:
    yield b'"'
    for piece in pieces_of(body, None, None):
        yield orjson.dumps(piece)[1:-1]
    yield b'"'


def _base64_pieces(body: bytes) -> Iterator[bytes]:
    yield b'{"base64":"'
    step = PIECE_BYTES // 3 * 3
    for at in range(0, len(body), step):
        yield base64.b64encode(body[at : at + step])
    yield b'"}'


def _on_one_line(body: bytes) -> Iterator[bytes]:
    """JSON without its line breaks, and what surrounds them: pieces that end with lines."""
    at, size = 0, len(body)
    while at < size:
        end = size
        if size - at > PIECE_BYTES:
            ends = [body.find(line_end, at + PIECE_BYTES) for line_end in (b"\n", b"\r")]
            end = min((end + 1 for end in ends if end >= 0), default=size)
        yield b"".join([line.strip() for line in body[at:end].splitlines()])
        at = end


def _members(record: Record) -> bytes:
    """What stands between where a record comes from and its body."""
    raw = record._properties
    if type(raw) is bytes and (known := _known.whole.get(raw)) is not None:
        return known
    properties = record.properties
    common = _common(properties[_OWN:]) + _BODY_KEY
    if type(raw) is bytes:
        _known.learn(raw, common)
    return _own(properties) + common


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


def _own(properties: Properties) -> bytes:
    """What differs from message to message."""
    own: dict[str, Any] = {
        "message_id": properties.message_id, "timestamp": properties.timestamp,
        "correlation_id": properties.correlation_id, "headers": properties.headers or None,
    }  # fmt: skip
    return _joined(own)


@lru_cache(maxsize=1024)
def _common(values: tuple[Any, ...]) -> bytes:
    return _joined(dict(zip(_COMMON_NAMES, values, strict=True)))


def _joined(members: dict[str, Any]) -> bytes:
    """What is set of it, each with a comma before it."""
    known = {name: value for name, value in members.items() if value is not None}
    return b",%b" % _dumps(known)[1:-1] if known else b""


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
