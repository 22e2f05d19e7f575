"""A body in several frames and several reads is put together, and nothing else is touched."""

import pytest

from logfan.amqp.large_body import LargeBody
from support.wire_bytes import body, frame, header, heartbeat

CHANNEL = 5


def fed(long: LargeBody, data: bytes, step: int) -> int:
    """Put it where it belongs, some bytes at a time; how many of them were taken in all."""
    at = 0
    while at < len(data) and not long.done:
        room = long.room()
        part = data[at : at + min(step, len(room))]
        assert part, "no room, and it is not done"
        room[: len(part)] = part
        long.received(len(part))
        at += len(part)
    return at


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
@pytest.mark.parametrize("buffer", [120, 1_000, 10_000])
def test_a_body_in_several_frames_is_put_together_however_it_comes(step: int, buffer: int) -> None:
    whole = bytes(range(256)) * 3
    frames = b"".join(body(CHANNEL, whole[at : at + 100]) for at in range(0, len(whole), 100))
    long = LargeBody(CHANNEL, len(whole), bytearray(buffer))
    taken = fed(long, frames + b"next", step)
    assert long.done
    assert long.frames == 8
    assert long.body() == whole
    assert long.rest() == (frames + b"next")[len(frames) : taken]


def test_not_much_more_is_received_than_the_body() -> None:
    long = LargeBody(CHANNEL, 50_000, bytearray(1 << 20))
    assert len(long.room()) == 50_000 + 4096
    assert fed(long, body(CHANNEL, bytes(40_000)), 1 << 20) == 40_008
    assert len(long.room()) == 10_000 + 4096


@pytest.mark.parametrize(
    "odd",
    [
        heartbeat(),
        body(CHANNEL + 1, b"x"),
        body(CHANNEL, b""),
        body(CHANNEL, b"too long"),
        frame(3, CHANNEL, b"x", end=0),
        header(CHANNEL, 5),
    ],
)
def test_what_is_no_frame_of_it_ends_a_body_and_is_left_where_it_stands(odd: bytes) -> None:
    long = LargeBody(CHANNEL, 5, bytearray(1_000))
    fed(long, body(CHANNEL, b"abc") + odd, 1_000)
    assert long.done
    assert (long.body(), long.rest()) == (b"abc", odd)


def test_a_frame_that_is_larger_than_the_buffer_ends_it() -> None:
    long = LargeBody(CHANNEL, 500, bytearray(100))
    data = body(CHANNEL, bytes(400))
    taken = fed(long, data, 30)
    assert (taken, long.body(), long.rest()) == (100, b"", data[:100])
