"""The same bytes read twice: by pika alone, and by logfan's connection.

Both are real connections that went through their handshake and opened real channels; only the
socket is missing. What a reader makes known, to whom and when, is its story.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pika
from pika import frame, spec
from pika.channel import Channel

from logfan.amqp import connection as wire
from logfan.amqp.delivery_parser import Run
from logfan.amqp.pika_internals import RawProperties, cancel, check_awaited
from support.wire_bytes import REPLAYED, Case, Scene, whole_frames

AT = 1_795_521_600.0
"""When everything is received: 2026-11-24T12:00:00Z."""
Story = list[tuple[Any, ...]]


class _Loop:
    """An I/O loop in which no time passes."""

    READ, WRITE, ERROR = 1, 4, 8

    def call_later(self, delay: float, callback: Any) -> object:
        return callback

    def remove_timeout(self, timeout: object) -> None:
        """It would never have come."""


class _Transport:
    """The way out of a connection."""

    def __init__(self, story: Story) -> None:
        self.aborted = False
        self._story = story

    def write(self, data: bytes) -> None:
        self._story.append(("sent", data))

    def abort(self) -> None:
        self._story.append(("aborted",))
        self.aborted = True


class _Kept(RawProperties):
    """What pika shall make of properties: it would raise on some that logfan keeps."""

    def __init__(self) -> None:
        super().__init__(b"")

    def decode(self, encoded: bytes, offset: int = 0) -> None:
        self.raw = bytes(encoded[offset:])


class _Receiver:
    """Takes what one consumer gets."""

    def __init__(self, reader: "Reader", tag: str) -> None:
        self._reader, self._tag = reader, tag
        self.read_bytes = reader.read_bytes
        self.deliver = reader._deliver
        self.on_read_end = reader._on_read_end

    def now(self) -> float:
        return AT

    def on_deliveries(self, channel: Any, run: Run) -> None:
        self._reader._deliver_run(self._tag, channel, run)


class _Bounded(pika.SelectConnection):  # type: ignore[misc]
    """pika alone, which waits for no frame that would fill the memory."""

    def _on_data_available(self, data_in: bytes) -> None:
        super()._on_data_available(data_in)
        check_awaited(bytes(self._frame_buffer[:7]), self.params.frame_max)


class Reader:
    """One connection in the scene, and its story so far."""

    read_bytes = 0
    """How much more than usual may be read at a time."""

    def __init__(self, kind: type[pika.SelectConnection], scene: Scene, **keywords: Any) -> None:
        """`keywords`: for the connection."""
        self.story: Story = []
        self.in_runs: list[int] = []
        """The length of each run."""
        self.in_long = 0
        """How many reads ended within a long body."""
        self._scene = scene
        self._left = b""
        self._transport = _Transport(self.story)
        self.connection = kind(
            on_close_callback=lambda _, error: self._tell("connection over", error),
            custom_ioloop=_Loop(),
            internal_connection_workflow=False,
            **keywords,
        )
        self.connection._proto_connection_made(self._transport)
        self.connection._proto_data_received(_HANDSHAKE)
        self.connection.add_on_connection_blocked_callback(lambda *_: self._tell("blocked"))
        self._channel = self._open(scene.channel)
        self._consume(self._channel, scene.tag, stream=scene.how != "unstreamed")
        self._answer(scene.channel, spec.Basic.ConsumeOk(scene.tag))
        if scene.company:
            self._keep_company()
        if scene.how == "again":
            cancel(self._channel, scene.tag, self._consume_anew)
        elif scene.how == "cancelled":
            self._channel.basic_cancel(scene.tag, callback=partial(self._tell, "cancel-ok"))
        elif scene.how == "closing":
            self._channel.close()
        self.story.clear()

    def _keep_company(self) -> None:
        channel, other = self._channel, self._open(self._scene.other)
        for one, tag in ((channel, self._scene.second), (other, self._scene.tag)):
            self._consume(one, tag)
            self._answer(one.channel_number, spec.Basic.ConsumeOk(tag))
        channel.basic_get("q", partial(self._take_content, "got"))

    def take(self, case: Case) -> bool:
        """Read it to its end, or to the connection's. Whether more may come."""
        self.story.clear()
        self.in_runs.clear()
        self.in_long = 0
        _EAR.story = self.story
        if not all(self.read(data) for data in case.reads()):
            return False
        scene, channel = self._scene, self._channel
        consuming = channel.is_open and scene.tag in channel._consumers
        is_plain = scene.how in ("plain", "unstreamed")
        unread = self._unread()
        if consuming and is_plain and len(unread) == whole_frames(unread)[1]:
            return True
        self.lose(None)
        return False

    def read(self, data: bytes) -> bool:
        """As the transport hands over what it read. Whether it goes on."""
        try:
            self._left = data
            while self._left:
                self._read_one()
        except Exception as error:  # noqa: BLE001 - whatever it is, both must raise it
            self._tell("raised", error)
            self._snapshot()
            self.lose(error)
            return False
        self._snapshot()
        return not self._transport.aborted

    def _read_one(self) -> None:
        """Hand over what is left, or as much of it as the connection has room for."""
        connection, data = self.connection, self._left
        in_place = self._scene.in_place and isinstance(connection, wire.Connection)
        room = connection.room() if in_place else None
        if room is None:
            self._left = b""
            connection._proto_data_received(data)
            return
        count = min(len(data), len(room))
        room[:count] = data[:count]
        self._left = data[count:]
        connection._proto_data_received(room[:count])

    def _unread(self) -> bytes:
        """What came of a frame that is not whole yet; after an error, all that it left."""
        large = getattr(self.connection, "_large", None)
        self.in_long += large is not None
        rest = getattr(self.connection, "_rest", b"") if large is None else large.rest()
        return bytes(self.connection._frame_buffer) + rest + self._left

    def lose(self, error: Exception | None) -> None:
        """The transport is gone."""
        if error is None and not self._transport.aborted:
            self.connection._proto_eof_received()
        self.connection._proto_connection_lost(error)

    def _snapshot(self) -> None:
        """The frames of a delivery that waits for its rest count as received: pika has them."""
        connection, checker = self.connection, self.connection._heartbeat_checker
        unread = self._unread()
        frames, end = whole_frames(unread)
        is_counted = getattr(connection, "fast", False)  # by what came, not by whole frames
        self.story.append(
            (
                "after a read",
                connection.bytes_received + len(self._left if is_counted else unread),
                connection.frames_received + frames,
                checker and checker._heartbeat_frames_received, unread[end:],
                connection.connection_state,
            )
        )  # fmt: skip

    def _tell(self, what: str, *more: Any) -> None:
        self.story.append((what, *(repr(one) for one in more)))

    def _open(self, number: int) -> Channel:
        channel = self.connection.channel(number, partial(self._tell, "channel open"))
        self._answer(number, spec.Channel.OpenOk())
        tell = self._tell
        channel.add_on_cancel_callback(lambda frame: tell("cancelled", number, frame.method))
        channel.add_on_close_callback(lambda _, error: tell("channel over", number, error))
        channel.add_on_return_callback(partial(self._take_content, "returned"))
        return channel

    def _answer(self, number: int, method: Any) -> None:
        self.connection._proto_data_received(frame.Method(number, method).marshal())

    def _consume(self, channel: Channel, tag: str, *, stream: bool = False) -> None:
        if stream and isinstance(self.connection, wire.Connection):
            receiver = self._receiver(tag)
            self.connection.consume(channel, "q", receiver, self._on_consuming, consumer_tag=tag)
        else:
            channel.basic_consume("q", self._deliver, consumer_tag=tag, callback=self._on_consuming)

    def _receiver(self, tag: str) -> wire.Receiver:
        return _Receiver(self, tag)

    def _on_consuming(self, method: Any) -> None:
        self._tell("consuming", method.method)

    def _consume_anew(self) -> None:
        self._tell("cancel-ok")
        self._consume(self._channel, self._scene.later, stream=True)

    # What comes

    def _on_read_end(self) -> None:
        """Each read is compared in `_snapshot`."""

    def _deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        record = wire.to_record(method, properties, body, AT)
        self._message(channel, method.consumer_tag, method.delivery_tag, record)

    def _deliver_run(self, tag: str, channel: Any, run: Run) -> None:
        assert run.records
        assert run.size == sum(record.size for record in run.records)
        self.in_runs.append(len(run.records))
        for number, record in enumerate(run.records, run.last_tag - len(run.records) + 1):
            assert record.exchange or REPLAYED not in record._properties
            self._message(channel, tag, number, record)

    def _message(self, channel: Any, consumer: str, tag: int, record: Any) -> None:
        self.story.append(
            (
                "message", channel.channel_number, consumer, tag, record.redelivered,
                record.exchange, record.routing_key, repr(record.properties), record.body,
                record.received_at,
            )
        )  # fmt: skip

    def _take_content(
        self, what: str, channel: Any, method: Any, properties: Any, body: Any
    ) -> None:
        decoded = wire.to_properties(properties)
        self.story.append((what, channel.channel_number, repr(method), repr(decoded), body))


class _Ear(logging.Handler):
    """What pika logs is part of the story."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.story: Story = []

    def emit(self, record: logging.LogRecord) -> None:
        self.story.append(("logged", record.levelname, record.msg))


_EAR = _Ear()


@contextmanager
def listening() -> Iterator[None]:
    """pika's log goes into the stories, and nowhere else."""
    log = logging.getLogger("pika")
    level = log.level  # a test that set up the daemon's own log left it high
    log.setLevel(logging.WARNING)
    log.addHandler(_EAR)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = True
        log.removeHandler(_EAR)
        log.setLevel(level)


class Pair:
    """pika and logfan in the same scene. They read one case after another as long as they live."""

    def __init__(self, scene: Scene, *, fast: bool = True, raw: bool = True) -> None:
        """`fast`: see `Connection`; `raw`: pika leaves properties as bytes."""
        self.scene = scene
        self._left_raw = _left_raw if raw else nullcontext
        with self._left_raw():
            self.pika = Reader(_Bounded, scene)
        self.logfan = Reader(wire.Connection, scene, fast=fast)
        if scene.long:
            self.logfan.connection.several_frames_bytes = scene.long
            self.logfan.connection.buffer_bytes = scene.buffer
        self.goes_on = True
        self.past: Case | None = None
        """All that they read, as one case."""

    def read(self, case: Case) -> bool:
        """Both read it. Whether they still tell the same story."""
        self.past = case if self.past is None else self.past.then(case)
        with self._left_raw():
            self.goes_on = self.pika.take(case)
        self.logfan.take(case)
        return self.pika.story == self.logfan.story


@contextmanager
def _left_raw() -> Iterator[None]:
    """Nothing of pika is changed, but that it leaves properties as bytes."""
    theirs = spec.props[spec.BasicProperties.INDEX]
    spec.props[spec.BasicProperties.INDEX] = _Kept
    try:
        yield
    finally:
        spec.props[spec.BasicProperties.INDEX] = theirs


def _handshake() -> bytes:
    start = spec.Connection.Start(0, 9, {"capabilities": {"basic.nack": True}}, "PLAIN", "en_US")
    steps = (start, spec.Connection.Tune(2047, 131_072, 60), spec.Connection.OpenOk())
    return b"".join(frame.Method(0, step).marshal() for step in steps)


_HANDSHAKE = _handshake()
