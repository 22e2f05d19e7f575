"""FastStream on uvloop: a subscriber that takes bytes; its own default acknowledges each message.

`faststream_each.py URL QUEUE PREFETCH`
"""

import logging
import sys

import uvloop
from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue


async def handle(body: bytes) -> None:
    """Nothing is done with a message."""


def main(url: str, name: str, prefetch: int) -> None:
    """Consume until the process is ended."""
    # Without its line of log for each message.
    broker = RabbitBroker(
        url, default_channel=Channel(prefetch_count=prefetch), log_level=logging.DEBUG, logger=None
    )
    broker.subscriber(RabbitQueue(name, durable=True, declare=False))(handle)
    uvloop.run(FastStream(broker, logger=None).run())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
