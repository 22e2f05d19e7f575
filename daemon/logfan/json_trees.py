"""What a JSON body becomes when it is parsed: found, and bounded, before it is. Sans-I/O.

A short text may make a large tree: `[],[],…` takes 30 times its size. So a long body is looked at
first, in linear time: what its values would take at the most follows from the characters that
begin or part them.
"""

import re
from dataclasses import dataclass
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
        return Odd(str(error)), 0


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
        end = at + _PIECE
        while body[end - 1 : end] == b"\\":  # what it escapes belongs to it
            end += 1
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
