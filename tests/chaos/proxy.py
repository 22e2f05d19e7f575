"""A TCP proxy in front of the broker that does on request what bad networks do.

It runs on a thread of its own. Everything is counted, so that a test knows that its fault really
happened. It also notes when each cumulative acknowledgement passed, as an observer outside of
the daemon.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

_CHUNK = 1 << 16
_TRICKLE_BYTES = 64
_TRICKLE_SECONDS = 0.02
_RST = struct.pack("ii", 1, 0)
# A whole basic.ack frame: type method, a channel, 13 bytes, class 60, method 80, the tag, multiple.
_ACK = struct.Struct(">BHIHHQBB")
_ACK_FRAME = (1, 13, 60, 80, 0xCE)

# The same from the broker is a confirm to a publisher: what stands before the tag, without type
# and channel.
_CONFIRM = struct.pack(">IHH", 13, 60, 80)
_BEFORE_SIZE = 3

T = TypeVar("T")


@dataclass(slots=True)
class Counts:
    """What the proxy did."""

    connections: int = 0
    open: int = 0
    reset: int = 0
    held: int = 0
    """Chunks that were kept back."""
    delayed: int = 0
    trickled: int = 0
    refused: int = 0
    """Connections ended because of a message that may not pass."""
    withheld: int = 0
    """Connections on which a confirm is, or was, kept back."""
    bytes: int = 0


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to the broker's."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0
        self.counts = Counts()
        self.acks: list[tuple[float, int]] = []
        """When (monotonic seconds) an acknowledgement passed, and of which tag."""
        self._delay = 0.0
        self._trickle = False
        self._forbidden = b""
        self._withholding = False
        self._withheld: list[tuple[asyncio.Event, asyncio.StreamWriter]] = []
        self._loop = asyncio.new_event_loop()
        self._through = asyncio.Event()
        self._through.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        return self._do(self._cut())

    def swallow(self) -> None:
        """A black hole: connections stay open, and nothing passes in either direction."""
        self._loop.call_soon_threadsafe(self._through.clear)

    def delay(self, seconds: float) -> None:
        """Every chunk comes so much later."""
        self._delay = seconds

    def trickle(self) -> None:
        """What the broker sends comes a few bytes at a time."""
        self._trickle = True

    def forbid(self, mark: bytes) -> None:
        """End each connection on which the broker sends something with this in it, as a broker
        does that cannot deliver a message; what stands before it passes."""
        self._forbidden = mark

    def withhold_confirms(self) -> None:
        """On each connection, keep back the next confirm of a publisher, and all that follows."""
        self._withholding = True

    def let_first_pass(self) -> None:
        """What was kept back first passes now, on its connection alone."""
        self._loop.call_soon_threadsafe(self._withheld.pop(0)[0].set)

    def cut_withheld(self) -> None:
        """Reset the connections on which something is kept back."""
        writers = {writer for _, writer in self._withheld}
        self._do(self._cut(writers))

    def heal(self) -> None:
        """Forward as before; what was kept back passes now."""
        self._delay, self._trickle, self._forbidden = 0.0, False, b""
        self._withholding = False
        while self._withheld:
            self.let_first_pass()
        self._loop.call_soon_threadsafe(self._through.set)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self, only: Collection[asyncio.StreamWriter] | None = None) -> int:
        writers = self._writers if only is None else self._writers.intersection(only)
        self._writers = self._writers - writers
        for writer in writers:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            writer.transport.abort()
        self.counts.reset += len(writers) // 2
        return len(writers) // 2

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.counts.open += 1
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            self._end(task)
            return
        both = {writer, forth}
        self._writers |= both
        pumps = [
            asyncio.ensure_future(self._pump(reader, forth, of_client=True)),
            asyncio.ensure_future(self._pump(back, writer, of_client=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in both:
                end.close()
            self._writers -= both
            self._end(task)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self.counts.open -= 1
        self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, of_client: bool
    ) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                self.counts.bytes += len(chunk)
                if not self._through.is_set():
                    self.counts.held += 1
                    await self._through.wait()
                if self._delay:
                    self.counts.delayed += 1
                    await asyncio.sleep(self._delay)
                if of_client:
                    self._note_ack(chunk)
                elif self._trickle:
                    chunk = await self._drop_by_drop(chunk, writer)
                elif self._forbidden:
                    # It may stand across two reads.
                    tail = (tail + chunk)[-len(chunk) - len(self._forbidden) :]
                    if self._forbidden in tail:
                        self.counts.refused += 1
                        writer.write(chunk[: max(0, chunk.find(self._forbidden))])
                        await writer.drain()
                        return
                elif self._withholding and _CONFIRM in chunk:
                    chunk = await self._withhold(chunk, writer)
                writer.write(chunk)
                await writer.drain()

    async def _withhold(self, chunk: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Sends what stands before the confirm; returns the rest, once that may pass."""
        start = chunk.index(_CONFIRM) - _BEFORE_SIZE
        writer.write(chunk[:start])
        await writer.drain()
        passes = asyncio.Event()
        self._withheld.append((passes, writer))
        self.counts.withheld += 1
        await passes.wait()
        return chunk[start:]

    async def _drop_by_drop(self, chunk: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Sends a part of it slowly while the order stands; returns the rest."""
        start = 0
        while self._trickle and start < len(chunk):
            self.counts.trickled += 1
            writer.write(chunk[start : start + _TRICKLE_BYTES])
            await writer.drain()
            start += _TRICKLE_BYTES
            await asyncio.sleep(_TRICKLE_SECONDS)
        return chunk[start:]

    def _note_ack(self, chunk: bytes) -> None:
        # An ack is the last that a turn of the daemon's loop sends, so the end of the chunk is
        # where the furthest one stands.
        if len(chunk) < _ACK.size:
            return
        kind, _, size, klass, method, tag, _, end = _ACK.unpack(chunk[-_ACK.size :])
        if (kind, size, klass, method, end) == _ACK_FRAME:
            self.acks.append((time.monotonic(), tag))
