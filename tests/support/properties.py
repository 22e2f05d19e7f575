"""AMQP properties as publishers send them, and damaged ones."""

import struct
from datetime import UTC, datetime

from hypothesis import strategies as st

from logfan.amqp_properties import EncodedProperties
from logfan.record import Properties

IDS = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["", "é" * 120, "\udcff", "a"]))
TIMES = st.one_of(st.none(), st.integers(0, 2**64 - 1))
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(),
        st.text(max_size=4), st.binary(max_size=4), st.decimals(-1000, 1000, places=2),
        st.sampled_from([b"\xff\xfe", "web-1", "web-2", 'a"\\', "é", "\x00"]),
        st.just(datetime(2026, 11, 24, tzinfo=UTC)),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip
"""Of headers: every type that `EncodedProperties` writes."""
HEADERS = st.dictionaries(st.sampled_from(["host", "service", "é"]), VALUES, max_size=4)
TYPES = st.sampled_from([None, "application/json", "text/plain"])
APPS = st.sampled_from([None, "", "shop", "show", "shape"])
PROPERTIES = st.builds(
    Properties, headers=st.just({}) | HEADERS, message_id=IDS, timestamp=TIMES, content_type=TYPES,
    app_id=APPS, correlation_id=st.sampled_from([None, None, None, "c"]),
    delivery_mode=st.sampled_from([1, 2]),
    content_encoding=st.none(), priority=st.none(), reply_to=st.none(), expiration=st.none(),
    type=st.none(), user_id=st.none(), cluster_id=st.none(),
)  # fmt: skip

_FIELDS = (
    b"t\x00", b"t\x02", b"b\xff", b"B\xff", b"U\xff\x00", b"u\xff\x00", b"s\x80\x00",
    b"I\xff\0\0\0", b"i\xff\0\0\0", b"l" + b"\xff" * 8, b"L" + b"\x7f" * 8,
    b"f\x7f\xc0\0\0", b"f\x3f\x80\0\0", b"d\x7f\xf0" + bytes(6), b"d\x3f" + bytes(7),
    b"T" + bytes(8), b"T" + b"\xff" * 8, b"T\0\0\0\0\x70\0\0\0", b"V", b"D\x02\0\0\x01\0",
    b"D\xff\xff\0\0\0", b"S\0\0\0\x02ok", b"S\0\0\0\x02\xff\xfe", b'S\0\0\0\x02"\\',
    b"S\0\0\0\x02\xc3\xa9", b"S\0\0\0\0", b"x\0\0\0\x02ok", b"x\0\0\0\x02\xff\xfe",
    b"A\0\0\0\0", b"A\0\0\0\x03VVV", b"A\0\0\0\x02b\x01", b"A\0\0\0\x07A\0\0\0\x02VV",
    b"F\0\0\0\0", b"F\0\0\0\x03\x01aV", b"F\0\0\0\x03\x01a?", b"F\0\0\0\x04\x01a",
    b"F\0\0\0\x06\x01aV\x01aV", b"F\0\0\0\x09\x01aA\0\0\0\x02VV", b"?", b"S\0\0\0\xff",
)  # fmt: skip
"""Values of headers as the wire has them: every type, some of one length, some unreadable."""
_NAMES = (b"\x04host", b"\x04zone", b"\x00", b"\x01\xff", b"\x04\\xff", b"\xffx")


def wired(entries: list[tuple[bytes, bytes]], message_id: bytes, more: bytes) -> bytes:
    """Headers, a delivery mode and a message id, with fields that we do not write ourselves."""
    table = b"".join(name + field for name, field in entries)
    head = struct.pack(">HI", 0x3080, len(table))
    return head + table + bytes((2, len(message_id))) + message_id + more


WIRED = st.builds(
    wired,
    st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_FIELDS)), min_size=1, max_size=3),
    st.sampled_from([b"aa", b"bb", b'\xff"', b"ccc"]),
    st.sampled_from([b"", b"\0"]),
)


def encoded(properties: Properties) -> bytes:
    return b"".join(EncodedProperties(properties).encode())


def damaged(raw: bytes, cut: int, at: int, byte: int) -> bytes:
    """Without so many of its last bytes, and with another byte somewhere."""
    raw = raw[: max(2, len(raw) - cut)]
    at = 2 + at % max(1, len(raw) - 2)
    return raw[:at] + bytes((byte,)) + raw[at + 1 :]


DAMAGED = st.builds(
    damaged, PROPERTIES.map(encoded), st.integers(0, 12), st.integers(0, 60), st.integers(0, 255)
)
RAWS = PROPERTIES.map(encoded) | WIRED | DAMAGED


def changed(raw: bytes, changes: list[tuple[int, int]]) -> list[bytes]:
    """These bytes, and the same with one other byte, for each of the changes."""
    made = [raw]
    for place, byte in changes:
        at = place % len(raw)
        made.append(raw[:at] + bytes((byte,)) + raw[at + 1 :])
    return made


CHANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3)
MESSAGES = st.lists(st.builds(changed, RAWS, CHANGES), min_size=1, max_size=4).map(
    lambda parts: [raw for part in parts for raw in part]
)
"""Properties of one message after the other, some of which are nearly alike."""
