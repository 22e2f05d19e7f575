"""pika's connection with a fast path from the bytes of a read to records."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pika import frame, spec
from pika.adapters.select_connection import IOLoop

from logfan.amqp.delivery_parser import Run, Stream
from logfan.amqp.large_body import LargeBody
from logfan.amqp.pika_internals import Channel, PikaConnection, RawProperties, decode_frame
from logfan.amqp_properties import REPLAY, decode_properties
from logfan.record import Properties, Record
from logfan.runtime import malloc

_READ_BYTES = 128 * 1024
_WIDE_READ_BYTES = 1 << 20
_CUTS = 2
"""So many reads that end within a large body show that more come."""
_QUIET_SECONDS = 10.0
_AROUND_BYTES = 16 * 1024
"""What comes with a body: what goes around each of its frames, and the next message's beginning."""


class Receiver(Protocol):
    """Who takes the messages of one consumer, on the I/O thread."""

    read_bytes: int
    """So many may come with one read, where that is more than usual."""

    @property
    def now(self) -> Callable[[], float]:
        """The time of receipt that records bear, in seconds since 1970."""

    def on_deliveries(self, channel: Channel, run: Run) -> None:
        """Messages that came together; none of them came before, or is a replayed letter."""

    def deliver(self, channel: Channel, method: Any, properties: Any, body: bytes) -> None:
        """One message that came in no run; pika's callback."""

    def on_read_end(self) -> None:
        """All that this read brought is handed over; it may have brought no message."""


@dataclass(frozen=True, slots=True)
class _Consumer:
    """The consumer whose deliveries take the fast path."""

    channel: Channel
    tag: str
    receiver: Receiver
    stream: Stream


class Connection(PikaConnection):
    """pika's connection with a fast path for deliveries, and no properties can make it fail.

    `consume` names a receiver. Whole deliveries to it are parsed by `Stream` in one pass; one that
    is cut at the end of a read waits for the next one; all else goes frame by frame through pika,
    in the order of the wire. A large body of which the rest is to come is received by `LargeBody`
    right into its place, and pika gets it as one frame. Where one read after the other ends within
    a large body, more is read at a time. Without `fast` pika reads everything itself.
    """

    several_frames_bytes = 128 * 1024 - 7
    """A body that is so large is received into its place, unless it has come whole: what is larger
    comes in several frames, as brokers are set up."""
    large_bytes = 32 * 1024
    """The same where a read brought less than it could: the rest may come bit by bit."""
    buffer_bytes = 2 << 20
    """The most that is received into one buffer."""

    def __init__(self, *arguments: Any, fast: bool = True, **keywords: Any) -> None:
        """As pika's; `fast`: `rabbitmq.fast_path`."""
        self._consumer: _Consumer | None = None
        self._rest = b""
        """The beginning of a delivery, or of a frame: it waits for the next read."""
        self._large: LargeBody | None = None
        self._into = memoryview(bytearray(_READ_BYTES))
        # `recv` of so much would reserve as much for each read, however little comes, and the
        # holes that this leaves make the heap grow by the hour.
        self._buffer = bytearray()
        """For large bodies, and for wide reads."""
        self._large_at = 0.0
        """When the last large body began, on the monotonic clock; 0.0 where none did lately."""
        self._wide_read_bytes = _WIDE_READ_BYTES
        self._in_place_bytes = self.large_bytes
        """A body that is so large is received into its place, where its rest is still to come."""
        self._cut = False
        """Whether the present read ends within a large body."""
        self._cuts = 0
        """How many reads did so, one after the other."""
        super().__init__(*arguments, fast=fast, **keywords)

    def consume(
        self,
        channel: Channel,
        queue: str,
        receiver: Receiver,
        on_consuming: Callable[[Any], None],
        *,
        consumer_tag: str | None = None,
        auto_ack: bool = False,
    ) -> str:
        """Consume the queue; one consumer a connection. Returns its consumer tag. `on_consuming`
        is called with the broker's answer. `auto_ack`: what is sent counts as acknowledged."""
        deliver = receiver.deliver if self.sees_reads else partial(_deliver_alone, receiver)
        tag: str = channel.basic_consume(
            queue, deliver, auto_ack=auto_ack, consumer_tag=consumer_tag, callback=on_consuming
        )
        stream = Stream(channel.channel_number, tag, decode_properties, apart=REPLAY.encode())
        self._consumer = _Consumer(channel, tag, receiver, stream)
        if not self._large_at:
            malloc.give_back()  # what an earlier connection kept and was lost with
        self._wide_read_bytes = max(_READ_BYTES, min(receiver.read_bytes, _WIDE_READ_BYTES))
        return tag

    def room(self) -> memoryview | None:
        """Where to put what comes next; None where that is nowhere in particular."""
        return None if self._large is None else self._large.room()

    def receive(self, socket: Any) -> bytes | memoryview:
        """See `PikaConnection`. A memoryview is what was put into `room`."""
        if self._large is not None:
            room = self._large.room()
            return room[: socket.recv_into(room)]
        if self._cuts < _CUTS:
            return bytes(self._into[: socket.recv_into(self._into)])
        self._grow_buffer(self._wide_read_bytes)
        view = memoryview(self._buffer)
        return bytes(view[: socket.recv_into(view, self._wide_read_bytes)])

    def on_data(self, data: bytes | memoryview) -> None:
        large = self._large
        try:
            if not self.fast:
                self.read_as_pika(data)
                return
            # pika counts whole frames. Any bytes show already that the broker is alive.
            self.bytes_received += len(data)
            is_full = len(data) >= (_READ_BYTES if large is None else len(large.room()))
            self._in_place_bytes = self.several_frames_bytes
            if not is_full:
                self._in_place_bytes = min(self._in_place_bytes, self.large_bytes)
            self._cut = False
            if large is not None:
                self._read(self._fill(large, data))
            else:
                self._read(self._rest + data if self._rest else bytes(data))
            self._cuts = self._cuts + 1 if self._cut else 0
            if self._cuts >= _CUTS:
                self._keep_blocks()
        finally:
            if self._consumer is not None:
                self._consumer.receiver.on_read_end()

    def _read(self, data: bytes) -> None:
        """From the first byte of a frame on. What is left waits in `_rest`."""
        at = 0
        try:
            while at < len(data):
                consumer = self._consumer
                if consumer is not None and self.begins_message(consumer.channel, consumer.tag):
                    run = consumer.stream.scan(data, at, consumer.receiver.now())
                    if run is not None:
                        at = run.end
                        self.frames_received += 3 * len(run.records)
                        consumer.receiver.on_deliveries(consumer.channel, run)
                    if at == len(data):
                        return
                    body_size = consumer.stream.begun(data, at)
                    if body_size is not None and body_size < self._in_place_bytes:
                        self._cut = body_size >= self.large_bytes
                        return  # the next read completes it
                    if run is not None:
                        continue
                taken, value = decode_frame(data, at, self.params.frame_max)
                if not value:
                    return
                at += taken
                self.process(value)
                if type(value) is frame.Header and value.body_size > len(data) - at:
                    self._cut = value.body_size >= self.large_bytes
                    if value.body_size >= self._in_place_bytes and self.awaits_body(value):
                        data, at = self._begin_large(value, data[at:]), 0
        finally:
            self._rest = data[at:]

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
            large.received(len(data))
        else:
            behind = large.take(data)
        self.frames_received += large.frames - frames_before
        if not large.done:
            return b""
        self._large, body = None, large.body()
        self._rest = rest = large.rest() + behind  # whatever the consumer raises
        if body:
            self.frames_received -= 1  # pika counts the one that it gets
            self.process(frame.Body(large.channel, body))
        return rest

    def _grow_buffer(self, size: int) -> None:
        if len(self._buffer) < size:
            self._buffer = bytearray(size)

    def _keep_blocks(self) -> None:
        """The memory of large bodies is used again, until none has come for a while."""
        malloc.keep_blocks()
        if not self._large_at:
            self.ioloop.call_later(_QUIET_SECONDS, self._give_back_where_quiet)
        self._large_at = time.monotonic()

    def _give_back_where_quiet(self) -> None:
        quiet = time.monotonic() - self._large_at
        if quiet < _QUIET_SECONDS or self._large is not None:
            again = max(1.0, _QUIET_SECONDS - quiet)
            self.ioloop.call_later(again, self._give_back_where_quiet)
            return
        self._large_at, self._buffer = 0.0, bytearray()
        malloc.give_back()


def _deliver_alone(
    receiver: Receiver, channel: Channel, method: Any, properties: Any, body: bytes
) -> None:
    """Where it is not known when a read ends, each message is a read of its own."""
    receiver.deliver(channel, method, properties, body)
    receiver.on_read_end()


def to_record(
    method: spec.Basic.Deliver,
    properties: RawProperties | spec.BasicProperties,
    body: bytes,
    received_at: float,
) -> Record:
    """One delivery as a record; its properties are decoded when they are first used."""
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
    if isinstance(properties, RawProperties):
        return decode_properties(properties.raw)
    return decode_properties(b"".join(properties.encode()))


def new_loop() -> Any:
    """The loop that a connection, and all that is called on its thread, turns on."""
    return IOLoop()
