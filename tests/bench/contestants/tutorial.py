"""A consumer as RabbitMQ's tutorial on work queues has it: one at a time, each acknowledged.

`tutorial.py URL QUEUE`
"""

import sys
from typing import Any

import pika


def main(url: str, queue: str) -> None:
    """Consume until the process is ended."""

    def callback(channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        channel.basic_ack(delivery_tag=method.delivery_tag)

    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=queue, on_message_callback=callback)
    channel.start_consuming()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
