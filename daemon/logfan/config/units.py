"""Durations and sizes as people write them: `"250ms"`, `"10m"`, `"64MiB"`. Sans-I/O."""

import re
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from logfan.sink import is_default

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {
    "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_LONGEST = 40
_MOST_SECONDS = 36_500 * _SECONDS["d"]
"""A hundred years: some more, and no clock of the system can wait for it."""
_DURATION_HELP = 'write a duration with its unit, such as "250ms", "5s", "10m", "1h" or "1d"'
_SIZE_HELP = 'write a size with its unit, such as "512B", "64KiB", "8MiB" or "1GiB"'


def parse_duration(value: object) -> float:
    """Seconds from `"250ms"`, `"5s"`, `"1m30s"`. Raises ValueError with what would be right."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(_DURATION_HELP)
    text = value.strip()
    position, seconds = 0, 0.0
    while position < len(text):
        match = _QUANTITY.match(text, position)
        if match is None or match[2] not in _SECONDS:
            raise ValueError(_DURATION_HELP)
        seconds += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not text:
        raise ValueError(_DURATION_HELP)
    if seconds > _MOST_SECONDS:
        raise ValueError("must be at most 36500d, which is a hundred years")
    return seconds


def parse_size(value: object) -> int:
    """Bytes from `"64MiB"` (powers of 1024) or `"64MB"` (powers of 1000). Raises ValueError."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(_SIZE_HELP)
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2] not in _BYTES:
        raise ValueError(_SIZE_HELP)
    return int(float(match[1]) * _BYTES[match[2]])


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration of whole milliseconds: 90.0 gives `"90s"`."""
    for unit, size in reversed(_SECONDS.items()):
        count = seconds / size
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(seconds * 1000)}ms"


def format_size(size: int) -> str:
    """The shortest exact way to write a size: 67108864 gives `"64MiB"`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _duration(value: object, info: ValidationInfo) -> object:
    return value if _is_plain_default(value, info) else parse_duration(value)


def _size(value: object, info: ValidationInfo) -> object:
    return value if _is_plain_default(value, info) else parse_size(value)


def _is_plain_default(value: object, info: ValidationInfo) -> bool:
    """Authors of sinks write a default as their code sees it: in seconds or bytes."""
    return isinstance(value, int | float) and is_default(info.field_name)


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "format": "duration", "examples": ["250ms", "5s", "10m"]}),
]
"""Seconds as a float; written in TOML as a string with a unit."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": "string", "format": "size", "examples": ["64KiB", "8MiB"]}),
]
"""Bytes as an int; written in TOML as a string with a unit."""
