"""The config as it was loaded, with every secret hidden: for the eye, key by key. Sans-I/O."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, SecretBytes, SecretStr, WithJsonSchema

from logfan.config.loader import Prepared
from logfan.config.settings import Listen
from logfan.config.units import format_duration, format_size
from logfan.config.validation_errors import is_secret_name, shown
from logfan.runtime.foreign_text import line_of
from logfan.stage.where import Where

HIDDEN = "***"
_BEYOND_JSON = 1 << 63
"""Whole numbers from here on are shown as text: orjson writes none of more than 64 bits."""
_VALUE_CHARACTERS = 200
_LISTED = 20
# A table of headers holds tokens under any name; of the others by their names.
_TABLE_OF_SECRETS = "headers"
_SECRET_NAME = re.compile(
    r"auth|cookie|signature|conninfo|private|(?:^|access|account|shared|signing|master)_?(?:key|pw)$",
    re.IGNORECASE,
)

Shown = str | int | float | bool | list[str | int | float | bool] | None


def shown_config(prepared: Prepared) -> dict[str, Shown]:
    """Every key by its path, defaults too: `rabbitmq.prefetch`, `sinks.archive.path`."""
    settings = prepared.settings
    found = dict(_table(settings, "", ("sinks",)))
    for spec in prepared.sinks:
        place = f"sinks.{spec.name}"
        own = spec.settings.model_extra or {}
        found |= _table(spec.settings, place, ("transforms", *own))
        found |= _table(spec.config, place, ())
        for number, transform in enumerate(spec.transforms):
            here = f"{place}.transforms[{number}]"
            found[f"{here}.kind"] = transform.kind.kind
            found |= _table(transform.config, here, ())
    return found


def _table(model: BaseModel, place: str, without: tuple[str, ...]) -> Iterator[tuple[str, Shown]]:
    for name, field in type(model).model_fields.items():
        key = alias if isinstance(alias := field.validation_alias, str) else name
        if key not in without:
            here = f"{place}.{key}" if place else key
            yield from _value(getattr(model, name), here, _unit(field.annotation, field.metadata))
    for name, value in (model.model_extra or {}).items():
        if name not in without:
            yield from _value(value, f"{place}.{name}", None)


def _value(value: Any, place: str, unit: str | None) -> Iterator[tuple[str, Shown]]:
    if isinstance(value, Where):
        value = value.data
    if isinstance(value, BaseModel):
        yield from _table(value, place, ())
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _value(one, f"{place}.{line_of(key, _VALUE_CHARACTERS)}", None)
        if not value:
            yield place, "{}"
    elif isinstance(value, list | tuple):
        if any(isinstance(one, BaseModel | Mapping | list | tuple) for one in value):
            for number, one in enumerate(value[:_LISTED]):
                yield from _value(one, f"{place}[{number}]", None)
        else:
            more = [f"and {len(value) - _LISTED} more"] if len(value) > _LISTED else []
            yield place, [*(_scalar(one, place, unit) for one in value[:_LISTED]), *more]
    else:
        yield place, None if value is None else _scalar(value, place, unit)


def _scalar(value: Any, place: str, unit: str | None) -> str | int | float | bool:
    *tables, name = place.split(".")
    if isinstance(value, SecretStr | SecretBytes) or _TABLE_OF_SECRETS in tables:
        return HIDDEN
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and unit is not None:
        return format_duration(value) if unit == "duration" else format_size(int(value))
    if isinstance(value, Listen):
        return str(value)
    is_a_file = name.endswith(("_file", "_path"))
    if not is_a_file and (is_secret_name(name) or _SECRET_NAME.search(name)):
        return HIDDEN
    if isinstance(value, int | float):
        is_small = isinstance(value, float) or abs(value) < _BEYOND_JSON
        return value if is_small else line_of(value, _VALUE_CHARACTERS)
    text = line_of(value, _VALUE_CHARACTERS)
    # The rule of the messages about faults: a URL with more in it than a host and a path is hidden.
    return HIDDEN if not is_a_file and shown(place, text) is None else text


def _unit(annotation: Any, metadata: Any) -> str | None:
    """`duration` or `size`, where the key is one."""
    for one in metadata:
        if isinstance(one, WithJsonSchema) and one.json_schema is not None:
            form = one.json_schema.get("format")
            return form if form in ("duration", "size") else None
    for part in get_args(annotation):
        if (unit := _unit(part, getattr(part, "__metadata__", ()))) is not None:
            return unit
    return None
