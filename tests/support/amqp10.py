"""The part of AMQP 1.0 that publishes what no AMQP 0-9-1 consumer can be given, and removes it
again.

RabbitMQ 4 speaks both. A message with a uuid among its application properties has no form in 0-9-1:
the broker ends each connection that it should be delivered to.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

_OPEN, _BEGIN, _ATTACH, _FLOW, _TRANSFER = 0x10, 0x11, 0x12, 0x13, 0x14
_DISPOSITION, _CLOSE, _SASL_INIT, _SASL_OUTCOME = 0x15, 0x18, 0x41, 0x44
_NULL, _TRUE, _FALSE = b"\x40", b"\x41", b"\x42"


def publish_undeliverable(url: str, exchange: str, body: bytes) -> None:
    """Publish to the exchange, persistent, with a uuid as a property; returns once it is taken."""
    with _session(url) as (wire, _):
        target = _described(0x29, _text(f"/exchanges/{quote(exchange, safe='')}"))
        _send(
            wire, _ATTACH, _text("link"), _uint(0), _FALSE, _NULL, _NULL, _described(0x28), target,
            _NULL, _NULL, _uint(0),
        )  # fmt: skip
        _until(wire, _FLOW)
        header = _described(0x70, _TRUE)
        uuid = b"\x98" + bytes(range(16))
        properties = b"\x00\x53\x74\xc1" + _short(b"\x02" + _text("id") + uuid)
        data = b"\x00\x53\x75\xa0" + _short(body)
        _send(
            wire, _TRANSFER, _uint(0), _uint(0), b"\xa0" + _short(b"1"), _uint(0), _FALSE,
            payload=header + properties + data,
        )  # fmt: skip
        _until(wire, _DISPOSITION)


def take_one(url: str, queue: str, holding: bytes) -> bool:
    """Receive the message at the head of the queue; accept it where it holds these bytes, and give
    it back where it does not: another consumer may have the wanted one just now."""
    with _session(url) as (wire, begin):
        source = _described(0x28, _text(f"/queues/{quote(queue, safe='')}"))
        _send(wire, _ATTACH, _text("link"), _uint(0), _TRUE, _NULL, _NULL, source, _described(0x29))
        _until(wire, _ATTACH)
        at = begin.index(b"\x60") + 3  # behind its channel: its next outgoing id
        first = begin[at : at + {0x43: 1, 0x52: 2, 0x70: 5}[begin[at]]]
        _send(wire, _FLOW, first, _uint(100), _uint(0), _uint(100), _uint(0), _uint(0), _uint(1))
        message = _until(wire, _TRANSFER)
        outcome = _described(0x24 if holding in message else 0x26)  # accepted, released
        _send(wire, _DISPOSITION, _TRUE, _uint(0), _NULL, _TRUE, outcome)
        return holding in message


@contextmanager
def _session(url: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection in a session, and the broker's begin."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 5672), 10) as wire:
        plain = f"\0{parts.username}\0{parts.password}".encode()
        wire.sendall(b"AMQP\x03\x01\x00\x00")
        _exactly(wire, 8)
        _send(wire, _SASL_INIT, _symbol(b"PLAIN"), b"\xa0" + _short(plain), kind=1)
        _until(wire, _SASL_OUTCOME)
        wire.sendall(b"AMQP\x00\x01\x00\x00")
        _exactly(wire, 8)
        _send(wire, _OPEN, _text("test"))
        _until(wire, _OPEN)
        _send(wire, _BEGIN, _NULL, _uint(0), _uint(100), _uint(100))
        yield wire, _until(wire, _BEGIN)
        _send(wire, _CLOSE)
        _until(wire, _CLOSE)


def _short(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _text(text: str) -> bytes:
    return b"\xa1" + _short(text.encode())


def _symbol(name: bytes) -> bytes:
    return b"\xa3" + _short(name)


def _uint(number: int) -> bytes:
    return b"\x70" + struct.pack(">I", number)


def _described(code: int, *fields: bytes) -> bytes:
    inside = bytes((len(fields),)) + b"".join(fields)
    return bytes((0x00, 0x53, code, 0xC0)) + _short(inside)


def _send(
    wire: socket.socket, code: int, *fields: bytes, kind: int = 0, payload: bytes = b""
) -> None:
    content = _described(code, *fields) + payload
    wire.sendall(struct.pack(">IBBH", 8 + len(content), 2, kind, 0) + content)


def _until(wire: socket.socket, code: int) -> bytes:
    """Read frames until one of this performative comes, and return it."""
    while True:
        size, offset = struct.unpack(">IB", _exactly(wire, 5))
        content = _exactly(wire, size - 5)[offset * 4 - 5 :]
        if content[2:3] == bytes((code,)):
            return content
        assert content[2:3] not in (b"\x16", b"\x17", b"\x18"), f"the broker refused: {content!r}"


def _exactly(wire: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = wire.recv(count - len(data))
        assert more, "the broker closed the connection"
        data += more
    return data
