"""Records as lines of JSON: where they come from, their properties, the body as it came. Sans-I/O.

The bytes are put together by hand: this is on the path of every message, and a dict of all of it
would cost five times as much. What neighbours have in common is made once for them; the bytes of
properties that are like earlier ones become JSON without being decoded.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import repeat
from operator import attrgetter
from typing import Any

import orjson

from logfan.amqp_properties import FIELD, READ, SHORT, TEXT, TIME, Row, Slot, Templates
from logfan.charsets import PIECE_BYTES, is_utf8, pieces_of
from logfan.json_trees import Odd
from logfan.record import UNPARSED, Origin, Properties, Record, json_of

# What the publisher left out is left out.
_HEADERS, _ID, _TIME, _CORRELATION, *_OTHERS = Properties._fields
_NAMES = (_ID, _TIME, _CORRELATION, _HEADERS, *_OTHERS)
_ORIGIN = attrgetter("origin")
_NEWLINE, _RETURN = b"\n\r"
_BODY_KEY, _CLOSE = b',"body":', b"}"
_AS_IT_IS = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""What a string of JSON holds as it stands."""
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_MAX_DEPTH = 200
_MANY = 7
"""From so many messages on, sorting them by what they have in common costs less than looking up
each: measured."""


def json_lines(records: Iterable[Record]) -> list[bytes]:
    """Each record as one JSON object on one line, without the newline.

    It holds received_at, exchange, routing_key, `redelivered` where it is true, the properties and
    headers that are set, and the body: as JSON where it is JSON (to a depth of 1,024, and so many
    values as `Record.json` parses), as a string where it is UTF-8, else as `{"base64": …}`. NaN,
    Infinity and -Infinity in it, which JSON has not, are null; then `body_replaced` follows, with
    the names of those that were there: `"body":{"load":null},"body_replaced":["NaN"]`.
    """
    records = [*records]
    bodies = _bodies(records)
    if len(records) < _MANY:
        return [
            b"".join((_start(record.origin), _members(record), body, _CLOSE))
            for record, body in zip(records, bodies, strict=True)
        ]
    starts, ends = map(_start, map(_ORIGIN, records)), repeat(_CLOSE, len(records))
    return [*map(b"".join, zip(starts, *_all_members(records), bodies, ends, strict=True))]


def _all_members(records: Sequence[Record]) -> Sequence[Iterable[bytes]]:
    """`_members` of all of them: in pieces, a column each."""
    whole = [b""] * len(records)
    for known, places, slots in _templates.groups([record._properties for record in records]):
        try:
            columns = known.columns(slots, len(places)) if known else None
        except ValueError:
            columns = None
        if columns is not None and len(places) == len(records):
            return columns
        members = (
            [_members(records[place]) for place in places]
            if columns is None
            else map(b"".join, zip(*columns, strict=True))
        )
        for place, one in zip(places, members, strict=True):
            whole[place] = one
    return [whole]


def _bodies(records: Iterable[Record]) -> Iterator[bytes]:
    """The value of `body` for each."""
    for record in records:
        body = record.body
        parsed = record._json
        if parsed is UNPARSED:
            parsed = record._parse()
        if type(parsed) is Odd:
            yield b"".join(_odd_body(record))
            continue
        # The publisher's own bytes: large numbers, the order of keys and double keys stay as they
        # are. JSON has no raw line break inside a string: each of them, and what surrounds it, is
        # layout.
        if _NEWLINE in body or _RETURN in body:
            body = b"".join(_on_one_line(body))
        yield body


def _odd_body(record: Record) -> Iterator[bytes]:
    """The same of one that is not JSON as it stands, or is long; in pieces where it is long."""
    body, is_json, replaced, _ = json_of(record)
    if not is_json:
        if len(body) <= PIECE_BYTES:
            yield orjson.dumps(_text_or_base64(body))
        else:
            yield from _text_pieces(body) if is_utf8(body) else _base64_pieces(body)
    elif _NEWLINE in body or _RETURN in body:
        yield from _on_one_line(body)
    else:
        yield body
    if replaced:
        yield b',"body_replaced":%b' % orjson.dumps(replaced)


class _Members:
    """The JSON of properties that are alike: `texts`, and between them what stands in slots."""

    def __init__(self, properties: Properties, slots: Sequence[Slot]) -> None:
        marked, headers = properties._asdict(), dict(properties.headers)
        for number, slot in enumerate(slots):
            # JSON has no such byte.
            mark = b'"\0%d\0"' if slot.kind in (SHORT, TEXT) else b"\0%d\0"
            (headers if slot.in_headers else marked)[slot.name] = orjson.Fragment(mark % number)
        parts = _json_of_properties(Properties(**{**marked, "headers": headers})).split(b"\0")
        self._pieces = parts
        """Texts, and between them what stands in slots."""
        numbers = map(int, parts[1::2])
        self._slots = [(number, slots[number].kind) for number in numbers]

    def text(self, values: Row) -> bytes:
        """Of a message with these values in its slots. Raises ValueError where one of them is of
        another kind than what was seen there, as bytes in place of text."""
        pieces = self._pieces.copy()
        at = 1
        for number, kind in self._slots:
            pieces[at] = _json_value(kind, values[number])
            at += 2
        return b"".join(pieces)

    def columns(self, slots: Sequence[Row], count: int) -> list[Iterable[bytes]]:
        """Of `count` messages: a column for each piece of their JSON. As `text` does."""
        columns: list[Iterable[bytes]] = [repeat(text, count) for text in self._pieces]
        columns[1::2] = [_json_column(kind, slots[number]) for number, kind in self._slots]
        return columns


def _json_value(kind: int, value: Any) -> bytes:
    if kind == TIME:
        return b"%d" % value
    if kind == FIELD:
        return dumps(READ[FIELD](value))
    try:
        text = value.decode()
    except UnicodeDecodeError:
        if kind == TEXT:
            raise
        text = READ[SHORT](value)
    return orjson.dumps(text)[1:-1]


def _json_column(kind: int, column: Row) -> Iterable[bytes]:
    if kind == TIME:
        return orjson.dumps(column)[1:-1].split(b",")
    if kind != FIELD and not b"".join(column).translate(None, _AS_IT_IS):
        return column
    return [_json_value(kind, value) for value in column]


_templates: Templates[_Members] = Templates()


def json_pieces(record: Record) -> Iterator[bytes]:
    """The line that `json_lines` makes of this record, in pieces: where the body is long, this
    holds no more than the body and a piece of it."""
    yield _start(record.origin)
    yield _members(record)
    yield from _odd_body(record)
    yield _CLOSE


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
    found = _templates.find(raw) if type(raw) is bytes else None
    if found is not None:
        known, values = found
        try:
            return known.text(values)
        except ValueError:
            pass
    properties = record.properties
    if type(raw) is bytes:
        _templates.learn(raw, partial(_Members, properties))
    return _json_of_properties(properties)


@lru_cache(maxsize=256)
def _start(origin: Origin) -> bytes:
    """The line's beginning, an open object."""
    members: dict[str, Any] = {
        "received_at": rfc3339(origin.received_at),
        "exchange": origin.exchange,
        "routing_key": origin.routing_key,
    }
    if origin.redelivered:
        members["redelivered"] = True
    return dumps(members)[:-1]


def _json_of_properties(properties: Properties) -> bytes:
    """What is set of them, each with a comma before it, and the key of the body."""
    values = properties._asdict()
    values["headers"] = values["headers"] or None
    known = {name: values[name] for name in _NAMES if values[name] is not None}
    return b",%b" % dumps(known)[1:-1] + _BODY_KEY if known else _BODY_KEY


def rfc3339(seconds: float) -> str:
    """`2026-11-24T10:00:00.123456Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _text_or_base64(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def dumps(value: Any) -> bytes:
    """Any value that a message may have in its headers as JSON: bytes as text where they are text,
    else as `{"base64": …}`."""
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
