"""What `fill.c` does, where there is no C compiler: slower, and it takes more of a core.

`python -m bench.fill PORT QUEUE COUNT SIZE DECK [RATE [EXCHANGE]]`
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pika

from bench.bodies import NUMBER_AT, NUMBER_DIGITS, STAMP_AT, STAMP_DIGITS
from bench.stage import QUEUE
from support.broker import channel


def main(arguments: Sequence[str]) -> None:
    """The command line is that of `fill.c`."""
    port, queue, count, size = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    deck = Path(arguments[4]).read_bytes()
    rate = float(arguments[5]) if len(arguments) > 5 else 0.0
    exchange = arguments[6] if len(arguments) > 6 else ""
    bodies = [bytearray(deck[at : at + size]) for at in range(0, len(deck), size)]
    properties = pika.BasicProperties(
        content_type="application/json", delivery_mode=2, timestamp=int(time.time())
    )
    with channel(f"amqp://guest:guest@127.0.0.1:{port}/%2F") as open_channel:
        began = time.monotonic()
        for number in range(count):
            if rate:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            body = bodies[number % len(bodies)]
            properties.message_id = f"{number:0{NUMBER_DIGITS}d}"
            body[NUMBER_AT : NUMBER_AT + NUMBER_DIGITS] = properties.message_id.encode()
            stamp = f"{time.monotonic_ns():0{STAMP_DIGITS}d}".encode()
            body[STAMP_AT : STAMP_AT + STAMP_DIGITS] = stamp
            open_channel.basic_publish(exchange, queue, bytes(body), properties)
        print(f"{time.monotonic() - began:.6f}")
        # An answer to a later request means that all before it is in the queue.
        open_channel.queue_declare(QUEUE, passive=True)


if __name__ == "__main__":
    main(sys.argv[1:])
