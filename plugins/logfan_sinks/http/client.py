"""One HTTP endpoint: kept connections, TLS, credentials from files, and answers within bounds."""

import base64
import gzip
import http.client
import io
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

import logfan
from logfan_sinks.address import Timeout, is_address
from logfan_sinks.extras import ExtraConfig
from logfan_sinks.http.delivery import Items, deliver
from logfan_sinks.http.verdicts import Answer, Table
from logfan_sinks.outcome import Outcome
from logfan_sinks.secret_file import HEADER_TEXT, secret_in, token_in
from logfan_sinks.tls_options import TlsOptions

_ANSWER_BYTES = 64 << 10
_PIECE_BYTES = 64 << 10
_NO_BACKLOG = (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _PIECE_BYTES)
"""Little of a request waits in the kernel: the answer is waited for from when it is sent."""
_PORTS = {"http": 80, "https": 443}
_OF_EACH_REQUEST = frozenset(
    ("content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade",
     "expect")
)  # fmt: skip
"""Where a request ends, and what becomes of its connection: no header of the config's."""
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderText = Annotated[str, Field(pattern=HEADER_TEXT)]


class HttpOptions(ExtraConfig):
    """The keys of every sink that speaks HTTP. Each has `max_records`, with a default of its own,
    too."""

    library, extra = "urllib3", "http"

    url: str
    """Where to send, as https://logs.example.org/path."""
    headers: dict[HeaderName, HeaderText] = Field(default_factory=dict)
    """Sent with each request."""
    username: str | None = None
    """For HTTP Basic authentication, with password_file."""
    password_file: Path | None = None
    """The file that holds the password."""
    token_file: Path | None = None
    """The file that holds a token, sent as `Authorization: Bearer …`."""
    tls: TlsOptions = TlsOptions()
    """{ ca_file = "…", cert_file = "…", key_file = "…", verify = true }"""
    timeout: Timeout = 30.0
    """How long the other side may take nothing of a request, and how long all of its answer may
    take."""
    compress: Literal["none", "gzip"] = "none"
    """gzip: send compressed requests."""
    max_request_bytes: logfan.Size = 5 << 20
    """Most bytes in one request, before compression; a larger record goes alone."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not is_address(parts):
            raise ValueError("it is http://HOST:PORT/PATH or https://HOST:PORT/PATH")
        if parts.username or parts.password:
            raise ValueError("it holds credentials; use username and password_file, or token_file")
        return url

    @field_validator("headers")
    @classmethod
    def _are_free(cls, headers: dict[str, str]) -> dict[str, str]:
        names = [name.lower() for name in headers]
        for name, lower in zip(headers, names, strict=True):
            if names.count(lower) > 1:
                raise ValueError(f"holds {lower} twice; upper and lower case are the same name")
            if lower == "content-encoding":
                raise ValueError(f'{name}: take compress = "gzip" instead')
            if lower in _OF_EACH_REQUEST:
                raise ValueError(f"{name} is made for each request; leave it out")
        return headers

    @model_validator(mode="after")
    def _are_whole(self) -> "HttpOptions":
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        logins = [f"headers.{one}" for one in self.headers if one.lower() == "authorization"]
        logins += ["username"] if self.username is not None else []
        logins += ["token_file"] if self.token_file is not None else []
        if len(logins) > 1:
            raise ValueError(f"{logins[0]} and {logins[1]} are two ways to log in; leave one out")
        return self


class HttpClient:
    """Keeps its connections. One thread at a time."""

    def __init__(
        self, options: HttpOptions, *, media_type: str, answer_bytes: int = _ANSWER_BYTES
    ) -> None:
        """Reads the files that hold secrets, and of each answer no more than `answer_bytes`. Raises
        `logfan.SinkUnavailable` where a file cannot be read."""
        import urllib3

        self._options = options
        self._answer_bytes = answer_bytes
        self._headers = urllib3.HTTPHeaderDict(
            {"Content-Type": media_type, "User-Agent": f"logfan/{logfan.__version__}"}
        )
        self._headers.update(options.headers)
        if options.compress == "gzip":
            self._headers["Content-Encoding"] = "gzip"
        if options.token_file is not None:
            self._headers["Authorization"] = f"Bearer {token_in(options.token_file)}"
        elif options.password_file is not None:
            login = f"{options.username}:{secret_in(options.password_file)}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self._tls = options.tls.context() if options.url.startswith("https:") else None
        if not options.tls.verify:  # the operator's own choice, which need not be logged each time
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        timeout = urllib3.Timeout(total=None, connect=options.timeout, read=options.timeout)
        self._pool = urllib3.PoolManager(
            maxsize=1, retries=False, timeout=timeout, ssl_context=self._tls,
            socket_options=[*urllib3.connection.HTTPConnection.default_socket_options, _NO_BACKLOG],
        )  # fmt: skip
        kinds = (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool)
        self._pool.pool_classes_by_scheme = {kind.scheme: _bounded(kind) for kind in kinds}

    def connect(self) -> None:
        """See that the other side can be reached. Raises `logfan.SinkUnavailable`."""
        parts = urlsplit(self._options.url)
        address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        try:
            with socket.create_connection(address, self._options.timeout) as stream:
                if self._tls is not None:
                    self._tls.wrap_socket(stream, server_hostname=parts.hostname).close()
        except OSError as error:
            raise logfan.SinkUnavailable(self._why(error)) from None

    def request(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        url: str | None = None,
    ) -> Answer:
        """The answer, whatever its status. Raises `logfan.SinkUnavailable` where there is none."""
        import urllib3

        if self._options.compress == "gzip" and body:
            body = gzip.compress(body, 1)
        sent = self._headers.copy()
        sent.update(headers or {})
        if body:
            sent["Content-Length"] = str(len(body))
        try:
            response = self._pool.request(
                method, url or self._options.url, body=_pieces(body) if body else None,
                headers=sent, redirect=False, preload_content=False,
            )  # fmt: skip
            content = self._content(response)
        except urllib3.exceptions.HTTPError as error:
            raise logfan.SinkUnavailable(self._why(error)) from None
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, content, found)

    def _content(self, response: Any) -> bytes:
        """The beginning of the answer. An answer without an end ends the connection instead."""
        import urllib3

        content = bytearray()
        try:
            while len(content) < self._answer_bytes:
                piece = response.read1(self._answer_bytes - len(content), decode_content=True)
                if not piece:
                    response.release_conn()
                    return bytes(content)
                content += piece
        except urllib3.exceptions.ReadTimeoutError:
            if not content:
                raise
        response.close()
        return bytes(content)

    def _why(self, error: BaseException) -> str:
        """The cause, without the library's names and the addresses of its objects."""
        while isinstance(cause := getattr(error, "reason", None) or error.__cause__, BaseException):
            error = cause
        text = getattr(error, "strerror", None) or str(error).rpartition(">: ")[2]
        return f"{urlsplit(self._options.url).netloc}: {text or type(error).__name__}"

    def close(self) -> None:
        self._pool.clear()


class _Answer(http.client.HTTPResponse):
    """One whose status, headers and body come within the timeout of its connection."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Until(self.fp.detach(), sock))


class _Until(io.RawIOBase):
    """Reads until a deadline: a socket's own timeout begins anew with each byte that comes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._sock = raw, sock
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _bounded(pool: Any) -> Any:
    """This kind of pool, whose connections give an `_Answer`."""
    connection = type("Connection", (pool.ConnectionCls,), {"response_class": _Answer})
    return type("Pool", (pool,), {"ConnectionCls": connection})


def _pieces(body: bytes) -> Iterator[bytes]:
    """A send has one timeout for all that it sends: a slow link would never be done with a large
    request."""
    return (body[at : at + _PIECE_BYTES] for at in range(0, len(body), _PIECE_BYTES))


class HttpClientSink(logfan.Sink):
    """What the sinks over HTTP have in common: `open` makes `_client`, and `_send` sends one
    request by it."""

    _client: HttpClient

    def _send(self, lines: Sequence[bytes], records: Sequence[logfan.Record]) -> Answer:
        raise NotImplementedError

    def _deliver(
        self,
        records: Sequence[logfan.Record],
        lines: Sequence[bytes],
        table: Table,
        items: Items | None = None,
        most_records: int | None = None,
    ) -> Outcome:
        """Send the line of each record. `most_records` in one request are `max_records`, unless
        given."""
        return deliver(
            records, lines, self._send, table, items=items,
            most_records=most_records or self.config.max_records,
            most_bytes=self.config.max_request_bytes,
        )  # fmt: skip

    def close(self) -> None:
        if hasattr(self, "_client"):
            self._client.close()


def with_path(url: str, path: str) -> str:
    """The URL; with this path where it has none."""
    url = url.rstrip("/")
    parts = urlsplit(url)
    return url if parts.path else parts._replace(path=path).geturl()
