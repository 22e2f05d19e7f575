"""`record.replace`: another body, other headers, and the same message."""

import gzip
from typing import Any

import pytest

from logfan.record import Record
from logfan.testing import record

GZIPPED = gzip.compress(b"old")


def test_another_body_leaves_all_else_as_it_was() -> None:
    one = record(
        b"old", routing_key="r", headers={"host": "a", "id": 5}, message_id="m", priority=3,
        redelivered=True, received_at=5.5,
    )  # fmt: skip
    other = one.replace(body=b'{"n":1}')
    assert (other.body, other.json(), other.size) == (b'{"n":1}', {"n": 1}, 7)
    assert other.properties == one.properties
    assert other.origin is one.origin
    assert (other.id(), other.id("headers.id")) == ("m", "m")
    assert one.body == b"old"


def test_other_headers_leave_the_body_and_are_a_copy() -> None:
    one = record(b"x", headers={"host": "a"}, message_id="m")
    given = {**one.headers, "env": "test"}
    other = one.replace(headers=given)
    given["late"] = "x"
    assert dict(other.headers) == {"host": "a", "env": "test"}
    assert other.body is one.body
    assert other.message_id == "m"
    assert dict(one.headers) == {"host": "a"}
    assert dict(other.replace(headers={}).headers) == {}


def test_without_either_it_is_equal() -> None:
    one = record(b"x", message_id="m")
    assert (one.replace().body, one.replace().properties) == (one.body, one.properties)


def test_text_becomes_utf_8_and_is_declared_as_that() -> None:
    latin = record("é".encode("latin-1"), content_type="text/plain; charset=iso-8859-1")
    other = latin.replace(body=latin.text + "!")
    assert other.body == "é!".encode()
    assert other.text == "é!"
    assert other.properties.content_type == "text/plain; charset=utf-8"
    kombu = record("é".encode("utf-16"), content_encoding="utf-16")
    assert kombu.replace(body=kombu.text).text == "é"
    assert record(b"x").replace(body="\ud800").body == b"\\ud800"


@pytest.mark.parametrize(
    "properties",
    [
        {"content_encoding": "gzip"}, {"content_encoding": "br"},
        {"headers": {"compression": "application/x-gzip", "host": "a"}},
        {"headers": {"compression": "odd", "host": "a"}},
        {"content_encoding": "gzip", "headers": {"compression": "gzip", "host": "a"}},
    ],
)  # fmt: skip
def test_a_new_body_is_not_compressed_whatever_the_old_one_was(properties: dict[str, Any]) -> None:
    one = record(GZIPPED, **properties)
    other = one.replace(body=b"new")
    assert other.decoded().body == b"new"
    assert "host" not in properties.get("headers", {}) or dict(other.headers) == {"host": "a"}
    assert one.replace(headers=one.headers).properties == one.properties
    again = one.replace(body=b"new", headers={**one.headers, "env": "x"})
    assert again.decoded().body == b"new"
    assert again.headers["env"] == "x"


@pytest.mark.parametrize("given", [{"body": {"n": 1}}, {"body": 5}, {"headers": [("a", 1)]}])
def test_what_is_no_body_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"must be bytes or text, not|must be a mapping, not list"):
        record(b"x").replace(**given)


def test_it_is_a_record_for_all_that_look_at_it() -> None:
    assert type(record(b"x").replace(body=b"y")) is Record
