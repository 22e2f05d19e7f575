"""JSON changed in places, all else byte for byte. Sans-I/O."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count, repeat
from typing import NamedTuple

import orjson

Change = Callable[[bytes], bytes]
"""Takes a key, a string or a number as it stands in the text, and gives what takes its place."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_OPEN, _CLOSE = (b"{", b"["), (b"}", b"]")
_LITERALS = (b"true", b"false", b"null")

_Places = frozenset[tuple[int, int]]
"""Where a value lies: (number of the path, number of the part that comes next)."""


class _Container(NamedTuple):
    is_object: bool
    places: _Places
    elements: Iterator[_Places]
    """Where each element of a list lies, in turn."""


def edited(
    body: bytes, paths: Sequence[Sequence[str]], whole: Change, each: Change | None
) -> bytes:
    """A JSON text with the values at these paths changed by `whole`, and every other key, string
    and number by `each`.

    `body` is valid JSON. A path is its parts; a key may be several of them, joined by dots. A list
    passes on what it is asked for to each of its elements, and a part that is a number is also the
    index of one. So what `dotted_path` finds is among what is changed.
    """
    tokens = _TOKEN.finditer(body)
    start = frozenset((number, 0) for number in range(len(paths)))
    pieces: list[bytes] = []
    copied = 0
    for begin, end, change in _changes(tokens, paths, start, whole, each):
        old = body[begin:end]
        new = change(old)
        if new != old:
            pieces += body[copied:begin], new
            copied = end
    return b"".join((*pieces, body[copied:])) if pieces else body


def _changes(
    tokens: Iterator[re.Match[bytes]],
    paths: Sequence[Sequence[str]],
    start: _Places,
    whole: Change,
    each: Change | None,
) -> Iterator[tuple[int, int, Change]]:
    """What to change: where it begins and ends, and by what."""
    stack: list[_Container] = []
    places, is_key = start, False
    for match in tokens:
        token = match.group()
        if token == b",":
            is_key = stack[-1].is_object
            if not is_key:
                places = next(stack[-1].elements)
        elif token == b":":
            is_key = False
        elif token in _CLOSE:
            stack.pop()
            is_key = False
        elif is_key:
            places = _below(stack[-1].places, _text(token), paths)
            if each is not None:
                yield (*match.span(), each)
        elif any(part == len(paths[number]) for number, part in places):
            yield match.start(), _end(match, tokens), whole
        elif token in _OPEN:
            is_key = token == b"{"
            stack.append(_Container(is_key, places, _elements(places, paths)))
            if not is_key:
                places = next(stack[-1].elements)
        elif each is not None and token not in _LITERALS:
            yield (*match.span(), each)


def _end(match: re.Match[bytes], tokens: Iterator[re.Match[bytes]]) -> int:
    """Where the value that begins here ends."""
    depth = 0
    while True:
        token = match.group()
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth == 0:
            return match.end()
        match = next(tokens)


def _elements(places: _Places, paths: Sequence[Sequence[str]]) -> Iterator[_Places]:
    """Where each element of a list lies, without end."""
    indexes: dict[int, _Places] = {}
    for number, part in places:
        if (name := paths[number][part]).isdecimal():
            index = int(name[:9])
            indexes[index] = indexes.get(index, places) | {(number, part + 1)}
    return (indexes.get(index, places) for index in count()) if indexes else repeat(places)


def _below(places: _Places, key: str, paths: Sequence[Sequence[str]]) -> _Places:
    """Where the value of this key lies."""
    found = set()
    for number, part in places:
        parts = paths[number]
        count = key.count(".") + 1
        if ".".join(parts[part : part + count]) == key:
            found.add((number, part + count))
    return frozenset(found)


def _text(token: bytes) -> str:
    text: str = orjson.loads(token) if b"\\" in token else token[1:-1].decode()
    return text
