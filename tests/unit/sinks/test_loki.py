"""The sink `loki`: each verdict of the push API, by a server that speaks its answers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks.loki import LokiSink
from support.opener import open_one
from support.scripted_http import Reply, Request, ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as server:
        yield server


def opened(server: ScriptedServer, **options: Any) -> LokiSink:
    return open_one(LokiSink, "loki", {"url": server.url, **options})


def pushed(server: ScriptedServer) -> list[Any]:
    """The streams of the last request."""
    return list(json.loads(server.bodies[-1])["streams"])


def numbered(count: int) -> list[Record]:
    return [record(b"line %d" % n, message_id=str(n), received_at=float(n)) for n in range(count)]


def test_lines_are_pushed_by_their_labels_with_their_own_time(server: ScriptedServer) -> None:
    labels = {"job": "shop", "level": "{level}"}
    sink = opened(server, labels=labels, tenant="team-a")
    first = record({"level": "WARN", "time": "2026-11-26T00:00:00.123456Z"}, message_id="m-1")
    sink.write([first, record(b"plain", received_at=2.5)])
    assert pushed(server) == [
        {
            "stream": {"job": "shop", "level": "warning"},
            "values": [["1795651200123456000", first.text, {"message_id": "m-1"}]],
        },
        {"stream": {"job": "shop", "level": "none"}, "values": [["2500000000", "plain"]]},
    ]
    (request,) = server.requests
    assert request.path == "/loki/api/v1/push"
    assert request.headers["x-scope-orgid"] == "team-a"


def test_labels_are_capped(server: ScriptedServer) -> None:
    sink = opened(server, labels={"job": "a", "key": "{routing_key}"}, max_streams=2)
    sink.write([record(b"x", routing_key=f"k{n}") for n in range(4)])
    sink.open()
    sink.write([record(b"x", routing_key=f"k{n}") for n in (3, 1)])
    assert [one["stream"]["key"] for one in pushed(server)] == ["other", "k1"]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_what_is_not_now(server: ScriptedServer, status: int) -> None:
    server.replies.append(Reply(status, b"slow down", {"Retry-After": "4"}))
    with pytest.raises(SinkUnavailable, match=f"answers {status} slow down") as caught:
        opened(server).write(numbered(3))
    assert caught.value.retry_after == 4.0


def test_with_400_only_what_fails_alone_is_refused(server: ScriptedServer) -> None:
    def answer(request: Request) -> Reply:
        return Reply(400, b"entry too far behind") if b"line 2" in request.body else Reply(204)

    server.answer = answer
    with pytest.raises(RecordsRejected) as caught:
        opened(server).write(numbered(5))
    assert dict(caught.value.reasons) == {2: "refused with 400 entry too far behind"}


def test_every_hostile_record_becomes_a_line(server: ScriptedServer) -> None:
    opened(server).write([*hostile_records().values()])
    lines = sum(
        len(stream["values"]) for body in server.bodies for stream in json.loads(body)["streams"]
    )
    assert lines == len(hostile_records())
