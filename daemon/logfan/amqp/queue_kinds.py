"""What a queue is like: learned from refused declarations, and what follows for messages. Sans-I/O.

RabbitMQ's 406 on a declaration names one difference at a time. `Shape.adopting` takes it over, so
that the next declaration brings out the next one, until one fits.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from logfan.amqp.broker_features import limits_returns

TYPE, DELIVERY_LIMIT = "x-queue-type", "x-delivery-limit"
CLASSIC, QUORUM, STREAM = "classic", "quorum", "stream"
STREAM_OFFSET = "x-stream-offset"
"""A header that only deliveries of a stream have."""
DEFAULT_LIMIT = 20
"""Of a quorum queue that was declared without a limit, since RabbitMQ 4."""
# A quorum queue that drops no message for being returned. Each version has another number for it:
# none before RabbitMQ 4, -1 since. This one means it to all of them.
NO_LIMIT = (1 << 31) - 1
_AT_ONCE_MS = 60_000
"""A letter that is gone after less is gone before an operator looks at it."""
_SINGLE_ACTIVE = "x-single-active-consumer"
_FLAGS = ("durable", "auto_delete", "exclusive")
_NEXT_TYPE = {CLASSIC: QUORUM, QUORUM: STREAM, STREAM: CLASSIC}
"""What to try where the broker's text was cut before it named the type."""
_LARGE_INTEGER = re.compile(r"-?\d{1,19}")


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of a queue."""

    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = True
    """False where there may be more that is not known."""

    @property
    def kind(self) -> str:
        """Its `x-queue-type`; empty where it is not known."""
        return str(self.arguments.get(TYPE, CLASSIC if self.whole else ""))

    @property
    def counts_returns(self) -> bool:
        """Whether messages that are handed back are counted, or may be, and dropped at a limit."""
        return self.kind in (QUORUM, "")

    @property
    def stands_by(self) -> bool:
        """Whether one of its consumers gets the messages, and the others none."""
        return bool(self.arguments.get(_SINGLE_ACTIVE, not self.whole))

    def number(self, argument: str) -> int | None:
        """The argument as a number; None where it is none."""
        value = self.arguments.get(argument)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def adopting(self, difference: "Difference") -> "Shape | None":
        """The shape with the broker's value; None where that cannot be taken over."""
        name, theirs = difference.argument, difference.theirs
        if name in _FLAGS:
            return self._with_flag(name, theirs)
        arguments = dict(self.arguments)
        ours = arguments.pop(name, None)
        if name == TYPE:
            arguments[TYPE] = theirs or _NEXT_TYPE.get(str(ours), CLASSIC)
            if theirs == "none":
                # So a queue from before there were types is called; it is not sent as none, as
                # the virtual host's default would stand in for it.
                arguments[TYPE] = CLASSIC
            if arguments[TYPE] != QUORUM:
                arguments.pop(DELIVERY_LIMIT, None)
        elif theirs not in ("none", ""):
            arguments[name] = _value(theirs, difference.type, ours)
            if arguments[name] is None:
                return None
        if arguments.get(name) == ours:
            return None
        return replace(self, arguments=arguments)

    def _with_flag(self, name: str, theirs: str) -> "Shape | None":
        ours: bool = getattr(self, name)
        value = theirs == "true" if theirs else not ours
        change: Any = {name: value}
        return None if value == ours else replace(self, **change)

    def only(self, names: Collection[str]) -> "Shape":
        """What is known for sure where no declaration fitted: these properties, and no more."""
        known = {name: value for name, value in self.arguments.items() if name in names}
        return replace(self, arguments=known, whole=False)

    def values(self) -> Mapping[str, Any]:
        """Every property that is known, by its name."""
        flags = {"durable": self.durable, "auto_delete": self.auto_delete}
        return {**flags, **({TYPE: self.kind} if self.kind else {}), **self.arguments}


def of_ours(kind: str, arguments: Mapping[str, Any]) -> Shape:
    """What logfan declares: the type is always sent, as a virtual host may have another default.
    `arguments` are the operator's and win."""
    wanted = {TYPE: kind, **arguments}
    if wanted[TYPE] == QUORUM:
        wanted = {DELIVERY_LIMIT: NO_LIMIT, **wanted}
    return Shape(arguments=wanted)


def _value(text: str, type_name: str, ours: object) -> Any:
    """The broker's text of a value as AMQP can carry it back; None where it cannot."""
    if not type_name:  # not given where both sides have one: then it is of the type of ours
        type_name = {bool: "bool", int: "long", str: "longstr"}.get(type(ours), "")
    if type_name == "bool":
        return {"true": True, "false": False}.get(text)
    if type_name in ("signedint", "long", "short", "byte", "unsignedint", "unsignedshort",
                     "unsignedbyte"):  # fmt: skip
        return int(text) if _LARGE_INTEGER.fullmatch(text) else None
    return text if type_name == "longstr" else None


@dataclass(frozen=True, slots=True)
class Difference:
    """One property in which what exists differs from what was declared."""

    argument: str
    ours: str
    theirs: str
    """`none` where it is not set; empty where the broker's text was cut before it."""
    type: str = ""
    """AMQP's, of `theirs`; given only where ours is not set."""
    is_invalid: bool = False
    """No queue of this type has such an argument."""

    @classmethod
    def of(cls, text: str) -> "Difference | None":
        """Read out of RabbitMQ's text for a 406; None where it is about something else."""
        if (foreign := _INVALID.search(text)) is not None:
            return cls(foreign[1], "", "none", is_invalid=True)
        argument = _ARGUMENT.search(text)
        if argument is None:
            return None
        values = _VALUES.search(text)
        if values is None:
            return cls(argument[1], "", "")
        ours, theirs = (value.strip("'") for value in values.group(1, 2))
        return cls(argument[1], ours, theirs, values[3] or "")


_ARGUMENT = re.compile(r"inequivalent arg '([^']+)'")
_INVALID = re.compile(r"invalid arg '([^']+)'")
# A name with a - in it comes in two pairs of quotes: ''x-consistent-hash''.
_VALUES = re.compile(
    r"received (?:the value )?('{1,2}[^']*'{1,2}|none)(?: of type '[^']*')? "
    r"but current is (?:the value )?('{1,2}[^']*'{1,2}|none)(?: of type '([^']*)')?"
)


# What follows


def limit_of(shape: Shape | None, version: tuple[int, ...]) -> int | None:
    """After so many returns the queue drops a message; None where it never does. Assumed with care
    where `shape` is unknown (None). A policy may set a lower one, which no declaration shows."""
    if shape is not None and not shape.counts_returns:
        return None
    limit = None if shape is None else shape.number(DELIVERY_LIMIT)
    if limit is None:
        return DEFAULT_LIMIT if limits_returns(version) else None
    if limit < 0:
        return None if limits_returns(version) else 0
    return limit if limit < NO_LIMIT else None


def remarks(name: str, wanted: Shape, found: Shape, limit: int | None) -> Iterator[str]:
    """Of a queue that is consumed and not as it would be declared: what to fear of each difference,
    and the way out. What does no harm is not mentioned."""
    ours, theirs = wanted.values(), found.values()
    missing = [name for name in ours if name not in theirs] if found.whole else []
    for argument in [*theirs, *missing]:
        mine, its = ours.get(argument), theirs.get(argument)
        if mine == its:
            continue
        harm = harm_of(argument, its, found, limit).consumed
        if not harm and argument in wanted.arguments and argument not in (TYPE, DELIVERY_LIMIT):
            harm = (
                "what the config asks for is not in force; set it by a policy, or delete the "
                "queue once it is empty and logfan makes it anew"
            )
        if harm:
            yield (
                f"queue {name!r} is used as it stands: {argument} is {_shown(its)} on the broker, "
                f"{_shown(mine)} in the config; {harm}"
            )
    if found.kind == QUORUM and DELIVERY_LIMIT not in theirs and limit == DEFAULT_LIMIT:
        yield (
            f"queue {name!r} is used as it stands: {DELIVERY_LIMIT} is 'none' on the broker; "
            f"{harm_of(DELIVERY_LIMIT, limit, found, limit).consumed}"
        )


def remarks_of_letters(name: str, found: Shape, limit: int | None) -> Iterator[str]:
    """Of a dead-letter queue: how letters may be lost in it, and the way out."""
    for argument, value in found.values().items():
        if harm := harm_of(argument, value, found, limit).letters:
            yield f"dead-letter queue {name!r}: {argument} is {_shown(value)}; {harm}{ANEW}"


def stream_mismatch(name: str) -> str:
    """Why a stream cannot be consumed, with the way out."""
    return (
        f"queue {name!r} is a stream: it takes nothing back that was not acknowledged, and who "
        "subscribes again does not get what came meanwhile, so messages would be lost; bind a "
        "classic or a quorum queue to the exchange and name it in queue.name, or delete the stream"
    )


def browse_mismatch(name: str, found: Shape) -> str:
    """Why letters in this queue cannot be looked at; empty where they can."""
    why = ""
    if found.kind == STREAM:
        why = "it is a stream, of which no letter can be taken or given back"
    elif found.auto_delete:
        why = (
            "it is deleted, with its letters, when its last consumer goes (auto-delete); read it "
            "by other means, as the management page"
        )
    return f"queue {name!r} is not looked at: {why}; name another dead_letter.queue" if why else ""


def dead_letter_mismatch(name: str, found: Shape) -> str:
    """Why letters would be lost at once in this queue, with the way out; empty where not."""
    why = ""
    if found.kind == STREAM:
        why = "it is a stream, from which no letter can be taken out again"
    for argument in ("x-message-ttl", "x-expires"):
        milliseconds = found.number(argument)
        if milliseconds is not None and milliseconds < _AT_ONCE_MS:
            why = f"{argument} is {milliseconds}: letters would be gone after {milliseconds} ms"
    for argument in ("x-max-length", "x-max-length-bytes"):
        if found.number(argument) == 0:
            why = f"{argument} is 0: it keeps no letter"
    return f"dead-letter queue {name!r} cannot be used: {why}{ANEW}" if why else ""


ANEW = (
    "; delete it once it is empty and logfan makes it anew, or name another one in "
    "dead_letter.queue"
)


class Harm(NamedTuple):
    """What to fear of a property: in a queue that is consumed, with the way out; in a dead-letter
    queue. `{value}` is the property's, `{limit}` the delivery limit."""

    consumed: str = ""
    letters: str = ""


_NOTHING = Harm()
_FULL = Harm(
    "once it is full, as when a sink is down for long, the broker drops the oldest messages; "
    "give it room for an outage, or no {argument}",
    "once it is full the oldest letters are dropped",
)
_FULL_AND_REJECTING = Harm(
    "once it is full the broker takes no more: a publisher without confirms loses messages; "
    "give it room for an outage, or no {argument}",
    "once it is full no letter is taken, and the sink that refuses waits",
)
_HARMS: Mapping[tuple[str, object], Harm] = {
    ("durable", False): Harm(
        "it and its messages do not survive a restart of the broker; delete it and logfan makes it "
        "anew, durable",
        "its letters do not survive a restart of the broker",
    ),
    (TYPE, CLASSIC): Harm(
        "it has no copies on other nodes; delete it once it is empty and it is made anew"
    ),
    ("auto_delete", True): Harm(
        "it is deleted, with its messages, when its last consumer goes, as at each stop of logfan; "
        "delete it and logfan makes it anew, or use another queue.name",
        "it is deleted, with its letters, when its last consumer goes",
    ),
    ("x-expires", int): Harm(
        "it is deleted, with its messages, once it had no consumer for {value:,} ms, as when "
        "logfan is stopped for so long; delete it and logfan makes it anew",
        "it is deleted, with its letters, {value:,} ms after the last use",
    ),
    ("x-message-ttl", int): Harm(
        "the broker drops what waits for {value:,} ms, as when a sink is down for so long; "
        "delete it and logfan makes it anew, or let a dead-letter exchange keep it",
        "letters are dropped after {value:,} ms",
    ),
    (_SINGLE_ACTIVE, True): Harm(
        "one of its consumers gets messages, the others stand by; as wished with one"
    ),
    ("x-max-length", int): _FULL,
    ("x-max-length-bytes", int): _FULL,
    (DELIVERY_LIMIT, int): Harm(
        "after {limit} returns (crashes of logfan among them) the broker drops a message, or "
        "dead-letters it where the queue has a dead-letter exchange; logfan sends it to its own "
        "dead letters one return before; a queue that logfan makes has no limit",
        "each look at a letter is a return, and after {limit} the broker drops it",
    ),
}
"""By a property and its value, or the value's type."""


def harm_of(argument: str, value: Any, found: Shape, limit: int | None) -> Harm:
    """What to fear of a property of this queue."""
    harm = _HARMS.get((argument, value if isinstance(value, bool | str) else type(value)), _NOTHING)
    if harm is _FULL and "reject" in str(found.arguments.get("x-overflow", "")):
        harm = _FULL_AND_REJECTING
    if argument == DELIVERY_LIMIT and limit is None:
        harm = _NOTHING
    return Harm(*(text.format(argument=argument, value=value, limit=limit) for text in harm))


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return repr("none" if value is None else str(value).lower())
    return repr(str(value))
