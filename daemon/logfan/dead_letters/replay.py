"""Send dead letters again to just the sink that refused them, through the daemon's own queue.

In rounds: some letters are taken, published, confirmed by the broker, and only then acknowledged.
Whatever ends it in the middle: a letter is still a dead letter, or was replayed, or both. A letter
that the broker refuses stays, and holds up no other one.
"""

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import closing, suppress

from logfan.amqp.blocking import (
    BlockingChannel,
    BlockingConnection,
    BrokerError,
    Interrupted,
    Refused,
)
from logfan.amqp.broker_features import NOT_FOUND
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.publisher import IsolatingWindow
from logfan.amqp_properties import EncodedProperties
from logfan.dead_letters import header_overflow
from logfan.dead_letters.browser import DeadQueue, declared
from logfan.dead_letters.survey import Found

_FIRST_ROUND, _LARGEST_ROUND = 8, 200
_ROUND_GROWTH = 4
_ROUND_BYTES = 16 << 20
_LAST_CONFIRMS_SECONDS = 5.0
_TOO_LARGE = "too large for the broker (its max_message_size)"


class Replay:
    """One run over the letters that were there when the queue was opened."""

    def __init__(
        self,
        connection: BlockingConnection,
        dead: DeadQueue,
        *,
        queue: str,
        sinks: Collection[str],
        only: str | None = None,
        any_queue: bool = False,
    ) -> None:
        """`queue` is the daemon's own, `sinks` are the names of those it has; `only` those of this
        sink are replayed. `any_queue`: also those that a daemon took from another queue. Raises
        BrokerError."""
        self.replayed: Counter[str] = Counter()
        """By sink: in the daemon's queue, and no longer among the dead letters."""
        self.left: Counter[str] = Counter()
        """Untouched, by why."""
        self.consumers = 0
        """How many consume the daemon's queue."""
        self._connection = connection
        self._dead = dead
        self._queue = queue
        self._sinks = sinks
        self._only = only
        self._any_queue = any_queue
        self._published = 0
        self._refused: Found | None = None
        self._accepted: list[Found] = []
        self._window = IsolatingWindow(self._open, self._pass_over)

    @property
    def in_doubt(self) -> int:
        """How many may have been replayed and are still among the dead letters."""
        return self._published - self.replayed.total() - self._window.rejected

    def run(self, limit: int, on_letter: Callable[[], None] = lambda: None) -> None:
        """Replay `limit` letters at the most. Raises BrokerError and Interrupted; the numbers are
        right after that, too."""
        try:
            self._run(limit, on_letter)
        except Interrupted:
            with suppress(BrokerError):  # what is not confirmed by then is in doubt
                self._settle(self._connection.time_limit(_LAST_CONFIRMS_SECONDS))
            raise
        except BrokerError:
            self._accept()
            raise

    def _run(self, limit: int, on_letter: Callable[[], None]) -> None:
        unseen, size = self._dead.count, _FIRST_ROUND
        largest = 1
        while unseen > 0 and (room := limit - self.replayed.total()) > 0:
            wanted = min(size, unseen)
            taken = 0
            with closing(self._dead.take(wanted)) as letters:
                for found in letters:
                    taken += 1
                    largest = max(largest, found.size)
                    room -= self._replay(found)
                    on_letter()
                    if not room:
                        break
            self._settle(lambda: False)
            unseen -= taken
            if taken < wanted:
                return
            size = max(1, min(size * _ROUND_GROWTH, _LARGEST_ROUND, _ROUND_BYTES // largest))

    def _replay(self, found: Found) -> bool:
        """Publish it, where it is one to replay; whether it was."""
        why = self._why_not(found)
        if why:
            self._leave(found, why)
            return False
        again = header_overflow.packed(found.letter.replay(), self._connection.agreed.frame_max)
        self._published += 1
        self._window.publish(
            "", self._queue, again.body, EncodedProperties(again.properties), found,
            alone=again.properties.user_id is not None,
        )  # fmt: skip
        return self._refused is not found

    def _pass_over(self, found: Found, refused: Refused) -> None:
        """The broker will not take it; the others go on."""
        self._published -= 1
        self._refused = found
        self._leave(found, _TOO_LARGE if refused.is_size else f"refused: {refused.reply}")

    def _leave(self, found: Found, why: str) -> None:
        self.left[why] += 1
        self._dead.keep(found)

    def _why_not(self, found: Found) -> str:
        if not found.ours:
            return "that logfan did not put there"
        letter = found.letter
        if self._only is not None and letter.sink != self._only:
            return "of other sinks"
        if letter.sink not in self._sinks:
            return f"of sink {letter.sink!r}, which is not in the config"
        if letter.queue != self._queue and not self._any_queue:
            return f"of queue {letter.queue!r}, which --any-queue would replay as well"
        return ""

    def _settle(self, too_late: Callable[[], bool]) -> None:
        """Wait for the confirms; then the letters are no longer needed."""
        self._window.drain(too_late)
        self._accept()
        if self._window.returned:
            why = f"queue {self._queue!r} is gone: the broker gave letters back"
            raise BrokerError(ConnectionFailure(Cause.LOST, why))
        if self._window.rejected:
            why = f"the broker took some letters not into queue {self._queue!r}; is it full?"
            raise BrokerError(ConnectionFailure(Cause.LOST, why))

    def _accept(self) -> None:
        if confirmed := self._window.taken():
            self._dead.accept([found.tag for found in confirmed])
            self._accepted += confirmed
        if self._accepted:
            self._dead.sync()
            self.replayed.update(found.letter.sink for found in self._accepted)
            self._accepted = []

    def _open(self) -> BlockingChannel:
        try:
            channel = self._connection.channel(f"queue {self._queue!r}")
            _, self.consumers = declared(channel, self._queue)
        except Refused as refused:
            if refused.code != NOT_FOUND:
                raise
            why = f"queue {self._queue!r} does not exist; start the daemon, it makes it"
            raise BrokerError(ConnectionFailure(Cause.UNREACHABLE, why)) from None
        return channel
