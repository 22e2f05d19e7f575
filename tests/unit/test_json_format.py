"""Lines made of the bytes of properties are those made of the properties."""

from typing import Any

import orjson
from hypothesis import given, settings

import logfan
from logfan.amqp_properties import _decode_each, decode_properties
from logfan.json_format import _templates, json_lines
from logfan.record import Origin, Properties
from support.properties import MESSAGES, encoded

ORIGIN = Origin("logs", "app", False, 1764000000.123456, decode_properties)


def received(raw: bytes, body: bytes = b"{}") -> logfan.Record:
    """A record as it comes from the wire, its properties not decoded."""
    record = logfan.Record(body, "", "", False, 0.0, Properties())
    record.origin = ORIGIN
    record._properties = raw
    return record


def slowly(raws: list[bytes]) -> list[bytes]:
    """The lines that are made of the properties themselves."""
    records = [received(raw) for raw in raws]
    for record in records:
        record._properties = _decode_each(record._properties)
    return json_lines(records)


def line(properties: Properties) -> Any:
    (made,) = json_lines([received(encoded(properties))])
    return orjson.loads(made)


@settings(deadline=None)
@given(MESSAGES)
def test_bytes_make_the_same_lines_as_what_they_say(messages: list[bytes]) -> None:
    expected = slowly(messages)
    for _ in range(3):
        assert json_lines([received(raw) for raw in messages]) == expected
    assert [json_lines([received(raw)])[0] for raw in messages] == expected


def test_a_known_message_that_is_cut_anywhere() -> None:
    for timestamp in (None, 5):
        raw = encoded(Properties(content_type="a", message_id="mm", timestamp=timestamp))
        for size in range(2, len(raw) + 1):
            json_lines([received(raw)])
            assert json_lines([received(raw[:size])]) == slowly([raw[:size]])


def test_cut_ones_do_not_become_known_for_whole_ones() -> None:
    _templates.forget()
    whole = encoded(Properties(content_type="a", message_id="mm"))
    for size in range(2, len(whole)):
        json_lines([received(whole[:size])])
        for message_id in ("a", "mm"):
            assert line(Properties(content_type="a", message_id=message_id)) == {
                **orjson.loads(slowly([b"\0\0"])[0]),
                "content_type": "a", "message_id": message_id,
            }  # fmt: skip


def publishers() -> list[list[Properties]]:
    """Two messages or more of each: what they sent before, and the last one."""
    shapes = [
        [
            Properties(message_id="aa", timestamp=1, app_id="shop"),
            Properties(message_id="bb", timestamp=1 << 40, app_id="shop"),
        ],
        [Properties(delivery_mode=2)] * 2,
        [Properties(timestamp=number, priority=1) for number in range(3)],
        [Properties(correlation_id=f"{number}", message_id="") for number in range(3)],
    ]
    for number in range(20):
        host = {"host": f"web-{number}", f"zone-{number % 7}": number, "tags": [1, {"a": None}]}
        shapes.append(
            [
                Properties(headers={**host, "traceparent": f"00-{tail}-01"}, message_id=f"m{tail}")
                for tail in range(4)
            ]
        )
    return shapes  # fmt: skip


def test_what_is_known_is_not_decoded() -> None:
    def refuse(raw: bytes) -> Properties:
        raise AssertionError(raw)

    _templates.forget()
    for sent in publishers():
        for one in sent[:-1]:
            json_lines([received(encoded(one))])
    again = [received(encoded(sent[-1])) for sent in publishers()]
    expected = slowly([encoded(sent[-1]) for sent in publishers()])
    for record in again:
        record.origin = Origin("logs", "app", False, 1764000000.123456, refuse)
    assert json_lines(again) == expected


def test_each_line_says_where_its_own_record_came_from() -> None:
    ids = [received(encoded(Properties(message_id=one))) for one in "abc"]
    ids[1].origin = Origin("logs", "other", True, 0.0, decode_properties)
    for _ in range(2):
        lines = [orjson.loads(made) for made in json_lines(ids)]
        assert [one["routing_key"] for one in lines] == ["app", "other", "app"]
        assert [one.get("redelivered") for one in lines] == [None, True, None]


def test_an_id_that_is_no_text_or_has_quotes_is_escaped() -> None:
    known = Properties(content_type="a", message_id="first")
    for odd in ('"', "\\", "\x00\n", "é", "\udcff"):
        ids = [line(known._replace(message_id=one))["message_id"] for one in ("first", odd)]
        assert ids == ["first", odd.encode("utf-8", "backslashreplace").decode()]


def test_header_values_that_are_no_text_among_those_that_are() -> None:
    _templates.forget()
    sent = [
        encoded(Properties(headers={"a": value}, message_id="m"))
        for value in ("ab", "cd", "é", '"\\', b"\xff\xfe", "\n\x7f")
    ]
    sent = [raw.replace(b"\x01ax", b"\x01aS") for raw in sent]  # bytes, as text
    for _ in range(3):
        assert json_lines([received(raw) for raw in sent]) == slowly(sent)


def test_publishers_that_stamp_each_message_otherwise_are_known() -> None:
    _templates.forget()
    for number in range(20):
        sent = Properties(message_id=f"m{number:03}", timestamp=1764000000000 + number, app_id="a")
        assert line(sent)["timestamp"] == 1764000000000 + number
    assert len(_templates._known) == 1
