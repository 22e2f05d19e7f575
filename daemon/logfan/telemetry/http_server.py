"""`/metrics`, `/healthz`, `/readyz` and a status page over HTTP. It only reads numbers."""

import errno
import gzip
import html
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from logfan.runtime.foreign_text import REASON_CHARACTERS, cut, valid
from logfan.runtime.threads import OwnThread
from logfan.runtime.tls import TlsFileError, server_context
from logfan.telemetry.http_connections import BoundedHandler, BoundedServer, Limits

log = logging.getLogger(__name__)

_GZIP_FROM_BYTES = 1024
_SHOWN_LENGTH = 200
_REASONS = 20
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


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
        """`unhealthy` and `unready` give reasons, none where all is well; `status` what the page
        shows. All are called on HTTP threads. `on_fault` is called where the listener's thread has
        ended and should not have: see `fault`."""
        self._host = host
        self._wanted_port = port
        self._cert_file, self._key_file = cert_file, key_file
        self._registry = registry
        self._unhealthy = unhealthy
        self._unready = unready
        self._status = status
        self._limits = limits or Limits()
        self._rendering = threading.Lock()
        self._server: _Server | None = None
        self._on_fault = on_fault
        self._thread: OwnThread | None = None

    @property
    def port(self) -> int:
        """The port it is bound to; 0 before `start`."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Bind and serve. Raises ListenError."""
        try:
            context = server_context(self._cert_file, self._key_file) if self._cert_file else None
        except TlsFileError as error:
            raise ListenError(f"http.tls.{error}") from None
        try:
            self._server = _Server(
                self._host, self._wanted_port, self._answer, context, self._limits
            )
        except (OSError, OverflowError) as error:
            raise ListenError(self._why(error)) from None
        self._thread = OwnThread(
            "http", partial(self._server.serve_forever, poll_interval=0.1), self._on_fault
        )
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """How the listener's thread ended where it should not have; None while all is well."""
        return None if self._thread is None else self._thread.fault

    def stop(self) -> None:
        """Close the listener; connections under way end by themselves."""
        if self._server is not None and self._thread is not None:
            self._thread.may_end()
            if self._thread.is_alive:
                self._server.shutdown()
            self._server.server_close()
            self._thread.join(2.0)
            self._server = self._thread = None

    def _why(self, error: Exception) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self._wanted_port}"
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            return f"http.listen: {address} is in use by another program; choose another port"
        if code == errno.EACCES:
            return f"http.listen: {address} is not allowed (ports below 1024 need a capability)"
        if code == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            return f"http.listen: {address} is no address of this machine; try 127.0.0.1"
        return f"http.listen: cannot listen on {address}: {error}"

    def _answer(self, path: str, headers: Mapping[str, str]) -> "_Answer":
        if path == "/metrics":
            return self._metrics(headers.get("Accept", ""))
        if path == "/healthz":
            return _verdict(self._unhealthy())
        if path == "/readyz":
            return _verdict(self._unready())
        if path == "/":
            page = _page(self._status(), self._unready())
            return _Answer(
                HTTPStatus.OK, "text/html; charset=utf-8", page.encode("utf-8", "backslashreplace")
            )
        return _Answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found\n")

    def _metrics(self, accept: str) -> "_Answer":
        encode, content_type = choose_encoder(accept)
        # One at a time: many scrapes at once would take the interpreter from the consumer, and
        # where a plugin's collector hangs, this one request hangs and no other.
        if not self._rendering.acquire(timeout=self._limits.scrape_seconds):
            busy = b"an earlier scrape is still being answered\n"
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", busy)
        try:
            return _Answer(HTTPStatus.OK, content_type, encode(self._registry))
        finally:
            self._rendering.release()


class _Answer:
    __slots__ = ("body", "content_type", "status")

    def __init__(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.status, self.content_type, self.body = status, content_type, body


def _verdict(reasons: Sequence[str]) -> _Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    body = {"status": "unavailable", "reasons": _shown(reasons)} if reasons else {"status": "ok"}
    return _Answer(status, "application/json", orjson.dumps(body) + b"\n")


def _shown(reasons: Sequence[str]) -> list[str]:
    """Reasons as they go out: encodable, each cut, the first of many."""
    shown = [cut(valid(reason), REASON_CHARACTERS) for reason in reasons[:_REASONS]]
    more = len(reasons) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


class _Server(BoundedServer):
    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[str, Mapping[str, str]], _Answer],
        context: ssl.SSLContext | None,
        limits: Limits,
    ) -> None:
        self.answer = answer
        super().__init__(host, port, _Handler, context, limits)


class _Handler(BoundedHandler):
    server: _Server
    server_version = "logfan"
    sys_version = ""

    def do_GET(self) -> None:  # noqa: N802 - the base's name
        self._respond(with_body=True)

    def do_HEAD(self) -> None:  # noqa: N802 - the base's name
        self._respond(with_body=False)

    def _respond(self, *, with_body: bool) -> None:
        try:
            path = urlsplit(self.path).path
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        try:
            answer = self.server.answer(path, dict(self.headers.items()))
        except Exception:
            log.warning("http: %r could not be answered", path[:_SHOWN_LENGTH], exc_info=True)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        body = answer.body
        self.send_response(answer.status)
        if len(body) >= _GZIP_FROM_BYTES and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

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


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#c62828}
body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h1 small{font-weight:400;opacity:.6}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.good{color:var(--good)}.bad{color:var(--bad)}
meter{width:100%}a{color:inherit}
"""


def _page(status: Mapping[str, Any], reasons: Sequence[str]) -> str:
    """The status page: whole in itself, and everything in it escaped."""
    e = html.escape
    verdict = (
        "".join(f'<p class="bad">✗ {e(reason)}</p>' for reason in _shown(reasons))
        or '<p class="good">✓ consuming, all required sinks are up</p>'
    )
    instance = f" · {e(str(status['instance']))}" if status["instance"] else ""
    ready = "unknown" if status["queue_ready"] is None else f"{status['queue_ready']:,}"
    rows = "".join(_sink_row(sink) for sink in status["sinks"])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="refresh" content="5"><meta name="viewport" content="width=device-width">'
        f"<title>logfan</title><style>{_STYLE}</style>"
        f"<h1>logfan <small>{e(status['version'])}{instance}</small></h1>{verdict}"
        f"<p>{e(status['state'])}</p>"
        "<table><tr><th class=n>received<th class=n>acknowledged<th class=n>in flight"
        "<th class=n>waiting in the queue"
        f"<tr><td class=n>{status['received']:,}<td class=n>{status['acknowledged']:,}"
        f"<td class=n>{status['in_flight']:,} of {status['prefetch']:,}<td class=n>{ready}</table>"
        f'<meter max="{status["prefetch"]}" value="{status["in_flight"]}"></meter>'
        "<table><tr><th>sink<th>state<th class=n>written<th class=n>held<th class=n>retries"
        f"<th class=n>dead-lettered<th class=n>dropped{rows}</table>"
        '<p><a href="/metrics">metrics</a> · <a href="/readyz">readyz</a> · '
        '<a href="/healthz">healthz</a></p></html>\n'
    )


def _sink_row(sink: Mapping[str, Any]) -> str:
    state = '<span class="good">up</span>'
    if not sink["up"]:
        state = f'<span class="bad">{html.escape(str(sink["trouble"]))}</span>'
    note = "" if sink["required"] else " <small>(not required)</small>"
    return (
        f"<tr><td>{html.escape(sink['name'])}{note}<td>{state}<td class=n>{sink['written']:,}"
        f"<td class=n>{sink['held']:,}<td class=n>{sink['retries']:,}"
        f"<td class=n>{sink['dead_lettered']:,}<td class=n>{sink['dropped']:,}"
    )
