"""A field of a record by its name; its message and its time."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from logfan.fields import field, message_of, seconds_of, shown, time_of, time_text
from logfan.record import Properties, Record
from logfan.testing import record

NOON = 1_795_651_200.0


def of(body: Any, **properties: Any) -> Record:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return record(body, routing_key="shop.orders", exchange="logs", **properties)


BODY = {
    "service": "checkout", "log.level": "error", "user": {"email": "a@b.c", "geo.city": "Bern"},
    "items": [{"sku": "a"}, {"sku": "b"}], "a.b": {"c": 1}, "a": {"b.c": 2, "d": 3}, "n": None,
    "type": "order", "routing_key": "of the body", "0": "zero",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", "checkout"), ("json.service", "checkout"), ("log.level", "error"),
        ("user.email", "a@b.c"), ("user.geo.city", "Bern"), ("items.1.sku", "b"),
        ("items.2.sku", None), ("a.b.c", 1), ("a.d", 3), ("n", None), ("missing.deep", None),
        ("service.inside", None), ("0", "zero"), ("type", "order"), ("properties.type", "of amqp"),
        ("app_id", "shop"), ("routing_key", "shop.orders"), ("exchange", "logs"),
        ("json.routing_key", "of the body"), ("headers.host", "web-1"), ("headers.a.b", "flat"),
        ("headers.deep.er", 7), ("headers.none", None), ("level", "error"),
    ],
)  # fmt: skip
def test_a_field_by_its_name(name: str, value: Any) -> None:
    headers = {"host": "web-1", "a.b": "flat", "deep": {"er": 7}}
    assert field(name)(of(BODY, headers=headers, type="of amqp", app_id="shop")) == value


@pytest.mark.parametrize(
    "name", ["", "a..b", ".a", "headers..x", "properties.nope", ".".join("a" * 17)]
)
def test_what_can_be_no_field(name: str) -> None:
    with pytest.raises(ValueError, match=r"part|property"):
        field(name)


@pytest.mark.parametrize("name", ["service", "level", "message", "time", "app_id", "items.0"])
@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[1,2]", b"7", b"null", b'{"a":', b'"text"'])
def test_no_body_makes_a_field_raise(name: str, body: bytes) -> None:
    field(name)(of(body))


BATCHES: dict[str, list[Any]] = {
    "alike": [{"a": {"b": {"c": n}}, "level": "ERROR", "type": "t"} for n in range(3)],
    "literal keys": [{"a.b.c": n, "level": 50, "log.level": "warn"} for n in range(3)],
    "one has the literal key": [{"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}, "b.c": 2}}],
    "one has the outer literal key": [
        {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}, "a.b": {"c": 2}},
    ],
    "a literal key without a value": [{"a.b.c": None, "a": {"b": {"c": 1}}}] * 2,
    "levels unknown": [{"level": "great", "severity": "error"}, {"level": "info"}],
    "levels of all kinds": [{"level": True}, {"level": 1.0}, {"level": 1}, {"level": "1"}, {}],
    "no objects": ["a.b.c level", [{"a": 1}], None, 7, {"a": {"b": ["c"]}}, {"a": "b.c"}],
    "some without a type": [{"type": "t"}, {"type": None}, {}],
    "none": [],
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.b.c", "a", "level", "type", "headers.h", "log.level", "0.a"])
@pytest.mark.parametrize("bodies", BATCHES.values(), ids=BATCHES)
def test_a_column_holds_what_each_record_has(name: str, bodies: list[Any]) -> None:
    records = [of(body, headers={"h": n}, type="of amqp") for n, body in enumerate(bodies)]
    one = field(name)
    assert one.column(records, bodies) == [one(record) for record in records]


def test_what_names_no_body_parses_none() -> None:
    for name in ("routing_key", "exchange", "headers.host", "properties.app_id", "size"):
        assert not field(name).needs_body
    assert field("service").needs_body


MESSAGES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "message": ({"message": "x", "user": 7, "level": "info", "time": 1}, "x", {"user": 7}),
    "msg": ({"msg": "x", "pid": 1}, "x", {"pid": 1}),
    "structlog": ({"event": "x"}, "x", {}),
    "serilog": ({"@m": "x", "@t": "now", "@l": "Error"}, "x", {}),
    "serilog, the template": ({"@mt": "x {y}", "y": 1, "@t": "now"}, "x {y}", {"y": 1}),
    "GELF": ({"short_message": "x", "_id": 1, "level": 3}, "x", {"_id": 1}),
    "syslog-ng": ({"MESSAGE": "x", "PRIORITY": "err"}, "x", {}),
    "serilog, rendered": ({"RenderedMessage": "x"}, "x", {}),
    ".NET": (
        {"EventId": 1, "LogLevel": "Error", "Message": "x", "State": {"Message": "x"}},
        "x",
        {"EventId": 1, "State": {"Message": "x"}},
    ),
    "logstash, old": ({"@message": "x"}, "x", {}),
    "loguru": (
        {"text": "2026 | x", "record": {"message": "x", "line": 1}},
        "x",
        {"text": "2026 | x"},
    ),
    "tracing": ({"fields": {"message": "x"}, "target": "app"}, "x", {"target": "app"}),
    "OpenTelemetry": ({"body": "x", "severityText": "ERROR"}, "x", {}),
    "OpenTelemetry, a value": ({"body": {"stringValue": "x"}}, "x", {}),
    "OTLP": (
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]},
        "x",
        {},
    ),
    "hclog": ({"@message": "x", "@level": "info", "@timestamp": NOON, "id": 1}, "x", {"id": 1}),
    "tslog": ({"0": "x", "1": {"id": 1}}, "x", {"1": {"id": 1}}),
}


@pytest.mark.parametrize(("body", "text", "rest"), MESSAGES.values(), ids=MESSAGES)
def test_the_message_of_a_json_body(body: Any, text: str, rest: dict[str, Any]) -> None:
    assert shown(of(body)) == (text, rest)


def test_what_has_no_message_is_shown_as_it_came() -> None:
    assert message_of(of(b"plain text")) == "plain text"
    assert message_of(of(b'{"a": 1}')) == '{"a": 1}'


def test_an_empty_body_shows_its_headers() -> None:
    assert message_of(of(b"", headers={"MESSAGE": "it failed", "HOST": "a"})) == "it failed"
    assert message_of(of(b"", headers={"HOST": "a", "PID": 7})) == "HOST=a PID=7"
    assert message_of(of(b"")) == ""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (NOON, NOON), (NOON * 1000, NOON), (NOON * 1e6, NOON), (int(NOON) * 10**9, NOON),
        (str(int(NOON)), NOON), (f"{NOON:.1f}", NOON), ("2026-11-26T00:00:00Z", NOON),
        ("2026-11-26T01:00:00+01:00", NOON), ("2026-11-26 00:00:00,500", NOON + 0.5),
        ("2026-11-26T00:00:00.123456789Z", NOON + 0.123456),
        (datetime(2026, 11, 26, tzinfo=UTC), NOON), (True, None), ("soon", None), (-1, None),
        (float("inf"), None), (10**400, None), (None, None), ([], None), ("9" * 39, None),
        (datetime(2026, 11, 26), NOON),  # noqa: DTZ001 - as a publisher's may be
        ("0001-01-01T00:00:00Z", None), ("0001-01-01T00:00:00+14:00", None),
        ("1970-01-01T00:00:00Z", None), ("1969-12-31", None), ("1970-01-01 00:00:01", 1.0),
        (datetime(1, 1, 1, tzinfo=UTC), None), (datetime(1, 1, 1), None),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_the_seconds_of_a_publishers_time(value: Any, seconds: float | None) -> None:
    found = seconds_of(value)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=1e-5)


def test_the_time_is_the_bodys_then_the_propertys() -> None:
    assert time_of(of({"ts": NOON}, timestamp=1)) == NOON
    assert time_of(of(b"text", timestamp=int(NOON))) == NOON
    assert time_of(of(b"text", timestamp=int(NOON) * 1000)) == NOON
    exact = {"timestamp_in_ms": int(NOON) * 1000 + 5}
    assert time_of(of(b"text", timestamp=int(NOON), headers=exact)) == NOON + 0.005
    assert time_of(of(b"text")) is None
    assert time_text(of({"@t": "2026-11-26T00:00:00.0051Z"})) == "2026-11-26T00:00:00.005Z"
    assert time_of(of({"_meta": {"date": "2026-11-26T00:00:00Z"}})) == NOON
    assert time_of(of({"ISODATE": "2026-11-26T00:00:00+00:00"})) == NOON
    assert time_of(of({"timestampSeconds": int(NOON), "timestampNanos": 5})) == NOON
    records = [{"timeUnixNano": "0", "observedTimeUnixNano": str(int(NOON) * 10**9)}]
    assert time_of(of({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})) == NOON
    assert field("time")(of({"time": NOON})) == "2026-11-26T00:00:00.000Z"


def test_a_time_that_is_not_set_is_none() -> None:
    zero = "0001-01-01T00:00:00Z"
    assert time_text(of({"time": zero})) is None
    assert time_text(of({"time": zero, "ts": NOON})) == "2026-11-26T00:00:00.000Z"
    assert time_of(of({"time": zero}, timestamp=int(NOON))) == NOON
    assert time_of(of({"time": zero}, timestamp=0)) is None
    for exact in (-62_135_596_800_000, 0, (1 << 63) - 1):
        headers = {"timestamp_in_ms": exact}
        assert time_of(of(b"text", headers=headers)) is None
        assert time_of(of(b"text", timestamp=int(NOON), headers=headers)) == NOON


def test_properties_are_named_as_amqp_does() -> None:
    for name in Properties._fields:
        field(f"properties.{name}")
