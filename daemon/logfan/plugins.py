"""Find plugins, check them, and give `{kind: class}` with where each came from.

Entry points of the group `logfan` first, then drop-in folders, each sorted by file name. A
plugin's fault never ends the search: all faults are told together. What may be written by others
is never run.
"""

import inspect
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pluggy

from logfan import hookspecs
from logfan.api import Sink, SinkConfig
from logfan.explain import did_you_mean
from logfan.faults import Fault

GROUP = "logfan"
HOST_KEYS = ("kind", "required", "batch", "retry")
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SKELETON = "write @logfan.hookimpl above def register_sinks(register)"


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A kind of sink, its class, and the file or distribution that brings it."""

    kind: str
    cls: type[Sink]
    origin: str


@dataclass(frozen=True, slots=True)
class Discovered:
    """What was found: usable kinds, and the faults of what is not usable."""

    kinds: Mapping[str, SinkKind]
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class _Search:
    disabled: frozenset[str]
    kinds: dict[str, SinkKind] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Every name that `plugins.disabled` could have meant."""

    def off(self, *names: str) -> bool:
        self.seen.update(names)
        return not self.disabled.isdisjoint(names)


class _Broken(Exception):
    """A plugin's fault, in words."""


def discover(directories: Sequence[Path], disabled: Sequence[str]) -> Discovered:
    """All kinds of sink. `disabled` names drop-in files (without .py), entry points or
    distributions. Never raises for a plugin's fault."""
    search = _Search(frozenset(disabled))
    for point in sorted(entry_points(group=GROUP), key=lambda point: (_origin(point), point.name)):
        names = (point.name, point.dist.name) if point.dist is not None else (point.name,)
        if not search.off(*names):
            _examine(search, _origin(point), lambda point=point: point.load())  # type: ignore[misc]
    for directory in directories:
        for file in _drop_ins(search, directory):
            if not search.off(file.stem):
                _examine(search, str(file), lambda file=file: _load(file))  # type: ignore[misc]
    for name in sorted(search.disabled - search.seen):
        near = did_you_mean(name, search.seen)
        search.faults.append(
            Fault("plugins.disabled", f"no plugin has this name{near}", f'"{name}"')
        )
    return Discovered(search.kinds, tuple(search.faults))


def _origin(point: EntryPoint) -> str:
    """`logfan 0.1.0 (logfan_sinks.file)`"""
    dist = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "?"
    return f"{dist} ({point.value})"


def _examine(search: _Search, origin: str, load: Callable[[], object]) -> None:
    """Load one plugin and take its kinds; whatever goes wrong becomes a fault."""
    try:
        with _quiet_stdout():
            registered = _registered(origin, load)
    except _Broken as broken:
        search.faults.append(Fault(origin, str(broken)))
        return
    for kind, cls in registered:
        taken = search.kinds.get(kind)
        if taken is not None:
            problem = (
                f'claims the kind "{kind}", which {taken.origin} has already; rename one, or '
                "name one of the two in plugins.disabled"
            )
            search.faults.append(Fault(origin, problem))
            continue
        search.kinds[kind] = SinkKind(kind, cls, origin)


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """What a plugin prints while it is loaded must not mix with what a command prints."""
    with redirect_stdout(sys.stderr):
        yield


def _registered(origin: str, load: Callable[[], object]) -> list[tuple[str, type[Sink]]]:
    """Import, ask the hook, and check each class. Raises _Broken."""
    try:
        module = load()
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        raise _Broken(f"cannot be imported: {_words(error, origin)}") from None
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, origin)
        manager.check_pending()
    except (pluggy.PluginValidationError, TypeError) as error:
        raise _Broken(_hook_words(error)) from None
    if not manager.hook.register_sinks.get_hookimpls():
        raise _Broken(f"registers no sink; {_SKELETON}")
    registered: list[tuple[str, type[Sink]]] = []

    def register(kind: str, cls: type[Sink]) -> None:
        _check(kind, cls)
        if kind in dict(registered):
            raise _Broken(f'registers the kind "{kind}" twice')
        registered.append((kind, cls))

    try:
        manager.hook.register_sinks(register=register)
    except _Broken:
        raise
    except BaseException as error:  # noqa: BLE001 - as above
        raise _Broken(f"register_sinks failed: {_words(error, origin)}") from None
    if not registered:
        raise _Broken('its register_sinks registers nothing; call register("kind", SinkClass)')
    return registered


def _hook_words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    match = re.search(r"unknown hook '([^']+)'", text)
    if match is not None:
        return f"has a hook {match[1]!r} that logfan does not know; the only hook is register_sinks"
    if "Argument" in text:
        return "its register_sinks must take exactly one parameter, named register"
    return text


def _check(kind: object, cls: object) -> None:
    """Raise _Broken where this cannot be a sink."""
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise _Broken(
            f"registers the kind {kind!r}; a kind is made of lower-case letters, digits, - and _"
        )
    if not isinstance(cls, type):
        raise _Broken(f'registers for "{kind}" {cls!r}, which is no class; leave out the ()')
    if not issubclass(cls, Sink):
        raise _Broken(f'registers for "{kind}" {cls.__name__}, which is no subclass of logfan.Sink')
    name = cls.__name__
    if cls.write is Sink.write:
        near = did_you_mean("write", [key for key in vars(cls) if not key.startswith("__")])
        raise _Broken(f"{name} has no write(self, records){near.replace('did you mean', 'is it')}")
    if cls.__init__ is not Sink.__init__:
        raise _Broken(f"{name} overrides __init__; acquire what it needs in open(self) instead")
    for method, parameters in (("open", 0), ("write", 1), ("flush", 0), ("close", 0)):
        _check_method(name, method, getattr(cls, method), parameters)
    config = cls.Config
    if not (isinstance(config, type) and issubclass(config, SinkConfig)):
        raise _Broken(f"{name}.Config must be a subclass of logfan.SinkConfig")
    clashes = [key for key in config.model_fields if key in HOST_KEYS]
    if clashes:
        raise _Broken(f"{name}.Config has the key {clashes[0]!r}, which belongs to logfan itself")
    try:
        config.model_json_schema()
    except Exception as error:  # noqa: BLE001 - a type that no TOML value can become
        said = str(error).splitlines()[0]
        raise _Broken(f"{name}.Config has a type that TOML cannot give: {said}") from None


def _check_method(name: str, method: str, function: object, parameters: int) -> None:
    if not callable(function):
        raise _Broken(f"{name}.{method} is no method")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _Broken(f"{name}.{method} is async; a sink runs on its own thread and may block")
    if inspect.isgeneratorfunction(function):
        raise _Broken(f"{name}.{method} has a yield in it, so it would do nothing when called")
    try:
        inspect.signature(function).bind(*[None] * (parameters + 1))
    except TypeError:
        takes = "self, records" if parameters else "self"
        raise _Broken(f"{name}.{method} must take ({takes})") from None


def _words(error: BaseException, origin: str) -> str:
    """The error in words, with the line of the plugin's own code that it came from."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    text = " ".join(str(error).split()) or "no reason given"
    if isinstance(error, ModuleNotFoundError):
        text += "; install it into the environment that logfan runs in"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == origin]
    line = f" (line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{line}"


# Drop-in folders


def _drop_ins(search: _Search, directory: Path) -> list[Path]:
    """The folder's plugin files, sorted by name; those that others may write are faults."""
    if not directory.exists() and not directory.is_symlink():
        return []
    if not directory.is_dir():
        search.faults.append(Fault(str(directory), "plugins.directories must name folders"))
        return []
    unsafe = _who_else_writes(directory)
    if unsafe is not None:
        search.faults.append(Fault(str(directory), unsafe))
        return []
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names, sorted as strings
    except OSError as error:
        problem = f"cannot be listed: {(error.strerror or str(error)).lower()}"
        search.faults.append(Fault(str(directory), problem))
        return []
    files = []
    for name in names:
        if not name.endswith(".py") or name.startswith(("_", ".")):
            continue
        file = directory / name
        if not file.is_file():
            search.faults.append(Fault(str(file), "is no file, or a link to nowhere"))
            continue
        unsafe = _who_else_writes(file)
        if unsafe is None:
            files.append(file)
        elif not search.off(file.stem):
            search.faults.append(Fault(str(file), unsafe))
    return files


def _who_else_writes(path: Path) -> str | None:
    """Why the path is not safe to run code from; None where only root and we may write it."""
    real = path.resolve()
    status = real.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user id {status.st_uid}; refused: chown root {real}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everyone" if status.st_mode & stat.S_IWOTH else "its group"
        return f"may be written by {who}; refused: chmod go-w {real}"
    return None


_loaded: dict[tuple[str, int, int], ModuleType] = {}


def _load(file: Path) -> ModuleType:
    """Import a drop-in under a name of its own; an unchanged file is imported once in a process,
    so that a reload does not run it again."""
    status = file.stat()
    key = (str(file), status.st_mtime_ns, status.st_size)
    if key in _loaded:
        return _loaded[key]
    name = f"logfan_dropin_{len(_loaded)}_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = module_from_spec(spec)
    # A plugin's folder is not ours to write into; dataclasses look their module up by name.
    sys.modules[name] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    _loaded[key] = module
    return module
