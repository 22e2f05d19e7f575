"""One GET over HTTP or HTTPS: no proxy, no redirect, and a bound on the answer."""

import http.client
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit


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
    """`seconds`: so long the server may be silent. Raises OSError (such as ssl.SSLError and
    TimeoutError), HTTPException, and ValueError for what is no URL."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=seconds, context=context
        )
    try:
        connection.request("GET", parts.path or "/", headers=dict(headers or {}))
        answer = connection.getresponse()
        return Got(answer.status, answer.read(most_bytes), answer.headers)
    finally:
        connection.close()
