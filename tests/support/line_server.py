"""A small server on loopback that confirms each batch of lines, and can be broken: the other side
of the sinks that the conformance suite is tried with.

A record is a line, a colon and base64; an empty line ends the batch. The server keeps the batch,
then answers with a JSON list of the places that it refused.
"""

import base64
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from logfan.testing.node import free_port


class _Handler(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        owner = self.server.owner
        owner.connections.add(self.connection)
        batch: list[bytes] = []
        with suppress(OSError):
            for line in self.rfile:
                if line == b"\n":
                    self._answer(owner, batch)
                    batch = []
                else:
                    batch.append(base64.b64decode(line[1:]))

    def _answer(self, owner: "LineServer", batch: list[bytes]) -> None:
        if owner.is_slow:
            return
        mark = owner.refused
        refused = [place for place, body in enumerate(batch) if mark and mark in body]
        owner.held += [body for place, body in enumerate(batch) if place not in refused]
        self.wfile.write(json.dumps(refused).encode() + b"\n")

    def finish(self) -> None:
        self.server.owner.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: "LineServer") -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", owner.port), _Handler)


class LineServer:
    """One server. `start` it; `stop` ends its connections, too, and keeps what it holds."""

    def __init__(self) -> None:
        self.port = free_port()
        self.held: list[bytes] = []
        """The bodies that it confirmed, in order."""
        self.is_slow = False
        """Whether it leaves batches unanswered, and forgets them."""
        self.refused = b""
        """Bodies with this in them are refused; none while it is empty."""
        self.connections: set[socket.socket] = set()

    def start(self) -> None:
        """Listen."""
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, and end every connection."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in [*self.connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Answer nothing."""
        self.is_slow = True
        yield
        self.is_slow = False

    @contextmanager
    def refusing(self, mark: bytes) -> Iterator[None]:
        """Refuse what holds this."""
        self.refused = mark
        yield
        self.refused = b""
