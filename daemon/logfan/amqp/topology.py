"""What to declare, and what to make of the broker's answers. Sans-I/O: the subscription asks.

Each generator yields one step, gets an `Answer` back, and ends by returning or by raising
`TopologyMismatch`. After a refusal the broker has closed the channel; opening another is the
subscription's business.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_args

from logfan.amqp import queue_kinds as shapes
from logfan.amqp.broker_features import keeps_transient_exchanges
from logfan.amqp.queue_kinds import CLASSIC, DELIVERY_LIMIT, QUORUM, TYPE, Difference, Shape
from logfan.amqp.replies import passes_by_itself
from logfan.config.settings import ExchangeSettings, QueueSettings

NOT_FOUND, LOCKED, INEQUIVALENT, ACCESS_REFUSED = 404, 405, 406, 403
_MOST_DIFFERENCES = 24


@dataclass(frozen=True, slots=True)
class DeclareExchange:
    """`passive` only asks whether it is there."""

    name: str
    type: str
    durable: bool
    passive: bool = False
    auto_delete: bool = False
    internal: bool = False


@dataclass(frozen=True, slots=True)
class DeleteExchange:
    """Delete the exchange where nothing is bound to it."""

    name: str


@dataclass(frozen=True, slots=True)
class DeclareQueue:
    """`passive` only asks whether it is there. An empty name has the broker choose one."""

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    passive: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the queue to the exchange."""

    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class BindExchange:
    """Have all that reaches `source` go on to `destination`."""

    destination: str
    source: str


Step = DeclareExchange | DeleteExchange | DeclareQueue | Bind | BindExchange


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker's answer: `code` 0 for yes, else AMQP's reply code with its text."""

    code: int = 0
    text: str = ""
    queue: str = ""
    """The name of the queue just declared."""
    messages: int = 0
    """How many messages wait in the queue just declared."""


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
    """There was none."""
    made_queue: bool = False
    """There was none."""

    @property
    def kind(self) -> str:
        """`classic`, `quorum` or `stream`; empty where it is not known."""
        return self.shape.kind if self.shape is not None else ""

    @property
    def pauses_by_cancel(self) -> bool:
        """Whether the queue stays, with its messages, while it has no consumer for a while."""
        shape = self.shape
        return shape is None or not (shape.auto_delete or "x-expires" in shape.arguments)


class TopologyMismatch(Exception):
    """The topology cannot be used as it is; the text says what differs and the way out."""

    def __init__(
        self, why: str, shape: Shape | None = None, *, answer: "Answer | None" = None
    ) -> None:
        """`shape`: what the queue is like, where that was found out. `answer`: what was refused."""
        super().__init__(why)
        self.shape = shape
        self.passes = answer is not None and passes_by_itself(answer.code, answer.text)
        """Whether it passes by itself: a node is down, somebody else has the queue."""


T = TypeVar("T")
Walk = Generator[Step, Answer, T]
"""Steps, each of which gets its answer, and what came of them."""
Steps = Walk[Declared]


def declare(
    exchange: ExchangeSettings,
    queue: QueueSettings,
    *,
    known: Declared | None = None,
    version: tuple[int, ...] = (),
) -> Steps:
    """All that a subscription needs. `known`: what came of it before in this process; the broker
    logs an error for each difference, so only what changed is asked for again. `version` is the
    broker's; empty where it did not tell."""
    remarks: list[str] = []
    durable, made = yield from _exchange(exchange, remarks, compare=known is None)
    binds, missing = queue.declare != "never", set[str]()
    found: Shape | None = None
    name = queue.name
    if queue.type == "exclusive":
        name, found = yield from _exclusive(queue)
    elif binds:
        wished = shapes.of_ours(queue.kind, queue.arguments)
        walk = _durable(name, wished, known, passive_only=queue.declare == "passive")
        found = yield from _noting_what_is_missing(walk, missing)
        if found is not None:
            if mismatch := shapes.unfit_to_consume(name, found):
                raise TopologyMismatch(mismatch, found)
            limit = _in_force(queue, found, version)
            if known is None or known.shape != found:
                remarks += shapes.remarks(name, wished, found, limit)
    limit = _in_force(queue, found, version)
    guessed = found is None or not found.whole
    if guessed and limit is not None and queue.delivery_limit is None and known is None:
        remarks.append(
            f"what queue {name!r} is like cannot be asked for: if it is a quorum queue, it is "
            f"taken to drop a message after {limit} returns; queue.delivery_limit names the limit "
            "in force"
        )
    bindings = (yield from _bind(exchange, queue, name, remarks)) if binds else ()
    restart_unbinds = durable is False and not keeps_transient_exchanges(version)
    if restart_unbinds and binds and queue.type != "exclusive":
        remarks.append(_not_durable(exchange.name, name))
    return Declared(
        name, tuple(remarks), limit, found, bindings=bindings, durable=durable,
        restart_unbinds=restart_unbinds, made_exchange=made,
        made_queue=queue.type == "exclusive" or name in missing,
    )  # fmt: skip


def _noting_what_is_missing(walk: Walk[T], missing: set[str]) -> Walk[T]:
    """The same walk; the queues that do not exist are entered in `missing`."""
    try:
        step = next(walk)
        while True:
            answer = yield step
            if isinstance(step, DeclareQueue) and answer.code == NOT_FOUND:
                missing.add(step.name)
            step = walk.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def dead_letter_queue(
    name: str, *, quorum: bool, known: Shape | None = None, version: tuple[int, ...] = ()
) -> Steps:
    """The dead-letter queue: durable, and a quorum queue where the main one is. `known` is what it
    was like before. Raises Unfit where letters would be lost in it at once."""
    wished = shapes.of_ours(QUORUM if quorum else CLASSIC, {})
    before = None if known is None else Declared(name, shape=known)
    found = yield from _durable(name, wished, before, passive_only=False)
    if found is None:
        return Declared(name)
    if mismatch := shapes.unfit_for_letters(name, found):
        raise TopologyMismatch(mismatch, found)
    limit = shapes.limit_of(found, version)
    remarks = () if known == found else tuple(shapes.remarks_of_letters(name, found, limit))
    return Declared(name, remarks, limit, found)


def look_at(name: str, kind: str) -> Generator[DeclareQueue, Answer, Shape | None]:
    """What an existing queue is like, which should be of this kind; None where the broker does not
    let us ask."""
    return _compare(name, shapes.of_ours(kind, {}), existed=True)


def _in_force(queue: QueueSettings, found: Shape | None, version: tuple[int, ...]) -> int | None:
    """The delivery limit: what the operator names, but no more than the queue was declared with."""
    if found is not None and found.kind not in (QUORUM, ""):
        return None
    by_shape = shapes.limit_of(found, version)
    if queue.delivery_limit is None:
        return by_shape
    declared = None if found is None or found.number(DELIVERY_LIMIT) is None else by_shape
    named = None if queue.delivery_limit == "none" else queue.delivery_limit
    limits = [limit for limit in (declared, named) if limit is not None]
    return min(limits, default=None)


def _exchange(
    settings: ExchangeSettings, remarks: list[str], *, compare: bool
) -> Generator[Step, Answer, tuple[bool | None, bool]]:
    """Returns whether the exchange is durable, where this is known, and whether it was made."""
    if settings.declare == "never":
        return None, False
    active = DeclareExchange(settings.name, settings.type, settings.durable)
    passive = DeclareExchange(settings.name, settings.type, settings.durable, passive=True)
    answer = yield passive
    if answer.code == NOT_FOUND and settings.declare == "passive":
        raise TopologyMismatch(
            f'exchange {settings.name!r} does not exist and exchange.declare = "passive" says that '
            'it must; create it, or set exchange.declare = "auto"'
        )
    if answer.code and answer.code != NOT_FOUND:
        raise TopologyMismatch(f"exchange {settings.name!r}: {_said(answer)}", answer=answer)
    existed = answer.code == 0
    if existed and not compare:
        return None, False
    answer = yield active
    if answer.code == 0:
        return settings.durable, not existed
    if existed and answer.code == ACCESS_REFUSED:
        return None, False
    if answer.code == ACCESS_REFUSED:
        raise TopologyMismatch(f"exchange {settings.name!r} may not be declared: {_said(answer)}")
    difference = Difference.of(answer.text) if answer.code == INEQUIVALENT else None
    if difference is None:
        raise TopologyMismatch(f"exchange {settings.name!r}: {_said(answer)}", answer=answer)
    if difference.argument == "type":
        known = difference.theirs in get_args(ExchangeSettings.model_fields["type"].annotation)
        right = f'type = "{difference.theirs}"' if known else 'declare = "never"'
        raise TopologyMismatch(
            f"exchange {settings.name!r} exists with another type: exchange.type is "
            f"{settings.type!r} here but {difference.theirs!r} on the broker; set "
            f"exchange.{right}, or use another exchange.name"
        )
    if difference.argument == "durable":
        return difference.theirs == "true", False
    remarks.append(
        f"exchange {settings.name!r} is used as it stands: {difference.argument} is "
        f"{difference.theirs!r} on the broker, {difference.ours!r} in the config"
        f"{_EXCHANGE_HARM.get(difference.argument, '')}"
    )
    return None, False


def _not_durable(exchange: str, queue: str) -> str:
    return (
        f"exchange {exchange!r} is not durable: a restart of the broker removes it, and with it "
        f"the binding of queue {queue!r}. What is published after that and before logfan has bound "
        "it again (it binds at its start and every 5 s) reaches no queue: it is lost. "
        "To prevent it stop the publishers, delete the exchange, and declare it durable from now "
        "on: exchange.durable = true here, durable=True in the publishers. Until then publish with "
        "confirms and `mandatory`, and publish again what is returned"
    )


_EXCHANGE_HARM = {
    "auto_delete": "; it goes, with what is published to it, when its last queue is unbound; have "
    "who declares it do so without auto_delete",
    "internal": "; programs cannot publish to it, other exchanges can",
}


def _exclusive(settings: QueueSettings) -> Generator[Step, Answer, tuple[str, Shape]]:
    shape = shapes.of_ours(CLASSIC, settings.arguments)
    shape = replace(shape, durable=False, exclusive=True)
    answer = yield _declaration("", shape)
    if answer.code:
        raise TopologyMismatch(f"a queue of our own may not be declared: {_said(answer)}")
    return answer.queue, shape


def _declaration(name: str, shape: Shape) -> DeclareQueue:
    return DeclareQueue(
        name, durable=shape.durable, exclusive=shape.exclusive, auto_delete=shape.auto_delete,
        arguments=shape.arguments,
    )  # fmt: skip


def _durable(
    name: str, wished: Shape, known: Declared | None, *, passive_only: bool
) -> Generator[Step, Answer, Shape | None]:
    """A queue that is used as it stands where it exists, else made as wished. Returns what it is
    like; None where the broker does not let us ask."""
    answer = yield DeclareQueue(name, passive=True)
    down = passes_by_itself(answer.code, answer.text)
    if answer.code == NOT_FOUND and passive_only and not down:
        raise TopologyMismatch(
            f'queue {name!r} does not exist and queue.declare = "passive" says that it '
            'must; create it, or set queue.declare = "auto"'
        )
    if answer.code == LOCKED:
        raise TopologyMismatch(
            f"queue {name!r} is exclusive to another connection ({_said(answer)}); use "
            "another queue.name, or end that program",
            answer=answer,
        )
    if answer.code and (answer.code != NOT_FOUND or down):
        raise TopologyMismatch(f"queue {name!r}: {_said(answer)}", answer=answer)
    existed = answer.code == 0
    if existed and known is not None and known.shape is None:
        return None  # it may not be asked for, as was seen
    shape = wished if known is None or known.shape is None or not existed else known.shape
    return (yield from _compare(name, shape, existed=existed))


def _compare(
    name: str, shape: Shape, *, existed: bool
) -> Generator[DeclareQueue, Answer, Shape | None]:
    """Declare, taking over what the broker names, until a declaration fits."""
    adopted: set[str] = set()
    for _ in range(_MOST_DIFFERENCES):
        answer = yield _declaration(name, shape)
        if answer.code == 0:
            return shape
        difference = Difference.of(answer.text) if answer.code == INEQUIVALENT else None
        unasked = existed and answer.code == ACCESS_REFUSED
        if not adopted and not unasked and (difference is None or difference.is_invalid):
            raise TopologyMismatch(
                f"queue {name!r} may not be declared: {_said(answer)}", answer=answer
            )
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
) -> Generator[Step, Answer, tuple[Bind, ...]]:
    """Returns the bindings that stand; none where those that are there must do."""
    bindings: list[Bind] = []
    keys = queue.routing_keys
    if keys is None:
        keys = ("#",) if exchange.type == "topic" else ("",)
    for key in keys:
        binding = Bind(name, exchange.name, key)
        answer = yield binding
        if answer.code == 0:
            bindings.append(binding)
            continue
        what = f"queue {name!r} may not be bound to exchange {exchange.name!r}"
        if answer.code == ACCESS_REFUSED and queue.declare == "passive":
            remarks.append(f"{what} ({_said(answer)}); relying on a binding that is there already")
            return ()
        raise TopologyMismatch(f"{what}: {_said(answer)}", answer=answer)
    return tuple(bindings)


def _said(answer: Answer) -> str:
    return f"{answer.text} ({answer.code})"
