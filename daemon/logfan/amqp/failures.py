"""Why a connection could not be opened, or was lost: errors into messages for the operator."""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from logfan.amqp.broker_features import (
    ACCESS_REFUSED,
    CONNECTION_FORCED,
    NOT_ALLOWED,
    is_channel_limit,
    is_limit,
)
from logfan.runtime.foreign_text import describe, line_of, text_of
from logfan.runtime.tls import TlsFileError, handshake_problem, refusal

_REPLY = re.compile(r"\((\d{3})\) \W*(NOT_ALLOWED .{1,500})\W")
"""As pika quotes it in its own errors."""


HANDSHAKE_SECONDS = 15.0
"""For TLS and AMQP together."""


class Cause(Enum):
    """What a failure means for the next attempt, and for a start with `startup = "fail"`."""

    UNREACHABLE = "nothing answered at the address"
    REFUSED = "the broker refuses: credentials, permission or a declaration"
    BUSY = "the broker refuses for now: that passes by itself"
    LOST = "it worked and then stopped"


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """Why there is no connection or subscription (any more)."""

    cause: Cause
    why: str
    at_declaration: bool = False
    """True where trying again cannot help until an operator changes something: exit 77 at start."""
    is_final: bool = False
    """True where no attempt can have worked before: exit 77 at any time."""
    code: int = 0
    """AMQP's, where the broker ended it."""
    channels: bool = False
    """There was a channel too many."""
    timeout: float | None = None
    """The broker's `consumer_timeout` in seconds, where that ended it and its value is known."""
    cancelled: bool = False
    """The broker cancelled the consumer. Where a queue of that name is there, it is the same, or
    another one that was declared anew."""
    may_be_timeout: bool = False
    """It may have done so because of its `consumer_timeout`."""

    @property
    def may_be_restart(self) -> bool:
        """Whether the broker may have stopped: it said so, or nothing."""
        return self.cause is Cause.LOST and self.code in (0, CONNECTION_FORCED)


class BrokerError(Exception):
    """The broker refused or went away; `failure` holds why."""

    def __init__(self, failure: ConnectionFailure) -> None:
        super().__init__(failure.why)
        self.failure = failure


def failure_of(error: BaseException | None, address: str, *, was_open: bool) -> ConnectionFailure:
    """Why a connection could not be opened, or was lost. `address` as `address_of` gives it."""
    errors = list(_chain(error))
    damaged = [one for one in errors if isinstance(one, exceptions.InvalidFrameError)]
    if was_open and damaged:
        why = f"connection to {address} lost: {line_of(damaged[0])}"
        return ConnectionFailure(Cause.LOST, why)
    for rules in (_BY_AMQP, _BY_SYSTEM):
        for one in errors:
            failure = _refused_certificate(one, address) or _limit(one, address)
            failure = failure or _by_rules(rules, one, address)
            if failure is not None:
                ended = was_open and failure.cause is Cause.UNREACHABLE
                return replace(failure, cause=Cause.LOST) if ended else failure
    why = describe(errors[-1]) if errors else "closed without a reason"
    if not was_open:
        why = f"{address} did not finish the handshake ({why})"
        return ConnectionFailure(Cause.UNREACHABLE, why)
    inner = re.search(r"'([^']+)'\)", why)
    why = f"connection to {address} lost: {inner[1] if inner else why}"
    return ConnectionFailure(Cause.LOST, why)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an error of these types means, where its text has this mark, and its code is this."""

    errors: type[BaseException] | tuple[type[BaseException], ...]
    cause: Cause
    why: str
    """`{text}` is the error's text, `{code}` AMQP's."""
    mark: str = ""
    code: int = 0


_CLOSED = exceptions.ConnectionClosedByBroker
_SILENT = AMQPConnectorStackTimeout, exceptions.ConnectionOpenAborted
_NO_AMQP = exceptions.IncompatibleProtocolError, exceptions.ProtocolSyntaxError
_WITHIN = f"within {HANDSHAKE_SECONDS:.0f} s"
_PORT = "is the port right? A port with TLS needs amqps://"
_REFUSED, _UNREACHABLE = Cause.REFUSED, Cause.UNREACHABLE
_BY_AMQP = (
    _Rule(_SILENT, _UNREACHABLE, mark="Timeout while setting up transport", why=
        f"{{address}} took the connection and did not finish the TLS handshake {_WITHIN}; does "
        "that port speak TLS (mostly 5671)? Without TLS it is amqp://; a proxy or firewall on "
        "the way may take connections, too"),
    _Rule(_SILENT, _UNREACHABLE, mark="Timeout while setting up AMQP", why=
        f"{{address}} took the connection and did not finish the AMQP handshake {_WITHIN}; is it "
        "a broker's port? One with TLS needs amqps://; a broker that starts or is overloaded "
        "may be silent, too, and so may a proxy without a broker behind it"),
    _Rule(_CLOSED, _REFUSED, code=ACCESS_REFUSED, why=
        "{address} refused the credentials ({text}); check user and password in rabbitmq.urls or "
        "rabbitmq.url_file"),
    _Rule(_CLOSED, _REFUSED, code=NOT_ALLOWED, why=
        "{address} refused the virtual host ({text}); it must exist and the user needs "
        "permissions on it"),
    _Rule(_CLOSED, _UNREACHABLE, "{address} closed the connection: {text} ({code})"),
    _Rule(exceptions.ProbableAuthenticationError, _REFUSED, mark="mechanism EXTERNAL", why=
        "{address} refused to log in by certificate (EXTERNAL); it needs a user named as "
        "rabbitmq.tls.cert_file is (ssl_cert_login_from), and must ask for client "
        "certificates (ssl_options.verify = verify_peer)"),
    _Rule(exceptions.ProbableAuthenticationError, _REFUSED,
        "{address} refused the credentials; check user and password in rabbitmq.urls or "
        "rabbitmq.url_file"),
    _Rule(exceptions.ProbableAccessDeniedError, _REFUSED,
        "{address} refused the virtual host; does it exist, and may the user use it?"),
    _Rule(exceptions.AuthenticationError, _REFUSED,
        "{address} offers none of our ways to log in ({text}); a client certificate "
        "without a user in the URL needs EXTERNAL (the broker's plugin "
        "rabbitmq_auth_mechanism_ssl and its auth_mechanisms)"),
    _Rule(_NO_AMQP, _UNREACHABLE, mark="StreamLostError", why=
        f"{{address}} closed the connection without a word of AMQP; {_PORT}, and may want a client "
        "certificate"),
    _Rule(_NO_AMQP, _UNREACHABLE, f"{{address}} does not speak AMQP 0-9-1; {_PORT}"),
)  # fmt: skip
"""What the broker or pika reports. The first rule that fits decides."""
_BY_SYSTEM = (
    _Rule(TlsFileError, _UNREACHABLE, "rabbitmq.tls.{text}"),
    _Rule(exceptions.AMQPHeartbeatTimeout, Cause.LOST,
        "{address} sent no heartbeat in time; the connection was half-open"),
    _Rule(ConnectionRefusedError, _UNREACHABLE,
        "{address}: connection refused; is the broker running there?"),
    _Rule(socket.gaierror, _UNREACHABLE, "{address}: the host's name was not found ({text})"),
    _Rule(ssl.SSLError, _UNREACHABLE, "{address}: {text}"),
    _Rule(TimeoutError, _UNREACHABLE, "{address}: no answer in time"),
    _Rule(OSError, _UNREACHABLE, "{address}: {text}"),
)  # fmt: skip
"""What the system reports, where neither of the two does."""


def _by_rules(
    rules: tuple[_Rule, ...], error: BaseException, address: str
) -> ConnectionFailure | None:
    whole, code = text_of(error), getattr(error, "reply_code", 0)
    for rule in rules:
        fits = rule.mark in whole and rule.code in (0, code)
        if fits and isinstance(error, rule.errors):
            why = rule.why.format(address=address, text=_text_of(error), code=code)
            return ConnectionFailure(rule.cause, why, code=code)
    return None


def _text_of(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return handshake_problem(error)
    text = getattr(error, "reply_text", None) or getattr(error, "strerror", None) or error
    return line_of(text) or type(error).__name__


def _refused_certificate(error: BaseException, address: str) -> ConnectionFailure | None:
    if isinstance(error, ssl.SSLError | exceptions.AMQPConnectionError):
        alert = refusal(text_of(error.args))
        if alert is not None:
            return ConnectionFailure(Cause.REFUSED, f"{address}: {alert}")
    return None


def _limit(error: BaseException, address: str) -> ConnectionFailure | None:
    """A limit of connections or channels is reached."""
    code, text = 0, ""
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        code, text = error.reply_code, line_of(error.reply_text)
    elif isinstance(error, exceptions.ProbableAccessDeniedError):
        reply = _REPLY.search(line_of(error))
        code, text = (int(reply[1]), reply[2]) if reply is not None else (0, "")
    if not is_limit(code, text):
        return None
    return ConnectionFailure(
        Cause.BUSY,
        f"{address} allows no more: {text} ({code}); end what is not needed, or raise the limit "
        "(of the user, the virtual host or the node)",
        code=code, channels=is_channel_limit(code, text),
    )  # fmt: skip


def _chain(error: BaseException | None) -> Iterator[BaseException]:
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
