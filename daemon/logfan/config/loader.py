"""All that can be checked offline, in one place: what `check`, `run` and `demo` do first."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from logfan.config.amqp_limits import PREDEFINED, RESERVED, SHORT_BYTES, argument_problems
from logfan.config.environment import (
    environment_table,
    passed_over,
    variables_by_key,
    with_variables,
)
from logfan.config.exposed_secrets import exposed, secrets_in
from logfan.config.file_permissions import absolute
from logfan.config.settings import (
    HOMES,
    HttpTlsSettings,
    PluginSettings,
    QueueSettings,
    Settings,
    SinkSettings,
    TlsSettings,
    read_table,
)
from logfan.config.validation_errors import faults_of, shown
from logfan.faults import Fault, Faults, did_you_mean
from logfan.plugins.discovery import discover
from logfan.plugins.kinds import SinkKind
from logfan.runtime.foreign_text import hide, line_of, text_of
from logfan.runtime.tls import TlsFileError, faults_of_files
from logfan.sink import SinkConfig

SYSTEM_CONFIG = Path("/etc/logfan/config.toml")
_PATH_LENGTH = 300


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """One configured sink, ready to be built."""

    name: str
    kind: SinkKind
    settings: SinkSettings
    config: SinkConfig = field(repr=False)


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


def find_config(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """`--config`, else `$LOGFAN_CONFIG`, else ./config.toml, else the system's, else None.

    A file that is there and cannot be read is found: going on to the next would hide that.
    """
    if path is not None:
        return path
    if environ.get("LOGFAN_CONFIG"):
        return Path(environ["LOGFAN_CONFIG"])
    return next((p for p in (Path("config.toml"), SYSTEM_CONFIG) if _is_there(p)), None)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def prepare(
    path: Path | None,
    *,
    search: bool = True,
    instance: str | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
    every_plugin: bool = True,
) -> Prepared:
    """Config, plugins and every sink's own options, checked. Raises Faults with all there are.

    `search`: without a path, take what `find_config` finds. `overrides` is a table laid over the
    file and the environment. Without `every_plugin` a plugin that no sink needs may be broken,
    which becomes a warning.
    """
    source = _read(path, instance, environ, overrides or {}, search=search)
    table = source.table
    faults = [*source.faults]
    if not table.get("sinks"):
        where = source.path or "no config file was found (./config.toml, /etc/logfan/config.toml)"
        table.pop("sinks", None)
        faults.append(
            Fault("sinks", f'at least one sink is needed, as [sinks.NAME] with kind = "…"; {where}')
        )
    settings, settings_faults = _settings(table)
    kinds, plugin_faults = _kinds(table)
    sinks, sink_faults = _sinks(table, kinds)
    lacking = any(fault.place.endswith(".kind") for fault in sink_faults)
    told = plugin_faults if every_plugin or lacking else []
    faults += [source.named(fault) for fault in (*settings_faults, *told, *sink_faults)]
    if faults or settings is None:
        raise Faults(faults)
    services = passed_over(environ)
    warnings = [
        *([services] if services else []),
        *exposed(settings, source.path, source.in_file, environ), *_warnings(settings),
        *_advice(sinks), *(str(fault) for fault in plugin_faults),
    ]  # fmt: skip
    urls = tuple(settings.rabbitmq.read_urls())
    return Prepared(settings, sinks, source.path, tuple(warnings), urls, _contents(settings))


def read_settings(
    path: Path | None, *, instance: str | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """The config for a command that runs no sink. No plugin is looked for, of `sinks` the names
    alone count, and none is needed. Raises Faults."""
    source = _read(path, instance, environ, {}, search=True)
    sinks = source.table.get("sinks")
    names = sinks if isinstance(sinks, Mapping) else ()
    source.table["sinks"] = {str(name): {"kind": "unread"} for name in names}
    settings, settings_faults = _settings(source.table, serves=False)
    faults = [*source.faults, *(source.named(fault) for fault in settings_faults)]
    if faults or settings is None:
        raise Faults(faults)
    return settings


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

    def named(self, fault: Fault) -> Fault:
        """The fault with the variables that its value came from."""
        return with_variables(fault, self.variables, self.in_file)


def _read(
    path: Path | None,
    instance: str | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any],
    *,
    search: bool,
) -> _Source:
    if search:
        path = find_config(path, environ)
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
    table = laid_over(laid_over(in_file, from_environment), overrides)
    variables = variables_by_key(environ)
    if instance is not None:
        table["instance"] = instance
        variables["instance"] = "--instance"
    for _, secret in secrets_in(table):
        hide(secret)
    return _Source(path, in_file, table, faults_of_variables, variables)


def _contents(settings: Settings) -> dict[str, str]:
    """A digest of each file that the broker's and the HTTP side read beside the config."""
    rabbitmq, http = settings.rabbitmq, settings.http
    files = {"rabbitmq.url_file": rabbitmq.url_file}
    for place, tls in (("rabbitmq.tls", rabbitmq.tls), ("http.tls", http.tls)):
        for key in ("ca_file", "cert_file", "key_file"):
            files[f"{place}.{key}"] = getattr(tls, key, None)
    digests = {}
    for key, file in files.items():
        if file is None:
            continue
        try:
            digests[key] = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError:
            digests[key] = ""  # told when it is read for what it is needed for
    return digests


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One table over another, key by key, tables within tables too."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = laid_over(old, value) if both else value  # type: ignore[arg-type]
    return result


def _settings(
    table: Mapping[str, Any], *, serves: bool = True
) -> tuple[Settings | None, list[Fault]]:
    """`serves`: whether metrics are served, so that the files of `http.tls` must be there."""
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        faults = faults_of(error, Settings, homes=HOMES)
        return None, [fault for fault in faults if fault.place != "sinks" or "sinks" in table]
    return settings, _cross_faults(settings, table, serves=serves)


def _cross_faults(settings: Settings, table: Mapping[str, Any], *, serves: bool) -> list[Fault]:
    """What is wrong between keys that are each right."""
    faults = []
    rabbitmq = settings.rabbitmq
    pairs: list[tuple[str, Any]] = [("rabbitmq.reconnect", rabbitmq.reconnect)]
    pairs += [(f"sinks.{name}.retry", sink.retry) for name, sink in settings.sinks.items()]
    for place, pair in pairs:
        if pair.initial > pair.max:
            faults.append(Fault(f"{place}.initial", f"must not be longer than {place}.max"))
    if rabbitmq.url_file is not None and "urls" in table.get("rabbitmq", {}):
        faults.append(Fault("rabbitmq.url_file", "is set beside rabbitmq.urls; keep one of them"))
    elif rabbitmq.url_file is not None:
        try:
            rabbitmq.read_urls()
        except Faults as error:
            faults += error.faults
    tables: list[tuple[str, TlsSettings | HttpTlsSettings]] = [("rabbitmq.tls", rabbitmq.tls)]
    if serves:
        tables.append(("http.tls", settings.http.tls))
    for place, tls in tables:
        if tls.key_file is not None and tls.cert_file is None:
            faults.append(Fault(f"{place}.key_file", f"needs {place}.cert_file beside it"))
        for spoilt in faults_of_files(getattr(tls, "ca_file", None), tls.cert_file, tls.key_file):
            faults.append(_fault_of_file(place, spoilt))
    faults += [*_queue_kind_faults(settings.queue), *_name_faults(settings)]
    for path, value, problem in argument_problems(settings.queue.arguments):
        place = f"queue.arguments.{path}" if path else "queue.arguments"
        faults.append(Fault(place, problem, shown(place, value)))
    if settings.dead_letter_queue == settings.queue.name:
        faults.append(
            Fault("dead_letter.queue", "must not be queue.name, the queue that is consumed")
        )
    return faults


def _fault_of_file(place: str, spoilt: TlsFileError) -> Fault:
    key = f"{place}.{spoilt.key}"
    return Fault(key, spoilt.problem, shown(key, str(spoilt.file), _PATH_LENGTH))


def _queue_kind_faults(queue: QueueSettings) -> list[Fault]:
    """A type of queue, among its arguments, that logfan cannot live with."""
    kind = queue.kind
    if kind == "classic" or (kind == "quorum" and queue.type != "exclusive"):
        return []
    place, value = "queue.arguments.x-queue-type", shown("x-queue-type", kind)
    if kind == "stream":
        return [
            Fault(
                place,
                "a stream takes nothing back that was not acknowledged, so messages would be lost; "
                'leave it out, or write "classic" or "quorum"',
                value,
            )
        ]
    allowed = '"classic"' if queue.type == "exclusive" else '"classic" or "quorum"'
    return [Fault(place, f"must be {allowed}", value)]


def _name_faults(settings: Settings) -> Iterator[Fault]:
    """Names that a broker would refuse, or that AMQP cannot carry."""
    exchange, queue, letters = settings.exchange, settings.queue, settings.dead_letter
    if exchange.name.startswith(RESERVED):
        kind = PREDEFINED.get(exchange.name)
        if kind is None:
            known = ", ".join(PREDEFINED)
            problem = f'is reserved: what begins with "{RESERVED}" is the broker\'s own ({known})'
            yield Fault("exchange.name", problem, shown("exchange.name", exchange.name))
        elif kind != exchange.type:
            problem = f'must be "{kind}", which {exchange.name} is on every broker'
            yield Fault("exchange.type", problem, f'"{exchange.type}"')
    reserved = f'is reserved: no queue can be made whose name begins with "{RESERVED}"'
    made = queue.declare == "auto" and queue.type != "exclusive"
    if made and queue.name.startswith(RESERVED):
        yield Fault("queue.name", reserved, shown("queue.name", queue.name))
    if not letters.enabled:
        return
    if letters.queue is not None and letters.queue.startswith(RESERVED):
        yield Fault("dead_letter.queue", reserved, shown("dead_letter.queue", letters.queue))
    size = len(settings.dead_letter_queue.encode())
    if letters.queue is None and size > SHORT_BYTES:
        yield Fault(
            "queue.name",
            f"its dead-letter queue's name, with .dead, has {size} bytes; AMQP takes {SHORT_BYTES} "
            "at most: shorten it, or set dead_letter.queue",
        )


def _kinds(table: Mapping[str, Any]) -> tuple[Mapping[str, SinkKind], list[Fault]]:
    """The kinds of all plugins, whatever else in the config is wrong."""
    try:
        plugins = PluginSettings.model_validate(table.get("plugins", {}))
    except ValidationError:
        plugins = PluginSettings()  # the fault itself is told with the others of the config
    discovered = discover(plugins.directories, plugins.disabled)
    return discovered.kinds, list(discovered.faults)


def _sinks(
    table: Mapping[str, Any], kinds: Mapping[str, SinkKind]
) -> tuple[tuple[SinkSpec, ...], list[Fault]]:
    specs: list[SinkSpec] = []
    faults: list[Fault] = []
    sinks = table.get("sinks", {})
    for name, options in sinks.items() if isinstance(sinks, Mapping) else ():
        place = f"sinks.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(name)):
            faults.append(Fault(place, "the name may hold letters, digits, - and _, 64 at most"))
        if not isinstance(options, Mapping) or not isinstance(options.get("kind"), str):
            continue  # told with the others of the config
        kind = kinds.get(options["kind"])
        if kind is None:
            near = did_you_mean(options["kind"], kinds) or f"; kinds: {', '.join(sorted(kinds))}"
            faults.append(
                Fault(
                    f"{place}.kind", f"no such kind of sink{near}", shown("kind", options["kind"])
                )
            )
            continue
        host_keys = set(SinkSettings.model_fields)
        own = {key: value for key, value in options.items() if key not in host_keys}
        try:
            config = kind.cls.Config.model_validate(own)
        except ValidationError as error:
            homes = {key: f"{place}.{home}" for key, home in _SINK_HOMES.items()}
            faults += faults_of(error, kind.cls.Config, place, homes)
            continue
        except Exception as error:  # noqa: BLE001 - a plugin's validator may raise anything
            problem = f"the Config of {kind.origin} failed to judge it: {text_of(error, how=repr)}"
            faults.append(Fault(place, problem))
            continue
        try:
            specs.append(SinkSpec(name, kind, SinkSettings.model_validate(options), config))
        except ValidationError:
            continue  # told with the others of the config
    return tuple(specs), [*faults, *_conflicts(specs)]


_SINK_HOMES = {
    "max_records": "batch.max_records", "max_bytes": "batch.max_bytes", "linger": "batch.linger",
    "jitter": "retry.jitter", "type": "kind", "sink": "kind", "optional": "required",
    "requred": "required", "require": "required", "batches": "batch", "retries": "retry",
}  # fmt: skip


def _conflicts(specs: list[SinkSpec]) -> list[Fault]:
    """What sinks of one kind say about each other, as two files with one path."""
    faults = []
    for cls in {spec.kind.cls for spec in specs}:
        configs = {spec.name: spec.config for spec in specs if spec.kind.cls is cls}
        try:
            conflicts = dict(cls.conflicts(configs))
        except Exception as error:  # noqa: BLE001 - a plugin's code must not end in our traceback
            conflicts = dict.fromkeys(configs, f"conflicts() failed: {text_of(error, how=repr)}")
        faults += [Fault(f"sinks.{name}", line_of(why)) for name, why in conflicts.items()]
    return faults


def _advice(specs: Sequence[SinkSpec]) -> list[str]:
    """What each kind has to say about its sinks that is no fault."""
    said: list[str] = []
    for cls in {spec.kind.cls: None for spec in specs}:
        configs = {spec.name: spec.config for spec in specs if spec.kind.cls is cls}
        try:
            said += [f"sinks.{name}: {line_of(why)}" for name, why in cls.advice(configs).items()]
        except Exception as error:  # noqa: BLE001 - a plugin's code must not end in our traceback
            said += [
                f"sinks.{name}: advice() failed: {text_of(error, how=repr)}" for name in configs
            ]
    return said


def _warnings(settings: Settings) -> list[str]:
    """What is no fault and yet not as most people want it."""
    warnings = []
    tls = settings.rabbitmq.tls
    over_tls = [url.startswith("amqps:") for url in settings.rabbitmq.read_urls()]
    if not tls.verify and any(over_tls):
        warnings.append(
            "rabbitmq.tls.verify = false: nobody checks that it is the broker who answers, so the "
            "way there can be listened to; name the broker's CA in rabbitmq.tls.ca_file instead"
        )
    if tls != TlsSettings() and not all(over_tls):
        warnings.append("rabbitmq.tls is set, but a URL begins with amqp://: that way has no TLS")
    if not any(sink.required for sink in settings.sinks.values()):
        warnings.append("no sink is required: messages are acknowledged as soon as they arrive")
    return warnings
