"""All that logfan touches of pika's private parts, under names of its own.

No other file does. What is used of a channel's public side is listed in `Channel`.
"""

import errno
import logging
import ssl
import struct
import traceback
from collections.abc import Callable
from functools import lru_cache
from types import NoneType
from typing import Any, Protocol

import pika
from pika import exceptions, frame, spec
from pika.adapters.utils import io_services_utils
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowAborted

from logfan.runtime.foreign_text import describe

log = logging.getLogger(__name__)

HEADER_BYTES_MAX = 16 << 20
"""So large a content header may be. RabbitMQ sends one that is larger than the `frame_max` that was
agreed upon in one frame all the same, where its publisher could, or the broker adds headers."""
_FRAME_HEADER_BYTES = 7
_CONTENT_HEADER_BYTES = 12
_BASIC = struct.pack(">H", spec.BasicProperties.INDEX)


class InternalFault(BaseException):
    """Code of ours failed while pika called it.

    pika takes each Exception within a read for a lost connection, so that the daemon would
    reconnect for ever. This one passes through pika, and ends the thread.
    """


class Channel(Protocol):
    """What logfan uses of pika's channel. Each method sends, and returns at once; `callback` gets
    the broker's answer as a method frame."""

    channel_number: int
    connection: Any
    is_open: bool
    is_closed: bool

    def add_on_close_callback(self, callback: Callable[[Any, BaseException], Any]) -> None:
        """It is called with the channel and the reason."""

    def add_on_cancel_callback(self, callback: Callable[[Any], Any]) -> None:
        """It is called where the broker cancels a consumer."""

    def add_on_return_callback(self, callback: Callable[[Any, Any, Any, bytes], Any]) -> None:
        """It is called with a message that reached no queue."""

    def basic_qos(self, *, prefetch_count: int) -> None:
        """For the consumers that come."""

    def basic_consume(
        self,
        queue: str,
        on_message_callback: Callable[[Any, Any, Any, bytes], Any],
        *,
        auto_ack: bool = ...,
        consumer_tag: str | None = ...,
        callback: Callable[[Any], Any] | None = ...,
    ) -> str:
        """Returns the consumer tag."""

    def basic_cancel(self, consumer_tag: str, callback: Callable[[Any], Any] | None = ...) -> Any:
        """What was on its way to the consumer is rejected; see `cancel`."""

    def basic_ack(self, delivery_tag: int, multiple: bool = ...) -> None:
        """With `multiple` everything up to the tag."""

    def basic_nack(self, delivery_tag: int, multiple: bool = ..., requeue: bool = ...) -> None:
        """With `requeue` it goes back to the queue."""

    def basic_publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, *, mandatory: bool
    ) -> None:
        """Raises where the channel is not open."""

    def confirm_delivery(self, on_confirm: Callable[[Any], Any], callback: Any = ...) -> None:
        """`on_confirm` gets a method frame with `basic.ack` or `basic.nack`."""

    def close(self) -> None:
        """The broker's answer goes to the close callbacks."""

    queue_declare: Callable[..., Any]
    queue_bind: Callable[..., Any]
    queue_delete: Callable[..., Any]
    exchange_declare: Callable[..., Any]
    exchange_bind: Callable[..., Any]
    exchange_delete: Callable[..., Any]


class PikaConnection(pika.SelectConnection):  # type: ignore[misc]
    """pika's connection, which has a subclass receive and read what the broker sends.

    Where pika's internals are not as expected, it receives and reads by itself, and one warning
    says so; without `fast` it reads by itself.
    """

    def __init__(self, *arguments: Any, fast: bool = True, **keywords: Any) -> None:
        self.fast = self.sees_reads = False
        """Whether a subclass reads; whether `on_data` is called at all."""
        self.pause = ReadPause()
        super().__init__(*arguments, **keywords)
        odd = missing_internal(self)
        if odd:
            _warn_once(f"this pika ({pika.__version__}) has another {odd} than expected")
        self._receives = not odd
        self.sees_reads = odd != "_on_data_available"
        self.fast = fast and not odd

    # What a subclass defines

    def receive(self, socket: Any) -> bytes | memoryview:
        """What the socket has; empty at its end. Raises OSError, as `recv` does."""
        raise NotImplementedError

    def on_data(self, data: bytes | memoryview) -> None:
        """What `receive` returned. Raises what pika raises on a malformed frame."""
        raise NotImplementedError

    # What it calls

    def read_as_pika(self, data: bytes | memoryview) -> None:
        """Leave the reading to pika."""
        super()._on_data_available(bytes(data))
        check_awaited(bytes(self._frame_buffer[:_FRAME_HEADER_BYTES]), self.params.frame_max)

    def process(self, value: frame.Frame) -> None:
        """Have pika do what this frame asks for. Raises what pika raises."""
        self._process_frame(value)

    def begins_message(self, channel: Channel, consumer_tag: str) -> bool:
        """Whether pika would hand a delivery that comes next to this consumer."""
        private: Any = channel
        assembler = private._content_assembler
        return (
            assembler._method_frame is None
            and assembler._header_frame is None  # one without a method is kept, too
            and consumer_tag in private._consumers
            and consumer_tag not in private._cancelled
            and self._channels.get(private.channel_number) is channel
        )

    def awaits_body(self, header: frame.Header) -> bool:
        """Whether pika waits for the body of this header, and has nothing of it."""
        channel = self._channels.get(header.channel_number)
        if channel is None:
            return False
        assembler = channel._content_assembler
        return assembler._header_frame is header and not assembler._seen_so_far

    def pause_reading(self) -> bool:
        """Read nothing until `resume_reading`: the broker waits. False where that cannot be."""
        return self.pause.begin(self._transport)

    def resume_reading(self, *, at_once: bool = False) -> None:
        """Read again, where the connection is open and nothing else pauses it. `at_once`: within
        this call, and not in the next turn of the loop."""
        self.pause.end(self._transport, at_once=at_once)

    def send_at_once(self) -> None:
        """Send what was written within this turn of the loop now, and not in the next one."""
        transport = self._transport
        send = getattr(transport, "_on_socket_writable", None)
        if send is not None and transport._tx_buffers and not _is_tls(transport):
            send()

    # What pika calls

    def abort(self) -> None:
        """Let the socket go in the next turns of the loop, where the broker answers no more."""
        if self._transport is not None:
            if getattr(self, "_error", None) is None:  # else pika fails on it
                self._error = exceptions.StreamLostError("given up")
            self._transport.abort()

    def _proto_connection_made(self, transport: Any) -> None:
        if self._receives:
            transport._sigint_safe_recv = self._receive
        super()._proto_connection_made(transport)

    def _receive(self, socket: Any, _most_bytes: int) -> bytes | memoryview:
        if self.pause.holders:
            self.pause.check(self._transport)
        return self.receive(socket)

    def _on_data_available(self, data_in: bytes | memoryview) -> None:
        try:
            self.on_data(data_in)
        except Exception as error:
            if _is_fault_of_ours(error):
                raise InternalFault(describe(error)) from error
            raise

    def _read_frame(self) -> tuple[int, Any]:
        # pika's own reading calls it; a later pika may not.
        buffer = self._frame_buffer
        if len(buffer) < _FRAME_HEADER_BYTES or buffer[0] != spec.FRAME_HEADER:
            read: tuple[int, Any] = super()._read_frame()
            return read
        return decode_frame(bytes(buffer), 0, self.params.frame_max)

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # Closed while it opens, pika hands over this class itself, and fails on it in the loop.
        if outcome is AMQPConnectionWorkflowAborted:
            outcome = AMQPConnectionWorkflowAborted()
        super()._on_connection_workflow_done(outcome)


class RawProperties:
    """The properties of one delivery, undecoded until they are used."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def decode_frame(data: bytes, at: int, frame_max: int) -> tuple[int, Any]:
    """The frame at `at`: its length and what pika calls it; 0 and None where it is not whole.

    Raises what pika raises for a frame that cannot be, but for properties, which stay bytes; and
    where one that is not whole is larger than may be waited for, by `frame_max`.
    """
    start = at + _FRAME_HEADER_BYTES
    if data.startswith(b"AMQP", at) or len(data) < start:
        return _decode_as_pika(data[at : at + 8])
    end = start + int.from_bytes(data[at + 3 : start], "big")
    if len(data) <= end:
        check_awaited(data[at:start], frame_max)
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
    return _decode_as_pika(data[at : end + 1])


def check_awaited(head: bytes, frame_max: int) -> None:
    """Raises where a frame that begins so is not to be waited for: it would fill the memory."""
    if len(head) < _FRAME_HEADER_BYTES or head.startswith(b"AMQP"):
        return
    size, most = int.from_bytes(head[3:], "big"), frame_max
    if head[0] == spec.FRAME_HEADER or not frame_max:
        most = max(frame_max, HEADER_BYTES_MAX)
    if size > most:
        raise exceptions.InvalidFrameError(
            f"{spec.FRAME_ERROR} FRAME_ERROR - a frame of {size:,} bytes is announced; {most:,} "
            "are the most"
        )


def _decode_as_pika(data: bytes) -> tuple[int, Any]:
    decoded: tuple[int, Any] = frame.decode_frame(data)
    return decoded


_FOR_A_FRAME = {
    one.__code__
    for one in (
        PikaConnection.read_as_pika, PikaConnection.process, PikaConnection._read_frame,
        _decode_as_pika, check_awaited,
    )
}  # fmt: skip
"""Code of ours that has pika look at a frame."""


def _is_fault_of_ours(error: Exception) -> bool:
    """Whether code of ours raised it, or called pika amiss; not pika for what the broker sent, nor
    for a channel or connection that began to close meanwhile."""
    if isinstance(error, exceptions.ChannelWrongStateError | exceptions.ConnectionWrongStateError):
        return False
    ours = [
        one.f_code
        for one, _ in traceback.walk_tb(error.__traceback__)
        if one.f_globals["__name__"].startswith("logfan.")
    ]
    return ours[-1] not in _FOR_A_FRAME


class ReadPause:
    """Who holds one connection's reading: until the last has let go, nothing is read. What is not
    read waits in the broker."""

    def __init__(self) -> None:
        self.holders = 0
        """How many hold it."""

    def begin(self, transport: Any) -> bool:
        """Hold pika's transport once more; False where its inside is not as expected."""
        needs = ("_sock", "_nbio", "_on_socket_readable", "_state")
        if any(getattr(transport, name, None) is None for name in needs):
            return False
        if not self.holders:
            transport._nbio.remove_reader(transport._sock.fileno())
        self.holders += 1
        return True

    def end(self, transport: Any, *, at_once: bool = False) -> None:
        """Let go of it. One that is ending, or has ended, is not read any more."""
        self.holders -= 1
        if self.holders or transport is None or transport._state != transport._STATE_ACTIVE:
            return
        transport._nbio.set_reader(transport._sock.fileno(), transport._on_socket_readable)
        if at_once:
            transport._on_socket_readable()
        elif _is_tls(transport):
            # What TLS has taken from the socket already makes that no more readable.
            transport._nbio.add_callback_threadsafe(transport._on_socket_readable)

    def check(self, transport: Any) -> None:
        """While it is held, raises what means for pika that nothing is there: pika reads more than
        once in a turn of the loop, and has TLS do so without an event of the socket."""
        if not self.holders:
            return
        if _is_tls(transport):
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "held")
        raise BlockingIOError(errno.EAGAIN, "held")


def _is_tls(transport: Any) -> bool:
    return hasattr(transport, "_ssl_readable_action")


def cancel(channel: Channel, consumer_tag: str, on_cancelled: Callable[[], None]) -> None:
    """Cancel a consumer and go on taking what the broker had already sent, until it confirms.

    pika's own `basic_cancel` rejects those deliveries at once; a quorum queue counts each such
    reject as a failed delivery. So the method is sent without pika knowing that the consumer is
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


def missing_internal(connection: Any) -> str:
    """The first part of pika's inside that is not as needed here; empty where all fit."""
    transport = getattr(io_services_utils, "_AsyncTransportBase", None)
    for owner, name in (
        (pika.SelectConnection, "_on_data_available"), (pika.SelectConnection, "_process_frame"),
        (pika.SelectConnection, "_proto_connection_made"), (frame, "decode_frame"),
        (transport, "_sigint_safe_recv"),
    ):  # fmt: skip
        if not callable(getattr(owner, name, None)):
            return name
    probe = pika.channel.Channel(connection, 1, lambda _channel: None)
    assembler = getattr(probe, "_content_assembler", None)
    for owner, name, kind in (
        (connection, "bytes_received", int), (connection, "frames_received", int),
        (connection, "_channels", dict), (probe, "_consumers", dict), (probe, "_cancelled", set),
        (assembler, "_method_frame", NoneType), (assembler, "_header_frame", NoneType),
        (assembler, "_seen_so_far", int),
    ):  # fmt: skip
        if type(getattr(owner, name, probe)) is not kind:
            return "_content_assembler" if owner is assembler else name
    return ""


@lru_cache
def _warn_once(why: str) -> None:
    log.warning("%s; it reads by itself, which is right but slower", why)
