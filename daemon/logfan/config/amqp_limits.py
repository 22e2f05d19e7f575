"""What AMQP 0-9-1 takes as names and in tables, so that `check` knows before a broker refuses it,
or a frame cannot be written. Sans-I/O."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from logfan.field_table import encode_table

SHORT_BYTES = 255
"""A short string's length is one byte: names of queues and exchanges, routing keys."""
_TABLE_BYTES = 130_000
"""A table must fit into one frame, of 128 KiB unless the broker is set up otherwise."""
RESERVED = "amq."
PREDEFINED = {
    "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic",
    "amq.headers": "headers", "amq.match": "headers",
    "amq.rabbitmq.trace": "topic", "amq.rabbitmq.log": "topic", "amq.rabbitmq.event": "topic",
}  # fmt: skip
"""The exchanges of reserved names that a broker may have, and their types."""


def short_string(text: str) -> str:
    """The text. Raises ValueError where it is too long for a name or a key."""
    if not _is_utf8(text):
        raise ValueError("must be text in UTF-8")
    size = len(text.encode())
    if size > SHORT_BYTES:
        raise ValueError(f"has {size} bytes as UTF-8; AMQP takes {SHORT_BYTES} at most")
    return text


def table_problems(table: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Path within the table, value and problem of each entry that AMQP cannot carry: of a queue's
    arguments, or a message's headers."""
    unfit = [*_entry_problems(table, "")]
    yield from unfit
    if not unfit and len(encode_table(table)) > _TABLE_BYTES:
        yield "", None, f"have more than {_TABLE_BYTES:,} bytes; all must fit into one AMQP frame"


def _entry_problems(table: Mapping[str, Any], place: str) -> Iterator[tuple[str, object, str]]:
    for key, value in table.items():
        try:
            short_string(str(key))
        except ValueError as error:
            yield place, None, f"have a name that {error}"
            continue
        yield from _value_problems(value, f"{place}.{key}" if place else str(key))


def _value_problems(value: object, place: str) -> Iterator[tuple[str, object, str]]:
    if isinstance(value, Mapping):
        yield from _entry_problems(value, place)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _value_problems(item, f"{place}.{number}")
    elif (problem := _single_problem(value)) is not None:
        yield place, value, problem


def _is_utf8(text: str) -> bool:
    """What an environment variable holds beside UTF-8 becomes lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _single_problem(value: object) -> str | None:
    if isinstance(value, str) and not _is_utf8(value):
        return "must be text in UTF-8"
    if isinstance(value, float):
        return "must be a whole number, a string or a list; brokers take no fraction here"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return "does not fit into 64 bits, AMQP's largest number"
    if isinstance(value, datetime):
        when = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return "must not be before 1970: AMQP counts from there" if when.timestamp() < 0 else None
    if isinstance(value, date | time):
        return "must be a number, a string, or a date and time; AMQP has no date or time alone"
    return None
