"""For authors of sinks: records to try with, a conformance suite, a pipeline without a broker,
and a real private RabbitMQ. Loaded at first use: the node needs none of the others' imports.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logfan.testing.clock import FakeClock
    from logfan.testing.conformance import ConformanceWarning, SinkConformance, same_json
    from logfan.testing.node import NodeUnavailable, RabbitNode
    from logfan.testing.pipeline import Pipeline
    from logfan.testing.records import hostile_records, record

__all__ = [
    "ConformanceWarning",
    "FakeClock",
    "NodeUnavailable",
    "Pipeline",
    "RabbitNode",
    "SinkConformance",
    "hostile_records",
    "record",
    "same_json",
]

_HOMES = {
    "clock": ("FakeClock",),
    "conformance": ("ConformanceWarning", "SinkConformance", "same_json"),
    "node": ("NodeUnavailable", "RabbitNode"),
    "pipeline": ("Pipeline",),
    "records": ("hostile_records", "record"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"logfan.testing.{home}"), name)
    raise AttributeError(f"module 'logfan.testing' has no public name {name!r}")


def __dir__() -> list[str]:
    return __all__
