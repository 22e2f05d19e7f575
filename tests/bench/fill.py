"""What `fill.c` does, where there is no C compiler: slower, and it takes more of a core. It has
each message confirmed at any rate.

`python -m bench.fill PORT QUEUE COUNT SIZE DECK SHAPE [RATE [EXCHANGE]]`
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pika

from bench.bodies import NUMBER_DIGITS, STAMP_DIGITS, places, properties
from logfan.amqp.blocking import BlockingConnection
from logfan.amqp.publisher import Window
from logfan.config.settings import Settings


def main(arguments: Sequence[str]) -> None:
    """The command line is that of `fill.c`."""
    port, queue, count, size = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    deck = Path(arguments[4]).read_bytes()
    shape = arguments[5]
    number_at, stamp_at = places(shape)
    rate = float(arguments[6]) if len(arguments) > 6 else 0.0
    exchange = arguments[7] if len(arguments) > 7 else ""
    bodies = [bytearray(deck[at : at + size]) for at in range(0, len(deck), size)]
    url = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
    settings = {"rabbitmq": {"urls": [url]}, "sinks": {"none": {"kind": "none"}}}
    with BlockingConnection(Settings.model_validate(settings)) as link:
        window = Window(link.channel())
        began = time.monotonic()
        for number in range(count):
            if rate:
                early = began + number / rate - time.monotonic()
                link.until(link.time_limit(max(0.0, early)))
            body = bodies[number % len(bodies)]
            digits = f"{number:0{NUMBER_DIGITS}d}".encode()
            body[number_at : number_at + NUMBER_DIGITS] = digits
            stamp = f"{time.monotonic_ns():0{STAMP_DIGITS}d}".encode()
            body[stamp_at : stamp_at + STAMP_DIGITS] = stamp
            set_ones = properties(shape, number)
            window.publish(
                exchange, queue, bytes(body),
                pika.BasicProperties(timestamp=int(time.time()), **set_ones),
            )  # fmt: skip
        print(f"{time.monotonic() - began:.6f}")
        window.drain()
        if window.returned or window.rejected:
            sys.exit(f"{window.returned + window.rejected} messages reached no queue")


if __name__ == "__main__":
    main(sys.argv[1:])
