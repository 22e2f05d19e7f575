"""The load: a program that publishes with confirms and writes down what it did.

`python -m chaos.publisher URL EXCHANGE JOURNAL --run NAME …`. The journal has a line for every
publishing (`p NUMBER EPOCH NANOSECONDS`) and for every confirm (`c NUMBER`). An epoch is one
channel's life. What was not confirmed when its channel ended, was refused, or came back as
unroutable, is published again under the same id, so that each id ends up confirmed. With `--plain`
it publishes as most programs do, without `mandatory`: what reaches no queue is confirmed all the
same, and only whoever compares can find that it is missing. It takes
`pause`, `resume` and `stop` from standard input, a word a line, and prints its numbers as JSON.
It ends by itself when its input ends, after its count, or after its time.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import OrderedDict, deque
from functools import partial
from pathlib import Path
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop

from chaos import bodies

_TICK_SECONDS = 0.005
_AGAIN_SECONDS = 0.1
_REPORT_SECONDS = 0.1
_BURST_SECONDS = 0.1


class Publisher:
    """One connection at a time, a window of unconfirmed messages, a bounded rate."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._rng = random.Random(options.seed)
        self._ioloop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._journal = Path(options.journal).open("w", buffering=1 << 16)  # noqa: SIM115
        self._journal.write(f"run {options.run}\n")
        self._unconfirmed: dict[int, bytes] = {}
        self._again: deque[int] = deque()
        self._sent: OrderedDict[int, int] = OrderedDict()
        self._returned: set[int] = set()
        self._tag = 0
        self._allowance = 0.0
        self._ticked_at = self._reported_at = time.monotonic()
        self._deadline = time.monotonic() + options.seconds
        self._paused = self._stopping = self._blocked = False
        self._numbers = dict.fromkeys(
            ("published", "sent", "confirmed", "returned", "epoch", "orders"), 0
        )

    def run(self) -> int:
        """Publish until asked to stop; 0 where everything was confirmed."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._connect()
        self._tick()
        self._ioloop.start()
        self._journal.close()
        self._tell(final=True)
        return 1 if self._unconfirmed else 0

    # Orders

    def _listen(self) -> None:
        for line in sys.stdin:
            self._ioloop.add_callback_threadsafe(partial(self._order, line.strip()))
        self._ioloop.add_callback_threadsafe(partial(self._order, "stop"))

    def _order(self, word: str) -> None:
        self._numbers["orders"] += 1
        if word == "stop":
            self._stopping = True
        else:
            self._paused = word == "pause"

    # One connection, and the way back

    def _connect(self) -> None:
        parameters = pika.URLParameters(self._options.url)
        parameters.heartbeat = 10
        parameters.socket_timeout = parameters.stack_timeout = 5
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda _: self._open_channel(),
            on_open_error_callback=self._on_connection_end,
            on_close_callback=self._on_connection_end,
            custom_ioloop=self._ioloop,
        )
        self._connection.add_on_connection_blocked_callback(lambda *_: self._block(True))
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._block(False))

    def _block(self, blocked: bool) -> None:
        self._blocked = blocked

    def _on_connection_end(self, _connection: Any, _error: BaseException) -> None:
        self._blocked = False
        self._lose()
        self._ioloop.call_later(_AGAIN_SECONDS, self._connect)

    def _open_channel(self) -> None:
        if self._connection.is_open:
            self._connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_end)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._tag = 0
        self._numbers["epoch"] += 1
        self._channel = channel

    def _on_channel_end(self, channel: Any, _error: BaseException) -> None:
        # The exchange is not there (yet, or any more): the daemon declares it.
        if channel is self._channel:
            self._lose()
        if self._connection.is_open:
            self._ioloop.call_later(_AGAIN_SECONDS, self._open_channel)

    def _lose(self) -> None:
        self._channel = None
        self._again = deque(sorted([*self._again, *self._sent.values()]))
        self._sent.clear()
        self._returned.clear()

    # Publishing

    def _tick(self) -> None:
        now = time.monotonic()
        rate = self._options.rate
        passed, self._ticked_at = now - self._ticked_at, now
        self._allowance = min(self._allowance + passed * rate, max(1.0, rate * _BURST_SECONDS))
        if now > self._deadline or self._numbers["published"] >= self._options.count:
            self._stopping = True
        while (
            self._allowance >= 1
            and self._channel is not None
            and len(self._sent) < self._options.window
            and self._publish_next()
        ):
            self._allowance -= 1
        if now - self._reported_at > _REPORT_SECONDS:
            self._reported_at = now
            self._journal.flush()
            self._tell()
        if self._stopping and (not self._unconfirmed or now > self._deadline + 60):
            self._ioloop.stop()
            return
        self._ioloop.call_later(_TICK_SECONDS, self._tick)

    def _publish_next(self) -> bool:
        if self._again:
            number = self._again.popleft()
        elif self._paused or self._stopping or self._numbers["published"] >= self._options.count:
            return False
        else:
            number = self._numbers["published"]
            self._numbers["published"] += 1
            self._unconfirmed[number] = bodies.make(self._options.run, number, self._rng)
        properties = pika.BasicProperties(
            delivery_mode=2, message_id=bodies.make_id(self._options.run, number), app_id="chaos"
        )
        epoch = self._numbers["epoch"]
        self._journal.write(f"p {number} {epoch} {time.monotonic_ns()}\n")
        self._tag += 1
        self._sent[self._tag] = number
        self._numbers["sent"] += 1
        self._channel.basic_publish(
            self._options.exchange, "", self._unconfirmed[number], properties,
            mandatory=not self._options.plain,
        )  # fmt: skip
        return True

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        # It reached no queue; the confirm that follows proves nothing.
        self._returned.add(int(properties.message_id.rpartition("-")[2]))

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._sent if tag <= method.delivery_tag]
        for tag in tags:
            number = self._sent.pop(tag)
            if number in self._returned or method.NAME == "Basic.Nack":
                self._returned.discard(number)
                self._numbers["returned"] += 1
                self._again.append(number)
                continue
            del self._unconfirmed[number]
            self._numbers["confirmed"] += 1
            self._journal.write(f"c {number}\n")

    def _tell(self, *, final: bool = False) -> None:
        numbers = {**self._numbers, "blocked": self._blocked, "final": final}
        numbers["quiet"] = not self._unconfirmed
        print(json.dumps(numbers), flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="chaos.publisher")
    parser.add_argument("url")
    parser.add_argument("exchange")
    parser.add_argument("journal")
    parser.add_argument("--run", required=True)
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second")
    parser.add_argument("--window", type=int, default=1000, help="most messages unconfirmed")
    parser.add_argument("--count", type=int, default=10_000_000, help="most messages")
    parser.add_argument("--seconds", type=float, default=7200.0, help="longest time")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--plain", action="store_true", help="without mandatory")
    return Publisher(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
