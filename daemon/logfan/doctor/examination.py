"""What the checks share: the settings, a connection to each broker, and answers asked for once."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from pydantic import SecretStr

from logfan.amqp.blocking import BlockingConnection, BrokerError, Interrupted, Refused
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.topology import Answer
from logfan.config.amqp_url import Address, parse
from logfan.config.loader import Prepared
from logfan.doctor.findings import Finding, Severity, Unknown, skipped
from logfan.runtime.foreign_text import describe

_PATIENCE_SECONDS = 20.0
"""So long one check may wait for the broker."""
_FEW_CHANNELS = 8
T = TypeVar("T")


@dataclass(slots=True)
class Broker:
    """One of the configured URLs, and how far one gets with it."""

    url: SecretStr
    address: Address
    connection: BlockingConnection | None = None
    failure: ConnectionFailure | None = None
    blocked: str = ""
    """Why it takes no messages; empty while it does."""
    reported: bool = False
    """Whether a check has found why it cannot be reached."""


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table."""

    name: str
    by: str
    """`AMQP`, `management`, `machine` or `sinks`: where the answer comes from."""
    worst: Severity
    """The worst that it finds."""
    run: "Run"
    short: bool = False
    """Whether `logfan check --connect` has it, too."""

    @property
    def asks(self) -> str:
        """What it looks at, for the docs: the first sentence of its docstring."""
        return re.split(r"\.(?:\s|$)", self.run.__doc__ or "", maxsplit=1)[0]


Run = Callable[["Examination"], Finding | Iterator[Finding]]


class Examination:
    """One run of the doctor. Use it as a context manager."""

    def __init__(self, prepared: Prepared, *, sample_seconds: float = 0.0) -> None:
        """Nothing is asked yet. `sample_seconds`: 0 for no sample. Raises Faults where the URLs
        cannot be read."""
        self.settings = prepared.settings
        self.prepared = prepared
        self.sample_seconds = sample_seconds
        urls = self.settings.rabbitmq.read_urls()
        self.brokers = [Broker(SecretStr(url), parse(url)) for url in urls]
        self._signal = 0
        self._looks: dict[Any, Any] = {}
        """What each look showed, or Unknown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            if broker.connection is not None:
                with suppress(BrokerError):
                    broker.connection.close()

    def interrupt(self, number: int) -> None:
        """For a signal's handler: the run ends with Interrupted."""
        self._signal = number
        for broker in self.brokers:
            if broker.connection is not None:
                broker.connection.interrupt(number)

    def run(self, checks: Iterable[Check]) -> Iterator[Finding]:
        """What they find, one check after the other. Raises Interrupted."""
        for check in checks:
            if self._signal:
                raise Interrupted(self._signal)
            for broker in self.brokers:
                if broker.connection is not None:
                    self._renew(broker, broker.connection)
            for finding in self._found(check):
                yield replace(finding, check=check.name)

    def _renew(self, broker: Broker, connection: BlockingConnection) -> None:
        """One that went meanwhile is made again: it may have gone over what a check did."""
        try:
            connection.check()
            connection.give_up_at = time.monotonic() + _PATIENCE_SECONDS
        except BrokerError:
            broker.connection = None
            connection.close()
            try:
                broker.connection = self.connect(broker)
            except BrokerError as error:
                broker.failure = error.failure

    def _found(self, check: Check) -> Iterator[Finding]:
        try:
            found = check.run(self)
            yield from (found,) if isinstance(found, Finding) else found
        except Unknown as unknown:
            yield skipped(str(unknown))
        except BrokerError as error:
            yield skipped(f"not answered: {error}")
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - one check that fails hides no other
            yield skipped(f"the check itself failed: {describe(error)}")

    def connect(self, broker: Broker) -> BlockingConnection:
        """A new connection to this one. Raises BrokerError."""

        def on_blocked(why: str) -> None:
            broker.blocked = why

        one = {"urls": (broker.url,), "url_file": None}
        rabbitmq = self.settings.rabbitmq.model_copy(update=one)
        settings = self.settings.model_copy(update={"rabbitmq": rabbitmq})
        connection = BlockingConnection(settings, on_blocked=on_blocked)
        connection.give_up_at = time.monotonic() + _PATIENCE_SECONDS
        return connection

    def reached(self) -> tuple[Broker, BlockingConnection]:
        """The first broker that answered, which `run` would use. Raises Unknown."""
        for broker in self.brokers:
            if broker.connection is not None:
                return broker, broker.connection
        raise Unknown("no broker could be asked")

    @property
    def connection(self) -> BlockingConnection:
        """To that one. Raises Unknown."""
        return self.reached()[1]

    @property
    def is_reached(self) -> bool:
        """Whether there is a broker to ask."""
        return any(broker.connection is not None for broker in self.brokers)

    @property
    def is_unavailable(self) -> bool:
        """Whether no broker could be reached, and none has refused us either."""
        return not self.is_reached and all(
            broker.failure is not None and broker.failure.cause is not Cause.REFUSED
            for broker in self.brokers
        )

    def get(self, look: Callable[["Examination"], T]) -> T:
        """What this look at the broker shows; done once. Raises Unknown."""
        if look not in self._looks:
            try:
                self._looks[look] = look(self)
            except Unknown as unknown:
                self._looks[look] = unknown
            except BrokerError as error:
                self._looks[look] = Unknown(f"not answered: {error}")
        shown: T = self._looks[look]
        if isinstance(shown, Unknown):
            raise shown
        return shown

    def ask(self, method: str, **arguments: Any) -> Answer:
        """The broker's answer to one method, on a channel of its own: a refusal closes that."""
        channel = self.connection.channel()
        try:
            frame = channel.ask(getattr(channel.pika, method), **arguments)
        except Refused as refused:
            if 0 < self.connection.agreed.channel_max < _FEW_CHANNELS:
                self.connection.turn()  # pika frees the number of the one that was closed only then
            return Answer(refused.code, refused.reply)
        channel.pika.close()
        self.connection.until(lambda: channel.pika.is_closed)
        return Answer(
            queue=getattr(frame, "queue", ""),
            messages=getattr(frame, "message_count", 0),
            consumers=getattr(frame, "consumer_count", 0),
        )
