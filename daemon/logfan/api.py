"""What a sink plugin works with: records, the sink to subclass, and two ways to fail.

This room imports nothing of the host. Everything public here is also a name of `logfan`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict

NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Properties:
    """The basic properties of AMQP 0-9-1, as the publisher set them; None where it did not.

    `timestamp` is in whole seconds since 1970 (UTC); `expiration` is a string of milliseconds;
    `delivery_mode` is 2 for persistent messages. Header values are str, bytes (where the text is
    not UTF-8), int, float, bool, Decimal, datetime, None, tuples of these, or mappings.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] = field(default_factory=lambda: NO_HEADERS)
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


def _read_only(slot: str, doc: str) -> Any:
    """A property without a Python call in it: records are read more often than anything else."""
    return property(attrgetter(slot), doc=doc)


class Record:
    """One message, as every sink sees it. Read it; never change what it holds.

    The same record is handed to all sinks, each on its own thread: what `json()` and `headers`
    return is shared, so copy before you change anything.
    """

    __slots__ = (
        "_body",
        "_exchange",
        "_json",
        "_properties",
        "_received_at",
        "_redelivered",
        "_routing_key",
    )

    def __init__(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        redelivered: bool,
        received_at: float,
        properties: Properties | Callable[[], Properties],
    ) -> None:
        """`properties` may be a function, called at the first look (on any sink's thread)."""
        self._body = body
        self._exchange = exchange
        self._routing_key = routing_key
        self._redelivered = redelivered
        self._received_at = received_at
        self._properties = properties
        self._json: Any = _UNPARSED

    body: bytes = _read_only("_body", "The body's bytes, as published.")
    exchange: str = _read_only("_exchange", "The exchange it was published to.")
    routing_key: str = _read_only("_routing_key", "The routing key it was published with.")
    redelivered: bool = _read_only(
        "_redelivered", "True where the broker delivered this message before: maybe a duplicate."
    )
    received_at: float = _read_only(
        "_received_at", "When logfan read it: seconds since 1970 (UTC)."
    )

    @property
    def properties(self) -> Properties:
        """The AMQP properties, decoded at the first look."""
        properties = self._properties
        if not isinstance(properties, Properties):
            self._properties = properties = properties()
        return properties

    @property
    def headers(self) -> Mapping[str, Any]:
        """The publisher's headers; empty where there are none."""
        return self.properties.headers

    @property
    def message_id(self) -> str | None:
        """The publisher's message id."""
        return self.properties.message_id

    @property
    def timestamp(self) -> int | None:
        """The publisher's timestamp: whole seconds since 1970 (UTC)."""
        return self.properties.timestamp

    @property
    def size(self) -> int:
        """The body's length in bytes."""
        return len(self._body)

    @property
    def text(self) -> str:
        """The body as UTF-8 text; bytes that are not UTF-8 become U+FFFD."""
        return self._body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body parsed as JSON, once for all sinks. Raises ValueError where it is not JSON."""
        parsed = self._json
        if parsed is _UNPARSED:
            try:
                parsed = orjson.loads(self._body)
            except ValueError as error:
                parsed = _NotJson(str(error))
            self._json = parsed
        if type(parsed) is _NotJson:
            raise ValueError(f"the body is not JSON: {parsed.why}")
        return parsed

    def __repr__(self) -> str:
        return f"<Record {self.exchange!r} {self.routing_key!r} of {self.size} bytes>"


_UNPARSED = object()


@dataclass(frozen=True, slots=True)
class _NotJson:
    why: str


class SinkConfig(BaseModel):
    """The keys of a `[sinks.NAME]` table: subclass it inside your sink as `Config`.

    A pydantic model: unknown keys are faults, and a docstring below a field becomes its
    meaning in `logfan sinks KIND`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Sink:
    """Where records go. Subclass it, override `write`, and what else you need.

    Every method runs on the sink's own thread, one at a time: no locks are needed, and blocking
    is fine. Any method may raise `SinkUnavailable`; any other exception counts as transient too.
    Do not override `__init__`: acquire in `open`.
    """

    Config: ClassVar[type[SinkConfig]] = SinkConfig

    def __init__(self, config: Any, *, name: str = "sink", instance: str = "") -> None:
        self.config: Any = config
        """Your `Config`, validated."""
        self.name = name
        """The NAME of `[sinks.NAME]`."""
        self.instance = instance
        """Which instance of the daemon this is; empty where there is only one."""
        self.log = logging.getLogger(f"logfan.sink.{name}")
        """Where to say things to the operator."""

    def open(self) -> None:
        """Acquire what you need. Retried with back-off until it returns.

        Called at start, after every failure, and on SIGHUP: let go of what an earlier call
        acquired, then acquire again.
        """

    def write(self, records: Sequence[Record]) -> None:
        """Take the records, in delivery order, or raise.

        `SinkUnavailable` has all records since the last `flush` written again later;
        `RecordsRejected` says that just those were refused, for good, and the others taken.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Return only once all that was written is durable: then it is acknowledged."""

    def close(self) -> None:
        """Release. Called once, last; never before `open`."""

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """What is wrong between several sinks of this kind: `{name: why}`. Called offline.

        `configs` maps the name of each configured sink of this kind to its `Config`.
        """
        del configs
        return {}


class SinkUnavailable(Exception):
    """Transient: the sink cannot take records now. `why` is shown to the operator."""

    def __init__(self, why: str = "unavailable") -> None:
        super().__init__(why)


class RecordsRejected(Exception):
    """Permanent, for these records alone: `{index in the batch: why}`. All others were taken."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        if not reasons:
            raise ValueError("RecordsRejected needs at least one {index: why}")
        self.reasons: Mapping[int, str] = MappingProxyType(dict(reasons))
        super().__init__(f"{len(self.reasons)} records rejected")
