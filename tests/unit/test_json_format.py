"""Lines made of the bytes of properties are those made of the properties."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

import logfan
from logfan.amqp_properties import decode_properties
from logfan.json_format import _known, json_lines
from logfan.record import Origin, Properties
from support.properties import DAMAGED, PROPERTIES, encoded

ORIGIN = Origin("logs", "app", False, 1764000000.123456, decode_properties)


def received(raw: bytes, body: bytes = b"{}") -> logfan.Record:
    """A record as it comes from the wire, its properties not decoded."""
    record = logfan.Record(body, "", "", False, 0.0, Properties())
    record._origin = ORIGIN
    record._properties = raw
    return record


def looked_at(raw: bytes, body: bytes = b"{}") -> logfan.Record:
    """The same after a sink has looked at its properties."""
    record = received(raw, body)
    assert record.properties is record.properties
    return record


def line(properties: Properties) -> Any:
    (made,) = json_lines([received(encoded(properties))])
    return orjson.loads(made)


@given(st.lists(PROPERTIES.map(encoded) | DAMAGED, min_size=2, max_size=12))
def test_bytes_make_the_same_lines_as_what_they_say(messages: list[bytes]) -> None:
    expected = json_lines([looked_at(raw) for raw in messages])
    assert json_lines([received(raw) for raw in messages]) == expected
    assert [json_lines([received(raw)])[0] for raw in messages] == expected


def test_a_known_message_that_is_cut_anywhere() -> None:
    for timestamp in (None, 5):
        raw = encoded(Properties(content_type="a", message_id="mm", timestamp=timestamp))
        for size in range(2, len(raw) + 1):
            json_lines([received(raw)])
            assert json_lines([received(raw[:size])]) == json_lines([looked_at(raw[:size])])


def test_cut_ones_do_not_become_known_for_whole_ones() -> None:
    _known.forget()
    whole = encoded(Properties(content_type="a", message_id="mm"))
    for size in range(2, len(whole)):
        json_lines([received(whole[:size])])
        for message_id in ("a", "mm"):
            assert line(Properties(content_type="a", message_id=message_id)) == {
                **orjson.loads(json_lines([looked_at(b"\0\0")])[0]),
                "content_type": "a", "message_id": message_id,
            }  # fmt: skip


def test_what_is_known_is_not_decoded() -> None:
    def refuse(raw: bytes) -> Properties:
        raise AssertionError(raw)

    _known.forget()
    for app in ("shop", "warehouse"):
        json_lines([received(encoded(Properties(message_id="a", timestamp=1, app_id=app)))])
    json_lines([received(encoded(Properties(delivery_mode=2)))])
    again = [
        received(encoded(Properties(message_id="longer", timestamp=1, app_id="shop"))),
        received(encoded(Properties(delivery_mode=2))),
        received(encoded(Properties(message_id="", timestamp=1, app_id="warehouse"))),
    ]
    for record in again:
        record._origin = Origin("logs", "app", False, 1764000000.5, refuse)
    ids = [orjson.loads(made).get("message_id") for made in json_lines(again)]
    assert ids == ["longer", None, ""]


def test_each_line_says_where_its_own_record_came_from() -> None:
    ids = [received(encoded(Properties(message_id=one))) for one in "abc"]
    ids[1]._origin = Origin("logs", "other", True, 0.0, decode_properties)
    for _ in range(2):
        lines = [orjson.loads(made) for made in json_lines(ids)]
        assert [one["routing_key"] for one in lines] == ["app", "other", "app"]
        assert [one.get("redelivered") for one in lines] == [None, True, None]


def test_an_id_that_is_no_text_or_has_quotes_is_escaped() -> None:
    known = Properties(content_type="a", message_id="first")
    for odd in ('"', "\\", "\x00\n", "é", "\udcff"):
        said = [line(known._replace(message_id=one))["message_id"] for one in ("first", odd)]
        assert said == ["first", odd.encode("utf-8", "backslashreplace").decode()]


def test_publishers_that_stamp_each_message_otherwise_are_known() -> None:
    _known.forget()
    for number in range(20):
        sent = Properties(message_id=f"m{number}", timestamp=1764000000000 + number, app_id="a")
        assert line(sent)["timestamp"] == 1764000000000 + number
    assert _known.count == 1
