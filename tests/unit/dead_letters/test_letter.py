"""A refused record becomes a dead letter and is a record again, whatever the publisher sent."""

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec

from logfan.amqp_properties import REPLAY, EncodedProperties, decode_properties
from logfan.dead_letters import header_overflow
from logfan.dead_letters.letter import SINK, Letter, Refusal, letter_of, replayed
from logfan.field_table import UNREADABLE, encode_table
from logfan.record import Properties, Record
from logfan.testing import hostile_records, record

AT = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()

FAR = b"\x7f" + b"\xff" * 7
"""Seconds since 1970 that no calendar has."""


def refused(one: Record) -> Letter:
    return letter_of(Refusal(one, "archive", "too old\nfor us", 3, AT), "logfan")


def over_the_wire(letter: Letter, frame_max: int = 131_072) -> Letter:
    """As pika decodes what we encoded, in one frame of that size."""
    packed = header_overflow.packed(letter, frame_max)
    raw = b"".join(EncodedProperties(packed.properties).encode())
    assert len(raw) + 20 <= frame_max
    return header_overflow.unpacked(Letter(packed.body, decode_properties(raw)))


def test_it_says_what_happened_and_where_it_came_from() -> None:
    letter = over_the_wire(refused(record("body", exchange="logs", routing_key="shop")))
    assert letter.sink == "archive"
    assert letter.reason == "too old for us"
    assert letter.attempts == 3
    assert letter.first_failed_at == "2026-11-24T12:00:00.000Z"
    assert (letter.exchange, letter.routing_key, letter.queue) == ("logs", "shop", "logfan")
    assert letter.properties.delivery_mode == 2


def test_what_a_broker_would_act_upon_is_put_aside_and_comes_back() -> None:
    one = record(
        "x", headers={"CC": ["other"], "BCC": ["secret"], "x-delivery-count": 7, "mine": 1},
        expiration="1000", user_id="someone", delivery_mode=1, message_id="m",
    )  # fmt: skip
    letter = over_the_wire(refused(one))
    properties = letter.properties
    assert properties.expiration is None
    assert properties.user_id is None
    assert not {"CC", "BCC", "x-delivery-count"} & set(properties.headers)
    original = letter.original()
    assert (original.expiration, original.user_id, original.delivery_mode) == ("1000", "someone", 1)
    assert dict(original.headers) == {"CC": ["other"], "BCC": ["secret"], "mine": 1}
    assert original.message_id == "m"


def test_a_replayed_letter_is_the_record_again_for_its_sink_alone() -> None:
    one = record("x", routing_key="shop", headers={"host": "a"}, content_type="text/plain")
    letter = over_the_wire(refused(one).replay())
    arrived = Record(letter.body, "", "logfan", True, AT, letter.properties)
    result = replayed(arrived)
    assert result is not None
    sink, again = result
    assert sink == "archive"
    assert (again.body, again.exchange, again.routing_key) == (b"x", "logs", "shop")
    assert dict(again.headers) == {"host": "a"}
    assert again.properties.content_type == "text/plain"
    assert again.redelivered


def test_nobody_keeps_a_message_from_the_other_sinks_through_the_exchange() -> None:
    assert replayed(record("x", exchange="logs", headers={REPLAY: "archive"})) is None
    assert replayed(record("x", exchange="", headers={REPLAY: 7})) is None
    assert replayed(record("x", exchange="")) is None


@pytest.mark.parametrize("kind", list(hostile_records()))
def test_hostile_records_come_through_whole(kind: str) -> None:
    one = hostile_records()[kind]
    letter = over_the_wire(refused(one))
    assert letter.body == one.body
    assert set(letter.original().headers) == set(one.headers)
    assert letter.original().message_id == one.message_id
    assert letter.routing_key == one.routing_key


FRAMES = (4096, 8192, 131_072)


@pytest.mark.parametrize("frame_max", FRAMES)
def test_headers_that_leave_no_room_in_their_frame_travel_before_the_body(frame_max: int) -> None:
    headers = {f"h{n}": "v" * 1000 for n in range(130)}
    one = record("body", headers=headers)
    packed = header_overflow.packed(refused(one), frame_max)
    assert len(b"".join(EncodedProperties(packed.properties).encode())) < 4096
    assert packed.properties.headers[SINK] == "archive"
    letter = over_the_wire(refused(one), frame_max)
    assert letter.body == b"body"
    assert dict(letter.original().headers) == headers


@pytest.mark.parametrize("frame_max", FRAMES)
@pytest.mark.parametrize("under", range(-60, 700, 20))
def test_at_every_size_around_the_frame_a_letter_fits_and_comes_back(
    frame_max: int, under: int
) -> None:
    one = record("body", headers={"trace": "s" * (frame_max - under)}, message_id="m")
    letter = over_the_wire(refused(one), frame_max)
    assert letter.body == b"body"
    assert dict(letter.original().headers) == {"trace": "s" * (frame_max - under)}
    again = over_the_wire(letter.replay(), frame_max)
    assert (again.body, again.original()) == (b"body", letter.original())


def test_the_smallest_frame_holds_the_longest_properties_names_and_reason() -> None:
    names: dict[str, Any] = dict.fromkeys(
        ("content_type", "content_encoding", "correlation_id", "reply_to", "expiration",
         "message_id", "type", "user_id", "app_id", "cluster_id"), "\u00e4" * 127,
    )  # fmt: skip
    one = record(
        "body", exchange="e" * 255, routing_key="r" * 255, headers={"CC": ["c" * 5000]}, priority=9,
        delivery_mode=1, timestamp=1 << 40, **names,
    )  # fmt: skip
    long = letter_of(Refusal(one, "s" * 255, "\u20ac" * 1000, 1 << 40, AT), "q" * 255)
    letter = over_the_wire(over_the_wire(long, 4096).replay(), 4096)
    assert letter.original() == one.properties
    assert (letter.exchange, letter.routing_key) == (one.exchange, one.routing_key)
    assert (letter.sink, letter.queue) == ("s" * 255, "q" * 255)
    assert letter.reason.startswith("\u20ac" * 50)


@pytest.mark.parametrize("name", ["x-logfan-anything", "x-logfan-reason", "x-logfan-replay"])
def test_a_header_that_a_publisher_named_like_ours_is_no_part_of_the_letter(name: str) -> None:
    letter = over_the_wire(refused(record("x", headers={name: "v" * 130_000, "host": "a"})))
    assert letter.sink == "archive"
    assert letter.reason == "too old for us"
    assert dict(letter.original().headers) == {"host": "a"}
    assert "x-logfan-anything" not in letter.properties.headers


@pytest.mark.parametrize("mark", [9, 4, 0, -1, "4", "4 0123456789abcdef", b"x", None, [4], True])
def test_a_forged_mark_of_packing_is_not_trusted(mark: object) -> None:
    """The body begins with an empty table, as a forger would have it."""
    body = b"\x00\x00\x00\x00body"
    letter = over_the_wire(refused(record(body, headers={"x-logfan-packed": mark})))
    assert letter.body == body
    by_hand = refused(record(body))
    headers = {**by_hand.properties.headers, "x-logfan-packed": mark}
    forged = Letter(body, by_hand.properties._replace(headers=headers))
    assert header_overflow.unpacked(forged).body == body
    assert over_the_wire(header_overflow.unpacked(forged).replay(), 4096).body == body


def test_letters_that_were_packed_before_there_was_a_check_value_are_read() -> None:
    table = encode_table({"old": "v" * 100_000})
    letter = Letter(table + b"body", Properties(headers={"x-logfan-packed": len(table)}))
    assert header_overflow.unpacked(letter).body == b"body"
    assert header_overflow.unpacked(letter).properties.headers == {"old": "v" * 100_000}


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.text(max_size=30),
    st.binary(max_size=30), st.floats(allow_nan=False),
    st.decimals(-1000, 1000, places=2), st.just(datetime(2026, 1, 1, tzinfo=UTC)),
)  # fmt: skip
KEYS = st.text(min_size=1, max_size=60)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_table_of_headers_comes_back_equal(headers: dict[str, Any]) -> None:
    raw = b"".join(EncodedProperties(Properties(headers=headers)).encode())
    assert decode_properties(raw).headers == headers


def test_what_amqp_cannot_say_is_written_as_text() -> None:
    wild = {"big": 1 << 70, "decimal": Decimal("1e300"), "k" * 300: 1}
    raw = b"".join(EncodedProperties(Properties(headers=wild)).encode())
    decoded = decode_properties(raw)
    assert decoded.headers["big"] == str(1 << 70)
    assert decoded.headers["decimal"] == "1E+300"
    assert encode_table({})[:4] == b"\x00\x00\x00\x00"


def test_properties_are_read_as_pika_writes_them() -> None:
    given = spec.BasicProperties(
        content_type="a/b", content_encoding="gzip", headers={"n": 1, "t": {"x": [True, None]}},
        delivery_mode=2, priority=9, correlation_id="c", reply_to="r", expiration="1",
        message_id="m", timestamp=5, type="t", user_id="u", app_id="a", cluster_id="l",
    )  # fmt: skip
    read = decode_properties(b"".join(given.encode()))
    for name in Properties._fields:
        assert getattr(read, name) == getattr(given, name), name


@given(st.binary(max_size=200))
def test_no_bytes_of_a_header_can_raise(raw: bytes) -> None:
    decode_properties(raw)
    decode_properties(b"\x20\x00" + len(raw).to_bytes(4, "big") + raw)


def test_what_nobody_can_read_in_a_table_is_kept() -> None:
    table = encode_table({"a": 1})[4:] + b"\x01b?what"
    raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
    assert dict(decode_properties(raw).headers) == {"a": 1, UNREADABLE: b"\x01b?what"}


def test_times_beyond_the_calendar_and_floats_without_a_number_are_read() -> None:
    table = b"\x01tT" + FAR + b"\x01fd" + struct.pack(">d", float("inf"))
    raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
    assert dict(decode_properties(raw).headers) == {"t": (1 << 63) - 1, "f": float("inf")}


def test_times_beyond_the_calendar_come_back_as_times() -> None:
    table = b"".join(b"\x01%cT" % name + moment for name, moment in ((97, FAR), (98, b"\xff" * 8)))
    raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
    assert b"".join(EncodedProperties(decode_properties(raw)).encode()) == raw


def test_what_is_nested_too_deeply_is_kept_as_bytes_and_can_be_sent_again() -> None:
    table = b""
    for _ in range(5_000):
        table = b"\x01tF" + len(table).to_bytes(4, "big") + table
    raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
    properties = decode_properties(raw)
    one = Record(b"x", "logs", "", False, AT, properties)
    level, depth = over_the_wire(refused(one)).original().headers, 0
    while UNREADABLE not in level:
        level, depth = level["t"], depth + 1
    assert 90 < depth < 110


def test_a_forged_letter_is_a_message_and_no_trouble() -> None:
    forged = {"x-logfan-packed": 9, REPLAY: "archive"}
    one = record("no table", exchange="", headers=forged)
    assert header_overflow.whole(one).body == one.body
    headers = {REPLAY: "archive", "x-logfan-expiration": 7, "x-logfan-delivery-mode": 70_000}
    result = replayed(record("x", exchange="", headers=headers))
    assert result is not None
    assert over_the_wire(refused(result[1])).body == b"x"
