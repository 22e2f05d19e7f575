"""One message as every sink sees it. Everything public here is also a name of `logfan`.

What a body becomes when it is parsed or decoded is kept for the sinks still to come, within bounds.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from weakref import ReferenceType, ref

import orjson

from logfan.charsets import (
    charset,
    in_utf8,
    is_unlike_json,
    may_be_another,
    pieces_of,
    text_of,
    with_charset,
)
from logfan.compression import codings, codings_of_header, decode, undeclared_codings
from logfan.dotted_path import walk_to
from logfan.json_trees import LONG, SMALL_BYTES, TIMES_MAX, Odd, parse, with_odd_numbers

UNPARSED = object()
"""In the place of a body that is not parsed yet."""
LARGE_PROPERTIES = 4096
"""Properties of more bytes are decoded anew at each look: they may become many times their size."""
_COMPRESSION = "compression"
"""The header in which kombu and Celery declare it."""
NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


class Properties(NamedTuple):
    """The basic properties of AMQP 0-9-1, as the publisher set them; None where it did not.

    `timestamp` is in whole seconds since 1970 (UTC); `expiration` is a string of milliseconds;
    `delivery_mode` is 2 for persistent messages. Header values are str, bytes (where the text is
    not UTF-8), int, float, bool, Decimal, datetime, None, tuples of these, or mappings.
    """

    # First what differs from message to message: the rest is compared as one slice.
    headers: Mapping[str, Any] = NO_HEADERS
    message_id: str | None = None
    timestamp: int | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    reply_to: str | None = None
    expiration: str | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


@dataclass(slots=True, eq=False)
class Origin:
    """What records of one read have in common: where they were published, and when they came."""

    exchange: str
    routing_key: str
    redelivered: bool
    received_at: float
    decode: Callable[[Any], Properties]
    """Makes properties of what a record holds in their place."""


def _read_only(slot: str, doc: str) -> Any:
    """A property without a Python call in it: records are read more often than anything else."""
    return property(attrgetter(slot), doc=doc)


def _call(function: Callable[[], Properties]) -> Properties:
    return function()


class Record:
    """One message, as every sink sees it. Read it; never change it, nor what it holds.

    The same record is handed to all sinks, each on its own thread: its body and what `json()` and
    `headers` return is shared, so copy before you change anything; `replace` makes another record.
    """

    __slots__ = ("__weakref__", "_decoded", "_json", "_properties", "body", "origin")
    _decoded: "Record | str | None"
    body: Final[bytes]  # for type checkers: a property would cost each look at it a call
    """The body's bytes, as published."""
    origin: Origin
    """What it shares with others of the same read: exchange, routing_key, redelivered and
    received_at. Records that share it hold the same object: compare with `is`."""

    def __init__(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        redelivered: bool,
        received_at: float,
        properties: Properties | Callable[[], Properties],
    ) -> None:
        """`properties` may be a function, called at the first look (on any sink's thread)."""
        self.body = body
        self.origin = Origin(exchange, routing_key, redelivered, received_at, _call)
        self._properties: Any = properties
        self._json: Any = UNPARSED if len(body) <= SMALL_BYTES else LONG

    exchange: str = _read_only("origin.exchange", "The exchange it was published to.")
    routing_key: str = _read_only("origin.routing_key", "The routing key it was published with.")
    redelivered: bool = _read_only(
        "origin.redelivered",
        "True where the broker delivered this message before: maybe a duplicate.",
    )
    received_at: float = _read_only(
        "origin.received_at", "When logfan read it: seconds since 1970 (UTC)."
    )

    @property
    def properties(self) -> Properties:
        """The AMQP properties, decoded at the first look."""
        properties = self._properties
        if type(properties) is not Properties:
            raw = properties
            properties = self.origin.decode(raw)
            if type(raw) is not bytes or len(raw) <= LARGE_PROPERTIES:
                self._properties = properties
        known: Properties = properties
        return known

    @property
    def headers(self) -> Mapping[str, Any]:
        """The publisher's headers; empty where there are none."""
        return self.properties.headers

    @property
    def message_id(self) -> str | None:
        """The publisher's message id."""
        return self.properties.message_id

    @property
    def timestamp(self) -> int | None:
        """The publisher's timestamp: whole seconds since 1970 (UTC)."""
        return self.properties.timestamp

    @property
    def size(self) -> int:
        """The body's length in bytes."""
        return len(self.body)

    @property
    def text(self) -> str:
        """The body as text: UTF-8, or in the character set that the publisher declared.

        That is one of `content_type` (`text/plain; charset=iso-8859-1`) or `content_encoding`
        (`latin-1`). Bytes that are no text in it are escaped, as `\\xe9`: none is lost.
        """
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            return text_of(self.body, *self._declared())
        return text_of(self.body, *self._declared()) if may_be_another(text) else text

    def text_pieces(self) -> Iterator[str]:
        """`text`, piece by piece: for a body so long that it must not be held several times."""
        return pieces_of(self.body, *self._declared())

    def _declared(self) -> tuple[str | None, str | None]:
        """What may name the body's character set."""
        properties = self.properties
        return properties.content_type, properties.content_encoding

    def json(self) -> Any:
        """The body parsed as JSON, once for all sinks as a rule.

        A byte order mark before it is no part of it, and it may be in the character set that the
        publisher declared. NaN and infinite numbers, which Python's `json` writes, are None. What
        is long is parsed anew where little is known to be kept. Raises ValueError where it is no
        JSON, or where its values might take more than 128 MiB.
        """
        parsed = self._json
        if parsed is UNPARSED:  # as in `_parse`, without its call
            try:
                self._json = parsed = orjson.loads(self.body)
            except ValueError as error:
                parsed = self._odd(error)
        if type(parsed) is Odd:
            if parsed is LONG:
                parsed = _parsed(self)
                if type(parsed) is not Odd:
                    return parsed
            if parsed.body is None:
                raise ValueError(f"the body is not JSON: {parsed.why}")
            return parsed.value
        return parsed

    def _parse(self) -> Any:
        """What `json` gives, or an `Odd`."""
        parsed = self._json
        if parsed is not UNPARSED:
            return _parsed(self) if parsed is LONG else parsed
        try:
            self._json = parsed = orjson.loads(self.body)
        except ValueError as error:
            return self._odd(error)
        return parsed

    def _odd(self, error: ValueError) -> Odd:
        """What becomes of a small body that is no JSON as it stands."""
        odd = with_odd_numbers(self.body)
        if odd is None:
            odd, _ = self._otherwise(Odd(str(error)))
        self._json = odd
        return odd

    def _parse_long(self) -> tuple[Any, int]:
        """The same, and what it may take in memory."""
        parsed, weight = parse(self.body)
        if type(parsed) is not Odd or parsed.body is not None:
            return parsed, weight
        return self._otherwise(parsed)

    def _otherwise(self, odd: Odd) -> tuple[Odd, int]:
        """What is no JSON as it stands may be so in another character set."""
        other = in_utf8(self.body, *self._declared()) if is_unlike_json(self.body) else None
        if other is None:
            return odd, 0
        value, weight = parse(other)
        if type(value) is Odd:
            return value, 0 if value.body is None else weight + len(other)
        return Odd(value=value, body=other), weight + len(other)

    def decoded(self) -> "Record":
        """The same message with its compression undone: gzip, zlib, deflate, bz2, xz, lzma or zstd.

        `content_encoding` declares it (two of them at the most, as `gzip, zstd`), or the header
        `compression`, as kombu and Celery write it. What is zlib or gzip without a word, as GELF
        is, is undone too. `body`, `text`, `json()` and `size` of what it gives are those of the
        decoded body, and what declared the compression is gone. It is the record itself where
        nothing is to be undone. Decoded once for all sinks, while it is at hand and no larger than
        4 MiB. Raises ValueError, with the reason, for an unknown encoding, a torn or damaged
        stream, something behind its end, and for what would be larger than 64 MiB, or than 1 MiB
        and 200 times its size; this is found while decoding, so that no more is ever held.
        """
        try:
            names, _ = _compression_of(self.properties)
        except ValueError as error:
            raise ValueError(f"the body cannot be decoded: {error}") from None
        is_declared = bool(names)
        names = names or undeclared_codings(self.body)
        if not names:
            return self
        # The slot is empty until then: a plain record, which most are, pays nothing for it.
        known: Record | str | None = getattr(self, "_decoded", None)
        if known is None:
            known = _decoded(self, names)
        if isinstance(known, Record):
            return known
        if not is_declared:
            return self  # so it is none
        raise ValueError(f"the body cannot be decoded: {known}")

    def replace(
        self, *, body: bytes | str | None = None, headers: Mapping[str, Any] | None = None
    ) -> "Record":
        """The same message with another body, other headers, or both. All else stays, and so does
        its identity.

        Text becomes UTF-8. The new body is as it is read: what declared a compression of the old
        one is gone, so change the body of `decoded()`. Raises TypeError for anything else.
        """
        properties = self.properties
        if headers is not None:
            if not isinstance(headers, Mapping):
                raise TypeError(f"headers must be a mapping, not {type(headers).__name__}")
            properties = properties._replace(headers=MappingProxyType({**headers}))
        if body is None:
            return with_body(self, self.body, properties)
        if isinstance(body, str):
            body, properties = body.encode(errors="backslashreplace"), as_utf8(properties)
        elif not isinstance(body, bytes):
            raise TypeError(f"a body must be bytes or text, not {type(body).__name__}")
        return with_body(self, body, _uncompressed(properties))

    def id(self, *fields: str) -> str | None:
        """Its identity, for writing it twice without harm; None where it has none.

        That is the publisher's message id; else the first of these fields that is there:
        `headers.NAME`, or a dotted path into a JSON body. A hash of the body is none, as equal
        lines would collapse.
        """
        if self.message_id:
            return self.message_id
        for name in fields:
            root, _, rest = name.partition(".")
            found: Any = None
            if root == "headers" and rest:
                found = walk_to(rest)(self.headers)
            else:
                with suppress(ValueError):
                    found = walk_to(name)(self.json())
            if isinstance(found, str | int) and not isinstance(found, bool) and found != "":
                return str(found)
        return None

    def __repr__(self) -> str:
        return f"<Record {self.exchange!r} {self.routing_key!r} of {self.size} bytes>"


class _Kept:
    """What records hold in one slot beside their bodies, up to so many bytes: the oldest is let go
    first.

    A record may wait long, for a sink that is down, and what it becomes may be large.
    """

    def __init__(self, slot: str, empty: Any, max_bytes: int) -> None:
        """`empty` stands in the slot where the value is made anew when it is asked for."""
        self.lock = threading.Lock()
        """Held while a body is parsed or decoded: one at a time."""
        self._slot, self._empty = slot, empty
        self._max_bytes = max_bytes
        self._kept: deque[tuple[ReferenceType[Record], int]] = deque()
        self._size = 0

    def keep(self, record: Record, value: Any, weight: int) -> None:
        """Have the record hold it, unless it is too large; it may be let go of later."""
        if weight > self._max_bytes // 4:
            return
        setattr(record, self._slot, value)
        if not weight:
            return
        self._kept.append((ref(record), weight))
        self._size += weight
        while self._size > self._max_bytes:
            old, weight = self._kept.popleft()
            self._size -= weight
            if (known := old()) is not None:
                setattr(known, self._slot, self._empty)


_RECORD_BYTES = 2000  # what a record costs beside its body, roughly
_DECODED = _Kept("_decoded", None, max_bytes=16 << 20)
_PARSED = _Kept("_json", LONG, max_bytes=64 << 20)


def _parsed(record: Record) -> Any:
    """What a long body becomes, or an `Odd`; kept for the sinks still to come, as far as that is
    little."""
    with _PARSED.lock:
        parsed = record._json
        if parsed is LONG:
            parsed, weight = record._parse_long()
            _PARSED.keep(record, parsed, weight)
    return parsed


def _compression_of(properties: Properties) -> tuple[Sequence[str], Properties]:
    """What was done to the body, and the properties without the word of it."""
    if names := codings(properties.content_encoding):
        return names, properties._replace(content_encoding=None)
    headers = properties.headers
    declared = headers.get(_COMPRESSION) if headers else None
    if isinstance(declared, str) and (names := codings_of_header(declared)):
        rest = {name: value for name, value in headers.items() if name != _COMPRESSION}
        return names, properties._replace(headers=MappingProxyType(rest))
    return (), properties


def _uncompressed(properties: Properties) -> Properties:
    """Without any word of a compression, known or not."""
    encoding = properties.content_encoding
    if encoding is not None and charset(encoding) is None:
        properties = properties._replace(content_encoding=None)
    with suppress(ValueError):
        return _compression_of(properties)[1]
    rest = {name: value for name, value in properties.headers.items() if name != _COMPRESSION}
    return properties._replace(headers=MappingProxyType(rest))


def as_utf8(properties: Properties) -> Properties:
    """What declared another character set declares UTF-8."""
    encoding = properties.content_encoding
    if encoding is not None and charset(encoding) is not None:
        encoding = "utf-8"
    content_type = properties.content_type
    if content_type is not None:
        content_type = with_charset(content_type, "utf-8")
    return properties._replace(content_type=content_type, content_encoding=encoding)


def _decoded(record: Record, names: Sequence[str]) -> Record | str:
    """The decoded record, or why there is none; kept for the sinks still to come."""
    with _DECODED.lock:
        known: Record | str | None = getattr(record, "_decoded", None)
        if known is None:
            try:
                _, properties = _compression_of(record.properties)
                known = with_body(record, decode(record.body, names), properties)
            except ValueError as error:
                known = record._decoded = str(error)
            else:
                # It may be parsed, and keep that.
                times = TIMES_MAX if known.size <= SMALL_BYTES else 1
                _DECODED.keep(record, known, known.size * times + _RECORD_BYTES)
    return known


def weight(record: Record) -> int:
    """Bytes of its body, and of its properties where these are large."""
    return record.size + large_properties(record._properties)


def large_properties(raw: object) -> int:
    """How many bytes of properties count as those of a body do; 0 where it is few, or not known."""
    return len(raw) if type(raw) is bytes and len(raw) > LARGE_PROPERTIES else 0


def readable(record: Record) -> Record | None:
    """The record with its compression undone, which most have none of; None where that cannot be
    done: nothing is known of its body."""
    try:
        return record.decoded()
    except ValueError:
        return None


class JsonText(NamedTuple):
    """The text of a body."""

    text: bytes
    """JSON in UTF-8 without a byte order mark; the body where that is no JSON."""
    is_json: bool
    replaced: tuple[str, ...] = ()
    """Which of NaN, Infinity and -Infinity are null in it."""
    written: bytes = b""
    """The text with these, where there are any."""


def json_of(record: Record) -> JsonText:
    """The body's JSON, or the body. Nothing that was parsed is held."""
    parsed = record._parse()
    if type(parsed) is not Odd:
        return JsonText(record.body, is_json=True)
    if parsed.body is None:
        return JsonText(record.body, is_json=False)
    return JsonText(parsed.body, True, parsed.replaced, parsed.written or b"")


def with_body(record: Record, body: bytes, properties: Properties) -> Record:
    """The same message with another body and other properties."""
    changed = Record(
        body, record.exchange, record.routing_key, record.redelivered, record.received_at,
        properties,
    )  # fmt: skip
    changed.origin = record.origin
    return changed
