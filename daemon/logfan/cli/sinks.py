"""`logfan sinks`: the kinds there are, and one kind's options."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from logfan.cli.common import EXIT_CONFIG, config_option, report
from logfan.faults import Fault, Faults
from logfan.units import format_duration, format_size


@click.command()
@config_option
@click.argument("kind", required=False)
def sinks(config: Path | None, kind: str | None) -> None:
    """List the sink kinds with where each comes from; for one KIND, its options."""
    from logfan.explain import did_you_mean
    from logfan.plugins import discover

    directories, disabled, faults = _where(config)
    discovered = discover(directories, disabled)
    faults += discovered.faults
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
        raise SystemExit(EXIT_CONFIG)


def _where(config: Path | None) -> tuple[tuple[Path, ...], tuple[str, ...], list[Fault]]:
    """Where the config says that plugins are; the defaults where it does not say it soundly."""
    from pydantic import ValidationError

    from logfan.config import PluginSettings, environment_table, read_table
    from logfan.explain import faults_of
    from logfan.setup import find_config, laid_over

    path = find_config(config, os.environ)
    try:
        table = read_table(path) if path is not None else {}
        table = laid_over(table, environment_table(os.environ)[0])
        plugins = PluginSettings.model_validate(table.get("plugins", {}))
    except Faults as error:
        plugins, faults = PluginSettings(), list(error.faults)
    except ValidationError as error:
        plugins, faults = PluginSettings(), faults_of(error, PluginSettings, "plugins")
    else:
        faults = []
    return plugins.directories, plugins.disabled, faults


def _list(kinds: Any) -> None:
    width = max((len(name) for name in kinds), default=0)
    for name, found in sorted(kinds.items()):
        summary = (found.cls.__doc__ or "").strip().splitlines()
        click.echo(f"{click.style(f'{name:<{width}}', bold=True)}  {summary[0] if summary else ''}")
        click.echo(f"{'':<{width}}  from {found.origin}")


def _describe(found: Any) -> None:
    from logfan.config import SinkSettings

    click.echo(f"{click.style(found.kind, bold=True)}, from {found.origin}")
    click.echo(f"{(found.cls.__doc__ or '').strip()}\n")
    click.echo(f'[sinks.NAME]\nkind = "{found.kind}"\n')
    rows = [*_rows(found.cls.Config), *(r for r in _rows(SinkSettings) if r[0] != "kind")]
    for key, kind, default, meaning in rows:
        click.echo(f"{click.style(key, bold=True)}  {kind}, {default}")
        if meaning:
            click.echo(f"    {' '.join(meaning.split())}")


def _rows(model: Any, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of each option, tables within tables included."""
    schema = model.model_json_schema()
    yield from _schema_rows(schema, schema.get("$defs", {}), prefix, model)


def _schema_rows(
    schema: Any, definitions: Any, prefix: str, model: Any
) -> Iterator[tuple[str, str, str, str]]:
    for key, entry in schema.get("properties", {}).items():
        required = key in schema.get("required", ())
        default = "required" if required else f"default {_default(entry, model, key)}"
        meaning = entry.get("description", "")
        yield f"{prefix}{key}", _kind(entry, definitions), default, meaning
        nested = _nested(entry, definitions)
        if nested is not None:
            inside = f"{prefix}{key}[]." if "items" in entry else f"{prefix}{key}."
            yield from _schema_rows(nested, definitions, inside, None)


def _resolve(entry: Any, definitions: Any) -> Any:
    name = entry.get("$ref", "").rpartition("/")[2]
    return definitions.get(name, entry)


def _nested(entry: Any, definitions: Any) -> Any:
    for option in (entry, entry.get("items", {}), *entry.get("anyOf", ())):
        resolved = _resolve(option, definitions)
        if resolved.get("properties"):
            return resolved
    return None


def _kind(entry: Any, definitions: Any) -> str:
    if "enum" in entry:
        return " | ".join(f'"{choice}"' for choice in entry["enum"])
    if "anyOf" in entry:
        kinds = [_kind(option, definitions) for option in entry["anyOf"]]
        return " or ".join(kind for kind in kinds if kind != "null")
    resolved = _resolve(entry, definitions)
    if resolved.get("properties"):
        return "table"
    kind = entry.get("format") or entry.get("type", "value")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_kind(entry.get('items', {}), definitions)}s"
    return "table" if kind == "object" else str(kind)


def _default(entry: Any, model: Any, key: str) -> str:
    value = entry.get("default")
    if value is None:
        field = model.model_fields[key] if model is not None else None
        if field is not None and field.default_factory is not None:
            return "empty"
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and entry.get("format") == "duration":
        return f'"{format_duration(value)}"'
    if isinstance(value, int) and entry.get("format") == "size":
        return f'"{format_size(value)}"'
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "as below"
    return str(value) if value != [] else "empty"
