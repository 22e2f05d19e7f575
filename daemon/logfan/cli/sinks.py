"""`logfan sinks`: the kinds there are, and one kind's options."""

import inspect
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from logfan.cli.common import EXIT_CONFIG, config_option, report
from logfan.config.units import format_duration, format_size
from logfan.faults import Fault, Faults


@click.command()
@config_option
@click.argument("kind", required=False)
def sinks(config: Path | None, kind: str | None) -> None:
    """List the sink kinds with where each comes from; for one KIND, its options."""
    from logfan.faults import did_you_mean
    from logfan.plugins.discovery import discover

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

    from logfan.config.environment import environment_table
    from logfan.config.loader import find_config, laid_over
    from logfan.config.settings import PluginSettings, read_table
    from logfan.config.validation_errors import faults_of

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


# What the host's own keys mean, for every kind.
_HOST_MEANINGS = {
    "required": "false: its failure never holds a message back, and what it missed is counted.",
    "batch": "How much one write may hold.",
    "batch.max_records": "Most records.",
    "batch.max_bytes": "Most bytes of bodies.",
    "batch.linger": "How long to wait for more; none: take what has arrived.",
    "retry": "How soon a failure is tried again, without end; the delay doubles each time.",
    "retry.initial": "The first delay.",
    "retry.max": "The longest delay.",
    "retry.jitter": "Vary the delays, so that many daemons do not come back in step.",
}


@dataclass(frozen=True, slots=True)
class _Option:
    key: str
    kind: str
    default: str
    meaning: str


def _describe(found: Any) -> None:
    from logfan.config.settings import SinkSettings

    own = _schema(found.cls.Config)
    host = _schema(SinkSettings)
    del host["properties"]["kind"]
    click.echo(f"{click.style(found.kind, bold=True)}, from {found.origin}")
    click.echo(f"{inspect.cleandoc(found.cls.__doc__ or '')}\n")
    click.echo(f'[sinks.NAME]\nkind = "{found.kind}"')
    for key in own.get("required", ()):
        click.echo(f"{key} = {_sample(own['properties'][key], own)}")
    click.echo()
    for option in [*_options(own, own), *_options(host, host)]:
        meaning = option.meaning or _HOST_MEANINGS.get(option.key, "")
        click.echo(f"{click.style(option.key, bold=True)}  {option.kind}, {option.default}")
        if meaning:
            click.echo(f"    {' '.join(meaning.split())}")


def _schema(model: Any) -> Any:
    """The model as JSON schema, quietly where a default is nothing that JSON can say."""
    from logfan.config.option_docs import WithMeanings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = model.model_json_schema(schema_generator=WithMeanings)
    if "$ref" in schema:  # a model that holds itself
        schema = {**_resolved(schema, schema), "$defs": schema["$defs"]}
    return schema


def _options(table: Any, root: Any, prefix: str = "", depth: int = 0) -> Iterator[_Option]:
    """Each option of a table, tables within tables included."""
    for key, entry in table.get("properties", {}).items():
        required = key in table.get("required", ())
        default = "required" if required else f"default {_default(entry, root)}"
        yield _Option(f"{prefix}{key}", _kind(entry, root), default, entry.get("description", ""))
        for choice in _choices(entry, root):
            inside = _resolved(choice.get("items", choice), root)
            dot = "[]." if "items" in choice else "."
            if depth < _DEPTH:
                yield from _options(inside, root, f"{prefix}{key}{dot}", depth + 1)


_DEPTH = 3
"""A table may hold itself; nobody reads further down than this."""


def _resolved(entry: Any, root: Any) -> Any:
    """The entry, or what it refers to; it keeps its own default and meaning."""
    for link in (entry, *entry.get("allOf", ())):
        if "$ref" in link:
            target = root["$defs"][link["$ref"].rpartition("/")[2]]
            return {**target, **{key: entry[key] for key in ("default",) if key in entry}}
    return entry


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


def _default(entry: Any, root: Any) -> str:
    if "default" not in entry:
        return "empty"  # made anew for each sink
    value = entry["default"]
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "as below"
    if isinstance(value, int | float) and not isinstance(value, bool):
        formats = [choice.get("format") for choice in _choices(entry, root)]
        if "duration" in formats:
            return f'"{format_duration(value)}"'
        if "size" in formats:
            return f'"{format_size(int(value))}"'
    return _toml(value) if value != [] else "empty"


def _sample(entry: Any, root: Any) -> str:
    """Some value of the right type, to begin with."""
    choice = _choices(entry, root)[0]
    if choice.get("examples"):
        return _toml(choice["examples"][0])
    if "const" in choice or "enum" in choice:
        return _toml(choice.get("const", choice.get("enum", [""])[0]))
    samples = {
        "string": '"…"', "integer": "1", "number": "1.0", "boolean": "true", "array": "[]",
    }  # fmt: skip
    return samples.get(str(choice.get("type")), "{}")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False)
