"""pika's connection with a fast path from bytes to records, and a cancel without rejects.

It knows pika's internals, as `read_pause` and `pika_compatibility` do for it.
"""

import logging
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

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
_SEVERAL_FRAMES_BYTES = 128 * 1024 - 7
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


class Receiver(Protocol):
    """Who takes the messages of one consumer, on the I/O thread."""

    read_bytes: int
    """So many may come with one read, where that is more than usual."""

    @property
    def now(self) -> Callable[[], float]:
        """The time of receipt that records bear, in seconds since 1970."""

    def on_deliveries(self, channel: Any, run: Run) -> None:
        """Messages that came together; none of them came before, or is a replayed letter."""

    def deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """One message that came in no run; pika's callback."""

    def on_read_end(self) -> None:
        """All that this read brought is handed over; it may have brought no message."""


@dataclass(frozen=True, slots=True)
class _Consumer:
    """The consumer whose deliveries take the fast path."""

    channel: pika.channel.Channel
    tag: str
    receiver: Receiver
    stream: Stream


class Connection(pika.SelectConnection):  # type: ignore[misc]
    """pika's connection with a fast path for deliveries, and no properties can make it fail.

    `consume` names a receiver. Whole deliveries to it are parsed by `Stream` in one pass; one that
    is cut at the end of a read waits for the next one; all else goes frame by frame through pika,
    in the order of the wire. A large body of which the rest is to come is received by `LargeBody`
    right into its place, and pika gets it as one frame. Where one read after the other ends within
    a large body, more is read at a time. Without `fast`, or where pika's internals are not as
    expected, pika reads everything itself.
    """

    several_frames_bytes = _SEVERAL_FRAMES_BYTES
    """A body that is so large is received into its place, unless it has come whole."""
    large_bytes = _LARGE_BYTES
    """The same where a read brought less than it could: the rest may come bit by bit."""
    buffer_bytes = _BUFFER_BYTES
    """The most that is received into one buffer."""

    def __init__(self, *arguments: Any, fast: bool = True, **keywords: Any) -> None:
        self._fast = False
        self._hold = Hold()
        self._consumer: _Consumer | None = None
        self._large: LargeBody | None = None
        self._buffer = bytearray()
        self._large_at = 0.0
        """When the last large body began, on the monotonic clock; 0.0 where none did lately."""
        self._wide_read_bytes = _WIDE_READ_BYTES
        self._full = self._cut = False
        """Whether the present read brought as much as it could; whether it ends within a large
        body."""
        self._cuts = 0
        """How many reads did so, one after the other."""
        super().__init__(*arguments, **keywords)
        odd = missing_internal(self)
        if odd:
            _warn_once(f"this pika ({pika.__version__}) has another {odd} than expected")
        self._sees_reads = odd != "_on_data_available"
        self._fast = fast and not odd

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # Closed while it opens, pika hands over this class itself, and fails on it in the loop.
        if outcome is AMQPConnectionWorkflowAborted:
            outcome = AMQPConnectionWorkflowAborted()
        super()._on_connection_workflow_done(outcome)

    def consume(
        self,
        channel: pika.channel.Channel,
        queue: str,
        receiver: Receiver,
        on_consuming: Callable[[Any], None],
        *,
        consumer_tag: str | None = None,
    ) -> str:
        """Consume the queue; one consumer a connection. Returns its consumer tag. `on_consuming`
        is called with the broker's answer."""
        deliver = receiver.deliver if self._sees_reads else partial(_deliver_alone, receiver)
        tag: str = channel.basic_consume(
            queue, deliver, consumer_tag=consumer_tag, callback=on_consuming
        )
        stream = Stream(channel.channel_number, tag, decode_properties, apart=REPLAY.encode())
        self._consumer = _Consumer(channel, tag, receiver, stream)
        if self._fast:
            if not self._large_at:
                malloc.give_back()  # what an earlier connection kept and was lost with
            self._wide_read_bytes = max(_READ_BYTES, min(receiver.read_bytes, _WIDE_READ_BYTES))
            # Read by its own hand, a large body is received right into its place.
            if hasattr(self._transport, "_sigint_safe_recv"):
                self._transport._sigint_safe_recv = self._receive
        return tag

    def hold(self) -> bool:
        """Read nothing until `go_on`: the broker waits. False where that cannot be."""
        return self._hold.begin(self._transport)

    def go_on(self) -> None:
        """Read again, where the connection still stands and nobody else holds it."""
        self._hold.end(self._transport)

    def room(self) -> memoryview | None:
        """Where to put what comes next; None where that is nowhere in particular."""
        return None if self._large is None else self._large.room()

    def _receive(self, socket: Any, most_bytes: int) -> bytes | memoryview:
        self._hold.check(self._transport)
        if self._large is not None:
            room = self._large.room()
            return room[: socket.recv_into(room)]
        if self._cuts < _CUTS:
            return _received(socket, most_bytes)
        self._grow_buffer(self._wide_read_bytes)
        view = memoryview(self._buffer)
        return bytes(view[: socket.recv_into(view, self._wide_read_bytes)])

    def _on_data_available(self, data_in: bytes | memoryview) -> None:
        """A memoryview is what was put into `room`."""
        try:
            if self._fast:
                self._take(data_in)
            else:
                super()._on_data_available(data_in)
        finally:
            if self._consumer is not None:
                self._consumer.receiver.on_read_end()

    def _take(self, data_in: bytes | memoryview) -> None:
        # pika counts whole frames. What came shows already that the broker lives.
        self.bytes_received += len(data_in)
        room = _READ_BYTES if self._large is None else len(self._large.room())
        self._full, self._cut = len(data_in) >= room, False
        if self._large is not None:
            self._read(self._fill(self._large, data_in))
        elif self._frame_buffer:
            self._read(self._frame_buffer + data_in)
        else:
            self._read(bytes(data_in))
        self._cuts = self._cuts + 1 if self._cut else 0
        if self._cuts >= _CUTS:
            self._keep_blocks()

    def _read(self, data: bytes) -> None:
        """From the first byte of a frame on. What is left waits for more in `_frame_buffer`."""
        at = 0
        try:
            while at < len(data):
                consumer = self._consumer
                if consumer is not None and self._is_between_messages(consumer):
                    run = consumer.stream.scan(data, at, consumer.receiver.now())
                    if run is not None:
                        at = run.end
                        self.frames_received += 3 * len(run.records)
                        consumer.receiver.on_deliveries(consumer.channel, run)
                    if at == len(data) or self._waits_for_rest(consumer.stream, data, at):
                        return
                    if run is not None:
                        continue
                taken, value = _decode(data, at)
                if not value:
                    return
                at += taken
                self._process_frame(value)
                if type(value) is frame.Header and value.body_size > len(data) - at:
                    self._cut = value.body_size >= self.large_bytes
                    if self._goes_into_place(value):
                        data, at = self._begin_large(value, data[at:]), 0
        finally:
            self._frame_buffer = data[at:]

    def _waits_for_rest(self, stream: Stream, data: bytes, at: int) -> bool:
        """Whether what is left is the beginning of a delivery that the next read completes."""
        body_size = stream.begun(data, at)
        if body_size is None or body_size >= self._in_place_bytes():
            return False
        self._cut = body_size >= self.large_bytes
        return True

    def _in_place_bytes(self) -> int:
        """A body that is so large is received into its place, where its rest is still to come."""
        least = self.several_frames_bytes
        return least if self._full else min(least, self.large_bytes)

    def _goes_into_place(self, header: frame.Header) -> bool:
        """Whether pika waits for the body of this header, and it is large."""
        channel = self._channels.get(header.channel_number)
        if header.body_size < self._in_place_bytes() or channel is None:
            return False
        assembler = channel._content_assembler
        return assembler._header_frame is header and not assembler._seen_so_far

    def _begin_large(self, header: frame.Header, data: bytes) -> bytes:
        """Its body begins with `data`. What is left to read; nothing while more is to come."""
        if header.body_size > malloc.BLOCK_BYTES:
            self._keep_blocks()
        self._grow_buffer(min(header.body_size + _AROUND_BYTES, self.buffer_bytes))
        self._large = LargeBody(header.channel_number, header.body_size, self._buffer)
        return self._fill(self._large, data)

    def _fill(self, large: LargeBody, data: bytes | memoryview) -> bytes:
        """More of it. What is left to read behind it; nothing while more is to come."""
        frames_before = large.frames
        behind = b""
        if isinstance(data, memoryview):
            large.came(len(data))
        else:
            behind = large.take(data)
        self.frames_received += large.frames - frames_before
        if not large.done:
            return b""
        self._large, body = None, large.body()
        self._frame_buffer = rest = large.rest() + behind  # whatever the consumer raises
        if body:
            self.frames_received -= 1  # pika counts the one that it gets
            self._process_frame(frame.Body(large.channel, body))
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
        if quiet < _QUIET_SECONDS or self._large is not None:
            again = max(1.0, _QUIET_SECONDS - quiet)
            self._adapter_call_later(again, self._give_back_where_quiet)
            return
        self._large_at, self._buffer = 0.0, bytearray()
        malloc.give_back()

    def _is_between_messages(self, consumer: _Consumer) -> bool:
        """Whether pika would hand the next delivery to this consumer."""
        channel, tag = consumer.channel, consumer.tag
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


def _deliver_alone(
    receiver: Receiver, channel: Any, method: Any, properties: Any, body: bytes
) -> None:
    """Where it is not known when a read ends, each message is a read of its own."""
    receiver.deliver(channel, method, properties, body)
    receiver.on_read_end()


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
