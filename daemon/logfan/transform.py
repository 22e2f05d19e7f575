"""A transform to subclass: what a sink gets of each record, changed in code. Public names of
`logfan`."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from logfan.record import Record
from logfan.sink import ConfigT, Configured, SinkConfig


class TransformConfig(SinkConfig):
    """The keys of a table of `transforms`: subclass it, and name it in `Transform[…]`.

    It is as `SinkConfig` is.
    """


class Transform(Configured[ConfigT]):
    """Changes or filters the records of one sink. Subclass it and override `apply`.

    `class Stamp(Transform[StampConfig])` names your options, so that type checkers know
    `self.config`. A class `Config` inside the transform does as well, and is `Any` to them.

    Each sink that names it has one of its own, which runs on the sink's thread: no locks are
    needed, and blocking is fine. Do not override `__init__`: make what you need at the first use.
    """

    Config: ClassVar[type[SinkConfig]] = TransformConfig
    """Your options: a subclass of `TransformConfig`. Set by `Transform[…]`."""

    def apply(self, records: Sequence[Record]) -> Iterable[Record | None]:
        """For each record, in their order: itself, another (`record.replace`), or None, which
        filters it.

        Decide by the record alone: after a failure the same one comes again. Raise
        `SinkUnavailable` for "not now". Any other exception is that of a record where it comes
        again for this one alone while others pass: then the record is dead-lettered.
        """
        raise NotImplementedError
