"""The messages: JSON log lines of an exact size, each with its number and the time it was sent.

`fill.c` writes number and time into their places; `seen` reads the numbers back from a sink's file.
"""

import json
import random
from collections.abc import Iterable

NUMBER_AT, NUMBER_DIGITS = 8, 8
STAMP_AT, STAMP_DIGITS = 24, 19
_KEY = b'"seq":"'
_BODIES = 64
_BYTES_MAX = 8 << 20
_LEVELS = ("debug", "info", "info", "info", "info", "warning", "error")
_SERVICES = ("auth", "cart", "mail", "pay", "ship", "stock", "web")
_WORDS = (
    "accepted", "cache", "connection", "customer", "from", "gateway", "in", "order", "payment",
    "queue", "request", "retried", "session", "slow", "timeout", "upstream", "user", "with",
)  # fmt: skip


def deck(size: int) -> bytes:
    """Bodies of `size` bytes each, one after the other; the same ones each time."""
    rng = random.Random(size)
    count = max(1, min(_BODIES, _BYTES_MAX // size))
    return b"".join(_body(size, rng) for _ in range(count))


def _body(size: int, rng: random.Random) -> bytes:
    line = {
        "seq": "0" * NUMBER_DIGITS,
        "ts": "0" * STAMP_DIGITS,
        "level": rng.choice(_LEVELS),
        "service": rng.choice(_SERVICES),
        "ms": rng.randrange(1, 90),
    }
    if size >= 200:
        line |= {"host": f"web-{rng.randrange(10, 99)}", "status": rng.choice((200, 200, 404, 503))}
    line["msg"] = ""
    room = size - len(_dumped(line))
    if room < 0:
        raise ValueError(f"no log line fits into {size} bytes")
    words: list[str] = []
    length = 0
    while length < room:
        words.append(rng.choice(_WORDS))
        length += len(words[-1]) + 1
    line["msg"] = " ".join(words)[:room].ljust(room, ".")
    return _dumped(line)


def _dumped(line: object) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode()


def seen(lines: Iterable[bytes], count: int) -> tuple[int, int]:
    """How many lines there are, and how many of the numbers below `count` are among them."""
    marks = bytearray(count)
    total = 0
    for line in lines:
        total += 1
        at = line.find(_KEY) + len(_KEY)
        number = int(line[at : at + NUMBER_DIGITS])
        if number < count:
            marks[number] = 1
    return total, sum(marks)


def stamp_of(line: bytes) -> int:
    """When the body was sent: CLOCK_MONOTONIC in nanoseconds."""
    return int(line[STAMP_AT : STAMP_AT + STAMP_DIGITS])
