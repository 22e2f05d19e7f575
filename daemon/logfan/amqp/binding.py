"""Whether the queue is still bound, and what to do where it is not. Sans-I/O.

A binding goes with its exchange. Where somebody deletes the exchange and makes it anew, or a
restart of the broker removes it, the queue stays, the consumer stays, and nothing arrives any more.
To bind again is silent, whether the binding was there or not. So that its absence is known there is
a mark: an exchange of our own, bound to the one that is consumed, which nothing is published to.
With the consumed exchange that binding goes, and with its last binding an auto-delete exchange
goes, too.
"""

from dataclasses import dataclass, replace

from logfan.amqp.broker_features import NOT_FOUND
from logfan.amqp.topology import (
    UNLIKE_ANY,
    Bind,
    BindExchange,
    Declared,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    Steps,
    another_type,
)
from logfan.config.amqp_limits import SHORT_BYTES
from logfan.config.settings import ExchangeSettings

_MADE_FIRST = "was not there, and is made"
"""So it is where this process has never seen the exchange."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What a look at the queue and its bindings showed."""

    messages: int | None = None
    """How many wait in the queue; None where it is not there."""
    rebound: str = ""
    """What happened to the binding that was gone and is made again."""
    remark: str = ""
    """What the operator should know beside."""
    unbound: str = ""
    """Why nothing that is published arrives; empty where the queue is bound."""


class Binding:
    """Looks after the bindings, over all connections of a process."""

    def __init__(self, exchange: ExchangeSettings) -> None:
        self._exchange = exchange
        self._durable: bool | None = None
        """Whether the exchange is; while this is not known there is no mark."""
        self._restart_unbinds = False
        """Whether a restart of the broker removes the exchange."""
        self._refused = False
        """We may not make a mark."""
        self._marked = False
        """There was one; until it was missed."""
        self._unsure = True
        """The queue was there before this connection, and no look has set a mark: a binding may
        have gone unnoticed."""
        self._gone = ""
        self._seen = False
        """This process has seen the exchange."""

    def begin(self, declared: Declared) -> None:
        """Subscribed, on a new connection."""
        if declared.durable is not None:
            self._durable = declared.durable
            self._restart_unbinds = declared.restart_unbinds
        self._unsure = not (declared.made_queue or self._marked)
        if declared.made_exchange and not declared.made_queue:
            had = "had gone and was made again" if self._seen else _MADE_FIRST
            self._gone = f"exchange {self._exchange.name!r} {had}"
        self._seen = True

    def look(self, declared: Declared) -> Steps[QueueStatus]:
        """One look, and what needs to be done. Never raises."""
        queue = declared.queue
        answer = yield DeclareQueue(queue, passive=True)
        if answer.code:
            return QueueStatus()
        messages = answer.messages
        if not declared.bindings:
            return QueueStatus(messages)
        mark = self._mark(queue)
        missing = bool(mark) and (yield DeclareExchange(mark, "fanout", False, passive=True)).code
        remark = ""
        if missing or not mark:
            unbound = yield from self._see_to_exchange()
            if unbound:
                return QueueStatus(messages, unbound=unbound)
        if missing:
            unlike = yield from self._learn_durable()
            if unlike:
                why = f"queue {queue!r} is not bound, and nothing arrives: {unlike}"
                return QueueStatus(messages, unbound=why)
            remark = yield from self._missed(mark, queue)
        elif mark:
            self._marked = True
        unbound = yield from self._bind(declared.bindings)
        self._unsure = False
        if unbound:
            return QueueStatus(messages, unbound=unbound)
        gone, self._gone = self._gone, ""
        rebound = gone and (
            f"{gone}; queue {queue!r} is bound to it again, and what was published between did not "
            "reach the queue"
        )
        if gone.endswith(_MADE_FIRST):
            rebound = (
                f"{gone}; queue {queue!r} is bound to it; if that queue had been bound to one of "
                "this name before, what was published between did not reach it"
            )
        return QueueStatus(messages, rebound, remark)

    def _mark(self, queue: str) -> str:
        """The name of the mark; empty where there shall be none."""
        mark = f"{queue}.binding"
        # What the broker itself declared cannot be deleted, nor a queue that it named be left.
        lasting = self._exchange.name.startswith("amq.") or queue.startswith("amq.")
        long = len(mark.encode()) > SHORT_BYTES
        return "" if self._durable is None or self._refused or lasting or long else mark

    def _see_to_exchange(self) -> Steps[str]:
        """Make the exchange where it is gone and may be made. Why it is not there, or nothing."""
        settings = self._exchange
        if settings.declare == "never":
            return ""
        wanted = DeclareExchange(settings.name, settings.type, settings.durable)
        answer = yield replace(wanted, passive=True)
        if answer.code != NOT_FOUND:
            return ""
        self._gone = f"{wanted} had gone and was made again"
        why = f"{wanted} is gone, and with it the binding: nothing arrives"
        if settings.declare != "auto":
            return f'{why} until it is declared again (exchange.declare is "{settings.declare}")'
        answer = yield wanted
        if answer.code:
            return f"{why}, and it may not be declared: {answer}"
        return ""

    def _missed(self, mark: str, queue: str) -> Steps[str]:
        """The mark is missing: note what that means, and set it again. What to remark."""
        name, remark = self._exchange.name, ""
        if self._marked and not self._gone:
            self._gone = f"exchange {name!r} had been deleted and made anew"
        elif self._unsure and not self._gone and self._restart_unbinds:
            remark = (
                f"queue {queue!r} has no mark {mark!r}: either no logfan has looked at it before, "
                f"or exchange {name!r} was made anew meanwhile without the binding, and what was "
                "published until now did not reach the queue; it is bound now"
            )
        self._marked = False
        if self._durable is not None:
            yield from self._set(mark)
        return remark

    def _learn_durable(self) -> Steps[str]:
        """A mark must outlive what the exchange outlives, and nothing else. Returns why the queue
        is not to be bound to what has this name now."""
        durable = bool(self._durable)
        step = DeclareExchange(self._exchange.name, self._exchange.type, durable)
        answer = yield step.compared()
        difference = answer.difference
        argument = "" if difference is None else difference.argument
        if difference is not None and argument == "type":
            return another_type(self._exchange, difference)
        if difference is not None and argument == "durable":
            self._durable = difference.theirs == "true"
        else:
            self._durable = durable if argument == UNLIKE_ANY else None
        return ""

    def _set(self, mark: str) -> Steps[None]:
        durable = bool(self._durable)
        answer = yield DeclareExchange(mark, "fanout", durable, auto_delete=True, internal=True)
        if answer.code == 0:
            answer = yield BindExchange(self._exchange.name, mark)
            if answer.code:
                yield DeleteExchange(mark)
        self._marked = answer.code == 0
        # One that went again between the two steps is no refusal.
        self._refused = answer.code not in (0, NOT_FOUND)

    def _bind(self, bindings: tuple[Bind, ...]) -> Steps[str]:
        for binding in bindings:
            answer = yield binding
            if answer.code == NOT_FOUND:
                self._gone = f"exchange {binding.exchange!r} had gone and was made again"
            if answer.code:
                return (
                    f"queue {binding.queue!r} is not bound to exchange {binding.exchange!r}, so "
                    f"nothing arrives: {answer}"
                )
        return ""
