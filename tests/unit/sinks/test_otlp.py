"""The sink `otlp`: its messages as the official classes read them, and each verdict."""

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks.otlp import OtlpSink
from logfan_sinks.otlp.protobuf import partial_success
from logfan_sinks.otlp.sink import REJECTED
from support.opener import open_one
from support.scripted_http import Reply, Request, ScriptedServer


def opened(server: ScriptedServer, **options: Any) -> OtlpSink:
    return open_one(OtlpSink, "otel", {"url": server.url, **options})


def read(body: bytes) -> Any:
    message = ExportLogsServiceRequest()
    message.ParseFromString(body)
    return message.resource_logs[0]


def numbered(count: int) -> list[Record]:
    return [record(b"line %d" % n) for n in range(count)]


def values(attributes: Any) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
        for one in attributes
    }


def test_a_record_as_the_official_classes_read_it(server: ScriptedServer) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    body = {
        "message": "it failed", "level": "ERROR", "time": "2026-11-26T00:00:00.5Z", "n": -7,
        "ratio": 0.5, "ok": True, "deep": {"a": [1, "x", None]},
    }  # fmt: skip
    one = record(
        json.dumps({**body, "big": 1 << 70, "id": (1 << 64) - 1}), routing_key="shop",
        message_id="m-1", received_at=1.5,
        headers={"traceparent": f"00-{trace}-{span}-01", "raw": b"\xff"},
    )  # fmt: skip
    opened(server, resource={"service.name": "shop"}).write([one, record(b"plain")])
    (request,) = server.requests
    assert request.path == "/v1/logs"
    assert request.headers["content-type"] == "application/x-protobuf"
    logs = read(request.body)
    assert values(logs.resource.attributes) == {"service.name": "shop"}
    first, second = logs.scope_logs[0].log_records
    assert first.body.string_value == "it failed"
    assert (first.severity_number, first.severity_text) == (17, "error")
    assert (first.time_unix_nano, first.observed_time_unix_nano) == (
        1_795_651_200_500_000_000, 1_500_000_000,
    )  # fmt: skip
    assert (first.trace_id.hex(), first.span_id.hex()) == (trace, span)
    found = values(first.attributes)
    assert (found["n"], found["ratio"], found["ok"]) == (-7, 0.5, True)
    assert found["big"] == float(1 << 70)
    assert found["id"] == "18446744073709551615"  # more than its integers hold
    assert found["deep"].values[0].value.array_value.values[1].string_value == "x"
    assert found["messaging.header.raw"] == b"\xff"
    assert found["messaging.rabbitmq.destination.routing_key"] == "shop"
    assert (second.body.string_value, second.severity_number) == ("plain", 0)


def test_every_hostile_record_is_read_by_the_official_classes(server: ScriptedServer) -> None:
    opened(server).write([*hostile_records().values()])
    count = sum(len(read(body).scope_logs[0].log_records) for body in server.bodies)
    assert count == len(hostile_records())


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_not_now(server: ScriptedServer, status: int) -> None:
    server.replies.append(Reply(status, b"busy", {"Retry-After": "5"}))
    with pytest.raises(SinkUnavailable, match=f"answers {status} busy") as caught:
        opened(server).write(numbered(3))
    assert caught.value.retry_after == 5.0


@pytest.mark.parametrize("status", [401, 403, 404, 500, 501])
def test_every_other_code_refuses_at_once(server: ScriptedServer, status: int) -> None:
    server.replies.append(Reply(status, b"no"))
    with pytest.raises(RecordsRejected) as caught:
        opened(server).write(numbered(3))
    assert [*caught.value.reasons] == [0, 1, 2]
    assert len(server.requests) == 1


def test_with_400_the_one_at_fault_is_found(server: ScriptedServer) -> None:
    def answer(request: Request) -> Reply:
        return Reply(400, b"bad") if b"line 2" in request.body else Reply()

    server.answer = answer
    with pytest.raises(RecordsRejected) as caught:
        opened(server).write(numbered(5))
    assert [*caught.value.reasons] == [2]


def test_what_is_rejected_by_number_alone_is_counted_and_logged(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = 2
    response.partial_success.error_message = "too old"
    server.replies.append(Reply(200, response.SerializeToString()))
    before = REJECTED.labels("otel")._value.get()
    opened(server).write(numbered(3))
    assert REJECTED.labels("otel")._value.get() == before + 2
    assert "rejected 2 of 3 records and names none of them: too old" in caplog.text
    caplog.clear()
    response.partial_success.Clear()
    server.replies.append(Reply(200, response.SerializeToString()))
    opened(server).write(numbered(3))
    assert "rejected" not in caplog.text


@pytest.mark.parametrize("response", [b"", b"{}", b"<html>", b"\x0a\xff", b"\x0f", b"\x80" * 20])
def test_no_answer_of_200_is_a_fault(server: ScriptedServer, response: bytes) -> None:
    server.replies.append(Reply(200, response))
    opened(server).write(numbered(1))


def test_a_partial_success_is_read() -> None:
    assert partial_success(b"") == (0, "")
    assert partial_success(b"\x0a\x00") == (0, "")
