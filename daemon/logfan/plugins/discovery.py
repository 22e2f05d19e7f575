"""Find plugins, check them, and give `{kind: class}` with where each came from.

Entry points of the group `logfan` first, then drop-in folders, each sorted by file name. A
plugin's fault never ends the search: all faults are told together. What may be written by others
is never run.
"""

import hashlib
import importlib
import inspect
import os
import re
import stat
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

import pluggy

from logfan import hookspecs
from logfan.api import Sink, SinkConfig
from logfan.faults import Fault, did_you_mean
from logfan.runtime.foreign_text import line_of, text_of, type_name

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
    for directory in dict.fromkeys(directories):
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
    text = line_of(error)
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
    _check_class(cls)
    _check_config(cls)


def why_unusable(cls: type[Sink]) -> str | None:
    """Why the host would not take this class as a sink; None where it would."""
    try:
        _check("a-kind", cls)
    except _Broken as broken:
        return str(broken)
    return None


def _check_class(cls: type[Sink]) -> None:
    name = cls.__name__
    if cls.write is Sink.write:
        near = did_you_mean("write", [key for key in vars(cls) if not key.startswith("__")])
        raise _Broken(f"{name} has no write(self, records){near.replace('did you mean', 'is it')}")
    if cls.__init__ is not Sink.__init__:
        raise _Broken(f"{name} overrides __init__; acquire what it needs in open(self) instead")
    for method, parameters in (("open", 0), ("write", 1), ("flush", 0), ("close", 0)):
        _check_method(name, method, getattr(cls, method), parameters)
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise _Broken(f"{name} is abstract; it lacks {missing}")


def _check_config(cls: type[Sink]) -> None:
    name, config = cls.__name__, cls.Config
    if not (isinstance(config, type) and issubclass(config, SinkConfig)):
        raise _Broken(f"{name}.Config must be a subclass of logfan.SinkConfig")
    for field_name, info in config.model_fields.items():
        for key in (field_name, info.validation_alias):
            if key in HOST_KEYS:
                raise _Broken(f"{name}.Config has the key {key!r}, which belongs to logfan itself")
    try:
        with warnings.catch_warnings():
            # A default that JSON cannot say is only shown in other words.
            warnings.simplefilter("ignore")
            config.model_json_schema()
    except Exception as error:  # noqa: BLE001 - a type that no TOML value can become
        said = (text_of(error).splitlines() or [type_name(error)])[0]
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
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_A_PLUGIN)
    ]
    # The first file that is neither ours nor the import's is the plugin's.
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    text = f"{type_name(error)}: {line_of(error) or 'no reason given'}"
    file, line = (own[0].filename, own[-1].lineno) if own else (None, None)
    if isinstance(error, SyntaxError):  # it is in a file that did not come to run
        text, file, line = line_of(error.msg), error.filename, error.lineno
    elif isinstance(error, ModuleNotFoundError):
        text += "; install it into the environment that logfan runs in"
    where = [] if file is None or file == os.path.abspath(origin) else [file]  # noqa: PTH100 - text
    where += [f"line {line}"] if line is not None else []
    return f"{text} ({', '.join(where)})" if where else text


_NOT_A_PLUGIN = (
    __file__,
    "<frozen",
    str(Path(importlib.__file__ or "").parent),
    str(Path(pluggy.__file__).parent),
)


# Drop-in folders


def _drop_ins(search: _Search, directory: Path) -> list[Path]:
    """The folder's plugin files, sorted by name; those that others may write are faults."""
    try:
        names = _listed(directory)
    except _Broken as broken:
        search.faults.append(Fault(str(directory), str(broken)))
        return []
    files = []
    for name in names:
        if not name.endswith(".py") or name.startswith(("_", ".")):
            continue
        file = directory / name
        try:
            unsafe = _who_writes(file) if file.is_file() else "is no file, or a link to nowhere"
        except OSError as error:
            unsafe = _cannot("be reached", error)
        if unsafe is None:
            files.append(file)
        elif not search.off(file.stem):
            search.faults.append(Fault(str(file), unsafe))
    return files


def _listed(directory: Path) -> list[str]:
    """The names in a folder, sorted; none where it is missing. Raises _Broken."""
    try:
        directory.lstat()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _Broken(_cannot("be reached", error)) from None
    try:
        if not directory.exists():
            raise _Broken("is a link to nowhere")
        if not directory.is_dir():
            raise _Broken("is no folder; plugins.directories must name folders")
        unsafe = _who_writes(directory)
        if unsafe is not None:
            raise _Broken(unsafe)
        return sorted(os.listdir(directory))  # noqa: PTH208 - names, sorted as strings
    except OSError as error:
        raise _Broken(_cannot("be listed", error)) from None


def _cannot(what: str, error: OSError) -> str:
    return f"cannot {what}: {(error.strerror or str(error)).lower()}"


def _who_writes(path: Path) -> str | None:
    """Why the path is not safe to run code from; None where only root and we may write it.

    The path itself is looked at, and every folder above it: who may write there may put another
    in its place, but for folders such as /tmp, where everyone may only move what is theirs.
    """
    real = path.resolve()
    for place in (real, *real.parents):
        status = place.stat()
        about = "" if place == real else f"lies in {place}, which "
        # Where a namespace hides who root is, the folders above cannot be judged by their owner.
        owners = (0, os.geteuid()) if place == real else (0, os.geteuid(), _UNMAPPED)
        if status.st_uid not in owners:
            return f"{about}belongs to user id {status.st_uid}; refused: chown root {place}"
        open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if open_to_others and (place == real or not status.st_mode & stat.S_ISVTX):
            who = "everyone" if status.st_mode & stat.S_IWOTH else "its group"
            return f"{about}may be written by {who}; refused: chmod go-w {place}"
    return None


_UNMAPPED = 65534
"""What a user id looks like that has no place in the namespace."""


class _SourceLoader(SourceFileLoader):
    """Runs the source that was looked at, never what lies compiled beside it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_loaded: dict[Path, ModuleType] = {}
_sources: dict[Path, bytes | None] = {}


def changed_since_loaded() -> list[Path]:
    """Drop-ins whose file is no longer what this process runs: new code takes a new start."""
    return [file for file, source in _sources.items() if _digest(file) != source]


def _digest(file: Path) -> bytes | None:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return None


def _load(file: Path) -> ModuleType:
    """Import a drop-in under a name of its own, and only once in a process: a reload must not
    run it a second time beside itself."""
    file = file.absolute()
    if file in _loaded:
        return _loaded[file]
    source = _digest(file)
    name = f"logfan_dropin_{len(_loaded)}_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}"
    spec = spec_from_loader(name, _SourceLoader(name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for one, look their module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _loaded[file], _sources[file] = module, source
    return module
