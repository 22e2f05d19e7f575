"""Checks of what is published, by a sample: a queue of our own for a few seconds, bounded, which
drops its oldest messages. Every other queue gets what it gets anyway."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from logfan.amqp.blocking import BlockingChannel, Refused
from logfan.amqp.connection import to_properties
from logfan.amqp.topology import UNLIKE_ANY
from logfan.doctor import looks
from logfan.doctor.examination import Check, Examination
from logfan.doctor.findings import Finding, Severity, Unknown, advice, ok, warning

_MOST_MESSAGES, _MOST_BYTES, _PREFETCH = 1000, 8 << 20, 100
_ENOUGH = 5000
_SKEW_SECONDS = 60.0
_PERSISTENT = 2
_TYPES = ("fanout", "direct", "topic", "headers")


@dataclass(slots=True)
class Sample:
    """What was seen."""

    count: int = 0
    without_id: int = 0
    transient: int = 0
    dated: int = 0
    """How many have a timestamp."""
    furthest: float = 0.0
    """Seconds that a timestamp is away from our clock, with its sign: above 0 is ahead."""

    def add(self, properties: Any) -> None:
        self.count += 1
        self.without_id += not properties.message_id
        self.transient += properties.delivery_mode != _PERSISTENT
        if isinstance(properties.timestamp, int):
            self.dated += 1
            # Some publishers write milliseconds.
            seconds = properties.timestamp / (1000 if properties.timestamp > 1 << 36 else 1)
            away = seconds - time.time()
            self.furthest = max(self.furthest, away, key=abs)


def _sample(exam: Examination) -> Sample:
    if not exam.sample_seconds:
        raise Unknown("no sample was asked for: --sample 3s")
    settings = exam.settings
    exchange, look = settings.exchange, exam.get(looks.exchange)
    if not look.exists:
        raise Unknown("the exchange does not exist yet")
    if look.known("type") not in _TYPES:
        raise Unknown(f"a queue more on an exchange of type {look.known('type')!r} would take its "
            "messages from others")  # fmt: skip
    if look.known(UNLIKE_ANY):
        raise Unknown("what is not routed goes to an alternate exchange: a sample could take it")
    keys = settings.queue.binding_keys(look.known("type"))
    seen = Sample()
    with exam.connect(exam.reached()[0]) as connection:
        connection.give_up_at = None
        channel = connection.channel("the sample")
        queue = f"{settings.queue.name}.doctor.{secrets.token_hex(4)}"
        try:
            _begin(channel, queue, exchange.name, keys, seen)
            late = connection.time_limit(exam.sample_seconds)
            channel.until(lambda: late() or seen.count >= _ENOUGH)
            # It is exclusive: where this is not reached, it goes with the connection.
            channel.ask(channel.pika.queue_delete, queue)
        except Refused as refused:
            raise Unknown(f"a queue of our own was refused: {refused.reply}") from None
    return seen


def _begin(
    channel: BlockingChannel, queue: str, exchange: str, keys: tuple[str, ...], seen: Sample
) -> None:
    def on_message(pika: Any, method: Any, properties: Any, _body: bytes) -> None:
        seen.add(to_properties(properties))
        pika.basic_ack(method.delivery_tag)

    bounds = {
        "x-queue-type": "classic", "x-max-length": _MOST_MESSAGES,
        "x-max-length-bytes": _MOST_BYTES, "x-overflow": "drop-head",
    }  # fmt: skip
    channel.ask(channel.pika.queue_declare, queue, exclusive=True, arguments=bounds)
    for key in keys:
        channel.ask(channel.pika.queue_bind, queue, exchange, key)
    channel.ask(channel.pika.basic_qos, prefetch_count=_PREFETCH)
    channel.ask(channel.pika.basic_consume, queue, on_message)


def published(exam: Examination) -> Finding:
    """Something is published to the exchange."""
    seen = exam.get(_sample)
    if seen.count:
        return ok(f"{seen.count:,} messages came in the sample")
    return advice(
        f"nothing was published to exchange {exam.settings.exchange.name!r} within "
        f"{exam.sample_seconds:g} s",
        "there may be no publisher, or it uses another exchange or virtual host",
        "check exchange.name and the publishers, or take a longer --sample",
    )


def _some(exam: Examination) -> Sample:
    seen = exam.get(_sample)
    if not seen.count:
        raise Unknown("no message came in the sample")
    return seen


def message_ids(exam: Examination) -> Finding:
    """Messages have a `message_id`."""
    seen = _some(exam)
    if seen.without_id:
        return advice(
            f"{seen.without_id:,} of {seen.count:,} messages have no message_id",
            "what is written twice after a crash is recognised by its content alone, where two "
            "equal lines look like one",
            "have the publishers set message_id to something unique",
        )
    return ok("every message has a message_id")


def persistence(exam: Examination) -> Finding:
    """Messages are persistent."""
    seen = _some(exam)
    if seen.transient:
        return warning(
            f"{seen.transient:,} of {seen.count:,} messages are not persistent",
            "a restart of the broker loses those that wait, also in a durable classic queue",
            "have the publishers set delivery_mode = 2, or use a quorum queue",
        )
    return ok("every message is persistent")


def timestamps(exam: Examination) -> Finding:
    """The publishers' clocks agree with ours."""
    seen = _some(exam)
    if not seen.dated:
        raise Unknown("no message has a timestamp, and AMQP has no other clock")
    if abs(seen.furthest) > _SKEW_SECONDS:
        return advice(
            f"a message's timestamp is {abs(seen.furthest):,.0f} s "
            f"{'ahead of' if seen.furthest > 0 else 'behind'} this machine's clock",
            "times of records and of their receipt disagree; or the message waited so long "
            "before it was published",
            "run a time service on all machines",
        )
    return ok(f"the timestamps of {seen.dated:,} messages agree with our clock")


_ADVICE, _WARNING = Severity.ADVICE, Severity.WARNING
CHECKS = (
    Check("sample", "`--sample`", _ADVICE, published),
    Check("message-ids", "`--sample`", _ADVICE, message_ids),
    Check("persistence", "`--sample`", _WARNING, persistence),
    Check("timestamps", "`--sample`", _ADVICE, timestamps),
)
