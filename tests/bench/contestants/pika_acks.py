"""Bare pika on its `SelectConnection`, the faster of its two: acknowledges each message, or many.

`pika_acks.py URL QUEUE PREFETCH COUNT each|cumulative`. Does nothing else with what it gets.
"""

import sys
from typing import Any

import pika


def main(url: str, queue: str, prefetch: int, count: int, acks: str) -> None:
    """Consume until the process is ended."""
    # As the C client does: often enough that the window never runs dry.
    step = 1 if acks == "each" or prefetch < 16 else prefetch // 8

    def on_message(channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        tag = method.delivery_tag
        if step == 1:
            channel.basic_ack(tag)
        elif tag % step == 0 or tag == count:
            channel.basic_ack(tag, multiple=True)

    def on_channel(channel: Any) -> None:
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(queue, on_message)

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
    )
    connection.ioloop.start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
