"""A kind of sink: its class, and where it comes from."""

from dataclasses import dataclass

from logfan.sink import Sink

HOST_KEYS = ("kind", "required", "batch", "retry")


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A kind of sink, its class, and the file or distribution that brings it."""

    kind: str
    cls: type[Sink]
    origin: str
