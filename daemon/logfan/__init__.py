"""logfan: every message of a RabbitMQ fanout exchange to every sink, acknowledged only then.

These are the names a sink plugin may import; nothing else of the host is promised. They are
loaded at first use, so that `logfan --help` need not wait for them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logfan.config.units import Duration, Size
    from logfan.fields import Field, Message, field, shown, time_of
    from logfan.hookspecs import hookimpl
    from logfan.json_format import json_lines, json_pieces
    from logfan.record import Properties, Record
    from logfan.sink import RecordsRejected, Sink, SinkConfig, SinkUnavailable
    from logfan.transform import Transform, TransformConfig

__version__: str
"""The version of the installed distribution."""

__all__ = [
    "Duration",
    "Field",
    "Message",
    "Properties",
    "Record",
    "RecordsRejected",
    "Sink",
    "SinkConfig",
    "SinkUnavailable",
    "Size",
    "Transform",
    "TransformConfig",
    "field",
    "hookimpl",
    "json_lines",
    "json_pieces",
    "shown",
    "time_of",
]

_HOMES = {
    "logfan.config.units": ("Duration", "Size"),
    "logfan.fields": ("Field", "Message", "field", "shown", "time_of"),
    "logfan.hookspecs": ("hookimpl",),
    "logfan.json_format": ("json_lines", "json_pieces"),
    "logfan.record": ("Properties", "Record"),
    "logfan.sink": ("RecordsRejected", "Sink", "SinkConfig", "SinkUnavailable"),
    "logfan.transform": ("Transform", "TransformConfig"),
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("logfan")
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            found = getattr(import_module(home), name)
            globals()[name] = found  # from now on it is found without this function
            return found
    raise AttributeError(f"module 'logfan' has no public name {name!r}")


def __dir__() -> list[str]:
    return __all__
