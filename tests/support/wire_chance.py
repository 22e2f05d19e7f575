"""What a broker may send on one connection, drawn at random, and what it never should."""

import struct
from collections.abc import Sequence
from random import Random

from support.wire_bytes import (
    END,
    HEADER,
    REPLAYED,
    UNKNOWN,
    Case,
    Scene,
    body,
    deliver,
    frame,
    header,
    heartbeat,
    method,
    short,
    table,
)

_TAGS = ("ctag1.f3a09", "x", "é☃", "t" * 255)
_EXCHANGES = (b"logs", b"logs", b"logs", b"", b"", b"\xff\xfe", "lögs".encode(), b"e" * 255)
_KEYS = (b"", b"", b"a.b", b"a.b", b"\xc3\x28", b"k" * 255, b"\xce", bytes((END,)) * 9)
_LOOKS = bytes((END,)) + body(1, b"boo!")
"""A body that looks like frames."""


def draw_scene(chance: Random) -> Scene:
    """Who consumes what. Most of them only consume."""
    return Scene(
        channel=chance.choice((1, 1, 1, 2, 257, 0xCECE)),
        tag=chance.choice(_TAGS),
        how=chance.choices(
            ("plain", "unstreamed", "again", "cancelled", "closing"), (80, 3, 11, 3, 3)
        )[0],
        company=chance.random() < 0.4,
        long=chance.choice((0, 0, 1, 1, 9)),
        buffer=chance.choice((9, 40, 400, 400, 1 << 16)),
        in_place=chance.random() < 0.5,
    )


def draw(chance: Random, scene: Scene) -> Case:
    """A case. Most of its frames are what a broker sends to a busy consumer."""
    frames = _Drawer(chance, scene).frames()
    if chance.random() < 0.3:
        frames = _break(chance, scene, frames)
    return Case(scene, tuple(frames), tuple(_cuts(chance, frames)))


_REPLAYED = b"\x20\0" + table(short(REPLAYED) + b"S" + struct.pack(">I", 4) + b"file")


class _Drawer:
    def __init__(self, chance: Random, scene: Scene) -> None:
        self._chance, self._scene = chance, scene
        self._tags = dict.fromkeys((scene.channel, scene.other, UNKNOWN), 0)
        if chance.random() < 0.1:
            self._tags[scene.channel] = chance.choice((1 << 31, (1 << 64) - 3))
        self._ends = b"logs", b"a.b"
        if chance.random() < 0.4:
            self._ends = chance.choice(_EXCHANGES), chance.choice(_KEYS)
        self._sizes = chance.choice(((5,), (5,), (0, 1, 5), (1, 8, 40), (206, 9), (64, 300)))
        # How often anything but a plain message comes.
        self._odd = chance.choice((0.0, 0.03, 0.03, 0.3))
        self._current = scene.tag

    def frames(self) -> list[bytes]:
        """All of one case, in order."""
        chance, scene = self._chance, self._scene
        left = chance.choice((1, 2, 3, 4, 5, 7, 10))
        on = {scene.channel: chance.randint(0, left), scene.other: 0, UNKNOWN: 0}
        waiting: dict[int, list[bytes]] = {channel: [] for channel in on}
        frames: list[bytes] = []
        while left or any(waiting.values()):
            channel = self._channel(waiting)
            if not waiting[channel]:
                if not left:
                    continue
                left -= 1
                waiting[channel] = self._unit(channel)
            frames.append(waiting[channel].pop(0))
            # Between channels frames may mix; on one channel they keep their order.
            while waiting[channel] and chance.random() >= self._odd:
                frames.append(waiting[channel].pop(0))
            if chance.random() < self._odd / 2:
                frames.append(self._aside())
        return frames

    def _channel(self, waiting: dict[int, list[bytes]]) -> int:
        open_ones = [channel for channel, frames in waiting.items() if frames]
        if open_ones and self._chance.random() < 0.7:
            return self._chance.choice(open_ones)
        if self._chance.random() >= self._odd:
            return self._scene.channel
        return self._chance.choice((self._scene.channel, self._scene.other, UNKNOWN))

    def _unit(self, channel: int) -> list[bytes]:
        """Frames of one channel that belong together."""
        chance, scene = self._chance, self._scene
        if channel == scene.channel and scene.how == "again" and chance.random() < 0.2:
            return self._consume_anew()
        if chance.random() < self._odd / 2:
            return self._other_method(channel)
        consumer = self._current if channel == scene.channel else scene.tag
        if chance.random() < self._odd / 3:
            consumer = chance.choice((scene.second, "nobody", scene.later))
        return self._message(channel, consumer)

    def _consume_anew(self) -> list[bytes]:
        self._current = self._scene.later
        channel = self._scene.channel
        return [
            method(channel, (60, 31), short(self._scene.tag)),
            method(channel, (60, 21), short(self._scene.later)),
        ]

    def _message(self, channel: int, consumer: str) -> list[bytes]:
        chance, odd = self._chance, self._odd
        exchange, key = self._ends
        if chance.random() < odd:
            exchange, key = chance.choice(_EXCHANGES), chance.choice(_KEYS)
        bits = chance.choice((1, 1, 2, 3, 255)) if chance.random() < odd / 2 else 0
        properties = _properties(chance, odd)
        if chance.random() < odd / 3:
            exchange, properties = b"", _REPLAYED
        rest = b"\xce" if chance.random() < odd / 6 else b""
        first = deliver(channel, consumer, self._tag(channel), bits, exchange, key, rest=rest)
        return [first, *self._content(channel, properties)]

    def _tag(self, channel: int) -> int:
        step = self._chance.choice((0, 2, 70_000)) if self._chance.random() < self._odd / 3 else 1
        self._tags[channel] = (self._tags[channel] + step) % (1 << 64)
        return self._tags[channel]

    def _content(self, channel: int, properties: bytes = b"\0\0") -> list[bytes]:
        chance, odd = self._chance, self._odd
        whole = _body(chance, chance.choice(self._sizes))
        weight = chance.choice((1, 0xCE)) if chance.random() < odd / 8 else 0
        size = len(whole)
        if chance.random() < odd / 8:
            size = max(0, size + chance.choice((-8, -1, 1, 8)))
        frames = [header(channel, size, properties, weight=weight)]
        if chance.random() < max(odd, 0.3 if self._scene.long else 0.02):
            cuts = sorted(chance.randint(0, len(whole)) for _ in range(chance.randint(1, 4)))
            starts, ends = [0, *cuts], [*cuts, len(whole)]
            parts = [whole[start:end] for start, end in zip(starts, ends, strict=True)]
            return frames + [body(channel, part) for part in parts if part or chance.random() < 0.3]
        return frames + ([body(channel, whole)] if whole else [])

    def _other_method(self, channel: int) -> list[bytes]:
        """What a broker may send on a channel beside deliveries."""
        chance, scene = self._chance, self._scene
        kind = chance.choice(("cancel", "close", "return", "get", "flow", "ok", "unknown", "lone"))
        if kind == "cancel":
            consumer = chance.choice((scene.tag, scene.tag, scene.second))
            return [method(channel, (60, 30), short(consumer) + b"\1")]
        if kind == "close":
            return [method(channel, (20, 40), struct.pack(">H", 404) + short("gone") + bytes(4))]
        if kind == "return":
            reply = struct.pack(">H", 312) + short("NO_ROUTE") + short("") + short("q")
            return [method(channel, (60, 50), reply), *self._content(channel)]
        if kind == "get":
            got = struct.pack(">QB", 7, 0) + short("logs") + short("") + struct.pack(">I", 0)
            return [method(channel, (60, 71), got), *self._content(channel)]
        if kind == "flow":
            return [method(channel, (20, 20), b"\1")]
        if kind == "ok":
            return [method(channel, (50, 11), short("q") + bytes(8))]
        if kind == "unknown":
            return [method(channel, (60, 99))]
        return self._content(channel)  # without a method

    def _aside(self) -> bytes:
        """What belongs to no message."""
        chance = self._chance
        kind = chance.choice(("beat", "beat", "beat", "beat on", "blocked", "close", "protocol"))
        if kind == "beat":
            return heartbeat()
        if kind == "beat on":
            return heartbeat(self._scene.channel)
        if kind == "blocked":
            return method(0, (10, 60), short("memory"))
        if kind == "close":
            return method(0, (10, 50), struct.pack(">H", 320) + short("forced") + bytes(4))
        return b"AMQP\0\0\x09\x01"


def _body(chance: Random, size: int) -> bytes:
    kind = chance.choice(("json", "ends", "chance", "frames"))
    if kind == "json":
        return b'{"n": 1}'.ljust(size)[:size]
    if kind == "ends":
        return bytes((END,)) * size
    if kind == "chance":
        return chance.randbytes(size)
    return (_LOOKS * size)[:size]


def _properties(chance: Random, odd: float) -> bytes:
    """From the flags on: plain ones, strange ones, and what is none at all."""
    if chance.random() >= odd:
        return b"\x80\0" + short("application/json")
    kind = chance.choice(("none", "headers", "replayed", "all", "long", "cut", "chance", "tiny"))
    if kind == "none":
        return b"\0\0"
    if kind == "headers":
        return b"\x20\0" + table(*(_field(chance) for _ in range(chance.randint(0, 3))))
    if kind == "replayed":
        return _REPLAYED
    if kind == "long":
        return b"\0\1\0\1\0\0"  # flags that go on
    if kind == "chance":
        return chance.randbytes(chance.randint(2, 30))
    if kind == "tiny":
        return b"\x80"[: chance.randint(0, 1)]
    whole = (
        b"\xff\xfc" + short("text/plain") + short("gzip") + table(_field(chance)) + b"\2\x09"
        + b"".join(short(f"p{n}") for n in range(4))
        + struct.pack(">Q", chance.choice((0, 1_795_521_600, (1 << 64) - 1)))
        + short("t") + short("u") + short(b"\xff") + short("c")
    )  # fmt: skip
    return whole if kind == "all" else whole[: chance.randint(2, len(whole))]


def _field(chance: Random) -> bytes:
    """One header: of each type, with values that pika cannot read among them."""
    values = (
        b"d" + struct.pack(">d", float("nan")), b"T" + struct.pack(">Q", 1 << 62), b"V", b"t\1",
        b"S" + struct.pack(">I", 2) + b"\xff\xfe", b"x" + struct.pack(">I", 1) + b"\0", b"Z??",
        b"F" + table(b"\1iI" + struct.pack(">i", -1)), b"A" + table(b"V", b"f\0\0\0\0"),
        b"D" + struct.pack(">Bi", 2, 314), b"l" + struct.pack(">q", -5), b"S\xff\xff\xff\xff",
    )  # fmt: skip
    return short(chance.choice(("h", "n", "é", ""))) + chance.choice(values)


_IN_ONE = ("end", "type", "size", "channel", "class", "byte", "byte", "cut", "trail")
_BETWEEN = ("drop", "double", "swap", "noise", "short", "short", "protocol", "empty", "lone")


def _break(chance: Random, scene: Scene, frames: Sequence[bytes]) -> list[bytes]:
    """The same with one thing wrong that no broker should do."""
    broken, kind = list(frames), chance.choice(_IN_ONE + _BETWEEN)
    if kind in _BETWEEN:
        return _break_between(chance, scene, broken, kind) or [heartbeat()]
    at = chance.randrange(len(frames))
    if kind == "class":
        at = chance.choice([n for n, one in enumerate(frames) if one[0] == HEADER] or [at])
    broken[at] = _break_one(chance, scene, bytearray(broken[at]), kind)
    return broken


def _break_one(chance: Random, scene: Scene, one: bytearray, kind: str) -> bytes:
    if kind == "end":
        one[-1] = chance.choice((0, 0xCD, 0xCF))
    elif kind == "type":
        one[0] = chance.choice((0, 1, 2, 3, 4, 8, 65, 255))
    elif kind == "size":
        size = int.from_bytes(one[3:7], "big") + chance.choice((-9, -1, 1, 8, 1 << 31))
        one[3:7] = (size % (1 << 32)).to_bytes(4, "big")
    elif kind == "channel":
        channel = chance.choice((0, scene.channel, scene.other, UNKNOWN, 0x0101))
        one[1:3] = channel.to_bytes(2, "big")
    elif kind == "class":
        one[7:9] = chance.choice((0, 59, 61, 10)).to_bytes(2, "big")
    elif kind == "byte":
        one[chance.randrange(len(one))] = chance.choice((0, 1, 2, 3, END, chance.randrange(256)))
    elif kind == "trail":
        one[-1:] = chance.choice((b"\0", b"\xce", b"\0\xce", b"rest")) + one[-1:]
        one[3:7] = (len(one) - 8).to_bytes(4, "big")
    else:
        del one[chance.randrange(len(one)) :]
    return bytes(one)


def _break_between(chance: Random, scene: Scene, broken: list[bytes], kind: str) -> list[bytes]:
    at = chance.randrange(len(broken))
    if kind == "drop":
        del broken[at]
    elif kind == "double":
        broken.insert(at, broken[at])
    elif kind == "swap":
        other = chance.randrange(len(broken))
        broken[at], broken[other] = broken[other], broken[at]
    elif kind == "noise":
        broken.insert(at, chance.randbytes(chance.randint(1, 12)))
    elif kind == "protocol":
        broken.insert(at, b"AMQP\0\0\x09\x01"[: chance.choice((8, 8, 3, 6))])
    elif kind == "empty":
        broken.insert(at, body(scene.channel, b""))
    elif kind == "lone":
        # A method without content and, later, content without a method.
        broken.insert(at, deliver(scene.channel, scene.tag, 1))
        later = chance.randint(at + 1, len(broken))
        broken[later:later] = [header(scene.channel, 2), body(scene.channel, b"hi")]
    else:
        # A header too short to hold the size of the body: its end would be read as that.
        payload = struct.pack(">HHQ", 60, 0, 0)[: chance.choice((11, 11, 12, 13, 3))]
        broken[at:at] = [
            deliver(scene.channel, scene.tag, 1), frame(HEADER, scene.channel, payload),
            body(scene.channel, b"b" * END),
        ]  # fmt: skip
    return broken


def _cuts(chance: Random, frames: Sequence[bytes]) -> list[int]:
    """Where the bytes are cut into reads."""
    ends, at = [], 0
    for one in frames:
        at += len(one)
        ends.append(at)
    kind = chance.choice(("whole", "whole", "whole", "bytes", "some", "steps", "frames", "near"))
    if kind == "bytes" and at <= 300:
        return list(range(1, at))
    if kind == "steps":
        return list(range(chance.randint(1, 7), at, chance.randint(20, 400)))
    if kind == "frames":
        return [end for end in ends if chance.random() < 0.5]
    if kind == "near":
        return [chance.choice(ends) + chance.randint(-9, 20) for _ in range(chance.randint(1, 5))]
    if kind == "whole":
        return []
    return [chance.randint(1, at) for _ in range(chance.randint(1, 3))]
