"""A transform to subclass: what a sink gets of each record, changed in code. Public names of
`logfan`."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from logfan.record import Record
from logfan.sink import SinkConfig


class TransformConfig(SinkConfig):
    """The keys of a table of `transforms`: subclass it inside your transform as `Config`.

    As `SinkConfig`: unknown keys are faults, and a docstring below a field becomes its meaning in
    `logfan sinks KIND`.
    """


class Transform:
    """Changes or filters the records of one sink. Subclass it and override `apply`.

    Each sink that names it has one of its own, which runs on the sink's thread: no locks are
    needed, and blocking is fine. Do not override `__init__`: make what you need at the first use.
    """

    Config: ClassVar[type[SinkConfig]] = TransformConfig
    """Your options: a subclass of `TransformConfig`."""

    def __init__(self, config: Any, *, name: str = "sink", instance: str = "") -> None:
        self.config: Any = config
        """Your `Config`, validated."""
        self.name = name
        """The NAME of `[sinks.NAME]`."""
        self.instance = instance
        """Which instance of the daemon this is; empty where there is only one."""
        self.log = logging.getLogger(f"logfan.sink.{name}")
        """Logs to the operator."""

    def apply(self, records: Sequence[Record]) -> Iterable[Record | None]:
        """For each record, in their order: itself, another (`record.replace`), or None, which
        filters it.

        Decide by the record alone: after a failure the same one comes again. Raise
        `SinkUnavailable` for "not now". Any other exception is that of a record where it comes
        again for this one alone while others pass: then the record is dead-lettered.
        """
        raise NotImplementedError
