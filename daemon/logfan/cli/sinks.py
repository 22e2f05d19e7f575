"""`logfan sinks`: the kinds of sink and of transform there are, and one kind's options."""

import inspect
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import config_option, fitted, refuse
from logfan.config.units import format_duration, format_size
from logfan.faults import Faults, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel


@click.command()
@config_option
@click.argument("kind", required=False)
def sinks(config: Path | None, kind: str | None) -> None:
    """List the kinds of sink, and transforms, with where each comes from; for one KIND, its
    options."""
    from logfan.config.loader import read_plugin_settings
    from logfan.config.settings import SinkSettings
    from logfan.plugins.discovery import discover

    plugins, faults = read_plugin_settings(config)
    used = None if kind is None else (kind,)
    discovered = discover(plugins.directories, plugins.disabled, used)
    faults = [*faults, *discovered.faults]
    if kind is None:
        _list(discovered.kinds)
        if discovered.transforms:
            click.echo("\ntransforms")
            _list(discovered.transforms)
    elif kind in discovered.kinds or kind in discovered.transforms:
        if kind in discovered.kinds:
            _describe(discovered.kinds[kind], SinkSettings)
        if kind in discovered.transforms:
            _describe(discovered.transforms[kind], None)
    else:
        near = did_you_mean(kind, sorted({*discovered.known, *discovered.transforms}), "kinds")
        raise click.BadParameter(f"no kind {kind!r}{near}", param_hint="KIND")
    if faults:
        refuse(Faults(faults), None)


def _list(kinds: Any) -> None:
    width = max((len(name) for name in kinds), default=0)
    for name, found in sorted(kinds.items()):
        summary = (found.cls.__doc__ or "").strip().partition("\n")[0]
        summary = fitted(summary, first=width + 2, indent=width + 2)
        click.echo(f"{click.style(f'{name:<{width}}', bold=True)}  {summary}")
        origin = fitted(f"from {found.origin}", first=width + 2, indent=width + 2)
        click.echo(f"{'':<{width}}  {origin}")


def _describe(found: Any, host: "type[BaseModel] | None") -> None:
    """`host` has the keys that the host gives a sink; a transform has none."""
    from logfan.config.option_docs import schema_of

    click.echo(f"{click.style(found.kind, bold=True)}, from {found.origin}")
    for paragraph in inspect.cleandoc(found.cls.__doc__ or "").split("\n\n"):
        is_laid_out = "\n " in paragraph
        click.echo((paragraph if is_laid_out else fitted(paragraph)) + "\n")
    schemas = [schema_of(model) for model in (found.cls.Config, host) if model is not None]
    own = schemas[0]
    table = _resolved(own, own)
    samples = [
        f"{name} = {_sample(table['properties'][name], own)}" for name in table.get("required", ())
    ]
    keys = [f'kind = "{found.kind}"', *samples]
    if host is not None:
        click.echo("\n".join(["[sinks.NAME]", *keys, ""]))
    else:
        click.echo(f"[sinks.NAME]\ntransforms = [{{ {', '.join(keys)} }}]\n")
    for key, kind, default, meaning in chain.from_iterable(options(one, one) for one in schemas):
        if key in ("kind", "transforms[].kind"):
            continue
        value = fitted(f"{kind}, {default}", first=len(key) + 2, indent=4)
        click.echo(f"{click.style(key, bold=True)}  {value}")
        if meaning:
            click.echo("    " + fitted(" ".join(meaning.split()), first=4, indent=4))


_Schema = Mapping[str, Any]
"""JSON schema of a table or an option; beside it goes that of the whole, which holds what `$ref`
names."""
_DEPTH = 3
"""A table may hold itself; deeper than this nothing is shown."""


def options(
    table: _Schema, root: _Schema, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, str, str, str]]:
    """Key, kind, default and meaning of each option, those of tables within tables too."""
    table = _resolved(table, root)
    for name, option in table.get("properties", {}).items():
        key = prefix + name
        default = "required" if name in table.get("required", ()) else _default(option, root)
        yield key, _kind(option, root), default, option.get("description", "")
        for choice in _choices(option, root) if depth < _DEPTH else ():
            yield from options(choice, root, f"{key}.", depth + 1)
            yield from options(choice.get("items", {}), root, f"{key}[].", depth + 1)


def _resolved(entry: _Schema, root: _Schema) -> _Schema:
    """The entry, or what it refers to."""
    found: _Schema = root["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
    return found


def _choices(entry: _Schema, root: _Schema) -> list[_Schema]:
    """The types that an option may have, without null."""
    options = entry.get("anyOf") or entry.get("oneOf") or [entry]
    choices = [_resolved(option, root) for option in options]
    return [choice for choice in choices if choice.get("type") != "null"]


def _kind(entry: _Schema, root: _Schema) -> str:
    return " or ".join(dict.fromkeys(_one_kind(one, root) for one in _choices(entry, root)))


def _one_kind(choice: _Schema, root: _Schema) -> str:
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


def _default(option: _Schema, root: _Schema) -> str:
    value, kinds = option.get("default", []), _kind(option, root).split(" or ")
    if value == []:
        return "default empty"  # also where it is made anew for each sink
    if value is None:
        return "default none"
    if isinstance(value, dict):
        return "default as below"
    if "duration" in kinds and not isinstance(value, str):
        value = format_duration(value)
    elif "size" in kinds and not isinstance(value, str):
        value = format_size(value)
    return f"default {_toml(value)}"


def _sample(option: _Schema, root: _Schema) -> str:
    """Some value of the right type, to begin with."""
    choice = _choices(option, root)[0]
    if choice.get("examples"):
        return _toml(choice["examples"][0])
    if "const" in choice or "enum" in choice:
        return _toml(choice.get("const", choice.get("enum", [""])[0]))
    if choice.get("minItems") and isinstance(choice.get("items"), dict):
        return f"[{_sample(choice['items'], root)}]"
    samples = {
        "string": '"…"', "integer": "1", "number": "1.0", "boolean": "true", "array": "[]",
    }  # fmt: skip
    return samples.get(str(choice.get("type")), "{}")


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
