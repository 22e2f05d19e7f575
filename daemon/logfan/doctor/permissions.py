"""Checks of what the user may do. Each asks for something that is refused whatever the permission,
or that does nothing; the broker judges the permission first."""

from logfan.amqp.broker_features import ACCESS_REFUSED
from logfan.amqp.topology import Answer, DeclareExchange
from logfan.doctor import looks
from logfan.doctor.examination import Check, Examination
from logfan.doctor.findings import GRANT, Finding, Severity, Unknown, advice, danger, ok

_NEVER = {"x-logfan-doctor": "no binding has this"}
_BOUND_BY_OTHERS = "logfan relies on a binding that is there, and does not make it again"


def _judged(answer: Answer, what: str, *, needed: bool, means: str, otherwise: str) -> Finding:
    if answer.code != ACCESS_REFUSED:
        return ok(f"{what} is permitted")
    if needed:
        return danger(f"the user has no {what} permission", means, GRANT)
    return advice(f"the user has no {what} permission", otherwise, GRANT)


def configure_exchange(exam: Examination) -> Finding:
    """The user may declare the exchange."""
    settings = exam.settings.exchange
    step = DeclareExchange(settings.name, settings.type, settings.durable)
    look = exam.get(looks.exchange)
    needed = settings.declare == "auto" and (not look.exists or look.is_refused)
    return _judged(
        looks.ask(exam, step.compared()), f"configure on {step}", needed=needed,
        means="the exchange may have to be made, and `run` may not make it: it ends with 77",
        otherwise="it is used as it stands; what is wrong with it cannot be learned, and it is not "
        "made again where it goes",
    )  # fmt: skip


def _configure(exam: Examination, queue: str) -> Answer:
    # A lifetime below nothing is refused, whether the queue exists or not.
    return exam.ask("queue_declare", queue=queue, durable=True, arguments={"x-message-ttl": -1})


def configure_queue(exam: Examination) -> Finding:
    """The user may declare the queue."""
    settings = exam.settings.queue
    look = exam.get(looks.main_queue)
    return _judged(
        _configure(exam, settings.name), f"configure on queue {settings.name!r}",
        needed=settings.declare == "auto" and (not look.exists or look.is_refused),
        means="the queue may have to be made, and `run` may not make it: it ends with 77",
        otherwise="it is used as it stands; which of its properties cost messages cannot be "
        "learned, and it is not made again where it goes",
    )  # fmt: skip


def read_queue(exam: Examination) -> Finding:
    """The user may consume the queue."""
    name = exam.get(looks.main_queue).name
    return _judged(
        _consume(exam, name), f"read on queue {name!r}", needed=True,
        means="`run` may not consume it: it ends with 77", otherwise="",
    )  # fmt: skip


def _consume(exam: Examination, queue: str) -> Answer:
    # A priority that is no number is refused before anything is delivered.
    return exam.ask(
        "basic_consume", queue=queue, on_message_callback=lambda *_: None,
        arguments={"x-priority": "no number"},
    )  # fmt: skip


def _keys(exam: Examination) -> tuple[str, ...]:
    return exam.settings.queue.binding_keys(exam.settings.exchange.type) or ("",)


def _unbind_with(exam: Examination, key: str) -> Answer:
    # To remove a binding that is not there needs the permissions of binding, and does nothing.
    queue, exchange = exam.settings.queue.name, exam.settings.exchange.name
    return exam.ask(
        "queue_unbind", queue=queue, exchange=exchange, routing_key=key, arguments=_NEVER
    )


def _unbind(exam: Examination) -> Answer:
    answer = _unbind_with(exam, _keys(exam)[0])
    # The broker judges the key last.
    return Answer() if _refuses(answer, "topic") else answer


def _refuses(answer: Answer, what: str) -> bool:
    """Whether it is a `queue`, or a `topic`, that the user has no access to."""
    return answer.code == ACCESS_REFUSED and f"access to {what}" in answer.text


def write_queue(exam: Examination) -> Finding:
    """The user may bind the queue (write on it)."""
    settings = exam.settings.queue
    name = exam.get(looks.main_queue).name
    answer = exam.get(_unbind)
    return _judged(
        answer if _refuses(answer, "queue") else Answer(), f"write on queue {name!r}",
        needed=settings.declare == "auto", means="`run` may not bind it: it ends with 77",
        otherwise=_BOUND_BY_OTHERS,
    )  # fmt: skip


def read_exchange(exam: Examination) -> Finding:
    """The user may bind the queue (read on the exchange)."""
    exchange = exam.settings.exchange.name
    answer = exam.get(_unbind)
    if _refuses(answer, "queue"):
        raise Unknown("the broker asks for write on the queue first, which is refused")
    return _judged(
        answer, f"read on exchange {exchange!r}",
        needed=exam.settings.queue.declare == "auto",
        means="`run` may not bind the queue to it: it ends with 77",
        otherwise=_BOUND_BY_OTHERS,
    )  # fmt: skip


def read_topics(exam: Examination) -> Finding:
    """The user may bind the queue with each key (topic permissions)."""
    settings = exam.settings
    if not exam.get(looks.exchange).exists and settings.exchange.type == "topic":
        raise Unknown("the exchange does not exist yet, so the broker judges no routing key")
    if exam.get(_unbind).code == ACCESS_REFUSED:
        raise Unknown("the broker asks for permissions on queue and exchange first, see above")
    refused = [key for key in _keys(exam) if _refuses(_unbind_with(exam, key), "topic")]
    if not refused:
        return ok("no topic permission is in the way of the binding")
    is_danger = settings.queue.declare == "auto"
    keys = ", ".join(map(repr, refused))
    return (danger if is_danger else advice)(
        f"the user may not bind with {keys} on exchange {settings.exchange.name!r}: its topic "
        "permissions there forbid it",
        "`run` may not bind the queue: it ends with 77" if is_danger else _BOUND_BY_OTHERS,
        "give read on these keys with rabbitmqctl set_topic_permissions, or correct "
        "queue.routing_keys",
    )  # fmt: skip


def write_exchange(exam: Examination) -> Finding:
    """The user may keep the mark that shows a lost binding."""
    exchange, queue = exam.settings.exchange.name, exam.get(looks.main_queue).name
    answer = exam.ask(
        "exchange_unbind", destination=exchange, source=f"{queue}.binding", arguments=_NEVER
    )
    return _judged(
        answer, f"write on exchange {exchange!r}, or read on its mark,", needed=False, means="",
        otherwise="a binding that was lost is made again, and not counted in logfan_rebound_total",
    )  # fmt: skip


def write_default(exam: Examination) -> Finding:
    """The user may send dead letters (write on `amq.default`). Publishes one empty message that no
    queue gets."""
    if not exam.settings.dead_letter.enabled:
        return ok("dead_letter.enabled is false: none are sent")
    found = exam.get(looks.published)
    if not found.refusal.code and not found.is_confirmed:
        raise Unknown("the broker takes no messages now (alarms)")
    return _judged(
        found.refusal, "write on the default exchange (amq.default)", needed=True,
        means="dead letters cannot be sent: what a sink refuses stays unacknowledged", otherwise="",
    )  # fmt: skip


def configure_dead_letters(exam: Examination) -> Finding:
    """The user may declare the dead-letter queue."""
    look = exam.get(looks.dead_letter_queue)
    return _judged(
        _configure(exam, look.name), f"configure on queue {look.name!r}",
        needed=not look.exists or look.is_refused,
        means="it does not exist and may not be made: what a sink refuses stays unacknowledged",
        otherwise="it is used as it stands; which of its properties cost letters cannot be learned",
    )  # fmt: skip


def read_dead_letters(exam: Examination) -> Finding:
    """The user may look at dead letters."""
    name = exam.get(looks.dead_letter_queue).name
    return _judged(
        _consume(exam, name), f"read on queue {name!r}", needed=False, means="",
        otherwise="the daemon needs none; `logfan dlq` cannot show or replay letters",
    )  # fmt: skip


_DANGER, _ADVICE = Severity.DANGER, Severity.ADVICE
CHECKS = (
    Check("may-configure-exchange", "AMQP", _DANGER, configure_exchange),
    Check("may-configure-queue", "AMQP", _DANGER, configure_queue),
    Check("may-read-queue", "AMQP", _DANGER, read_queue),
    Check("may-write-queue", "AMQP", _DANGER, write_queue),
    Check("may-read-exchange", "AMQP", _DANGER, read_exchange),
    Check("may-read-topics", "AMQP", _DANGER, read_topics),
    Check("may-write-exchange", "AMQP", _ADVICE, write_exchange),
    Check("may-write-default", "AMQP", _DANGER, write_default),
    Check("may-configure-dead-letters", "AMQP", _DANGER, configure_dead_letters),
    Check("may-read-dead-letters", "AMQP", _ADVICE, read_dead_letters),
)
