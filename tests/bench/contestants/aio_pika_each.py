"""aio-pika on uvloop: a callback that acknowledges each message.

`aio_pika_each.py URL QUEUE PREFETCH`
"""

import asyncio
import sys
from typing import Any

import aio_pika
import uvloop


async def main(url: str, name: str, prefetch: int) -> None:
    """Consume until the process is ended."""

    async def on_message(message: Any) -> None:
        await message.ack()

    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=prefetch)
    queue = await channel.get_queue(name)
    await queue.consume(on_message)
    await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
