"""Every built-in sink through the suite that authors of sinks are given."""

import json
import os
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import ValidationError

import logfan
from logfan.plugins.discovery import discover
from logfan.record import Record
from logfan.sink import Sink
from logfan.testing import same_json
from logfan.testing.conformance import Break, How, SinkConformance
from logfan.testing.sink_steps import SinkSteps
from logfan_sinks.elasticsearch.bulk import document
from support.gate import Gate
from support.scripted_http import Reply, Request, ScriptedServer
from support.servers import serving

KINDS = {kind: found.cls for kind, found in discover([], []).kinds.items()}


ELSEWHERE = {KINDS["amqp"], KINDS["kafka"], KINDS["postgres"], KINDS["s3"]}
"""Their suites need servers: tests/integration/sinks/."""


def test_every_built_in_is_tested_here() -> None:
    suites = [*SinkConformance.__subclasses__(), *OverHttp.__subclasses__()]
    own = [suite for suite in suites if suite.__module__ == __name__ and suite is not OverHttp]
    tested = {suite.sink_class for suite in own}
    assert set(KINDS.values()) == tested | ELSEWHERE


EXTRAS = {
    "http": ("urllib3", {"url": "http://a"}), "loki": ("urllib3", {"url": "http://a"}),
    "otlp": ("urllib3", {"url": "http://a"}), "postgres": ("psycopg", {"dsn": "a"}),
    "elasticsearch": ("urllib3", {"url": "http://a", "index": "b"}),
    "kafka": ("confluent_kafka", {"brokers": ["a:9092"], "topic": "b"}),
    "s3": ("obstore", {"bucket": "logs"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_library_that_is_missing_is_named_with_its_extra(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, options = EXTRAS[kind]
    monkeypatch.setattr("logfan_sinks.extras.find_spec", lambda _: None)
    with pytest.raises(
        ValidationError, match=rf"{library} is not installed: pip install 'logfan\["
    ):
        KINDS[kind].Config.model_validate(options)


CANNOT_BE: dict[str, list[dict[str, Any]]] = {
    "elasticsearch": [{"index": index} for index in ("Logs", "a/b", "", "a b", "*")],
    "kafka": [
        {"topic": ""}, {"topic": "{}"}, {"key": "{}"}, {"brokers": []}, {"username": "ann"},
        {"compress": "bz2"},
    ],
    "loki": [{"labels": {}}, {"labels": {"a-b": "x"}}, {"labels": {"a": "{x..y}"}}],
    "postgres": [{"dsn": None}, {"dsn_file": "b"}, {"table": "x; DROP"}],
    "s3": [
        {"bucket": ""}, {"endpoint": "s3.example.org"}, {"endpoint": "https://u:p@h"},
        {"prefix": "a/../b"}, {"prefix": "a b"}, {"access_key_id": "a"}, {"compress": "bz2"},
        {"session_token_file": "t"},
    ],
    "syslog": [
        {"address": "http://a"}, {"address": ""}, {"address": "tcp://a:99999"},
        {"address": "tcp://a:x"}, {"facility": "mine"}, {"framing": "newline", "format": "raw"},
        {"hostname": "."},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"), [(kind, one) for kind, every in CANNOT_BE.items() for one in every]
)
def test_a_config_that_cannot_be(kind: str, options: dict[str, Any]) -> None:
    sound: Any = {"address": "a"} if kind == "syslog" else EXTRAS[kind][1]
    KINDS[kind].Config.model_validate(sound)
    with pytest.raises(ValidationError):
        KINDS[kind].Config.model_validate({**sound, **options})


NO_OTHER_SIDE = dict.fromkeys(("away", "slow", "refuses"), "it writes to this machine")


class TestRawFile(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["file"]
    cannot: ClassVar = {**NO_OTHER_SIDE, "read_back": "a raw body may hold line breaks of its own"}

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "out/raw.log"), "format": "raw"}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        raw = (folder / "out/raw.log").read_bytes()
        return (
            raw.splitlines() if raw.isascii() and b"\r" not in raw and b"\n  " not in raw else None
        )


class TestJsonFile(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["file"]
    cannot = NO_OTHER_SIDE
    ordered = False  # the one with a route of its own has a file of its own

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "{date}/{routing_key}.jsonl"), "rotate": {"size": "1GiB"}}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes]:
        files = sorted(folder.rglob("*.jsonl"))
        return [line for file in files for line in file.read_bytes().splitlines()]

    def expected(self, record: Record) -> bytes:
        return logfan.json_lines([record])[0]


class TestStdout(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["stdout"]
    cannot: ClassVar = {**NO_OTHER_SIDE, "read_back": "it is for people"}

    @pytest.fixture(autouse=True)
    def _into_nothing(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with Path(os.devnull).open("w") as nothing:
            monkeypatch.setattr("sys.__stdout__", nothing)
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {"colour": "always"}


class TestStdoutForMachines(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["stdout"]
    cannot = NO_OTHER_SIDE

    @pytest.fixture(autouse=True)
    def _into_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with (tmp_path / "out").open("w") as out:
            monkeypatch.setattr("sys.__stdout__", out)
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {"format": "json"}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes]:
        return (folder / "out").read_bytes().splitlines()

    def expected(self, record: Record) -> bytes:
        return logfan.json_lines([record])[0]

    def equal(self, held: bytes, expected: bytes) -> bool:
        return same_json(held, expected)  # what a terminal may obey is escaped


class Store(ScriptedServer):
    """Keeps the requests that it takes, and answers as each kind of server does."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []
        """The bodies of requests; of a bulk request the documents that were taken."""
        self.refuses = b"nothing like this is sent"
        self.answers = threading.Event()
        self.answers.set()
        self.answer = self._answered

    def _answered(self, request: Request) -> Reply:
        if not self.answers.is_set():
            self.answers.wait()
            return Reply(0)
        if "/_bulk" in request.path:
            return self._bulk(request.body.splitlines()[1::2])
        if self.refuses in request.body:
            return Reply(400)
        if request.method != "GET":
            self.taken.append(request.body)
        return Reply(200)

    def _bulk(self, documents: list[bytes]) -> Reply:
        items: list[dict[str, Any]] = []
        for one in documents:
            if self.refuses in one:
                error = {"type": "document_parsing_exception", "reason": "no"}
                items.append({"create": {"status": 400, "error": error}})
            else:
                self.taken.append(one)
                items.append({"create": {"status": 201}})
        return Reply(200, json.dumps({"items": items}).encode())

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer nothing."""
        self.answers.clear()
        yield
        self.answers.set()

    @contextmanager
    def refusing(self, mark: bytes) -> Iterator[None]:
        """Refuse what holds this."""
        before, self.refuses = self.refuses, mark
        yield
        self.refuses = before


class OverHttp(SinkConformance):
    """Sinks that speak HTTP, against a server behind a gate."""

    extra: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        self.server = Store()
        with self.server.running(), Gate(int(self.server.url.rpartition(":")[2])) as self.gate:
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self.gate.port}", "timeout": "2s", **self.extra}

    def read_back(self, sink: Sink, folder: Path) -> list[Any]:
        return self.server.taken

    def break_it(self, how: How, folder: Path) -> Break:
        if how == "away":
            return self.gate.shut, self.gate.open
        return self.server.silent() if how == "slow" else self.server.refusing(b"refuse")

    @pytest.mark.slow
    def test_it_does_not_wait_for_ever(self, steps: SinkSteps, tmp_path: Path) -> None:
        super().test_it_does_not_wait_for_ever(steps, tmp_path)


class TestHttp(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["http"]
    extra: ClassVar[dict[str, Any]] = {"encoding": "single", "format": "raw"}


class TestHttpLines(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["http"]

    def read_back(self, sink: Sink, folder: Path) -> list[bytes]:
        return [line for body in self.server.taken for line in body.splitlines()]

    def expected(self, record: Record) -> bytes:
        return logfan.json_lines([record])[0]


class TestElasticsearch(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["elasticsearch"]
    extra: ClassVar[dict[str, Any]] = {"index": "logs"}

    def expected(self, record: Record) -> bytes:
        return document(record)


class TestLoki(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["loki"]
    extra: ClassVar[dict[str, Any]] = {"format": "raw"}

    def read_back(self, sink: Sink, folder: Path) -> list[str]:
        return [
            entry[1]
            for body in self.server.taken
            for stream in json.loads(body)["streams"]
            for entry in stream["values"]
        ]

    def expected(self, record: Record) -> str:
        return record.body.decode("utf-8", "backslashreplace")


class TestOtlp(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["otlp"]

    def read_back(self, sink: Sink, folder: Path) -> list[str]:
        return [
            one.body.string_value
            for body in self.server.taken
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in resource.scope_logs
            for one in scope.log_records
        ]

    def expected(self, record: Record) -> Any:
        return logfan.field("message")(record)


class TestSqlite(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["sqlite"]
    exactly_once = True
    cannot = dict.fromkeys(("away", "slow"), "a database is a file of this machine")

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "logs.db")}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes]:
        with closing(sqlite3.connect(folder / "logs.db")) as database:
            rows = database.execute("SELECT body FROM logs ORDER BY rowid")
            return [body if isinstance(body, bytes) else body.encode() for (body,) in rows]

    @contextmanager
    def break_it(self, how: How, folder: Path) -> Iterator[None]:
        with closing(sqlite3.connect(folder / "logs.db")) as database:
            database.execute(
                "CREATE TRIGGER picky BEFORE INSERT ON logs WHEN NEW.body LIKE '%refuse%' "
                "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
            yield
            database.execute("DROP TRIGGER picky")


class TestSyslog(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["syslog"]
    cannot = dict.fromkeys(
        ("read_back", "away", "slow", "refuses"), "syslog acknowledges and refuses nothing"
    )

    def options(self, folder: Path) -> dict[str, Any]:
        return {"address": f"tcp://127.0.0.1:{self.port}"}

    @pytest.fixture(autouse=True)
    def _server(self, listener: int) -> None:
        self.port = listener


@pytest.fixture(scope="module")
def listener() -> Iterator[int]:
    """The port of a server that reads and forgets."""

    class Reader(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(1 << 16):
                pass

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Reader)
    server.daemon_threads = True
    with serving(server):
        yield server.server_address[1]


class TestMetrics(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["metrics"]
    cannot: ClassVar = {**NO_OTHER_SIDE, "read_back": "it counts, and keeps no record"}

    def options(self, folder: Path) -> dict[str, Any]:
        return {
            "counters": [{"name": "conformance_total", "labels": {"level": "level"}}],
            "histograms": [{"name": "conformance_n", "value": "n"}],
        }
