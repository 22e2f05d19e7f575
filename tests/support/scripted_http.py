"""A real HTTP server on loopback that answers as it is asked to, and keeps what it got."""

import gzip
import ssl
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.servers import serving


@dataclass(slots=True)
class Request:
    """What came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    """Decompressed."""


@dataclass(slots=True)
class Reply:
    """What to answer. A status of 0 closes the connection instead."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is no error; what else there is shows."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class ScriptedServer:
    """Answers by a function, or by replies in turn; then with 200."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.replies: deque[Reply] = deque()
        self.answer: Callable[[Request], Reply] = lambda _: (
            self.replies.popleft() if self.replies else Reply()
        )
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {
                    name.lower(): ", ".join(self.headers.get_all(name, ())) for name in self.headers
                }
                request = Request(self.command, self.path, headers, body)
                server.requests.append(request)
                reply = server.answer(request)
                if reply.status == 0:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_POST = do_PUT = do_PATCH = do_GET = do_HEAD = _any  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        if context is not None:
            # The handshake on the connection's own thread, at the first byte.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' * (context is not None)}://127.0.0.1:{self._server.server_port}"

    @property
    def bodies(self) -> list[bytes]:
        """Of all requests."""
        return [request.body for request in self.requests]

    @contextmanager
    def running(self) -> Iterator["ScriptedServer"]:
        """Serve until the end of the `with`."""
        with serving(self._server):
            yield self
