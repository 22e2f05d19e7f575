"""kombu, as Celery uses it: a callback that acknowledges each message.

`kombu_each.py URL QUEUE PREFETCH`
"""

import sys
from typing import Any

import kombu


def main(url: str, name: str, prefetch: int) -> None:
    """Consume until the process is ended."""

    def on_message(message: Any) -> None:
        message.ack()

    with kombu.Connection(url) as connection:
        queue = kombu.Queue(name, no_declare=True)
        consumer = kombu.Consumer(
            connection.channel(), [queue], on_message=on_message, auto_declare=False
        )
        consumer.qos(prefetch_count=prefetch)
        with consumer:
            while True:
                connection.drain_events()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
