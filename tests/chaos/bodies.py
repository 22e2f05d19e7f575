"""What the load's messages look like: an id, padding of varied size, a checksum at the end.
Sans-I/O.

The publisher makes them and the checker reads them back; this is all that the two share. A body
never holds a line break, so that a file of raw bodies has one message a line.
"""

import hashlib
import random
from dataclasses import dataclass

_SUM_LENGTH = 16
_LEVELS = ("debug", "info", "warning", "error")
_JSON_END = b'"}'
_PAD = random.Random(7).randbytes(200_000).hex().encode()
# Text that is more than ASCII, and bytes that are no text at all.
_WORDS = "Grüße aus Ελλάδα, 日本語, \U0001f42b ".encode()
_NO_TEXT = bytes(range(128, 256))


@dataclass(frozen=True, slots=True)
class Parsed:
    """An intact body."""

    run: str
    number: int


class Corrupt(ValueError):
    """Not a body of ours as it was published; the text names what is wrong."""


def make_id(run: str, number: int) -> str:
    """The message id: which run, and the how-manieth message of it."""
    return f"{run}-{number}"


def make(run: str, number: int, rng: random.Random) -> bytes:
    """One body: mostly JSON, some text, some bytes that are no text; from 60 bytes to 300 KB."""
    mark = make_id(run, number).encode()
    level = _LEVELS[number % len(_LEVELS)].encode()
    pad = _padding(rng)
    kind = rng.random()
    if kind < 0.85:
        head = b'{"id":"%b","level":"%b","pad":"%b","sum":"' % (mark, level, pad)
        return head + _sum(head) + _JSON_END
    odd = _WORDS if kind < 0.95 else _NO_TEXT
    head = b"id=%b level=%b pad=%b%b sum=" % (mark, level, odd, pad)
    return head + _sum(head)


def parse(body: bytes) -> Parsed:
    """Whose body it is. Raises Corrupt where a single byte differs from what was made."""
    if body.startswith(b'{"id":"'):
        head, end, start, stop = body[:-18], body[-18:], 7, b'"'
        if end[_SUM_LENGTH:] != _JSON_END:
            raise Corrupt("does not end as it was published")
    elif body.startswith(b"id="):
        head, end, start, stop = body[:-_SUM_LENGTH], body[-_SUM_LENGTH:], 3, b" "
    else:
        raise Corrupt("does not begin as it was published")
    if _sum(head) != end[:_SUM_LENGTH]:
        raise Corrupt("its checksum does not fit")
    mark = head[start : head.index(stop, start)].decode()
    run, _, number = mark.partition("-")
    return Parsed(run, int(number))


def _padding(rng: random.Random) -> bytes:
    dice = rng.random()
    if dice < 0.9:
        size = rng.randrange(300)
    elif dice < 0.9995:
        size = rng.randrange(2_000)
    else:
        size = rng.randrange(300_000)  # several frames
    start = rng.randrange(len(_PAD) - size)
    return _PAD[start : start + size]


def _sum(head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=_SUM_LENGTH // 2).hexdigest().encode()
