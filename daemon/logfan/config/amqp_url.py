"""AMQP URLs taken apart, without a library. Sans-I/O.

A library's error text may quote a piece of the password in a URL. What is raised here names the
rule and never the text.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from logfan.config.amqp_limits import SHORT_BYTES

_HELP = "write amqp://, then USER:PASSWORD@HOST:PORT/VHOST"
_ENCODE = (
    "; percent-encode what is special in user or password (/ as %2F, @ as %40, : as %3A, "
    "# as %23, ? as %3F, [ as %5B, ] as %5D)"
)
_PORTS = {"amqp": 5672, "amqps": 5671}
_PORT = re.compile(r"[0-9]{1,5}")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,32})?\]")
_HOST = re.compile(r"[\w.-]{1,253}")
_LONGEST = 8192


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is, and who logs in there. `str` is for people: no user, no password."""

    tls: bool
    host: str
    port: int
    vhost: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """None where there is no user, as with a client certificate."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else f"/{quote(self.vhost, safe='')}"
        return f"{host}:{self.port}{vhost}"


def parse(url: str) -> Address:
    """The parts of an AMQP URL. Raises ValueError with what would be right, without its text."""
    scheme, rest = _scheme(url)
    authority, _, path = rest.partition("/")
    login, at, place = authority.rpartition("@")
    if "@" in login or "@" in path:
        raise ValueError(f"names no usable host and port{_ENCODE}; {_HELP}")
    if any(char in login for char in "[]") or _is_special_once_normalised(authority):
        raise ValueError(f"has a user or password that is not percent-encoded{_ENCODE}")
    host, port = _host_and_port(place, _PORTS[scheme])
    user, colon, password = login.partition(":")
    if at and not colon:
        raise ValueError(
            "names a user and no password; write USER:PASSWORD@, or leave the user out to log in "
            "by a client certificate"
        )
    if "/" in path:
        raise ValueError("has more than one / after the host; write a / in the vhost as %2F")
    vhost = unquote(path) or "/"
    if max(len(vhost.encode()), len(unquote(user).encode())) > SHORT_BYTES:
        raise ValueError(f"has a user or vhost of more than {SHORT_BYTES} bytes, AMQP's limit")
    return Address(
        tls=scheme == "amqps", host=host, port=port, vhost=vhost,
        user=unquote(user) if at else None, password=unquote(password) if at else None,
    )  # fmt: skip


def _scheme(url: str) -> tuple[str, str]:
    """The scheme, and what stands behind `://`; the whole text is looked at on the way."""
    if len(url) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters; {_HELP}")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _PORTS:
        raise ValueError(f"must begin with amqp:// or amqps://; {_HELP}")
    if any(char.isspace() or unicodedata.category(char) == "Cc" for char in url):
        raise ValueError(
            "must not hold spaces or control characters; percent-encode them (a space as %20)"
        )
    if "?" in url:
        raise ValueError(
            f"must not hold ?; what stands behind it has keys here, as heartbeat and tls{_ENCODE}"
        )
    if "#" in url:
        raise ValueError(f"must not hold #{_ENCODE}")
    try:
        url.encode()
        unquote(url, errors="strict")
    except UnicodeError:
        raise ValueError("holds bytes or a percent sequence that is not UTF-8") from None
    return scheme.lower(), rest


def _host_and_port(place: str, default: int) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, ""
    if port and not (_PORT.fullmatch(port) and 0 < int(port) <= 65535):
        raise ValueError(f"has a port that is no number from 1 to 65535{_ENCODE}")
    if _IPV6.fullmatch(host):
        host = host[1:-1]
    elif not (_HOST.fullmatch(host) and _is_host(host)):
        raise ValueError(f"names no usable host and port{_ENCODE}; {_HELP}")
    return host.lower(), int(port) if port else default


def _is_host(name: str) -> bool:
    """Whether the resolver can be asked for it."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_special_once_normalised(text: str) -> bool:
    """Whether a character such as the full-width # becomes a special one for other programs."""
    if text.isascii():
        return False
    return any(
        not char.isascii() and any(c in "/?#@:[]%" for c in unicodedata.normalize("NFKC", char))
        for char in text
    )


def address_of(url: str) -> str:
    """`host:port/vhost` of an AMQP URL, without user and password, for people to read."""
    try:
        return str(parse(url))
    except ValueError:
        return "the broker"
