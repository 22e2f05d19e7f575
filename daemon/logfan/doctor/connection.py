"""Checks of each URL: name, port, TLS, login, and what a connection may do there."""

import socket
import ssl
import time
from collections.abc import Iterator

from logfan.amqp.blocking import BrokerError
from logfan.amqp.broker_features import limits_returns
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.config.amqp_url import Address
from logfan.doctor import looks
from logfan.doctor.examination import Broker, Check, Examination
from logfan.doctor.findings import Finding, Severity, Unknown, advice, danger, ok, skipped, warning
from logfan.runtime.foreign_text import line_of
from logfan.runtime.tls import TlsFileError, client_context, handshake_problem, refusal

_SECONDS = 10.0
_DAY = 86_400.0
_SOON_DAYS = 21
_CHANNELS = 3
_SMALL_FRAME = 16_384
_SHORT_HEARTBEAT, _LONG_HEARTBEAT = 5, 120
_OLDEST = (3, 10)


def _severe(exam: Examination, what: str, means: str, do: str) -> Finding:
    """A danger where it is the only URL; with others logfan goes on to the next."""
    if len(exam.brokers) == 1:
        return danger(what, means, do)
    return warning(what, f"{means}; logfan goes on to the next URL, if that works", do)


def names(exam: Examination) -> Iterator[Finding]:
    """Each host of `rabbitmq.urls` has an address."""
    for broker in exam.brokers:
        host = broker.address.host
        try:
            found = socket.getaddrinfo(host, broker.address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            broker.reported = True
            yield _severe(
                exam, f"the name {host} was not found ({line_of(error.strerror or error)})",
                "logfan cannot connect there",
                "correct the host in rabbitmq.urls, or the name in DNS or /etc/hosts",
            )  # fmt: skip
        else:
            yield ok(f"{host} is {found[0][4][0]}")


def ports(exam: Examination) -> Iterator[Finding]:
    """Something takes connections there."""
    for broker in exam.brokers:
        if broker.reported:
            continue
        try:
            _tcp(broker.address).close()
        except OSError as error:
            broker.reported = True
            why = line_of(error.strerror or error) or "no answer"
            yield _severe(
                exam, f"{broker.address} takes no connection: {why}",
                "logfan cannot connect there",
                "start the broker, correct host and port in rabbitmq.urls, or open the firewall",
            )  # fmt: skip
        else:
            yield ok(f"{broker.address} takes connections")


def _tcp(address: Address) -> socket.socket:
    return socket.create_connection((address.host, address.port), timeout=_SECONDS)


def tls(exam: Examination) -> Iterator[Finding]:
    """The certificate's chain and host name hold, and our own files are sound."""
    for broker in _secure(exam):
        try:
            _certificate(exam, broker)
        except TlsFileError as error:
            broker.reported = True
            yield danger(
                f"rabbitmq.tls.{error}", "logfan cannot connect with TLS", "correct that file"
            )
        except ssl.SSLError as error:
            broker.reported = True
            yield _severe(
                exam, f"{broker.address} gives no TLS that holds",
                refusal(line_of(error)) or handshake_problem(error),
                "see what it means; `openssl s_client -connect` shows what the broker sends",
            )  # fmt: skip
        except OSError as error:
            yield skipped(f"{broker.address} cannot be asked: {line_of(error)}")
        else:
            yield ok(f"{broker.address}: the certificate holds")


def _secure(exam: Examination) -> list[Broker]:
    """Those with TLS that can be asked."""
    return [one for one in exam.brokers if one.address.tls and not one.reported]


def plain_text(exam: Examination) -> Iterator[Finding]:
    """No password crosses a network without verified TLS."""
    for broker in exam.brokers:
        far = not _is_near(broker.address.host)
        if far and not broker.address.tls and broker.address.user is not None:
            yield advice(
                f"{broker.address} is on another machine and is asked without TLS",
                "the password and every message cross the network as plain text",
                "use amqps:// where that network is not yours alone",
            )
        elif broker.address.tls and not exam.settings.rabbitmq.tls.verify:
            yield warning(
                f"{broker.address}: rabbitmq.tls.verify is false",
                "whoever takes the broker's place gets the password and can give false messages",
                "name the CA in rabbitmq.tls.ca_file and remove verify",
            )
        else:
            yield ok(f"{broker.address} is asked over TLS, or on this machine")


def _is_near(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def certificate_expiry(exam: Examination) -> Iterator[Finding]:
    """The broker's certificate holds for weeks to come."""
    for broker in _secure(exam):
        try:
            ends = _certificate(exam, broker)
        except OSError as error:
            yield skipped(f"{broker.address}: there is no TLS ({line_of(error)})")
            continue
        if ends is None:
            yield skipped("rabbitmq.tls.verify is false: the certificate is not read")
            continue
        days = (ends - time.time()) / _DAY
        if days < _SOON_DAYS:
            yield warning(
                f"{broker.address}: the broker's certificate expires in {days:.0f} days",
                "from then on logfan cannot connect", "renew it on the broker",
            )  # fmt: skip
        else:
            yield ok(f"{broker.address}: the certificate holds for {days:.0f} days")


def _certificate(exam: Examination, broker: Broker) -> float | None:
    """When the broker's certificate ends; None where it is not verified. Raises OSError."""
    files = exam.settings.rabbitmq.tls
    context = client_context(files.ca_file, files.cert_file, files.key_file, verify=files.verify)
    host = broker.address.host
    with _tcp(broker.address) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
        shown = secure.getpeercert() or {}
        ends = shown.get("notAfter")
        return ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None


def login(exam: Examination) -> Iterator[Finding]:
    """User, password and virtual host are accepted. Keeps the connections for other checks."""
    for broker in exam.brokers:
        try:
            broker.connection = exam.connect(broker)
        except BrokerError as error:
            broker.failure = error.failure
    for broker in exam.brokers:
        failure = broker.failure
        if failure is None:
            yield ok(f"{broker.address} lets us in")
        elif broker.reported:
            yield skipped(f"{broker.address} is not reached, as reported")
        elif exam.is_reached:
            yield warning(
                failure.why,
                "logfan goes on to the next URL; when that one is away, too, nothing is consumed",
                "make each of rabbitmq.urls work, or remove it",
            )
        else:
            yield danger(
                failure.why, _no_login(exam, failure),
                "correct rabbitmq.urls (or rabbitmq.url_file), or what the broker has",
            )  # fmt: skip


def _no_login(exam: Examination, failure: ConnectionFailure) -> str:
    if failure.cause is Cause.BUSY:
        return "`run` tries again until the broker has room for it"
    if exam.settings.rabbitmq.startup == "fail":
        return "`run` ends at its start"
    return "`run` waits for it, and consumes nothing until then"


def channels(exam: Examination) -> Finding:
    """`channel_max` and the user's limit leave room for three channels."""
    most = exam.connection.agreed.channel_max
    if most and most < 2:
        return warning(
            f"the broker's channel_max is {most}",
            "the queue cannot be watched: a lost binding is made again only with the next "
            "connection, and logfan_queue_ready_messages is NaN",
            f"set channel_max = {_CHANNELS} or more in rabbitmq.conf",
        )
    if most and most < _CHANNELS:
        return advice(
            f"the broker's channel_max is {most}",
            "an auto-delete queue cannot be kept while consuming pauses",
            f"set channel_max = {_CHANNELS} or more in rabbitmq.conf",
        )
    opened = 0
    try:
        with exam.connect(exam.reached()[0]) as connection:
            for _ in range(_CHANNELS):
                connection.channel()
                opened += 1
    except BrokerError as error:
        means = "a message that is refused has no dead letter, or the queue cannot be watched"
        severe = warning if opened else danger
        return severe(
            f"a connection has {opened} of {_CHANNELS} channels: {error}",
            means if opened else "nothing can be consumed, and `run` cannot go on",
            "raise the limit of channels of the user",
        )
    return ok(f"channel_max is {most or 'without a limit'}")


def connections(exam: Examination) -> Finding:
    """Limits leave room for a second connection."""
    try:
        connection = exam.connect(exam.reached()[0])
    except BrokerError as error:
        return danger(
            f"there is no second connection: {error}",
            "the daemon needs two at a time: one consumes, one sends dead letters",
            "raise the limit of connections of the user, the virtual host or the node",
        )
    connection.close()
    return ok("a second connection opens")


def frame_max(exam: Examination) -> Finding:
    """Frames are large enough for properties and bodies."""
    size = exam.connection.agreed.frame_max
    if size and size < _SMALL_FRAME:
        return warning(
            f"frame_max is {size} bytes",
            "dead letters whose headers do not fit into one frame lose some of them, and bodies "
            "come in many pieces",
            "set frame_max = 131072, the default, in rabbitmq.conf",
        )
    return ok(f"frame_max is {size or 'without a limit'}")


def heartbeat(exam: Examination) -> Finding:
    """The heartbeat that was agreed on finds a dead connection, and no living one."""
    seconds, ours = exam.connection.agreed.heartbeat, round(exam.settings.rabbitmq.heartbeat)
    if seconds < _SHORT_HEARTBEAT:
        return warning(
            f"the heartbeat is {seconds} s (rabbitmq.heartbeat is {ours} s)",
            "a busy moment of the machine or the network ends the connection",
            "raise rabbitmq.heartbeat, and heartbeat in rabbitmq.conf, to 30 seconds",
        )
    if seconds > _LONG_HEARTBEAT:
        return advice(
            f"the heartbeat is {seconds} s (rabbitmq.heartbeat is {ours} s)",
            "a connection that died without a word is noticed only after twice as long",
            "lower rabbitmq.heartbeat to 30 seconds",
        )
    return ok(f"the heartbeat is {seconds} s")


def version(exam: Examination) -> Finding:
    """The broker's version, and what is special about it."""
    found = exam.connection.version
    if not found:
        raise Unknown("the broker does not report its version")
    text = ".".join(map(str, found))
    if found < _OLDEST:
        return warning(
            f"RabbitMQ {text} is older than any that logfan is tested with",
            "what it does differently is not known", "upgrade it to 3.10 or newer",
        )  # fmt: skip
    if exam.settings.queue.type == "quorum" and not limits_returns(found):
        return advice(
            f"RabbitMQ {text} sets no limit of returns on quorum queues; from 4.0 on it does (20)",
            "a queue of others that has no limit of its own gets one with that upgrade",
            "before the upgrade give such a queue x-delivery-limit, or a policy",
        )
    return ok(f"RabbitMQ {text}")


def alarms(exam: Examination) -> Finding:
    """The broker takes messages: no alarm of memory or disk. Publishes one empty message that no
    queue gets."""
    found = exam.get(looks.published)
    if found.blocked:
        return danger(
            f"the broker blocks all publishers: {found.blocked}",
            "programs that publish stop or lose messages, and logfan cannot send dead letters",
            "free memory or disk space on the broker (`rabbitmq-diagnostics alarms`)",
        )
    if found.refusal.code:
        raise Unknown(f"publishing was refused: {found.refusal.text}")
    if not found.is_confirmed:
        raise Unknown(f"a message was not confirmed within {looks.PUBLISH_SECONDS:.0f} s")
    return ok("the broker takes messages")


_DANGER, _WARNING, _ADVICE = Severity.DANGER, Severity.WARNING, Severity.ADVICE
CHECKS = (
    Check("name", "AMQP", _DANGER, names, True),
    Check("port", "AMQP", _DANGER, ports, True),
    Check("tls", "AMQP", _DANGER, tls, True),
    Check("tls-expiry", "AMQP", _WARNING, certificate_expiry, True),
    Check("plain-text", "AMQP", _WARNING, plain_text),
    Check("login", "AMQP", _DANGER, login, True),
    Check("version", "AMQP", _WARNING, version),
    Check("channels", "AMQP", _DANGER, channels),
    Check("connections", "AMQP", _DANGER, connections),
    Check("frame-max", "AMQP", _WARNING, frame_max),
    Check("heartbeat", "AMQP", _WARNING, heartbeat),
    Check("alarms", "AMQP", _DANGER, alarms),
)
