"""Checks of the exchange and of the queue's binding to it."""

from logfan.amqp.broker_features import keeps_transient_exchanges
from logfan.amqp.topology import UNLIKE_ANY, DeclareExchange
from logfan.doctor import looks
from logfan.doctor.examination import Check, Examination
from logfan.doctor.findings import GRANT, Finding, Severity, Unknown, advice, danger, ok, warning

_BY_KEY = ("direct", "topic", "headers")


def _name(exam: Examination) -> str:
    return f"exchange {exam.settings.exchange.name!r}"


def exists(exam: Examination) -> Finding:
    """The exchange exists, or may be made."""
    look, name = exam.get(looks.exchange), _name(exam)
    if look.is_refused:
        return danger(
            f"the user may not ask for {name}", "`run` ends with 77: it has no permission on it",
            GRANT,
        )  # fmt: skip
    if look.exists:
        return ok(f"{name} exists")
    if exam.settings.exchange.declare == "auto":
        return advice(
            f"{name} does not exist yet", "`run` makes it; until then no program can publish to it",
            "start logfan before the programs that publish, or check exchange.name",
        )  # fmt: skip
    return danger(
        f"{name} does not exist", "the queue cannot be bound, and nothing arrives",
        'create it, check exchange.name, or set exchange.declare = "auto"',
    )  # fmt: skip


def kind(exam: Examination) -> Finding:
    """Its type is `exchange.type`."""
    ours = exam.settings.exchange.type
    if not exam.get(looks.exchange).exists:
        return ok("it will be made as configured")
    theirs = exam.get(looks.exchange).known("type")
    if theirs == ours:
        return ok(f"its type is {theirs}")
    return danger(
        f"{_name(exam)} is of type {theirs!r}, and exchange.type is {ours!r}",
        "bindings mean something else there: `run` ends with 77",
        f'set exchange.type = "{theirs}", or use another exchange.name',
    )


def durable(exam: Examination) -> Finding:
    """A restart of the broker keeps it."""
    look, version = exam.get(looks.exchange), exam.connection.version
    is_durable = look.known("durable") if look.exists else exam.settings.exchange.durable
    if is_durable or keeps_transient_exchanges(version):
        return ok("a restart of the broker keeps it")
    return warning(
        f"{_name(exam)} is not durable" if look.exists else "exchange.durable is false",
        "a restart of the broker removes it, and the binding of the queue with it; what is "
        "published until logfan has bound it again is lost",
        "stop the publishers, delete the exchange, and declare it durable from now on: "
        "exchange.durable = true, durable=True in the publishers",
    )


def auto_delete(exam: Examination) -> Finding:
    """It does not go with its last queue."""
    look = exam.get(looks.exchange)
    if look.exists and look.known("auto_delete"):
        return warning(
            f"{_name(exam)} is auto-delete",
            "it goes when its last queue is unbound or deleted; publishing fails then",
            "have who declares it do so without auto_delete",
        )
    return ok("it stays without a queue")


def internal(exam: Examination) -> Finding:
    """Programs can publish to it."""
    look = exam.get(looks.exchange)
    if look.exists and look.known("internal"):
        return advice(
            f"{_name(exam)} is internal", "no program can publish to it, other exchanges can",
            "see that another exchange is bound to it",
        )  # fmt: skip
    return ok("programs can publish to it")


def alternate(exam: Examination) -> Finding:
    """What matches no binding goes somewhere."""
    look = exam.get(looks.exchange)
    if not look.exists or exam.settings.exchange.type not in _BY_KEY:
        return ok("every message reaches the bound queues")
    other = look.known(UNLIKE_ANY)
    if other:
        return ok(f"what matches no binding goes to exchange {other!r}")
    return advice(
        f"{_name(exam)} has no alternate exchange",
        "the broker drops a message whose routing key matches no binding",
        "set alternate-exchange by a policy where those messages matter, or bind with "
        'queue.routing_keys = ["#"] on a topic exchange',
    )


def binding(exam: Examination) -> Finding:
    """The queue is bound to the exchange."""
    settings = exam.settings
    if settings.queue.type == "exclusive":
        return ok("the queue is bound at each start")
    queue = exam.get(looks.main_queue)
    if not queue.exists or not exam.get(looks.exchange).exists:
        return ok("nothing is there yet to be bound; `run` does it")
    mark = DeclareExchange(f"{queue.name}.binding", "fanout", False, passive=True)
    if looks.ask(exam, mark).code:
        raise Unknown(
            "AMQP has no question for bindings, and no logfan has left its mark here; "
            "rabbitmq.management_url makes them known, and `run` binds the queue anyway"
        )
    return ok("the mark of logfan shows that the queue is bound")


_DANGER, _WARNING, _ADVICE = Severity.DANGER, Severity.WARNING, Severity.ADVICE
CHECKS = (
    Check("exchange", "AMQP", _DANGER, exists, True),
    Check("exchange-type", "AMQP", _DANGER, kind, True),
    Check("exchange-durable", "AMQP", _WARNING, durable, True),
    Check("exchange-auto-delete", "AMQP", _WARNING, auto_delete, True),
    Check("exchange-internal", "AMQP", _ADVICE, internal, True),
    Check("alternate-exchange", "AMQP", _ADVICE, alternate, True),
    Check("binding", "AMQP", _ADVICE, binding, True),
)
