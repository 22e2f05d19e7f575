"""One record as one line: JSON with its origin, text safe for a terminal, or the bytes."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter, methodcaller
from typing import Literal

from logfan import Record, field, json_lines, json_pieces

Format = Literal["json", "text", "raw"]

LONG_BODY_BYTES = 1 << 20
"""The line of a longer body is made and written in pieces: it may be many times as long."""

BEGINNINGS: dict[Format, bytes] = {"json": b'{"received_at":"', "text": b"", "raw": b""}
"""What each line of a format begins with."""

_BODY = attrgetter("body")
_ENDS_WITH_NEWLINE = methodcaller("endswith", b"\n")
_message_of = field("message")
_LONG = 65536
_TABLE_MAX = 4096
_LINE_END = "\r\n"
_MARK = "\ufeff"

# Everything that moves a cursor, breaks a line, or turns the direction of the text.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def encoder(form: Format) -> Callable[[Iterable[Record]], list[bytes]]:
    """The function that makes lines, without their newlines, of records."""
    return {"json": json_lines, "text": _all_text, "raw": _all_raw}[form]


def line_pieces(form: Format) -> Callable[[Record], Iterator[bytes]]:
    """The function that makes one line, without its newline, in pieces: for a long body."""
    return {"json": json_pieces, "text": text_pieces, "raw": _raw_pieces}[form]


def utf8_pieces(raw: bytes, most: int) -> Iterator[bytes]:
    """Pieces of `most` bytes or a little less, none of which ends within a character."""
    at = 0
    while at < len(raw):
        end = at + most
        back = 0
        while back < 3 and end - back < len(raw) and raw[end - back] & 0xC0 == 0x80:
            back += 1
        yield raw[at : end - back]
        at = end - back


def total_size(records: Iterable[Record]) -> int:
    """The bytes of their bodies."""
    return sum(map(len, map(_BODY, records)))


def chunks(records: Sequence[Record], most_bytes: int) -> Iterator[Sequence[Record]]:
    """The records: some at a time, whose bodies together are no more than `most_bytes`, or one
    that is more by itself."""
    if total_size(records) <= most_bytes:
        yield records
        return
    chunk: list[Record] = []
    size = 0
    for record in records:
        if chunk and size + record.size > most_bytes:
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += record.size
    yield chunk


def with_lines(
    records: Sequence[Record], encode: Callable[[Sequence[Record]], list[bytes]]
) -> Iterator[tuple[Record, bytes | None]]:
    """Each record with its line, None where the body is long. Encodes many records at once, which
    costs a third of one by one."""
    for chunk in chunks(records, LONG_BODY_BYTES):
        if len(chunk) == 1 and chunk[0].size > LONG_BODY_BYTES:
            yield chunk[0], None
        else:
            yield from zip(chunk, encode(chunk), strict=True)


def _all_raw(records: Iterable[Record]) -> list[bytes]:
    """The line brings its own newline: one that the body ends with is that one."""
    bodies = [*map(_BODY, records)]
    if True in map(_ENDS_WITH_NEWLINE, bodies):
        return [body.removesuffix(b"\n") for body in bodies]
    return bodies


def _all_text(records: Iterable[Record]) -> list[bytes]:
    return [*map(encode_text, records)]


def _raw_pieces(record: Record) -> Iterator[bytes]:
    yield record.body.removesuffix(b"\n")


def encode_text(record: Record) -> bytes:
    """The body as text in UTF-8, control characters escaped (`\\n`, `\\x1b`, `\\u202e`) but for one
    line end behind it. Of an empty body the header `MESSAGE`, else all headers."""
    if record.size > LONG_BODY_BYTES:
        return b"".join(text_pieces(record))
    return escape(bare(record.text or _message_of(record))).encode()


def text_pieces(record: Record) -> Iterator[bytes]:
    """The same in pieces."""
    pieces = record.text_pieces()
    pending = next(pieces, "").removeprefix(_MARK)
    for piece in pieces:
        if len(pending) > len(_LINE_END):
            yield escape(pending[: -len(_LINE_END)]).encode()
            pending = pending[-len(_LINE_END) :]
        pending += piece
    yield escape(without_line_end(pending)).encode()


def bare(text: str) -> str:
    """Without a byte order mark before it and one line end behind it."""
    return without_line_end(text.removeprefix(_MARK))


def without_line_end(text: str) -> str:
    """Without the one line end that a publisher put behind it: the line brings its own."""
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def escape(text: str) -> str:
    """The text without anything that a terminal would obey.

    A backslash stays as it is, so that paths and regular expressions read as they were written:
    the two characters `\\n` and a line break look the same here. The format `json` keeps
    them apart.
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
