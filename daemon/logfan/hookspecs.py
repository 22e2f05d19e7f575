"""The hooks a plugin module may implement. pluggy registers; it never carries records."""

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    from logfan.sink import Sink
    from logfan.transform import Transform

PROJECT = "logfan"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_sinks(register: "Callable[[str, type[Sink]], None]") -> None:
    """Call `register(kind, SinkClass)` once for each sink kind that this plugin brings.

    Called once, at start and at `logfan check`, on the main thread and before any connection
    is made. `kind` is what people write as `kind = "…"` in a `[sinks.NAME]` table: lower-case
    letters, digits, `-` and `_`.
    """


@hookspec
def register_transforms(register: "Callable[[str, type[Transform]], None]") -> None:
    """Call `register(kind, TransformClass)` once for each transform that this plugin brings.

    Called as `register_sinks` is. `kind` is what people write in `transforms = [{ kind = "…" }]` of
    a `[sinks.NAME]` table, made of the same characters.
    """
