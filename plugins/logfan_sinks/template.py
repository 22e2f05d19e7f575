"""A JSON value with fields of the record in its strings: for webhooks that want their own shape.
Sans-I/O."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

import logfan

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")

Fill = Callable[[logfan.Record], Any]
Value = TypeVar("Value")


def checked(value: Value) -> Value:
    """The value of a config's key. Raises ValueError where it is no template."""
    compiled(value)
    return value


def compiled(value: Any) -> Fill:
    """Gives the value with its fields filled in, of each record. Strings may hold `{level}`,
    `{message}`, `{headers.NAME}` and every other field; `{{` and `}}` are braces. Raises ValueError
    for what is no field."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        items = [compiled(one) for one in value]
        return lambda record: [item(record) for item in items]
    if isinstance(value, dict):
        members = {key: compiled(one) for key, one in value.items()}
        return lambda record: {key: member(record) for key, member in members.items()}
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise ValueError(f"{str(value)[:20]}… has more than 64 bits; write it as a string")
    return lambda _: value


def _text(text: str) -> Fill:
    parts: list[str | Callable[[logfan.Record], Any]] = []
    end = 0
    for match in _PLACE.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        parts.append(match[0][0] if match[1] is None else logfan.field(match[1]))
    parts = [part for part in (*parts, text[end:]) if part != ""]
    return lambda record: "".join(
        [part if isinstance(part, str) else _shown(part(record)) for part in parts]
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None:
        return ""
    try:
        return orjson.dumps(value, default=str).decode()
    except (TypeError, ValueError):
        return str(value).encode("utf-8", "replace").decode()
