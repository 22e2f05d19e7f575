"""A dead letter that fits into the one frame its properties must fit into. Sans-I/O.

All properties and headers of a message travel in a single frame, whose size broker and client have
agreed upon. A letter has more headers than its record had, so what the publisher set may have to
travel before the body, and the reason to be cut. What is left fits into the smallest frame of AMQP.
"""

import struct
from hashlib import sha256
from typing import Any

from logfan.amqp_properties import EncodedProperties
from logfan.config.amqp_limits import SHORT_BYTES
from logfan.dead_letters.letter import OURS, PACKED, REASON, Letter
from logfan.field_table import decode_table, encode_table
from logfan.record import Properties, Record

_FRAME_BYTES = 8 + 12
"""Of the frame's own (type, channel, size, end) and of the content header (class, weight, size)."""
_SPARE_BYTES = 128
"""For the headers that the broker adds when it delivers."""
_UNLIMITED = 131_072
"""Without a limit for frames a letter is kept to what brokers are set up with."""
_UNMARKED_BYTES = 100_000
"""Earlier only headers beyond this went before the body, without a check value."""


def packed(letter: Letter, frame_max: int) -> Letter:
    """The letter with properties that fit into a frame of `frame_max` bytes (0: no limit): where
    they do not, the publisher's headers go in front of the body, and the reason is cut."""
    room = (frame_max or _UNLIMITED) - _FRAME_BYTES - _SPARE_BYTES
    if _size(letter.properties) <= room:
        return letter
    headers = letter.properties.headers
    ours = {name: value for name, value in headers.items() if name in OURS}
    body = letter.body
    if len(ours) < len(headers):
        theirs = encode_table({n: v for n, v in headers.items() if n not in OURS})
        ours[PACKED] = f"{len(theirs)} {_check(theirs)}"
        body = theirs + body
    properties = letter.properties._replace(headers=ours)
    over = _size(properties) - room
    if over > 0:
        ours = {name: _clipped(name, value, over) for name, value in ours.items()}
        properties = properties._replace(headers=ours)
    return Letter(body, properties)


def whole(record: Record) -> Record:
    """The record with the headers that `packed` put before its body; others as they are, and so
    is one that only claims to be packed."""
    if record.exchange or PACKED not in record.headers:
        return record
    letter = unpacked(Letter(record.body, record.properties))
    return Record(
        letter.body, record.exchange, record.routing_key, record.redelivered, record.received_at,
        letter.properties,
    )  # fmt: skip


def unpacked(letter: Letter) -> Letter:
    """What `packed` was given. Where its mark does not fit the body another program wrote it: the
    mark means nothing, and the letter is as it is."""
    headers = dict(letter.properties.headers)
    mark = headers.pop(PACKED, None)
    if mark is None:
        return letter
    theirs, end = _table_before(letter.body, mark)
    return Letter(letter.body[end:], letter.properties._replace(headers={**theirs, **headers}))


def _table_before(body: bytes, mark: object) -> tuple[dict[str, Any], int]:
    """The headers before the body, and how many bytes they have; none where the mark is not ours.
    A mark can be ours only with the size of these bytes, and their check value."""
    try:
        theirs, end = decode_table(body, 0)
    except struct.error:
        return {}, 0
    if mark == f"{end} {_check(body[:end])}" or (
        type(mark) is int and mark == end > _UNMARKED_BYTES
    ):
        return theirs, end
    return {}, 0


def _check(table: bytes) -> str:
    return sha256(table).hexdigest()[:16]


def _size(properties: Properties) -> int:
    return sum(map(len, EncodedProperties(properties).encode()))


def _clipped(name: str, value: object, over: int) -> object:
    """The reason without `over` of its bytes; any other text of ours is no longer than a name."""
    if not isinstance(value, str):
        return value
    raw = value.encode("utf-8", "backslashreplace")
    most = max(0, len(raw) - over) if name == REASON else SHORT_BYTES
    return raw[:most].decode("utf-8", "ignore")
