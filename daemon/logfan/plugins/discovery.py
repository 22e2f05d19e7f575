"""Find plugins, check them, and give `{kind: class}` of sinks and transforms, with where each came
from.

Entry points of the group `logfan` first, then drop-in folders, each sorted by file name. A
plugin's fault never ends the search: all faults are reported together. What others may write
is never run.
"""

import ast
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy
from pydantic import PydanticUserError

from logfan import hookspecs
from logfan.faults import Fault, did_you_mean
from logfan.plugins.drop_ins import load, plugin_files
from logfan.plugins.validation import Kind, PluginError, check, check_transform
from logfan.runtime.foreign_text import line_of, type_name
from logfan.sink import Sink
from logfan.transform import Transform

GROUP = "logfan"
_OWN = "logfan"
"""Our distribution: each of its entry points is named after the one kind that it brings."""
_HOOKS: Mapping[str, tuple[str, Callable[[object, object], type[Any]], str]] = {
    "register_sinks": ("kind", check, "SinkClass"),
    "register_transforms": ("transform", check_transform, "TransformClass"),
}
"""What each hook registers, how a class is checked, and how it is called in a fault."""
_SKELETON = (
    "write @logfan.hookimpl above def register_sinks(register), or, for a transform, above def "
    "register_transforms(register)"
)


@dataclass(slots=True)
class Discovered:
    """What was found: usable kinds, and the faults of what is not usable."""

    kinds: dict[str, Kind[Sink]] = field(default_factory=dict)
    transforms: dict[str, Kind[Transform]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Where those plugins come from that could not be loaded: what they bring is not known."""
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where each comes from, by "kind" or "transform" and its name; also what was not loaded."""

    @property
    def known(self) -> Collection[str]:
        """All kinds of sink, those that were not loaded too."""
        return [name for what, name in self.origins if what == "kind"]

    def claim(self, what: str, name: str, origin: str) -> bool:
        """Whether no plugin before has this kind or transform; else that is a fault."""
        if (what, name) not in self.origins:
            self.origins[what, name] = origin
            return True
        problem = (
            f'claims the {what} "{name}", which {self.origins[what, name]} has already; rename '
            "one, or name one of the two in plugins.disabled"
        )
        self.faults.append(Fault(origin, problem))
        return False


def discover(
    directories: Sequence[Path], disabled: Sequence[str], used: Collection[str] | None = None
) -> Discovered:
    """All kinds of sink and of transform. `disabled` names drop-in files (without .py), entry
    points or distributions. Of logfan's own sinks only the kinds in `used` are loaded; None means
    all. Never raises for a plugin's fault."""
    found = Discovered()
    names: set[str] = set()
    for origin, name, distribution, point in _installed():
        names |= {name, distribution}
        if name in disabled or distribution in disabled:
            continue
        if used is not None and distribution == _OWN and name not in used:
            found.claim("kind", name, origin)
        else:
            _examine(found, origin, point.load)
    for directory in dict.fromkeys(directories):
        try:
            files = plugin_files(directory)
        except PluginError as broken:
            found.faults.append(Fault(str(directory), str(broken)))
            continue
        for file, unsafe in files:
            names.add(file.stem)
            if file.stem in disabled:
                continue
            if unsafe is None:
                _examine(found, str(file), partial(load, file))
            else:
                found.faults.append(Fault(str(file), unsafe))
                found.broken.append(str(file))
    for name in sorted({*disabled} - names):
        near = did_you_mean(name, names)
        found.faults.append(
            Fault("plugins.disabled", f"no plugin has this name{near}", f'"{name}"')
        )
    return found


def _installed() -> list[tuple[str, str, str, EntryPoint]]:
    """The entry points in order: origin, as `logfan 0.1.0 (logfan_sinks.file)`, name, and the
    distribution's name."""
    # The metadata of a distribution is parsed each time it is asked for.
    known: dict[Distribution | None, tuple[str, str]] = {None: ("?", "?")}
    found = []
    for point in entry_points(group=GROUP):
        if point.dist is not None and point.dist not in known:
            about = point.dist.metadata
            known[point.dist] = about["Name"], f"{about['Name']} {about['Version']}"
        name, title = known[point.dist]
        found.append((f"{title} ({point.value})", point.name, name, point))
    return sorted(found, key=lambda one: one[:2])


def _examine(found: Discovered, origin: str, load: Callable[[], object]) -> None:
    """Load one plugin and take its kinds; whatever goes wrong becomes a fault."""
    try:
        # What a plugin prints while it is loaded must not mix with what a command prints.
        with redirect_stdout(sys.stderr):
            registered = _registered(origin, load)
    except PluginError as broken:
        found.faults.append(Fault(origin, str(broken)))
        found.broken.append(origin)
        return
    for (what, kind), cls in registered.items():
        if found.claim(what, kind, origin):
            kinds: dict[str, Kind[Any]] = found.kinds if what == "kind" else found.transforms
            kinds[kind] = Kind(kind, cls, origin)


def _registered(origin: str, load: Callable[[], object]) -> Mapping[tuple[str, str], type[Any]]:
    """Import, ask the hooks, and check each class: what one plugin brings, by "kind" or "transform"
    and its name. Raises PluginError."""
    try:
        module = load()
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        raise PluginError(f"cannot be imported: {_problem(error, origin)}") from None
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, origin)
        manager.check_pending()
    except (pluggy.PluginValidationError, TypeError) as error:
        raise PluginError(_hook_problem(error)) from None
    found: dict[tuple[str, str], type[Any]] = {}

    def register(
        what: str, check: Callable[[object, object], type[Any]], kind: str, cls: object
    ) -> None:
        checked = check(kind, cls)
        if (what, kind) in found:
            raise PluginError(_twice(what, kind, found[what, kind], checked))
        found[what, kind] = checked

    register.__qualname__ = register.__name__  # authors see it where they call it in another way

    used = {name: hook for name in _HOOKS if (hook := getattr(manager.hook, name)).get_hookimpls()}
    if not used:
        raise PluginError(f"registers no sink; {_SKELETON}")
    for name, hook in used.items():
        what, check, example = _HOOKS[name]
        if any(inspect.iscoroutinefunction(one.function) for one in hook.get_hookimpls()):
            raise PluginError(f"its {name} is async; leave out the async")
        before = len(found)
        try:
            hook(register=partial(register, what, check))
        except PluginError:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            raise PluginError(f"{name} failed: {_problem(error, origin)}") from None
        if len(found) == before:
            raise PluginError(f'its {name} registers nothing; call register("kind", {example})')
    return found


def _twice(what: str, kind: str, first: type, second: type) -> str:
    both = f"for {first.__name__} and for {second.__name__}; give one of them another name"
    if first is second:
        both = f"for {first.__name__}; leave one of the calls out"
    return f'registers the {what} "{kind}" twice, {both}'


def _hook_problem(error: BaseException) -> str:
    text = line_of(error)
    match = re.search(r"unknown hook '([^']+)'", text)
    if match is not None:
        near = did_you_mean(match[1], _HOOKS).replace('"', "")
        hooks = near or f"; the hooks are {' and '.join(_HOOKS)}"
        return f"has a hook {match[1]!r} that logfan does not know{hooks}"
    if "Argument" in text:
        name = next((name for name in _HOOKS if name in text), "register_sinks")
        return f"its {name} must take exactly one parameter, named register"
    return text


def _problem(error: BaseException, origin: str) -> str:
    """The error as text, with the line of the plugin's own code that it came from."""
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
        text += f"; {_missing_module(error.name or '', origin)}"
    elif isinstance(error, PydanticUserError):
        text = _config_problem(error) or text
    where = [] if file is None or file == os.path.abspath(origin) else [file]  # noqa: PTH100 - text
    where += [f"line {line}"] if line is not None else []
    return f"{text} ({', '.join(where)})" if where else text


def _missing_module(name: str, origin: str) -> str:
    """The way out, where a plugin imports what is not there."""
    top = name.partition(".")[0]
    neighbour = Path(origin).parent / top  # of a drop-in; of a distribution there is none
    if top and (neighbour.with_name(f"{top}.py").is_file() or neighbour.is_dir()):
        return (
            f"{neighbour.parent} holds {top}, but a drop-in is one file and cannot import its "
            "neighbours: put both into one file, or make a package (logfan generate plugin)"
        )
    return "install it into the environment that logfan runs in"


def _config_problem(error: PydanticUserError) -> str | None:
    """What is wrong with the class of a `Config`, where that is a key without a type."""
    option = re.search(r"non-annotated attribute was detected: `(\w+) = (.*?)`", str(error))
    if error.code != "model-field-missing-annotation" or option is None:
        return None
    name, default = option.groups()
    try:
        kind = type(ast.literal_eval(default)).__name__
    except (ValueError, SyntaxError):
        kind = "TYPE"
    return (
        f"the Config's {name} = {default} has no type; annotate it: {name}: {kind} = {default}, or "
        f"{name}: typing.ClassVar = {default} where it is no key"
    )


_NOT_A_PLUGIN = (
    str(Path(__file__).parent),
    "<frozen",
    str(Path(importlib.__file__ or "").parent),
    str(Path(pluggy.__file__).parent),
)
