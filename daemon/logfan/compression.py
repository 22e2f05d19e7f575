"""A body's compression undone, within bounds that hold while it is decoded. Sans-I/O.

Publishers declare it in `content_encoding`, kombu and Celery in the header `compression`, and GELF
senders nowhere.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from io import BytesIO

import zstandard

from logfan.charsets import charset

MAX_BYTES = 64 << 20
"""What a body may become."""
MAX_RATIO = 200
"""How many times its size a body may become; logs that repeat themselves reach some 50."""
EXEMPT_BYTES = 1 << 20
"""So much is always allowed: a short body of zeros is no attack."""
MAX_CODINGS = 2
MAX_MEMBERS = 10_000
"""Gzip members, zstd frames and the like in one body: each costs time, however small it is."""
WINDOW_BYTES = 8 << 20
"""What a zstd or xz stream may have the decoder remember; RFC 9659 asks publishers for no more, and
xz takes no more unless it is asked to."""

# No encodings, nor are the names of character sets, which some clients (kombu, Celery) put there.
_PLAIN = frozenset(("", "identity", "none", "binary", "7bit", "8bit"))
_READ = 65536
_STEP = 256 << 10
_ZSTD_BLOCK = 128 << 10
_ZSTD_BLOCK_MIN = 4  # the smallest input that can become a whole block
_GZIP_MAGIC = b"\x1f\x8b"
_ZLIB_MAGICS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_BZ2_MAGIC, _XZ_MAGIC = b"BZh", b"\xfd7zXZ\0"
_LZMA_BYTES = WINDOW_BYTES + (2 << 20)
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ALIASES = {"bzip2": "bz2", "lzma": "xz", "zstandard": "zstd"}
_KNOWN = "gzip, zlib, deflate, bz2, xz and zstd are"


@lru_cache(maxsize=256)
def codings(content_encoding: str | None) -> tuple[str, ...]:
    """What was done to the body, in that order, as `("gzip",)`; nothing at all for most.

    Raises ValueError for a name that is not known, and for more than two.
    """
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    names = [name for name in names if name not in _PLAIN and charset(name) is None]
    names = [_plain_name(name) for name in names]
    for name in names:
        if name not in _DECODERS:
            raise ValueError(f"the content_encoding {name[:40]!r} is not known; {_KNOWN}")
    if len(names) > MAX_CODINGS:
        raise ValueError(f"{len(names)} encodings upon each other; {MAX_CODINGS} are undone")
    return tuple(names)


@lru_cache(maxsize=256)
def codings_of_header(compression: str) -> tuple[str, ...]:
    """The same of the header `compression`, as `application/x-bz2`. What is gzip there is zlib."""
    name = _plain_name(compression.strip().lower().removeprefix("application/"))
    if name in _PLAIN:
        return ()
    if name not in _DECODERS:
        raise ValueError(f"the header compression {compression[:40]!r} is not known; {_KNOWN}")
    return ("x-gzip" if name == "gzip" else name,)


def undeclared_codings(body: bytes) -> tuple[str, ...]:
    """What a body that nothing is declared of begins as: zlib or gzip, as GELF senders do."""
    begin = body[:2]
    return ("x-gzip",) if begin == _GZIP_MAGIC or begin in _ZLIB_MAGICS else ()


def _plain_name(name: str) -> str:
    name = name.removeprefix("x-")
    return _ALIASES.get(name, name)


def decode(body: bytes, names: Sequence[str]) -> bytes:
    """The body with these `codings` undone, the last first. An empty body stays empty.

    Raises ValueError where it is torn, followed by something else, damaged, or would become
    larger than allowed. No step holds more than what is allowed, and a window, at any moment.
    """
    allowed = min(MAX_BYTES, max(EXEMPT_BYTES, MAX_RATIO * len(body)))
    for name in reversed(names):
        if body:
            output = _Output(allowed)
            try:
                _DECODERS[name](memoryview(body), output)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            body = output.whole()
    return body


class _Output:
    """What came out so far, and how much more may come."""

    def __init__(self, allowed: int) -> None:
        self.room = self._allowed = allowed
        self._buffer = BytesIO()

    def take(self, piece: bytes) -> None:
        self.room -= len(piece)
        if self.room < 0:
            if self._allowed == MAX_BYTES:
                raise ValueError(f"would be larger than {MAX_BYTES >> 20} MiB")
            raise ValueError(
                f"would be larger than {EXEMPT_BYTES >> 20} MiB and {MAX_RATIO} times its size"
            )
        self._buffer.write(piece)

    def whole(self) -> bytes:
        return self._buffer.getvalue()  # hands out its own bytes, so this is no second copy


def _gunzip(body: memoryview, output: _Output) -> None:
    at = 0
    for _ in range(MAX_MEMBERS):
        at = _inflate(body, at, output, _GZIP)
        if at == len(body):
            return
        if body[at : at + 2] != _GZIP_MAGIC:
            if bytes(body[at:]).strip(b"\0"):
                raise ValueError(f"{len(body) - at} bytes of something else follow the stream")
            return  # padding, which tape writers and gzip itself pass over
    raise ValueError(f"has more than {MAX_MEMBERS} members")


def _unzlib(body: memoryview, output: _Output) -> None:
    _end(body, _inflate(body, 0, output, _ZLIB))


def _gunzip_or_unzlib(body: memoryview, output: _Output) -> None:
    """Python's users call both of them gzip."""
    (_gunzip if body[:2] == _GZIP_MAGIC else _unzlib)(body, output)


def _undeflate(body: memoryview, output: _Output) -> None:
    """That is zlib by HTTP's standard, and without zlib's beginning and end by habit."""
    is_zlib = body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
    _end(body, _inflate(body, 0, output, _ZLIB if is_zlib else _RAW))


def _end(body: memoryview, at: int) -> None:
    if at < len(body):
        raise ValueError(f"{len(body) - at} bytes of something else follow the stream")


def _inflate(body: memoryview, at: int, output: _Output, wbits: int) -> int:
    """Decode the member that begins at `at`; gives where it ends."""
    member = zlib.decompressobj(wbits=wbits)
    try:
        while not member.eof:
            piece: bytes | memoryview = body[at : at + _READ]
            at += len(piece)
            if not piece:
                came = member.decompress(b"", _STEP)
                if not came:
                    raise ValueError("the stream is torn: its end is missing")
                output.take(came)
            while piece and not member.eof:
                output.take(member.decompress(piece, _STEP))
                piece = member.unconsumed_tail
    except zlib.error as error:
        why = str(error).rpartition(": ")[2]
        raise ValueError(f"the stream is damaged ({why})") from None
    return at - len(member.unused_data)


def _decompress(
    body: memoryview,
    output: _Output,
    new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor],
    magic: bytes,
) -> None:
    at = 0
    for _ in range(MAX_MEMBERS):
        try:
            at = _decompress_member(new(), body, at, output)
        except (OSError, lzma.LZMAError) as error:
            if "limit" in str(error):
                raise ValueError(f"needs a window of more than {WINDOW_BYTES >> 20} MiB") from None
            raise ValueError(f"the stream is damaged ({str(error).lower()})") from None
        if body[at : at + len(magic)] != magic:
            _end(body, at)
            return
    raise ValueError(f"has more than {MAX_MEMBERS} members")


def _decompress_member(
    member: bz2.BZ2Decompressor | lzma.LZMADecompressor,
    body: memoryview,
    at: int,
    output: _Output,
) -> int:
    while not member.eof:
        piece: bytes | memoryview = b""
        if member.needs_input:
            piece = body[at : at + _READ]
            at += len(piece)
            if not piece:
                raise ValueError("the stream is torn: its end is missing")
        output.take(member.decompress(piece, _STEP))
    return at - len(member.unused_data)


def _unzstd(body: memoryview, output: _Output) -> None:
    context = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
    at = 0
    for _ in range(MAX_MEMBERS):
        try:
            at = _unzstd_frame(context.decompressobj(), body, at, output)
        except zstandard.ZstdError as error:
            raise ValueError(_zstd_problem(str(error), at)) from None
        if at == len(body):
            return
    raise ValueError(f"has more than {MAX_MEMBERS} frames")


def _unzstd_frame(
    frame: "zstandard.ZstdDecompressionObj", body: memoryview, at: int, output: _Output
) -> int:
    """Decode the frame that begins at `at`; gives where it ends."""
    while not frame.eof:
        # The library takes no limit for its output: so it is fed no more than can become what is
        # still allowed, and a little.
        step = max(_ZSTD_BLOCK_MIN * 8, output.room // _ZSTD_BLOCK * _ZSTD_BLOCK_MIN)
        piece = body[at : at + step]
        if not piece:
            raise ValueError("the stream is torn: its end is missing")
        at += len(piece)
        output.take(frame.decompress(piece))
    return at - len(frame.unused_data)


def _zstd_problem(text: str, at: int) -> str:
    why = text.rpartition(": ")[2]
    if "Dictionary" in why:
        return "needs a dictionary, which logfan does not have"
    if "too much memory" in why:
        return f"needs a window of more than {WINDOW_BYTES >> 20} MiB (a long or ultra mode)"
    if "Unknown frame" in why and at:
        return "something else follows the stream"
    return f"the stream is damaged ({why.lower()})"


_DECODERS: dict[str, Callable[[memoryview, _Output], None]] = {
    "gzip": _gunzip, "x-gzip": _gunzip_or_unzlib, "zlib": _unzlib, "deflate": _undeflate,
    "bz2": partial(_decompress, new=bz2.BZ2Decompressor, magic=_BZ2_MAGIC),
    # Both of lzma's containers: xz, and the one before it.
    "xz": partial(
        _decompress, new=partial(lzma.LZMADecompressor, memlimit=_LZMA_BYTES), magic=_XZ_MAGIC
    ),
    "zstd": _unzstd,
}  # fmt: skip
