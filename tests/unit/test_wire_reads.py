"""One read of the socket: what comes together is handed over together, and then all is told."""

import socket
import sys
from dataclasses import replace
from typing import Any

import pytest
from pika import exceptions
from pika.adapters.utils import io_services_utils

from logfan import wire
from support.readers import Reader, listening
from support.wire_bytes import Scene, body, deliver, frame, header, heartbeat, method, short

SCENE = Scene(1, "x", "plain", company=False)


def message(tag: int, content: bytes = b"hello", bits: int = 0) -> bytes:
    return deliver(1, "x", tag, bits) + header(1, len(content)) + body(1, content)


class Watched(Reader):
    """logfan's connection, and what was asked to be called after a read."""

    def __init__(self) -> None:
        super().__init__(wire.Connection, SCENE)
        self.told: list[int] = []

    def _message(self, channel: Any, consumer: str, tag: int, record: Any) -> None:
        super()._message(channel, consumer, tag, record)
        assert self.connection.after_read(lambda: self.told.append(tag))
        assert tag not in self.told, "told before the read was taken in"


def test_messages_that_come_together_are_one_run() -> None:
    reader = Watched()
    reader.read(b"".join(message(tag) for tag in range(1, 401)))
    assert reader.in_runs == [400]


def test_what_comes_between_them_parts_the_runs_and_keeps_its_place() -> None:
    reader = Watched()
    parts = [message(1), message(2), heartbeat(), message(3), message(4, bits=1), message(5)]
    reader.read(b"".join(parts))
    assert reader.in_runs == [2, 1, 1]
    assert [one[3] for one in reader.story if one[0] == "message"] == [1, 2, 3, 4, 5]


def test_after_a_message_in_pieces_the_fast_way_is_taken_again() -> None:
    reader = Watched()
    data = message(1) + message(2) + message(3)
    cut = len(message(1)) + 30
    reader.read(data[:cut])
    reader.read(data[cut:])
    assert reader.in_runs == [1, 1]
    assert [one[3] for one in reader.story if one[0] == "message"] == [1, 2, 3]


def test_consumed_anew_in_the_middle_of_a_read_the_fast_way_is_taken_again() -> None:
    scene = replace(SCENE, how="again")
    reader = Reader(wire.Connection, scene)
    anew = method(1, (60, 31), short("x")) + method(1, (60, 21), short(scene.later))
    later = deliver(1, scene.later, 2) + header(1, 2) + body(1, b"hi")
    reader.read(message(1) + anew + later)
    assert reader.in_runs == [1, 1]


def test_what_waits_for_the_end_of_a_read_is_called_then_in_order_and_once() -> None:
    reader = Watched()
    reader.read(message(1) + message(2, bits=1) + message(3))
    assert reader.told == [1, 2, 3]
    reader.read(heartbeat())
    assert reader.told == [1, 2, 3]


def test_it_is_called_where_the_read_fails_too() -> None:
    reader = Watched()
    with listening(), pytest.raises(exceptions.InvalidFrameError):
        reader.connection._proto_data_received(message(1) + frame(9, 1, b""))
    assert reader.told == [1]


def test_outside_of_a_read_nothing_waits_for_its_end() -> None:
    reader = Watched()
    assert not reader.connection.after_read(lambda: reader.told.append(0))
    reader.read(message(1))
    assert reader.told == [1]


def test_stood_down_nothing_waits_for_the_end_of_a_read() -> None:
    reader = Reader(wire.Connection, SCENE)
    reader.connection.stand_down()
    assert not reader.connection.after_read(lambda: None)


def test_a_read_takes_what_is_there_and_says_the_end() -> None:
    wire.read_more()
    read = io_services_utils._AsyncPlaintextTransport._sigint_safe_recv
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


def test_pika_is_made_to_read_more_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = io_services_utils._AsyncPlaintextTransport
    monkeypatch.setattr(io_services_utils._AsyncTransportBase, "_MAX_RECV_BYTES", 4096)
    wire.read_more()
    assert transport._MAX_RECV_BYTES == 128 * 1024
