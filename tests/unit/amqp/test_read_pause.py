"""While a connection's reading is held nothing comes in, and everything else goes on."""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils import io_services_utils as transports
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from logfan.amqp import connection as wire
from logfan.amqp.pika_internals import ReadPause
from support.certificates import Authority
from support.readers import Reader
from support.waiting import wait_until
from support.wire_bytes import Scene

BLOCK = b"0123456789abcdef" * 1024
"""What becomes one record of TLS."""
READ_BYTES = 4096
"""What one read brings: TLS then still has most of a record."""
MOST_SECONDS = 10.0


class Line:
    """A loop, one of pika's own transports on it, and the other end of its socket."""

    def __init__(self, near: socket.socket, far: socket.socket, kind: type[Any]) -> None:
        self.far, self.loop, self.hold = far, IOLoop(), ReadPause()
        self.came = 0
        """Bytes that the protocol got."""
        self.asked = 0
        """How often pika wanted to read."""
        self.on_data: Callable[[], None] = lambda: None
        near.setblocking(False)
        self.nbio = SelectorIOServicesAdapter(self.loop)
        self.transport = kind(near, self, self.nbio)
        self.transport._sigint_safe_recv = self._receive

    def _receive(self, near: Any, _most: int) -> bytes:
        self.asked += 1
        self.hold.check(self.transport)
        data: bytes = near.recv(READ_BYTES)
        return data

    # What pika's transport calls

    def data_received(self, data: bytes) -> None:
        self.came += len(data)
        self.on_data()

    def connection_lost(self, _error: BaseException | None) -> None:
        self.loop.stop()

    def eof_received(self) -> bool:
        return False

    # What a test does

    def begin(self) -> None:
        assert self.hold.begin(self.transport)

    def end(self) -> None:
        self.hold.end(self.transport)

    def turn(self, *, until: Callable[[], bool]) -> None:
        """Let the loop run until it holds; that it never does is a failure."""

        def look() -> None:
            if until():
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        late = self.loop.call_later(MOST_SECONDS, self.loop.stop)
        self.loop.call_later(0, look)
        self.loop.start()
        self.loop.remove_timeout(late)
        assert until()

    def answer(self) -> None:
        """Write something, and see it arrive: by then the loop has seen all that it might read."""
        self.transport.write(b"an acknowledgement")
        self.turn(until=lambda: not self.transport._tx_buffers)
        assert self.far.recv(100) == b"an acknowledgement"


def tls_pair(folder: Path, near: socket.socket, far: socket.socket) -> tuple[Any, Any]:
    """The same two ends, speaking TLS."""
    authority = Authority(folder)
    pair = authority.issue("server", "localhost")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.cert, pair.key)
    client = ssl.create_default_context(cafile=str(authority.file))
    ends = [
        client.wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False),
        server.wrap_socket(far, server_side=True, do_handshake_on_connect=False),
    ]
    for end in ends:
        end.setblocking(False)
    missing = list(ends)
    while missing:
        for end in list(missing):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                missing.remove(end)
    ends[1].setblocking(True)
    return ends[0], ends[1]


@pytest.fixture(params=["plain", "TLS"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    near, far = socket.socketpair()
    if request.param == "TLS":
        near, far = tls_pair(tmp_path, near, far)
        made = Line(near, far, transports._AsyncSSLTransport)
    else:
        made = Line(near, far, transports._AsyncPlaintextTransport)
    yield made
    far.close()
    if made.transport._sock is not None:
        made.transport.abort()
        made.loop.start()  # until the connection is reported as lost
    made.loop.close()


def test_what_is_not_read_waits_and_comes_once_the_last_has_let_go(line: Line) -> None:
    line.far.sendall(BLOCK)
    line.turn(until=lambda: line.came == len(BLOCK))
    line.answer()
    asked = line.asked
    line.begin()
    line.begin()
    line.far.sendall(BLOCK)
    line.answer()
    line.end()
    line.answer()
    assert line.asked == asked, "the loop turns in vain"
    line.end()
    line.turn(until=lambda: line.came == 2 * len(BLOCK))


def test_it_reads_at_once_where_it_is_asked_to(line: Line) -> None:
    line.answer()
    line.begin()
    line.far.sendall(BLOCK)
    line.hold.end(line.transport, at_once=True)
    assert line.came
    line.turn(until=lambda: line.came == len(BLOCK))


def test_held_in_the_middle_of_a_turn_it_reads_no_more_in_it(line: Line) -> None:
    """pika reads several times in a turn; TLS also what it has taken from the socket before."""
    line.on_data = line.begin
    line.far.sendall(BLOCK)
    line.turn(until=lambda: line.came > 0)
    line.answer()
    assert line.came <= READ_BYTES
    line.on_data = lambda: None
    line.end()
    line.turn(until=lambda: line.came == len(BLOCK))


def test_a_connection_that_ends_while_it_is_held_is_no_trouble(line: Line) -> None:
    fd = line.transport._sock.fileno()
    line.begin()
    line.begin()
    line.transport.abort()  # what is left of it follows in the next turn of the loop
    line.end()
    line.end()
    assert fd not in line.nbio._watchers, "the next connection may have this number"
    line.turn(until=lambda: line.transport._sock is None)


def test_a_consumer_reads_nothing_while_its_connection_is_held(line: Line) -> None:
    reader = Reader(wire.Connection, Scene(1, "tag", "plain", company=False))
    connection, reader.connection._transport = reader.connection, line.transport
    near = line.transport._sock
    line.far.sendall(BLOCK)
    assert connection.pause_reading()
    with pytest.raises((BlockingIOError, ssl.SSLWantReadError)):
        connection._receive(near, READ_BYTES)
    connection.resume_reading()
    wait_until(lambda: select.select([near], [], [], 0)[0], "there is something to read")
    assert connection._receive(near, READ_BYTES)


def test_what_is_written_is_sent_at_once_where_that_can_be(line: Line) -> None:
    reader = Reader(wire.Connection, Scene(1, "tag", "plain", company=False))
    connection, reader.connection._transport = reader.connection, line.transport
    is_tls = isinstance(line.transport, transports._AsyncSSLTransport)
    connection.send_at_once()  # nothing is to be sent
    line.transport.write(b"an acknowledgement")
    connection.send_at_once()
    assert bool(line.transport._tx_buffers) == is_tls, "TLS leaves it to the loop"
    line.turn(until=lambda: not line.transport._tx_buffers)
    assert line.far.recv(100) == b"an acknowledgement"


def test_what_the_socket_does_not_take_at_once_follows(line: Line) -> None:
    reader = Reader(wire.Connection, Scene(1, "tag", "plain", company=False))
    connection, reader.connection._transport = reader.connection, line.transport
    much = bytes(8 << 20)
    line.transport.write(much)
    connection.send_at_once()
    assert line.transport._tx_buffers
    line.far.setblocking(False)
    came = 0

    def take() -> bool:
        nonlocal came
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            while data := line.far.recv(1 << 20):
                came += len(data)
        return came == len(much)

    line.turn(until=take)


def test_another_inside_of_pika_cannot_be_held() -> None:
    assert not ReadPause().begin(None)
    assert not ReadPause().begin(object())
