"""Checks of the queue and of the dead-letter queue: what of their properties costs messages."""

from collections.abc import Iterator
from typing import Any

from logfan.amqp import queue_kinds
from logfan.amqp.broker_features import LOCKED
from logfan.amqp.queue_kinds import ANEW, CLASSIC, DELIVERY_LIMIT, QUORUM, STREAM, TYPE
from logfan.doctor import looks
from logfan.doctor.examination import Check, Examination
from logfan.doctor.findings import GRANT, Finding, Severity, advice, danger, ok, warning
from logfan.doctor.looks import QueueLook

_DANGER, _WARNING, _ADVICE = Severity.DANGER, Severity.WARNING, Severity.ADVICE
_ANOTHER = "delete it once it is empty and logfan makes it anew, or use another queue.name"


def exists(exam: Examination) -> Finding:
    """The queue exists and can be reached, or may be made."""
    settings = exam.settings.queue
    if settings.type == "exclusive":
        return advice(
            'queue.type is "exclusive"',
            "what is published while logfan is stopped or reconnects is lost",
            'set queue.type to "classic" or "quorum" where that matters',
        )
    look = exam.get(looks.main_queue)
    if look.answer.code:
        return _unreached(look, settings.declare, "queue.declare", "queue.name")
    return ok(f"queue {look.name!r} exists")


def _unreached(look: QueueLook, declare: str, key: str, name_key: str) -> Finding:
    name = f"queue {look.name!r}"
    if look.answer.code == LOCKED:
        return danger(
            f"{name} is exclusive to another connection", "logfan waits until that one ends",
            f"end that program, or use another {name_key}",
        )  # fmt: skip
    if look.is_refused:
        return danger(
            f"the user may not ask for {name}", "logfan cannot use it: it has no permission on it",
            GRANT,
        )  # fmt: skip
    if look.exists:
        return danger(
            f"{name} cannot be reached: {look.answer.text}", "logfan waits until it answers",
            "start the node of the broker that has it; where that runs, look at its log and at "
            "`rabbitmqctl list_queues name state pid`",
        )  # fmt: skip
    if declare == "auto":
        return advice(
            f"{name} does not exist yet",
            "`run` makes it; what was published before does not arrive",
            f"start logfan before the programs that publish, or check {name_key}",
        )
    return danger(
        f"{name} does not exist", "there is nothing to consume",
        f'create it, check {name_key}, or set {key} = "auto"',
    )  # fmt: skip


def kind(exam: Examination) -> Finding:
    """It is no stream, and of the type `queue.type`."""
    look, wanted = exam.get(looks.main_queue), exam.settings.queue.kind
    found = looks.value_of(look, TYPE) if look.exists else wanted
    if found == STREAM:
        return danger(
            f"queue {look.name!r} is a stream", queue_kinds.stream_mismatch(look.name),
            "bind a classic or a quorum queue to the exchange and name it in queue.name",
        )  # fmt: skip
    if found == CLASSIC and wanted == QUORUM:
        return warning(
            f"queue {look.name!r} is a classic queue, and queue.type is 'quorum'",
            "it has no copies on other nodes: its messages wait for its node, or go with it",
            _ANOTHER,
        )
    return ok(f"it is a {found} queue")


def arguments(exam: Examination) -> Finding:
    """What `queue.arguments` asks for is in force."""
    look, wanted = exam.get(looks.main_queue), exam.settings.queue.arguments
    missing = [
        f"{name} is {looks.value_of(look, name)!r} and not {value!r}"
        for name, value in wanted.items()
        if look.exists and looks.value_of(look, name) != value
    ]
    if missing:
        return warning(
            f"queue {look.name!r}: {'; '.join(missing)}",
            "what queue.arguments asks for is not in force: a queue keeps what it was made with",
            f"set it by a policy, or {_ANOTHER}",
        )
    return ok("queue.arguments holds" if wanted else "queue.arguments asks for nothing")


def consumers(exam: Examination) -> Finding:
    """Who else consumes the queue."""
    look = exam.get(looks.main_queue)
    count = look.counted.consumers
    if count > 1:
        return advice(
            f"queue {look.name!r} has {count} consumers",
            "each message goes to one of them; what another program takes never reaches the sinks",
            "that is as it should be where all of them are logfan; else give each program a queue "
            "of its own, bound to the exchange",
        )
    if count:
        return ok("it has one consumer: the daemon, or else another program")
    return ok("it has no consumer")


def backlog(exam: Examination) -> Finding:
    """Nothing waits without a consumer."""
    look = exam.get(looks.main_queue)
    if look.counted.messages and not look.counted.consumers:
        return advice(
            f"{look.answer.messages:,} messages wait in queue {look.name!r}, and nothing "
            "consumes it", "they wait until a daemon runs", "start logfan",
        )  # fmt: skip
    return ok(f"{look.answer.messages:,} messages wait")


def dead_letters_exist(exam: Examination) -> Finding:
    """The dead-letter queue can be reached, and is empty."""
    if not exam.settings.dead_letter.enabled:
        return warning(
            "dead_letter.enabled is false",
            "a record that a sink refuses is offered again without end, and holds its place",
            "set dead_letter.enabled = true",
        )
    look = exam.get(looks.dead_letter_queue)
    if look.answer.code and look.exists:
        return _unreached(look, "auto", "", "dead_letter.queue")
    if look.answer.messages:
        return advice(
            f"{look.answer.messages:,} messages wait in queue {look.name!r}",
            "sinks refused them; they are kept there until somebody looks",
            "`logfan dlq list` shows why, `logfan dlq replay` sends them again",
        )
    return ok(f"queue {look.name!r} is empty" if look.exists else "it will be made")


def dead_letter_type(exam: Examination) -> Finding:
    """Letters can be kept there and taken out again."""
    look = exam.get(looks.dead_letter_queue)
    mismatch = queue_kinds.dead_letter_mismatch(look.name, look.known) if look.exists else ""
    if mismatch:
        return danger(
            mismatch.removesuffix(ANEW), "the sink that refuses a record waits, not ready",
            ANEW.removeprefix("; "),
        )  # fmt: skip
    return ok("letters can be kept there")


def _property(
    name: str, argument: str, worst: Severity, asks: str, also: str = ""
) -> tuple[Check, Check]:
    """The checks of one property: of the queue, and of the dead-letter queue."""
    names = [argument, *([also] if also else [])]

    def of_queue(exam: Examination) -> Iterator[Finding]:
        look = exam.get(looks.main_queue)
        wished = exam.settings.queue.arguments
        found = list(_harms(look, names, worst, wished, letters=False))
        yield from found or [ok(f"{argument} costs no message")]

    def of_letters(exam: Examination) -> Iterator[Finding]:
        look = exam.get(looks.dead_letter_queue)
        found = list(_harms(look, names, worst, {}, letters=True))
        yield from found or [ok(f"{argument} costs no letter")]

    of_queue.__doc__ = of_letters.__doc__ = asks
    return (
        Check(f"queue-{name}", "AMQP", worst, of_queue, True),
        Check(f"dead-letters-{name}", "AMQP", worst, of_letters, True),
    )


def _harms(
    look: QueueLook, names: list[str], severity: Severity, wished: Any, *, letters: bool
) -> Iterator[Finding]:
    for name in names if look.exists else ():
        value = looks.value_of(look, name)
        harm = queue_kinds.harm_of(name, value, look.known, look.limit)
        text = harm.letters if letters else harm.consumed
        if value is None or not text:
            continue
        means, _, way_out = text.partition("; ")
        shown = str(value).lower() if isinstance(value, bool) else value
        what = f"{'dead-letter ' if letters else ''}queue {look.name!r}: {name} is {shown}"
        how = severity
        if name.startswith("x-max-length") and "reject" in str(looks.value_of(look, "x-overflow")):
            how = _WARNING  # it is the publisher that learns of it, with confirms
        if name in wished and wished[name] == value:
            how = _ADVICE
        if letters or not way_out:
            way_out = ANEW.removeprefix("; ") if letters else _ANOTHER
        yield Finding(how, what, means, way_out)


_PROPERTIES = (
    _property("durable", "durable", _DANGER, "A restart of the broker keeps it and its messages."),
    _property("auto-delete", "auto_delete", _DANGER, "It does not go with its last consumer."),
    _property("expires", "x-expires", _DANGER, "It does not go for not being used (`x-expires`)."),
    _property("ttl", "x-message-ttl", _DANGER,
        "Nothing is dropped for waiting long (`x-message-ttl`)."),
    _property("length", "x-max-length", _DANGER,
        "Nothing is dropped for its length (`x-max-length`, `x-overflow`).", "x-max-length-bytes"),
    _property("delivery-limit", DELIVERY_LIMIT, _WARNING, "Nothing is dropped for being returned."),
)  # fmt: skip
_SINGLE_ACTIVE, _ = _property(
    "single-active",
    "x-single-active-consumer",
    _ADVICE,
    "Whether one consumer alone gets messages.",
)
CHECKS = (
    Check("queue", "AMQP", _DANGER, exists, True),
    Check("queue-type", "AMQP", _DANGER, kind, True),
    *(of_queue for of_queue, _ in _PROPERTIES),
    _SINGLE_ACTIVE,
    Check("queue-arguments", "AMQP", _WARNING, arguments, True),
    Check("consumers", "AMQP", _ADVICE, consumers, True),
    Check("backlog", "AMQP", _ADVICE, backlog, True),
    Check("dead-letters", "AMQP", _DANGER, dead_letters_exist, True),
    Check("dead-letters-type", "AMQP", _DANGER, dead_letter_type, True),
    *(of_letters for _, of_letters in _PROPERTIES),
)
