"""Whether the queue is still bound, and what is done where it is not."""

from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from logfan.amqp.binding import Binding, QueueStatus
from logfan.amqp.broker_features import NOT_FOUND, keeps_transient_exchanges
from logfan.amqp.topology import (
    Answer,
    Bind,
    BindExchange,
    Declared,
    DeclareExchange,
    Step,
    TopologyMismatch,
    declare,
)
from logfan.config.settings import ExchangeSettings, QueueSettings

MARK = "logfan.binding"
# RabbitMQ's answers to a declaration that no exchange can match.
DIFFERS = (
    "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'logs' in vhost '/': "
    "received the value '1' of type 'signedint' but current is none"
)
INVALID = (
    "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange "
    "'logs' in vhost '/'"
)


@dataclass
class Broker:
    """Exchanges and their bindings; the queue stays."""

    exchanges: set[str] = field(default_factory=set)
    has_queue: bool = False
    bound: set[str] = field(default_factory=set)
    """What is bound to the exchange: the queue, and the mark, whose destination it is."""

    def answer(self, step: Step) -> Answer:
        match step:
            case DeclareExchange(passive=True):
                return Answer(0 if step.exchange in self.exchanges else NOT_FOUND)
            case DeclareExchange(arguments={"alternate-exchange": 1}):
                return Answer(406, DIFFERS if step.exchange in self.exchanges else INVALID)
            case DeclareExchange():
                self.exchanges.add(step.exchange)
            case Bind(queue=other) | BindExchange(source=other):
                self.bound.add(other)
            case _:
                there, self.has_queue = self.has_queue, True
                return Answer(0 if there or not getattr(step, "passive", False) else NOT_FOUND)
        return Answer()

    def restart_with_a_publisher_that_is_back_first(self) -> None:
        """An exchange that is not durable goes, and with it its bindings, the mark among them."""
        self.exchanges, self.bound = {"logs"}, set()


class Daemon:
    """Connections of one process to this broker."""

    def __init__(
        self,
        broker: Broker,
        version: tuple[int, ...] = (3, 10, 8),
        exchange: ExchangeSettings | None = None,
    ) -> None:
        self._broker, self._version = broker, version
        self._exchange = exchange or ExchangeSettings()
        self._binding = Binding(self._exchange)
        self._known: Declared | None = None

    def connects(self) -> Declared:
        walk = declare(self._exchange, QueueSettings(), known=self._known, version=self._version)
        step = next(walk)
        while True:
            try:
                step = walk.send(self._broker.answer(step))
            except StopIteration as end:
                self._known = end.value
                self._binding.begin(end.value)
                return end.value  # type: ignore[no-any-return]

    def looks(self) -> QueueStatus:
        assert self._known is not None
        look = self._binding.look(self._known)
        step = next(look)
        while True:
            try:
                step = look.send(self._broker.answer(step))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]


def test_a_look_marks_the_binding_and_a_mark_that_is_gone_counts() -> None:
    broker = Broker()
    daemon = Daemon(broker)
    daemon.connects()
    assert daemon.looks() == QueueStatus(0)
    assert broker.bound == {"logfan", MARK}
    broker.restart_with_a_publisher_that_is_back_first()
    daemon.connects()
    assert "had been deleted and made anew" in daemon.looks().rebound
    assert daemon.looks() == QueueStatus(0)


def test_a_connection_lost_before_its_first_look_leaves_a_doubt_that_is_logged() -> None:
    broker = Broker()
    daemon = Daemon(broker)
    daemon.connects()  # and is lost before it looks: there is no mark
    broker.restart_with_a_publisher_that_is_back_first()
    daemon.connects()
    look = daemon.looks()
    assert "was made anew meanwhile without the binding" in look.remark
    assert broker.bound == {"logfan", MARK}
    assert daemon.looks() == QueueStatus(0)


def test_a_queue_that_this_process_made_and_marked_raises_no_doubt() -> None:
    daemon = Daemon(Broker())
    daemon.connects()
    assert daemon.looks() == QueueStatus(0)
    daemon.connects()
    assert daemon.looks() == QueueStatus(0)


@pytest.mark.parametrize("version", [(), (3, 10, 8), (4, 0, 5), (4, 2, 9), (4, 3, 6)])
def test_only_a_broker_that_drops_transient_exchanges_is_warned_about(
    version: tuple[int, ...],
) -> None:
    broker = Broker(exchanges={"logs"}, has_queue=True)
    daemon = Daemon(broker, version)
    remarks = daemon.connects().remarks
    look = daemon.looks()
    keeps = version >= (4, 3)
    assert keeps_transient_exchanges(version) is keeps
    assert any("is not durable: a restart" in remark for remark in remarks) is not keeps
    assert ("without the binding" in look.remark) is not keeps


def test_an_exchange_that_this_process_never_saw_is_not_said_to_have_gone() -> None:
    """As after a tutorial that has a queue of that name, and no exchange."""
    broker = Broker(has_queue=True)
    daemon = Daemon(broker)
    daemon.connects()
    look = daemon.looks()
    assert "had gone" not in look.rebound + look.remark
    assert "exchange 'logs' was not there, and is made" in look.rebound
    assert "if that queue had been bound" in look.rebound
    assert daemon.looks() == QueueStatus(0)
    broker.exchanges, broker.bound = set(), set()
    daemon.connects()
    assert "exchange 'logs' had gone and was made again" in daemon.looks().rebound


class GoneAfter(Broker):
    """Somebody deletes the exchange once so many steps are answered."""

    left = 0

    def answer(self, step: Step) -> Answer:
        if self.left == 0:
            self.exchanges.discard("logs")
        self.left -= 1
        if isinstance(step, Bind | BindExchange) and "logs" not in self.exchanges:
            return Answer(NOT_FOUND)
        return super().answer(step)


@pytest.mark.parametrize("steps", range(12))
def test_a_passive_exchange_is_never_declared_whenever_it_goes(steps: int) -> None:
    broker = GoneAfter({"logs"})
    broker.left = steps
    daemon = Daemon(broker, exchange=ExchangeSettings(declare="passive"))
    with suppress(TopologyMismatch):
        daemon.connects()
        for _ in range(3):
            daemon.looks()
    assert broker.left < 0
    assert "logs" not in broker.exchanges
