"""What people read of a record: its message, and the fields beside it. Sans-I/O."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from logfan.dotted_path import walk_to
from logfan.fields.levels import LEVEL_KEYS
from logfan.fields.otlp import otlp_record
from logfan.fields.times import TIME_KEYS
from logfan.record import Record

_PATHS = (
    "message", "msg", "event", "@m", "short_message", "MESSAGE", "RenderedMessage", "Message",
    "@message", "record.message", "fields.message", "text", "@mt", "MessageTemplate", "body",
    "body.stringValue", "log", "0",
)  # fmt: skip
_WALKS = tuple((path, path.partition(".")[0], walk_to(path)) for path in _PATHS)
_OTLP = "resourceLogs"
_HEADERS = ("MESSAGE", "message")


class Message(NamedTuple):
    """What to show of a record."""

    text: str
    rest: Mapping[str, Any]
    """The other fields of a JSON body, by their names; level and time are left out."""


def message_of(record: Record) -> str:
    """The message alone: of a JSON object its message field, else the body as text.

    An empty body gives the header `MESSAGE`, else all headers as `key=value`.
    """
    if not record.body:
        return _of_headers(record.headers)
    try:
        tree = record.json()
    except ValueError:
        return record.text
    found = _found(tree) if isinstance(tree, Mapping) else None
    return record.text if found is None else found[0]


def _found(tree: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The message, its path, and the key that it stands in; None where there is none."""
    for path, root, walk in _WALKS:
        if (root in tree or path in tree) and isinstance(text := walk(tree), str):
            return text, path, root
    single = otlp_record(tree)
    found = None if single is None else _found(single)
    return None if found is None else (found[0], _OTLP, _OTLP)


def shown(record: Record) -> Message:
    """The message, and the fields that stand beside it in a JSON object."""
    tree: Any = None
    if record.body:
        with suppress(ValueError):
            tree = record.json()
    if not isinstance(tree, Mapping) or (found := _found(tree)) is None:
        return Message(message_of(record), {})
    text, *places = found
    left_out = {*places} | LEVEL_KEYS | TIME_KEYS
    return Message(text, {name: value for name, value in tree.items() if name not in left_out})


def _of_headers(headers: Mapping[str, Any]) -> str:
    for name in _HEADERS:
        if isinstance(text := headers.get(name), str):
            return text
    return " ".join(f"{name}={value}" for name, value in headers.items())
