"""What to declare, and what to make of the broker's answers. Pure: it asks, the subscription does.

Each generator yields one step, gets an `Answer` back, and ends by returning or by raising
`Unfit`. After a refusal the broker has closed the channel; opening another is the
subscription's business.
"""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from logfan.config import ExchangeSettings, QueueSettings

NOT_FOUND, LOCKED, INEQUIVALENT, ACCESS_REFUSED = 404, 405, 406, 403
DELIVERY_LIMIT = "x-delivery-limit"
_DEFAULT_LIMIT = 20  # of a quorum queue, since RabbitMQ 4
# A quorum queue that drops no message for being returned. To say so takes another number with each
# version: none before RabbitMQ 4, -1 since. This one means it to all of them.
_QUORUM: Mapping[str, Any] = {"x-queue-type": "quorum", DELIVERY_LIMIT: (1 << 31) - 1}


@dataclass(frozen=True, slots=True)
class DeclareExchange:
    """`passive` only asks whether it is there."""

    name: str
    type: str
    durable: bool
    passive: bool = False


@dataclass(frozen=True, slots=True)
class DeclareQueue:
    """`passive` only asks whether it is there. An empty name has the broker choose one."""

    name: str
    durable: bool = True
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    passive: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the queue to the exchange."""

    queue: str
    exchange: str
    routing_key: str


Step = DeclareExchange | DeclareQueue | Bind


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker's answer: `code` 0 for yes, else AMQP's reply code with its text."""

    code: int = 0
    text: str = ""
    queue: str = ""
    """The name of the queue just declared."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The queue to consume, and what the operator should know."""

    queue: str
    remarks: tuple[str, ...] = ()
    delivery_limit: int | None = None
    """After so many returns the broker drops a message; None where it never does, or where this
    was not asked for."""


class Unfit(Exception):
    """The topology cannot be used as it is; the text says what differs and the way out."""


Steps = Generator[Step, Answer, Declared]


def declare(
    exchange: ExchangeSettings,
    queue: QueueSettings,
    *,
    compare: bool,
    version: tuple[int, ...] = (),
) -> Steps:
    """All that a subscription needs. With `compare`, what exists is held against the settings:
    the broker logs a channel error for each difference, so once in a process is enough.
    `version` is the broker's; empty where it did not tell."""
    remarks: list[str] = []
    yield from _exchange(exchange, remarks, compare=compare)
    if queue.type == "exclusive":
        name, limit = (yield from _exclusive(queue)), None
    elif queue.declare == "never":
        name, limit = queue.name, _limit_of_others(version)
    else:
        name = queue.name
        wanted = {**_QUORUM, **queue.arguments} if queue.type == "quorum" else {**queue.arguments}
        limit = yield from _durable(
            queue.name, wanted, remarks, version,
            compare=compare, passive_only=queue.declare == "passive",
        )  # fmt: skip
    if queue.declare != "never":
        yield from _bind(exchange, queue, name, remarks)
    return Declared(name, tuple(remarks), limit)


def dead_letter_queue(name: str, *, quorum: bool, version: tuple[int, ...] = ()) -> Steps:
    """The dead-letter queue: durable, and a quorum queue where the main one is."""
    remarks: list[str] = []
    arguments = _QUORUM if quorum else {}
    yield from _durable(name, arguments, remarks, version, compare=False, passive_only=False)
    return Declared(name, tuple(remarks))


def _limit_of_others(version: tuple[int, ...]) -> int | None:
    """What holds for a quorum queue that was declared without a limit."""
    return _DEFAULT_LIMIT if version >= (4,) else None


def _exchange(
    settings: ExchangeSettings, remarks: list[str], *, compare: bool
) -> Generator[Step, Answer, None]:
    if settings.declare == "never":
        return
    active = DeclareExchange(settings.name, settings.type, settings.durable)
    passive = DeclareExchange(settings.name, settings.type, settings.durable, passive=True)
    answer = yield passive
    if answer.code == NOT_FOUND and settings.declare == "passive":
        raise Unfit(
            f'exchange {settings.name!r} does not exist and exchange.declare = "passive" says that '
            'it must; create it, or set exchange.declare = "auto"'
        )
    if answer.code and answer.code != NOT_FOUND:
        raise Unfit(f"exchange {settings.name!r}: {_said(answer)}")
    existed = answer.code == 0
    if existed and not compare:
        return
    answer = yield active
    if answer.code == 0 or (existed and answer.code == ACCESS_REFUSED):
        return
    if answer.code == ACCESS_REFUSED:
        raise Unfit(f"exchange {settings.name!r} may not be declared: {_said(answer)}")
    difference = Difference.of(answer)
    if difference is None:
        raise Unfit(f"exchange {settings.name!r}: {_said(answer)}")
    if difference.argument == "type":
        raise Unfit(
            f"exchange {settings.name!r} exists with another type: exchange.type is "
            f"{difference.ours!r} here but {difference.theirs!r} on the broker; set "
            f'exchange.type = "{difference.theirs}", or use another exchange.name'
        )
    remarks.append(
        f"exchange {settings.name!r} is used as it stands: {difference.argument} is "
        f"{difference.theirs!r} on the broker, {difference.ours!r} in the config"
    )


def _exclusive(settings: QueueSettings) -> Generator[Step, Answer, str]:
    answer = yield DeclareQueue("", durable=False, exclusive=True, arguments=settings.arguments)
    if answer.code:
        raise Unfit(f"a queue of our own may not be declared: {_said(answer)}")
    return answer.queue


def _durable(
    name: str,
    arguments: Mapping[str, Any],
    remarks: list[str],
    version: tuple[int, ...],
    *,
    compare: bool,
    passive_only: bool,
) -> Generator[Step, Answer, int | None]:
    """A durable queue, used as it stands where it exists. Returns its delivery limit."""
    active = DeclareQueue(name, arguments=arguments)
    answer = yield DeclareQueue(name, passive=True)
    if answer.code == NOT_FOUND and passive_only:
        raise Unfit(
            f'queue {name!r} does not exist and queue.declare = "passive" says that it '
            'must; create it, or set queue.declare = "auto"'
        )
    if answer.code == LOCKED:
        raise Unfit(
            f"queue {name!r} is exclusive to another connection ({_said(answer)}); use "
            "another queue.name, or end that program"
        )
    if answer.code and answer.code != NOT_FOUND:
        raise Unfit(f"queue {name!r}: {_said(answer)}")
    existed = answer.code == 0
    if existed and not compare:
        return None
    answer = yield active
    if answer.code == 0:
        return _limit(arguments.get(DELIVERY_LIMIT), version)
    if existed and answer.code == ACCESS_REFUSED:
        return _limit_of_others(version)
    difference = Difference.of(answer)
    if difference is None:
        raise Unfit(f"queue {name!r} may not be declared: {_said(answer)}")
    limit = _limit(difference.theirs if difference.argument == DELIVERY_LIMIT else None, version)
    remarks.append(
        f"queue {name!r} is used as it stands: {difference.argument} is "
        f"{difference.theirs!r} on the broker, {difference.ours!r} in the config"
        f"{difference.harm(limit)}"
    )
    return limit


def _limit(argument: object, version: tuple[int, ...]) -> int | None:
    """After how many returns a queue with this `x-delivery-limit` drops a message."""
    try:
        limit = int(str(argument))
    except ValueError:
        return _limit_of_others(version)
    # Before RabbitMQ 4 a limit below nothing was the lowest limit of all.
    return limit if limit >= 0 else (None if version >= (4,) else 0)


def _bind(
    exchange: ExchangeSettings, queue: QueueSettings, name: str, remarks: list[str]
) -> Generator[Step, Answer, None]:
    keys = queue.routing_keys
    if keys is None:
        keys = ("#",) if exchange.type == "topic" else ("",)
    for key in keys:
        answer = yield Bind(name, exchange.name, key)
        if answer.code == 0:
            continue
        what = f"queue {name!r} may not be bound to exchange {exchange.name!r}"
        if answer.code == ACCESS_REFUSED and queue.declare == "passive":
            remarks.append(f"{what} ({_said(answer)}); relying on a binding that is there already")
            return
        raise Unfit(f"{what}: {_said(answer)}")


def _said(answer: Answer) -> str:
    return f"{answer.text} ({answer.code})"


@dataclass(frozen=True, slots=True)
class Difference:
    """One argument in which what exists differs from what we would declare."""

    argument: str
    ours: str
    theirs: str

    @classmethod
    def of(cls, answer: Answer) -> "Difference | None":
        """Read out of RabbitMQ's words for a 406; None for any other answer."""
        if answer.code != INEQUIVALENT:
            return None
        argument = _ARGUMENT.search(answer.text)
        values = _VALUES.search(answer.text)
        if argument is None or values is None:
            return None
        ours, theirs = (value.strip("'") if value else "none" for value in values.groups())
        return cls(argument[1], ours, theirs)

    def harm(self, limit: int | None = None) -> str:
        """What an operator should fear of it; empty where there is nothing. `limit`: see
        `Declared.delivery_limit`."""
        if self.argument == DELIVERY_LIMIT and limit is not None:
            return (
                f"; after {limit} returns the broker drops a message, or dead-letters it where "
                "the queue has a dead-letter exchange"
            )
        if self.argument == "durable" and self.theirs == "false":
            return "; its messages do not survive a restart of the broker"
        if self.argument == "auto_delete" and self.theirs == "true":
            return "; it is deleted, with its messages, when its last consumer goes"
        return ""


_ARGUMENT = re.compile(r"inequivalent arg '([^']+)'")
_VALUES = re.compile(
    r"received (?:the value )?('[^']*'|none).*? but current is (?:the value )?('[^']*'|none)"
)
