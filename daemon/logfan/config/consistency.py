"""Faults between keys that are each valid, and warnings: what `check` finds beyond a key's type."""

from collections.abc import Iterable, Iterator, Sequence

from pydantic import ValidationError

from logfan.config.amqp_limits import PREDEFINED, RESERVED, SHORT_BYTES, table_problems
from logfan.config.file_permissions import denied
from logfan.config.settings import (
    ExchangeSettings,
    HttpTlsSettings,
    QueueArguments,
    QueueSettings,
    RabbitmqSettings,
    ReconnectSettings,
    RetrySettings,
    Settings,
    TlsSettings,
)
from logfan.config.validation_errors import faults_of, shown
from logfan.faults import Fault, Faults
from logfan.runtime.tls import faults_of_files

_PATH_LENGTH = 300
_RESERVED_QUEUE = f'is reserved: no queue can be made whose name begins with "{RESERVED}"'


def faults_between(settings: Settings, invalid: Iterable[str], *, serves: bool) -> Iterator[Fault]:
    """The faults between keys. A check is left out where a key that it reads is among `invalid`.

    `serves`: whether metrics are served, so that the files of `http.tls` must be there.
    """
    rabbitmq, queue = settings.rabbitmq, settings.queue
    retries = ((f"sinks.{name}.retry", sink.retry) for name, sink in settings.sinks.items())
    # Each check, which runs when it is iterated, behind the keys that it reads.
    checks: list[tuple[Sequence[str], Iterator[Fault]]] = [
        *(([place], _delays(place, pair)) for place, pair in retries),
        (["rabbitmq.reconnect"], _delays("rabbitmq.reconnect", rabbitmq.reconnect)),
        (["rabbitmq.urls", "rabbitmq.url_file"], _url_file(rabbitmq)),
        (["rabbitmq.tls"], _tls_files("rabbitmq.tls", rabbitmq.tls)),
        (["http.tls"], _tls_files("http.tls", settings.http.tls) if serves else iter(())),
        (["queue.type", "queue.arguments"], _queue_kind(queue)),
        (["queue.arguments"], _queue_arguments(queue)),
        (["exchange.name", "exchange.type"], _exchange_name(settings.exchange)),
        (["queue.name", "queue.type", "queue.declare"], _queue_name(queue)),
        (["queue.name", "dead_letter.queue", "dead_letter.enabled"], _dead_letter_queue(settings)),
    ]
    invalid = tuple(invalid)
    for keys, check in checks:
        if not any(_overlap(key, other) for key in keys for other in invalid):
            yield from check


def _overlap(key: str, other: str) -> bool:
    """Whether one is the other, or a table around it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _delays(place: str, pair: ReconnectSettings | RetrySettings) -> Iterator[Fault]:
    if pair.initial > pair.max:
        yield Fault(f"{place}.initial", f"must not be longer than {place}.max")


def _url_file(rabbitmq: RabbitmqSettings) -> Iterator[Fault]:
    if rabbitmq.url_file is None:
        return
    if "urls" in rabbitmq.model_fields_set:
        yield Fault("rabbitmq.url_file", "is set beside rabbitmq.urls; keep one of them")
        return
    try:
        rabbitmq.read_urls()
    except Faults as error:
        yield from error.faults


def _tls_files(place: str, tls: TlsSettings | HttpTlsSettings) -> Iterator[Fault]:
    if tls.key_file is not None and tls.cert_file is None:
        yield Fault(f"{place}.key_file", f"needs {place}.cert_file beside it")
    for spoilt in faults_of_files(getattr(tls, "ca_file", None), tls.cert_file, tls.key_file):
        key, problem = f"{place}.{spoilt.key}", spoilt.problem
        if spoilt.is_denied:
            problem = f"cannot be read: {denied(spoilt.file)}"
        yield Fault(key, problem, shown(key, str(spoilt.file), _PATH_LENGTH))


def _queue_kind(queue: QueueSettings) -> Iterator[Fault]:
    """A type of queue, among its arguments, that logfan cannot live with."""
    kind = queue.kind
    if kind == "classic" or (kind == "quorum" and queue.type != "exclusive"):
        return
    if kind == "stream":
        problem = (
            "a stream takes nothing back that was not acknowledged, so messages would be lost; "
            'leave it out, or write "classic" or "quorum"'
        )
    else:
        allowed = '"classic"' if queue.type == "exclusive" else '"classic" or "quorum"'
        problem = f"must be {allowed}"
    yield Fault("queue.arguments.x-queue-type", problem, shown("x-queue-type", kind))


def _queue_arguments(queue: QueueSettings) -> Iterator[Fault]:
    """What AMQP cannot carry, and what RabbitMQ refuses of the arguments that it knows."""
    table, unfit = "queue.arguments", set()
    for path, value, problem in table_problems(queue.arguments):
        place = f"{table}.{path}" if path else table
        unfit.add(place)
        yield Fault(place, problem, shown(place, value))
    try:
        QueueArguments.model_validate(queue.arguments)
    except ValidationError as error:
        known = faults_of(error, QueueArguments, table)
        yield from (fault for fault in known if fault.place not in unfit)


def _exchange_name(exchange: ExchangeSettings) -> Iterator[Fault]:
    kind = PREDEFINED.get(exchange.name)
    if not exchange.name.startswith(RESERVED) or kind == exchange.type:
        return
    if kind is None:
        known = ", ".join(PREDEFINED)
        problem = f'is reserved: what begins with "{RESERVED}" is the broker\'s own ({known})'
        yield Fault("exchange.name", problem, shown("exchange.name", exchange.name))
    else:
        problem = f'must be "{kind}", which {exchange.name} is on every broker'
        yield Fault("exchange.type", problem, f'"{exchange.type}"')


def _queue_name(queue: QueueSettings) -> Iterator[Fault]:
    made = queue.declare == "auto" and queue.type != "exclusive"
    if made and queue.name.startswith(RESERVED):
        yield Fault("queue.name", _RESERVED_QUEUE, shown("queue.name", queue.name))


def _dead_letter_queue(settings: Settings) -> Iterator[Fault]:
    letters, name = settings.dead_letter, settings.dead_letter_queue
    if name == settings.queue.name:
        yield Fault("dead_letter.queue", "must not be queue.name, the queue that is consumed")
    if not letters.enabled:
        return
    size = len(name.encode())
    if letters.queue is not None and name.startswith(RESERVED):
        yield Fault("dead_letter.queue", _RESERVED_QUEUE, shown("dead_letter.queue", name))
    elif letters.queue is None and size > SHORT_BYTES:
        yield Fault(
            "queue.name",
            f"its dead-letter queue's name, with .dead, has {size} bytes; AMQP takes {SHORT_BYTES} "
            "at most: shorten it, or set dead_letter.queue",
        )


def doubts(settings: Settings) -> Iterator[str]:
    """What is no fault and yet not as most people want it."""
    tls = settings.rabbitmq.tls
    over_tls = [url.startswith("amqps:") for url in settings.rabbitmq.read_urls()]
    if not tls.verify and any(over_tls):
        yield (
            "rabbitmq.tls.verify = false: the broker's certificate is not checked, so another "
            "host on the way can answer and read all; name the broker's CA in "
            "rabbitmq.tls.ca_file instead"
        )
    if tls != TlsSettings() and not all(over_tls):
        yield "rabbitmq.tls is set, but a URL begins with amqp://: that way has no TLS"
    if not any(sink.required for sink in settings.sinks.values()):
        yield "no sink is required: messages are acknowledged as soon as they arrive"
    timeout = settings.rabbitmq.acknowledgement_timeout
    for name, sink in settings.sinks.items():
        if sink.required and sink.batch.linger > timeout / 3:
            yield (
                f"sinks.{name}.batch.linger is longer than a third of "
                "rabbitmq.acknowledgement_timeout: by then what waits goes back to the broker; "
                "let it linger for less"
            )
        if sink.redact is not None and sink.redact.hash and sink.redact.key_file is None:
            yield (
                f"sinks.{name}.redact.hash without key_file: each start makes a new key, so the "
                "hashes of two runs, or of two instances, do not join; name a file that holds the "
                f"key in sinks.{name}.redact.key_file"
            )
