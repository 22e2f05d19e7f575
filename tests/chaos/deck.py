"""A few messages by hand, for scenarios where every step counts: published, confirmed, noted."""

import random

import pika

from chaos import bodies
from chaos.checker import Journal
from support.broker import Names, channel


class Deck:
    """Publishes numbered messages one after the other and keeps the journal itself."""

    def __init__(self, url: str, names: Names) -> None:
        self._url = url
        self._names = names
        self._rng = random.Random(names.queue)
        self.journal = Journal(run=f"{self._rng.getrandbits(32):08x}")

    def publish(self, count: int, *, mandatory: bool = True) -> None:
        """So many more, each confirmed."""
        with channel(self._url, confirms=True) as open_channel:
            for _ in range(count):
                number = len(self.journal.times)
                mark = bodies.make_id(self.journal.run, number)
                open_channel.basic_publish(
                    self._names.exchange,
                    "",
                    bodies.make(self.journal.run, number, self._rng),
                    pika.BasicProperties(delivery_mode=2, message_id=mark),
                    mandatory=mandatory,
                )
                self.journal.times.append(1)
                self.journal.epochs.append(0)
                self.journal.confirmed.append(1)

    def body(self) -> bytes:
        """A body of this run that is not published."""
        return bodies.make(self.journal.run, len(self.journal.times), self._rng)
