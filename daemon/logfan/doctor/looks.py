"""Looks at the broker that several checks share. Each asks without changing anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from logfan.amqp import queue_kinds, topology
from logfan.amqp.blocking import BrokerError, Refused
from logfan.amqp.broker_features import ACCESS_REFUSED, INTERNAL_ERROR, LOCKED, NOT_FOUND
from logfan.amqp.queue_kinds import DELIVERY_LIMIT, Shape
from logfan.amqp.topology import (
    UNLIKE_ANY,
    Answer,
    DeclareExchange,
    DeclareQueue,
    Step,
    Steps,
    request,
)
from logfan.doctor.examination import Examination
from logfan.doctor.findings import Unknown

PUBLISH_SECONDS = 10.0
_MOST_DIFFERENCES = 8
_NO_CONFIGURE = "may not be asked for: the user has no configure permission on it"


@dataclass(frozen=True, slots=True)
class ExchangeLook:
    """The consumed exchange."""

    exists: bool
    answer: Answer = field(default_factory=Answer)
    """To the question whether it exists."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """`type`, `durable`, `auto_delete`, `internal` and `alternate-exchange` ("" for none), as far
    as they are known."""
    why_unknown: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether the user may not even ask for it."""
        return self.answer.code == ACCESS_REFUSED

    def known(self, name: str) -> Any:
        """One property. Raises Unknown."""
        if name not in self.properties:
            raise Unknown(self.why_unknown or f"the broker does not show {name}")
        return self.properties[name]


@dataclass(frozen=True, slots=True)
class QueueLook:
    """A queue."""

    name: str
    exists: bool
    answer: Answer = field(default_factory=Answer)
    """To the question whether it exists."""
    shape: Shape | None = None
    why_unknown: str = ""
    limit: int | None = None
    """After so many returns it drops a message."""

    @property
    def is_refused(self) -> bool:
        """Whether the user may not even ask for it."""
        return self.answer.code == ACCESS_REFUSED

    @property
    def counted(self) -> Answer:
        """The answer, with how many messages and consumers it has. Raises Unknown."""
        if self.answer.code and self.exists:
            raise Unknown(self.why_unknown)
        return self.answer

    @property
    def known(self) -> Shape:
        """What it is like. Raises Unknown."""
        if self.shape is None:
            raise Unknown(self.why_unknown or f"queue {self.name!r} does not exist yet")
        return self.shape


@dataclass(frozen=True, slots=True)
class Published:
    """What became of an empty message that no queue gets."""

    refusal: Answer
    """Without a code where it was not refused."""
    is_confirmed: bool
    blocked: str
    """Why the broker takes no messages; empty where it does."""


def published(exam: Examination) -> Published:
    """Publish one to the default exchange. Raises Unknown."""
    broker, _ = exam.reached()
    with exam.connect(broker) as connection:
        broker.blocked = ""
        channel = connection.channel()
        confirmed: list[object] = []
        channel.ask(channel.pika.confirm_delivery, confirmed.append)
        key = f"{exam.settings.dead_letter_queue}.doctor"
        channel.pika.basic_publish("", key, b"", None, mandatory=False)
        late = connection.time_limit(PUBLISH_SECONDS)
        refusal = Answer()
        try:
            channel.until(lambda: confirmed or broker.blocked or late())
        except Refused as refused:
            refusal = Answer(refused.code, refused.reply)
    return Published(refusal, bool(confirmed), broker.blocked)


def ask(exam: Examination, step: Step) -> Answer:
    """The broker's answer to one step."""
    method, arguments = request(step)
    return exam.ask(method, **arguments)


def exchange(exam: Examination) -> ExchangeLook:
    """What the consumed exchange is like: learned from declarations that are always refused."""
    settings = exam.settings.exchange
    wanted = DeclareExchange(settings.name, settings.type, settings.durable)
    answer = ask(exam, replace(wanted, passive=True))
    if answer.code == ACCESS_REFUSED:  # RabbitMQ 4.3 does so where the user has no permission
        return ExchangeLook(exists=True, answer=answer, why_unknown=f"{wanted}: {answer.text}")
    if answer.code:
        return ExchangeLook(exists=False, answer=answer)
    if settings.name.startswith("amq."):
        kind = settings.name.split(".")[1]
        kind = {"rabbitmq": "topic", "match": "headers"}.get(kind, kind)
        properties = {"type": kind, "durable": True, "auto_delete": False, UNLIKE_ANY: ""}
        return ExchangeLook(True, answer, properties, f"{wanted} is the broker's own")
    return ExchangeLook(True, answer, *exam.connection.declare(_properties(wanted)))


def _properties(step: DeclareExchange) -> Steps[tuple[dict[str, Any], str]]:
    for _ in range(_MOST_DIFFERENCES):
        answer = yield step.compared()
        difference = answer.difference
        if answer.code == ACCESS_REFUSED:
            return {}, f"{step} {_NO_CONFIGURE}"
        if difference is None or not difference.theirs:
            return {}, f"{step}: the broker's answer is not understood ({answer.text})"
        name, theirs = difference.argument, difference.theirs
        if name == UNLIKE_ANY:
            found = {"type": step.exchange_type, "durable": step.durable, "internal": step.internal,
                     "auto_delete": step.auto_delete}  # fmt: skip
            return {**found, UNLIKE_ANY: "" if theirs == "none" else theirs}, ""
        if name == "type":
            step = replace(step, exchange_type=theirs)
        elif name in ("durable", "auto_delete", "internal"):
            change: Any = {name: theirs == "true"}
            step = replace(step, **change)
        else:
            break
    known = {"type": step.exchange_type, "durable": step.durable}
    return known, f"{step} has properties that no declaration takes over"


def main_queue(exam: Examination) -> QueueLook:
    """The queue that is consumed."""
    settings = exam.settings.queue
    if settings.type == "exclusive":
        raise Unknown('queue.type is "exclusive": the queue is made at each start')
    wanted = queue_kinds.of_ours(settings.kind, settings.arguments)
    return _queue(exam, settings.name, wanted.kind)


def dead_letter_queue(exam: Examination) -> QueueLook:
    """The dead-letter queue."""
    if not exam.settings.dead_letter.enabled:
        raise Unknown("dead_letter.enabled is false: there is none")
    return _queue(exam, exam.settings.dead_letter_queue, exam.settings.queue.kind)


def _queue(exam: Examination, name: str, kind: str) -> QueueLook:
    passive = DeclareQueue(name, passive=True)
    try:
        answer = ask(exam, passive)
    except BrokerError as error:
        exam.connection.check()
        # The broker answers, and the queue's process does not.
        return QueueLook(name, True, Answer(INTERNAL_ERROR, str(error)), why_unknown=str(error))
    if answer.code:
        there = answer.code in (LOCKED, ACCESS_REFUSED) or (
            answer.code == NOT_FOUND and answer.passes
        )
        why = f"{passive} cannot be asked: {answer.text}" if there else ""
        return QueueLook(name, there, answer, why_unknown=why)
    try:
        shape = exam.connection.declare(topology.look_at(name, kind))
    except (BrokerError, topology.TopologyMismatch) as error:
        return QueueLook(name, True, answer, why_unknown=f"{passive} cannot be asked for: {error}")
    limit = queue_kinds.limit_of(shape, exam.connection.version) if shape is not None else None
    why = "" if shape is not None else f"{passive} {_NO_CONFIGURE}"
    return QueueLook(name, True, answer, shape, why, limit)


def value_of(look: QueueLook, argument: str) -> Any:
    """A property of the queue; None where it has none. Raises Unknown."""
    shape = look.known
    values = shape.values()
    if argument in values:
        return values[argument]
    if argument == DELIVERY_LIMIT and shape.counts_returns:
        return look.limit
    if not shape.whole:
        raise Unknown(f"queue {look.name!r}: the broker's answers do not show {argument}")
    return None
