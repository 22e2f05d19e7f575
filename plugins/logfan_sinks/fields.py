"""What stands in a record: a value at a dotted path, and its level. Sans-I/O."""

import re
from collections.abc import Mapping
from typing import Any

from logfan import Record

DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL = 7, 6, 5, 4, 3, 2
"""As syslog and journald count them."""

_NAMES = {
    "trace": DEBUG, "debug": DEBUG, "verbose": DEBUG, "info": INFO, "information": INFO,
    "notice": NOTICE, "warn": WARNING, "warning": WARNING, "err": ERROR, "error": ERROR,
    "critical": CRITICAL, "crit": CRITICAL, "fatal": CRITICAL, "alert": CRITICAL,
    "emerg": CRITICAL, "emergency": CRITICAL, "panic": CRITICAL,
}  # fmt: skip
LEVEL_KEYS = ("level", "severity", "lvl", "levelname", "log.level")
_LEADING = re.compile(r"\W{0,3}([A-Za-z]{3,11})\b")


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


def level_of(record: Record) -> int | None:
    """Its level: from a field of a JSON body, or from a leading word as in `error: …` or
    `[warn] …`; None where there is none."""
    try:
        body = record.json()
    except ValueError:
        match = _LEADING.match(record.body[:40].decode("utf-8", "replace"))
        return _NAMES.get(match[1].lower()) if match else None
    if isinstance(body, Mapping):
        for key in LEVEL_KEYS:
            value = body.get(key)
            if isinstance(value, str):
                return _NAMES.get(value[:40].strip().lower())
    return None
