"""The HTTP side, over real sockets."""

import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from logfan.telemetry.http_server import HttpServer, ListenError
from logfan.telemetry.metrics import LogfanCollector, Stats
from logfan.testing import debian, record
from logfan_sinks.metrics import MetricsSink
from support.needed import needed
from support.status import document, sink

STATUS: dict[str, Any] = document(
    instance="<i>", detail="consuming <b>queue</b>", queue_ready=None, ready=False,
    sinks=[
        sink(
            "a<b>", state="down", failure="<script>", held=1_111, retries=2_222, written=3_333,
            filtered=4_444, rejected=5_555, dead_lettered=6_666, dropped=7_777,
        )
    ],
)  # fmt: skip


class Served:
    """A server, and what it is to answer."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.unhealthy: list[str] = []
        self.unready: list[str] = []
        self.registry = CollectorRegistry()
        stats = Stats()
        stats.configure(["a"])
        self.registry.register(LogfanCollector(stats, "9.9"))
        self.server = HttpServer(
            host=host, port=0, registry=self.registry, unhealthy=lambda: self.unhealthy,
            unready=lambda: self.unready, status=lambda: STATUS,
        )  # fmt: skip
        self.server.start()
        self.base = f"http://{f'[{host}]' if ':' in host else host}:{self.server.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        request = urllib.request.Request(self.base + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.server.stop()


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
@pytest.mark.parametrize("version", ["latest", "1.x", "\xe9"])
def test_a_version_that_is_none_gets_the_common_format(
    served: Served, kind: str, version: str
) -> None:
    status, headers, body = served.get("/metrics", Accept=f"{kind};version={version}")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"logfan_build_info" in body


def test_metrics_are_served_in_the_format_that_is_asked_for(served: Served) -> None:
    status, headers, body = served.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b"logfan_received_messages_total 0.0" in body
    _, headers, body = served.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    _, headers, body = served.get("/metrics", **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert b"logfan_connected" in gzip.decompress(body)


def test_names_of_headers_have_no_case_and_a_quality_of_0_is_a_refusal(served: Served) -> None:
    port = served.server.port
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.putrequest("GET", "/metrics")
        client.putheader("accept", "application/openmetrics-text;version=1.0.0")
        client.putheader("accept-encoding", "identity, gzip;q=0")
        client.endheaders()
        answer = client.getresponse()
        assert answer.getheader("Content-Type", "").startswith("application/openmetrics-text")
        assert answer.getheader("Content-Encoding") is None
        assert answer.read().endswith(b"# EOF\n")


def test_health_and_readiness_give_their_reasons(served: Served) -> None:
    assert served.get("/healthz")[0] == served.get("/readyz")[0] == 200
    served.unready.append("sink archive is down: disk full")
    served.unhealthy.append("the loop does not turn")
    status, headers, body = served.get("/readyz")
    assert (status, headers["Content-Type"]) == (503, "application/json")
    assert json.loads(body)["reasons"] == ["sink archive is down: disk full"]
    assert served.get("/healthz")[0] == 503


def test_reasons_are_bounded_and_can_be_encoded_whatever_they_hold(served: Served) -> None:
    served.unready += ["sink a is down: \ud800" + "x" * (3 << 20)] * 500
    status, _, body = served.get("/readyz")
    assert status == 503
    assert "\\ud800" in json.loads(body)["reasons"][0]
    assert json.loads(body)["reasons"][-1] == "and 480 more"
    assert len(body) < 32 << 10


def test_the_page_shows_what_became_of_each_sinks_records(served: Served) -> None:
    page = served.get("/")[2].decode()
    labels = ("Held", "Retries", "Written", "Filtered", "Rejected", "Dead-lettered", "Dropped")
    for number, label in enumerate(labels, 1):
        assert f'data-label="{label}">{number},{str(number) * 3}</td>' in page


def test_the_page_escapes_what_it_shows(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATUS, "reasons", ["sink a: <script>alert(1)</script>"])
    status, headers, body = served.get("/")
    assert status == 200
    assert body.count(b"<script") == body.count(b'<script src="status.js" defer></script>') == 1
    assert b"<li>sink a: &lt;script&gt;alert(1)" in body
    assert b"a&lt;b&gt;" in body
    assert b"<b>queue" not in body
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "kind"), [("/status.css", "text/css"), ("/status.js", "text/javascript")]
)
def test_what_the_page_refers_to_is_served(served: Served, path: str, kind: str) -> None:
    assert f'"{path[1:]}"' in served.get("/")[2].decode()
    status, headers, body = served.get(path)
    assert (status, headers.get_content_type()) == (200, kind)
    assert len(body) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_only_get_is_answered(served: Served, method: str) -> None:
    status, headers, _ = served.get("/metrics", method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_an_unknown_path_is_not_found(served: Served) -> None:
    assert served.get("/../etc/passwd")[0] == 404
    assert served.get("/metrics?x=1")[0] == 200
    assert served.get("/metrics", "HEAD")[2] == b""


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", b"\r\n", b"\0" * 100],
    ids=["tls", "version", "short", "blank", "nul"],
)
def test_what_is_no_http_harms_nothing(served: Served, junk: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
        client.sendall(junk)
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass
    assert served.get("/healthz")[0] == 200


def test_a_huge_request_line_is_refused(served: Served) -> None:
    assert served.get("/" + "x" * 70_000)[0] == 414


def test_idle_connections_do_not_hold_up_a_scrape(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.server.port)) for _ in range(50)]
    try:
        assert served.get("/metrics")[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_a_scrape_leaves_the_interpreter_to_other_threads(served: Served) -> None:
    turns, over = 0, threading.Event()

    def other() -> None:
        nonlocal turns
        while not over.wait(1e-4):
            turns += 1

    class Busy(Collector):
        """Families that take a millisecond each, until the other thread has run meanwhile."""

        def collect(self) -> Iterator[Metric]:
            before, left = turns, 3_000
            while turns == before and left:
                left -= 1
                until = time.perf_counter() + 1e-3
                while time.perf_counter() < until:
                    pass
                yield GaugeMetricFamily("left", "How many more there would be.", value=left)

    served.registry.register(Busy())
    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    thread.start()
    try:
        sys.setswitchinterval(60.0)  # Python itself takes it from no thread
        _, _, body = served.get("/metrics")
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
    assert b"\nleft " in body
    assert b"\nleft 0.0" not in body


def listening_at(port: int) -> HttpServer:
    return HttpServer(
        host="127.0.0.1", port=port, registry=CollectorRegistry(),
        unhealthy=list, unready=list, status=dict,
    )  # fmt: skip


def test_a_port_in_use_is_reported_in_words() -> None:
    one = listening_at(0)  # it serves no metric of a logfan
    one.start()
    try:
        with pytest.raises(ListenError, match=r"http.listen: 127.0.0.1:\d+ is in use by another"):
            listening_at(one.port).start()
    finally:
        one.stop()


def test_a_port_that_a_logfan_has_is_reported_so(served: Served) -> None:
    port = served.server.port
    words = f"http.listen: a logfan listens at 127.0.0.1:{port} already; give each instance a port"
    with pytest.raises(ListenError, match=words):
        listening_at(port).start()


def test_a_foreign_address_of_ipv6_is_reported_as_it_is_written() -> None:
    with pytest.raises(ListenError, match=r"http.listen: \[2001:db8::1\]:0 "):
        HttpServer(
            host="2001:db8::1", port=0, registry=CollectorRegistry(),
            unhealthy=list, unready=list, status=dict,
        ).start()  # fmt: skip


def test_a_foreign_address_is_reported_in_words() -> None:
    with pytest.raises(ListenError, match="is no address of this machine"):
        HttpServer(
            host="192.0.2.1", port=0, registry=CollectorRegistry(),
            unhealthy=list, unready=list, status=dict,
        ).start()  # fmt: skip


def test_a_certificate_that_is_missing_is_reported_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"http.tls.cert_file: \S+/no.pem does not exist"):
        HttpServer(
            host="127.0.0.1", port=0, registry=CollectorRegistry(), unhealthy=list, unready=list,
            status=dict, cert_file=tmp_path / "no.pem", key_file=tmp_path / "no.key",
        ).start()  # fmt: skip


def test_what_cannot_be_answered_is_a_500_and_a_warning(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(STATUS, "detail")
    assert served.get("/")[0] == 500
    assert "'/' could not be answered" in caplog.text
    assert served.get("/metrics")[0] == 200


def test_an_address_of_ipv6_is_listened_on() -> None:
    try:
        one = Served("::1")
    except ListenError as error:
        assert str(error).startswith("http.listen: [::1]:0 ")  # noqa: PT017 - a machine without IPv6 is right too
        return
    try:
        assert one.get("/healthz")[0] == 200
    finally:
        one.server.stop()


def test_a_stopped_server_leaves_no_thread_and_its_port_free() -> None:
    one = Served()
    port = one.server.port
    one.server.stop()
    assert "http" not in {thread.name for thread in threading.enumerate()}
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_promtool_finds_nothing_to_say(served: Served) -> None:
    with needed():
        promtool = debian.tool("prometheus", "usr/bin/promtool")
    config = MetricsSink.Config.model_validate(
        {
            "counters": [{"name": "app_seen_total", "labels": {"level": "level"}}],
            "gauges": [{"name": "app_depth", "value": "n"}],
            "histograms": [{"name": "app_took_seconds", "value": "n"}],
        }
    )
    sink = MetricsSink(config, name="promtool")
    sink.open()
    sink.write([record({"level": "info", "n": 1})])
    registry = CollectorRegistry()
    registry.register(sink._collector)
    sink.close()
    from prometheus_client import generate_latest

    exposition = served.get("/metrics")[2] + generate_latest(registry)
    done = subprocess.run(
        [str(promtool), "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
