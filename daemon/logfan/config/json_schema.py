"""A JSON schema of config.toml with the kinds of sink and transform that there are, by which
editors complete keys and find mistyped ones. Sans-I/O."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from logfan.config.option_docs import schema_of
from logfan.config.settings import Settings

_REFERENCE = "#/$defs/"
_QUANTITIES = {
    "duration": r"^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*)+$",
    "size": r"^\s*\d+(\.\d+)?\s*(B|[kKMGT]B|[KMGT]iB)\s*$",
}
"""What JSON schema calls a duration is another one."""


def json_schema(
    sinks: Mapping[str, type[BaseModel]], transforms: Mapping[str, type[BaseModel]]
) -> dict[str, Any]:
    """The schema, as JSON schema 2020-12 has it. `sinks` and `transforms` give the options of each
    kind."""
    schema: dict[str, Any] = schema_of(Settings)
    tables: dict[str, Any] = schema["$defs"]
    _by_kind(tables, "TransformSettings", "transform", transforms)
    _by_kind(tables, "SinkSettings", "sink", sinks)
    schema["properties"]["sinks"] |= {
        "propertyNames": {"pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "minProperties": 1,
    }
    plain: dict[str, Any] = _plain(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **plain,
        "title": "config.toml of logfan",
        "description": "",
    }


def _by_kind(
    tables: dict[str, Any], host: str, what: str, kinds: Mapping[str, type[BaseModel]]
) -> None:
    """Have the host's table be one for each kind, with its own keys too."""
    common = tables[host]["properties"]
    for kind, config in kinds.items():
        name = f"{what} {kind}"
        # Its tables get names that those of no other kind have.
        own = schema_of(config, f"{_REFERENCE}{name} {{model}}")
        tables |= {f"{name} {inner}": table for inner, table in own.pop("$defs", {}).items()}
        tables[name] = {
            "type": "object",
            "description": own.get("description", ""),
            "properties": {**common, **own.get("properties", {}), "kind": {"const": kind}},
            "required": ["kind", *own.get("required", ())],
            "additionalProperties": False,
        }
    choices = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"$ref": f"{_REFERENCE}{what} {kind}"},
        }
        for kind in sorted(kinds)
    ]
    if choices:
        tables[host] = {
            "type": "object",
            "properties": {"kind": {"enum": sorted(kinds), "description": f"Which {what}."}},
            "required": ["kind"],
            "allOf": choices,
        }


def _plain(node: Any) -> Any:
    """Without what TOML has not (null), and without titles, which repeat the keys."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {
        key: {name: _plain(one) for name, one in value.items()}
        if key in ("properties", "$defs")
        else _plain(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and value is None)
    }
    if choices := found.pop("anyOf", None):
        choices = [one for one in choices if one != {"type": "null"}]
        found = {**found, "anyOf": choices} if len(choices) > 1 else {**choices[0], **found}
    if (pattern := _QUANTITIES.get(str(found.get("format")))) is not None:
        del found["format"]
        found["pattern"] = pattern
    return found
