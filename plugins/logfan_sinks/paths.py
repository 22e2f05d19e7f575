"""`{date}` and its like into a path; what comes from a message cannot leave its place. Pure."""

import hashlib
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from logfan import Record

_FIELD = re.compile(r"\{([^{}]*)\}")
_TIME_FIELDS = {"date": "%Y-%m-%d", "hour": "%H"}
_PLAIN_FIELDS = ("date", "hour", "host", "instance", "routing_key")
_HELP = "fields: {date}, {hour}, {host}, {instance}, {routing_key}, {headers.NAME}, {json.PATH}"
_NAME_BYTES = 100
_UNSAFE = re.compile(r"[/\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path with fields. `render` gives the path for a record, `static` the folder above all
    fields that come from messages."""

    text: str
    host: str
    instance: str

    @property
    def from_messages(self) -> bool:
        """Whether a message decides on the path."""
        return any(name not in ("date", "hour", "host", "instance") for name in self._names())

    @property
    def from_time(self) -> bool:
        """Whether the time of receipt decides on the path."""
        return any(name in _TIME_FIELDS for name in self._names())

    @property
    def static(self) -> str:
        """The part before the first field that comes from a message, up to its last `/`."""
        for match in _FIELD.finditer(self.text):
            if match[1] not in ("date", "hour", "host", "instance"):
                return self.text[: match.start()].rpartition("/")[0]
        return self.text.rpartition("/")[0]

    def render(self, record: Record) -> str:
        """The path for this record. Hours and dates are UTC, of the receipt."""
        return self._fill(record.received_at, lambda name: message_value(record, name))

    def render_at(self, seconds: float) -> str:
        """The path for this time of receipt; for templates that no message decides on."""
        return self._fill(seconds, lambda _name: "")

    def _fill(self, seconds: float, of_message: Callable[[str], object]) -> str:
        when = datetime.fromtimestamp(seconds, UTC)

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in _TIME_FIELDS:
                return when.strftime(_TIME_FIELDS[name])
            if name == "host":
                return safe_name(self.host)
            if name == "instance":
                return safe_name(self.instance) if self.instance else "main"
            return safe_name(of_message(name))

        return _FIELD.sub(value, self.text)

    def _names(self) -> list[str]:
        return _FIELD.findall(self.text)


def check_template(text: str) -> str:
    """Raise ValueError where the text is no usable path; gives it back where it is."""
    if not text or "\0" in text or text.endswith("/"):
        raise ValueError("must name a file")
    if any(brace in _FIELD.sub("", text) for brace in "{}"):
        raise ValueError(f"has a brace without its partner; {_HELP}")
    for name in _FIELD.findall(text):
        head, _, rest = name.partition(".")
        if name not in _PLAIN_FIELDS and not (head in ("headers", "json") and rest):
            raise ValueError(f"has the unknown field {{{name}}}; {_HELP}")
    return text


def template(text: str, instance: str) -> PathTemplate:
    """The template of a checked text on this host."""
    return PathTemplate(text, socket.gethostname(), instance)


def message_value(record: Record, name: str) -> object:
    """What `routing_key`, `headers.NAME` or `json.DOTTED.PATH` is in this record; None without."""
    head, _, rest = name.partition(".")
    if head == "routing_key":
        return record.routing_key
    if head == "headers":
        return record.headers.get(rest)
    try:
        return dotted(record.json(), rest)
    except ValueError:
        return None


def dotted(value: Any, path: str) -> Any:
    """The value at `a.b.0.c` inside parsed JSON; None where there is none."""
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def safe_name(value: object) -> str:
    """One harmless part of a file name: no `/`, no control characters, no leading dot, not empty,
    100 bytes at most (what is longer ends in a hash of the whole)."""
    if value is None or isinstance(value, Mapping | list | tuple):
        return "_"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    safe = _UNSAFE.sub("_", text)
    if safe.startswith("."):
        safe = "_" + safe[1:]
    raw = safe.encode()
    if len(raw) > _NAME_BYTES:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
        safe = raw[: _NAME_BYTES - 13].decode("utf-8", "ignore") + "-" + digest
    return safe or "_"
