"""The last warnings and errors of the log, kept for who asks the daemon how it is."""

import logging
import re
from dataclasses import dataclass

from logfan.runtime.foreign_text import line_of
from logfan.telemetry.log_output import one_line
from logfan.telemetry.log_throttle import message_of

KEPT = 20
_CHARACTERS = 500
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A line of the log; one that comes again, with other numbers, is counted."""

    at: float
    """When it last came, in seconds since 1970 (UTC)."""
    text: str
    level: str
    count: int


class Troubles(logging.Handler):
    """Keeps the last ones, in a bound of memory."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: dict[str, Trouble] = {}
        """By the text without its numbers; the newest last."""

    def emit(self, record: logging.LogRecord) -> None:
        """Under the handler's lock, as logging calls it."""
        text = one_line(line_of(message_of(record), _CHARACTERS))
        key = _NUMBER.sub("0", text)
        before = self._kept.pop(key, None)
        count = 1 if before is None else before.count + 1
        self._kept[key] = Trouble(record.created, text, record.levelname.lower(), count)
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """The log itself has the line."""

    @property
    def last(self) -> list[Trouble]:
        """The newest last. Any thread may ask."""
        self.acquire()
        try:
            return list(self._kept.values())
        finally:
            self.release()
