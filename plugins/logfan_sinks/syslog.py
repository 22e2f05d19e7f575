"""The sink `syslog`: RFC 5424 to a server, by TCP, TLS or UDP.

Syslog has no acknowledgements: what the system took is lost where the server ends before it reads.
So this sink promises at most once, and warns of it.
"""

import re
import select
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, model_validator

import logfan
from logfan_sinks.address import Timeout, is_address
from logfan_sinks.formats import Format, encoder
from logfan_sinks.row import FieldName
from logfan_sinks.tls_options import TlsOptions

_Facility = Literal[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
]  # fmt: skip
_SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_INFO = 6
_PORTS = {"tcp": 514, "tls": 6514, "udp": 514}
_DATAGRAM_BYTES = 65_000
_SEND_BYTES = 1 << 20
_BACKLOG_BYTES = 64 << 10
"""So much waits in the kernel: with megabytes of it, a slow server seems to take nothing."""
_CLOSE_SECONDS = 3.0
_DRAIN_BYTES = 64 << 10
_NOT_IN_NAMES = re.compile(r"[^!-~]+")
_NIL = "-"


def _split(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"tcp://{address}")


def _checked(address: str) -> str:
    try:
        parts = _split(address)
        known = parts.scheme in _PORTS and is_address(parts)
    except ValueError:
        known = False
    if not known:
        raise ValueError("it is tcp://HOST:PORT, tls://HOST:PORT or udp://HOST:PORT")
    return address


class SyslogSink(logfan.Sink):
    """Send records to a syslog server (RFC 5424); at most once, as it acknowledges nothing.

    Done: the system took it. What the server had not read is lost when it ends: syslog has no
    acknowledgements.
    Not now: lost connections, and a server that has ended the connection.
    Refused: by UDP, what does not fit a datagram.
    Repeats: after a lost connection some messages may come twice.
    """

    class Config(logfan.SinkConfig):
        address: Annotated[str, AfterValidator(_checked)]
        """tcp://HOST:PORT, tls://HOST:PORT or udp://HOST:PORT; the port is 514, or 6514 by TLS,
        unless given."""
        framing: Literal["octet-counting", "newline"] = "octet-counting"
        """How TCP and TLS part messages: by their length (RFC 6587, RFC 5425), which carries any
        body, or by a newline, for servers that know no other."""
        format: Format = "text"
        """text: the body with control characters escaped; json: the record with its origin and
        headers; raw: the body's bytes."""
        facility: _Facility = "user"
        """The facility of each message; the severity follows from the record's level."""
        app_name: FieldName = "properties.app_id"
        """The field that names the application."""
        hostname: FieldName = "headers.host"
        """The field that names the host; this machine's name where a record has none."""
        tls: TlsOptions = TlsOptions()
        """{ ca_file = "…", cert_file = "…", key_file = "…", verify = true }"""
        timeout: Timeout = 30.0
        """How long the server may take nothing."""

        @model_validator(mode="after")
        def _fits(self) -> "SyslogSink.Config":
            if self.framing == "newline" and self.format == "raw":
                raise ValueError(
                    'a raw body may hold newlines, which would part it; use format "text", or '
                    'framing "octet-counting"'
                )
            return self

    _socket: socket.socket | None = None

    @classmethod
    def advice(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """What an operator should know."""
        why = (
            "syslog acknowledges nothing: what the server had not read is lost when it ends; keep "
            "another sink for what must not be lost"
        )
        return dict.fromkeys(configs, why)

    def open(self) -> None:
        self.close()
        config = self.config
        try:
            self._socket = self._connected()
        except OSError as error:
            raise self._unavailable(error) from None
        self._encode = encoder(config.format)
        self._by_datagram = self._socket.type == socket.SOCK_DGRAM
        self._app_name = logfan.field(config.app_name)
        self._hostname = logfan.field(config.hostname)
        self._our_name = _name(socket.gethostname(), 255)
        self._facility = get_args(_Facility).index(config.facility)

    def _connected(self) -> socket.socket:
        parts, timeout = _split(self.config.address), self.config.timeout
        address = (parts.hostname, parts.port or _PORTS[parts.scheme])
        if parts.scheme == "udp":
            family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            datagrams.connect(found)
            return datagrams
        context = self.config.tls.context() if parts.scheme == "tls" else None
        stream = socket.create_connection(address, timeout)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _BACKLOG_BYTES)
            if context is not None:
                stream = context.wrap_socket(stream, server_hostname=parts.hostname)
        except BaseException:
            stream.close()
            raise
        return stream

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Hand all of it to the system."""
        if self._socket is None:
            raise logfan.SinkUnavailable("not connected")
        texts = self._encode(records)
        messages = [self._head(record) + text for record, text in zip(records, texts, strict=True)]
        try:
            if self._by_datagram:
                self._send_datagrams(self._socket, messages)
            else:
                _look_for_its_end(self._socket)
                self._send_stream(self._socket, messages)
        except OSError as error:
            raise self._unavailable(error) from None

    def _send_stream(self, stream: socket.socket, messages: Sequence[bytes]) -> None:
        counted = self.config.framing == "octet-counting"
        pending: list[bytes] = []
        size = 0
        for message in messages:
            pending.append(b"%d %b" % (len(message), message) if counted else message + b"\n")
            size += len(message)
            if size >= _SEND_BYTES:
                _send_all(stream, b"".join(pending))
                pending, size = [], 0
        _send_all(stream, b"".join(pending))

    def _send_datagrams(self, datagrams: socket.socket, messages: Sequence[bytes]) -> None:
        refused = {}
        for place, message in enumerate(messages):
            if len(message) > _DATAGRAM_BYTES:
                refused[place] = (
                    f"{len(message):,} bytes are more than a datagram holds; use tcp:// or tls://"
                )
            else:
                datagrams.send(message)
        if refused:
            raise logfan.RecordsRejected(refused)

    def _head(self, record: logfan.Record) -> bytes:
        """`<11>1 2026-11-26T00:13:53.181000Z web-1 shop - - - `"""
        severity = _SEVERITIES.get(logfan.field("level")(record), _INFO)
        when = logfan.field("time")(record) or datetime.fromtimestamp(
            record.received_at, UTC
        ).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        host = _name(self._hostname(record), 255)
        return (
            f"<{self._facility * 8 + severity}>1 {when} {self._our_name if host == _NIL else host} "
            f"{_name(self._app_name(record), 48)} - {_name(record.message_id, 32)} - "
        ).encode()

    def _unavailable(self, error: OSError) -> logfan.SinkUnavailable:
        return logfan.SinkUnavailable(f"{self.config.address}: {error.strerror or error}")

    def close(self) -> None:
        """Disconnect; a server by TCP or TLS has some seconds to read what is under way."""
        stream, self._socket = self._socket, None
        if stream is not None:
            with stream:
                if stream.type == socket.SOCK_STREAM:
                    _end(stream, time.monotonic() + _CLOSE_SECONDS)


def _end(stream: socket.socket, deadline: float) -> None:
    """Say that nothing more comes, and read until the server has ended too, or until the deadline.

    A socket that is closed with unread input, be it TLS 1.3's session tickets, resets
    the connection, and drops what the server has not read.
    """
    with suppress(OSError):
        if isinstance(stream, ssl.SSLSocket):
            stream.settimeout(_left(deadline))
            with suppress(OSError, ValueError):  # the server says something else, or nothing
                stream.unwrap()
        with socket.socket(fileno=stream.detach()) as plain:
            plain.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline:
                plain.settimeout(_left(deadline))
                if not plain.recv(_DRAIN_BYTES):
                    break


def _left(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())


def _look_for_its_end(stream: socket.socket) -> None:
    """Raises ConnectionResetError where the server went away: the system takes one more message
    although no program will read it."""
    poller = select.poll()
    poller.register(stream, select.POLLRDHUP)
    if poller.poll(0):
        raise ConnectionResetError("the server ended the connection")


def _send_all(stream: socket.socket, data: bytes) -> None:
    """Where `sendall` has one timeout for all of it, here it runs anew whenever some is taken."""
    left = memoryview(data)
    while left:
        left = left[stream.send(left) :]


def _name(value: Any, most: int) -> str:
    """As RFC 5424 wants names: printable ASCII without blanks, within a length."""
    return _NOT_IN_NAMES.sub("_", str(value))[:most] if value not in (None, "") else _NIL


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("syslog", SyslogSink)
