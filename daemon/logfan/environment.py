"""What `LOGFAN_…` variables say, as a table like that of config.toml."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

import orjson
from pydantic import BaseModel

from logfan.config import Settings
from logfan.explain import did_you_mean
from logfan.faults import Fault

PREFIX = "LOGFAN_"
_BETWEEN = "__"
_NOT_SETTINGS = ("LOGFAN_CONFIG",)


def environment_table(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    """The table, and the faults of variables that name no key or are not written as it takes.

    Names are read in any case and give keys in lower case, so `LOGFAN_SINKS__A__PATH` is
    `sinks.a.path`. Lists and tables are written as JSON. What a sink's own key takes is not known
    here: JSON where it is JSON, else a string.
    """
    table: dict[str, Any] = {}
    faults: list[Fault] = []
    # The shorter names first: LOGFAN_QUEUE__NAME is laid over what LOGFAN_QUEUE says.
    for path, name in sorted(_paths(environ), key=lambda found: len(found[0])):
        if path[0] not in Settings.model_fields:
            faults.append(Fault(f"environment variable {name}", f"names no key{_hint(path[0])}"))
            continue
        try:
            _put(table, path, _value(environ[name], _type_at(path)))
        except ValueError:
            problem = 'is not JSON; write lists and tables as JSON, such as ["a", "b"]'
            faults.append(Fault(f"environment variable {name}", problem))
    return table, faults


def _paths(environ: Mapping[str, str]) -> Iterable[tuple[list[str], str]]:
    for name in environ:
        upper = name.upper()
        if upper.startswith(PREFIX) and upper not in _NOT_SETTINGS:
            yield upper.removeprefix(PREFIX).lower().split(_BETWEEN), name


def _hint(top: str) -> str:
    names = [PREFIX + key.upper() for key in Settings.model_fields]
    return did_you_mean(PREFIX + top.upper(), names) or "; a key is written as LOGFAN_TABLE__KEY"


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    place: Any = table
    for key in path[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            return  # a shorter name has put something else here, which is a fault by itself
    place[path[-1]] = value


def _value(text: str, wanted: Any) -> Any:
    """The text, or what it says as JSON. Raises ValueError where it must be JSON and is not."""
    if text == "" or not (wanted is Any or _is_written_as_json(wanted)):
        return text
    try:
        return orjson.loads(text)
    except ValueError:
        if wanted is Any:
            return text
        raise


def _is_written_as_json(wanted: Any) -> bool:
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        return True
    parts = (wanted, *get_args(wanted))  # a list, or maybe one: `tuple[str, ...] | None`
    return any(get_origin(part) in (tuple, list, dict) for part in parts)


def _type_at(path: Iterable[str]) -> Any:
    """What the key at this path takes; Any where that is not known here."""
    wanted: Any = Settings
    for key in path:
        if get_origin(wanted) is dict:
            wanted = get_args(wanted)[1]
        elif isinstance(wanted, type) and issubclass(wanted, BaseModel):
            field = wanted.model_fields.get(key)
            wanted = Any if field is None else field.annotation
        else:
            return Any
    return wanted
