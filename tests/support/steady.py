"""A steady publisher that knows every node of a cluster and moves on when one fails it."""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Self

import pika


class SteadyPublisher(threading.Thread):
    """Publishes 1, 2, 3, …, each with a confirm, at a bounded rate. A context manager.

    `confirmed` are the numbers that a broker took and routed. A number whose confirm did not come
    is never sent again: it may have arrived or not.
    """

    def __init__(self, urls: Sequence[str], exchange: str, *, rate: float = 400.0) -> None:
        super().__init__(daemon=True)
        self.confirmed: list[int] = []
        self.attempted = 0
        self.failures = 0
        self._urls = itertools.cycle(urls)
        self._exchange = exchange
        self._pause = 1.0 / rate
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Stop, once the message under way is confirmed or has failed."""
        self._done.set()
        self.join(30)
        assert not self.is_alive(), "the publisher waits for a confirm that never came"

    def run(self) -> None:
        while not self._done.is_set():
            try:
                self._publish(next(self._urls))
            except pika.exceptions.AMQPError:
                self.failures += 1
                self._done.wait(0.1)

    def _publish(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 5
        parameters.socket_timeout = parameters.stack_timeout = 5.0
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            while not self._done.is_set():
                self._send(channel)
        finally:
            if connection.is_open:
                connection.close()

    def _send(self, channel: "pika.adapters.blocking_connection.BlockingChannel") -> None:
        began = time.monotonic()
        self.attempted += 1
        number = self.attempted
        properties = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish(self._exchange, "", b"%d" % number, properties, mandatory=True)
        self.confirmed.append(number)
        self._done.wait(max(0.0, self._pause - (time.monotonic() - began)))
