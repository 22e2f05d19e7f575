"""Where a message goes that came before, or that was published to the queue itself.

Most go to all sinks, as any other. One that the queue is about to drop goes to the dead letters,
and a dead letter that was replayed to the one sink that refused it. It decides, and logs.
"""

import logging
from collections.abc import Sequence

from logfan.dead_letters import header_overflow, letter
from logfan.pipeline.in_flight import Rejection
from logfan.record import Record
from logfan.runtime.foreign_text import cut

log = logging.getLogger(__name__)

_EARLY_COUNT = 2
"""So many returns are worth a warning: limits of 3 are in use."""
_DELIVERY_COUNT = "x-delivery-count"
_MARGIN = 1
"""A message is dead-lettered so many returns before the queue drops it."""


Route = tuple[Record, str, Rejection | None]
"""The record, which may be another than before; the one sink that it is for, empty for all; and why
it is a dead letter, where it is one."""


class RedeliveryRouter:
    """Knows the sinks, and whether there are dead letters."""

    def __init__(
        self, sinks: Sequence[str], *, fallback: str, dead_letters: bool, limit_is_named: bool
    ) -> None:
        """`sinks`: their names; `fallback`: which of them dead-letters what is for none of them.
        `limit_is_named`: the operator has set which delivery limit is in force."""
        self._sinks = sinks
        self._fallback = fallback
        self._dead_letters = dead_letters
        self._log_from = None if limit_is_named else _EARLY_COUNT

    def route(self, record: Record, *, count: int, delivery_limit: int | None) -> Route:
        """Of one message, which was delivered `count` times before. `delivery_limit`: after so many
        returns its queue drops it."""
        replayed = letter.replayed(header_overflow.whole(record))
        rejection = None
        if self._dead_letters:
            rejection = delivery_limit_reached(count, delivery_limit)
        if count and rejection is None:
            self._log_rising(count, delivery_limit)
        if rejection is not None:
            log.warning("a message was %s; it goes to the dead letters", rejection.reason)
        if replayed is None:
            return record, "", rejection
        sink, restored = replayed
        if sink in self._sinks:
            return restored, sink, rejection
        reason = f"no sink is called {cut(sink, 100)!r} (a dead letter that was replayed)"
        if not self._dead_letters:
            log.warning("%s, and dead_letter.enabled is false: it goes to all sinks", reason)
            return restored, "", None
        return restored, self._fallback, Rejection(reason, sink)

    def _log_rising(self, count: int, limit: int | None) -> None:
        """Early, and then at growing counts: a policy's limit may be near, and does not show."""
        if self._log_from is None or count < self._log_from:
            return
        self._log_from = count + max(1, count // 2)
        known = "none is known here" if limit is None else f"{limit} is known here"
        log.warning(
            "messages came back %d times and were not acknowledged (each crash, lost connection "
            "and window handed back counts). At the queue's delivery limit the broker drops them: "
            "%s, but a policy may set a lower one, which a client cannot see. Compare "
            "`rabbitmqctl list_queues name effective_policy_definition`, and set "
            'queue.delivery_limit to the limit in force, or to "none"; messages near it then '
            "become dead letters and are not lost",
            count, known,
        )  # fmt: skip


def delivery_count(record: Record) -> int:
    """How often a queue that counts this delivered it before, as its broker says; 0 where it is not
    counted. Of any other queue the header is the publisher's, and means nothing."""
    count = record.headers.get(_DELIVERY_COUNT) if record.redelivered else None
    return count if isinstance(count, int) else 0


def delivery_limit_reached(count: int, limit: int | None) -> Rejection | None:
    """The rejection of a message that was delivered `count` times before from a queue that drops it
    after `limit` returns; None before that."""
    if limit is None or count < max(1, limit - _MARGIN):
        return None
    return Rejection(
        f"delivered {count} times before without an end; its queue drops a message after "
        f"{limit} returns"
    )
