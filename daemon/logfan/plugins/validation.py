"""Whether a class can be a sink, or a transform; else why not, and what would be right."""

import inspect
import re
import warnings
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakSet

from logfan.faults import did_you_mean
from logfan.runtime.foreign_text import text_of, type_name
from logfan.sink import Sink, SinkConfig
from logfan.transform import Transform, TransformConfig

HOST_KEYS = (
    "kind", "required", "batch", "retry", "where", "on_error", "sample", "transforms", "redact",
)  # fmt: skip
"""The keys of each sink's table that its class never gets. `decode` is passed on to a class that
has it."""
_TRANSFORM_KEYS = ("kind",)
Base = TypeVar("Base", bound=Sink | Transform)
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Kind(Generic[Base]):
    """A kind of sink or transform, its class, and the file or distribution that brings it."""

    kind: str
    cls: type[Base]
    origin: str


class PluginError(Exception):
    """A plugin's fault, as a message for its author."""


def check(kind: object, cls: object) -> type[Sink]:
    """The class. Raises PluginError where it cannot be a sink."""
    sink = _class_below(Sink, kind, cls, "write", "acquire what it needs in open(self)")
    for method, parameters in (("open", 0), ("write", 1), ("flush", 0), ("close", 0)):
        _check_method(sink, method, parameters)
        if inspect.isgeneratorfunction(getattr(sink, method)):
            raise PluginError(
                f"{sink.__name__}.{method} has a yield in it, so it would do nothing when called"
            )
    for method in ("conflicts", "advice"):
        _check_class_method(sink, method)
    _check_config(sink, SinkConfig, HOST_KEYS)
    return sink


def check_transform(kind: object, cls: object) -> type[Transform]:
    """The class. Raises PluginError where it cannot be a transform."""
    transform = _class_below(Transform, kind, cls, "apply", "make what it needs at the first use")
    _check_method(transform, "apply", 1)
    _check_config(transform, TransformConfig, _TRANSFORM_KEYS)
    return transform


_WITH_SCHEMA = WeakSet[type[SinkConfig]]()
"""Options whose types are known to be fine, so that a reload need not look again."""


def why_unusable(cls: type[Sink]) -> str | None:
    """Why the host would not take this class as a sink; None where it would."""
    try:
        check("a-kind", cls)
    except PluginError as broken:
        return str(broken)
    return None


def _class_below(
    base: type[Base], kind: object, cls: object, method: str, instead: str
) -> type[Base]:
    """The class, which must have the method. `instead`: of an `__init__` of its own."""
    if isinstance(kind, type) and isinstance(cls, str):
        raise PluginError(
            f"registers the kind {kind!r}; the order is register(kind, class): "
            f'register("{cls}", {kind.__name__})'
        )
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise PluginError(
            f"registers the kind {kind!r}; a kind is made of lower-case letters, digits, - and _"
        )
    if not isinstance(cls, type):
        raise PluginError(f'registers for "{kind}" {cls!r}, which is no class; leave out the ()')
    if not issubclass(cls, base):
        raise PluginError(
            f'registers for "{kind}" {cls.__name__}, which is no subclass of logfan.{base.__name__}'
        )
    if getattr(cls, method) is getattr(base, method):
        near = did_you_mean(method, [key for key in vars(cls) if not key.startswith("__")])
        near = near.replace("did you mean", "is it")
        raise PluginError(f"{cls.__name__} has no {method}(self, records){near}")
    if cls.__init__ is not base.__init__:
        raise PluginError(f"{cls.__name__} overrides __init__; {instead} instead")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise PluginError(f"{cls.__name__} is abstract; it lacks {missing}")
    return cls


def _check_config(
    cls: type[Sink] | type[Transform], base: type[SinkConfig], host_keys: Collection[str]
) -> None:
    name, config = cls.__name__, cls.Config
    if not (isinstance(config, type) and issubclass(config, SinkConfig)):
        raise PluginError(f"{name}.Config must be a subclass of logfan.{base.__name__}")
    for field_name, info in config.model_fields.items():
        for key in (field_name, info.validation_alias):
            if key in host_keys:
                raise PluginError(
                    f"{name}.Config has the key {key!r}, which belongs to logfan itself"
                )
    if config in _WITH_SCHEMA:
        return
    try:
        with warnings.catch_warnings():
            # A default without a form in JSON is only shown differently.
            warnings.simplefilter("ignore")
            config.model_json_schema()
            _WITH_SCHEMA.add(config)
    except Exception as error:  # noqa: BLE001 - a type that no TOML value can become
        why = (text_of(error).splitlines() or [type_name(error)])[0]
        if lacking := re.search(r"not fully defined; you should define `?(\w+)", why):
            raise PluginError(
                f"{name}.Config names the type {lacking[1]}, which is not there when it runs; "
                "define it, or import it outside of `if TYPE_CHECKING`"
            ) from None
        raise PluginError(f"{name}.Config has a type that TOML cannot give: {why}") from None


def _check_method(cls: type, method: str, parameters: int) -> None:
    name, function = cls.__name__, getattr(cls, method)
    if not callable(function):
        raise PluginError(f"{name}.{method} is no method")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{name}.{method} is async; a sink runs on its own thread and may block")
    try:
        inspect.signature(function).bind(*[None] * (parameters + 1))
    except TypeError:
        takes = "self, records" if parameters else "self"
        raise PluginError(f"{name}.{method} must take ({takes})") from None


def _check_class_method(cls: type, method: str) -> None:
    """`conflicts` and `advice` are asked of the class, before there is a sink."""
    function = getattr(cls, method)
    is_wrong = inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)
    with suppress(TypeError):
        inspect.signature(function).bind(None)
        if not is_wrong:
            return
    raise PluginError(
        f"{cls.__name__}.{method} must be a class method that returns a dict: @classmethod above "
        f"def {method}(cls, configs)"
    )
