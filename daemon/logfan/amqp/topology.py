"""What to declare, and what to make of the broker's answers. Sans-I/O: `client` asks.

Each generator yields one step, gets an `Answer` back, and ends by returning or by raising
`TopologyMismatch`. After a refusal the broker has closed the channel; opening another one is up to
the caller.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar, get_args

from logfan.amqp import queue_kinds
from logfan.amqp.broker_features import (
    ACCESS_REFUSED,
    LOCKED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    keeps_transient_exchanges,
    passes_by_itself,
)
from logfan.amqp.queue_kinds import CLASSIC, DELIVERY_LIMIT, TYPE, Difference, Shape
from logfan.config.settings import ExchangeSettings, QueueSettings

_MOST_DIFFERENCES = 24
UNLIKE_ANY = "alternate-exchange"
"""An argument of exchanges whose value is a name: no exchange has a number there."""


# A step is a method of pika's channel; its fields are that method's arguments.


@dataclass(frozen=True, slots=True)
class DeclareExchange:
    """`passive` only asks whether it is there."""

    method: ClassVar = "exchange_declare"
    exchange: str
    exchange_type: str
    durable: bool
    passive: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"exchange {self.exchange!r}"

    def compared(self) -> "DeclareExchange":
        """A declaration that RabbitMQ always refuses: it names the first difference to what
        exists, in the end `UNLIKE_ANY`, and creates nothing where nothing exists."""
        return replace(self, arguments={UNLIKE_ANY: 1})


@dataclass(frozen=True, slots=True)
class DeleteExchange:
    """Delete the exchange where nothing is bound to it."""

    method: ClassVar = "exchange_delete"
    exchange: str
    if_unused: bool = True

    def __str__(self) -> str:
        return f"exchange {self.exchange!r}"


@dataclass(frozen=True, slots=True)
class DeclareQueue:
    """`passive` only asks whether it is there. An empty name has the broker choose one."""

    method: ClassVar = "queue_declare"
    queue: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    passive: bool = False

    def __str__(self) -> str:
        return f"queue {self.queue!r}" if self.queue else "a queue of our own"


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the queue to the exchange."""

    method: ClassVar = "queue_bind"
    queue: str
    exchange: str
    routing_key: str

    def __str__(self) -> str:
        return f"queue {self.queue!r} to exchange {self.exchange!r}"


@dataclass(frozen=True, slots=True)
class BindExchange:
    """Have all that reaches `source` go on to `destination`."""

    method: ClassVar = "exchange_bind"
    destination: str
    source: str

    def __str__(self) -> str:
        return f"exchange {self.destination!r} to exchange {self.source!r}"


Step = DeclareExchange | DeleteExchange | DeclareQueue | Bind | BindExchange


def request(step: Step) -> tuple[str, dict[str, Any]]:
    """The method of pika's channel that carries the step out, and its arguments."""
    return step.method, {one.name: getattr(step, one.name) for one in fields(step)}


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker's answer: `code` 0 for yes, else AMQP's reply code with its text."""

    code: int = 0
    text: str = ""
    queue: str = ""
    """The name of the queue just declared."""
    messages: int = 0
    """How many messages wait in the queue just declared."""
    consumers: int = 0
    """How many consumers that queue has."""

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"

    @property
    def passes(self) -> bool:
        """Whether the refusal passes by itself: a node is down, or another has the queue."""
        return passes_by_itself(self.code, self.text)

    @property
    def difference(self) -> Difference | None:
        """In what existing thing and declaration differ; None where it is no such refusal."""
        return Difference.of(self.text) if self.code == PRECONDITION_FAILED else None


@dataclass(frozen=True, slots=True)
class Declared:
    """The queue to consume, and what the operator should know."""

    queue: str
    remarks: tuple[str, ...] = ()
    """Of this declaration; what was remarked before is not repeated."""
    delivery_limit: int | None = None
    """After so many returns the broker drops a message; None where it never does."""
    shape: Shape | None = None
    """What the queue is like; None where that could not be asked for."""
    bindings: tuple[Bind, ...] = ()
    """Those of the queue that were made, or were there."""
    durable: bool | None = None
    """Whether the exchange is; None where this was not asked for, or not answered."""
    restart_unbinds: bool = False
    """Whether a restart of the broker removes the exchange, and with it the binding."""
    made_exchange: bool = False
    made_queue: bool = False

    @property
    def kind(self) -> str:
        """`classic`, `quorum` or `stream`; empty where it is not known."""
        return self.shape.kind if self.shape is not None else ""

    @property
    def goes_with_connection(self) -> bool:
        """Whether the queue is deleted with our connection, unless others consume it."""
        return self.shape is not None and (self.shape.exclusive or self.shape.auto_delete)

    @property
    def needs_stand_in(self) -> bool:
        """Whether another consumer must keep the queue during a pause: it goes with its last one,
        at once or later. Not at once where returns are counted, as each pause would use one up."""
        shape = self.shape
        if shape is None:
            return False
        return (shape.auto_delete and self.delivery_limit is None) or self.spare_seconds > 0

    @property
    def spare_seconds(self) -> float:
        """For so long a queue that expires may surely be without a consumer; 0 for any other, and
        where it is gone at once."""
        if self.shape is None or self.shape.auto_delete:
            return 0.0
        return (self.shape.number("x-expires") or 0) / 2000


class TopologyMismatch(Exception):
    """The topology cannot be used as it is; the text has what differs and the way out."""

    def __init__(
        self, why: object, answer: Answer | None = None, *, shape: Shape | None = None
    ) -> None:
        """`answer`: the refusal. `shape`: what the queue is like, where that was found out."""
        super().__init__(why if answer is None else f"{why}: {answer}")
        self.shape = shape
        self.code = 0 if answer is None else answer.code
        """AMQP's reply code, where a refusal is the reason; else 0."""
        self.passes = answer is not None and answer.passes


T = TypeVar("T")
Steps = Generator[Step, Answer, T]
"""Steps, each of which gets its answer, and what came of them."""


def declare(
    exchange: ExchangeSettings,
    queue: QueueSettings,
    *,
    known: Declared | None = None,
    version: tuple[int, ...] = (),
) -> "Steps[Declared]":
    """All that a subscription needs. `known`: what came of it before for this consumer (a reload
    that changes the config makes another); the broker logs an error for each difference, so only
    what changed is asked for again. `version` is the broker's; empty where it reports none."""
    remarks: list[str] = []
    durable, made_exchange = yield from _exchange(exchange, remarks, compare=known is None)
    restart_unbinds = durable is False and not keeps_transient_exchanges(version)
    binds, made_queue = queue.declare != "never", queue.type == "exclusive"
    found: Shape | None = None
    name = queue.name
    if queue.type == "exclusive":
        name, found = yield from _exclusive(queue)
    elif binds:
        wanted = queue_kinds.of_ours(queue.kind, queue.arguments)
        found, made_queue = yield from _durable(name, wanted, known, queue.declare)
        if found is not None:
            if found.kind == queue_kinds.STREAM:
                raise TopologyMismatch(queue_kinds.stream_mismatch(name), shape=found)
            if known is None or known.shape != found:
                limit = _in_force(queue, found, version)
                remarks += queue_kinds.remarks(name, wanted, found, limit)
    limit = _in_force(queue, found, version)
    guessed = found is None or not found.whole
    if guessed and limit is not None and queue.delivery_limit is None and known is None:
        remarks.append(
            f"what queue {name!r} is like cannot be asked for: if it is a quorum queue, it is "
            f"taken to drop a message after {limit} returns; queue.delivery_limit names the limit "
            "in force"
        )
    bindings = (yield from _bind(exchange, queue, name, remarks)) if binds else ()
    if restart_unbinds and binds and queue.type != "exclusive":
        remarks.append(_not_durable(exchange.name, name))
    return Declared(
        name, tuple(remarks), limit, found, bindings=bindings, durable=durable,
        restart_unbinds=restart_unbinds, made_exchange=made_exchange, made_queue=made_queue,
    )  # fmt: skip


def dead_letter_queue(
    name: str, kind: str, *, known: Shape | None = None, version: tuple[int, ...] = ()
) -> "Steps[Declared]":
    """The dead-letter queue: durable, and of the kind of the main one. `known` is what it was like
    before. Raises TopologyMismatch where letters would be lost in it at once."""
    before = None if known is None else Declared(name, shape=known)
    found, _ = yield from _durable(name, queue_kinds.of_ours(kind, {}), before, "auto")
    if found is None:
        return Declared(name)
    if mismatch := queue_kinds.dead_letter_mismatch(name, found):
        raise TopologyMismatch(mismatch, shape=found)
    limit = queue_kinds.limit_of(found, version)
    remarks = () if known == found else tuple(queue_kinds.remarks_of_letters(name, found, limit))
    return Declared(name, remarks, limit, found)


def look_at(name: str, kind: str) -> "Steps[Shape | None]":
    """What an existing queue is like, which should be of this kind; None where the broker does not
    let us ask."""
    return _compare(name, queue_kinds.of_ours(kind, {}), existed=True)


def publish_to(exchange: ExchangeSettings) -> "Steps[None]":
    """What a publisher to the exchange needs: that it is there."""
    yield from _exchange(exchange, [], compare=False)


def tap(
    exchange: ExchangeSettings, queue: QueueSettings, *, most: int, most_bytes: int
) -> "Steps[str]":
    """A queue of its own beside all others, bound as `queue` is: it goes with its connection, and
    holds the newest `most` messages of no more than `most_bytes`. Makes nothing else. Returns its
    name."""
    try:
        return (yield from _tapped(exchange, queue, most, most_bytes))
    except TopologyMismatch as mismatch:
        if mismatch.code != ACCESS_REFUSED:
            raise
        raise TopologyMismatch(f"{mismatch}{_TAP_PERMISSIONS}") from None


def _tapped(
    exchange: ExchangeSettings, queue: QueueSettings, most: int, most_bytes: int
) -> "Steps[str]":
    if exchange.declare != "never":
        passive = DeclareExchange(exchange.name, exchange.type, exchange.durable, passive=True)
        if not (yield from _exists(passive, "auto")):
            raise TopologyMismatch(
                f"{passive} does not exist, and tap makes none; start the daemon or a publisher, "
                "or set exchange.name"
            )
        existing = exchange.model_copy(update={"declare": "passive"})
        yield from _exchange(existing, [], compare=True)
    limits = {"x-max-length": most, "x-max-length-bytes": most_bytes, "x-overflow": "drop-head"}
    shape = queue_kinds.of_ours(CLASSIC, limits)
    step = _declaration("", replace(shape, durable=False, exclusive=True, auto_delete=True))
    answer = yield step
    if answer.code:
        raise TopologyMismatch(f"{step} may not be declared", answer)
    # With "passive" a binding that is refused would be taken to be there.
    binding = queue.model_copy(update={"declare": "auto"})
    yield from _bind(exchange, binding, answer.queue, [])
    return answer.queue


_TAP_PERMISSIONS = "; tap needs configure, write and read on ^amq\\.gen.*, and read on the exchange"


def _in_force(queue: QueueSettings, found: Shape | None, version: tuple[int, ...]) -> int | None:
    """The delivery limit: what the operator names, but no more than the queue was declared with."""
    if found is not None and not found.counts_returns:
        return None
    by_shape = queue_kinds.limit_of(found, version)
    if queue.delivery_limit is None:
        return by_shape
    declared = None if found is None or found.number(DELIVERY_LIMIT) is None else by_shape
    named = None if queue.delivery_limit == "none" else queue.delivery_limit
    limits = [limit for limit in (declared, named) if limit is not None]
    return min(limits, default=None)


def absent(what: str, declare: str) -> str:
    """That `queue 'name'` or `exchange 'name'` does not exist, and the way out."""
    key = f"{what.split(maxsplit=1)[0]}.declare"
    return (
        f'{what} does not exist and {key} = "{declare}" says that it must; create it, or set '
        f'{key} = "auto"'
    )


def _exists(passive: DeclareExchange | DeclareQueue, declare: str) -> "Steps[bool]":
    """Ask whether it is there. With `declare` = "passive" it must be."""
    answer = yield passive
    if answer.code == 0:
        return True
    if answer.code == NOT_FOUND and not answer.passes:
        if declare == "passive":
            raise TopologyMismatch(absent(str(passive), "passive"))
        return False
    exclusive = "is exclusive to another connection; use another queue.name, or end that program"
    raise TopologyMismatch(f"{passive} {exclusive}" if answer.code == LOCKED else passive, answer)


def _exchange(
    settings: ExchangeSettings, remarks: list[str], *, compare: bool
) -> "Steps[tuple[bool | None, bool]]":
    """Returns whether the exchange is durable, where this is known, and whether it was made."""
    if settings.declare == "never":
        return None, False
    wanted = DeclareExchange(settings.name, settings.type, settings.durable)
    existed = yield from _exists(replace(wanted, passive=True), settings.declare)
    if existed and not compare:
        return None, False
    if existed and settings.name.startswith(_OF_BROKER):
        return True, False
    passive = settings.declare == "passive"
    answer = yield wanted.compared() if passive else wanted
    if answer.code == 0:
        return settings.durable, not existed
    if existed and answer.code == ACCESS_REFUSED:
        return None, False
    difference = answer.difference
    if difference is None and passive:  # it went since it was asked for
        yield from _exists(replace(wanted, passive=True), settings.declare)
        return None, False
    if difference is None:
        raise TopologyMismatch(f"{wanted} may not be declared", answer)
    if difference.argument == "durable":
        return difference.theirs == "true", False
    if difference.argument == UNLIKE_ANY:
        return settings.durable, False
    if difference.argument == "type":
        raise TopologyMismatch(another_type(settings, difference))
    remarks.append(
        f"{wanted} is used as it stands: {difference.argument} is {difference.theirs!r} on the "
        f"broker, {difference.ours!r} in the config{_EXCHANGE_HARM.get(difference.argument, '')}"
    )
    return None, False


def another_type(settings: ExchangeSettings, difference: Difference) -> str:
    """That the exchange is of another type, where bindings mean something else; the way out."""
    known = difference.theirs in get_args(ExchangeSettings.model_fields["type"].annotation)
    right = f'type = "{difference.theirs}"' if known else 'declare = "never"'
    return (
        f"exchange {settings.name!r} exists with another type: exchange.type is {settings.type!r} "
        f"here but {difference.theirs!r} on the broker; set exchange.{right}, or use another "
        "exchange.name"
    )


def _not_durable(exchange: str, queue: str) -> str:
    return (
        f"exchange {exchange!r} is not durable: a restart of the broker removes it, and with it "
        f"the binding of queue {queue!r}. What is published after that and before logfan has bound "
        "it again (it binds at its start and every 5 s) reaches no queue: it is lost. "
        "To prevent it stop the publishers, delete the exchange, and declare it durable from now "
        "on: exchange.durable = true here, durable=True in the publishers. Until then publish with "
        "confirms and `mandatory`, and publish again what is returned"
    )


_OF_BROKER = "amq.rabbitmq."
"""The broker's own log, events and trace: durable, and internal or not by its version. To declare
one with a difference would be an error in that log."""
_EXCHANGE_HARM = {
    "auto_delete": "; it goes, with what is published to it, when its last queue is unbound; have "
    "who declares it do so without auto_delete",
    "internal": "; programs cannot publish to it, other exchanges can",
}


def _exclusive(settings: QueueSettings) -> "Steps[tuple[str, Shape]]":
    shape = queue_kinds.of_ours(CLASSIC, settings.arguments)
    shape = replace(shape, durable=False, exclusive=True)
    step = _declaration("", shape)
    answer = yield step
    if answer.code:
        raise TopologyMismatch(f"{step} may not be declared", answer)
    return answer.queue, shape


def _declaration(name: str, shape: Shape) -> DeclareQueue:
    return DeclareQueue(
        name, durable=shape.durable, exclusive=shape.exclusive, auto_delete=shape.auto_delete,
        arguments=dict(shape.arguments),
    )  # fmt: skip


def _durable(
    name: str, wanted: Shape, known: Declared | None, declare: str
) -> "Steps[tuple[Shape | None, bool]]":
    """A queue that is used as it stands where it exists, else made as wanted. Returns what it is
    like, None where the broker does not let us ask; and whether it was made."""
    existed = yield from _exists(DeclareQueue(name, passive=True), declare)
    if existed and known is not None:
        if known.shape is None:
            return None, False  # it may not be asked for, as was seen
        wanted = known.shape
    found = yield from _compare(name, wanted, existed=existed)
    return found, not existed


def _compare(name: str, shape: Shape, *, existed: bool) -> "Steps[Shape | None]":
    """Declare, taking over what the broker names, until a declaration fits."""
    adopted: set[str] = set()
    for _ in range(_MOST_DIFFERENCES):
        step = _declaration(name, shape)
        answer = yield step
        if answer.code == 0:
            return shape
        difference = answer.difference
        unasked = existed and answer.code == ACCESS_REFUSED
        if not adopted and not unasked and (difference is None or difference.is_invalid):
            raise TopologyMismatch(f"{step} may not be declared", answer)
        if difference is None or difference.argument in adopted - {TYPE}:
            break
        other = shape.adopting(difference)
        if other is None:
            break  # something that no declaration can take over
        adopted.add(difference.argument)
        shape = other
    return shape.only(adopted) if adopted else None


def _bind(
    exchange: ExchangeSettings, queue: QueueSettings, name: str, remarks: list[str]
) -> "Steps[tuple[Bind, ...]]":
    """Returns the bindings that stand; none where those that are there must do."""
    bindings: list[Bind] = []
    for key in queue.binding_keys(exchange.type):
        binding = Bind(name, exchange.name, key)
        answer = yield binding
        if answer.code == 0:
            bindings.append(binding)
            continue
        what = f"queue {name!r} may not be bound to exchange {exchange.name!r}"
        if answer.code == ACCESS_REFUSED and queue.declare == "passive":
            remarks.append(f"{what} ({answer}); relying on a binding that is there already")
            return ()
        raise TopologyMismatch(what, answer)
    return tuple(bindings)
