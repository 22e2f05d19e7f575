"""Dead letters made by hand, as a daemon would put them into their queue."""

from collections.abc import Iterable, Sequence

from logfan.amqp_properties import EncodedProperties
from logfan.dead_letters import header_overflow
from logfan.dead_letters.letter import Refusal, Unsent, letter_of
from logfan.record import Record
from support.broker import Names, channel, waiting
from support.waiting import wait_until

NOON = 1_795_521_600.0
"""2026-11-24T12:00:00Z"""


def bury(
    url: str,
    names: Names,
    records: Iterable[Record],
    *,
    sink: str = "archive",
    reason: str = "too old",
    at: float = NOON,
    queue: str | None = None,
    kind: str | None = "classic",
) -> None:
    """Put the records into the dead-letter queue, and return once they all wait there. Both
    queues are made, but for `kind` None."""
    # A classic queue answers once it has all that came before; others are asked for confirms.
    with channel(url, confirms=kind != "classic") as opened:
        for name in (names.queue, f"{names.queue}.dead") if kind else ():
            opened.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        for record in records:
            refusal = Refusal(record, sink, reason, 3, at)
            letter = header_overflow.packed(letter_of(refusal, queue or names.queue), 131_072)
            opened.basic_publish(
                "", f"{names.queue}.dead", letter.body, EncodedProperties(letter.properties)
            )
        if kind:
            opened.queue_declare(f"{names.queue}.dead", passive=True)


def bodies(url: str, queue: str) -> list[bytes]:
    """The bodies of all that waits in the queue, which is empty then."""
    found = []
    with channel(url) as opened:
        while (got := opened.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(got[2])
    return found


def wait_for_messages(url: str, queue: str, count: int) -> None:
    """Wait until at least so many messages wait in the queue. A failure shows which there are."""
    try:
        wait_until(lambda: waiting(url, queue) >= count, f"{count} messages in {queue}")
    except AssertionError as error:
        raise AssertionError(f"{error}; there are: {bodies(url, queue)}") from error


class Sent:
    """A worker's `send`: dead letters that are confirmed at once."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.failures: dict[int, Unsent] = {}

    def __call__(self, refusals: Sequence[Refusal]) -> "Sent":
        self.refusals += refusals
        return self

    def wait(self, _: float) -> bool:
        return True
