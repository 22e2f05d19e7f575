"""Network sinks at once, each with a server that is there and says nothing."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest

from logfan.testing.node import RabbitNode, free_port
from support.broker import Names, channel, publish
from support.daemon import DaemonProcess
from support.gate import Gate
from support.moto import Moto
from support.postgres import Postgres
from support.scripted_http import Reply, Request, ScriptedServer
from support.waiting import wait_until

COUNT, SIZE = 1500, 20_000
SINKS = """
[sinks.web]
kind = "http"
url = "http://127.0.0.1:{web}/lines"
[sinks.search]
kind = "elasticsearch"
url = "http://127.0.0.1:{web}"
index = "logs"
[sinks.loki]
kind = "loki"
url = "http://127.0.0.1:{web}"
[sinks.collector]
kind = "otlp"
url = "http://127.0.0.1:{web}"
[sinks.db]
kind = "postgres"
dsn = "postgresql://logfan@127.0.0.1:{db}/postgres"
[sinks.broker]
kind = "amqp"
url = "amqp://guest:guest@127.0.0.1:{broker}/%2F"
exchange = "{copy}"
[sinks.bucket]
kind = "s3"
bucket = "logs"
endpoint = "http://127.0.0.1:{bucket}"
"""
_NUMBER = re.compile(rb"number-\d{6}")
NAMES = re.findall(r"sinks\.(\w+)", SINKS)


class Receiver:
    """Takes what the HTTP sinks send, and counts how often each message came to each path."""

    def __init__(self) -> None:
        self.seen: dict[str, Counter[bytes]] = {}
        self._server = ScriptedServer()
        self._server.answer = self._take
        self.port = urlsplit(self._server.url).port or 0

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._server.running():
            yield

    def _take(self, request: Request) -> Reply:
        self._server.requests.clear()
        ids = _NUMBER.findall(request.body)
        if ids:
            self.seen.setdefault(urlsplit(request.path).path, Counter()).update(ids)
        if "_bulk" not in request.path:
            return Reply()
        items = [{"create": {"status": 201}}] * request.body.count(b'{"create":')
        return Reply(body=orjson.dumps({"items": items}))


class Servers(NamedTuple):
    receiver: Receiver
    postgres: Postgres
    moto: Moto
    gates: dict[str, Gate]


@pytest.fixture
def servers(node: RabbitNode) -> Iterator[Servers]:
    with ExitStack() as stack:
        receiver = Receiver()
        stack.enter_context(receiver.running())
        postgres = stack.enter_context(Postgres(free_port()))
        moto = stack.enter_context(Moto())
        moto.create("logs")
        ports = {"web": receiver.port, "db": postgres.port, "broker": node.port}
        ports["bucket"] = moto.port
        gates = {name: stack.enter_context(Gate(port)) for name, port in ports.items()}
        yield Servers(receiver, postgres, moto, gates)


def test_memory_is_bounded_while_they_are_silent_and_nothing_is_lost(
    node: RabbitNode, names: Names, tmp_path: Path, servers: Servers
) -> None:
    copy = f"{names.exchange}-copy"
    with channel(node.url) as broker:
        broker.exchange_declare(copy, "fanout", auto_delete=False)
        broker.queue_declare(copy)
        broker.queue_bind(copy, copy)
    ports = {name: gate.port for name, gate in servers.gates.items()}
    sinks = SINKS.format(copy=copy, **ports)
    sinks = re.sub(r"(kind = .*)", r'\1\ntimeout = "1s"\nretry = { max = "1s" }', sinks)
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with DaemonProcess(tmp_path, node.url, names, sinks, environ=environ) as daemon:
        base = daemon.memory_kib() >> 10
        for gate in servers.gates.values():
            gate.freeze()
        text = "x" * SIZE
        bodies = (json.dumps({"message": f"number-{n:06d} {text}"}).encode() for n in range(COUNT))
        publish(node.url, names.exchange, bodies)
        retries = [f'logfan_sink_retries_total{{sink="{name}"}}' for name in NAMES]
        wait_until(lambda: min(map(daemon.metric, retries)) >= 3, "each has tried again")
        assert daemon.acked() == 0
        assert daemon.get("/readyz")[0] == 503
        for name in NAMES:
            assert daemon.metric(f'logfan_sink_up{{sink="{name}"}}') == 0
        peak = daemon.memory_kib() >> 10
        print(f"{base} MiB, at most {peak} MiB")
        for gate in servers.gates.values():
            gate.thaw()
        wait_until(lambda: daemon.acked() == COUNT, "all is acknowledged")
        assert daemon.stop() == 0
    for path, counts in servers.receiver.seen.items():
        assert len(counts) == COUNT, path
        print(f"{path}: {counts.total()} for {COUNT}")
    assert len(servers.receiver.seen) == 4
    with psycopg.connect(servers.postgres.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM logs").fetchone() == (COUNT,)
    assert node.ready(copy) >= COUNT
    objects = servers.moto.objects("logs").values()
    assert len({found for one in objects for found in _NUMBER.findall(one)}) == COUNT
    # A window of 20 MB, and of each sink one batch and what it makes of it.
    assert peak - base < 80
