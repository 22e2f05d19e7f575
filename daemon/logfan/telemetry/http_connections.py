"""HTTP connections with bounds: on their number, the size of a request, and the time of it all.

Each connection has a thread and one deadline for the TLS handshake and the request's head together,
and one for everything. A client that is late is cut off, however busily bytes trickle. When all
places are taken, a newcomer gets the place of the one that has been asking longest, or has its
answer; else of the oldest. So clients who never finish cannot keep a scrape out.
"""

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.1
_CHUNK_BYTES = 4096
_DRAINED_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take."""

    connections: int = 100
    head_bytes: int = 16 * 1024
    """Request line and headers."""
    head_seconds: float = 5.0
    """From the connection to the end of the head, the TLS handshake included."""
    whole_seconds: float = 20.0
    """From the connection to the end of the answer."""
    scrape_seconds: float = 5.0
    """How long a scrape waits for an earlier one to be put together."""


@dataclass(eq=False, slots=True)
class Connection:
    """One client."""

    sock: socket.socket
    opened_at: float = field(default_factory=time.monotonic)
    asking: bool = True
    """The head of its request is not here yet."""
    head: bytes = b""
    too_long: bool = False
    more: bool = False
    """There are or will be bytes that are not read: a body, or a head that is too long."""
    answered: bool = False
    """What is left is to read these bytes."""
    leaving: bool = False
    """It was cut, and its thread is about to end."""

    def cut(self) -> None:
        """Wake its thread from whatever it waits for; called on another thread."""
        self.leaving = True
        with suppress(OSError):
            # Below TLS: the SSL object belongs to the connection's own thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class BoundedServer(HTTPServer):
    """Listens; `service_actions` runs a few times a second and cuts off those that are late."""

    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        host: str,
        port: int,
        handler: Callable[..., "BoundedHandler"],
        context: ssl.SSLContext | None,
        limits: Limits,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.limits = limits
        self._context = context
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name, as HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept. Without descriptors it pauses: the caller would try again at once, for ever."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """A place and a thread for the connection, or the end of it."""
        connection = Connection(request)
        if not self._take_place(connection):
            self.shutdown_request(request)
            return
        thread = threading.Thread(
            target=self._serve, args=(connection, client_address), name="http-request", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads for us
            self._leave(connection)

    def service_actions(self) -> None:
        """Cut off clients that are late."""
        now, limits = time.monotonic(), self.limits
        with self._lock:
            for connection in self._open:
                allowed = limits.head_seconds if connection.asking else limits.whole_seconds
                if now - connection.opened_at > allowed:
                    connection.cut()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of one connection; the others go on."""
        log.debug("http: a request from %s failed", client_address, exc_info=True)  # noqa: LOG014 - called inside one

    def _take_place(self, connection: Connection) -> bool:
        with self._lock:
            if len(self._open) >= self.limits.connections:
                staying = [other for other in self._open if not other.leaving]
                # Those that were cut need a moment to go, hence the second bound.
                if not staying or len(self._open) >= 2 * self.limits.connections:
                    return False
                idle = [other for other in staying if other.asking or other.answered]
                min(idle or staying, key=lambda other: other.opened_at).cut()
            self._open.add(connection)
            return True

    def _leave(self, connection: Connection) -> None:
        self.shutdown_request(connection.sock)
        with self._lock:
            self._open.discard(connection)

    def _serve(self, connection: Connection, client_address: Any) -> None:
        try:
            connection.sock.settimeout(self.limits.whole_seconds)
            if self._context is not None:
                wrapped = self._context.wrap_socket(
                    connection.sock, server_side=True, do_handshake_on_connect=False
                )
                connection.sock = wrapped
                wrapped.do_handshake()
            self._read_head(connection)
            if connection.head:
                self.RequestHandlerClass(connection, client_address, self)  # type: ignore[arg-type]
                connection.answered = True
                self._drain(connection)
        except OSError as error:
            log.debug("http: %s: %s", client_address, error)
        except Exception:  # noqa: BLE001 - one connection's failure is not the daemon's
            self.handle_error(connection.sock, client_address)
        finally:
            self._leave(connection)

    def _read_head(self, connection: Connection) -> None:
        head = b""
        while not (end := _end_of_head(head)):
            if len(head) > self.limits.head_bytes:
                connection.too_long = connection.more = True
                break
            chunk = connection.sock.recv(_CHUNK_BYTES)
            if not chunk:
                break
            head += chunk
        else:
            connection.more = len(head) > end
        connection.head = head
        connection.asking = False

    def _drain(self, connection: Connection) -> None:
        """Closing with bytes unread would reset the connection, and the answer be lost with it."""
        if not connection.more:
            return
        sock, left = connection.sock, _DRAINED_BYTES
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while left > 0 and (chunk := socket.socket.recv(sock, _CHUNK_BYTES)):
            left -= len(chunk)


class BoundedHandler(BaseHTTPRequestHandler):
    """Works on a head that was read, and sends all of its answer at once. `do_…` as ever."""

    server: BoundedServer
    request: Any

    def setup(self) -> None:
        """In place of files over the socket."""
        self.connection = self.request.sock
        self.rfile = io.BytesIO(self.request.head)
        self.wfile = io.BytesIO()

    def finish(self) -> None:
        """Send."""
        answer = self.wfile.getvalue()  # type: ignore[attr-defined]
        if answer:
            self.connection.sendall(answer)

    def handle(self) -> None:
        """One request, then the connection ends."""
        if not self.request.too_long:
            self.handle_one_request()
            headers = getattr(self, "headers", {})
            if "Content-Length" in headers or "Transfer-Encoding" in headers:
                self.request.more = True
            return
        self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
        line_ends = b"\n" in self.request.head
        self.send_error(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            if line_ends
            else HTTPStatus.REQUEST_URI_TOO_LONG
        )


def _end_of_head(data: bytes) -> int:
    """Where the empty line ends that ends the head; 0 where it is not there yet."""
    ends = [data.find(mark) + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if mark in data]
    return min(ends, default=0)
