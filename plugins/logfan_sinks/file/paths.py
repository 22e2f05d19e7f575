"""`{date}` and its like into a path; what comes from a message cannot leave its place."""

import hashlib
import os
import re
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import logfan
from logfan import Record

STAMP = re.compile(r"\.\d{8}T\d{6}\.\d{6}Z")
"""What rotation adds to a file's name. No name made of a message may look like that: it would be
compressed and pruned as if it were an old file of another name."""

_TAKEN_AS_CODE = re.compile(r"config\.toml|.*\.(?:py|pyc|so)", re.IGNORECASE | re.DOTALL)
"""What is read or run by who works in the folder that holds it: the config of commands, and of a
daemon that is started without `--config`; a drop-in; a module of `python -m logfan`."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_OUR_FIELDS = ("date", "hour", "host", "instance")
_MESSAGE_FIELDS = ("routing_key", "level")
_HELP = (
    "fields: {date}, {hour}, {host}, {instance}, {routing_key}, {level}, {headers.NAME}, "
    "{json.PATH}"
)
_VALUE_BYTES = 100
_COMPONENT_BYTES = 200  # 255 is what file systems take; rotation and compression need the rest
_UNSAFE = re.compile(
    "[/\\x00-\\x1f\\x7f-\\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHAPES = {"date": r"\d{4}-\d\d-\d\d", "hour": r"\d\d"}
_OTHER = "_other"
_NAME_BYTES = 255
_HOUR_SECONDS = 3600
_ENCODING = sys.getfilesystemencoding()


class PathTemplate:
    """A path with fields, ready to be filled in."""

    def __init__(self, text: str, *, instance: str, host: str | None = None) -> None:
        """`text` has passed `check_template`; `host` is this one unless given."""
        # Literal text and field names take turns; it begins and ends with literal text.
        self._pieces = _FIELD.split(_plain(text))
        fields = self._pieces[1::2]
        self._fixed = {
            "host": safe_name(host or socket.gethostname()),
            "instance": safe_name(instance or "main"),
        }
        self._readers = [logfan.field(name).read for name in fields if name not in _OUR_FIELDS]
        self._path = lru_cache(maxsize=4096)(self._fill)
        self.from_messages = bool(self._readers)
        """Whether a message decides on the path."""
        self.from_time = "date" in fields or "hour" in fields
        """Whether the time of receipt decides on the path."""
        self.untrusted = self._count_untrusted()
        """How many components, counted from the end, hold or follow what a message decided on."""

    def of(self, record: Record) -> str:
        """The path for this record. Date and hour are UTC, of its receipt."""
        names = tuple([safe_name(read(record)) for read in self._readers])
        return self._path(int(record.received_at // _HOUR_SECONDS), names)

    def at(self, seconds: float) -> str:
        """The path for this time of receipt, where no message decides on it."""
        return self._path(int(seconds // _HOUR_SECONDS), ())

    def other(self, seconds: float) -> str:
        """The path for what shares one: with `_other` where messages would decide."""
        return self._path(int(seconds // _HOUR_SECONDS), (_OTHER,) * len(self._readers))

    def period(self, seconds: float) -> int:
        """A number that changes with the date, or the hour, in the path; 0 without one."""
        if "hour" in self._pieces[1::2]:
            return int(seconds // _HOUR_SECONDS)
        return int(seconds // (24 * _HOUR_SECONDS)) if self.from_time else 0

    def pattern(self, seconds: float) -> tuple[str, list[re.Pattern[str]]]:
        """Where the files of this date and hour lie that messages decide on: the folder, empty or
        with its slash, and what each part below it looks like."""
        parts = self._filled(int(seconds // _HOUR_SECONDS), ("\0",) * len(self._readers)).split("/")
        outer = "".join(f"{part}/" for part in parts[: -self.untrusted])
        return outer, [_shape(part) for part in parts[-self.untrusted :]]

    def absolute(self) -> re.Pattern[str]:
        """What its absolute paths look like, of any time and any message."""
        pieces, shapes = [*self._pieces], {}
        for at in range(1, len(pieces), 2):
            field = pieces[at]
            pieces[at] = self._fixed.get(field) or f"\0{at}\0"
            shapes[f"\0{at}\0"] = _SHAPES.get(field, "[^/]+")
        whole = re.escape(os.path.abspath("".join(pieces)))  # noqa: PTH100 - text alone
        for mark, shape in shapes.items():
            whole = whole.replace(mark, shape)
        return re.compile(whole)

    def _fill(self, hour: int, names: tuple[str, ...]) -> str:
        components = self._filled(hour, names).split("/")
        if self.untrusted:
            components[-self.untrusted :] = map(_component, components[-self.untrusted :])
        return "/".join(components)

    def _filled(self, hour: int, names: tuple[str, ...]) -> str:
        when = datetime.fromtimestamp(hour * _HOUR_SECONDS, UTC)
        ours = {**self._fixed, "date": when.strftime("%Y-%m-%d"), "hour": when.strftime("%H")}
        given = iter(names)
        pieces = list(self._pieces)
        for at in range(1, len(pieces), 2):
            name = pieces[at]
            pieces[at] = ours[name] if name in ours else next(given)
        return "".join(pieces)

    def _count_untrusted(self) -> int:
        for at in range(1, len(self._pieces), 2):
            if self._pieces[at] not in _OUR_FIELDS:
                return "".join(self._pieces[at + 1 :: 2]).count("/") + 1
        return 0


def _shape(part: str) -> re.Pattern[str]:
    """What one component looks like, where each NUL stands for something that a message decides on.

    The first place that fits is taken for good, which finds whatever there is to find, so that a
    name made to have many such places takes no longer than any other.
    """
    first, *rest = map(re.escape, part.split("\0"))
    if not rest:
        return re.compile(first, re.DOTALL)
    between = "".join(f"(?>.+?{literal})" for literal in rest[:-1])
    return re.compile(f"{first}{between}.+{rest[-1]}", re.DOTALL)


def _plain(text: str) -> str:
    """Without doubled slashes and single dots, which would be parts that no path has."""
    first, *rest = text.split("/")
    return "/".join([first, *(part for part in rest if part not in ("", "."))])


def too_long(template: PathTemplate, suffix: int = 0) -> str | None:
    """Why no file system takes this path, or `suffix` more bytes behind it; None where one may."""
    # Fields of messages are cut where they are too long, and leave room for rotation.
    *folders, name = template.other(0).split("/")
    size = len(os.fsencode(name)) + (0 if template.untrusted else suffix)
    longest = max([size, *(len(os.fsencode(folder)) for folder in folders)])
    if longest <= _NAME_BYTES:
        return None
    if suffix and size == longest:
        return (
            f"has a name of {size - suffix} bytes: {_NAME_BYTES} are allowed, and that leaves no "
            f"room for the {suffix} that rotation adds"
        )
    return f"has a name of {longest} bytes in it; file systems take {_NAME_BYTES}"


def check_template(text: str) -> str:
    """Raise ValueError where the text is no usable path; gives it back where it is."""
    if not text or "\0" in text or text.endswith("/"):
        raise ValueError("must name a file")
    if text.startswith("~"):
        raise ValueError(
            "begins with ~, which a shell expands and logfan does not: write the whole path "
            "(./~ for a folder of that name)"
        )
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(
            f"holds characters that file names cannot hold in this locale, whose encoding is "
            f"{_ENCODING}; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        ) from None
    if any(brace in _FIELD.sub("", text) for brace in "{}"):
        raise ValueError(f"has a brace without its partner; {_HELP}")
    for name in _FIELD.findall(text):
        head, _, rest = name.partition(".")
        if name in _OUR_FIELDS:
            continue
        if name not in _MESSAGE_FIELDS and not (head in ("headers", "json") and rest):
            raise ValueError(f"has the unknown field {{{name}}}; {_HELP}")
        logfan.field(name)
    return text


def safe_name(value: object) -> str:
    """One harmless part of a file name: no `/`, no control characters, no leading dot, not empty,
    100 bytes at most (what is longer ends in a hash of the whole).

    What does not fit becomes `_`, and so does a value that is missing or no plain value: two
    values may share a name, but none can leave its folder.
    """
    if isinstance(value, str):
        return _safe_text(value)
    if value is None or isinstance(value, Mapping | list | tuple):
        return "_"
    if isinstance(value, bytes):
        return _safe_text(value.decode("utf-8", "replace"))
    return _safe_text(str(value).lower() if isinstance(value, bool) else str(value))


def _safe_text(text: str) -> str:
    # What is long is not kept: a thousand values of some MiB each would be.
    return _short_safe_text(text) if len(text) <= _VALUE_BYTES else _made_safe(text)


def _made_safe(text: str) -> str:
    safe = _UNSAFE.sub("_", text)
    if _ENCODING != "utf-8":  # a locale may have no byte for a character
        safe = safe.encode(_ENCODING, "replace").decode(_ENCODING).replace("?", "_")
    if safe.startswith("."):
        safe = "_" + safe[1:]
    return _shortened(safe, _VALUE_BYTES, text) or "_"


_short_safe_text = lru_cache(maxsize=1024)(_made_safe)


def _component(name: str) -> str:
    """A folder's or file's name that several fields made together."""
    if _TAKEN_AS_CODE.fullmatch(name):
        name += "_"
    return _shortened(STAMP.sub(lambda stamp: "_" + stamp[0][1:], name), _COMPONENT_BYTES, name)


def _shortened(name: str, limit: int, whole: str) -> str:
    raw = name.encode()
    if len(raw) <= limit:
        return name
    digest = hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:12]
    return raw[: limit - 13].decode("utf-8", "ignore") + "-" + digest
