"""Records made by hand: plain ones, and those that break careless sinks."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from logfan.record import NO_HEADERS, Properties, Record


def record(
    body: bytes | str | Mapping[str, Any] | list[Any] = b"",
    *,
    exchange: str = "logs",
    routing_key: str = "",
    headers: Mapping[str, Any] = NO_HEADERS,
    redelivered: bool = False,
    received_at: float | None = None,
    **properties: Any,
) -> Record:
    """A record as a broker would deliver it. A mapping or a list becomes JSON; text becomes UTF-8.

    `properties` are the fields of `logfan.Properties`; `received_at` is now where it is left out.
    """
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = orjson.dumps(body)
    return Record(
        body,
        exchange,
        routing_key,
        redelivered,
        time.time() if received_at is None else received_at,
        Properties(headers=headers, **properties),
    )


def state_of(one: Record) -> dict[str, object]:
    """What of a record can be changed in place, without a copy of it."""
    return {"body": one.body, "origin": one.origin, "properties": one.properties}


def change_of(records: Sequence[Record], before: Sequence[Mapping[str, object]]) -> str | None:
    """What is no longer as `state_of` had it, in words for the author; None where all is."""
    for place, (one, was) in enumerate(zip(records, before, strict=True)):
        changed = [name for name, value in state_of(one).items() if value is not was[name]]
        if changed:
            return (
                f"changes the {changed[0]} of record {place} itself; a record is read-only, as all "
                "sinks share it: copy what you change, or make another: record.replace(body=…)"
            )
    return None


_DEEP: dict[str, Any] = {"end": None}
for _ in range(60):
    _DEEP = {"down": _DEEP}


def hostile_records() -> dict[str, Record]:
    """Records that publishers really send, by what is wild about them."""
    return {
        "empty": record(b""),
        "large": record(b"x" * (16 << 20)),
        "not utf-8": record(b"\xff\xfe\x80 bytes \x00"),
        "deep json": record(b"[" * 100_000 + b"]" * 100_000),
        "line breaks": record(b"one\ntwo\r\nthree\x0bfour"),
        "terminal escapes": record(b"\x1b]0;title\x07\x1b[2J\xc2\x9b31m"),
        "escapes in json": record({"level": "error", "message": "\x1b[2J\x7f\x9b\u202e"}),
        "pretty json": record(b'{\n  "a": 1,\n  "b": [\n    2\n  ]\n}'),
        "large numbers": record(b'{"n": 123456789012345678901234567890, "f": 1e400}'),
        "scalar json": record(b"42"),
        "null json": record(b"null"),
        "looks like a priority": record(b"<0>boom"),
        "wild headers": record(
            b"x",
            headers={
                "\x1b[2J": "\x1b]0;x\x07", "bytes": b"\xff\x00", "nested": _DEEP,
                "list": [1, None, {"a": b"b"}], "": "",
            },
        ),
        "wild route": record(b"x", routing_key="../../etc/passwd\x00\n\x1b[2J"),
        "odd properties": record(
            b"x", content_type="\x1b[2J", timestamp=2**62, message_id="m" * 255, priority=255,
            redelivered=True,
        ),
    }  # fmt: skip
