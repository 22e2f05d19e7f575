"""A dead letter that was looked at before gives way to a fresh copy, confirmed first.

A quorum queue counts each look as a failed delivery, and a delivery limit, which no client sees
where a policy sets it, drops what was looked at too often. A copy begins at none, and stands at the
end of the queue.
"""

from collections.abc import Callable, Sequence

from logfan.amqp.blocking import BlockingConnection, BrokerError, Refused
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.publisher import IsolatingWindow
from logfan.amqp_properties import EncodedProperties
from logfan.dead_letters.letter import ROUTES, Letter

_SPENT = 1
"""From so many deliveries on a look may be one too many: the lowest limit is 1."""


class Refresher:
    """Copies letters into their own queue. The originals are the caller's to acknowledge."""

    def __init__(self, connection: BlockingConnection, queue: str) -> None:
        self.copied = 0
        """How many copies the broker confirmed."""
        self.spent = 0
        """The highest count of deliveries of a message that cannot be copied: it is not ours, and
        a copy would go elsewhere, too, or be refused."""
        self.refused: dict[int, int] = {}
        """Letters of which the broker takes no copy, as they are too large: by tag, the count of
        deliveries."""
        self._connection = connection
        self._queue = queue
        self._window: IsolatingWindow | None = None

    def keep(self, tag: int, letter: Letter, deliveries: int) -> None:
        """See to it that the letter survives being handed back. Raises BrokerError."""
        if deliveries < _SPENT:
            return
        properties = letter.properties
        if tag in self.refused:
            return
        if properties.user_id is not None or any(name in properties.headers for name in ROUTES):
            self.spent = max(self.spent, deliveries)
            return
        try:
            if self._window is None:
                self._window = IsolatingWindow(self._connection.channel, self._on_refused)
            self._window.publish(
                "", self._queue, letter.body, EncodedProperties(properties), (tag, deliveries)
            )
        except Refused as refused:
            raise Uncopied(self._queue, refused.reply, self._taken()) from None

    def settle(self, too_late: Callable[[], bool] = lambda: False) -> list[int]:
        """Wait for the confirms; the tags of the letters that have a copy now. Raises BrokerError
        where there is one that has none."""
        if self._window is None:
            return []
        try:
            self._window.drain(too_late)
        except Refused as refused:
            raise Uncopied(self._queue, refused.reply, self._taken()) from None
        tags = self._taken()
        if self._window.returned:
            raise Uncopied(self._queue, "the broker returned them; was the queue deleted?", tags)
        if self._window.rejected:
            why = "the broker took them not into the queue; is it full?"
            raise Uncopied(self._queue, why, tags)
        return tags

    def _taken(self) -> list[int]:
        tags = [tag for tag, _ in self._window.taken()] if self._window is not None else []
        self.copied += len(tags)
        return tags

    def _on_refused(self, token: tuple[int, int], _refused: Refused) -> None:
        tag, deliveries = token
        self.refused[tag] = deliveries


class Uncopied(BrokerError):
    """A letter could not be copied; `tags` are of those that were."""

    def __init__(self, queue: str, why: str, tags: Sequence[int] = ()) -> None:
        super().__init__(
            ConnectionFailure(
                Cause.REFUSED,
                f"queue {queue!r} is not looked at any further: each look counts as a failed "
                f"delivery, and fresh copies of its letters cannot be made ({why}); where a "
                "delivery limit is in force further looks may lose letters: make room or give "
                "write permission first, or use `logfan dlq replay`, which needs copies of those "
                "letters alone that it passes over",
                at_declaration=True,
            )
        )
        self.tags = tags
