"""The sink `stdout`: lines for a terminal, for journald, or for the next program in a pipe."""

import errno
import json
import os
import select
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import orjson

import logfan
from logfan_sinks.formats import (
    EscapeTable,
    Format,
    bare,
    encoder,
    escape,
    escape_long,
    line_pieces,
    utf8_pieces,
    with_lines,
)

_WAIT_MILLISECONDS = 1000
_CHUNK_BYTES = 4 << 20
_PIECE_BYTES = 256 << 10
_JOURNAL_BYTES = 32 << 10
_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""As syslog and journald count them."""
_INFO = 6
_NEWLINE = 10
_LATE_SECONDS = 1
"""From so much on, the publisher's time is shown beside that of the receipt."""
_level_of = logfan.field("level")
_time_text_of = logfan.field("time")


class _Output:
    """Standard output, which all sinks of the daemon share."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        """Held for a whole write, so that no other sink's bytes come between those of a line."""
        self.within_line = False
        """Whether the last byte that it took ended no line."""


_OUTPUT = _Output()


class StdoutSink(logfan.Sink):
    """Write each record to standard output as one line that no message can forge."""

    class Config(logfan.SinkConfig):
        format: Format = "text"
        """text: for people, with the level coloured on a terminal; json: one object a line, for
        machines; raw: the body's bytes, and a newline where it ends with none; refused
        on a terminal."""
        colour: Literal["auto", "always", "never"] = "auto"
        """auto: on a terminal, unless $NO_COLOR is set or $TERM is dumb."""

    def open(self) -> None:
        """Look at what standard output is."""
        if sys.__stdout__ is None:
            raise logfan.SinkUnavailable(
                "standard output was closed at the start (>&-); start anew with it open"
            )
        try:
            self._fd = sys.__stdout__.fileno()
            terminal = os.isatty(self._fd)
            status = os.fstat(self._fd)
        except (OSError, ValueError) as error:
            raise logfan.SinkUnavailable(f"standard output is closed ({error})") from None
        if self.config.format == "raw" and terminal:
            raise logfan.SinkUnavailable(
                'format "raw" could drive the terminal; use "text", or send the output to a file'
            )
        stream = os.environ.get("JOURNAL_STREAM")
        self._journal = stream == f"{status.st_dev}:{status.st_ino}"
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        colour = self.config.colour
        self._colour = colour == "always" or (colour == "auto" and terminal and not plain)
        self._for_people = self.config.format == "text" and (terminal or self._colour)

    def write(self, records: Sequence[logfan.Record]) -> None:
        """All lines, then return: standard output keeps no more promise than that. What a failed
        write, such as one to a full disk, left of a line is ended first."""
        with _OUTPUT.turn:
            if _OUTPUT.within_line:
                self._send(b"\n")
            self._write(records)

    def _write(self, records: Sequence[logfan.Record]) -> None:
        lines: list[bytes] = []
        size = 0
        for record, line in with_lines(records, self._encode):
            if line is None:
                self._send(b"".join(lines))
                lines, size = [], 0
                self._send_long(record)
                continue
            lines.append(self._ended(record, line))
            size += len(lines[-1])
            if size >= _CHUNK_BYTES:  # a line may be much longer than its body
                self._send(b"".join(lines))
                lines, size = [], 0
        self._send(b"".join(lines))

    def _encode(self, records: Sequence[logfan.Record]) -> list[bytes]:
        form = self.config.format
        if self._for_people:
            return [
                (self._head(record) + escape(_for_people(record))).encode() for record in records
            ]
        lines = encoder(form)(records)
        return [*map(_harmless, lines)] if form == "json" else lines

    def _ended(self, record: logfan.Record, line: bytes) -> bytes:
        return journal_lines(line, _level_of(record)) if self._journal else line + b"\n"

    def _send_long(self, record: logfan.Record) -> None:
        """A line that may be many times as long as its body, in pieces."""
        form = self.config.format
        level = _level_of(record) if self._journal else None
        if self._for_people:
            self._send(self._head(record).encode())
        for whole in line_pieces(form)(record):
            for piece in utf8_pieces(whole, _PIECE_BYTES):
                ready = _harmless(piece) if form == "json" else piece
                self._send(journal_lines(ready, level) if self._journal else ready)
        if not self._journal:
            self._send(b"\n")

    def _head(self, record: logfan.Record) -> str:
        """`10:15:00 warning checkout `, before the message."""
        level = _level_of(record) or ""
        when = datetime.fromtimestamp(record.received_at).astimezone().strftime("%H:%M:%S")
        name = f"{level:<8}"
        if self._colour:
            when = f"\x1b[2m{when}\x1b[0m"
            name = f"\x1b[{_COLOURS[level]}m{name}\x1b[0m" if level in _COLOURS else name
        route = f"{escape(record.routing_key)} " if record.routing_key else ""
        return f"{when} {name} {route}"

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view)
                _OUTPUT.within_line = view[count - 1] != _NEWLINE
                view = view[count:]
            except BlockingIOError:
                poller = select.poll()
                poller.register(self._fd, select.POLLOUT)
                poller.poll(_WAIT_MILLISECONDS)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    why = "no program reads standard output any more (EPIPE)"
                else:
                    why = f"standard output: {error.strerror}"
                raise logfan.SinkUnavailable(why) from None


def journal_lines(line: bytes, level: str | None) -> bytes:
    """For journald, which takes a new entry, and a level from its first characters, behind each
    line break, each NUL and each 48 KiB: all of these get a level of ours, so that `<0>` in a body
    is no emergency."""
    prefix = b"<%d>" % _PRIORITIES.get(level or "", _INFO)
    if len(line) <= _JOURNAL_BYTES and b"\n" not in line and b"\0" not in line:
        return b"%b%b\n" % (prefix, line)
    entries = [
        b"%b%b\n" % (prefix, piece)
        for part in line.replace(b"\0", b"\n").split(b"\n")
        for piece in utf8_pieces(part, _JOURNAL_BYTES)
    ]
    return b"".join(entries)


def _harmless(line: bytes) -> bytes:
    """JSON escapes C0 by itself; DEL, C1 and the like pass, and a terminal may obey them."""
    if line.isascii() and b"\x7f" not in line:
        return line
    return escape_json(line.decode("utf-8", "replace")).encode()


def escape_json(line: str) -> str:
    """The JSON line with what a terminal may obey written as JSON escapes."""
    return escape_long(line, _JSON_ESCAPES)


_JSON_ESCAPES = EscapeTable(lambda char: char if char.isprintable() else json.dumps(char)[1:-1])


def _for_people(record: logfan.Record) -> str:
    """The message, then the other fields of a JSON object as key=value, and the publisher's time
    where it is not about that of the receipt."""
    text, rest = logfan.shown(record)
    fields = [
        f"{name}={value if isinstance(value, str) and ' ' not in value else _compact(value)}"
        for name, value in rest.items()
    ]
    if _is_from_another_time(record):
        fields.append(f"time={_time_text_of(record)}")
    return " ".join([bare(text), *fields])


def _is_from_another_time(record: logfan.Record) -> bool:
    time = logfan.time_of(record)
    if time is None:
        return False
    # A time in whole seconds may be any moment of that second.
    rest_of_second = 1 if time.is_integer() else 0
    return not -_LATE_SECONDS <= record.received_at - time <= _LATE_SECONDS + rest_of_second


def _compact(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, RecursionError):
        return "…"


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("stdout", StdoutSink)
