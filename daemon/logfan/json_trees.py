"""What a JSON body becomes when it is parsed: found, and bounded, before it is. Sans-I/O.

A short text may make a large tree: `[],[],…` takes 30 times its size. So a long body is looked at
first, in linear time: what its values would take at the most follows from the characters that
begin or part them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import orjson

SMALL_BYTES = 2048
"""A body of this size needs no look: a whole window of them becomes some 60 MiB at the worst."""
MAX_BYTES = 128 << 20
"""What one body may become."""
TIMES_MAX = 32
"""No body becomes more than so many times its size."""

_MARKS = b",:[{"
_MARK_BYTES = 96
"""The most that was measured for each of the marks, of any shape of JSON: 92 (objects in each
other)."""
_LEAST_BYTES = 256
_PIECE = 64 << 10
_ODD_NUMBER = re.compile(rb"NaN|-?Infinity")
_ODD_NUMBERS_MAX = MAX_BYTES // _MARK_BYTES
"""More of them do not fit into a tree that is allowed; what follows is no JSON then."""
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_BEGINNINGS = b'{["-0123456789tfn'
_WIDE = tuple(bytes((lead,)) for lead in range(0xF0, 0xF5))


@dataclass(frozen=True, slots=True)
class Odd:
    """What is known of a body that is not JSON as it stands."""

    why: str = ""
    """Why it is no JSON at all."""
    value: Any = None
    body: bytes | None = None
    """The JSON that it is in UTF-8, without a byte order mark; None where it is none."""
    replaced: tuple[str, ...] = ()
    """Which of NaN, Infinity and -Infinity are null in it: JSON has none of them, and Python's
    `json` writes them."""
    written: bytes | None = None
    """The same with them."""


LONG = Odd()
"""In the place of a body that is not parsed and needs a look before: in a place of its own, so that
all others need not ask for their size."""


def parse(body: bytes) -> tuple[Any, int]:
    """The value, or an `Odd`, and what it may take in memory."""
    weight = 0
    if len(body) > SMALL_BYTES:
        if not _may_be_json(body):
            return Odd("it begins as no JSON does"), 0
        weight = tree_bytes(body)
        if weight > MAX_BYTES:
            return Odd(f"its values might take more than {MAX_BYTES >> 20} MiB of memory"), 0
    try:
        return orjson.loads(body), weight
    except ValueError as error:
        odd = with_odd_numbers(body)
        if odd is None or odd.body is None:
            return Odd(str(error)), 0
        return odd, weight + len(odd.body)


def with_odd_numbers(body: bytes) -> Odd | None:
    """What an object or a list is that holds NaN or the like; None where this makes no JSON of it.
    Takes linear time, and a copy of the body beside what it becomes."""
    if not body.startswith((b"{", b"[")):
        return None
    found: dict[bytes, None] = {}
    buffer, copied = BytesIO(), 0
    for match in _odd_numbers(body):
        found[match[0]] = None
        buffer.write(memoryview(body)[copied : match.start()])
        buffer.write(b"null")
        copied = match.end()
    if not found:
        return None
    buffer.write(memoryview(body)[copied:])
    json = buffer.getvalue()
    try:
        value = orjson.loads(json)
    except ValueError:
        return None
    return Odd("", value, json, tuple(name.decode() for name in found), body)


def _odd_numbers(body: bytes) -> Iterator[re.Match[bytes]]:
    """Each that is in no string."""
    at, quotes = 0, 0
    for count, match in enumerate(_ODD_NUMBER.finditer(body)):
        if count == _ODD_NUMBERS_MAX:
            return
        begin = match.start()
        if body.find(b'"', at, begin) >= 0:
            quotes += _quotes(body, at, begin)
        at = begin
        if quotes % 2 == 0:
            yield match


def _quotes(body: bytes, at: int, until: int) -> int:
    """How many there are that no backslash escapes."""
    count = 0
    while at < until:
        end = _end_of_piece(body, at)
        piece = body[at : min(end, until)]
        count += (_ESCAPED.sub(b"", piece) if b"\\" in piece else piece).count(b'"')
        at = end
    return count


def _end_of_piece(body: bytes, at: int) -> int:
    end = at + _PIECE
    while body[end - 1 : end] == b"\\":  # what it escapes belongs to it
        end += 1
    return end


def tree_bytes(body: bytes) -> int:
    """What the body's values take at the most, in bytes."""
    text = len(body) * _width(body) + _LEAST_BYTES
    weight = _MARK_BYTES * _marks(body) + text
    if weight > MAX_BYTES >= text:
        # The marks inside of strings are no values.
        weight = _MARK_BYTES * _marks_outside_strings(body) + text
    return weight


def _may_be_json(body: bytes) -> bool:
    begin = body[:_PIECE].lstrip(b" \t\r\n")[:1]
    return not begin or begin in _BEGINNINGS


def _marks(piece: bytes) -> int:
    if len(piece) <= _PIECE:
        return len(piece) - len(piece.translate(None, _MARKS))
    return sum(_marks(piece[at : at + _PIECE]) for at in range(0, len(piece), _PIECE))


def _marks_outside_strings(body: bytes) -> int:
    count, at, inside = 0, 0, 0
    while at < len(body):
        end = _end_of_piece(body, at)
        parts = _ESCAPED.sub(b"", body[at:end]).split(b'"')
        count += sum(map(_marks, parts[inside::2]))
        inside ^= (len(parts) - 1) & 1
        at = end
    return count


def _width(body: bytes) -> int:
    """How many bytes one character of its strings may take."""
    if body.isascii():
        if b"\\u" not in body:
            return 1
        return 4 if b"\\ud" in body or b"\\uD" in body else 2
    return 4 if b"\\u" in body or any(lead in body for lead in _WIDE) else 2
