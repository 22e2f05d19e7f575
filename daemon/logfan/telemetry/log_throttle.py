"""How often the same log line is written: a burst, then a count once a minute. Sans-I/O.

A plugin that logs every record must not fill the disk with it. Lines that differ are kept apart
as far as they can be: the daemon's own by their text without its numbers, a plugin's by the format
that it logs with. As a plugin may also make a new format of each record, all lines of one of its
loggers together have a bound, too.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from logfan.runtime.foreign_text import describe, text_of

BURST = 60
"""Equal lines that are written in a window."""
BURST_OF_LOGGER = 300
"""Lines of all kinds that one logger, other than the daemon's, writes in a window."""
_MAX_KEYS = 500
_KEY_LENGTH = 200
_NUMBER = re.compile(r"\d+")

Key = tuple[str, int, str]


@dataclass(slots=True)
class Suppressed:
    """Lines that were not written: how many, and what the last one was."""

    logger: str
    level: int
    last: str
    count: int = 0


class Throttle:
    """Decides for each line whether it is written. Called under the handler's lock."""

    def __init__(self, now: Callable[[], float], window: float) -> None:
        """`now` and `window` in seconds."""
        self._now = now
        self._window = window
        self._ends = now() + window
        self._seen_own: dict[Key, int] = {}
        self._seen: dict[Key, int] = {}
        self._suppressed: dict[Key, Suppressed] = {}

    @property
    def remaining(self) -> float:
        """Seconds until `summaries` gives what was suppressed."""
        return max(0.0, self._ends - self._now())

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether this line is written. Debug lines always are."""
        if record.levelno <= logging.DEBUG:
            return True
        own = record.name.split(".", 1)[0] in ("logfan", "logfan_sinks")
        text = message_of(record) if own else text_of(record.msg, _KEY_LENGTH)
        key = record.name, record.levelno, _NUMBER.sub("0", text[:_KEY_LENGTH])
        seen = self._seen_own if own else self._seen
        if _is_within(seen, key, BURST) and (
            own or _is_within(seen, (record.name, 0, ""), BURST_OF_LOGGER)
        ):
            return True
        if key not in self._suppressed and len(self._suppressed) >= _MAX_KEYS:
            key = record.name, record.levelno, ""
        suppressed = self._suppressed.setdefault(key, Suppressed(record.name, record.levelno, ""))
        suppressed.count += 1
        suppressed.last = message_of(record)[:_KEY_LENGTH]
        return False

    def summaries(self, *, at_end: bool = False) -> Iterator[Suppressed]:
        """What was suppressed in a window that is over, or, `at_end`, so far."""
        if not at_end and self._now() < self._ends:
            return
        self._ends = self._now() + self._window
        self._seen_own.clear()
        self._seen.clear()
        suppressed, self._suppressed = self._suppressed, {}
        yield from suppressed.values()


def _is_within(seen: dict[Key, int], key: Key, limit: int) -> bool:
    if key not in seen and len(seen) >= _MAX_KEYS:
        key = "", key[1], ""
    seen[key] = seen.get(key, 0) + 1
    return seen[key] <= limit


def message_of(record: logging.LogRecord) -> str:
    """Its text. A plugin's line that cannot be put together is shown as it was given."""
    try:
        return record.getMessage()
    except BaseException as error:  # noqa: BLE001 - a plugin's format, or what it is filled with
        return f"{text_of(record.msg)} (this line cannot be put together: {describe(error)})"
