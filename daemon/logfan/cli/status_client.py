"""Asks running daemons for `/status.json`, over HTTP or HTTPS."""

import http.client
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ValidationError

from logfan.config.settings import HttpSettings
from logfan.runtime.foreign_text import line_of
from logfan.runtime.http_get import http_get
from logfan.runtime.tls import client_context, pinned_context
from logfan.telemetry.log_output import one_line

_PATH = "/status.json"
_SECONDS = 5.0
_MOST_BYTES = 16 << 20
_WAY_OUT = {
    9: "are the clocks right, here and there?",
    10: "renew http.tls.cert_file there, and restart that daemon",
    **dict.fromkeys((62, 64), "write the host as the certificate has it"),
}
"""By OpenSSL's code."""
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a client finds it


class Unreachable(Exception):
    """No status is available; the text gives the reason."""


# The answer, as far as it is shown here.


class Rate(BaseModel):
    """Messages a second."""

    received: float
    acknowledged: float
    published: float | None


class Sink(BaseModel):
    """One sink."""

    name: str
    required: bool
    state: str
    since: float
    failure: str | None
    dropped: int
    dead_lettered: int
    retries: int
    held: int
    rate: float
    batch_seconds: float


class Chart(BaseModel):
    """The last 10 minutes."""

    received: list[float]
    acknowledged: list[float]
    queue_ready: list[int | None]


class Trouble(BaseModel):
    """A line of the daemon's log."""

    at: float
    text: str
    count: int = 1


class DeadLetters(BaseModel):
    """What one sink refused for one reason."""

    sink: str
    reason: str
    count: int


class Daemon(BaseModel):
    """What a daemon answers."""

    version: str
    instance: str
    pid: int
    started_at: float
    now: float
    state: str
    since: float
    detail: str
    ready: bool
    reasons: list[str]
    redelivered: int
    requeued: int
    in_flight: int
    in_flight_bytes: int
    prefetch: int
    oldest_unacknowledged_seconds: float
    queue_ready: int | None
    dead_letters_waiting: int | None
    rate: Rate
    time_to_drain_seconds: float | None
    sinks: list[Sink]
    history: Chart
    troubles: list[Trouble]
    dead_letters: list[DeadLetters]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: as it came, and as it is shown."""

    raw: dict[str, Any]
    view: Daemon


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one daemon answers."""

    url: str
    """Without a path of ours at its end."""
    context: ssl.SSLContext | None
    """None without TLS."""

    def fetch(self) -> Answer:
        """Ask it now. Raises Unreachable."""
        try:
            status, body, _ = http_get(
                f"{self.url}{_PATH}", seconds=_SECONDS, most_bytes=_MOST_BYTES,
                context=self.context,
            )  # fmt: skip
        except ssl.SSLError as error:
            raise Unreachable(_tls_problem(error)) from None
        except TimeoutError:
            secure = "; does that port speak HTTPS?" if self.context is not None else ""
            raise Unreachable(f"no answer within {_SECONDS:.0f} s{secure}") from None
        except http.client.RemoteDisconnected as error:
            secure = "; does that port speak HTTPS?" if self.context is None else ""
            raise Unreachable(f"{str(error).lower()}{secure}") from None
        except OSError as error:
            raise Unreachable((error.strerror or line_of(error)).lower()) from None
        except (http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"no HTTP answer ({line_of(error, 100)})") from None
        if status != http.HTTPStatus.OK:
            raise Unreachable(f"{_PATH} is answered with {status}; is that a logfan of this age?")
        return _parsed(body)


def endpoint_of(url: str, ca_file: Path | None) -> Endpoint:
    """`https://host:9464`, or `host:9464`. Raises ValueError, TlsFileError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    if not usable or "@" in parts.netloc:
        raise ValueError("write http://HOST:PORT or https://HOST:PORT")
    path = parts.path.rstrip("/").removesuffix(_PATH)
    secure = parts.scheme == "https"
    context = client_context(ca_file, None, None, verify=True) if secure else None
    return Endpoint(f"{parts.scheme}://{parts.netloc}{path}", context)


def endpoint_of_config(http: HttpSettings) -> Endpoint:
    """Where the daemon of this config answers. Raises ValueError, TlsFileError."""
    listen = http.listen
    if listen.port == 0:
        raise ValueError("http.listen takes any free port; name the URL that the log of run has")
    context = None if http.tls.cert_file is None else pinned_context(http.tls.cert_file)
    at = replace(listen, host=_ANYWHERE.get(listen.host, listen.host))
    return Endpoint(f"{'https' if context else 'http'}://{at}", context)


def _tls_problem(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        do = _WAY_OUT.get(error.verify_code, "--ca-file names the CA to trust")
        return f"its certificate does not hold: {why}; {do}"
    return f"no TLS ({line_of(error.reason or error, 100)}); does that port speak HTTPS?"


def _parsed(body: bytes) -> Answer:
    try:
        raw = orjson.loads(body)
        return Answer(raw, Daemon.model_validate(raw))
    except (orjson.JSONDecodeError, ValidationError):
        raise Unreachable("what answers there is no logfan, or one of another version") from None


def safe(text: str) -> str:
    """Text of a daemon, for a terminal: whoever listens there may have written it."""
    return one_line(line_of(text))
