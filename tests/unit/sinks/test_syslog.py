"""The sink `syslog` against real sockets: the format, the framing, and a server that goes away."""

import re
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import record
from logfan_sinks.syslog import SyslogSink
from support.certificates import server_context
from support.gate import Gate
from support.servers import serving
from support.waiting import wait_until

Open = Callable[..., SyslogSink]
SIZE = 1_000_000


class Server:
    """Keeps what it reads, by TCP or TLS."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.got = bytearray()
        self.connections: list[socket.socket] = []
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), self.request as plain:
                    stream = context.wrap_socket(plain, server_side=True) if context else plain
                    server.connections.append(stream)
                    with stream:
                        while piece := stream.recv(1 << 16):
                            server.got += piece

        class Threaded(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Threaded(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    @contextmanager
    def running(self) -> Iterator["Server"]:
        with serving(self._server):
            yield self
        for stream in self.connections:
            stream.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens a sink, and closes it at the end."""
    with ExitStack() as stack:

        def one(address: str, **options: Any) -> SyslogSink:
            config = SyslogSink.Config.model_validate({"address": address, **options})
            sink = SyslogSink(config, name="sys")
            stack.callback(sink.close)
            sink.open()
            return sink

        yield one


def messages(got: bytes | bytearray) -> list[bytes]:
    """Read by their lengths."""
    found, got = [], bytes(got)
    while got:
        length, _, got = got.partition(b" ")
        found.append(got[: int(length)])
        got = got[int(length) :]
    return found


def test_a_message_as_rfc_5424_has_it(server: Server, opened: Open) -> None:
    sink = opened(f"tcp://127.0.0.1:{server.port}", facility="local3")
    body = {"level": "ERR", "msg": "it failed", "time": "2026-11-26T00:13:53.5Z"}
    sink.write(
        [record(body, headers={"host": "web 1"}, app_id="shop", message_id="m-1"),
         record(b"two\nlines", received_at=0.0)]
    )  # fmt: skip
    wait_until(lambda: len(server.got) > 150, "both arrive")
    first, second = messages(server.got)
    assert first == (
        b"<155>1 2026-11-26T00:13:53.500Z web_1 shop - m-1 - "
        b'{"level":"ERR","msg":"it failed","time":"2026-11-26T00:13:53.5Z"}'
    )
    ours = re.escape(socket.gethostname().encode())
    assert re.fullmatch(
        rb"<158>1 1970-01-01T00:00:00\.000000Z " + ours + rb" - - - - two\\nlines", second
    )


@pytest.mark.parametrize("form", ["text", "json", "raw"])
def test_any_body_comes_whole(server: Server, opened: Open, form: str) -> None:
    sink = opened(f"127.0.0.1:{server.port}", format=form)
    bodies = [b"a\nb\x00c", b"", b"x" * 3_000_000, b"\xff\xfe"]
    sink.write([record(body) for body in bodies])
    sink.close()
    wait_until(lambda: len(server.got) > 3_000_100, "all of it arrives")
    wait_until(lambda: len(messages(server.got)) == 4, "all of it")
    if form == "raw":
        assert [one.split(b" - - - - ")[1] for one in messages(server.got)] == bodies


@pytest.mark.slow
def test_a_server_that_takes_little_at_a_time_is_waited_for(server: Server, opened: Open) -> None:
    gate = Gate(server.port)
    gate.slow_seconds = 3.5
    with gate:
        sink = opened(f"tcp://127.0.0.1:{gate.port}", format="raw", timeout="3s")
        sink.write([record(b"x" * 4_000_000)] * 2)
        wait_until(lambda: len(server.got) > 8_000_000, "all of it arrives")
    assert gate.connections == 1


def test_newlines_part_where_the_server_knows_no_other(server: Server, opened: Open) -> None:
    opened(f"tcp://127.0.0.1:{server.port}", framing="newline").write([record(b"a\nb")] * 2)
    wait_until(lambda: server.got.count(b"\n") == 2, "two lines")
    assert all(line.endswith(rb"a\nb") for line in server.got.splitlines())


def test_datagrams_and_one_that_is_too_long(opened: Open) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        sink = opened(f"udp://127.0.0.1:{receiver.getsockname()[1]}")
        with pytest.raises(RecordsRejected) as caught:
            sink.write([record(b"a"), record(b"x" * 70_000), record(b"b")])
        assert [*caught.value.reasons] == [1]
        assert [receiver.recv(1 << 16)[-1:] for _ in range(2)] == [b"a", b"b"]


def test_by_tls_with_the_certificate_verified(tmp_path: Path, opened: Open) -> None:
    context = server_context(tmp_path)
    with Server(context).running() as server:
        address = f"tls://127.0.0.1:{server.port}"
        opened(address, tls={"ca_file": str(tmp_path / "ca.pem")}).write([record(b"a")])
        wait_until(lambda: server.got.endswith(b" a"), "it arrives")
        with pytest.raises(SinkUnavailable, match="certificate verify failed"):
            opened(address)
        with pytest.raises(SinkUnavailable, match="No such file"):
            opened(address, tls={"ca_file": str(tmp_path / "no.pem")})


def test_a_server_that_went_away_is_noticed_before_something_is_lost(opened: Open) -> None:
    with Server().running() as server:
        sink = opened(f"tcp://127.0.0.1:{server.port}")
        sink.write([record(b"a")])
        wait_until(lambda: bytes(server.got).endswith(b" a"), "it arrives")
        for stream in server.connections:
            stream.shutdown(socket.SHUT_RDWR)
        with pytest.raises(SinkUnavailable, match="ended the connection"):
            wait_until(lambda: sink.write([record(b"b")]), "its end is noticed")
    with pytest.raises(SinkUnavailable, match="refused"):
        sink.open()


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_what_a_healthy_server_has_yet_to_read_survives_the_end(
    scheme: str, tmp_path: Path, opened: Open
) -> None:
    context = server_context(tmp_path)
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)

        def serve() -> None:
            with suppress(OSError), ExitStack() as stack:
                stream = stack.enter_context(listener.accept()[0])
                if scheme == "tls":
                    stream = stack.enter_context(context.wrap_socket(stream, server_side=True))
                stream.sendall(b"welcome")
                while piece := stream.recv(1 << 14):
                    got.extend(piece)
                    time.sleep(0.01)  # slower than what is sent

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        options = {"tls": {"ca_file": str(tmp_path / "ca.pem")}} if scheme == "tls" else {}
        sink = opened(f"{scheme}://127.0.0.1:{port}", format="raw", timeout="5s", **options)
        sink.write([record(b"x" * SIZE)])
        sink.close()
        thread.join(60)
    assert got.count(b"x") == SIZE


def test_a_server_that_does_not_end_is_not_waited_for_without_end(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan_sinks.syslog._CLOSE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink = opened(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        with listener.accept()[0] as stream:
            sink.write([record(b"a")])
            sink.close()
            assert stream.recv(1 << 16).endswith(b" a")
            assert stream.recv(1) == b""


def test_the_operator_is_warned_of_what_syslog_cannot_promise() -> None:
    assert "acknowledges nothing" in SyslogSink.advice({"a": None})["a"]
