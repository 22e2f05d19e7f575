"""The daemon's own log: standard error, as text for people or as JSON for machines.

User and password of every URL in a line are hidden, wherever it comes from: a library, a plugin, a
traceback.
"""

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import TextIO

import orjson

from logfan.runtime.foreign_text import TRACEBACK_CHARACTERS, text_of, traceback_of
from logfan.telemetry.log_throttle import Throttle, message_of

TEXT, JSON = "text", "json"

_SYSLOG_LEVELS = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
# Libraries log their internals, pika 200 lines a second where a broker is away; what an operator
# needs of them stands in our own lines.
_QUIET = ("pika",)
_OURS = "logfan."
_WINDOW_SECONDS = 60.0
_PATIENCE_SECONDS = 1.0
_PIECE_BYTES = select.PIPE_BUF
"""A pipe that can be written to takes so much at once."""
_MESSAGE_CHARACTERS = 8000
"""So much of a line is written, whatever a plugin or a library puts into it."""


def configure(
    level: str,
    form: str,
    *,
    environ: Mapping[str, str] = os.environ,
    window: float = _WINDOW_SECONDS,
) -> None:
    """Send all logging to standard error. `level` as in `log.level`, `form` as in `log.format`.

    Of equal lines beyond a burst only the count is written, once in a `window` of seconds.
    """
    handler = _Handler(window)
    if form == JSON:
        if isinstance(sys.stderr, TextIOWrapper):
            sys.stderr.reconfigure(encoding="utf-8")  # as JSON is, whatever the locale
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter(journal=_stderr_is_journal(environ)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, _Handler):
            old.close()
    _Configured.handler = handler
    _Configured.level = logging.getLevelNamesMapping()[level.upper()]
    keep()
    for name in _QUIET:
        logging.getLogger(name).setLevel(
            logging.WARNING if level.lower() == "debug" else logging.CRITICAL + 1
        )


class _Configured:
    """What is in force."""

    handler: "_Handler | None" = None
    level = logging.NOTSET


def keep() -> bool:
    """Set it up again where a plugin's code, or a library's, has silenced it since: logging belongs
    to the whole process, and `dictConfig` disables all loggers that are there. True where that was
    so. Handlers of others stay."""
    handler, root = _Configured.handler, logging.getLogger()
    if handler is None:
        return False
    ours = [
        known
        for name, known in root.manager.loggerDict.copy().items()
        if name.startswith(_OURS) and isinstance(known, logging.Logger)
    ]
    is_heard = handler in root.handlers and root.level == _Configured.level
    if is_heard and not root.manager.disable and not any(one.disabled for one in ours):
        return False
    for one in ours:
        one.disabled = False
    logging.disable(logging.NOTSET)
    root.addHandler(handler)
    root.setLevel(_Configured.level)
    return True


def one_line(text: str) -> str:
    """The text without control characters: a log line cannot be forged or redraw a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def has_room(fd: int, seconds: float = 0.0) -> bool:
    """Whether a write of `_PIECE_BYTES` to it would not have to wait for a reader any longer than
    this. True where it would fail."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(seconds * 1000))


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error, with a cap on lines that come again and again. One that is not read, as a
    pipe or a terminal that is stopped, takes no line, and is waited for once: what it does not take
    is counted, so that no thread of the daemon ever hangs in its log."""

    def __init__(self, window: float) -> None:
        super().__init__(sys.stderr)
        self._throttle = Throttle(time.monotonic, window)
        self._timer: threading.Timer | None = None
        try:
            self._fd: int | None = self.stream.fileno()
        except (OSError, ValueError):  # it is something else, as in a test
            self._fd = None
        self._lost = 0
        """Lines that it did not take since the last one that it took."""
        self._within_line = False

    def emit(self, record: logging.LogRecord) -> None:
        """Under the handler's lock, as logging calls it."""
        self._summarise()
        if self._throttle.admits(record):
            self._put(record)
        elif self._timer is None:
            # This may be the last line, and then no further one would bring the count along.
            self._timer = threading.Timer(self._throttle.remaining, self._on_timer)
            self._timer.daemon = True
            try:
                self._timer.start()
            except RuntimeError:  # no more threads: the next line brings the count along
                self._timer = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Standard error takes nothing: there is no other place to report it."""

    def close(self) -> None:
        """Write how many were suppressed, also when the process ends."""
        with self.lock or nullcontext():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._summarise(at_end=True)
        super().close()

    def _on_timer(self) -> None:
        with self.lock or nullcontext():
            self._timer = None
            self._summarise()

    def _summarise(self, *, at_end: bool = False) -> None:
        for lines in self._throttle.summaries(at_end=at_end):
            text = f"{lines.count:,} more lines like this were suppressed: {lines.last}"
            self._put(_line(lines.logger, lines.level, text))

    def _put(self, record: logging.LogRecord) -> None:
        if not self._has_room():
            self._lost += 1
            return
        lost, self._lost = self._lost, 0
        if lost:
            text = f"standard error was not read: {lost:,} lines of this log are lost"
            self._write(_line(__name__, logging.WARNING, text))
        self._write(record)

    def _has_room(self) -> bool:
        """Once it took nothing for `_PATIENCE_SECONDS`, it is not waited for before it does."""
        return self._fd is None or has_room(self._fd, 0 if self._lost else _PATIENCE_SECONDS)

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            if self._within_line:
                line = self.terminator + line
            # No character takes more than ten bytes: \U0001f600.
            most = _PIECE_BYTES if line.isascii() else _PIECE_BYTES // 10
            for at in range(0, len(line), most):
                if at and not self._has_room():
                    self._lost += 1
                    self._within_line = True
                    return
                self.stream.write(line[at : at + most])
                self.stream.flush()
            self._within_line = False
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - as logging has it
            self.handleError(record)


def _line(logger: str, level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(logger, level, "", 0, text, None, None)


class _TextFormatter(logging.Formatter):
    """`2026-11-24T10:00:00.123Z warning sink archive: …`; under journald with a level prefix."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        lines = [one_line(_message(record))]
        lines += [f"    {one_line(line)}" for line in _traceback(record).splitlines()]
        if self._journal:
            number = next(n for level, n in _SYSLOG_LEVELS if record.levelno >= level)
            return "\n".join(f"<{number}>{line}" for line in lines)
        lines[0] = f"{_timestamp(record)} {record.levelname.lower():<7} {lines[0]}"
        return "\n".join(lines)


class _JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if traceback := _traceback(record):
            entry["traceback"] = traceback
        return orjson.dumps(entry).decode()


def _message(record: logging.LogRecord) -> str:
    return text_of(message_of(record), _MESSAGE_CHARACTERS)


def _traceback(record: logging.LogRecord) -> str:
    """Of the exception that the line is about, or as a text that came along."""
    if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], BaseException):
        return traceback_of(record.exc_info[1])
    given = record.__dict__.get("traceback")
    return text_of(given, TRACEBACK_CHARACTERS) if type(given) is str else ""


def _timestamp(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """journald names the device and inode of the stream it reads, as systemd documents."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
