"""The `LOGFAN_…` variables as a table like that of config.toml."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

import orjson

from logfan.config.settings import TOO_DEEP, Settings, is_deep
from logfan.config.validation_errors import tables_of, type_at
from logfan.faults import Fault, did_you_mean
from logfan.runtime.foreign_text import in_utf8
from logfan.stage.where import Where

PREFIX = "LOGFAN_"
_BETWEEN = "__"
_NOT_SETTINGS = ("LOGFAN_CONFIG",)
# As Kubernetes (and Docker's links) write them; a service's name brings no two underscores.
_SERVICE = re.compile(
    r"LOGFAN_(?:[A-Z0-9]+_)*"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"LOGFAN_(?:[A-Z0-9]+_)*PORT")


def environment_table(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    """The table, and the faults of variables that name no key or are not written as it takes.

    Names are read in any case and give keys in lower case, so `LOGFAN_SINKS__A__PATH` is
    `sinks.a.path`. Lists and tables are written as JSON. What a sink's own key takes is not known
    here: JSON where it is JSON, else a string.
    """
    table: dict[str, Any] = {}
    faults: list[Fault] = []
    # The shorter names first: LOGFAN_QUEUE__NAME is laid over LOGFAN_QUEUE.
    for path, name in sorted(_paths(environ), key=lambda found: len(found[0])):
        if path[0] not in Settings.model_fields:
            faults.append(Fault(f"environment variable {name}", f"names no key{_hint(path[0])}"))
            continue
        try:
            value = _value(in_utf8(environ[name]), type_at(Settings, path))
        except ValueError:
            problem = 'is not JSON; write lists and tables as JSON, such as ["a", "b"]'
            faults.append(Fault(f"environment variable {name}", problem))
            continue
        if is_deep(value):
            faults.append(Fault(f"environment variable {name}", TOO_DEEP))
            continue
        _put(table, path, value)
    return table, faults


def variables_by_key(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables' names as they are written, by the paths of their keys (`queue.name`)."""
    return {".".join(path): name for path, name in _paths(environ)}


def with_variables(fault: Fault, variables: Mapping[str, str], in_file: Mapping[str, Any]) -> Fault:
    """The fault with the variable that its value came from, and with those whose keys it names.

    `variables` as from `variables_by_key`; `in_file` is the config file's table.
    """
    if not variables:
        return fault
    sources = _sources(fault.place.split("."), variables, in_file)
    place = f"{fault.place} (from {', '.join(sources)})" if sources else fault.place
    remarks = [
        f"; {key} is from {name}"
        for key, name in variables.items()
        if name not in sources and _concerns(key, fault)
    ]
    return Fault(place, fault.problem + "".join(remarks), fault.value)


def _concerns(key: str, fault: Fault) -> bool:
    """Whether the fault also depends on that key: it is named, or it is the kind of the sink."""
    sink = fault.place.split(".")[:2]
    if sink[0] == "sinks" and key == ".".join([*sink, "kind"]):
        return True
    named = re.search(rf"(?<![\w.]){re.escape(key)}(?!\w|\.\w)", fault.problem)
    return named is not None and "." in key and not fault.problem.startswith("unknown key")


def _sources(
    place: list[str], variables: Mapping[str, str], in_file: Mapping[str, Any]
) -> list[str]:
    """The variable of the key, or of the nearest table or list around it; else those that made a
    table which the file does not have."""
    for length in range(len(place), 0, -1):
        name = variables.get(".".join(place[:length]))
        if name is not None:
            return [name]
    for length in range(len(place), 0, -1):
        if _holds(in_file, place[:length]):
            break
        below = ".".join(place[:length]) + "."
        if made := [name for key, name in variables.items() if key.startswith(below)]:
            return made
    return []


def _holds(table: Any, path: Iterable[str]) -> bool:
    for key in path:
        if not isinstance(table, Mapping) or key not in table:
            return False
        table = table[key]
    return True


def passed_over(environ: Mapping[str, str]) -> str | None:
    """One warning for all variables that Kubernetes set, for services named as we are."""
    names = sorted(name for name in environ if _is_of_a_service(name, environ[name]))
    if not names:
        return None
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"environment variable {names[0]}{more}: passed over, as Kubernetes sets it for a service "
        "called logfan or logfan-…; enableServiceLinks: false in the pod's spec takes it away"
    )


def _is_of_a_service(name: str, value: str) -> bool:
    # LOGFAN_PORT=9464 is a wrong guess at a key, and has to be reported; this is a URL.
    is_url = value.startswith(("tcp://", "udp://", "sctp://"))
    return bool(_SERVICE.fullmatch(name) or (is_url and _SERVICE_URL.fullmatch(name)))


def _paths(environ: Mapping[str, str]) -> Iterable[tuple[list[str], str]]:
    for name in environ:
        upper = name.upper()
        if _is_of_a_service(name, environ[name]):
            continue
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
    """The text, or its value as JSON. Raises ValueError where it must be JSON and is not."""
    if text == "" or not (wanted is Any or _is_written_as_json(wanted)):
        return text
    try:
        return orjson.loads(text)
    except ValueError:
        if wanted is Any:
            return text
        raise


def _is_written_as_json(wanted: Any) -> bool:
    parts = (wanted, *get_args(wanted))  # a list, or maybe one: `tuple[str, ...] | None`
    if tables_of(wanted) or Where in parts:
        return True
    return any(get_origin(p) in (tuple, list, dict) for p in parts)
