"""`/metrics`, `/healthz`, `/readyz`, `/status.json` and a status page. It only reads numbers."""

import errno
import gzip
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from logfan.runtime.threads import ServerThread
from logfan.runtime.tls import TlsFileError, pinned_context, server_context
from logfan.telemetry.http_connections import BoundedHandler, BoundedServer, Limits
from logfan.telemetry.status_page import FILES, POLICY, page, shown

log = logging.getLogger(__name__)

_GZIP_FROM_BYTES = 1024
_NO_QUALITY = re.compile(r"q=0(\.0*)?")
_HOLD_SECONDS = 0.0002
_YIELD_SECONDS = 1e-6
"""With 0 this thread would mostly go on before another has woken."""
_SHOWN_LENGTH = 200
_ASK_SECONDS = 3.0

_NO_LISTENING = {
    errno.EADDRINUSE: "is in use by another program; choose another port",
    errno.EACCES: "is not allowed (ports below 1024 need a capability)",
    errno.EADDRNOTAVAIL: "is no address of this machine; try 127.0.0.1",
}


class ListenError(Exception):
    """The address cannot be listened on; the text names it, the cause and the way out."""


class HttpServer:
    """Serves on threads of its own from `start` to `stop`."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        unhealthy: Callable[[], Sequence[str]],
        unready: Callable[[], Sequence[str]],
        status: Callable[[], Mapping[str, Any]],
        cert_file: Path | None = None,
        key_file: Path | None = None,
        limits: Limits | None = None,
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        """`unhealthy` and `unready` give reasons, none where all is well; `status` what
        `/status.json` holds. All are called on HTTP threads. `on_fault` is called where the
        listener's thread has ended and should not have."""
        self._host = host
        self._wanted_port = port
        self._cert_file, self._key_file = cert_file, key_file
        self._registry = registry
        self._unhealthy = unhealthy
        self._unready = unready
        self._status = status
        self._limits = limits or Limits()
        self._rendering = threading.Lock()
        self._server: BoundedServer | None = None
        self._on_fault = on_fault
        self.thread: ServerThread | None = None

    @property
    def port(self) -> int:
        """The port it is bound to; 0 before `start`."""
        return 0 if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it serves, without a path."""
        return f"{'https' if self._cert_file else 'http'}://{self._address(self.port)}"

    def start(self) -> None:
        """Bind and serve. Raises ListenError."""
        try:
            context = server_context(self._cert_file, self._key_file) if self._cert_file else None
        except TlsFileError as error:
            raise ListenError(f"http.tls.{error}") from None
        try:
            self._server = BoundedServer(
                self._host, self._wanted_port, partial(_Handler, self._answer), context,
                self._limits,
            )  # fmt: skip
        except (OSError, OverflowError) as error:
            raise ListenError(self._why(error)) from None
        self.thread = ServerThread("http", self._server, self._on_fault, poll_seconds=0.1)
        self.thread.start()

    def stop(self) -> None:
        """Close the listener; connections under way end by themselves."""
        if self.thread is not None:
            self.thread.stop()
            self._server = self.thread = None

    def _why(self, error: Exception) -> str:
        address = self._address(self._wanted_port)
        unknown_name = isinstance(error, socket.gaierror)
        code = errno.EADDRNOTAVAIL if unknown_name else getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            # Loaded here: a start that goes well need not wait for an HTTP client.
            from logfan.runtime.http_get import is_logfan

            context = pinned_context(self._cert_file) if self._cert_file else None
            if is_logfan(f"{'https' if context else 'http'}://{address}", _ASK_SECONDS, context):
                return (
                    f"http.listen: a logfan listens at {address} already; give each instance a "
                    "port of its own, or stop that one"
                )
        if code in _NO_LISTENING:
            return f"http.listen: {address} {_NO_LISTENING[code]}"
        return f"http.listen: cannot listen on {address}: {error}"

    def _address(self, port: int) -> str:
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    def _answer(self, path: str, headers: Message) -> "_Answer":
        if path == "/metrics":
            return self._metrics(headers.get("Accept", ""))
        if path == "/healthz":
            return _health(self._unhealthy())
        if path == "/readyz":
            return _health(self._unready())
        if path == "/status.json":
            return _json(HTTPStatus.OK, self._status())
        if path == "/":
            html = page(self._status()).encode("utf-8", "backslashreplace")
            return _Answer(HTTPStatus.OK, "text/html; charset=utf-8", html)
        if path in FILES:
            return _Answer(HTTPStatus.OK, *FILES[path])
        return _Answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found\n")

    def _metrics(self, accept: str) -> "_Answer":
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        # One at a time: many scrapes at once would take the interpreter from the consumer, and
        # where a plugin's collector hangs, this one request hangs and no other.
        if not self._rendering.acquire(timeout=self._limits.scrape_seconds):
            busy = b"an earlier scrape is still being answered\n"
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", busy)
        try:
            return _Answer(HTTPStatus.OK, content_type, encode(_Yielding(self._registry)))
        finally:
            self._rendering.release()


class _Yielding(Collector):
    """A registry's families, with the interpreter left to other threads in between: the consumer
    does not wait for a whole scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        held_since = time.perf_counter()
        for family in self._registry.collect():
            if time.perf_counter() - held_since > _HOLD_SECONDS:
                time.sleep(_YIELD_SECONDS)
                held_since = time.perf_counter()
            yield family


class _Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


def _health(reasons: Sequence[str]) -> _Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    body = {"status": "unavailable", "reasons": shown(reasons)} if reasons else {"status": "ok"}
    return _json(status, body)


def _json(status: HTTPStatus, body: Mapping[str, Any]) -> _Answer:
    return _Answer(status, "application/json", orjson.dumps(body) + b"\n")


def _takes_gzip(accepted: str) -> bool:
    """Whether this Accept-Encoding allows it."""
    for part in accepted.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        if coding == "gzip":
            return not any(_NO_QUALITY.fullmatch(one) for one in parameters)
    return False


class _Handler(BoundedHandler):
    server_version = "logfan"
    sys_version = ""

    def __init__(self, answer: Callable[[str, Message], _Answer], *request: Any) -> None:
        self._answer = answer
        super().__init__(*request)

    def do_GET(self) -> None:  # noqa: N802 - the base's name
        """HEAD too."""
        try:
            path = urlsplit(self.path).path
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        try:
            answer = self._answer(path, self.headers)
        except Exception:
            log.warning("http: %r could not be answered", path[:_SHOWN_LENGTH], exc_info=True)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        body = answer.body
        self.send_response(answer.status)
        if len(body) >= _GZIP_FROM_BYTES and _takes_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the base's name

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Anything but GET and HEAD ends here, as does what is no HTTP."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "only GET"
        body = f"{message or HTTPStatus(code).phrase}\n".encode("utf-8", "replace")
        self.request_version = "HTTP/1.0"  # it may not have come so far; without it no header goes
        self.send_response(code)
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        log.debug("http: %s", format % args)
