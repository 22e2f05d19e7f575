"""What a line of each format says, and that no message can make two lines of one."""

import base64
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from unicodedata import category

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfan import Record, json_lines, json_pieces
from logfan_sinks.formats import (
    encode_text,
    encoder,
    escape,
    line_pieces,
    with_lines,
    without_line_end,
)
from support.files import record

MICROSECONDS = 1764000000.123456


def encode_json(record: Record) -> bytes:
    return json_lines([record])[0]


def body_of(raw: bytes) -> Any:
    """The body as somebody reads it who parses the line."""
    line = encode_json(record(raw))
    assert b"\n" not in line
    return json.loads(line)["body"]


def test_a_json_line_tells_where_the_message_came_from() -> None:
    line = encode_json(record('{"a":1}', routing_key="app.web", received_at=MICROSECONDS))
    assert line == (
        b'{"received_at":"2025-11-24T16:00:00.123456Z","exchange":"logs",'
        b'"routing_key":"app.web","body":{"a":1}}'
    )


def test_a_json_line_holds_every_property_that_is_set_and_no_other() -> None:
    given_properties: dict[str, Any] = {
        "message_id": "m1", "timestamp": 1764000000, "correlation_id": "c1", "app_id": "shop",
        "type": "order", "content_type": "text/plain", "content_encoding": "utf-8",
        "reply_to": "answers", "user_id": "guest", "priority": 0, "delivery_mode": 2,
        "expiration": "60000", "cluster_id": "", "headers": {"host": "web-1"},
    }  # fmt: skip
    line = json.loads(encode_json(record("x", **given_properties)))
    assert line == {
        "received_at": "2026-11-24T12:00:00.000000Z", "exchange": "logs", "routing_key": "app",
        **given_properties, "body": "x",
    }  # fmt: skip
    few = json.loads(encode_json(record("x", timestamp=0, message_id="")))
    assert set(few) == {
        "received_at", "exchange", "routing_key", "message_id", "timestamp", "body",
    }  # fmt: skip


def test_only_a_redelivered_message_says_so() -> None:
    assert json.loads(encode_json(record("x", redelivered=True)))["redelivered"] is True
    assert b"redelivered" not in encode_json(record("x"))


def test_two_messages_that_differ_only_in_a_property_do_not_share_a_line() -> None:
    records = [
        record("x", app_id="a"),
        record("x", app_id="b"),
        record("x", type="a"),
        record("x", priority=1),
    ]
    lines = [json.loads(encode_json(one)) for one in records]
    assert [line.get("app_id") for line in lines] == ["a", "b", None, None]
    assert [line.get("type") for line in lines] == [None, None, "a", None]
    assert lines[3]["priority"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "123456789012345678901234567890",
        "1.0000000000000000000001",
        '{"b":1,"a":2,"b":3}',
        "-0.0",
        '"caf\\u00e9 \\/ \\ud83d\\ude00"',
        "[" * 1000 + "]" * 1000,
        "null",
    ],
)
def test_a_json_body_goes_through_byte_for_byte(text: str) -> None:
    assert encode_json(record(text)).endswith(b'"body":' + text.encode() + b"}")


def test_pretty_printed_json_becomes_one_line_and_keeps_its_strings() -> None:
    pretty = b'{\r\n  "a": [\n    1,\r    2\n  ],\n\t"two  spaces \\n": "\xe2\x80\xa8  x "\n}\n'
    line = encode_json(record(pretty))
    assert line.endswith(b'"body":{"a": [1,2],"two  spaces \\n": "\xe2\x80\xa8  x "}}')
    assert encode_json(record(b"[1,\r 2]")).endswith(b'"body":[1,2]}')


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", ""),
        (b"plain words", "plain words"),
        (b"two\nlines\r\n", "two\nlines\r\n"),
        (b"nul \0 and \x1b[31m", "nul \0 and \x1b[31m"),
        ("\u2028\u202e\U0001f600".encode(), "\u2028\u202e\U0001f600"),
        (b"NaN", "NaN"),
        (b"Infinity", "Infinity"),
        (b"1e400", "1e400"),
        (b'"\\ud800"', '"\\ud800"'),
        (b"\xef\xbb\xbfno JSON", "\ufeffno JSON"),
        (b'{"a":1} {"a":2}', '{"a":1} {"a":2}'),
        (b'{"a":"raw\nbreak"}', '{"a":"raw\nbreak"}'),
        (b"[" * 100_000 + b"]" * 100_000, "[" * 100_000 + "]" * 100_000),
        (b"\xff\xfe\n", {"base64": "//4K"}),
        (b"\xed\xa0\x80", {"base64": "7aCA"}),
    ],
)
def test_a_body_that_is_not_json_is_a_string_or_base64(raw: bytes, expected: object) -> None:
    assert body_of(raw) == expected


@pytest.mark.parametrize("raw", [b"\xff" * (16 << 20), b'"' + b"x" * (16 << 20) + b'"'])
def test_a_body_of_16_mib_is_one_line(raw: bytes) -> None:
    body = orjson.loads(encode_json(record(raw)))["body"]
    assert body == {"base64": base64.b64encode(raw).decode()} or body.encode() == raw[1:-1]


def test_header_values_of_every_type_of_amqp_can_be_read_back() -> None:
    headers = MappingProxyType({
        "text": "é", "bytes": b"utf-8", "binary": b"\xff", "int": 2**63 - 1, "float": 1.5,
        "bool": True, "none": None, "decimal": Decimal("1.50"), "nan": float("nan"),
        "time": datetime(2026, 1, 2, tzinfo=UTC), "naive": datetime(2026, 1, 2),  # noqa: DTZ001 - as some clients give it
        "nested": MappingProxyType({"list": (1, b"\xff", MappingProxyType({"x": ("y",)}))}),
    })  # fmt: skip
    line = encode_json(record("x", headers=headers))
    assert json.loads(line)["headers"] == {
        "text": "é", "bytes": "utf-8", "binary": {"base64": "/w=="}, "int": 2**63 - 1,
        "float": 1.5, "bool": True, "none": None, "decimal": "1.50", "nan": None,
        "time": "2026-01-02T00:00:00Z", "naive": "2026-01-02T00:00:00Z",
        "nested": {"list": [1, {"base64": "/w=="}, {"x": ["y"]}]},
    }  # fmt: skip


def test_broken_text_odd_keys_and_deep_tables_do_not_stop_a_line() -> None:
    deep: Any = "bottom"
    for _ in range(2000):
        deep = MappingProxyType({"level": deep})
    headers = {"lone": "\ud800", "\udfff": 1, "huge": 2**70, 5: "five", b"\xff": 2, "deep": deep}
    line = json.loads(encode_json(record("x", routing_key="\udc80", headers=headers)))
    assert line["routing_key"] == "\\udc80"
    assert line["headers"]["lone"] == "\\ud800"
    assert line["headers"]["\\udfff"] == 1
    assert line["headers"]["huge"] == str(2**70)
    assert line["headers"]["5"] == "five"
    assert line["headers"]["deep"]["level"]["level"]
    assert line["body"] == "x"


texts = st.text(st.characters(exclude_categories=["Cs"]))
plain_values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    plain_values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_any_json_reads_back_as_the_same_value(
    value: Any, indent: int | str | None, ascii_only: bool
) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert body_of(written) == value


@given(st.binary(max_size=60))
def test_any_bytes_can_be_read_from_the_line(raw: bytes) -> None:
    body = body_of(raw)
    try:
        assert body == orjson.loads(raw)
    except ValueError:
        back = body.encode() if isinstance(body, str) else base64.b64decode(body["base64"])
        assert back == raw


@given(st.binary(max_size=80) | texts.map(str.encode))
def test_text_has_no_character_that_a_terminal_obeys(raw: bytes) -> None:
    line = encode_text(record(raw)).decode()
    assert not [char for char in line if category(char) == "Cc"]
    assert not set(line) & set("\u2028\u2029\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x7f\x9b31m\x85", "\\x7f\\x9b31m\\x85"),
        ("\u202eevil\u2066\u061c\u2028\ufeff", "\\u202eevil\\u2066\\u061c\\u2028\\ufeff"),
        ("C:\\new", "C:\\new"),
        ("naïve \U0001f600 \u3000日本", "naïve \U0001f600 \u3000日本"),
    ],
)
def test_text_escapes_what_is_dangerous_and_leaves_the_rest(text: str, shown: str) -> None:
    assert encode_text(record(text)).decode() == shown
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"a\xffb", "a\\xffb"),
        ("grö".encode("latin-1"), "gr\\xf6"),
        ("é ".encode() + b"\xe9", "é \\xe9"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        (b"\xc3", "\\xc3"),
    ],
)
def test_text_escapes_bytes_that_are_no_text(raw: bytes, shown: str) -> None:
    assert encode_text(record(raw)).decode() == shown


@pytest.mark.parametrize(
    ("content_type", "content_encoding", "raw"),
    [
        ("text/plain; charset=iso-8859-1", None, "größe é".encode("latin-1")),
        ('text/plain;format=flowed; Charset = "ISO-8859-15"', None, "größe é".encode("latin-1")),
        ("text/plain", "latin-1", "größe é".encode("latin-1")),
        (None, "windows-1252", "größe é".encode("latin-1")),
        ("text/plain; charset=utf-16", None, "größe é".encode("utf-16")),
        ("text/plain; charset=utf-16", None, "größe é".encode("utf-16-le")),
        ("text/plain; charset=utf-16be", None, "größe é".encode("utf-16-be")),
        ("text/plain; charset=utf-32", "utf-8", "größe é".encode("utf-32")),
        ("text/plain; charset=iso-8859-1", None, "größe é".encode()),  # a false one
        ("text/plain; charset=us-ascii", None, "größe é".encode()),
        ("text/plain; charset=utf-16", None, "größe é".encode()),
    ],
)
def test_text_is_read_in_the_character_set_that_the_publisher_declared(
    content_type: str | None, content_encoding: str | None, raw: bytes
) -> None:
    one = record(raw, content_type=content_type, content_encoding=content_encoding)
    assert one.text == "größe é"
    assert encode_text(one).decode() == "größe é"


@pytest.mark.parametrize(
    "name", ["utf-8", "ascii", "utf-16", "hex", "base64", "zlib", "rot13", "punycode", "idna",
             "unicode_escape", "utf-7", "undefined", "no such", "os", "__init__", "\0", ""],
)  # fmt: skip
def test_a_false_character_set_has_the_bytes_escaped(name: str) -> None:
    for odd in (record(b"a\xe9b", content_type=f"text/plain; charset={name}"),
                record(b"a\xe9b", content_encoding=name)):  # fmt: skip
        assert encode_text(odd) == b"a\\xe9b"


@given(st.binary(max_size=60))
def test_the_bytes_can_be_had_back_from_what_is_shown(raw: bytes) -> None:
    """Where there is no backslash among them: no byte that is no text is lost."""
    raw = raw.replace(b"\\", b"")
    text = record(raw).text
    assert (
        re.sub(r"\\x(..)", lambda found: chr(0xDC00 + int(found[1], 16)), text).encode(
            "utf-8", "surrogateescape"
        )
        == raw
    )


@pytest.mark.slow
@pytest.mark.parametrize("charset", [None, "iso-8859-1", "utf-16"])
def test_a_long_body_is_the_same_text_in_pieces(charset: str | None) -> None:
    for unit in ("größe é\n", "\0\x1b", "x\r\n"):
        long = unit * (2_200_000 // len(unit))
        one = record(
            long.encode(charset or "utf-8"),
            content_type=f"text/plain; charset={charset}" if charset else None,
        )
        assert encode_text(one) == escape(without_line_end(long)).encode()
        assert one.text == long


def test_one_line_end_behind_a_body_is_not_shown() -> None:
    shown = {b"a\n": b"a", b"a\r\n": b"a", b"a\n\n": b"a\\n", b"\n": b"", b"a\r": b"a\\r",
             b"a\nb\n": b"a\\nb"}  # fmt: skip
    assert {raw: encode_text(record(raw)) for raw in shown} == shown


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"\xef\xbb\xbf" + '{"a": "é"}'.encode(), None),
        ('{"a": "é"}'.encode("utf-16"), None),
        ('{"a": "é"}'.encode("utf-32"), None),
        ('{"a": "é"}'.encode("latin-1"), "application/json; charset=iso-8859-1"),
        ('{"a": "é"}'.encode("utf-16-le"), "application/json; charset=utf-16le"),
    ],
)
@pytest.mark.parametrize("size", [0, 5_000, 2_000_000])
def test_json_behind_a_byte_order_mark_or_in_a_declared_set_is_json(
    raw: bytes, content_type: str | None, size: int
) -> None:
    space = " " * size
    charset = "utf-8" if raw[:3] == b"\xef\xbb\xbf" else "latin-1"
    if raw[1:2] == b"\0" or raw[2:4] == b"{\0":
        charset = "utf-16-le"
    if raw[4:8] == b"{\0\0\0":
        charset = "utf-32-le"
    one = record(raw + space.encode(charset), content_type=content_type)
    assert one.json() == {"a": "é"}
    assert json.loads(encode_json(one))["body"] == {"a": "é"}
    assert json.loads(b"".join(json_pieces(one)))["body"] == {"a": "é"}


def test_each_format_has_its_encoder() -> None:
    sample = record("x\ty")
    assert [encoder(form)([sample]) for form in ("text", "raw")] == [[b"x\\ty"], [b"x\ty"]]
    assert encoder("json")([sample])[0].endswith(b'"body":"x\\ty"}')


def test_lines_come_in_order_with_their_records_however_they_are_grouped() -> None:
    sizes = [5, 3 << 18, 3 << 18, 7, (1 << 20) + 1, 9, 1 << 20, 11]
    given_records = [record(b"%d" % n * size) for n, size in enumerate(sizes)]
    groups: list[int] = []

    def encode(records: Sequence[Record]) -> list[bytes]:
        groups.append(len(records))
        return [one.body[:1] for one in records]

    got = [*with_lines(given_records, encode)]
    assert [seen for seen, _ in got] == given_records
    assert [line for _, line in got] == [b"0", b"1", b"2", b"3", None, b"5", b"6", b"7"]
    assert groups == [2, 2, 1, 1, 1]


def test_a_raw_line_has_the_newline_that_its_body_ends_with() -> None:
    bodies = [b"plain", b"with\n", b"two\n\n", b"\r\n", b""]
    lines = encoder("raw")([record(body) for body in bodies])
    assert lines == [b"plain", b"with", b"two\n", b"\r", b""]
    assert encoder("raw")([record(b"plain")]) == [b"plain"]
    long = b"x" * (2 << 20) + b"\n"
    assert b"".join(line_pieces("raw")(record(long))) == long[:-1]
