"""A dotted path into parsed JSON."""

from collections.abc import Mapping
from typing import Any


def dotted(value: Any, path: str) -> Any:
    """The value at `a.b.0.c` inside parsed JSON; None where there is none."""
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
