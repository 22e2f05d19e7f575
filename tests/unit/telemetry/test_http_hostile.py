"""The HTTP side against clients that are slow, huge, malformed, many or silent."""

import socket
import ssl
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from logfan.telemetry.http_connections import Limits
from logfan.telemetry.http_server import HttpServer
from support.certificates import Authority, Pair
from support.waiting import wait_until

GET = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
SHORT = Limits(connections=20, head_seconds=1.0, whole_seconds=2.0, scrape_seconds=1.0)


class Collector:
    """What a plugin might register."""

    def __init__(self) -> None:
        self.hang = threading.Event()
        self.hang.set()

    def collect(self) -> list[Any]:
        self.hang.wait(60)
        return []


class Served:
    """A server with short limits, and ways to be rude to it."""

    def __init__(self, pair: Pair | None = None, limits: Limits = SHORT) -> None:
        self.collector = Collector()
        registry = CollectorRegistry()
        registry.register(self.collector)
        self.server = HttpServer(
            host="127.0.0.1", port=0, registry=registry, unhealthy=list, unready=list, status=dict,
            limits=limits, cert_file=pair.cert if pair else None,
            key_file=pair.key if pair else None,
        )  # fmt: skip
        self.server.start()

    def connect(self, send: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        client.sendall(send)
        return client

    def ask(self, request: bytes) -> bytes:
        """All of the answer to these bytes."""
        with self.connect() as client:
            with suppress(ConnectionError):
                client.sendall(request)
            return everything(client)

    def is_alive(self) -> bool:
        return self.ask(GET).endswith(b'{"status":"ok"}\n')

    def threads(self) -> int:
        return sum(thread.name == "http-request" for thread in threading.enumerate())


def everything(client: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionError):
        while chunk := client.recv(65536):
            answer += chunk
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.collector.hang.set()
    one.server.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Authority(tmp_path).issue("server", "localhost")


def trickle(client: socket.socket, data: bytes) -> float:
    """Send a byte at a time until the other side has had enough; how many seconds that took."""
    started = time.monotonic()
    with suppress(OSError):
        for byte in data:
            client.sendall(bytes([byte]))
            client.settimeout(0.02)
            with suppress(TimeoutError):
                if client.recv(1) == b"":
                    break
    return time.monotonic() - started


@pytest.mark.slow
def test_a_request_that_trickles_is_cut_off_by_the_clock_not_by_its_pauses(served: Served) -> None:
    with served.connect() as client:
        seconds = trickle(client, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 10_000)
    assert 0.9 < seconds < 60
    wait_until(lambda: served.threads() == 0, "its thread is gone")


@pytest.mark.slow
def test_a_handshake_that_never_ends_is_cut_off(pair: Pair) -> None:
    one = Served(pair)
    try:
        with one.connect() as silent, one.connect(b"\x16\x03\x01\x40\x00\x01") as slow:
            seconds = trickle(slow, b"\x00" * 10_000)
            assert everything(silent) == b""
        assert 0.9 < seconds < 60
        wait_until(lambda: one.threads() == 0, "their threads are gone")
    finally:
        one.server.stop()


@pytest.mark.slow
def test_an_answer_that_nobody_reads_is_given_up() -> None:
    one = Served()
    try:
        one.collector.collect = lambda: [huge_metric()]  # type: ignore[method-assign]
        with one.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            wait_until(lambda: one.threads() == 1, "it answers")
            wait_until(lambda: one.threads() == 0, "it gives up")
        assert one.is_alive()
    finally:
        one.server.stop()


def huge_metric() -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily("huge", "h" * 32_000_000)
    family.add_metric([], 1)
    return family


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
def test_clients_that_hold_all_places_do_not_keep_a_scrape_out(pair: Pair, with_tls: bool) -> None:
    limits = Limits(connections=20, head_seconds=60, whole_seconds=60)
    one = Served(pair if with_tls else None, limits)
    try:
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(one.connect(b"\x16" if with_tls else b"GET / HT"))
            wait_until(lambda: one.threads() >= 20, "all places are taken")
            answer = scrape(one, pair) if with_tls else one.ask(GET)
            assert b"200 OK" in answer
            assert one.threads() <= 40
    finally:
        one.server.stop()


@pytest.mark.parametrize("kind", ["body", "unread"])
def test_clients_that_have_asked_do_not_keep_a_scrape_out(kind: str) -> None:
    """They announce a body that never comes, or read nothing of their answer."""
    one = Served(limits=Limits(connections=20, head_seconds=60, whole_seconds=60))
    request = b"GET /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
    if kind == "unread":
        one.collector.collect = lambda: [huge_metric()]  # type: ignore[method-assign]
        request = b"GET /metrics HTTP/1.1\r\n\r\n"
    try:
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(one.connect(request))
            wait_until(lambda: one.threads() == 20, "all places are taken")
            assert one.is_alive()
            assert one.threads() <= 40
    finally:
        one.server.stop()


def scrape(one: Served, pair: Pair) -> bytes:
    context = ssl.create_default_context(cafile=pair.cert.with_name("ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", one.server.port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(GET)
        return everything(client)


@pytest.mark.slow
def test_hundreds_of_connections_leave_nothing_behind(served: Served) -> None:
    for _ in range(5):
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(served.connect())
    wait_until(lambda: served.threads() == 0, "their threads are gone")
    assert served.is_alive()


@pytest.mark.parametrize(
    ("request_bytes", "wanted"),
    [
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"x" * 900_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000, 200),
        (b"POST / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000, 405),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", 200),
        (GET * 500, 200),
        (b"GET /healthz\r\n\r\n", 0),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00\xff HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 200),
        (b"GET / HTTP/9999999999999999999\r\n\r\n", 400),
        (b"\r\n\r\n", 0),
        (b"\x00" * 20_000, 414),
        (b"\n" * 20_000, 0),
        (b"GET /healthz HTTP/1.1\n\n", 200),
        (b"GET /healthz HTTP/1.1\r\nAccept-Encoding: gzip\r\nHost: \xff\r\n\r\n", 200),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_what_is_huge_or_malformed_gets_its_answer_and_harms_nothing(
    served: Served, request_bytes: bytes, wanted: int, caplog: pytest.LogCaptureFixture
) -> None:
    with served.connect() as client:
        with suppress(ConnectionError):
            client.sendall(request_bytes)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        answer = everything(client)
    if wanted:
        assert status(answer) == wanted
    assert answer.count(b"HTTP/1.0 ") <= 1, "one request, one answer"
    assert served.is_alive()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_huge_requests_take_no_memory(served: Served) -> None:
    tracemalloc.start()
    try:
        for _ in range(5):
            served.ask(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500_000)
        own = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert own < 10_000_000, own


@pytest.mark.slow
def test_a_collector_that_hangs_holds_up_scrapes_alone(served: Served) -> None:
    served.collector.hang.clear()
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(served.connect(b"GET /metrics HTTP/1.1\r\n\r\n"))
        wait_until(lambda: served.threads() >= 10, "they wait")
        assert served.is_alive()
        # All but the one that hangs itself get an answer, or are cut off, in a few seconds.
        wait_until(lambda: served.threads() <= 1, "they are answered")


def test_a_client_that_verifies_gets_its_metrics_over_tls(pair: Pair) -> None:
    one = Served(pair)
    context = ssl.create_default_context(cafile=pair.cert.with_name("ca.pem"))
    try:
        url = f"https://localhost:{one.server.port}/healthz"
        with urllib.request.urlopen(url, timeout=60, context=context) as answer:
            assert answer.read() == b'{"status":"ok"}\n'
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(url, timeout=60)
        assert status(one.ask(GET)) == 0, "no plain answer on a TLS port"
    finally:
        one.server.stop()
