"""A broker that sends what a test asks for: AMQP 0-9-1 in real bytes, one thread a connection.

It shakes hands, and accepts whatever is declared. What is published it keeps and does not
confirm: that is the test's business.
"""

import socket
import struct
import threading
from contextlib import suppress
from typing import Any, Self

from pika import frame, spec

_YES: dict[type, type] = {
    spec.Channel.Open: spec.Channel.OpenOk,
    spec.Queue.Declare: spec.Queue.DeclareOk,
    spec.Exchange.Declare: spec.Exchange.DeclareOk,
    spec.Confirm.Select: spec.Confirm.SelectOk,
    spec.Connection.Close: spec.Connection.CloseOk,
}


class Peer:
    """The broker's side of one connection."""

    def __init__(self, accepted: socket.socket, frame_max: int) -> None:
        self.published: list[bytes] = []
        """The bodies, in order."""
        self.header_bytes: list[int] = []
        """Of each one's content header, how long its frame was."""
        self.closing = threading.Event()
        """Set once the client asked to close its channel, which comes first."""
        self.keeps = False
        """Whether that is left unanswered, until `let_go`."""
        self.ignores: tuple[type, ...] = ()
        """Methods that are not answered."""
        self._socket = accepted
        self._frame_max = frame_max
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Shake hands, and take what comes."""
        self._thread.start()

    def say(self, method: Any, channel: int = 1) -> None:
        """Send one method."""
        self._socket.sendall(frame.Method(channel, method).marshal())

    def beat(self) -> None:
        """Send a heartbeat."""
        with suppress(OSError):  # the client has left
            self._socket.sendall(frame.Heartbeat().marshal())

    def give_back(self, channel: int = 1) -> None:
        """Send a `basic.return` of an empty message."""
        self.say(spec.Basic.Return(312, "NO_ROUTE", "", "q"), channel)
        self._socket.sendall(frame.Header(channel, 0, spec.BasicProperties()).marshal())

    def let_go(self, channel: int = 1) -> None:
        """Answer the client's wish to close the channel."""
        self.say(spec.Channel.CloseOk(), channel)

    def cut(self) -> None:
        """End the connection without a word."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        self.cut()
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        with suppress(OSError, EOFError):
            self._read(8)  # the protocol's header
            features = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
            server = {"version": "3.10.8", "capabilities": features}
            self.say(spec.Connection.Start(0, 9, server, "PLAIN", "en_US"), 0)
            while True:
                self._take()

    def _take(self) -> None:
        _, channel, size = struct.unpack(">BHI", head := self._read(7))
        _, taken = frame.decode_frame(head + self._read(size + 1))
        if isinstance(taken, frame.Header):
            self.header_bytes.append(size + 8)
            if not taken.body_size:
                self.published.append(b"")
        elif isinstance(taken, frame.Body):
            self.published.append(taken.fragment)
        elif isinstance(taken, frame.Method):
            self._answer(channel, taken.method)

    def _answer(self, channel: int, method: Any) -> None:
        if isinstance(method, self.ignores):
            return
        if isinstance(method, spec.Connection.StartOk):
            self.say(spec.Connection.Tune(10, self._frame_max, 0), 0)
        elif isinstance(method, spec.Connection.Open):
            self.say(spec.Connection.OpenOk(), 0)
        elif isinstance(method, spec.Channel.Close):
            if not self.keeps:
                self.let_go(channel)
            self.closing.set()
        elif isinstance(method, spec.Queue.Declare):
            self.say(spec.Queue.DeclareOk(method.queue, 0, 0), channel)
        elif type(method) in _YES:
            self.say(_YES[type(method)](), channel)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class ScriptedBroker:
    """Listens on loopback; `peers` are the connections that came, in order."""

    def __init__(self, frame_max: int = 131_072) -> None:
        self.peers: list[Peer] = []
        self._frame_max = frame_max
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for peer in self.peers:
            peer.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self.peers.append(Peer(accepted, self._frame_max))
                self.peers[-1].start()
