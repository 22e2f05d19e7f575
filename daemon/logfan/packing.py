"""Headers that do not fit into the one frame they must fit into travel before the body. Pure."""

import struct

from logfan.api import Record
from logfan.codec import decode_table, encode_table
from logfan.letters import PREFIX, Letter

_PACKED = "x-logfan-packed"
# A content header must fit into one frame (128 KiB with RabbitMQ's settings), ours included.
_HEADERS_BYTES = 100_000


def packed(letter: Letter) -> Letter:
    """The letter with headers that fit into a frame: those that do not go in front of the body."""
    headers = letter.properties.headers
    theirs = encode_table({n: v for n, v in headers.items() if not n.startswith(PREFIX)})
    if len(theirs) <= _HEADERS_BYTES:
        return letter
    ours = {n: v for n, v in headers.items() if n.startswith(PREFIX)} | {_PACKED: len(theirs)}
    return Letter(theirs + letter.body, letter.properties._replace(headers=ours))


def whole(record: Record) -> Record:
    """The record with the headers that `packed` put before its body; others as they are, and so
    is one that only claims to be packed."""
    if record.exchange or _PACKED not in record.headers:
        return record
    try:
        letter = unpacked(Letter(record.body, record.properties))
    except ValueError:
        return record
    return Record(
        letter.body, record.exchange, record.routing_key, record.redelivered, record.received_at,
        letter.properties,
    )  # fmt: skip


def unpacked(letter: Letter) -> Letter:
    """What `packed` was given. Raises ValueError where the body is not what the header says."""
    headers = dict(letter.properties.headers)
    size = headers.pop(_PACKED, None)
    if size is None:
        return letter
    try:
        theirs, end = decode_table(letter.body, 0)
    except struct.error as error:
        raise ValueError(f"{_PACKED} is {size}, but no headers stand before the body") from error
    if end != size:
        raise ValueError(f"{_PACKED} is {size}, but the headers before the body have {end} bytes")
    return Letter(letter.body[end:], letter.properties._replace(headers={**theirs, **headers}))
