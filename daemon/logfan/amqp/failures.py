"""The broker's address into pika's parameters, and pika's troubles into words."""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from logfan.amqp import replies
from logfan.amqp.parameters import HANDSHAKE_SECONDS
from logfan.runtime.foreign_text import describe, line_of, text_of
from logfan.runtime.tls import TlsFileError, handshake_words, refusal

_REPLY = re.compile(r"\((\d{3})\) \W*(NOT_ALLOWED .{1,500})\W")
"""As pika quotes it in its own errors."""


class Cause(Enum):
    """What a trouble means for the next attempt, and for a start with `startup = "fail"`."""

    UNREACHABLE = "nothing answered at the address"
    REFUSED = "the broker said no: credentials, permission or a declaration"
    BUSY = "the broker said no for now: that passes by itself"
    LOST = "it worked and then stopped"


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """Why there is no subscription (any more), in words for the operator."""

    kind: Cause
    why: str
    at_declaration: bool = False
    """True where trying again cannot help until somebody changes something: exit 77 at start."""
    is_final: bool = False
    """True where no attempt can have worked before: exit 77 at any time."""
    code: int = 0
    """AMQP's, where the broker ended it."""
    channels: bool = False
    """There was a channel too many."""
    timeout: float | None = None
    """The broker's `consumer_timeout` in seconds, where that ended it and its value is known."""
    cancelled: bool = False
    """The broker cancelled the consumer of a queue that is still there."""


def failure_of(error: BaseException | None, address: str, *, was_open: bool) -> ConnectionFailure:
    """Why a connection could not be opened, or was lost. `address` as `address_of` gives it."""
    causes = list(_causes(error))
    for cause in causes:
        said = (
            _refused_certificate(cause, address) or _silent(cause, address)
            or _said_no(cause, address)
        )  # fmt: skip
        if said is not None:
            ended = was_open and said.kind is Cause.UNREACHABLE
            return replace(said, kind=Cause.LOST) if ended else said
    for cause in causes:
        if isinstance(cause, TlsFileError):
            return ConnectionFailure(Cause.UNREACHABLE, f"rabbitmq.tls.{cause}")
        if isinstance(cause, exceptions.AMQPHeartbeatTimeout):
            return ConnectionFailure(
                Cause.LOST, f"{address} sent no heartbeat in time; the connection was half-open"
            )
        if isinstance(cause, OSError | TimeoutError):
            kind = Cause.LOST if was_open else Cause.UNREACHABLE
            return ConnectionFailure(kind, f"{address}: {_os_words(cause)}")
    last = causes[-1] if causes else None
    words = describe(last) if last is not None else "closed without a reason"
    if was_open:
        inner = re.search(r"'([^']+)'\)", words)
        return ConnectionFailure(
            Cause.LOST, f"connection to {address} lost: {inner[1] if inner else words}"
        )
    return ConnectionFailure(Cause.UNREACHABLE, f"{address} did not finish the handshake ({words})")


def _refused_certificate(cause: BaseException, address: str) -> ConnectionFailure | None:
    if isinstance(cause, ssl.SSLError | exceptions.AMQPConnectionError):
        words = refusal(text_of(cause.args))
        if words is not None:
            return ConnectionFailure(Cause.REFUSED, f"{address}: {words}")
    return None


def _silent(cause: BaseException, address: str) -> ConnectionFailure | None:
    """Something took the connection and then did not go on with the handshake."""
    if not isinstance(cause, AMQPConnectorStackTimeout | exceptions.ConnectionOpenAborted):
        return None
    said, seconds = text_of(cause), f"within {HANDSHAKE_SECONDS:.0f} s"
    if "Timeout while setting up transport" in said:
        return ConnectionFailure(
            Cause.UNREACHABLE,
            f"{address} took the connection and did not finish the TLS handshake {seconds}; does "
            "that port speak TLS (mostly 5671)? Without TLS it is amqp://; a proxy or firewall on "
            "the way may take connections, too",
        )
    if "Timeout while setting up AMQP" in said:
        return ConnectionFailure(
            Cause.UNREACHABLE,
            f"{address} took the connection and did not finish the AMQP handshake {seconds}; is it "
            "a broker's port? One with TLS needs amqps://; a broker that starts or is overloaded "
            "may be silent, too, and so may a proxy without a broker behind it",
        )
    return None


def _said_no(cause: BaseException, address: str) -> ConnectionFailure | None:
    if isinstance(cause, exceptions.ConnectionClosedByBroker):
        code, text = cause.reply_code, line_of(cause.reply_text)
        if replies.is_limit(code, text):
            return _limit(code, text, address)
        if code == 403:
            return ConnectionFailure(
                Cause.REFUSED,
                f"{address} refused the credentials ({text}); check user and password in "
                "rabbitmq.urls or rabbitmq.url_file",
            )
        if code == 530:
            return ConnectionFailure(
                Cause.REFUSED,
                f"{address} refused the virtual host ({text}); it must exist and the user needs "
                "permissions on it",
            )
        why = f"{address} closed the connection: {text} ({code})"
        return ConnectionFailure(Cause.UNREACHABLE, why, code=code)
    if isinstance(cause, exceptions.ProbableAuthenticationError):
        if "mechanism EXTERNAL" in text_of(cause):
            return ConnectionFailure(
                Cause.REFUSED,
                f"{address} refused to log in by certificate (EXTERNAL); it needs a user named as "
                "rabbitmq.tls.cert_file is (ssl_cert_login_from), and must ask for client "
                "certificates (ssl_options.verify = verify_peer)",
            )
        return ConnectionFailure(
            Cause.REFUSED,
            f"{address} refused the credentials; check user and password in rabbitmq.urls or "
            "rabbitmq.url_file",
        )
    if isinstance(cause, exceptions.ProbableAccessDeniedError):
        reply = _REPLY.search(line_of(cause))
        if reply is not None and replies.is_limit(int(reply[1]), reply[2]):
            return _limit(int(reply[1]), reply[2], address)
        return ConnectionFailure(
            Cause.REFUSED,
            f"{address} refused the virtual host; does it exist, and may the user use it?",
        )
    if isinstance(cause, exceptions.AuthenticationError):
        return ConnectionFailure(
            Cause.REFUSED,
            f"{address} offers none of our ways to log in ({line_of(cause)}); a client certificate "
            "without a user in the URL needs EXTERNAL (the broker's plugin "
            "rabbitmq_auth_mechanism_ssl and its auth_mechanisms)",
        )
    if isinstance(cause, exceptions.IncompatibleProtocolError | exceptions.ProtocolSyntaxError):
        hint = "is the port right? A port with TLS needs amqps://"
        if "StreamLostError" in text_of(cause):
            why = f"{address} closed the connection without a word of AMQP; {hint}"
            return ConnectionFailure(Cause.UNREACHABLE, f"{why}, and may want a client certificate")
        return ConnectionFailure(Cause.UNREACHABLE, f"{address} does not speak AMQP 0-9-1; {hint}")
    return None


def _limit(code: int, text: str, address: str) -> ConnectionFailure:
    return ConnectionFailure(
        Cause.BUSY,
        f"{address} allows no more: {text} ({code}); end what is not needed, or raise the limit "
        "(of the user, the virtual host or the node)",
        code=code, channels=replies.is_channel_limit(code, text),
    )  # fmt: skip


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what pika wrapped into it, outermost first."""
    waiting = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [*current.args, getattr(current, "exception", None), current.__cause__]
        waiting += getattr(current, "exceptions", ())


def _os_words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the broker running there?"
    if isinstance(error, socket.gaierror):
        return f"the host's name was not found ({error.strerror})"
    if isinstance(error, ssl.SSLError):
        return handshake_words(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return line_of(error.strerror or error) or type(error).__name__
