"""The sink `loki`: each verdict of the push API, by a server that speaks its answers."""

import json
from typing import Any

import pytest

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks.loki import EqualLines, LokiSink
from support.opener import open_one
from support.scripted_http import Reply, Request, ScriptedServer


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


class Entries:
    """Keeps what Loki would: what has the stream, the time and the line of another is that one."""

    def __init__(self, server: ScriptedServer) -> None:
        self.kept: dict[tuple[str, str, str], Any] = {}
        self.status = 204
        server.answer = self._answered

    def _answered(self, request: Request) -> Reply:
        for stream in json.loads(request.body)["streams"]:
            for time, line, *_ in stream["values"]:
                self.kept.setdefault((str(stream["stream"]), time, line))
        return Reply(self.status)

    def lines(self) -> list[str]:
        return sorted(line for _, _, line in self.kept)


def test_equal_lines_of_different_records_are_all_kept(server: ScriptedServer) -> None:
    entries, sink = Entries(server), opened(server, max_records=7)
    read = [record(b"refused", received_at=7.25) for _ in range(20)]
    sink.write(read)
    assert entries.lines() == ["refused"] * 20
    for _ in range(3):  # as a stage makes them anew, and lets them go
        sink.write([record(b"refused", received_at=7.25) for _ in range(5)])
    assert entries.lines() == ["refused"] * 35
    body = {"msg": "failed", "time": "2026-11-26T00:00:00Z"}
    for n in range(3):
        sink.open()
        sink.write([record(body, message_id=f"{n}-{at}") for at in range(3)])
    assert len(entries.kept) == 44
    entries.status = 500  # and has stored it all the same
    more = [record(b"refused", received_at=8.5) for _ in range(20)]
    for _ in range(3):
        with pytest.raises(SinkUnavailable):
            sink.write(more)
    entries.status = 204
    sink.write(more[3:])
    sink.write(more)
    assert len(entries.kept) == 64


def test_what_comes_again_is_one_entry(server: ScriptedServer) -> None:
    entries = Entries(server)
    body = {"msg": "failed", "time": "2026-11-26T00:00:00Z"}
    for sink in (opened(server), opened(server)):
        for received_at in (1.0, 2.0):
            sink.write([record(body, message_id=str(n), received_at=received_at) for n in range(4)])
    assert [time for _, time, _ in entries.kept] == [f"179565120000000000{n}" for n in range(4)]


def test_what_is_known_of_equal_lines_is_bounded() -> None:
    equal = EqualLines(most=10)
    records = [record(b"x", message_id=str(n)) for n in range(1000)]
    assert [equal.before(one, ("entry",)) for one in records] == [*range(1000)]
    assert equal.before(records[-1], ("entry",)) == 999
    for n in range(1000):
        assert equal.before(records[0], (n,)) == 0
    assert len(equal._counts) + len(equal._older) <= 20


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
