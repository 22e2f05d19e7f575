"""A dead letter that was looked at before gets a fresh copy in its place, confirmed first.

A quorum queue counts each look as a failed delivery, and a delivery limit, which no client sees
where a policy sets it, drops what was looked at too often. A copy begins at none.
"""

from collections.abc import Callable, Sequence

from logfan.amqp.blocking import BlockingConnection, BrokerError, Refused
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.publisher import Window
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
        self._connection = connection
        self._queue = queue
        self._window: Window | None = None

    def keep(self, tag: int, letter: Letter, deliveries: int) -> None:
        """See to it that the letter survives being handed back. Raises BrokerError."""
        if deliveries < _SPENT:
            return
        properties = letter.properties
        if properties.user_id is not None or any(name in properties.headers for name in ROUTES):
            self.spent = max(self.spent, deliveries)
            return
        try:
            if self._window is None:
                self._window = Window(self._connection.channel())
            self._window.publish("", self._queue, letter.body, EncodedProperties(properties), tag)
        except Refused as refused:
            raise Uncopied(self._queue, refused.reply) from None

    def settle(self, too_late: Callable[[], bool] = lambda: False) -> list[int]:
        """Wait for the confirms; the tags of the letters that have a copy now. Raises BrokerError
        where there is one that has none."""
        if self._window is None:
            return []
        try:
            self._window.drain(too_late)
        except Refused as refused:
            raise Uncopied(self._queue, refused.reply, self._window.taken()) from None
        tags = self._window.taken()
        self.copied += len(tags)
        if self._window.returned:
            raise Uncopied(self._queue, "the broker returned them; was the queue deleted?", tags)
        if self._window.rejected:
            why = "the broker took them not into the queue; is it full?"
            raise Uncopied(self._queue, why, tags)
        return tags


class Uncopied(BrokerError):
    """A letter could not be copied; `tags` are of those that were."""

    def __init__(self, queue: str, why: str, tags: Sequence[int] = ()) -> None:
        super().__init__(
            ConnectionFailure(
                Cause.REFUSED,
                f"queue {queue!r} is not looked at any further: each look counts as a failed "
                f"delivery, and fresh copies of its letters cannot be made ({why}); where a "
                "delivery limit is in force further looks may lose letters: make room or give "
                "write permission first, or use `logfan dlq replay`, which needs no copies",
                at_declaration=True,
            )
        )
        self.tags = tags
