"""The messages: log lines of an exact size, each with its number and the time it was sent.

`fill.c` writes number and time into their places; `seen` reads the numbers back from a sink's file.
"""

import json
import random
import re
from collections.abc import Iterable
from typing import Any

NUMBER_DIGITS, STAMP_DIGITS = 8, 19
_NUMBER = re.compile(rb'\\?"seq\\?":\\?"(\d{8})|(?<= \[)(\d{8})\]')
"""As it came, or within a string of JSON; and that of a line of text."""
_BODIES = 64
_BYTES_MAX = 8 << 20
_LEVELS = ("debug", "info", "info", "info", "info", "warning", "error")
_SERVICES = ("auth", "cart", "mail", "pay", "ship", "stock", "web")
_WORDS = (
    "accepted", "cache", "connection", "customer", "from", "gateway", "in", "order", "payment",
    "queue", "request", "retried", "session", "slow", "timeout", "upstream", "user", "with",
)  # fmt: skip


PLAIN, CONSTANT, TRACED = "plain", "constant", "traced"
NO_ID, PUBLISHERS, TEXT, LINES = "no-id", "publishers", "text", "lines"
SHAPES = {
    PLAIN: "no headers",
    CONSTANT: "constant headers",
    TRACED: "constant headers and traceparent",
    NO_ID: "no message id",
    PUBLISHERS: "a hundred publishers with different properties",
    TEXT: "text bodies",
    LINES: "JSON on several lines",
}
"""What programs send. All have a content type, a delivery mode, a time, and most an id."""
_IN_JSON, _IN_TEXT = (8, 24), (34, 49)
"""Where number and stamp begin."""
_PUBLISHERS = 100
_HEADERS = {"host": "web-12", "service": "checkout"}


def properties(shape: str, number: int) -> dict[str, Any]:
    """The properties of a message, beside its time, as `fill.c` sets them."""
    found: dict[str, Any] = {
        "content_type": "text/plain" if shape == TEXT else "application/json",
        "delivery_mode": 2,
        "message_id": None if shape == NO_ID else f"{number:0{NUMBER_DIGITS}d}",
    }
    if shape in (CONSTANT, TRACED):
        found["headers"] = dict(_HEADERS)
    if shape == TRACED:
        found["headers"]["traceparent"] = f"00-4bf92f3577b34da6{number:016d}-00f067aa0ba902b7-01"
    if shape == PUBLISHERS:
        publisher = number % _PUBLISHERS
        found["app_id"] = f"app-{publisher}"
        found["headers"] = {"host": f"web-{publisher}", f"zone-{publisher % 10}": "eu"}
        if publisher % 3 == 0:
            found["type"] = "event"
    return found


def deck(size: int, shape: str = PLAIN) -> bytes:
    """Bodies of `size` bytes each, one after the other; the same ones each time."""
    rng = random.Random(size)
    count = max(1, min(_BODIES, _BYTES_MAX // size))
    return b"".join(_shaped(_body(size, rng), shape) for _ in range(count))


def places(shape: str) -> tuple[int, int]:
    """At which byte of a body its number begins, and its stamp."""
    return _IN_TEXT if shape == TEXT else _IN_JSON


def _shaped(body: bytes, shape: str) -> bytes:
    if shape == TEXT:
        return _text(json.loads(body), len(body))
    if shape == LINES:
        # Behind the number and the time, which keep their places. The last byte of each is layout.
        stamp_at = _IN_JSON[1]
        head, tail = body[:stamp_at], body[stamp_at:]
        parts = tail.split(b',"')
        room = len(parts) - 1
        text = b',\n"'.join(parts)
        return head + text[: text.rindex(b'"}') - room] + b'"}'
    return body


def _text(line: dict[str, Any], size: int) -> bytes:
    """The same in a format of Python's `logging`: time, level, a request's id, logger, message."""
    line["level"] = line["level"].upper()
    head = "2026-11-30 12:00:00,123 {level:8} [{seq}] sent {ts} {service}:".format(**line)
    return f"{head} {line['msg']} {line['msg']}".encode()[:size].ljust(size, b".")


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
    """How many messages there are, and how many of the numbers below `count` are among them."""
    marks = bytearray(count)
    total = 0
    for line in lines:
        found = _NUMBER.search(line)
        if found is None:
            continue  # a further line of a body with several
        total += 1
        number = int(found[found.lastindex or 1])
        if number < count:
            marks[number] = 1
    return total, sum(marks)


def stamp_of(line: bytes) -> int:
    """When a body of JSON was sent: CLOCK_MONOTONIC in nanoseconds."""
    stamp_at = _IN_JSON[1]
    return int(line[stamp_at : stamp_at + STAMP_DIGITS])
