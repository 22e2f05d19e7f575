"""`logfan sinks`: the kinds there are, and one kind's options."""

import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import click

from logfan.cli.common import config_option, report
from logfan.config.units import format_duration, format_size

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_Option = tuple[str, str, str, str]
"""Key, kind, default and meaning."""


@click.command()
@config_option
@click.argument("kind", required=False)
def sinks(config: Path | None, kind: str | None) -> None:
    """List the sink kinds with where each comes from; for one KIND, its options."""
    from logfan.config.loader import read_plugin_settings
    from logfan.faults import did_you_mean
    from logfan.plugins.discovery import discover

    plugins, faults = read_plugin_settings(config)
    discovered = discover(plugins.directories, plugins.disabled)
    faults = [*faults, *discovered.faults]
    if kind is None:
        _list(discovered.kinds)
    elif kind in discovered.kinds:
        _describe(discovered.kinds[kind])
    else:
        near = did_you_mean(kind, discovered.kinds)
        known = f"; kinds: {', '.join(sorted(discovered.kinds))}"
        raise click.BadParameter(f"no kind {kind!r}{near or known}", param_hint="KIND")
    if faults:
        report(faults, None)
        raise SystemExit(os.EX_CONFIG)


def _list(kinds: Any) -> None:
    width = max((len(name) for name in kinds), default=0)
    for name, found in sorted(kinds.items()):
        summary = (found.cls.__doc__ or "").strip().splitlines()
        click.echo(f"{click.style(f'{name:<{width}}', bold=True)}  {summary[0] if summary else ''}")
        click.echo(f"{'':<{width}}  from {found.origin}")


def _describe(found: Any) -> None:
    from logfan.config.settings import SinkSettings

    config = found.cls.Config
    click.echo(f"{click.style(found.kind, bold=True)}, from {found.origin}")
    click.echo(f"{inspect.cleandoc(found.cls.__doc__ or '')}\n")
    click.echo(f'[sinks.NAME]\nkind = "{found.kind}"')
    for name, field in config.model_fields.items():
        if field.is_required():
            click.echo(f"{_key(name, field)} = {_sample(_schema(field))}")
    click.echo()
    for key, kind, default, meaning in [*_options(config), *_options(SinkSettings)]:
        if key == "kind":
            continue
        click.echo(f"{click.style(key, bold=True)}  {kind}, {default}")
        if meaning:
            click.echo(f"    {' '.join(meaning.split())}")


def _options(model: "type[BaseModel]", prefix: str = "", depth: int = 0) -> Iterator[_Option]:
    """Each option of a table, tables within tables included."""
    from logfan.config.option_docs import meanings_of

    meanings = meanings_of(model)
    for name, field in model.model_fields.items():
        key, schema = f"{prefix}{_key(name, field)}", _schema(field)
        yield key, _kind(schema, schema), _default(field, schema), meanings.get(name, "")
        for table, dot in _tables(field.annotation) if depth < _DEPTH else ():
            yield from _options(table, f"{key}{dot}", depth + 1)


_DEPTH = 3
"""A table may hold itself; deeper than this nothing is shown."""


def _key(name: str, field: "FieldInfo") -> str:
    return field.validation_alias if isinstance(field.validation_alias, str) else name


def _tables(annotation: Any) -> "Iterator[tuple[type[BaseModel], str]]":
    """The tables that an option may be, or be a list of; and what stands before their keys."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, "."
    elif (origin := get_origin(annotation)) is not dict:
        for part in get_args(annotation):
            for table, dot in _tables(part):
                yield table, dot if origin in (Union, UnionType, Annotated) else "[]."


def _schema(field: "FieldInfo") -> Any:
    """The option as JSON schema; empty where it is nothing that JSON can express."""
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema

    metadata = field.metadata or [None]
    whole: Any = Annotated[field.annotation, *metadata]
    try:
        return TypeAdapter(whole).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return {}


def _resolved(entry: Any, root: Any) -> Any:
    """The entry, or what it refers to."""
    return root["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry


def _choices(entry: Any, root: Any) -> list[Any]:
    """The types that an option may have, without null."""
    options = entry.get("anyOf") or entry.get("oneOf") or [entry]
    choices = [_resolved(option, root) for option in options]
    return [choice for choice in choices if choice.get("type") != "null"]


def _kind(entry: Any, root: Any) -> str:
    return " or ".join(dict.fromkeys(_one_kind(one, root) for one in _choices(entry, root)))


def _one_kind(choice: Any, root: Any) -> str:
    if "const" in choice:
        return _toml(choice["const"])
    if "enum" in choice:
        return " | ".join(_toml(value) for value in choice["enum"])
    kind = choice.get("format") or choice.get("type", "value")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_kind(choice.get('items', {}), root)}s"
    return "table" if kind == "object" else str(kind)


def _default(field: "FieldInfo", schema: Any) -> str:
    from pydantic import BaseModel

    value, kinds = field.default, _kind(schema, schema).split(" or ")
    if field.is_required():
        return "required"
    if field.default_factory is not None or value in ((), []):
        return "default empty"  # made anew for each sink
    if value is None:
        return "default none"
    if isinstance(value, dict | BaseModel):
        return "default as below"
    if "duration" in kinds and not isinstance(value, str):
        value = format_duration(value)
    elif "size" in kinds and not isinstance(value, str):
        value = format_size(value)
    return f"default {_toml(value)}"


def _sample(schema: Any) -> str:
    """Some value of the right type, to begin with."""
    choice = _choices(schema, schema)[0]
    if choice.get("examples"):
        return _toml(choice["examples"][0])
    if "const" in choice or "enum" in choice:
        return _toml(choice.get("const", choice.get("enum", [""])[0]))
    samples = {
        "string": '"…"', "integer": "1", "number": "1.0", "boolean": "true", "array": "[]",
    }  # fmt: skip
    return samples.get(str(choice.get("type")), "{}")


def _toml(value: Any) -> str:
    return json.dumps(
        value, ensure_ascii=False, default=lambda odd: getattr(odd, "value", str(odd))
    )
