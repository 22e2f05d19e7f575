"""The fixed input: log lines of 200 bytes with four properties, as bytes of the wire.

Built with pika's own means, so that logfan has no say in them.
"""

import struct

from pika import frame, spec

from bench.bodies import NUMBER_DIGITS, PLAIN, deck, places
from logfan.amqp.delivery_parser import Stream
from logfan.amqp_properties import decode_properties
from logfan.record import Record

CHANNEL = 1
READ_BYTES = 128 * 1024
RECORDS_A_READ = 400
"""About so many messages fit into a read."""
BODY_BYTES = 200
AT = 1_795_521_600.0
"""When everything is received: 2026-11-24T12:00:00Z."""
_A_SECOND = 500
"""So many messages bear the same timestamp."""
_TAG_AT = 7 + 4 + 1
"""In a deliver frame, without the consumer tag: where the delivery tag is."""


def bodies(count: int) -> list[bytes]:
    """Bodies that differ, the same ones each time."""
    block = deck(BODY_BYTES)
    kinds = [block[at : at + BODY_BYTES] for at in range(0, len(block), BODY_BYTES)]
    made = []
    number_at, _ = places(PLAIN)
    for number in range(count):
        body = kinds[number % len(kinds)]
        digits = b"%0*d" % (NUMBER_DIGITS, number)
        made.append(body[:number_at] + digits + body[number_at + NUMBER_DIGITS :])
    return made


def messages(count: int, consumer_tag: str) -> list[bytes]:
    """One delivery after another, each in its three frames."""
    made = []
    for number, body in enumerate(bodies(count)):
        deliver = spec.Basic.Deliver(consumer_tag, 1 + number, False, "logs", "")
        properties = spec.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=f"{number:032x}",
            timestamp=int(AT) + number // _A_SECOND,
        )
        frames = (
            frame.Method(CHANNEL, deliver),
            frame.Header(CHANNEL, len(body), properties),
            frame.Body(CHANNEL, body),
        )
        made.append(b"".join(one.marshal() for one in frames))
    return made


def renumbered(block: list[bytes], consumer_tag: str, first_tag: int) -> bytes:
    """The same messages with other delivery tags, as one piece."""
    data = bytearray(b"".join(block))
    at = _TAG_AT + len(consumer_tag)
    for tag, message in enumerate(block, first_tag):
        struct.pack_into(">Q", data, at, tag)
        at += len(message)
    return bytes(data)


def reads(data: bytes) -> list[bytes]:
    """As the socket gives them: cut anywhere."""
    return [data[at : at + READ_BYTES] for at in range(0, len(data), READ_BYTES)]


def batches(count: int) -> list[list[Record]]:
    """Records as the wire leaves them, one list for each read."""
    stream = Stream(CHANNEL, "tag", decode_properties, apart=b"x-nobody")
    made, block = [], messages(count, "tag")
    for at in range(0, count, RECORDS_A_READ):
        run = stream.scan(b"".join(block[at : at + RECORDS_A_READ]), 0, AT)
        assert run is not None
        made.append(run.records)
    return made
