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
    "ConformanceWarning": "conformance",
    "FakeClock": "clock",
    "NodeUnavailable": "node",
    "Pipeline": "pipeline",
    "RabbitNode": "node",
    "SinkConformance": "conformance",
    "hostile_records": "records",
    "record": "records",
    "same_json": "conformance",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'logfan.testing' has no public name {name!r}")
    from importlib import import_module

    return getattr(import_module(f"logfan.testing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
