"""How serious a record is, wherever its publisher wrote that down. Sans-I/O.

The body comes first, then the headers, then the last word of the routing key. Where none of them
names a level there is none: it is never guessed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from logfan.dotted_path import walk_to
from logfan.fields.otlp import otlp_record
from logfan.record import Record

DEBUG, INFO, WARNING, ERROR, CRITICAL = "debug", "info", "warning", "error", "critical"
LEVELS = (DEBUG, INFO, WARNING, ERROR, CRITICAL)
"""All levels, the least serious first. Every publisher's own become the nearest of these."""

_NAMES = {
    DEBUG: "trace trac trce verbose verb vrb debug debu dbug dbg fine finer finest config all",
    INFO: "info inf information informational notice note log success default",
    WARNING: "warning warn wrn",
    ERROR: "error erro err eror failure fail severe",
    CRITICAL: "critical crit fatal fata ftl panic pani dpanic alert emergency emerg",
}
_LEVEL_OF = {name: level for level, names in _NAMES.items() for name in names.split()}
# syslog's severities, 0 to 7.
_SYSLOG = (CRITICAL, CRITICAL, CRITICAL, ERROR, WARNING, INFO, INFO, DEBUG)
# Routing keys of events end with these: `user.authentication.failure`, `order.log`.
_OF_EVENTS = frozenset(
    ("all", "config", "default", "fail", "failure", "fine", "log", "note", "success")
)
_OFFSET = re.compile(r"[+-]\d{1,4}$")


def level_named(name: str) -> str | None:
    """The level that a publisher's word or number for it means, as `WARN`, `ERROR+4` or `3`; None
    where it means none."""
    return _named(name[:40])


@lru_cache(maxsize=1024)
def _named(name: str) -> str | None:
    word = name.strip().lower()
    if word.isdecimal():
        return _by_number(int(word))
    return _LEVEL_OF.get(word) or _LEVEL_OF.get(_OFFSET.sub("", word))


def _by_number(number: float) -> str | None:
    """0 to 7 are syslog's, as GELF and journald send them; from 10 on pino's and bunyan's."""
    if 0 <= number <= 7:
        return _SYSLOG[int(number)]
    for least, level in ((60, CRITICAL), (50, ERROR), (40, WARNING), (30, INFO), (10, DEBUG)):
        if least <= number < 100:
            return level
    return None


def _by_python(number: float) -> str | None:
    """The numbers of Python's `logging`."""
    for least, level in ((50, CRITICAL), (40, ERROR), (30, WARNING), (20, INFO), (1, DEBUG)):
        if number >= least:
            return level
    return None


def _by_otel(number: float) -> str | None:
    """OpenTelemetry's severity numbers, 1 to 24."""
    scale = (DEBUG, DEBUG, INFO, WARNING, ERROR, CRITICAL)
    return scale[(int(number) - 1) // 4] if 1 <= number <= 24 else None


def _by_logbook(number: float) -> str | None:
    """logbook's numbers, 9 to 15."""
    scale = (DEBUG, DEBUG, INFO, INFO, WARNING, ERROR, CRITICAL)
    return scale[int(number) - 9] if 9 <= number <= 15 else None


_PATHS = (
    "level", "severity", "lvl", "levelname", "log.level", "severityText", "severity_text",
    "severityNumber", "severity_number", "levelno", "@l", "Level", "LogLevel", "LEVEL", "SEVERITY",
    "PRIORITY", "priority", "loglevel", "logLevel", "level_name", "severityName", "level.name",
    "record.level.name", "@fields.levelname", "@fields.level", "fields.level", "levelName",
    "@level", "_meta.logLevelName",
)  # fmt: skip
_SCALES = {"severityNumber": _by_otel, "severity_number": _by_otel, "levelno": _by_python}
"""How a number counts there; elsewhere as `_by_number` has it."""
_HEADERS = (
    "level", "severity", "levelname", "log.level", "loglevel", "Level", "LogLevel", "PRIORITY",
    "severity_text",
)  # fmt: skip
_ROOTS = {path.partition(".")[0] for path in _PATHS} | {*_PATHS}
_WALKS = (
    # Only logbook's records have this key; its numbers are among pino's.
    ("heavy_initialized", "heavy_initialized", walk_to("level"), _by_logbook),
    *(
        (path, path.partition(".")[0], walk_to(path), _SCALES.get(path, _by_number))
        for path in _PATHS
    ),
)
_LOGBOOK = frozenset(range(9, 16))
LEVEL_KEYS = frozenset(_PATHS)
"""Where in a JSON body the level may stand."""
_KINDS = frozenset((str, int))
_HEADER_WALKS = tuple(map(walk_to, _HEADERS))


def level_of(record: Record) -> str | None:
    """One of `LEVELS`, or None where neither body nor headers nor routing key name one."""
    try:
        tree = record.json()
    except ValueError:
        tree = None
    return _level_of(record, tree)


def _level_of(record: Record, tree: Any) -> str | None:
    """The same with its parsed body; None where it is text. (JSON's null has no level either.)"""
    level = _level_of_text_body(record) if tree is None else level_of_tree(tree)
    return level or level_of_headers(record.headers) or level_of_routing_key(record.routing_key)


def _level_of_text_body(record: Record) -> str | None:
    head = record.body[:_HEAD_CHARS].decode("utf-8", "replace")
    if _is_binary(head):  # it may be declared as UTF-16
        head = next(record.text_pieces(), "")[:_HEAD_CHARS]
    return None if _is_binary(head) else level_of_text(head)


def _is_binary(head: str) -> bool:
    return not head.isprintable() and _BINARY.search(head) is not None


def levels_of(records: Sequence[Record], trees: Sequence[Any]) -> list[str | None]:
    """The same for several records, whose parsed bodies these are."""
    try:
        values = [*map(itemgetter(_PATHS[0]), trees)]
    except (KeyError, TypeError):
        values = []
    if values and _KINDS.issuperset(map(type, values)):
        # Most batches are alike: a few words, which are read once.
        levels = {value: _read(value, _by_number) for value in set(values)}
        if None not in levels.values() and _LOGBOOK.isdisjoint(levels):
            return [*map(levels.__getitem__, values)]
    return [*map(_level_of, records, trees)]


def level_of_tree(tree: Any) -> str | None:
    """The level of a parsed body."""
    if not isinstance(tree, Mapping):
        return level_of_text(tree[:_HEAD_CHARS]) if isinstance(tree, str) else None
    if _ROOTS.isdisjoint(tree):
        if (single := otlp_record(tree)) is not None:
            return level_of_tree(single)
        # Serilog's compact form leaves out what is `Information`.
        return INFO if "@t" in tree and ("@m" in tree or "@mt" in tree) else None
    for path, root, walk, by_number in _WALKS:
        if (path in tree or root in tree) and (level := _read(walk(tree), by_number)):
            return level
    return None


def level_of_headers(headers: Mapping[str, Any]) -> str | None:
    """The level that a header names."""
    if not headers:
        return None
    levels = (_read(walk(headers), _by_number) for walk in _HEADER_WALKS)
    return next(filter(None, levels), None)


def level_of_routing_key(routing_key: str) -> str | None:
    """The level that the routing key ends with, as in `logback.ERROR` or `kern.critical`."""
    word = routing_key[-40:].rpartition(".")[2]
    return None if word.isdecimal() or word.lower() in _OF_EVENTS else level_named(word)


def _read(value: Any, by_number: Callable[[float], str | None]) -> str | None:
    if isinstance(value, str):
        is_number = len(value) <= 4 and value.isdecimal()
        return by_number(int(value)) if is_number else level_named(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return by_number(value)
    return None


# Text: the level stands at its start, as `level=`, or behind a time.

_HEAD_CHARS = 400
_WORDS_BEHIND_TIME = 6
"""Threads and loggers stand before the level."""
_BINARY = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
"""What text has not; compressed bodies, pickles and protobuf do."""
ANSI = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_WORD = r"([A-Za-z]{3,13})"
# At the start these are levels even where nothing marks them off; `All`, `Fine` or `Log` are not.
_PLAIN = {
    "trace", "debug", "verbose", "info", "notice", "warn", "warning", "err", "error", "critical",
    "crit", "fatal", "alert", "emerg", "emergency", "panic", "severe",
}  # fmt: skip
_LEADING = re.compile(rf"\W{{0,3}}{_WORD}\b")
# `level=error`, and `<level>ERROR</level>` in XML; of text without capitals, in which the search
# leaps from one first letter to the next.
_PAIR = re.compile(r"(?:level|lvl|severity|loglevel)[=>][\"']?([a-z]{3,13})")
_SYSLOG_PRIORITY = re.compile(r"<(\d{1,3})>")
_SYSLOG_PRIORITY_MAX = 191
_KLOG = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d")
_KLOG_LEVELS = {"I": INFO, "W": WARNING, "E": ERROR, "F": CRITICAL}
# A time of day, with the date before it and the zone or the year behind. `T` is a letter of words,
# too: the first way to part them is taken for good, as a line of nothing else has thousands.
_TIME = re.compile(
    r"\W{0,3}(?>[\w/.,-]{1,12}[ T]){0,4}\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?: ?[+-]\d\d:?\d\d| ?Z\b| UTC| GMT| [AP]M| 20\d\d)?"
)
_FIRST_WORDS = re.compile(rf"(?:\s*\S+){{0,{_WORDS_BEHIND_TIME}}}\s?")
_LETTERS = re.compile("[A-Za-z]+")
# What marks a level off: `[error]`, `[core:error]`, `| info |`, `- warn -`, `\tinfo\t`, `error:`
_MARKS = (
    (re.compile(r"[\[(<]\s*(?:\w{1,20}:)?$"), re.compile(r"\s*[\])>]")),
    (re.compile(r"[-\t|]\s*$"), re.compile(r"\s*[-\t|]")),
    (re.compile(r"(?:^|\s)$"), re.compile(r"\s*:")),
)
_ANY_MARK = re.compile(r"\s*[\])>|:\t-]")


def level_of_text(text: str) -> str | None:
    """The level that the beginning of a line of text names."""
    head = text[:_HEAD_CHARS]
    if "\x1b" in head:
        head = ANSI.sub("", head)
    priority = _SYSLOG_PRIORITY.match(head)
    if priority and int(priority[1]) <= _SYSLOG_PRIORITY_MAX:
        return _SYSLOG[int(priority[1]) % 8]
    if klog := _KLOG.match(head):
        return _KLOG_LEVELS[klog[1]]
    if (leading := _LEADING.match(head)) and (word := leading[1].lower()) in _PLAIN:
        return _LEVEL_OF[word]
    if level := _level_of_pair(head.lower()):
        return level
    time = _TIME.match(head)
    words = _FIRST_WORDS.match(head, time.end() if time else 0)
    return _level_in(words[0]) if words else None


def _level_in(text: str) -> str | None:
    """The first level that is marked off, or else the first one in capitals."""
    if not any(map(_LEVEL_OF.get, _LETTERS.findall(text.lower()))):
        return None
    loud = None
    for found in _LETTERS.finditer(text):
        word = found[0]
        if level := _LEVEL_OF.get(word.lower()):
            if _is_marked_off(text, *found.span()):
                return level
            if loud is None and word.isupper():
                loud = level
    return loud


def _is_marked_off(text: str, begin: int, end: int) -> bool:
    return _ANY_MARK.match(text, end) is not None and any(
        behind.match(text, end) and before.search(text, 0, begin) for before, behind in _MARKS
    )


def _level_of_pair(text: str) -> str | None:
    """What the first key of these names, where no word runs into it."""
    if "level" not in text and "lvl" not in text and "severity" not in text:
        return None
    for pair in _PAIR.finditer(text):
        before = text[pair.start() - 1 : pair.start()]
        if not before or before.isspace() or before in "{,<":
            return _LEVEL_OF.get(pair[1])
    return None
