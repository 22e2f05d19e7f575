"""A refused record as a dead letter, and a dead letter as a record again. Sans-I/O.

A dead letter keeps the body and the properties as they were published; what happened to it stands
in headers of our own. Properties that a broker would act upon when it is published anew are kept
there too, and put back by `original`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from logfan.amqp_properties import REPLAY
from logfan.field_table import UNREADABLE
from logfan.record import Properties, Record

PREFIX = "x-logfan-"
SINK = "x-logfan-sink"
REASON = "x-logfan-reason"
ATTEMPTS = "x-logfan-attempts"
FIRST_FAILED_AT = "x-logfan-first-failed-at"
EXCHANGE = "x-logfan-exchange"
ROUTING_KEY = "x-logfan-routing-key"
QUEUE = "x-logfan-queue"

PACKED = "x-logfan-packed"
"""See `header_overflow`."""
OURS = frozenset(
    (SINK, REASON, ATTEMPTS, FIRST_FAILED_AT, EXCHANGE, ROUTING_KEY, QUEUE, REPLAY, PACKED)
)
"""What a letter must have in its own frame; every other header is the publisher's."""

_REASON_CHARACTERS = 1000
_PERSISTENT = 2
# An expiring dead letter would be a lost one; a foreign user id is refused by the broker.
_MOVED: Mapping[str, type] = {"expiration": str, "user_id": str, "delivery_mode": int}
# The broker would copy the message to the queues that these headers name.
ROUTES = ("CC", "BCC")
# The broker's own, of a delivery that is over: a copy must not carry them.
OF_THE_DELIVERY = ("x-delivery-count", "x-acquired-count")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that one sink will not take, and why."""

    record: Record
    sink: str
    reason: str
    attempts: int
    """How often the sink was offered it."""
    first_failed_at: float
    """In seconds since 1970 (UTC)."""
    alone: bool = False
    """Whether its letter was refused before for a reason of its own: it is sent by itself, so that
    no other letter fails with it."""
    renew: bool = False
    """Whether it goes to the daemon's queue, as a replayed letter, and not to the dead letters."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """Why a dead letter did not get into its queue."""

    why: str
    own: bool = False
    """True where it is this letter that the broker will not take; False where none can be sent."""


def _text_of(header: str, doc: str) -> Any:
    """A property that reads one of our headers."""
    return property(lambda letter: str(letter.properties.headers.get(header, "")), doc=doc)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is published, or as it was found."""

    body: bytes
    properties: Properties

    sink = _text_of(SINK, "The sink that refused it; empty where it is no dead letter of ours.")
    reason = _text_of(REASON, "Why, as the sink gave it.")
    first_failed_at = _text_of(FIRST_FAILED_AT, "ISO 8601, UTC: sorts by time.")
    exchange = _text_of(EXCHANGE, "The exchange that the record was published to.")
    routing_key = _text_of(ROUTING_KEY, "The routing key that it was published with.")
    queue = _text_of(QUEUE, "The queue of the daemon that refused it.")

    @property
    def attempts(self) -> int:
        """How often the sink was offered it."""
        count = self.properties.headers.get(ATTEMPTS)
        return count if isinstance(count, int) else 0

    def original(self) -> Properties:
        """The properties as the publisher set them."""
        headers = dict(self.properties.headers)
        # Any publisher to the queue may have written them: only what fits is put back.
        moved: dict[str, Any] = {
            name: value if isinstance(value := headers.get(_moved(name)), kind) else None
            for name, kind in _MOVED.items()
        }
        if not 0 <= (moved["delivery_mode"] or 0) <= 255:
            moved["delivery_mode"] = None
        theirs = {name: headers[_moved(name)] for name in ROUTES if _moved(name) in headers}
        theirs |= {name: v for name, v in headers.items() if _is_theirs(name, v)}
        return self.properties._replace(headers=theirs, **moved)

    def replay(self) -> "Letter":
        """The same, to be published to the queue of the daemon, for the sink that refused it."""
        theirs = self.properties.headers.items()
        headers = {name: value for name, value in theirs if name not in OF_THE_DELIVERY}
        headers[REPLAY] = self.sink
        return replace(self, properties=self.properties._replace(headers=headers))


def letter_of(refusal: Refusal, queue: str) -> Letter:
    """The dead letter of a refusal. `queue` is the one that the record was consumed from.

    Headers that a publisher named like ours are left out: what stands in a letter we wrote."""
    record = refusal.record
    properties = record.properties
    headers: dict[str, Any] = {
        name: value
        for name, value in properties.headers.items()
        if name not in ROUTES and name not in OF_THE_DELIVERY and _is_theirs(name, value)
    }
    for name in _MOVED:
        headers[_moved(name)] = getattr(properties, name)
    for name in ROUTES:
        headers[_moved(name)] = properties.headers.get(name)
    headers = {n: v for n, v in headers.items() if v is not None or _is_theirs(n, v)}
    failed_at = datetime.fromtimestamp(refusal.first_failed_at, UTC)
    headers |= {
        SINK: refusal.sink,
        REASON: " ".join(refusal.reason.split())[:_REASON_CHARACTERS],
        ATTEMPTS: refusal.attempts,
        FIRST_FAILED_AT: failed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        EXCHANGE: record.exchange,
        ROUTING_KEY: record.routing_key,
        QUEUE: queue,
    }
    plain = dict.fromkeys(_MOVED) | {"delivery_mode": _PERSISTENT}
    return Letter(record.body, properties._replace(headers=headers, **plain))


def replayed(record: Record) -> tuple[str, Record] | None:
    """The sink that a replayed dead letter is for, and the record as it first came; None for any
    other message. Only what was published to the default exchange can be one: a client that may
    publish to `logs` alone cannot keep a message from the other sinks."""
    if record.exchange:
        return None
    sink = record.headers.get(REPLAY)
    if not isinstance(sink, str) or not sink:
        return None
    letter = Letter(record.body, record.properties)
    restored = Record(
        letter.body, letter.exchange, letter.routing_key, record.redelivered, record.received_at,
        letter.original(),
    )  # fmt: skip
    return sink, restored


def is_ours(headers: Mapping[str, Any]) -> bool:
    return SINK in headers and REASON in headers


def _is_theirs(name: str, value: object) -> bool:
    """Whether a header is the publisher's; so is the part of a table that cannot be decoded."""
    return not name.startswith(PREFIX) or (name == UNREADABLE and isinstance(value, bytes))


def _moved(name: str) -> str:
    return PREFIX + name.lower().replace("_", "-")
