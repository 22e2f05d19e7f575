"""A sink to subclass, its config, and the two ways it fails.

Everything public here is also a name of `logfan`.
"""

import logging
import sys
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from typing_extensions import TypeVar

from logfan.record import Record
from logfan.runtime.file_names import checked_name
from logfan.runtime.threads import SinkThread

_given: ContextVar[Mapping[str, Any] | None] = ContextVar("given", default=None)


def is_default(field: str | None) -> bool:
    """Whether the value of this field that is just validated is the default of a `SinkConfig`."""
    given = _given.get()
    return given is not None and field not in given


class SinkConfig(BaseModel):
    """The keys of a `[sinks.NAME]` table: subclass it, and name it in `Sink[…]`.

    A pydantic model: unknown keys are faults, defaults are validated as well, and a docstring
    below a field becomes its meaning in `logfan sinks KIND`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _logfan_note_given(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        token = _given.set(data if isinstance(data, Mapping) else {})
        try:
            return handler(data)
        finally:
            _given.reset(token)

    @field_validator("*", mode="wrap")
    @classmethod
    def _logfan_check_path(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        """A key that is a path: an empty one would be the working directory."""
        checked = handler(value)
        if isinstance(checked, Path) and not is_default(info.field_name):
            checked_name(value, checked)
        return checked


ConfigT = TypeVar("ConfigT", bound=SinkConfig, default=Any)
_TYPE_VARS = (typing.TypeVar, TypeVar)


class Configured(Generic[ConfigT]):
    """What a sink and a transform have in common: options of their own, and where they stand."""

    Config: ClassVar[type[SinkConfig]] = SinkConfig
    """Your options. Set by the class in brackets."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in vars(cls).get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Configured):
                cls._take_config(origin, get_args(base))

    @classmethod
    def _take_config(cls, origin: "type[Configured[Any]]", arguments: tuple[Any, ...]) -> None:
        """`Config` is what stands in `Sink[…]`, or in the like of a class between."""
        for named in arguments:
            if isinstance(named, type) and issubclass(named, SinkConfig):
                own = vars(cls).get("Config", named)
                if not issubclass(own, named):
                    raise TypeError(
                        f"{cls.__name__} names {named.__name__} in [], and has a Config of its "
                        "own that is no subclass of it: leave one of them out"
                    )
                cls.Config = own
            elif Configured in origin.__bases__ and not (
                named is Any or isinstance(named, _TYPE_VARS)
            ):
                raise TypeError(
                    f"{cls.__name__} names {named!r} in {origin.__name__}[]; put a subclass of "
                    f"logfan.{origin.Config.__name__} there, defined above"
                )

    def __init__(self, config: ConfigT, *, name: str = "sink", instance: str = "") -> None:
        self.config: ConfigT = config
        """Your `Config`, validated."""
        self.name = name
        """The NAME of `[sinks.NAME]`."""
        self.instance = instance
        """Which instance of the daemon this is; empty where there is only one."""
        self.log = logging.getLogger(f"logfan.sink.{name}")
        """Logs to the operator."""


class Sink(Configured[ConfigT]):
    """Where records go. Subclass it, override `write`, and what else you need.

    `class Shout(Sink[ShoutConfig])` names your options, so that type checkers know `self.config`.
    A class `Config` inside the sink does as well, and is `Any` to them.

    The host calls `open`, then `write` and `flush` for each batch, and `close` at the end, all on
    the sink's own thread, one at a time: no locks are needed, and blocking is fine. After a
    failure it waits, calls `open`, and writes again everything since the last `flush` that
    returned. Any method may raise `SinkUnavailable`; any other exception counts as transient too.
    Do not override `__init__`: acquire in `open`.
    """

    Config: ClassVar[type[SinkConfig]] = SinkConfig
    """Your options: a subclass of `SinkConfig`. Set by `Sink[…]`."""

    def open(self) -> None:
        """Acquire what you need. Retried with back-off until it returns.

        Called at start, after every failure, and on SIGHUP, without a `close` between: release
        what an earlier call acquired, then acquire again.
        """

    def write(self, records: Sequence[Record]) -> None:
        """Take the records, in delivery order, or raise. There is at least one.

        With `SinkUnavailable` all records since the last `flush` are written again later.
        `RecordsRejected` refuses the named ones for good: you took all others.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Return only once all that was written is durable: then it is acknowledged.

        Called after each `write`. It may raise what `write` may; indexes of `RecordsRejected` are
        those of the last `write`.
        """

    def close(self) -> None:
        """Release. Called once, last, also where the last `open` failed; harmless when it is called
        again, so that `open` may begin with it."""

    def start_thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Start a thread of your own for what the sink cannot do without.

        Where `work` raises, the daemon ends with exit code 70 and the service manager starts it
        anew, rather than go on with a part of it dead: catch what the sink can live with. To
        return is fine. Raises RuntimeError where the system has no thread left.
        """
        thread = SinkThread(
            name, work, self._logfan_on_fault, sink=self.name, code=_code_of(type(self))
        )
        others = [one for one in self._logfan_threads if one.is_alive or one.fault]
        self._logfan_threads = (*others, thread)  # before it can have ended
        return thread.try_start()

    # The host's own, under names that no sink has.
    _logfan_threads: tuple[SinkThread, ...] = ()

    def _logfan_on_fault(self) -> None:
        """Replaced by the host."""

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """What is wrong between several sinks of this kind: `{name: why}`. Called offline.

        `configs` maps the name of each configured sink of this kind to its `Config`.
        """
        del configs
        return {}

    @classmethod
    def advice(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """What is allowed and likely not meant: `{name: why}`, shown as a warning. Called offline.

        `configs` is as in `conflicts`.
        """
        del configs
        return {}


def _code_of(cls: type) -> str:
    """The class, and the file that it is in."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
    return f"{cls.__name__} in {file}"


class SinkUnavailable(Exception):
    """Transient: the sink cannot take records now. `why` is shown to the operator.

    The host waits at least `retry_after` seconds, where given, before it tries again: a number, or
    its text, as a header has it.
    """

    def __init__(self, why: str = "unavailable", retry_after: float | str | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(why)


class RecordsRejected(Exception):
    """Permanent, for these records alone: `{index in the batch: why}`. All others were taken,
    but for those of `later`, `{index: why}`: these alone are offered again, after at least
    `retry_after` seconds where given, as `SinkUnavailable` takes them. Records that come after
    them are offered meanwhile."""

    def __init__(
        self,
        reasons: Mapping[int, str] = MappingProxyType({}),
        *,
        later: Mapping[int, str] = MappingProxyType({}),
        retry_after: float | str | None = None,
    ) -> None:
        for given in (reasons, later):
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"RecordsRejected takes {{index: why}}, not a {type(given).__name__}: the "
                    "index is the place in what write got, from 0"
                )
        if not reasons and not later:
            raise ValueError("RecordsRejected needs at least one {index: why}")
        self.reasons: Mapping[int, str] = MappingProxyType(dict(reasons))
        self.later: Mapping[int, str] = MappingProxyType(dict(later))
        self.retry_after = retry_after
        counts = (len(self.reasons), "rejected"), (len(self.later), "wanted later")
        shown = [f"{n} record{'s' if n != 1 else ''} {what}" for n, what in counts if n]
        super().__init__(", ".join(shown))
