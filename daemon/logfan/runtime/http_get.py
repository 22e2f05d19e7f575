"""One GET over HTTP or HTTPS: no proxy, no redirect, and a bound on the answer; and whether a
logfan answers it."""

import http.client
import ssl
from collections.abc import Mapping
from typing import NamedTuple
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


def is_logfan(url: str, seconds: float) -> bool:
    """Whether a logfan serves its metrics at this URL, without a path. Never raises."""
    try:
        found = http_get(f"{url}/metrics", seconds=seconds, most_bytes=_MOST_BYTES)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return b"logfan_build_info" in found.body
