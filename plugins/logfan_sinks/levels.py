"""How bad a record is: looked for where publishers put it. Sans-I/O."""

import re
from collections.abc import Mapping

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
