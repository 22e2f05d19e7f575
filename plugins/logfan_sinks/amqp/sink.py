"""The sink `amqp`: records to an exchange of another RabbitMQ, each confirmed by it."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pika
from pydantic import AfterValidator, Field, SecretStr, model_validator

import logfan
from logfan_sinks.address import Timeout
from logfan_sinks.amqp.publisher import Message, Publisher
from logfan_sinks.secret_file import secret_of
from logfan_sinks.tls_options import TlsOptions

_UNDER_WAY_BYTES = 8 << 20
_SHORT_BYTES = 255
_OURS = "x-logfan-"
"""How the headers begin by which logfan knows a dead letter, and the sink that it is for."""
_ROUTES = ("CC", "BCC")
"""The other broker would copy the message to whatever these headers name."""


def _parameters(url: str) -> pika.URLParameters:
    """Raises ValueError, without a word of the url, which may hold a password."""
    if not url.startswith(("amqp://", "amqps://")):
        raise ValueError("the url begins with amqp:// or amqps://")
    try:
        return pika.URLParameters(url)
    except Exception:  # noqa: BLE001 - whatever it finds, its text may quote the url
        raise ValueError("the url is not as amqps://USER:PASSWORD@HOST/VHOST") from None


def _checked(url: SecretStr) -> SecretStr:
    _parameters(url.get_secret_value())
    return url


def _short(text: str) -> str:
    if len(text.encode()) > _SHORT_BYTES:
        raise ValueError(f"has {len(text.encode())} bytes; AMQP takes {_SHORT_BYTES} at most")
    return text


ShortString = Annotated[str, AfterValidator(_short)]


class AmqpSink(logfan.Sink):
    """Publish records to an exchange of another RabbitMQ, with confirms; unroutable ones wait.

    A message keeps its properties and headers, but for user_id and expiration, and for headers that
    say where it goes: CC and BCC, which the other broker obeys, and x-logfan-…, which another
    logfan does.
    Done: the confirm of a message that reached a queue (mandatory).
    Not now: a nack, as of a full queue, and what reaches no queue, which come again alone; an
    alarm, a missing exchange, a lost connection.
    Refused: a body that is larger than the other broker takes, headers that do not fit a frame.
    Repeats: the message id is kept.
    """

    class Config(logfan.SinkConfig):
        url: Annotated[SecretStr, AfterValidator(_checked)] | None = None
        """The other broker, as amqps://HOST/VHOST; a password belongs into url_file."""
        url_file: Path | None = None
        """The file that holds the url."""
        exchange: ShortString
        """The exchange there, which is never declared. Not the one that this daemon consumes:
        messages would go round without end."""
        routing_key: ShortString | None = None
        """The routing key there; each record's own unless given."""
        tls: TlsOptions = TlsOptions()
        """{ ca_file = "…", cert_file = "…", key_file = "…", verify = true }, for amqps."""
        timeout: Timeout = 30.0
        """How long the other broker may be silent."""
        max_under_way: int = Field(default=1000, ge=1, le=100_000)
        """Most messages that wait for their confirms."""

        @model_validator(mode="after")
        def _has_a_url(self) -> "AmqpSink.Config":
            if (self.url is None) == (self.url_file is None):
                raise ValueError("one of url and url_file is needed, and not both")
            return self

    _publisher: Publisher | None = None
    _max_bytes: int | None = None
    """The largest body that the broker takes, where it has announced one."""
    _learned: int | None = None
    """The same of the connection that it closed over a larger one."""

    def open(self) -> None:
        """Connect, and see that the exchange is there."""
        self.close()
        config = self.config
        try:
            parameters = _parameters(secret_of(config.url, config.url_file))
            if parameters.ssl_options is not None:
                context = config.tls.context()
                parameters.ssl_options = pika.SSLOptions(context, parameters.host)
        except ValueError as error:
            raise logfan.SinkUnavailable(str(error)) from None
        self._publisher = Publisher(parameters, config.exchange, config.timeout)
        # For whatever else it was opened anew, the limit may be another one by now.
        self._max_bytes, self._learned = self._learned, None

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Publish all of it, and wait for the confirms."""
        publisher = self._publisher
        if publisher is None:
            raise logfan.SinkUnavailable("not connected")
        messages = [self._message(place, record) for place, record in enumerate(records)]
        refused = {
            message.place: why for message in messages if (why := self._unfit(message, publisher))
        }
        try:
            self._publish(publisher, messages, refused)
        except logfan.SinkUnavailable:
            self._learned = publisher.max_bytes
            raise
        if refused or publisher.later:
            raise logfan.RecordsRejected(refused, later=publisher.later)

    def _unfit(self, message: Message, publisher: Publisher) -> str:
        """Why the other broker can never take it; empty where it can."""
        size = len(message.body)
        if self._max_bytes is not None and size > self._max_bytes:
            return f"{size:,} bytes are more than the broker's max_message_size"
        try:
            size = sum(map(len, message.properties.encode()))
        except Exception as error:  # noqa: BLE001 - pika raises as many kinds as there are values
            return f"its headers cannot be written: {error or type(error).__name__}"
        if size > publisher.frame_bytes:
            return f"its headers take {size:,} bytes, more than a frame of the broker holds"
        return ""

    def _publish(
        self, publisher: Publisher, messages: Sequence[Message], refused: Container[int]
    ) -> None:
        publisher.begin()
        most, size = self.config.max_under_way, 0
        for message in messages:
            if message.place in refused:
                continue
            if publisher.under_way >= most or size >= _UNDER_WAY_BYTES:
                publisher.settle(most // 2 if size < _UNDER_WAY_BYTES else 0)
                size = 0
            size += len(message.body)
            publisher.publish(message)
        publisher.settle(0)

    def _message(self, place: int, record: logfan.Record) -> Message:
        given = record.properties._asdict()
        theirs = {name: value for name, value in given.pop("headers").items() if _is_plain(name)}
        headers = _plain({**theirs, f"{_OURS}exchange": record.exchange})
        # A user id may only be the publisher's own, and what expires would be lost there.
        given |= {"delivery_mode": 2, "user_id": None, "expiration": None}
        key = record.routing_key if self.config.routing_key is None else self.config.routing_key
        return Message(place, key, record.body, pika.BasicProperties(headers=headers, **given))

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None


def _is_plain(header: str) -> bool:
    """Whether it is a header that leads nowhere: who may publish to one exchange here must not
    choose among all queues that this sink's user may write to there."""
    return header not in _ROUTES and not header.startswith(_OURS)


def _plain(value: Any) -> Any:
    """Headers of the kinds that pika writes."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("amqp", AmqpSink)
