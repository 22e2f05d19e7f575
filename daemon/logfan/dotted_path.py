"""A dotted path into parsed JSON, or into headers. Sans-I/O.

`a.b.c` finds the literal key `a.b.c` first, as ECS and OpenTelemetry write it, then `a.b` with `c`
inside, then `a` with the rest inside. A number is also an index of a list: `items.0.sku`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import contains, itemgetter
from types import MappingProxyType
from typing import Any

MAX_PARTS = 16
"""More than any log has; the number of ways to split a path doubles with each part."""

_TABLES = frozenset((dict, MappingProxyType))
"""What most of them are: found in less time than whether it is any mapping."""

Walk = Callable[[Any], Any]
"""Takes parsed JSON, and gives the value at the path, or None where there is none."""


@lru_cache(maxsize=1024)
def walk_to(path: str) -> Walk:
    """Compile a path. Raises ValueError where it has an empty part or too many."""
    parts = path.split(".")
    if "" in parts:
        raise ValueError(f"{path!r} has an empty part")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"{path[:80]!r} has more than {MAX_PARTS} parts")
    if len(parts) == 1 and not path.isdecimal():
        return lambda tree: (
            tree.get(path) if type(tree) in _TABLES or isinstance(tree, Mapping) else None
        )
    # For each part: the keys that may begin there, the longest first, and the part behind them.
    ends = range(len(parts), 0, -1)
    keys = [
        [(".".join(parts[at:end]), end) for end in ends if end > at] for at in range(len(parts))
    ]

    def walk(tree: Any, at: int = 0) -> Any:
        if at == len(parts):
            return tree
        if type(tree) in _TABLES or isinstance(tree, Mapping):
            for key, end in keys[at]:
                if key in tree and (found := walk(tree[key], end)) is not None:
                    return found
        elif isinstance(tree, list | tuple) and parts[at].isdecimal():
            index = int(parts[at][:9])
            return walk(tree[index], at + 1) if index < len(tree) else None
        return None

    return walk


def column(path: str, trees: Sequence[Any]) -> list[Any]:
    """What `walk_to(path)` finds in each of these trees.

    Most batches are alike, and then this does not leave C.
    """
    try:
        if "." not in path:
            return [*map(itemgetter(path), trees)]
        found = _split(path, trees)
    except (KeyError, TypeError):  # one of them has no such key, or is no object
        found = None
    if found is not None:
        return found
    walk = walk_to(path)
    if "." in path:
        return [*map(walk, trees)]
    return [tree.get(path) if type(tree) is dict else walk(tree) for tree in trees]


def _split(path: str, trees: Sequence[Any]) -> list[Any] | None:
    """Where all have the literal key, or all an object for each part and none a key with a dot."""
    if all(map(contains, trees, repeat(path))):
        found = [*map(itemgetter(path), trees)]
        return None if None in found else found
    values, parts = [*trees], path.split(".")
    for at, part in enumerate(parts):
        for end in range(at + 2, len(parts) + 1):
            if any(map(contains, values, repeat(".".join(parts[at:end])))):
                return None
        values = [*map(itemgetter(part), values)]
    return values
