"""pika's connection with a fast path from bytes to records, and a cancel without rejects.

It knows pika's internals, as `read_pause` and `pika_compatibility` do for it.
"""

import logging
import struct
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import pika
from pika import frame, spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils import io_services_utils
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowAborted

from logfan.amqp.delivery_parser import Run, Stream
from logfan.amqp.large_body import LargeBody
from logfan.amqp.pika_compatibility import missing_internal
from logfan.amqp.read_pause import Hold
from logfan.amqp_properties import REPLAY, decode_properties
from logfan.record import Properties, Record
from logfan.runtime import malloc

log = logging.getLogger(__name__)

_FRAME_HEADER_BYTES = 7
_READ_BYTES = 128 * 1024
_LARGE_BYTES = 32 * 1024
_WIDE_READ_BYTES = 1 << 20
_CUTS = 2
"""So many reads that end within a large body show that more come."""
_LONG_BYTES = 128 * 1024 - 7
"""What is larger comes in several frames, as brokers are set up."""
_BUFFER_BYTES = 2 << 20
_QUIET_SECONDS = 10.0
_AROUND_BYTES = 16 * 1024
"""What comes with a body: what goes around each of its frames, and the next message's beginning."""
_CONTENT_HEADER_BYTES = 12
_BASIC = struct.pack(">H", spec.BasicProperties.INDEX)


class RawProperties:
    """The properties of one delivery, undecoded until somebody asks."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


class Connection(pika.SelectConnection):  # type: ignore[misc]
    """pika's connection with a fast way for deliveries, and no properties can make it fail.

    Whole deliveries of the consumer named by `stream` are taken by `Stream` in one pass;
    all else goes frame by frame through pika, in the order of the wire; but the frames of a long
    body are put together by `frames.LargeBody`, and pika sees them as one. Where one read after the
    other ends within a large body, more is read at a time. Where pika's inside is not as expected,
    or after `stand_down`, pika reads everything itself.
    """

    long_bytes = _LONG_BYTES
    """A body that is so large and not whole yet is a long one."""
    large_bytes = _LARGE_BYTES
    """A body that is so large is a large one."""
    buffer_bytes = _BUFFER_BYTES
    """The most that is received into one buffer."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._fast = False
        self._hold = Hold()
        self._stream: Stream | None = None
        self._long: LargeBody | None = None
        self._buffer = bytearray()
        self._large_at = 0.0
        """When the last large body began, on the monotonic clock; 0.0 where none did lately."""
        self._wide_read_bytes = _WIDE_READ_BYTES
        self._full = self._cut = False
        """Whether the present read brought as much as it could; whether it ends within a large
        body."""
        self._cuts = 0
        """How many reads did so, one after the other."""
        self._after_read: list[Callable[[], None]] | None = None
        super().__init__(*arguments, **keywords)
        odd = missing_internal(self)
        if odd:
            _warn_once(f"this pika ({pika.__version__}) has another {odd} than expected")
        self._fast = not odd

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # Closed while it opens, pika hands over this class itself, and fails on it in the loop.
        if outcome is AMQPConnectionWorkflowAborted:
            outcome = AMQPConnectionWorkflowAborted()
        super()._on_connection_workflow_done(outcome)

    def stand_down(self) -> None:
        """Leave all reading to pika. Not to be called from within a read."""
        self._fast = False
        if self._long is not None:
            self._frame_buffer = self._hand_over(self._long)

    def stream(
        self,
        channel: pika.channel.Channel,
        consumer_tag: str,
        take: Callable[[Any, Run], None],
        now: Callable[[], float],
        most_bytes: int = _WIDE_READ_BYTES,
    ) -> None:
        """Take the deliveries of this consumer the fast way: `take(channel, run)`. Those that need
        more than that still come to the consumer's own callback. `now` in seconds since 1970.
        `most_bytes`: so much may be read at a time, where that is more than usual."""
        self._wide_read_bytes = max(_READ_BYTES, min(most_bytes, _WIDE_READ_BYTES))
        if self._fast:
            if not self._large_at:
                malloc.give_back()  # what an earlier connection kept and was lost with
            self._streaming = channel, consumer_tag, take, now
            self._stream = Stream(
                channel.channel_number, consumer_tag, decode_properties, apart=REPLAY.encode()
            )
            # Read by its own hand, a long body is received right into its place.
            if hasattr(self._transport, "_sigint_safe_recv"):
                self._transport._sigint_safe_recv = self._receive

    def after_read(self, call: Callable[[], None]) -> bool:
        """Have this called at the end of the present read; False where there is none."""
        if self._after_read is None:
            return False
        self._after_read.append(call)
        return True

    def hold(self) -> bool:
        """Read nothing until `go_on`: the broker waits. False where that cannot be."""
        return self._hold.begin(self._transport)

    def go_on(self) -> None:
        """Read again, where the connection still stands and nobody else holds it."""
        self._hold.end(self._transport)

    def room(self) -> memoryview | None:
        """Where to put what comes next; None where that is nowhere in particular."""
        return None if self._long is None else self._long.room()

    def _receive(self, socket: Any, most_bytes: int) -> bytes | memoryview:
        self._hold.check(self._transport)
        if (room := self.room()) is not None:
            return room[: socket.recv_into(room)]
        if self._cuts < _CUTS:
            return _received(socket, most_bytes)
        self._grow_buffer(self._wide_read_bytes)
        view = memoryview(self._buffer)
        return bytes(view[: socket.recv_into(view, self._wide_read_bytes)])

    def _on_data_available(self, data_in: bytes | memoryview) -> None:
        """A memoryview is what was put into `room`."""
        if not self._fast:
            super()._on_data_available(data_in)
            return
        calls = self._after_read = []
        try:
            self._take(data_in)
        finally:
            self._after_read = None
            for call in calls:
                call()

    def _take(self, data_in: bytes | memoryview) -> None:
        room = _READ_BYTES if self._long is None else len(self._long.room())
        self._full, self._cut = len(data_in) >= room, False
        data = bytes(data_in) if self._long is None else self._gather(self._long, data_in)
        self._read(self._frame_buffer + data if self._frame_buffer else data)
        self._cuts = self._cuts + 1 if self._cut else 0
        if self._cuts >= _CUTS:
            self._keep_blocks()

    def _read(self, data: bytes) -> None:
        at = 0
        try:
            while at < len(data):
                if self._stream is not None and self._is_between_messages():
                    channel, _, take, now = self._streaming
                    run = self._stream.scan(data, at, now())
                    if run is not None:
                        self.bytes_received += run.end - at
                        self.frames_received += 3 * len(run.records)
                        at = run.end
                        take(channel, run)
                        continue
                taken, value = _decode(data, at)
                if not value:
                    return
                at += taken
                self.bytes_received += taken
                self._process_frame(value)
                if type(value) is frame.Header and value.body_size > len(data) - at:
                    self._cut = value.body_size >= self.large_bytes
                    if self._begins_long(value):
                        data, at = self._begin_long(value, data[at:]), 0
        finally:
            self._frame_buffer = data[at:]

    def _begins_long(self, header: frame.Header) -> bool:
        """Whether pika waits for the body of this header, and it is a long one; or a large one, of
        which the rest is not there yet: it may come bit by bit."""
        channel = self._channels.get(header.channel_number)
        least = self.long_bytes if self._full else min(self.long_bytes, self.large_bytes)
        if header.body_size < least or channel is None:
            return False
        assembler = channel._content_assembler
        return assembler._header_frame is header and not assembler._seen_so_far

    def _begin_long(self, header: frame.Header, data: bytes) -> bytes:
        """Its body begins with `data`. What is left to read; nothing while more is to come."""
        if header.body_size > malloc.BLOCK_BYTES:
            self._keep_blocks()
        self._grow_buffer(min(header.body_size + _AROUND_BYTES, self.buffer_bytes))
        self._long = LargeBody(header.channel_number, header.body_size, self._buffer)
        return self._gather(self._long, data)

    def _gather(self, long: LargeBody, data: bytes | memoryview) -> bytes:
        """The same with more of it."""
        before = long.frames
        if isinstance(data, memoryview):
            self.bytes_received += long.came(len(data))
            data = b""
        while data and not long.done:
            room = long.room()
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            self.bytes_received += long.came(len(part))
        self.frames_received += long.frames - before
        return self._hand_over(long, data) if long.done else b""

    def _hand_over(self, long: LargeBody, data: bytes = b"") -> bytes:
        """Give pika what has come of it as one frame. What is left to read."""
        self._long, body = None, long.body()
        self._frame_buffer = rest = long.rest() + data  # whatever the consumer raises
        if body:
            self.frames_received -= 1
            self._process_frame(frame.Body(long.channel, body))
        self._frame_buffer = b""
        return rest

    def _grow_buffer(self, size: int) -> None:
        if len(self._buffer) < size:
            self._buffer = bytearray(size)

    def _keep_blocks(self) -> None:
        """The memory of large bodies is used again, until none has come for a while."""
        malloc.keep_blocks()
        if not self._large_at:
            self._adapter_call_later(_QUIET_SECONDS, self._give_back_where_quiet)
        self._large_at = time.monotonic()

    def _give_back_where_quiet(self) -> None:
        quiet = time.monotonic() - self._large_at
        if quiet < _QUIET_SECONDS or self._long is not None:
            again = max(1.0, _QUIET_SECONDS - quiet)
            self._adapter_call_later(again, self._give_back_where_quiet)
            return
        self._large_at, self._buffer = 0.0, bytearray()
        malloc.give_back()

    def _is_between_messages(self) -> bool:
        """Whether pika would hand the next delivery to the stream's consumer."""
        channel, tag, _, _ = self._streaming
        assembler = channel._content_assembler
        return (
            assembler._method_frame is None
            and assembler._header_frame is None  # one without a method is kept, too
            and tag in channel._consumers
            and tag not in channel._cancelled
            and self._channels.get(channel.channel_number) is channel
        )

    def _read_frame(self) -> tuple[int, Any]:
        """What pika's own reading calls; a later pika may not."""
        buffer = self._frame_buffer
        if len(buffer) < _FRAME_HEADER_BYTES or buffer[0] != spec.FRAME_HEADER:
            read: tuple[int, Any] = super()._read_frame()
            return read
        return _decode(bytes(buffer), 0)


def _decode(data: bytes, at: int) -> tuple[int, Any]:
    """The frame at `at`: its length and what pika calls it; 0 and None where it is not whole.

    Raises what pika raises for a frame that cannot be, but for properties, which stay bytes.
    """
    start = at + _FRAME_HEADER_BYTES
    if data.startswith(b"AMQP", at) or len(data) < start:
        return _decode_whole(data[at : at + 8])
    end = start + int.from_bytes(data[at + 3 : start], "big")
    if len(data) <= end:
        return 0, None
    kind, channel = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
    if data[end] == spec.FRAME_END:
        if kind == spec.FRAME_BODY:
            return end + 1 - at, frame.Body(channel, data[start:end])
        properties = start + _CONTENT_HEADER_BYTES
        if kind == spec.FRAME_HEADER and properties <= end and data.startswith(_BASIC, start):
            body_size = int.from_bytes(data[start + 4 : properties], "big")
            raw = RawProperties(data[properties:end])
            return end + 1 - at, frame.Header(channel, body_size, raw)
    return _decode_whole(data[at : end + 1])


def _decode_whole(data: bytes) -> tuple[int, Any]:
    decoded: tuple[int, Any] = frame.decode_frame(data)
    return decoded


@lru_cache
def _warn_once(why: str) -> None:
    log.warning("%s; it reads by itself, which is right but slower", why)


def to_record(
    method: spec.Basic.Deliver,
    properties: RawProperties | spec.BasicProperties,
    body: bytes,
    received_at: float,
) -> Record:
    """One delivery as a record; its properties are decoded when somebody looks at them."""
    return Record(
        body,
        _text(method.exchange),
        _text(method.routing_key),
        method.redelivered,
        received_at,
        partial(to_properties, properties),
    )


def _text(short: str | bytes) -> str:
    """pika leaves a short string that is not UTF-8 as bytes."""
    return short if isinstance(short, str) else short.decode("utf-8", "backslashreplace")


def to_properties(properties: RawProperties | spec.BasicProperties) -> Properties:
    """What pika handed over as our properties."""
    if isinstance(properties, RawProperties):
        return decode_properties(properties.raw)
    return decode_properties(b"".join(properties.encode()))


def new_loop() -> Any:
    """The loop that a connection, and all that is called on its thread, turns on."""
    return IOLoop()


def read_more() -> None:
    """Have pika read 128 KiB at a time rather than 4 KiB: a large body is copied less often, and a
    read under load brings hundreds of messages.

    Into one buffer of each thread, and out of it what came: `recv` of so much reserves as much for
    each read, however little comes, and the holes that this leaves made the heap grow by the hour.
    """
    transport = getattr(io_services_utils, "_AsyncTransportBase", None)
    if transport is None or not hasattr(transport, "_MAX_RECV_BYTES"):
        return
    transport._MAX_RECV_BYTES = _READ_BYTES
    if hasattr(transport, "_sigint_safe_recv"):
        transport._sigint_safe_recv = staticmethod(_received)


class _Buffer(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(_READ_BYTES))


_buffer = _Buffer()


def _received(socket: Any, _most_bytes: int) -> bytes:
    """What the socket has; empty at its end. Raises OSError, as `recv` does."""
    view = _buffer.view
    return bytes(view[: socket.recv_into(view)])


def cancel(
    channel: pika.channel.Channel, consumer_tag: str, on_cancelled: Callable[[], None]
) -> None:
    """Cancel a consumer and go on taking what the broker had already sent, until it confirms.

    pika's own `basic_cancel` rejects those deliveries at once; a quorum queue counts each such
    reject as a failed delivery. So the method is sent without telling pika that the consumer is
    being cancelled; where its inside is not as expected, pika's own way is the fallback.
    """

    def done(_frame: Any) -> None:
        on_cancelled()

    rpc = getattr(channel, "_rpc", None)
    if rpc is None:
        channel.basic_cancel(consumer_tag, callback=done)
        return
    rpc(
        spec.Basic.Cancel(consumer_tag=consumer_tag, nowait=False),
        done,
        [(spec.Basic.CancelOk, {"consumer_tag": consumer_tag})],
    )
