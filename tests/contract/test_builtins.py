"""Every built-in sink through the suite that authors of sinks are given."""

import os
import socketserver
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from logfan.plugins.discovery import discover
from logfan.sink import Sink
from logfan.testing.conformance import SinkConformance
from support.scripted_http import Reply, Request, ScriptedServer
from support.servers import serving

KINDS = {kind: found.cls for kind, found in discover([], []).kinds.items()}


ELSEWHERE = {KINDS["amqp"], KINDS["postgres"]}
"""Their suites need servers: tests/integration/sinks/test_conformance.py."""


def test_every_built_in_is_tested_here() -> None:
    suites = [*SinkConformance.__subclasses__(), *OverHttp.__subclasses__()]
    tested = {suite.sink_class for suite in suites if suite is not OverHttp}
    assert set(KINDS.values()) == tested | ELSEWHERE


EXTRAS = {
    "http": ("urllib3", {"url": "http://a"}), "loki": ("urllib3", {"url": "http://a"}),
    "otlp": ("urllib3", {"url": "http://a"}), "postgres": ("psycopg", {"dsn": "a"}),
    "elasticsearch": ("urllib3", {"url": "http://a", "index": "b"}),
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


class TestRawFile(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["file"]

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "out/raw.log"), "format": "raw"}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        raw = (folder / "out/raw.log").read_bytes()
        # A raw body may hold line breaks of its own: then only the whole can be compared.
        return (
            raw.splitlines() if raw.isascii() and b"\r" not in raw and b"\n  " not in raw else None
        )


class TestJsonFile(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["file"]

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "{date}/{routing_key}.jsonl"), "rotate": {"size": "1GiB"}}


class TestStdout(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["stdout"]

    @pytest.fixture(autouse=True)
    def _into_nothing(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with Path(os.devnull).open("w") as nothing:
            monkeypatch.setattr("sys.__stdout__", nothing)
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {"colour": "always"}


class Bodies(ScriptedServer):
    """Keeps the bodies of records, and answers as each kind of server does."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._answered

    def _answered(self, request: Request) -> Reply:
        if "/_bulk" in request.path:
            count = len(request.body.splitlines()) // 2
            items = b",".join([b'{"create":{"status":201}}'] * count)
            return Reply(200, b'{"items":[' + items + b"]}")
        return Reply(200)


@pytest.fixture(scope="module")
def server() -> Iterator[Bodies]:
    server = Bodies()
    with server.running():
        yield server


class OverHttp(SinkConformance):
    """Sinks that speak HTTP, against a server that takes everything."""

    extra: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _server(self, server: Bodies) -> None:
        server.requests.clear()
        self.server = server

    def options(self, folder: Path) -> dict[str, Any]:
        return {"url": self.server.url, **self.extra}


class TestHttp(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["http"]
    extra: ClassVar[dict[str, Any]] = {"encoding": "single", "format": "raw"}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        return self.server.bodies


class TestElasticsearch(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["elasticsearch"]
    extra: ClassVar[dict[str, Any]] = {"index": "logs"}


class TestLoki(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["loki"]


class TestOtlp(OverHttp):
    sink_class: ClassVar[type[Sink]] = KINDS["otlp"]


class TestSqlite(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["sqlite"]

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "logs.db")}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        with closing(sqlite3.connect(folder / "logs.db")) as database:
            rows = database.execute("SELECT body FROM logs ORDER BY rowid")
            return [body if isinstance(body, bytes) else body.encode() for (body,) in rows]


class TestSyslog(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["syslog"]

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

    def options(self, folder: Path) -> dict[str, Any]:
        return {
            "counters": [{"name": "conformance_total", "labels": {"level": "level"}}],
            "histograms": [{"name": "conformance_n", "value": "n"}],
        }
