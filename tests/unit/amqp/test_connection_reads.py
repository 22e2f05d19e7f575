"""One read of the socket: what comes together is handed over together, and then its end."""

import socket
import struct
import sys
from dataclasses import replace
from typing import Any

import pika
import pytest
from pika import exceptions

from logfan.amqp import connection as wire
from logfan.amqp.failures import Cause, failure_of
from logfan.runtime import malloc
from support.readers import Reader, listening
from support.wire_bytes import Scene, body, deliver, frame, header, heartbeat, method, short

SCENE = Scene(1, "x", "plain", company=False)


def message(tag: int, content: bytes = b"hello", bits: int = 0) -> bytes:
    return deliver(1, "x", tag, bits) + header(1, len(content)) + body(1, content)


class Watched(Reader):
    """logfan's connection, and which messages each read brought."""

    def __init__(self, **keywords: Any) -> None:
        self.by_read: list[list[int]] = []
        self._new: list[int] = []
        super().__init__(wire.Connection, SCENE, **keywords)
        self.by_read.clear()

    def _message(self, channel: Any, consumer: str, tag: int, record: Any) -> None:
        super()._message(channel, consumer, tag, record)
        self._new.append(tag)

    def _on_read_end(self) -> None:
        self.by_read.append(self._new)
        self._new = []

    def messages(self) -> list[tuple[int, bytes]]:
        """Tag and body of all that came."""
        return [(one[3], one[8]) for one in self.story if one[0] == "message"]


def test_messages_that_come_together_are_one_run() -> None:
    reader = Watched()
    reader.read(b"".join(message(tag) for tag in range(1, 401)))
    assert reader.in_runs == [400]


def test_what_comes_between_them_parts_the_runs_and_keeps_its_place() -> None:
    reader = Watched()
    parts = [message(1), message(2), heartbeat(), message(3), message(4, bits=1), message(5)]
    reader.read(b"".join(parts))
    assert reader.in_runs == [2, 1, 1]
    assert [tag for tag, _ in reader.messages()] == [1, 2, 3, 4, 5]


def test_a_message_that_a_read_cuts_comes_in_the_next_run() -> None:
    first, second, third = message(1), message(2), message(3)
    for cut in range(len(second)):
        reader = Watched()
        reader.read(first + second[:cut])
        reader.read(second[cut:] + third)
        assert reader.in_runs == [1, 2]
        assert reader.by_read == [[1], [2, 3]]


def test_a_message_that_is_cut_several_times_comes_with_its_last_piece() -> None:
    reader = Watched()
    for piece in message(1):
        reader.read(bytes((piece,)))
    assert reader.in_runs == [1]
    assert reader.by_read[-1] == [1]
    assert not any(reader.by_read[:-1])


def test_each_piece_of_a_message_shows_that_the_broker_lives() -> None:
    reader = Watched()
    before = reader.connection.bytes_received
    for count, piece in enumerate(message(1), 1):
        reader.read(bytes((piece,)))
        assert reader.connection.bytes_received == before + count


def test_what_is_cut_and_none_of_an_ordinary_message_goes_through_pika_at_once() -> None:
    reader = Watched()
    checker = reader.connection._heartbeat_checker
    head = deliver(1, "x", 1)
    reader.read(head + heartbeat())
    assert checker._heartbeat_frames_received == 1
    reader.read(header(1, 5) + body(1, b"hello") + message(2)[:20])
    reader.read(message(2)[20:])
    assert reader.by_read == [[], [1], [2]]
    assert reader.in_runs == [1]


def test_consumed_anew_in_the_middle_of_a_read_the_fast_way_is_taken_again() -> None:
    scene = replace(SCENE, how="again")
    reader = Reader(wire.Connection, scene)
    anew = method(1, (60, 31), short("x")) + method(1, (60, 21), short(scene.later))
    later = deliver(1, scene.later, 2) + header(1, 2) + body(1, b"hi")
    reader.read(message(1) + anew + later)
    assert reader.in_runs == [1, 1]


@pytest.mark.parametrize("fast", [True, False])
def test_the_end_of_a_read_follows_all_that_it_brought(fast: bool) -> None:
    reader = Watched(fast=fast)
    reader.read(message(1) + message(2, bits=1) + message(3))
    reader.read(heartbeat())
    assert reader.by_read == [[1, 2, 3], []]


def test_a_read_that_fails_ends_too() -> None:
    reader = Watched()
    with listening(), pytest.raises(exceptions.InvalidFrameError):
        reader.connection._proto_data_received(message(1) + frame(9, 1, b""))
    assert reader.by_read == [[1]]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", [1, 2, 3, 8])
def test_a_frame_larger_than_agreed_ends_the_connection_instead_of_filling_the_memory(
    fast: bool, kind: int
) -> None:
    reader = Watched(fast=fast)
    head = struct.pack(">BHI", kind, 1, 0xFFFFFFFF)
    before = message(1) if kind != 2 else message(1) + deliver(1, SCENE.tag, 2)
    with listening(), pytest.raises(exceptions.InvalidFrameError) as raised:
        reader.connection._proto_data_received(before + head)
    assert reader.by_read == [[1]]
    failure = failure_of(raised.value, "host:5672", was_open=True)
    assert failure.cause is Cause.LOST
    what = "501 FRAME_ERROR - a frame of 4,294,967,295 bytes is announced; "
    assert failure.why.startswith(f"connection to host:5672 lost: {what}")


@pytest.mark.parametrize("fast", [True, False])
def test_a_content_header_beyond_what_was_agreed_is_waited_for(fast: bool) -> None:
    """RabbitMQ sends one, where its publisher could."""
    reader = Watched(fast=fast)
    assert reader.read(deliver(1, SCENE.tag, 1) + struct.pack(">BHI", 2, 1, 1 << 20))
    assert reader.read(bytes(1000))


def test_where_reads_are_not_seen_each_message_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pika.connection.Connection._on_data_available
    monkeypatch.setattr(pika.SelectConnection, "_proto_data_received", theirs)
    monkeypatch.delattr(pika.connection.Connection, "_on_data_available")
    reader = Watched()
    reader.read(message(1) + message(2))
    reader.read(message(3))
    assert reader.by_read == [[1], [2], [3]]


def test_a_read_takes_what_is_there_and_says_the_end() -> None:
    read = Watched().connection._transport._sigint_safe_recv
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        with pytest.raises(BlockingIOError):
            read(here, 1)
        there.sendall(b"x" * 10)
        first = read(here, 1)
        there.sendall(b"y" * 5)
        assert (first, read(here, 1)) == (b"x" * 10, b"y" * 5)
        there.close()
        assert read(here, 1) == b""
    # What is kept of a read is no larger than what it brought.
    assert sys.getsizeof(first) < 100


def long_message(tag: int, size: int) -> tuple[bytes, list[bytes]]:
    """What goes before a body of so many bytes, and its frames."""
    parts = [bytes((n % 251,)) * 100_000 for n in range(size // 100_000)]
    return deliver(1, "x", tag) + header(1, size), [body(1, part) for part in parts]


def test_a_large_body_is_received_right_into_its_place() -> None:
    reader = Watched()
    head, frames = long_message(2, 300_000)
    reader.read(message(1) + head + frames[0][:50])
    data = b"".join(frames)[50:] + message(3)
    here, there = socket.socketpair()
    in_place = 0
    with here, there:
        here.setblocking(False)
        while data:
            data = data[there.send(data[:70_000]) :]
            read = reader.connection._receive(here, 1)
            if isinstance(read, memoryview):
                assert read.obj is reader.connection._buffer
                in_place += len(read)
            reader.connection._proto_data_received(read)
    assert [(tag, len(body)) for tag, body in reader.messages()] == [(1, 5), (2, 300_000), (3, 5)]
    assert in_place > 299_900
    assert reader.in_runs == [1, 1]


def test_each_frame_of_a_large_body_shows_that_the_broker_lives() -> None:
    reader = Watched()
    head, frames = long_message(1, 300_000)
    reader.read(head)
    before = reader.connection.bytes_received, reader.connection.frames_received
    for count, one in enumerate(frames, 1):
        reader.read(one)
        came = reader.connection.bytes_received - before[0]
        assert came == sum(map(len, frames[:count]))
        assert reader.connection.frames_received == before[1] + count


def test_the_memory_of_large_bodies_is_used_again_until_none_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Watched()
    calls: list[str] = []
    later: list[tuple[float, Any]] = []
    monkeypatch.setattr(malloc, "keep_blocks", lambda: calls.append("keep"))
    monkeypatch.setattr(malloc, "give_back", lambda: calls.append("give back"))

    def call_later(seconds: float, call: Any) -> None:
        later.append((seconds, call))

    monkeypatch.setattr(reader.connection.ioloop, "call_later", call_later)
    now = 1_000.0
    monkeypatch.setattr("logfan.amqp.connection.time.monotonic", lambda: now)
    for tag in (1, 2):
        head, frames = long_message(tag, 300_000)
        reader.read(head + frames[0])
        reader.read(b"".join(frames[1:]))
    assert (calls, len(later)) == (["keep", "keep"], 1)
    now += 9.0  # as if it had begun a second before the last of them
    later.pop()[1]()
    assert (calls, [seconds for seconds, _ in later]) == (["keep", "keep"], [1.0])
    now += 1.0
    later.pop()[1]()
    assert (calls, len(later)) == (["keep", "keep", "give back"], 0)


def test_what_a_lost_connection_kept_goes_back_with_the_next_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(malloc, "keep_blocks", lambda: calls.append("keep"))
    monkeypatch.setattr(malloc, "give_back", lambda: calls.append("give back"))
    lost = Watched()
    calls.clear()
    head, frames = long_message(1, 300_000)
    lost.read(head + frames[0])
    assert calls == ["keep"]
    Watched()
    assert calls == ["keep", "give back"]


def read_through_a_socket(reader: Watched, data: bytes) -> list[int]:
    """All of it, whenever the socket is full; how many bytes each read brought."""
    sizes = []
    here, there = socket.socketpair()
    with here, there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        there.setblocking(False)
        here.setblocking(False)
        while data:
            data = data[there.send(data) :]
            read = reader.connection._receive(here, 1)
            sizes.append(len(read))
            reader.connection._proto_data_received(read)
        while there.fileno() >= 0:
            try:
                read = reader.connection._receive(here, 1)
            except BlockingIOError:
                break
            sizes.append(len(read))
            reader.connection._proto_data_received(read)
    return sizes


@pytest.mark.parametrize(("most_bytes", "widest"), [(1 << 20, 150_000), (0, 131_072)])
def test_where_large_bodies_follow_each_other_more_is_read_at_a_time(
    most_bytes: int, widest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "read_bytes", most_bytes)
    reader = Watched()
    kept: list[str] = []
    monkeypatch.setattr(malloc, "keep_blocks", lambda: kept.append("keep"))
    connection = reader.connection
    sizes = read_through_a_socket(
        reader, b"".join(message(tag, b"%5d" % tag * 8_000) for tag in range(1, 101))
    )
    assert reader.messages() == [(tag, b"%5d" % tag * 8_000) for tag in range(1, 101)]
    assert max(sizes[:2]) <= 131_072
    assert max(sizes) >= widest if most_bytes else max(sizes) == widest
    assert kept
    # Small ones again: as much as before, after one read that is still a wide one.
    connection._proto_data_received(message(101))
    sizes = read_through_a_socket(
        reader, b"".join(message(tag, b"x" * 100) for tag in range(102, 5_000))
    )
    assert max(sizes) <= 131_072


def test_a_large_body_now_and_then_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Watched()
    monkeypatch.setattr(malloc, "keep_blocks", lambda: pytest.fail("not for this"))
    for tag in range(1, 20, 2):
        large = message(tag, b"x" * 100_000)
        reader.read(large[:50_000])
        reader.read(large[50_000:] + message(tag + 1))
    assert reader.connection._cuts == 0


def test_a_large_body_that_comes_bit_by_bit_is_received_into_its_place() -> None:
    reader = Watched()
    one = message(1, b"x" * 100_000)
    reader.read(one[:16_384])
    assert reader.connection.room() is not None
    reader.read(one[16_384:])
    assert [len(body) for _, body in reader.messages()] == [100_000]


def test_the_rest_of_a_large_body_behind_a_full_read_is_there_already() -> None:
    reader = Watched()
    data = b"".join(message(tag, b"x" * 100_000) for tag in (1, 2))
    reader.connection._proto_data_received(data[:131_072])
    assert reader.connection.room() is None
    reader.read(data[131_072:])
    assert reader.in_runs == [1, 1]
    assert [tag for tag, _ in reader.messages()] == [1, 2]


def test_a_body_that_is_not_so_large_leaves_the_memory_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Watched()
    monkeypatch.setattr(malloc, "keep_blocks", lambda: pytest.fail("not for this"))
    head, frames = long_message(1, 200_000)
    reader.read(head + frames[0])
    reader.read(frames[1])
    assert len(reader.story[1][8]) == 200_000
