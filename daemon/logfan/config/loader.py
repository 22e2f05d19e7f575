"""All that can be checked offline, in one place: what `check`, `run` and `demo` do first."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from logfan.config.consistency import doubts, faults_between
from logfan.config.environment import (
    environment_table,
    passed_over,
    variables_by_key,
    with_variables,
)
from logfan.config.exposed_secrets import exposed, secrets_in
from logfan.config.file_permissions import absolute, why_unreadable
from logfan.config.file_watch import State, states_of
from logfan.config.named_files import files_of
from logfan.config.settings import (
    HOMES,
    HttpSettings,
    PluginSettings,
    Settings,
    SinkSettings,
    read_table,
)
from logfan.config.validation_errors import faults_of, shown
from logfan.faults import Fault, Faults, did_you_mean
from logfan.plugins.discovery import Discovered, discover
from logfan.plugins.validation import Base, Kind
from logfan.runtime.foreign_text import describe, hide, line_of, text_of, type_name
from logfan.runtime.small_file import read_small
from logfan.sink import Sink, SinkConfig
from logfan.stage.stage import Stage
from logfan.transform import Transform

WITHOUT_BROKER: Mapping[str, Any] = {
    "rabbitmq": {
        "urls": ["amqp://guest:guest@127.0.0.1"], "url_file": None,
        "tls": {"ca_file": None, "cert_file": None, "key_file": None, "verify": True},
    },
    "http": {"tls": {"cert_file": None, "key_file": None}},
}  # fmt: skip
"""Laid over the config of a command that needs no broker and serves no HTTP: the files that the
config names for them are neither needed nor read."""


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """One transform of a sink, ready to be made."""

    kind: Kind[Transform]
    config: SinkConfig = field(repr=False)


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """One configured sink, ready to be made."""

    name: str
    kind: Kind[Sink]
    settings: SinkSettings
    config: SinkConfig = field(repr=False)
    transforms: Sequence[TransformSpec] = ()
    key: bytes | None = field(default=None, repr=False)
    """Of the hashes of `redact`. The file that it came from may be gone by the time that a reload
    goes back to this config."""


@dataclass(frozen=True, slots=True)
class Made:
    """A sink of its own, and what is done to records before it gets them, with transforms of its
    own."""

    spec: SinkSpec
    sink: Sink
    stage: Stage | None


def made_of(specs: Iterable[SinkSpec], instance: str) -> Sequence[Made]:
    """Each of these sinks. Raises Faults with all of them whose class fails, or whose transforms'
    does."""
    whole: list[Made] = []
    faults: list[Fault] = []
    for spec in specs:
        try:
            stage = stage_of(spec.settings, spec.transforms, spec.name, instance, spec.key)
            sink = made(spec.kind, spec.config, spec.name, instance, f"sinks.{spec.name}")
            whole.append(Made(spec, sink, stage))
        except Faults as found:
            faults += found.faults
    if faults:
        raise Faults(faults)
    return whole


def stage_of(
    settings: SinkSettings,
    transforms: Sequence[TransformSpec],
    name: str,
    instance: str,
    key: bytes | None,
) -> Stage | None:
    """The stage of the sink of this name. `key`: see `SinkSettings.stage`. Raises Faults where the
    class of a transform fails."""
    own = [
        (
            one.kind.kind,
            made(one.kind, one.config, name, instance, f"sinks.{name}.transforms.{number}"),
        )
        for number, one in enumerate(transforms)
    ]
    return settings.stage(own, key)


def made(kind: Kind[Base], config: SinkConfig, name: str, instance: str, place: str) -> Base:
    """A sink or transform of this kind. Raises Faults, with the place, where its class fails."""
    try:
        return kind.cls(config, name=name, instance=instance)
    except (Exception, SystemExit) as error:  # a plugin's class may raise anything
        why = f"{kind.cls.__name__} of {kind.origin} cannot be made: {describe(error)}"
        raise Faults([Fault(place, why)]) from error


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config without faults."""

    settings: Settings
    sinks: tuple[SinkSpec, ...]
    path: Path | None
    """The file it came from; None where there was none."""
    warnings: tuple[str, ...]
    urls: tuple[str, ...] = field(default=(), repr=False)
    """The broker's URLs, wherever they stand."""
    contents: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the files held that the config names, as digests, by the key that names each."""
    states: Mapping[Path, State] = field(default_factory=dict, repr=False)
    """What all these files, and that of the config, were like before they were read."""


def prepare(
    path: Path | None,
    *,
    instance: str | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
    every_plugin: bool = True,
) -> Prepared:
    """Config, plugins and every sink's own options, checked. Raises Faults with all there are.

    Without a path there is no file. `overrides` is a table laid over the file and the environment.
    Without `every_plugin` a plugin that no sink needs may be broken, which becomes a warning.
    """
    states = states_of([path] if path is not None else [])
    source = _read(path, instance, environ, overrides)
    table = source.table
    no_sinks = _no_sinks(source)
    settings, settings_faults = _settings(table)
    states |= states_of(settings.files().values())
    kinds = frozenset(sink.kind for sink in settings.sinks.values())
    plugins = discover(settings.plugins.directories, settings.plugins.disabled, kinds)
    sinks, sink_faults = _sinks(table, settings, plugins)
    lacking = any(fault.place.endswith(".kind") for fault in sink_faults)
    of_plugins = plugins.faults if every_plugin or lacking else ()
    named = source.named((*settings_faults, *of_plugins, *sink_faults))
    if faults := [*source.faults, *no_sinks, *named]:
        raise Faults(faults, states_of(_files_of_sinks(sinks).values()) | states)
    services = passed_over(environ)
    files = settings.files() | _files_of_sinks(sinks)
    warnings = [
        *([services] if services else []),
        *exposed(files, source.path, source.in_file, environ), *doubts(settings),
        *(f"{place}: {why}" for place, why in _between_sinks(sinks, "advice")),
        *(str(fault) for fault in plugins.faults),
    ]  # fmt: skip
    urls = tuple(settings.rabbitmq.read_urls())
    states = states_of(files.values()) | states
    return Prepared(settings, sinks, source.path, tuple(warnings), urls, _contents(files), states)


def read_settings(path: Path | None, *, instance: str | None = None) -> Settings:
    """The config for a command that runs no sink. No plugin is looked for, of `sinks` the names
    alone count, and none is needed. Raises Faults."""
    source = _read(path, instance)
    sinks = source.table.get("sinks")
    names = sinks if isinstance(sinks, Mapping) else ()
    source.table["sinks"] = {str(name): {"kind": "unread"} for name in names}
    settings, settings_faults = _settings(source.table, serves=False)
    if faults := [*source.faults, *source.named(settings_faults)]:
        raise Faults(faults)
    return settings


def read_stages(
    path: Path | None, *, key: bytes | None, instance: str | None = None
) -> tuple[Settings, Mapping[str, Stage | None]]:
    """The config without its broker, and the stage of each sink, for a command that needs what each
    sink gets, and no sink. Plugins are looked for only where a sink has transforms, and the sinks'
    own options are not judged. `key` stands for that of hashes, so that no file of secrets is read;
    with None they are the sinks' own. Raises Faults."""
    source = _read(path, instance, overrides=WITHOUT_BROKER)
    no_sinks = _no_sinks(source)
    settings, settings_faults = _settings(source.table, serves=False)
    plugins = Discovered()
    if any(sink.transforms for sink in settings.sinks.values()):
        plugins = discover(settings.plugins.directories, settings.plugins.disabled, frozenset())
    transforms = {}
    for name, sink in settings.sinks.items():
        transforms[name] = _transforms(sink, f"sinks.{name}", plugins, settings_faults)
        if key is None:
            _key(sink, f"sinks.{name}", settings_faults)
    if all_faults := [*source.faults, *no_sinks, *source.named(settings_faults)]:
        raise Faults([*all_faults, *plugins.faults])
    stages = {
        name: stage_of(sink, transforms[name], name, settings.instance, key)
        for name, sink in settings.sinks.items()
    }
    return settings, stages


def read_plugin_settings(path: Path | None) -> tuple[PluginSettings, Sequence[Fault]]:
    """Where plugins are, whatever else in the config is wrong; the defaults where that is."""
    try:
        settings, faults = _one_table(path, "plugins")
    except Faults as error:
        return PluginSettings(), error.faults
    return settings.plugins, faults


def read_http_settings(path: Path | None) -> HttpSettings:
    """Where the daemon of this config serves HTTP, whatever else in it is wrong. Raises Faults."""
    settings, faults = _one_table(path, "http")
    if faults:
        raise Faults(faults)
    return settings.http


def _one_table(path: Path | None, name: str) -> tuple[Settings, Sequence[Fault]]:
    """The settings of this table alone, and its faults. Raises Faults where nothing can be read."""
    source = _read(path)
    settings, faults = _settings({name: source.table.get(name, {})}, serves=False)
    return settings, source.named(faults)


@dataclass(frozen=True, slots=True)
class _Source:
    """What was written, and where."""

    path: Path | None
    in_file: Mapping[str, Any]
    table: dict[str, Any]
    """The file, the environment over it, and the command's own keys over that."""
    faults: Sequence[Fault]
    variables: Mapping[str, str]
    """The environment's variables that count, by their keys."""

    def named(self, faults: Iterable[Fault]) -> list[Fault]:
        """The faults with the variables that their values came from."""
        return [with_variables(fault, self.variables, self.in_file) for fault in faults]


def _read(
    path: Path | None,
    instance: str | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> _Source:
    try:
        in_file = read_table(path) if path is not None else {}
    except Faults as faults:
        named = environ.get("LOGFAN_CONFIG")
        if not named or path is None or absolute(Path(named)) != absolute(path):
            raise
        raise Faults(
            Fault(f"{fault.place} (from LOGFAN_CONFIG)", fault.problem) for fault in faults.faults
        ) from None
    from_environment, faults_of_variables = environment_table(environ)
    table = laid_over(laid_over(in_file, from_environment), overrides or {})
    variables = variables_by_key(environ)
    if instance is not None:
        table["instance"] = instance
        variables["instance"] = "--instance"
    for _, secret in secrets_in(table):
        hide(secret)
    return _Source(path, in_file, table, faults_of_variables, variables)


def _no_sinks(source: _Source) -> list[Fault]:
    """The fault where there is none; an empty table of them is taken away."""
    if source.table.get("sinks"):
        return []
    source.table.pop("sinks", None)
    where = source.path or (
        "no config file was found (./config.toml, /etc/logfan/config.toml): `logfan generate "
        "config > config.toml` writes one"
    )
    problem = f'at least one sink is needed, as [sinks.NAME] with kind = "…"; {where}'
    return [Fault("sinks", problem)]


def _files_of_sinks(sinks: Sequence[SinkSpec]) -> dict[str, Path]:
    """The files that the sinks' own keys and those of their transforms name, by key."""
    own = {spec.name: spec.config for spec in sinks}
    transforms = {
        spec.name: {"transforms": [one.config for one in spec.transforms]} for spec in sinks
    }
    return dict(files_of(own, "sinks")) | dict(files_of(transforms, "sinks"))


def _contents(files: Mapping[str, Path]) -> dict[str, str]:
    """A digest of each file, by the key that names it."""
    digests = {}
    for key, file in files.items():
        try:
            digests[key] = hashlib.sha256(read_small(file)).hexdigest()
        except OSError:
            digests[key] = str(states_of([file])[file])  # reported where the file is needed
    return digests


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One table over another, key by key, tables within tables too."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = laid_over(old, value) if both else value  # type: ignore[arg-type]
    return result


def _settings(table: Mapping[str, Any], *, serves: bool = True) -> tuple[Settings, list[Fault]]:
    """The settings, with defaults in place of what is invalid, and all faults.

    `serves`: see `faults_between`.
    """
    faults: list[Fault] = []
    sound = table
    while True:  # where a key is taken away that a table must have, that table goes next
        try:
            settings = Settings.model_validate(sound)
            break
        except ValidationError as error:
            faults = faults or faults_of(error, Settings, homes=HOMES)
            sound = _without(sound, (entry["loc"] for entry in error.errors(include_url=False)))
    invalid = [fault.place for fault in faults]
    return settings, [*faults, *faults_between(settings, invalid, serves=serves)]


def _without(table: Mapping[str, Any], places: Iterable[tuple[int | str, ...]]) -> dict[str, Any]:
    """A copy without what stands at these places of a ValidationError, or, where a key is missing,
    without the table that lacks it."""
    copy = deepcopy(dict(table))
    for place in places:
        inner: dict[Any, Any] = copy
        for key, below in zip_longest(place, place[1:]):
            value = inner.get(key)
            if not isinstance(value, dict) or below not in value:
                inner.pop(key, None)
                break
            inner = value
    return copy


def _sinks(
    table: Mapping[str, Any], settings: Settings, plugins: Discovered
) -> tuple[tuple[SinkSpec, ...], list[Fault]]:
    """The sinks whose own keys are valid, and the faults of all."""
    specs: list[SinkSpec] = []
    faults: list[Fault] = []
    sinks = table.get("sinks", {})
    for name, options in sinks.items() if isinstance(sinks, Mapping) else ():
        place = f"sinks.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(name)):
            faults.append(Fault(place, "the name may hold letters, digits, - and _, 64 at most"))
        sink = settings.sinks.get(name)
        if sink is None:
            continue  # it has no valid kind, which is reported with the settings
        kind = plugins.kinds.get(sink.kind)
        if kind is None:
            faults.append(
                _no_such_kind(place, "kind of sink", sink.kind, plugins.known, plugins.broken)
            )
            _transforms(sink, place, plugins, faults)
            continue
        own = {key: value for key, value in options.items() if key not in SinkSettings.model_fields}
        if "decode" in options.keys() & kind.cls.Config.model_fields:
            own["decode"] = options["decode"]  # of a sink that had it before all sinks did
        homes = {key: f"{place}.{home}" for key, home in _SINK_HOMES.items()}
        config = _own_config(kind, own, place, faults, homes)
        key = _key(sink, place, faults) if config is not None else None
        transforms = _transforms(sink, place, plugins, faults)
        if config is not None:
            specs.append(SinkSpec(name, kind, sink, config, transforms, key))
    conflicts = _between_sinks(specs, "conflicts")
    return tuple(specs), [*faults, *(Fault(place, why) for place, why in conflicts)]


def _no_such_kind(
    place: str, what: str, kind: str, known: Iterable[str], broken: Sequence[str]
) -> Fault:
    """`broken`: the plugins that could not be loaded, of which one may have it."""
    names = ", ".join(sorted(known))
    near = did_you_mean(kind, known)
    if broken:
        which = "the one" if len(broken) == 1 else "one of those"
        near = f"; its plugin may be {which} that could not be loaded ({', '.join(broken)}){near}"
    elif not near:
        near = f"; kinds: {names}" if names else "; there is none"
    return Fault(f"{place}.kind", f"no such {what}{near}", shown("kind", kind))


def _transforms(
    settings: SinkSettings, place: str, plugins: Discovered, faults: list[Fault]
) -> list[TransformSpec]:
    """The transforms of one sink. Adds to the faults."""
    specs: list[TransformSpec] = []
    for number, table in enumerate(settings.transforms):
        here = f"{place}.transforms.{number}"
        kind = plugins.transforms.get(table.kind)
        if kind is None:
            known, broken = plugins.transforms, plugins.broken
            faults.append(_no_such_kind(here, "transform", table.kind, known, broken))
            continue
        config = _own_config(kind, table.options, here, faults)
        if config is not None:
            specs.append(TransformSpec(kind, config))
    return specs


def _own_config(
    kind: Kind[Sink] | Kind[Transform],
    own: Mapping[str, Any],
    place: str,
    faults: list[Fault],
    homes: Mapping[str, str] | None = None,
) -> SinkConfig | None:
    """The keys of a sink or a transform, validated. Adds to the faults; then there is none.
    `homes`: see `faults_of`."""
    try:
        return kind.cls.Config.model_validate(own)
    except ValidationError as error:
        faults += faults_of(error, kind.cls.Config, place, homes, own)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - or anything else
        why = text_of(error, how=repr)
        faults.append(Fault(place, f"the Config of {kind.origin} failed to judge it: {why}"))
    return None


def _key(settings: SinkSettings, place: str, faults: list[Fault]) -> bytes | None:
    """The key of its hashes; None where it has none. Adds to the faults where it cannot be used."""
    redact = settings.redact
    file = None if redact is None else redact.key_file
    if redact is None or file is None:
        return None
    try:
        return redact.read_key()
    except (OSError, ValueError) as error:
        why = str(error)
        if isinstance(error, OSError):
            why = f"cannot be read: {why_unreadable(file, error)}"
        key = f"{place}.redact.key_file"
        way_out = "it names the file that holds the hashes' key: any text that others cannot guess"
        faults.append(Fault(key, f"{why}; {way_out}", shown(key, str(file))))
        return None


_SINK_HOMES = {
    "max_records": "batch.max_records", "max_bytes": "batch.max_bytes", "linger": "batch.linger",
    "jitter": "retry.jitter", "type": "kind", "sink": "kind", "optional": "required",
    "requred": "required", "require": "required", "batches": "batch", "retries": "retry",
}  # fmt: skip


def _between_sinks(
    specs: Sequence[SinkSpec], ask: Literal["conflicts", "advice"]
) -> Iterator[tuple[str, str]]:
    """What each kind reports about its sinks, as two files with one path: place and problem."""
    for cls in {spec.kind.cls: None for spec in specs}:
        configs = {spec.name: spec.config for spec in specs if spec.kind.cls is cls}
        try:
            found = _mapping(getattr(cls, ask)(configs), ask)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - or anything else
            origin = next(spec.kind.origin for spec in specs if spec.kind.cls is cls)
            why = f"{cls.__name__}.{ask}() of {origin} failed: {text_of(error, how=repr)}"
            found = dict.fromkeys(configs, why)
        for name, why in found.items():
            yield f"sinks.{name}", line_of(why)


def _mapping(given: object, ask: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{ask} must return a dict, {{name: why}}, not a {type_name(given)}")
    return dict(given)
