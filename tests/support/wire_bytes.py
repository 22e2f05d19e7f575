"""Frames of AMQP packed by hand: neither pika nor logfan is involved.

A case is a scene (who consumes what), frames in the order of the wire, and where the bytes are
cut into reads.
"""

import struct
from dataclasses import dataclass, replace

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
REPLAYED = b"x-logfan-replay"
UNKNOWN = 9
"""A channel that no one opened."""


@dataclass(frozen=True)
class Scene:
    """Who consumes what when the frames come."""

    channel: int
    """The one of the streamed consumer; another is `channel + 1`."""
    tag: str
    how: str
    """`plain`; `unstreamed`: nothing goes the fast way; `again`: cancelled as logfan cancels, and
    consumed anew under `tag + "2"`; `cancelled` as pika cancels; `closing`: the channel is being
    closed by us."""
    company: bool
    """Whether there are another channel and another consumer."""
    long: int = 0
    """From how many bytes on logfan takes a body for a long one; 0: as it comes."""
    buffer: int = 0
    """How much of one it receives into one buffer at most."""
    in_place: bool = False
    """Whether it is read right into that buffer."""

    @property
    def other(self) -> int:
        """Another open channel, whose consumer has the same tag."""
        return self.channel + 1

    @property
    def second(self) -> str:
        """The tag of another consumer on the streamed channel."""
        return "second"

    @property
    def later(self) -> str:
        """The tag after consuming anew."""
        return f"{self.tag[:200]}2"


@dataclass(frozen=True)
class Case:
    """Bytes, and the reads they come in."""

    scene: Scene
    frames: tuple[bytes, ...]
    cuts: tuple[int, ...]

    def reads(self) -> list[bytes]:
        """The chunks, none of them empty."""
        data = b"".join(self.frames)
        ends = [cut for cut in sorted(set(self.cuts)) if 0 < cut < len(data)] + [len(data)]
        starts = [0, *ends[:-1]]
        return [data[start:end] for start, end in zip(starts, ends, strict=True) if end > start]

    def then(self, other: "Case") -> "Case":
        """Both, one after the other, on one connection."""
        at = len(b"".join(self.frames))
        cuts = (*self.cuts, at, *(cut + at for cut in other.cuts))
        return replace(self, frames=self.frames + other.frames, cuts=cuts)

    def smaller(self) -> list["Case"]:
        """The same with a little less, in the order in which to try."""
        found = [replace(self, cuts=())] if self.cuts else []
        found += [
            replace(self, cuts=self.cuts[:n] + self.cuts[n + 1 :]) for n in range(len(self.cuts))
        ]
        found += [
            replace(self, frames=self.frames[:n] + self.frames[n + 1 :])
            for n in range(len(self.frames))
        ]
        return found


def frame(kind: int, channel: int, payload: bytes, *, end: int = END) -> bytes:
    """One frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes((end,))


def short(text: str | bytes) -> bytes:
    """A short string."""
    raw = text.encode() if isinstance(text, str) else text
    return bytes((len(raw),)) + raw


def deliver(
    channel: int, consumer: str, tag: int, bits: int = 0, exchange: bytes = b"logs",
    routing_key: bytes = b"", *, rest: bytes = b"",
) -> bytes:  # fmt: skip
    """The method `basic.deliver`."""
    ends = short(exchange) + short(routing_key)
    payload = struct.pack(">HH", 60, 60) + short(consumer) + struct.pack(">QB", tag, bits) + ends
    return frame(METHOD, channel, payload + rest)


def header(
    channel: int, size: int, properties: bytes = b"\0\0", *, weight: int = 0, of: int = 60
) -> bytes:
    """A content header; `properties` from the flags on."""
    return frame(HEADER, channel, struct.pack(">HHQ", of, weight, size) + properties)


def body(channel: int, fragment: bytes) -> bytes:
    """A body frame."""
    return frame(BODY, channel, fragment)


def whole_frames(data: bytes) -> tuple[int, int]:
    """How many whole frames `data` begins with, and where they end."""
    count = end = 0
    while len(data) >= end + 7:
        behind = end + 8 + int.from_bytes(data[end + 3 : end + 7], "big")
        if behind > len(data):
            break
        count, end = count + 1, behind
    return count, end


def method(channel: int, number: tuple[int, int], arguments: bytes = b"") -> bytes:
    """Any other method, by class and number."""
    return frame(METHOD, channel, struct.pack(">HH", *number) + arguments)


def heartbeat(channel: int = 0) -> bytes:
    """A heartbeat."""
    return frame(HEARTBEAT, channel, b"")


def table(*fields: bytes) -> bytes:
    """A field table of ready fields."""
    joined = b"".join(fields)
    return struct.pack(">I", len(joined)) + joined
