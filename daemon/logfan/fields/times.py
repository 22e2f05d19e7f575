"""When a record was written, by its publisher's clock. Sans-I/O."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from logfan.dotted_path import walk_to
from logfan.fields.otlp import otlp_record
from logfan.record import Record

_PATHS = (
    "time", "timestamp", "ts", "@timestamp", "@t", "asctime", "datetime", "Timestamp", "eventTime",
    "timeUnixNano", "observedTimeUnixNano", "timeMillis", "TimeStamp", "record.time.timestamp",
    "instant.epochSecond", "created", "__REALTIME_TIMESTAMP", "ISODATE", "timestampSeconds",
    "_meta.date",
)  # fmt: skip
_WALKS = tuple((path.partition(".")[0], path, walk_to(path)) for path in _PATHS)
TIME_KEYS = frozenset(_PATHS)
"""Where in a JSON body the time may stand."""
_IN_MILLISECONDS = "timestamp_in_ms"
_YEAR_3000 = 32_503_680_000
"""In seconds. A larger number counts milliseconds, or microseconds, or nanoseconds."""
_MOST = 10**20
_TEXT_CHARS = 40


def time_of(record: Record) -> float | None:
    """When it was written, in seconds since 1970 (UTC): from the body, else from the properties.

    None where the publisher names no time. A number beyond the year 3000 counts milliseconds (or
    micro- or nanoseconds), as amqplib's `Date.now()` does.
    """
    try:
        tree = record.json()
    except ValueError:
        tree = None
    if isinstance(tree, Mapping):
        single = otlp_record(tree)
        if (time := _in_tree(tree if single is None else single)) is not None:
            return time
    properties = record.properties
    exact = properties.headers.get(_IN_MILLISECONDS) if properties.headers else None
    if isinstance(exact, int) and 0 < exact < _YEAR_3000 * 1000:
        return exact / 1000
    return seconds_of(properties.timestamp)


def _in_tree(tree: Mapping[str, Any]) -> float | None:
    for root, path, walk in _WALKS:
        if (root in tree or path in tree) and (time := seconds_of(walk(tree))) is not None:
            return time
    return None


def time_text(record: Record) -> str | None:
    """The same as `2026-11-26T00:16:23.449Z`."""
    seconds = time_of(record)
    if seconds is None:
        return None
    try:
        when = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return when.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def seconds_of(value: Any) -> float | None:
    """A publisher's time in seconds since 1970 (UTC); None where it is none that is known.

    Takes numbers, digits, and ISO 8601 with or without a zone (without one it is UTC). A time at or
    before 1970 is none: zero, in whatever form (Go's is `0001-01-01T00:00:00Z`), means not set.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _scaled(value)
    if isinstance(value, datetime):
        return _since_1970(value)
    if not isinstance(value, str) or len(value) > _TEXT_CHARS:
        return None
    text = value.strip()
    if text.replace(".", "", 1).isdecimal():
        return _scaled(float(text))
    try:
        when = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    return _since_1970(when)


def _since_1970(when: datetime) -> float | None:
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds > 0 else None


def _scaled(number: float) -> float | None:
    if not 0 < number < _MOST:
        return None
    number = float(number)
    while number > _YEAR_3000:
        number /= 1000
    return number
