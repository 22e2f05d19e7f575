"""pydantic's errors as faults: place, value where it is no secret, remedy. Sans-I/O."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from logfan.faults import Fault, did_you_mean
from logfan.runtime.foreign_text import cut, hide, line_of, mask

_SECRET_NAME = re.compile(r"pass|secret|token|credential|api_?key|dsn", re.IGNORECASE)
_URL_NAME = re.compile(r"(?:^|_)urls?$", re.IGNORECASE)
# Without a user a URL may still be a password in the wrong place: as in amqp://bob:s3cret.
_HARMLESS_URL = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}:/{1,3}([\w.-]*|\[[\da-f:.]*\])(:\d{0,5})?(/[\w.-]*)?", re.IGNORECASE
)
_DURATION = re.compile(r"\d[\d.]*(ms|s|m|h|d)")
SHOWN_LENGTH = 60
_JUDGED_LENGTH = 300
_NAME_LENGTH = 100

_PROBLEMS = {
    "missing": "is missing",
    "string_unicode": "must be text in UTF-8",
    "string_type": 'must be a string, in quotes: "…"',
    "int_type": "must be a whole number, without quotes",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number, without quotes",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false, without quotes",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list: [ … ]",
    "tuple_type": "must be a list: [ … ]",
    "dict_type": "must be a table: { … }",
    "model_type": "must be a table: { … }",
    "model_attributes_type": "must be a table: { … }",
    "path_type": 'must be a path, in quotes: "…"',
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def is_secret_name(name: str) -> bool:
    """Whether a key of this name holds a secret, as far as a name can say."""
    return _SECRET_NAME.search(name) is not None


def shown(place: str, value: object, most: int = SHOWN_LENGTH) -> str | None:
    """The value as in TOML, for an error; None where it is a secret, or may hold one."""
    name = next((part for part in reversed(place.split(".")) if not part.isdigit()), place)
    if is_secret_name(name) or isinstance(value, Mapping | list | tuple) or value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and _may_hold_password(name, value):
        return None
    text = line_of(value, most)
    return f'"{text}"' if isinstance(value, str) else text


def _may_hold_password(name: str, text: str) -> bool:
    """Whether it is a URL, in whatever state, with more in it than a host, a port and a path.

    A URL is found in the places of other things, too, with a letter amiss, or with its // made a /
    as a path.
    """
    if not (_URL_NAME.search(name) or "@" in text or ":/" in text):
        return False
    return len(text) > _JUDGED_LENGTH or _HARMLESS_URL.fullmatch(text) is None


def faults_of(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str = "",
    homes: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> list[Fault]:
    """Every error of a validation as a fault. `prefix` begins each place; `homes` maps the names of
    keys that live elsewhere to where that is. `given` is the table of a sink, whose defaults are
    its author's."""
    faults = []
    for entry in error.errors(include_url=False, include_context=True):
        location = [_named(str(part)) for part in entry["loc"]]
        place = ".".join([prefix, *location] if prefix else location)
        if entry["type"] == "extra_forbidden":
            name = location[-1] if location else prefix
            faults.append(Fault(place, _unknown(name, location[:-1], model, homes or {})))
            continue
        value = None if entry["type"] == "missing" else shown(place, entry["input"])
        if value is None and isinstance(entry["input"], str):
            hide(entry["input"])  # a plugin's text about it may quote it
        problem = _problem(entry)
        if given is not None and _is_default(entry, given):
            problem += "; that is the sink's own default, a mistake of its author: set the key"
        faults.append(Fault(place or "config", mask(problem), value))
    return faults


def _is_default(entry: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether it is about a value that does not stand in the table."""
    location = entry["loc"]
    is_missing = entry["type"] == "missing" and len(location) == 1
    return bool(location) and location[0] not in given and not is_missing


def _named(key: str) -> str:
    """A key as it is shown; a URL may have been written in its place, too."""
    return "***" if _may_hold_password("", key) else cut(key, _NAME_LENGTH)


def _problem(entry: Mapping[str, Any]) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    if kind in _PROBLEMS:
        return _PROBLEMS[kind]
    if kind == "value_error":
        return line_of(context.get("error", entry["msg"]))
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        near = did_you_mean(str(entry["input"]), allowed)
        return "must be " + " or ".join(f'"{word}"' for word in allowed) + near
    limits = {
        "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
        "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
    }  # fmt: skip
    if kind in limits:
        relation, key = limits[kind]
        unit = " s" * (_DURATION.fullmatch(str(entry["input"])) is not None)
        return f"must be {relation} {context[key]}{unit}"
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}"
    return line_of(entry["msg"]).removeprefix("Value error, ")


def _unknown(
    name: str, parents: list[str], model: type[BaseModel], homes: Mapping[str, str]
) -> str:
    tables = tables_of(type_at(model, parents))
    keys = list(_fields_of(tables[0])) if tables else []
    near = did_you_mean(name, keys)
    if name in homes:  # the very name elsewhere is a better guess than a like one here
        return f"unknown key; did you mean {homes[name]}?"
    known = f"; known keys: {', '.join(keys)}" if keys and not near else ""
    return f"unknown key{near or known}"


def type_at(model: type[BaseModel], path: Iterable[str]) -> Any:
    """What the key at this path below the model takes; Any where that is not known."""
    wanted: Any = model
    for key in path:
        items = get_args(wanted)
        if get_origin(wanted) in (dict, list, tuple):
            wanted = items[1] if get_origin(wanted) is dict else items[0]
        elif tables := tables_of(wanted):
            field = _fields_of(tables[0]).get(key)
            wanted = Any if field is None else field.annotation
        else:
            return Any
    return wanted


def _fields_of(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """Its fields by their keys, as they are written."""
    return {
        alias if isinstance(alias := field.validation_alias, str) else name: field
        for name, field in table.model_fields.items()
    }


def tables_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type may be: `Rotation | None`."""
    parts = (annotation, *get_args(annotation))
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
