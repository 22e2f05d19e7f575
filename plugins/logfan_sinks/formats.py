"""One record as one line: JSON with its origin, text safe for a terminal, or the bytes. Pure."""

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Literal

from logfan import Record, json_lines

Format = Literal["json", "text", "raw"]

_BODY = attrgetter("body")
_LONG = 65536
_TABLE_MAX = 4096

# Everything that moves a cursor, breaks a line, or turns the direction of the text.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def encoder(form: Format) -> Callable[[Iterable[Record]], list[bytes]]:
    """The function that makes lines, without their newlines, of records."""
    return {"json": json_lines, "text": _all_text, "raw": _all_raw}[form]


def as_readable(record: Record) -> Record:
    """With its content_encoding undone; as it came where that cannot be done."""
    try:
        return record.decoded()
    except ValueError:
        return record


def _all_raw(records: Iterable[Record]) -> list[bytes]:
    return [*map(_BODY, records)]


def _all_text(records: Iterable[Record]) -> list[bytes]:
    return [*map(encode_text, records)]


def encode_raw(record: Record) -> bytes:
    """The body's bytes as they are."""
    return record.body


def encode_text(record: Record) -> bytes:
    """The body as UTF-8 text, control characters escaped (`\\n`, `\\x1b`, `\\u202e`)."""
    return escape(record.text).encode()


def escape(text: str) -> str:
    """The text without anything that a terminal would obey.

    A backslash stays as it is, so that paths and regular expressions read as they were written:
    the two characters `\\n` and a line break look the same here. Who must tell them apart takes
    the format `json`.
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


def encode_json(record: Record) -> bytes:
    """One object, as `logfan.json_lines` makes it."""
    return json_lines((record,))[0]
