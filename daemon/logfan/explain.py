"""pydantic's errors into faults in words: place, value where it is no secret, remedy. Pure."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from logfan.faults import Fault
from logfan.foreign import mask

_SECRET_NAME = re.compile(r"pass|secret|token|credential|api_?key|dsn", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
_URL_NAME = re.compile(r"(?:^|_)urls?$", re.IGNORECASE)
# Without a user a URL may still be a password in the wrong place: as in amqp://bob:s3cret.
_HARMLESS_URL = re.compile(
    r"[a-z][a-z0-9+.-]*:/+(\*\*\*@)?([\w.-]*|\[[\da-f:.]*\])(:\d*)?(/[^:@]*)?", re.IGNORECASE
)
_SHOWN_LENGTH = 60

_WORDS = {
    "missing": "is missing",
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


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """` Did you mean …?` for a near miss, else an empty string."""
    near = get_close_matches(wrong, list(right), 1, 0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def is_secret_name(name: str) -> bool:
    """Whether a key of this name holds a secret, as far as a name can say."""
    return _SECRET_NAME.search(name) is not None


def shown(place: str, value: object) -> str | None:
    """The value as in TOML, for an error; None where its name or kind says that it is a secret."""
    name = next((part for part in reversed(place.split(".")) if not part.isdigit()), place)
    if is_secret_name(name) or isinstance(value, Mapping | list | tuple) or value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if isinstance(value, str):
        text = _without_user(value)
        if _URL_NAME.search(name) and not _HARMLESS_URL.fullmatch(text):
            return None
    text = text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def _without_user(text: str) -> str:
    """A value without what may be user and password.

    Wherever a URL was written by mistake, with a space in it, or with its // made a / as a path.
    """
    before, at, after = text.rpartition("@")
    if not at:
        return text
    scheme = _SCHEME.match(before)
    return f"{scheme[0] if scheme else ''}***@{after}"


def faults_of(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str = "",
    homes: Mapping[str, str] | None = None,
) -> list[Fault]:
    """Every error of a validation as a fault. `prefix` begins each place; `homes` maps the names of
    keys that live elsewhere to where that is."""
    faults = []
    for entry in error.errors(include_url=False, include_context=True):
        location = [str(part) for part in entry["loc"]]
        place = ".".join([prefix, *location] if prefix else location)
        name = location[-1] if location else prefix
        if entry["type"] == "extra_forbidden":
            faults.append(Fault(place, _unknown(name, location[:-1], model, homes or {})))
            continue
        value = None if entry["type"] == "missing" else shown(place, entry["input"])
        faults.append(Fault(place or "config", mask(_problem(entry)), value))
    return faults


def _problem(entry: Mapping[str, Any]) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "value_error":
        return str(context.get("error", entry["msg"]))
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        near = did_you_mean(str(entry["input"]), allowed)
        return "must be " + " or ".join(f'"{word}"' for word in allowed) + near
    limits = {
        "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
        "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
    }  # fmt: skip
    if kind in limits:
        words, key = limits[kind]
        return f"must be {words} {context[key]}"
    return str(entry["msg"]).removeprefix("Value error, ")


def _unknown(
    name: str, parents: list[str], model: type[BaseModel], homes: Mapping[str, str]
) -> str:
    keys = _keys_at(model, parents)
    near = did_you_mean(name, keys)
    if name in homes:  # the very name elsewhere is a better guess than a like one here
        return f"unknown key; did you mean {homes[name]}?"
    known = f"; known keys: {', '.join(keys)}" if keys and not near else ""
    return f"unknown key{near or known}"


def _keys_at(model: type[BaseModel], parents: list[str]) -> list[str]:
    """The keys of the table at this path below the model."""
    for parent in parents:
        field = model.model_fields.get(parent)
        annotation = field.annotation if field is not None else None
        nested = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
        if nested:
            model = nested[0]
        elif not parent.isdigit():
            return []
    return list(model.model_fields)


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
