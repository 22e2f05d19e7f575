"""The body of one message that comes in several frames, or in several reads. Sans-I/O."""

import struct

from logfan.amqp.delivery_parser import BODY, FRAME, FRAME_END

_BODY_HEAD = struct.Struct(">3sI")

"""The type and the channel; the size."""

_BEHIND_BYTES = 4096

"""So much is received beyond a body: the next message may begin there."""


class LargeBody:
    """The body of one message that comes in several reads, from its first frame to its last.

    It is received into one buffer and copied once, out of it. What is none of its frames ends it.
    """

    def __init__(self, channel: int, size: int, buffer: bytearray) -> None:
        """`size` in bytes. One that is larger than the buffer is moved out of it bit by bit; a
        frame that is larger ends it."""
        self.channel = channel
        self.frames = 0
        """How many of its frames have come whole."""
        self._missing = size
        self._kind = struct.pack(">BH", BODY, channel)
        self._buffer = memoryview(buffer)
        self._moved: list[bytes] = []
        self._fragments: list[memoryview] = []
        self._at = self._filled = 0
        self._odd = False

    @property
    def done(self) -> bool:
        return self._odd or not self._missing

    def room(self) -> memoryview:
        """Where to put what comes next; not empty until it is done."""
        return self._buffer[self._filled : self._at + self._missing + _BEHIND_BYTES]

    def received(self, count: int) -> None:
        """So many bytes were put into `room`."""
        self._filled += count
        while not self.done and self._take_frame():
            pass
        if not self.done and self._filled == len(self._buffer):
            self._move()

    def take(self, data: bytes) -> bytes:
        """Put it into its place. What is left of it once the body is done."""
        while data and not self.done:
            room = self.room()
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            self.received(len(part))
        return data

    def body(self) -> bytes:
        """What came of it in whole frames. It must be done."""
        return b"".join((*self._moved, *self._fragments))

    def rest(self) -> bytes:
        """What came behind the last of its whole frames."""
        return bytes(self._buffer[self._at : self._filled])

    def _take_frame(self) -> bool:
        """Whether a frame of it was whole and next."""
        start = self._at + FRAME.size
        if self._filled < start:
            return False
        kind, size = _BODY_HEAD.unpack_from(self._buffer, self._at)
        end = start + size
        self._odd = kind != self._kind or not 0 < size <= self._missing
        if self._odd or end >= self._filled:
            return False
        self._odd = self._buffer[end] != FRAME_END
        if self._odd:
            return False
        self._fragments.append(self._buffer[start:end])
        self.frames += 1
        self._missing -= size
        self._at = end + 1
        return True

    def _move(self) -> None:
        self._odd = not self._at
        self._moved.append(b"".join(self._fragments))
        self._fragments.clear()
        rest = self.rest()
        self._buffer[: len(rest)] = rest
        self._at, self._filled = 0, len(rest)
