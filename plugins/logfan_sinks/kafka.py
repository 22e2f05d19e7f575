"""The sink `kafka`: a message for each record, acknowledged by all replicas in sync."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

import logfan
from logfan_sinks.address import Timeout
from logfan_sinks.extras import ExtraConfig
from logfan_sinks.formats import Format, encoder
from logfan_sinks.outcome import Outcome
from logfan_sinks.row import FieldName
from logfan_sinks.secret_file import secret_in
from logfan_sinks.template import checked, compiled
from logfan_sinks.tls_options import TlsOptions

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

_TOPIC_CHARS = 249
_NO_TOPIC_CHAR = re.compile(r"[^a-zA-Z0-9._-]")
_NO_TOPICS = ("", ".", "..")
_QUEUE_KILOBYTES = 64 << 10
"""At least; and a message that is larger than all of the queue would never get in."""
_MOST_SOCKET_SECONDS = 300
_UNKNOWN_TOPIC_SECONDS = 5
_TOPIC_ERRORS = (
    "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_PARTITION", "TOPIC_AUTHORIZATION_FAILED",
    "NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "LEADER_NOT_AVAILABLE",
)  # fmt: skip
_LOOK_SECONDS = 0.5
_ID = "id"


Text = Annotated[str, AfterValidator(checked)]
Broker = Annotated[str, Field(pattern=r"^[^\s,]+$")]


class KafkaSink(logfan.Sink):
    """Produce a message for each record to a topic of Kafka, acknowledged by all replicas in sync.

    Done: the acknowledgement of each message (acks=all, idempotent producer).
    Not now: every other error, among them a topic that is missing, credentials that are wrong, and
    silence; the messages concerned come again alone.
    Refused: a message that is larger than the client or the topic takes (MSG_SIZE_TOO_LARGE); what
    was sent with it is sent again in halves until it is found. One whose own topic is none that can
    be written to (TOPIC_EXCEPTION), as Kafka's __consumer_offsets.
    Repeats: the producer's own retries are found by the broker. What was under way when the brokers
    were silent for `timeout`, or the daemon ended, may come twice; the record's identity is in the
    header `id`.
    """

    class Config(ExtraConfig):
        library, extra = "confluent_kafka", "kafka"

        brokers: tuple[Broker, ...] = Field(min_length=1)
        """Where to learn of the cluster: ["kafka-1.example.org:9092"]."""
        topic: Text = Field(min_length=1)
        """The topic; may hold fields such as {routing_key} or {headers.team}. What no topic's name
        may hold becomes "_", and so do "." and "..". Records for a topic that is missing wait until
        it is there, and the others go on."""
        key: Text | None = None
        """What decides on the partition, with fields as in topic: messages of one key keep their
        order. Without it, messages are spread."""
        format: Format = "json"
        """json: one object a message, with its origin and headers; text and raw: the body alone."""
        id: tuple[FieldName, ...] = ()
        """Where to find the identity of a record that has no message id: fields such as
        ["headers.id", "order.id"]."""
        tls: TlsOptions | None = None
        """{ ca_file = "…", cert_file = "…", key_file = "…", verify = true }; without this table
        the connection is a plain one."""
        sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
        """How to log in, where there is a username."""
        username: str | None = None
        """Who to log in as, with password_file."""
        password_file: Path | None = None
        """The file that holds the password."""
        compress: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "none"
        """Send compressed batches."""
        max_message_bytes: logfan.Size = Field(
            default="1MB", validate_default=True, ge=1000, le=1_000_000_000
        )
        """Most bytes of one message, as the brokers' message.max.bytes allows."""
        timeout: Timeout = 30.0
        """How long the brokers may be silent."""

        @model_validator(mode="after")
        def _is_whole(self) -> "KafkaSink.Config":
            if (self.username is None) != (self.password_file is None):
                raise ValueError("username and password_file go together")
            return self

        @field_validator("topic")
        @classmethod
        def _is_topic(cls, topic: str) -> str:
            if "{" not in topic and _as_topic(topic) != topic:
                raise ValueError(
                    "is no name of a topic: letters, digits, '.', '_' and '-', 249 at most, and "
                    "neither '.' nor '..'"
                )
            return topic

    _producer: "Producer | None" = None
    _last_error = ""
    _are_all_down = False

    def open(self) -> None:
        """Connect, and see that the topic is there."""
        from confluent_kafka import KafkaException, Producer

        self.close()
        config = self.config
        self._encode = encoder(config.format)
        self._topic_of = _topic_of(config.topic)
        self._key_of = None if config.key is None else compiled(config.key)
        self._last_error, self._are_all_down = "", False
        try:
            producer = Producer({**self._settings(), "error_cb": self._on_error})
        except KafkaException as error:
            raise logfan.SinkUnavailable(_text(error.args[0])) from None
        self._producer = producer
        fixed = None if "{" in config.topic else self._topic_of(None)
        found = self._known(producer, fixed)
        if fixed is not None and (missing := found.topics[fixed].error) is not None:
            raise logfan.SinkUnavailable(f"the topic {fixed}: {_text(missing)}")

    def _known(self, producer: "Producer", topic: str | None) -> Any:
        """The cluster's metadata of a topic, or of all. Raises once no broker is available."""
        from confluent_kafka import KafkaException

        silence = _Silence(self.config.timeout)
        while True:
            try:
                return producer.list_topics(topic, timeout=_LOOK_SECONDS)
            except KafkaException as error:
                producer.poll(0)  # hears of the cause
                if self._are_all_down or silence.is_too_long():
                    why = self._last_error or _text(error.args[0])
                    raise logfan.SinkUnavailable(why) from None

    def _settings(self) -> dict[str, Any]:
        """librdkafka's."""
        config = self.config
        tls: TlsOptions | None = config.tls
        given: dict[str, Any] = {
            "bootstrap.servers": ",".join(config.brokers), "client.id": "logfan",
            "enable.idempotence": True, "acks": "all", "compression.type": config.compress,
            "message.max.bytes": config.max_message_bytes,
            "message.timeout.ms": 0,  # `_see` has the deadline, and leaves nothing behind
            "socket.timeout.ms": round(1000 * min(max(1, config.timeout), _MOST_SOCKET_SECONDS)),
            "topic.metadata.propagation.max.ms": _UNKNOWN_TOPIC_SECONDS * 1000,
            "queue.buffering.max.kbytes": max(_QUEUE_KILOBYTES, config.max_message_bytes >> 9),
            "partitioner": "murmur2_random",  # as Kafka's own clients choose
            "log_level": 0,  # all that is logged comes as an error, too
            "security.protocol": ("SASL_" if config.username is not None else "")
            + ("PLAINTEXT" if tls is None else "SSL"),
        }  # fmt: skip
        if tls is not None:
            tls.check_files()
            files = {
                "ssl.ca.location": tls.ca_file, "ssl.certificate.location": tls.cert_file,
                "ssl.key.location": tls.key_file or tls.cert_file,
            }  # fmt: skip
            given |= {name: str(path) for name, path in files.items() if path is not None}
            given["enable.ssl.certificate.verification"] = tls.verify
            given["ssl.endpoint.identification.algorithm"] = "https" if tls.verify else "none"
        if config.username is not None:
            given |= {
                "sasl.mechanism": config.sasl, "sasl.username": config.username,
                "sasl.password": secret_in(config.password_file),
            }  # fmt: skip
        return given

    def _on_error(self, error: "KafkaError") -> None:
        """Called from `poll` and `flush`."""
        if error.name() == "_ALL_BROKERS_DOWN":  # a summary, which comes after the cause
            self._are_all_down = True
        else:
            self._last_error = _text(error)

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Produce all of it, and wait for the acknowledgements."""
        from confluent_kafka import KafkaError

        producer = self._producer
        if producer is None:
            raise logfan.SinkUnavailable("not connected")
        outcome = Outcome()
        self._last_error = ""
        lines = self._encode(records)
        waiting: list[Sequence[int]] = [range(len(records))]
        while waiting:
            places = waiting.pop()
            failed = self._produce(producer, records, lines, places)
            too_large = []
            for place, error in failed.items():
                code = error.code()
                is_no_topic = code == KafkaError.TOPIC_EXCEPTION and "{" in self.config.topic
                if code != KafkaError.MSG_SIZE_TOO_LARGE and not is_no_topic:
                    outcome.later[place] = f"not taken by Kafka: {_text(error)}"
                    outcome.whole |= not self._is_about_topic(error)
                elif is_no_topic or len(places) == 1:
                    outcome.refused[place] = f"refused by Kafka: {_text(error)}"
                else:
                    too_large.append(place)
            if too_large:
                # The brokers refuse what was sent together, not the message that is at fault.
                middle = (len(too_large) + 1) // 2
                waiting += filter(None, (too_large[middle:], too_large[:middle]))
        outcome.settle(len(records))

    def _is_about_topic(self, error: "KafkaError") -> bool:
        """Whether it is about a topic that the record has named, and no other."""
        return "{" in self.config.topic and error.name() in _TOPIC_ERRORS

    def _produce(
        self,
        producer: "Producer",
        records: Sequence[logfan.Record],
        lines: Sequence[bytes],
        places: Iterable[int],
    ) -> dict[int, "KafkaError"]:
        """What went wrong, by place. Raises `logfan.SinkUnavailable` where the brokers are
        silent: then nothing of it is left in the producer."""
        from confluent_kafka import KafkaException

        failed: dict[int, KafkaError] = {}
        silence = _Silence(self.config.timeout)

        def on_delivery(place: int, error: "KafkaError | None", _: object) -> None:
            silence.ended()
            if error is not None:
                failed[place] = error

        key_of = self._key_of

        def send(place: int) -> None:
            record = records[place]
            identity = record.id(*self.config.id)
            producer.produce(
                self._topic_of(record), lines[place],
                None if key_of is None else key_of(record).encode(),
                on_delivery=partial(on_delivery, place), timestamp=int(record.received_at * 1000),
                headers=None if identity is None else [(_ID, identity.encode("utf-8", "replace"))],
            )  # fmt: skip

        for place in places:
            while True:
                try:
                    send(place)
                    break
                except BufferError:
                    producer.poll(_LOOK_SECONDS)
                    self._see(producer, silence)
                except KafkaException as error:
                    failed[place] = error.args[0]
                    break
        while producer.flush(_LOOK_SECONDS):
            self._see(producer, silence)
        return failed

    def _see(self, producer: "Producer", silence: "_Silence") -> None:
        if silence.is_too_long():
            producer.purge()
            producer.flush(_LOOK_SECONDS)
            why = f"no acknowledgement for {self.config.timeout:g} s"
            raise logfan.SinkUnavailable(f"{why}: {self._last_error}" if self._last_error else why)

    def close(self) -> None:
        """Disconnect; what was not acknowledged is given up."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(_LOOK_SECONDS)
            self._producer = None  # which ends its threads


class _Silence:
    """How long nothing was heard."""

    def __init__(self, most: float) -> None:
        self._most = most
        self.ended()

    def ended(self) -> None:
        self._deadline = time.monotonic() + self._most

    def is_too_long(self) -> bool:
        return time.monotonic() > self._deadline


def _topic_of(text: str) -> Callable[[Any], str]:
    """The topic of a record; one text for all where it holds no field."""
    fill = compiled(text)
    if "{" not in text:
        return lambda _: text

    return lambda record: _as_topic(fill(record))


def _as_topic(text: str) -> str:
    topic = _NO_TOPIC_CHAR.sub("_", text)[:_TOPIC_CHARS]
    return "_" if topic in _NO_TOPICS else topic


def _text(error: "KafkaError") -> str:
    return f"{error.str().strip().rstrip('.')} ({error.name()})"


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("kafka", KafkaSink)
