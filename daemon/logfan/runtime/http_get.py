"""One GET over HTTP or HTTPS: no proxy, no redirect, and a bound on the answer's size and time; and
whether a logfan answers it."""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_MOST_BYTES = 1 << 20


class Got(NamedTuple):
    """An answer, whatever its status."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage


def http_get(
    url: str,
    *,
    seconds: float,
    most_bytes: int,
    context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
) -> Got:
    """`seconds`: so long the server may take to let us in, and for all of its answer. Raises
    OSError (such as ssl.SSLError and TimeoutError), HTTPException, and ValueError for what is no
    URL."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=seconds, context=context
        )
    connection.response_class = partial(_Answer, seconds)  # type: ignore[assignment]
    try:
        connection.request("GET", parts.path or "/", headers=dict(headers or {}))
        answer = connection.getresponse()
        return Got(answer.status, answer.read(most_bytes), answer.headers)
    finally:
        connection.close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, seconds: float, sock: socket.socket, *others: Any, **more: Any) -> None:
        super().__init__(sock, *others, **more)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_Timely(raw, sock, time.monotonic() + seconds))


class _Timely(io.RawIOBase):
    """Of a socket what comes until then, however busily bytes trickle."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def is_logfan(url: str, seconds: float, context: ssl.SSLContext | None = None) -> bool:
    """Whether a logfan serves its metrics at this URL, without a path. Never raises."""
    try:
        found = http_get(f"{url}/metrics", seconds=seconds, most_bytes=_MOST_BYTES, context=context)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return b"logfan_build_info" in found.body
