"""One way to read a record: by the name of a field.

| name | gives |
| --- | --- |
| `routing_key`, `exchange`, `redelivered`, `received_at`, `size` | where it came from |
| `headers.NAME`, `headers.NAME.INSIDE` | a header |
| `properties.NAME` | a property, as `properties.app_id` |
| `level`, `message`, `time` | derived from wherever the publisher wrote them |
| `json.PATH` | the value at a dotted path in a JSON body, whatever its name |
| anything else | the same; where the body has no such value, the property of that name |
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from logfan.dotted_path import Walk, column, walk_to
from logfan.fields.levels import LEVELS, level_named, level_of, levels_of
from logfan.fields.messages import Message, message_of, shown
from logfan.fields.times import seconds_of, time_of, time_text
from logfan.record import Properties, Record

__all__ = [
    "LEVELS", "Field", "Message", "field", "level_named", "level_of", "message_of", "seconds_of",
    "shown", "time_of", "time_text",
]  # fmt: skip

_DIRECT = ("routing_key", "exchange", "redelivered", "received_at", "size")
Column = Callable[[Sequence[Record], Sequence[Any]], list[Any]]
_DERIVED: dict[str, Callable[[Record], Any]] = {
    "level": level_of,
    "message": message_of,
    "time": time_text,
}


class Field:
    """A field of any record: call it with a record to read the value, None where there is none."""

    __slots__ = ("column", "name", "needs_body", "read", "walk")

    def __init__(
        self,
        name: str,
        read: Callable[[Record], Any],
        *,
        needs_body: bool,
        walk: Walk | None = None,
        column: Column | None = None,
    ) -> None:
        self.name = name
        self.read = read
        """Takes a record, and gives its value. Never raises."""
        self.needs_body = needs_body
        """Whether it parses the body."""
        self.walk = walk
        """The same for a parsed body; None where the value may come from elsewhere."""
        self.column = column or (lambda records, _: [*map(read, records)])
        """Takes several records and their parsed bodies, as `Record.json` gives them, with None for
        what is no JSON; gives the values of all, for less than one by one costs."""

    def __call__(self, record: Record) -> Any:
        return self.read(record)

    def __repr__(self) -> str:
        return f"<Field {self.name}>"


@lru_cache(maxsize=1024)
def field(name: str) -> Field:
    """Compile a field's name. Raises ValueError where it can be none.

    A dotted path finds the literal key first (`log.level`), then splits.
    """
    if name in _DIRECT:
        return Field(name, attrgetter(name), needs_body=False)
    if name in _DERIVED:
        return Field(
            name, _DERIVED[name], needs_body=True, column=levels_of if name == "level" else None
        )
    root, _, rest = name.partition(".")
    if root == "headers" and rest:
        walk_headers = walk_to(rest)
        return Field(name, lambda record: walk_headers(record.headers), needs_body=False)
    if root == "properties" and rest:
        if rest not in Properties._fields:
            known = ", ".join(Properties._fields)
            raise ValueError(f"{name!r}: there is no property {rest!r}; there are {known}")
        return Field(name, attrgetter(f"properties.{rest}"), needs_body=False)
    path = rest if root == "json" and rest else name
    walk = walk_to(path)

    def read_body(record: Record) -> Any:
        try:
            return walk(record.json())
        except ValueError:
            return None

    if path is name and name in Properties._fields:
        read_property = attrgetter(f"properties.{name}")

        def read_either(record: Record) -> Any:
            found = read_body(record)
            return read_property(record) if found is None else found

        def all_of_either(records: Sequence[Record], bodies: Sequence[Any]) -> list[Any]:
            found = column(path, bodies)
            if None not in found:
                return found
            pairs = zip(records, found, strict=True)
            return [read_property(one) if value is None else value for one, value in pairs]

        return Field(name, read_either, needs_body=True, column=all_of_either)
    return Field(
        name, read_body, needs_body=True, walk=walk, column=lambda _, bodies: column(path, bodies)
    )
