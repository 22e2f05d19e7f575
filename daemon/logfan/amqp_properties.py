"""AMQP properties from the bytes of a content header, and into them. Sans-I/O.

pika does this too, but cuts floats to whole numbers and raises on what other clients may send: a
header of NaN, a time far off, a type it does not know. One such message would end the consumer
again and again. Here every message can be read, and a dead letter carries what was published.

A publisher's messages have nearly all bytes of their properties in common. `Templates` keep what
was made of those, so that only what differs is read.
"""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

from logfan.field_table import (
    UNREADABLE_ERRORS,
    decode_table,
    encode_short,
    encode_table,
    entries,
    length,
    read_value,
    short_text,
    text_or_bytes,
)
from logfan.record import Properties

REPLAY = "x-logfan-replay"
"""The sink that a message in the daemon's own queue is meant for, and no other."""

SHORT, OCTET, TIME, TABLE, TEXT, FIELD = range(6)
"""Kinds of properties; then those of headers: a long string, and every other type."""
# In the order of the specification; the first has the highest of the flag bits.
_KINDS = {
    "content_type": SHORT, "content_encoding": SHORT, "headers": TABLE, "delivery_mode": OCTET,
    "priority": OCTET, "correlation_id": SHORT, "reply_to": SHORT, "expiration": SHORT,
    "message_id": SHORT, "timestamp": TIME, "type": SHORT, "user_id": SHORT, "app_id": SHORT,
    "cluster_id": SHORT,
}  # fmt: skip
_HIGHEST_FLAG = 15
_PLACES = {name: place for place, name in enumerate(Properties._fields)}
_HEADERS, _COUNT = _PLACES["headers"], len(_PLACES)
_new = tuple.__new__  # `_make` costs three times as much


def decode_properties(raw: bytes) -> Properties:
    """The properties of a content header, from its flags on. What cannot be read is left out, but
    for the bytes of headers, which `UNREADABLE` keeps."""
    try:
        # By hand: this may be done for each message.
        for layout in _templates.layouts.get(len(raw), ()):
            parts = layout.unpack(raw)
            form = layout.made.get(parts[::2])
            if form is None:
                continue
            if form.whole is not None:
                return form.whole
            values = [*form.values]
            for number, kind, place in form.slots:
                part = parts[number]
                if kind == SHORT:
                    part = part.decode("utf-8", "backslashreplace")
                elif kind != TIME:
                    part = READ[kind](part)
                values[place] = part
            if form.names:
                values[_HEADERS] = dict(zip(form.names, values[_COUNT:], strict=True))
                del values[_COUNT:]
            return _new(Properties, values)
    except ValueError:
        pass  # a header that cannot be read
    properties = _decode_each(raw)
    _templates.learn(raw, partial(_Form, properties))
    return properties


def _decode_each(raw: bytes) -> Properties:
    values: dict[str, Any] = {}
    try:
        for name, kind, start, end in _split(raw):
            if kind == TABLE:
                values[name], _ = decode_table(raw, start)
            elif kind == SHORT:
                values[name] = short_text(raw[start:end])
            else:
                values[name] = int.from_bytes(raw[start:end])
    except UNREADABLE_ERRORS:
        pass  # cut short: the broker sends no such thing, and what came before still counts
    return Properties(**values)


def _split(raw: bytes) -> Iterator[tuple[str, int, int, int]]:
    """The name, the kind, the start and the end of each property's value, as the bytes have them.
    Raises struct.error or IndexError where they are cut short."""
    flags, at = raw[0] << 8 | raw[1], 2
    more = flags & 1
    while more:
        more, at = raw[at + 1] & 1, at + 2
    for name, kind in _flagged(flags):
        if kind == SHORT:
            size, at = raw[at], at + 1
        elif kind == TABLE:
            size = 4 + length(raw, at)
        else:
            size = 8 if kind == TIME else 1
        if at + size > len(raw):
            raise struct.error("a property longer than its frame")
        yield name, kind, at, at + size
        at += size


@lru_cache(maxsize=4096)
def _flagged(flags: int) -> Sequence[tuple[str, int]]:
    """The properties that are there, with their kinds."""
    return [one for bit, one in enumerate(_KINDS.items()) if flags << bit >> _HIGHEST_FLAG & 1]


class Slot(NamedTuple):
    """Where a value stands that may differ between messages that are otherwise alike: of a property
    or of a header."""

    name: str
    kind: int
    """`SHORT`, `TIME`, `TEXT` or `FIELD`."""
    start: int
    end: int
    in_headers: bool = False


def _slots(raw: bytes) -> list[Slot]:
    """All that could differ. Raises one of `UNREADABLE_ERRORS` where no template can be made."""
    slots = []
    for name, kind, start, end in _split(raw):
        if kind == TABLE:
            for header, at, stop, _ in entries(raw, start + 4, end):
                if raw[at : at + 1] == b"S":
                    slots.append(Slot(header, TEXT, at + 5, stop, in_headers=True))
                else:
                    slots.append(Slot(header, FIELD, at, stop, in_headers=True))
        elif kind != OCTET:
            slots.append(Slot(name, kind, start, end))
    names = {(slot.name, slot.in_headers) for slot in slots}
    if len(slots) > _MOST_SLOTS or len(names) < len(slots):
        raise KeyError("too many headers, or one of them twice")
    return slots


def _field(part: bytes) -> Any:
    try:
        value, end = read_value(part, 0, len(part))
    except UNREADABLE_ERRORS:
        end = -1
    if end != len(part):
        raise ValueError("it is not just one field of a table")
    return value


READ: Mapping[int, Callable[[Any], Any]] = {
    SHORT: short_text, TIME: int, TEXT: text_or_bytes, FIELD: _field,
}  # fmt: skip
"""The value of what stands in a slot. Raises ValueError where it is not just one value."""
_OWN = ("message_id", "timestamp", "correlation_id")
"""Properties that differ from message to message."""
_MOST_SLOTS, _MOST_LAYOUTS = 64, 8
_MOST_BYTES, _MOST_KNOWN_BYTES = 2000, 512 << 10
_TEMPLATE_BYTES, _SLOT_BYTES = 300, 100
"""What these take beside the bytes of properties, roughly."""
_MOST_PASSED_OVER = 64

V = TypeVar("V")
Row = tuple[Any, ...]
"""What stands in the slots: bytes, or numbers for times."""
Group = tuple[V | None, Sequence[int], Sequence[Row]]
"""Of messages that are alike: what is known of them, their places, and a column for each slot."""


class _Layout(Generic[V]):
    """Where slots are. `made`: what is known, by the bytes between them."""

    def __init__(self, size: int, slots: Sequence[Slot]) -> None:
        form, at = ">", 0
        for slot in slots:
            form += f"{slot.start - at}s"
            form += "Q" if slot.kind == TIME else f"{slot.end - slot.start}s"
            at = slot.end
        layout = struct.Struct(f"{form}{size - at}s")
        self.slots = slots
        self.unpack, self.iter_unpack = layout.unpack, layout.iter_unpack
        self.made: dict[tuple[bytes, ...], V] = {}

    def split(
        self, raws: Sequence[bytes], places: Sequence[int]
    ) -> tuple[list[Group[V]], Sequence[int]]:
        """Groups of these messages by what they have in common, and the places of those that are
        not known."""
        rows = [*self.iter_unpack(b"".join(raws))]
        columns = [*zip(*rows, strict=True)]
        common = rows[0][::2]
        if sum(map(tuple.count, columns[::2], common)) == len(rows) * len(common):
            made = self.made.get(common)
            return ([(made, places, columns[1::2])], ()) if made is not None else ([], places)
        alike: dict[V | None, list[int]] = {}
        for number, row in enumerate(rows):
            alike.setdefault(self.made.get(row[::2]), []).append(number)
        unknown = alike.pop(None, [])
        groups: list[Group[V]] = []
        for made, numbers in alike.items():
            columns = [*zip(*[rows[number] for number in numbers], strict=True)]
            groups.append((made, [places[number] for number in numbers], columns[1::2]))
        return groups, [places[number] for number in unknown]


def _by_size(raws: Sequence[Any]) -> Mapping[int, Sequence[int]]:
    """The places of messages by the length of their properties; 0 for what is not bytes."""
    if {*map(type, raws)} == {bytes} and len({*map(len, raws)}) == 1:  # most batches
        return {len(raws[0]): range(len(raws))}
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for place, raw in enumerate(raws):
        by_size[len(raw) if type(raw) is bytes else 0].append(place)
    return by_size


class Templates(Generic[V]):
    """What was made of properties before, by the bytes that messages have in common: all but their
    ids and times, and each value that was seen to differ. All lengths are in common, so a message
    with the same bytes has its values in the same places.

    Bounded. Read and added to on any thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._every = 1
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.size = 0
        """Bytes that are taken, roughly."""
        self._misses = 0
        self.layouts: dict[int, tuple[_Layout[V], ...]] = {}
        """By the length of properties; the latest first."""
        self._known: dict[Row, tuple[bytes, _Layout[V]]] = {}
        """The last message, by its bytes without any values, and all that could be slots."""

    def groups(self, raws: Sequence[Any]) -> Iterator[Group[V]]:
        """Each place of `raws` in one group, with others that are alike. Nothing is known of what
        is not bytes."""
        for size, places in _by_size(raws).items():
            unknown = places
            for layout in self.layouts.get(size, ()):
                if unknown:
                    whole = len(unknown) == len(raws)
                    some = raws if whole else [raws[place] for place in unknown]
                    groups, unknown = layout.split(some, unknown)
                    yield from groups
            if unknown:
                yield None, unknown, ()

    def find(self, raw: bytes) -> tuple[V, Row] | None:
        """What is known of one message, and what stands in its slots."""
        for layout in self.layouts.get(len(raw), ()):
            parts = layout.unpack(raw)
            made = layout.made.get(parts[::2])
            if made is not None:
                return made, parts[1::2]
        return None

    def learn(self, raw: bytes, make: Callable[[Sequence[Slot]], V]) -> None:
        """Keep what `make` makes with the slots of messages like this one."""
        self._misses += 1
        if self._misses % self._every or len(raw) > _MOST_BYTES or self.find(raw) is not None:
            return
        try:
            slots = _slots(raw)
        except UNREADABLE_ERRORS:
            return
        blank = bytearray(raw)
        for slot in slots:
            blank[slot.start : slot.end] = bytes(slot.end - slot.start)
        with self._lock:
            key = bytes(blank), *slots
            differing = self._differing(raw, slots, key)
            layout = self._layout(len(raw), differing)
            layout.made[layout.unpack(raw)[::2]] = make(differing)
            self._known[key] = raw, layout

    def _differing(self, raw: bytes, slots: Sequence[Slot], key: Row) -> list[Slot]:
        """Those of the slots that a template for this message needs; an earlier one goes."""
        last, layout = self._known.get(key, (raw, None))
        if layout is not None:
            layout.made.pop(layout.unpack(last)[::2], None)
        else:
            size = len(raw) + _TEMPLATE_BYTES + _SLOT_BYTES * len(slots)
            if self.size + size > _MOST_KNOWN_BYTES:
                # There are more kinds of messages than are kept: most do not come again soon.
                self.forget()
                self._every = min(2 * self._every, _MOST_PASSED_OVER)
            self.size += size
        return [
            slot for slot in slots
            if (layout is not None and slot in layout.slots)
            or raw[slot.start : slot.end] != last[slot.start : slot.end]
            or (slot.name in _OWN and not slot.in_headers)
            or (slot.kind == FIELD and raw[slot.start] in b"AF")  # never shared: it can be changed
        ]  # fmt: skip

    def _layout(self, size: int, slots: Sequence[Slot]) -> _Layout[V]:
        """The layout with these slots, the first of its size from now on."""
        layouts = [layout for layout in self.layouts.get(size, ()) if layout.made]
        same = [layout for layout in layouts if layout.slots == slots]
        layout = same[0] if same else _Layout(size, slots)
        others = [other for other in layouts if other is not layout]
        self.layouts[size] = (layout, *others)[:_MOST_LAYOUTS]
        return layout


class _Form:
    """Properties, and which of them stand in slots."""

    def __init__(self, properties: Properties, slots: Sequence[Slot]) -> None:
        self.names = [*properties.headers]
        self.values = [*properties, *properties.headers.values()]
        """The properties, then those of the headers."""
        self.whole = None if slots or self.names else properties
        """All of it, where nothing differs."""
        self.slots = []
        """Where each stands among what is unpacked, its kind, and its place among the values."""
        for number, slot in enumerate(slots):
            place = _PLACES.get(slot.name, 0)
            if slot.in_headers:
                place = _COUNT + self.names.index(slot.name)
            self.slots.append((2 * number + 1, slot.kind, place))


_templates: Templates[_Form] = Templates()


class EncodedProperties:
    """What pika's `basic_publish` takes as properties: an object that can `encode`."""

    INDEX = 60  # the class `basic`

    def __init__(self, properties: Properties) -> None:
        flags, pieces = 0, []
        for bit, (name, kind) in enumerate(_KINDS.items()):
            value = getattr(properties, name)
            if value is None or (kind == TABLE and not value):
                continue
            flags |= 1 << _HIGHEST_FLAG >> bit
            if kind == TABLE:
                pieces.append(encode_table(value))
            elif kind == SHORT:
                pieces.append(encode_short(value))
            else:
                pieces.append(struct.pack(">Q" if kind == TIME else "B", value))
        self._bytes = struct.pack(">H", flags) + b"".join(pieces)

    def encode(self) -> list[bytes]:
        """The flags and the list of properties."""
        return [self._bytes]
