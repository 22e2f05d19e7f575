"""TLS files into contexts, and TLS's errors into messages. Never asks for a pass-phrase."""

import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from logfan.runtime.foreign_text import line_of
from logfan.runtime.small_file import must_be_regular

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Peer(NamedTuple):
    """Whom we speak TLS with, in the words of the config and of that side's own."""

    url: str
    """The key that names it."""
    secure: str
    plain: str
    options: str
    """Where RabbitMQ names its own files for it."""


BROKER = Peer("rabbitmq.urls", "amqps:// (mostly 5671)", "amqp://", "ssl_options")
MANAGEMENT = Peer("rabbitmq.management_url", "https:// (mostly 15671)", "http://", "management.ssl")

_REASON_LENGTH = 200
_TOO_WEAK = {
    "EE_KEY_TOO_SMALL": "its key is too short for this system's OpenSSL",
    "CA_KEY_TOO_SMALL": "its CA's key is too short for this system's OpenSSL",
    "CA_MD_TOO_WEAK": "its signature is too weak for this system's OpenSSL",
}
_NO_PAIR = {
    **{reason: f"cannot be used: {why}" for reason, why in _TOO_WEAK.items()},
    **dict.fromkeys(
        ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"),
        "is not the key of the certificate in cert_file",
    ),
}
_NOT_ACCEPTED = "its certificate was not accepted: {message}; see rabbitmq.tls.ca_file"
_CERTIFICATE = {
    9: "its certificate is not yet valid; are the clocks right, here and there?",
    10: "its certificate (or its CA's) has expired; renew it on the broker",
    **dict.fromkeys(
        (62, 64),
        "its certificate is for another host ({message}); write the host in {peer.url} as the "
        "certificate has it, or give the broker a certificate for this one",
    ),
    **dict.fromkeys(
        (18, 19),
        "its certificate is from a CA that is not trusted here ({message}); name the file of that "
        "CA in rabbitmq.tls.ca_file",
    ),
    **dict.fromkeys(
        (2, 20, 21),
        "its certificate leads to no CA that is trusted here ({message}): either name the file of "
        "that CA in rabbitmq.tls.ca_file; or the broker does not send the intermediate certificate "
        "that leads there: add it to its {peer.options}.certfile, below its own",
    ),
}
"""By OpenSSL's code: why a server's certificate does not hold."""
_NO_TLS = (
    "that port does not speak TLS; is it the one for {peer.secure}? Without TLS it is {peer.plain}"
)
_NO_VERSION = "no version of TLS in common; TLS 1.2 or 1.3 is needed on the broker"
_HANDSHAKE = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PROTOCOL_VERSION": _NO_VERSION,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "EOF": "it closed the connection in the TLS handshake; does that port speak TLS?",
}
"""By what OpenSSL's reason has: why there is no TLS."""
_OUR_CERTIFICATE = {
    "CERTIFICATE_REQUIRED": "it wants a client certificate; name one in rabbitmq.tls.cert_file and "
    "rabbitmq.tls.key_file",
    "HANDSHAKE_FAILURE": "it refused the TLS handshake; it may want a client certificate "
    "(rabbitmq.tls.cert_file), or share no cipher with us",
    "UNKNOWN_CA": "it does not know the CA of rabbitmq.tls.cert_file; that CA belongs into the "
    "broker's {peer.options}.cacertfile",
    "CERTIFICATE_EXPIRED": "it reports that rabbitmq.tls.cert_file has expired; renew it",
    "CERTIFICATE_REVOKED": "it reports that rabbitmq.tls.cert_file is revoked; renew it",
    "BAD_CERTIFICATE": "it refused rabbitmq.tls.cert_file; is its CA in the broker's "
    "{peer.options}.cacertfile, and is the chain complete?",
    "CERTIFICATE_UNKNOWN": "it refused rabbitmq.tls.cert_file; is it one for clients, and is its "
    "chain complete?",
    "UNSUPPORTED_CERTIFICATE": "it refused rabbitmq.tls.cert_file; is it one for clients?",
    "ACCESS_DENIED": "it refused rabbitmq.tls.cert_file: access denied",
}


class TlsFileError(OSError):
    """A file that cannot be used: which key of the table names it, and why."""

    def __init__(self, key: str, file: Path, problem: str, *, is_denied: bool = False) -> None:
        """`is_denied`: whether we may not read it."""
        super().__init__(f"{key}: {file} {problem}")
        self.key, self.file, self.problem, self.is_denied = key, file, problem, is_denied


class _AlertSocket(ssl.SSLSocket):
    """Where sending fails, raises the alert that the server sent before it hung up, if any.

    With TLS 1.3 a server refuses our certificate when we believe the handshake done and send.
    """

    def send(self, data: "Buffer", flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLSyscallError):
            with suppress(ssl.SSLWantReadError):
                self.recv(1)  # raises the alert
            raise


def client_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None, *, verify: bool
) -> ssl.SSLContext:
    """To speak to a server. Raises TlsFileError."""
    if ca_file is not None:
        _check_certificates("ca_file", ca_file)
    # A private CA is trusted alone: who names one does not want the system's beside it.
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = _AlertSocket
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        _load_pair(context, cert_file, key_file)
    return context


def pinned_context(cert_file: Path) -> ssl.SSLContext:
    """Trusts this one certificate, whatever its names and whoever signed it: it is the daemon's.
    Raises TlsFileError."""
    try:
        text = cert_file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise TlsFileError(
            "cert_file", cert_file, (error.strerror or "unreadable").lower()
        ) from None
    first = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=first[0] if first else "")
    except (ssl.SSLError, ValueError):
        raise TlsFileError("cert_file", cert_file, "holds no certificate") from None
    return context


def server_context(cert_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """To serve with. Raises TlsFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_pair(context, cert_file, key_file)
    return context


def faults_of_files(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> Iterator[TlsFileError]:
    """What is wrong with the files, the CA's and the pair's apart, so that both are reported."""
    if ca_file is not None:
        try:
            _check_certificates("ca_file", ca_file)
        except TlsFileError as error:
            yield error
    if cert_file is not None:
        try:
            server_context(cert_file, key_file)
        except TlsFileError as error:
            yield error


def refusal(text: str, peer: Peer = BROKER) -> str | None:
    """What a server's TLS alert in an error's text holds against our certificate; None if nothing.

    With TLS 1.3 the alert comes when the handshake is over for us: on the first read.
    """
    alert = re.search(r"ALERT_(?!CODE)([A-Z_]+)", text)
    why = _OUR_CERTIFICATE.get(alert[1]) if alert is not None else None
    return why and why.format(peer=peer)


def handshake_problem(error: ssl.SSLError, peer: Peer = BROKER) -> str:
    """Why there is no TLS with it, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = error.verify_message.rstrip(".")
        why = _CERTIFICATE.get(error.verify_code, _NOT_ACCEPTED)
        return why.format(message=message, peer=peer)
    reason = line_of(getattr(error, "reason", None) or error, _REASON_LENGTH)
    for mark, why in _HANDSHAKE.items():
        if mark in reason:
            return why.format(peer=peer)
    return f"the TLS handshake failed ({reason}); does that port speak TLS?"


def _check_certificates(key: str, file: Path) -> None:
    # By a context of its own: one to speak with would read the system's CAs, which takes long.
    try:
        must_be_regular(file)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        problem = _TOO_WEAK.get(error.reason or "", "holds no certificate in PEM form")
        raise TlsFileError(key, file, problem) from None
    except OSError as error:
        raise _unreadable(key, error, file) from None


def _load_pair(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """The certificate, its chain and its key."""
    _check_certificates("cert_file", cert_file)
    asked = False

    def no_passphrase() -> bytes:
        # Without this, OpenSSL would ask on the terminal, and wait there.
        nonlocal asked
        asked = True
        return b""

    key, file = ("cert_file", cert_file) if key_file is None else ("key_file", key_file)
    try:
        must_be_regular(file)
        context.load_cert_chain(cert_file, key_file, no_passphrase)
    except ssl.SSLError as error:
        raise TlsFileError(key, file, _why_no_pair(error, key_file, asked=asked)) from None
    except OSError as error:
        raise _unreadable(key, error, file) from None


def _why_no_pair(error: ssl.SSLError, key_file: Path | None, *, asked: bool) -> str:
    if asked:
        return (
            "is encrypted, and no one can type a pass-phrase; store the key decrypted, "
            "readable by the service alone (openssl pkey -in FILE -out FILE), "
            "or as a systemd credential"
        )
    none = "holds no private key"
    none += "; name it in key_file" if key_file is None else " in PEM form"
    return _NO_PAIR.get(error.reason or "", none)


def _unreadable(key: str, error: OSError, file: Path) -> TlsFileError:
    if isinstance(error, FileNotFoundError):
        return TlsFileError(key, file, "does not exist")
    why = f"cannot be read ({(error.strerror or str(error)).lower()})"
    return TlsFileError(key, file, why, is_denied=isinstance(error, PermissionError))
