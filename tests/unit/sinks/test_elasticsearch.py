"""The sink `elasticsearch`: each verdict of the bulk API, by a server that speaks its answers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks.elasticsearch import ElasticsearchSink
from support.opener import open_one
from support.scripted_http import Reply, Request, ScriptedServer

RECEIVED_AT = 1_795_651_200.0


class Bulk(ScriptedServer):
    """Indexes what it gets, and answers as Elasticsearch does."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._answered
        self.documents: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.errors: dict[str, tuple[int, str]] = {}
        """Status and type of an error for each `_id`."""
        self.reason = "because"

    def _answered(self, request: Request) -> Reply:
        if request.method == "GET":
            return Reply(200, b"{}")
        if self.replies:
            return self.replies.popleft()
        lines = [json.loads(line) for line in request.body.splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            target = action["create"]
            status, kind = self.errors.get(target.get("_id", ""), (201, ""))
            known = "_id" in target and any(action == other for other, _ in self.documents)
            if known and status == 201:
                status, kind = 409, "version_conflict_engine_exception"
            if status == 201:
                self.documents.append((action, document))
            error = {"error": {"type": kind, "reason": self.reason}} if kind else {}
            items.append({"create": {"status": status, **error}})
        return Reply(200, json.dumps({"items": items}).encode())


@pytest.fixture
def server() -> Iterator[Bulk]:
    server = Bulk()
    with server.running():
        yield server


def opened(server: Bulk, **options: Any) -> ElasticsearchSink:
    given = {"url": server.url, "index": "logs-{date}"}
    return open_one(ElasticsearchSink, "es", {**given, **options})


def numbered(count: int) -> list[Record]:
    return [
        record({"n": n}, message_id=str(n), routing_key="shop", received_at=RECEIVED_AT)
        for n in range(count)
    ]


def indexed(server: Bulk) -> list[int]:
    return [document["n"] for _, document in server.documents]


def test_a_document_has_its_fields_where_tools_look_for_them(server: Bulk) -> None:
    body = {"msg": "it failed", "level": "ERR", "time": "2026-11-25T23:59:59Z"}
    one = record(body, routing_key="shop", headers={"host": "a"}, received_at=RECEIVED_AT)
    opened(server).write([one, record(b"error: plain", received_at=RECEIVED_AT)])
    (action, document), (_, plain) = server.documents
    assert action == {"create": {"_index": "logs-2026.11.25"}}
    assert document == {
        **body, "@timestamp": "2026-11-25T23:59:59.000Z", "log.level": "error",
        "logfan": {"exchange": "logs", "routing_key": "shop", "headers": ["host=a"]},
    }  # fmt: skip
    assert (plain["message"], plain["log.level"]) == ("error: plain", "error")
    assert plain["@timestamp"] == "2026-11-26T00:00:00.000Z"
    assert server.requests[-1].path.startswith("/_bulk?filter_path=items")


def test_a_long_text_is_kept_whole(server: Bulk) -> None:
    text = "at shop.Checkout.pay(Checkout.java:7)\n" * 1000
    opened(server).write([record(text.encode()), record(f'["{"x" * 20_000}"]'.encode())])
    (_, document), (_, other) = server.documents
    assert document["message"] == text
    assert other["message"] == f'["{"x" * 20_000}"]'


def test_what_is_refused_comes_once_more_without_what_is_ours(server: Bulk) -> None:
    picky, busy = server.answer, Reply(429, headers={"Retry-After": "7"})

    def answer(request: Request) -> Reply:
        lines = request.body.splitlines()
        server.errors = {
            str(n): (400, "mapper_parsing_exception")
            for n, line in enumerate(lines[1::2])
            if b"no such" in line or b'"logfan"' in line
        }
        return picky(request)

    server.answer = answer
    sink = opened(server)
    bodies: list[dict[str, Any]] = [{"n": 0, "level": "error"}, {"n": 1, "x": "no such"}, {"n": 2}]
    records = [record(body, message_id=str(at)) for at, body in enumerate(bodies)]
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    assert dict(caught.value.reasons) == {1: "refused with 400 mapper_parsing_exception: because"}
    assert indexed(server) == [0, 2]
    assert {*server.documents[0][1]} == {"@timestamp", "n", "level"}
    server.answer = lambda request: busy if b'"logfan"' not in request.body else answer(request)
    with pytest.raises(SinkUnavailable, match="answers 429") as held:
        sink.write(records[:2])
    assert held.value.retry_after == 7.0


def test_headers_are_one_field_whatever_they_hold(server: Bulk) -> None:
    headers = {
        "n": 1, "text": "1", "a": "x", "a.b": "y", "": None, "bytes": b"\xff", "flag": True,
        "at": datetime(2026, 11, 26, tzinfo=UTC), "price": Decimal("1.50"),
        "deep": {"er": [7, {"x": "é"}]}, "large": 1 << 80, "odd": "\ud800", "none": {},
    }  # fmt: skip
    opened(server).write([record({"n": 1}, headers=headers), record({"n": 2}, headers={})])
    (_, document), (_, plain) = server.documents
    assert document["logfan"]["headers"] == [
        "n=1", "text=1", "a=x", "a.b=y", "=null", "bytes=\\xff", "flag=true",
        "at=2026-11-26T00:00:00+00:00", "price=1.50", 'deep={"er":[7,{"x":"é"}]}',
        f"large={1 << 80}", "odd=?", "none={}",
    ]  # fmt: skip
    assert "headers" not in plain["logfan"]


@pytest.mark.parametrize("log", ["hello", 7, ["hello"], [], {"level": "x"}, {"level": 30}, True])
def test_a_body_with_a_log_of_its_own_gets_no_level_of_ours(server: Bulk, log: Any) -> None:
    body = {"log": log, "stream": "stderr", "level": "error"}
    opened(server).write([record(body)])
    ((_, document),) = server.documents
    assert "log.level" not in document
    assert document.items() >= body.items()


@pytest.mark.parametrize("log", [None, {}, {"logger": "shop"}])
def test_a_log_with_room_for_it_gets_the_level(server: Bulk, log: Any) -> None:
    opened(server).write([record({"log": log, "level": "error"})])
    ((_, document),) = server.documents
    assert document["log.level"] == "error"


def test_what_is_there_already_is_done(server: Bulk) -> None:
    sink = opened(server)
    sink.write(numbered(3))
    sink.write(numbered(5))
    assert indexed(server) == [0, 1, 2, 3, 4]


def test_a_long_identity_is_hashed(server: Bulk) -> None:
    opened(server, id=["headers.id"]).write(
        [record({"n": 1}, headers={"id": "x" * 600}), record({"n": 2}, headers={"id": "é" * 256})]
    )
    ids = [action["create"]["_id"] for action, _ in server.documents]
    assert len(ids[0]) == 64
    assert ids[1] == "é" * 256


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "es_rejected_execution_exception"), (403, "cluster_block_exception"),
        (404, "index_not_found_exception"), (400, "index_closed_exception"), (503, "x"), (500, "x"),
    ],
)  # fmt: skip
def test_items_that_are_not_now_come_again_alone(server: Bulk, status: int, kind: str) -> None:
    server.errors = {"1": (status, kind), "3": (status, kind)}
    sink = opened(server)
    with pytest.raises(RecordsRejected) as caught:
        sink.write(numbered(5))
    assert [*caught.value.later] == [1, 3]
    assert not caught.value.reasons
    assert caught.value.later[1] == f"answers {status} {kind}: because"
    assert indexed(server) == [0, 2, 4]


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_not_now_whatever_the_records_name(
    server: Bulk, status: int
) -> None:
    server.errors = {"0": (status, "x"), "1": (400, "index_closed_exception")}
    with pytest.raises(SinkUnavailable, match=f"answers {status} x"):
        opened(server, index="logs-{date}").write(numbered(2))


def test_an_index_that_the_record_names_says_nothing_of_others(server: Bulk) -> None:
    server.errors = {"0": (400, "index_closed_exception")}
    with pytest.raises(RecordsRejected) as caught:
        opened(server, index="logs-{date}").write(numbered(1))
    assert [*caught.value.later] == [0]
    with pytest.raises(SinkUnavailable, match="index_closed_exception"):
        opened(server, index="logs").write(numbered(1))


_ARGUMENT, _VALIDATION = "illegal_argument_exception", "validation_exception"
_SHARDS = (
    "Validation Failed: 1: this action would add [2] total shards, but this cluster currently has "
    "[1]/[1] maximum shards open;"
)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_ARGUMENT, "pipeline with id [nope] does not exist"),
        (_ARGUMENT, "no write index is defined for alias [logs]. The write index may be …"),
        (_ARGUMENT, "Number of documents in shard [logs][0] exceeds the limit of [2147483519] …"),
        (_VALIDATION, _SHARDS),
        ("invalid_index_name_exception", "Invalid index name [_x], must not start with '_'"),
    ],
)  # fmt: skip
def test_what_no_document_is_the_reason_of_is_not_now(server: Bulk, kind: str, reason: str) -> None:
    server.errors, server.reason = {"0": (400, kind), "1": (400, kind)}, reason
    with pytest.raises(SinkUnavailable, match=f"answers 400 {kind}: "):
        opened(server).write(numbered(2))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_ARGUMENT, "mapper [n] cannot be changed from type [long] to [ObjectMapper]"),
        (_ARGUMENT, "value 'pipeline with id [nope] does not exist'"),
        (_VALIDATION, "Validation Failed: 1: id is too long"),
        ("mapper_parsing_exception", "pipeline with id [nope] does not exist"),
    ],
)
def test_no_document_is_held_for_the_words_that_it_holds(
    server: Bulk, kind: str, reason: str
) -> None:
    server.errors, server.reason = {"1": (400, kind)}, reason
    with pytest.raises(RecordsRejected) as caught:
        opened(server).write(numbered(2))
    assert [*caught.value.reasons] == [1]
    assert not caught.value.later


def test_items_that_are_refused_are_refused_alone(server: Bulk) -> None:
    server.errors = {"1": (400, "mapper_parsing_exception"), "2": (429, "x")}
    with pytest.raises(RecordsRejected) as caught:
        opened(server, max_records=4).write(numbered(6))
    assert dict(caught.value.reasons) == {1: "refused with 400 mapper_parsing_exception: because"}
    assert [*caught.value.later] == [2, 4, 5]
    assert indexed(server) == [0, 3]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_a_request_that_is_not_now_is_held_whole(server: Bulk, status: int) -> None:
    sink = opened(server)
    server.replies.append(Reply(status, headers={"Retry-After": "3"}))
    with pytest.raises(SinkUnavailable, match=f"answers {status}") as caught:
        sink.write(numbered(2))
    assert caught.value.retry_after == 3.0


def test_a_request_that_is_too_large_is_sent_in_halves(server: Bulk) -> None:
    sink = opened(server)
    server.replies.append(Reply(413))
    sink.write(numbered(4))
    assert indexed(server) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"items":[]}',
        b'{"items":[{"create":{"status":201}}]}',
        b"[]",
        b"<html>",
        b'{"items":[{},{}]}',
        b'{"items":[1,[]]}',
        b'{"items":[{"create":1},{"create":{}}]}',
        b'{"items":[{"create":{"status":500,"error":"x"}},{"create":{"status":500,"error":7}}]}',
    ],
)
def test_an_answer_that_says_nothing_of_some_is_not_believed(server: Bulk, body: bytes) -> None:
    sink = opened(server)
    server.replies.append(Reply(200, body))
    with pytest.raises(SinkUnavailable):
        sink.write(numbered(2))


def test_a_long_answer_is_read_whole(server: Bulk) -> None:
    server.errors = {str(n): (429, "x" * 200) for n in range(1000)}
    sink = opened(server)
    with pytest.raises(SinkUnavailable, match="answers 429 x"):
        sink.write(numbered(1000))


def test_every_hostile_record_becomes_a_document(server: Bulk) -> None:
    hostile = hostile_records()
    opened(server).write([*hostile.values()])
    assert len(server.documents) == len(hostile)


def test_a_server_that_is_not_ready_is_seen_when_it_opens(server: Bulk) -> None:
    server.answer = lambda _: Reply(503, b"starting")
    with pytest.raises(SinkUnavailable, match="GET / answers 503 starting"):
        opened(server)
