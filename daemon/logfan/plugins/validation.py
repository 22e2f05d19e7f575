"""Whether a class can be a sink; else why not, and what would be right."""

import inspect
import re
import warnings
from dataclasses import dataclass

from logfan.faults import did_you_mean
from logfan.runtime.foreign_text import text_of, type_name
from logfan.sink import Sink, SinkConfig

HOST_KEYS = ("kind", "required", "batch", "retry")
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A kind of sink, its class, and the file or distribution that brings it."""

    kind: str
    cls: type[Sink]
    origin: str


class PluginError(Exception):
    """A plugin's fault, as a message for its author."""


def check(kind: object, cls: object) -> None:
    """Raise PluginError where this cannot be a sink."""
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise PluginError(
            f"registers the kind {kind!r}; a kind is made of lower-case letters, digits, - and _"
        )
    if not isinstance(cls, type):
        raise PluginError(f'registers for "{kind}" {cls!r}, which is no class; leave out the ()')
    if not issubclass(cls, Sink):
        raise PluginError(
            f'registers for "{kind}" {cls.__name__}, which is no subclass of logfan.Sink'
        )
    _check_class(cls)
    _check_config(cls)


def why_unusable(cls: type[Sink]) -> str | None:
    """Why the host would not take this class as a sink; None where it would."""
    try:
        check("a-kind", cls)
    except PluginError as broken:
        return str(broken)
    return None


def _check_class(cls: type[Sink]) -> None:
    name = cls.__name__
    if cls.write is Sink.write:
        near = did_you_mean("write", [key for key in vars(cls) if not key.startswith("__")])
        raise PluginError(
            f"{name} has no write(self, records){near.replace('did you mean', 'is it')}"
        )
    if cls.__init__ is not Sink.__init__:
        raise PluginError(f"{name} overrides __init__; acquire what it needs in open(self) instead")
    for method, parameters in (("open", 0), ("write", 1), ("flush", 0), ("close", 0)):
        _check_method(name, method, getattr(cls, method), parameters)
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise PluginError(f"{name} is abstract; it lacks {missing}")


def _check_config(cls: type[Sink]) -> None:
    name, config = cls.__name__, cls.Config
    if not (isinstance(config, type) and issubclass(config, SinkConfig)):
        raise PluginError(f"{name}.Config must be a subclass of logfan.SinkConfig")
    for field_name, info in config.model_fields.items():
        for key in (field_name, info.validation_alias):
            if key in HOST_KEYS:
                raise PluginError(
                    f"{name}.Config has the key {key!r}, which belongs to logfan itself"
                )
    try:
        with warnings.catch_warnings():
            # A default without a form in JSON is only shown differently.
            warnings.simplefilter("ignore")
            config.model_json_schema()
    except Exception as error:  # noqa: BLE001 - a type that no TOML value can become
        why = (text_of(error).splitlines() or [type_name(error)])[0]
        raise PluginError(f"{name}.Config has a type that TOML cannot give: {why}") from None


def _check_method(name: str, method: str, function: object, parameters: int) -> None:
    if not callable(function):
        raise PluginError(f"{name}.{method} is no method")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{name}.{method} is async; a sink runs on its own thread and may block")
    if inspect.isgeneratorfunction(function):
        raise PluginError(f"{name}.{method} has a yield in it, so it would do nothing when called")
    try:
        inspect.signature(function).bind(*[None] * (parameters + 1))
    except TypeError:
        takes = "self, records" if parameters else "self"
        raise PluginError(f"{name}.{method} must take ({takes})") from None
