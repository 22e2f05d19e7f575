"""Which text a body's bytes are: UTF-8, or what the publisher declared. Sans-I/O.

A publisher may declare a character set in `content_type` (`text/plain; charset=iso-8859-1`) or, as
kombu and Celery do, in `content_encoding`. Bytes that are no text in any of these are escaped as
control characters are (`\\xe9`): no byte is lost.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from encodings.aliases import aliases
from functools import lru_cache
from io import BytesIO

PIECE_BYTES = 256 << 10
"""Long bodies are handled by pieces of this size."""

# Codecs that are no character set, or whose decoders are not linear.
_NO_CHARSETS = frozenset((
    "base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec",
    "punycode", "idna", "unicode_escape", "raw_unicode_escape", "utf_7", "mbcs", "tactis",
))  # fmt: skip
_WITHOUT_ALIAS = ("koi8_u", "koi8_t", "cp720", "cp737", "cp856", "cp874", "cp875", "cp1006")
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([^\s;\"']{1,40})", re.IGNORECASE)
_UNLIKE_ASCII = (
    "utf_16", "utf_32", "iso2022", "hz", "cp037", "cp273", "cp424", "cp500", "cp875", "cp1026",
    "cp1140",
)  # fmt: skip
"""Beginnings of the names of codecs in which ASCII bytes mean something else than in ASCII."""
_ESCAPING = "backslashreplace"
_UTF8 = "utf_8"
_MARKS = (
    (codecs.BOM_UTF8, "utf_8_sig"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)


@lru_cache(maxsize=1)
def _charsets() -> dict[str, str]:
    """The codec of each name. A closed list: Python would look for a module of any other name,
    and remember it for ever."""
    known = {name: codec for name, codec in aliases.items() if codec not in _NO_CHARSETS}
    own = (*known.values(), *_WITHOUT_ALIAS, "utf_8_sig")
    return known | {codec: codec for codec in own}


@lru_cache(maxsize=256)
def charset(name: str) -> str | None:
    """The codec of a character set; None where the name is none."""
    plain = re.sub(r"[^a-z0-9]+", "_", name[:40].lower()).strip("_")
    return _charsets().get(plain)


@lru_cache(maxsize=256)
def declared(content_type: str | None, content_encoding: str | None) -> str | None:
    """The codec of the character set that the publisher declared; None without one."""
    match = _CHARSET.search(content_type[:300]) if content_type else None
    found = charset(match[1]) if match else None
    return found or (charset(content_encoding) if content_encoding else None)


def with_charset(content_type: str, name: str) -> str:
    """The content type with another character set in the place of the one that it declares."""
    match = _CHARSET.search(content_type[:300])
    return content_type if match is None else content_type.replace(match[1], name, 1)


def may_be_another(text: str) -> bool:
    """Whether bytes that are this text in UTF-8 may be meant in another character set, if one is
    declared: UTF-16 is full of NUL, and ISO-2022 of escapes."""
    return "\0" in text or "\x1b" in text


def is_unlike_json(body: bytes) -> bool:
    """Whether these bytes are so unlike JSON that it may be there in another character set, or
    behind a byte order mark."""
    if body.isascii():
        return b"\0" in body or b"\x1b" in body
    return body.startswith(codecs.BOM_UTF8) or not is_utf8(body) or b"\0" in body


def text_of(body: bytes, content_type: str | None, content_encoding: str | None) -> str:
    """The whole body as text."""
    return body.decode(*_reading(body, declared(content_type, content_encoding)))


def pieces_of(body: bytes, content_type: str | None, content_encoding: str | None) -> Iterator[str]:
    """The same, piece by piece: a long body must not be held several times."""
    return _decoded(body, *_reading(body, declared(content_type, content_encoding)))


def in_utf8(body: bytes, content_type: str | None, content_encoding: str | None) -> bytes | None:
    """The body in UTF-8 without a byte order mark, where it has one or is declared as another
    character set; None where neither is so, or it is no text in that."""
    codec = next((codec for mark, codec in _MARKS if body.startswith(mark)), None)
    codec = codec or _ordered(declared(content_type, content_encoding), body)
    if codec is None or codec == _UTF8:
        return None
    try:
        return joined(_decoded(body, codec, "strict"), str.encode)
    except ValueError:
        return None


def is_utf8(body: bytes) -> bool:
    """Whether all of it is UTF-8; found without a copy of it."""
    return _is_text(body, _UTF8)


def joined(pieces: Iterator[str], change: Callable[[str], bytes]) -> bytes:
    """What these become, with no second copy of it."""
    buffer = BytesIO()
    for piece in pieces:
        buffer.write(change(piece))
    return buffer.getvalue()


def _reading(body: bytes, codec: str | None) -> tuple[str, str]:
    """The codec that the body is text in, and what to do with the bytes that are not."""
    codec = _ordered(codec, body)
    if codec is None or codec == _UTF8:
        return _UTF8, _ESCAPING
    # What is valid UTF-8 hardly ever is anything else, and a declaration may be a default.
    if not codec.startswith(_UNLIKE_ASCII) and is_utf8(body):
        return _UTF8, "strict"
    return (codec, "strict") if _is_text(body, codec) else (_UTF8, _ESCAPING)


def _ordered(codec: str | None, body: bytes) -> str | None:
    """The codec with its order of bytes, which is little-endian without a mark."""
    if codec not in ("utf_16", "utf_32") or any(body.startswith(mark) for mark, _ in _MARKS[1:]):
        return codec
    return f"{codec}_le"


def _is_text(body: bytes, codec: str) -> bool:
    try:
        for _ in _decoded(body, codec, "strict"):
            pass
    except ValueError:
        return False
    return True


def _decoded(body: bytes, codec: str, errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)(errors)
    for at in range(0, len(body), PIECE_BYTES):
        yield decoder.decode(body[at : at + PIECE_BYTES], final=at + PIECE_BYTES >= len(body))
