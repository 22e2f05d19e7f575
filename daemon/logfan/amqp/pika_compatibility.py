"""Which of pika's internals the fast path needs, and whether this pika has them."""

from typing import Any

import pika
from pika import frame


def missing_internal(connection: Any) -> str:
    """The first part of pika's inside that is not as the fast way needs it; empty where all fit."""
    for owner, name in (
        (pika.SelectConnection, "_on_data_available"), (pika.SelectConnection, "_process_frame"),
        (pika.SelectConnection, "_read_frame"), (frame, "decode_frame"),
    ):  # fmt: skip
        if not callable(getattr(owner, name, None)):
            return name
    kinds: dict[str, type] = {
        "_frame_buffer": bytes, "bytes_received": int, "frames_received": int, "_channels": dict,
    }  # fmt: skip
    for name, kind in kinds.items():
        if type(getattr(connection, name, None)) is not kind:
            return name
    probe = pika.channel.Channel(connection, 1, lambda _channel: None)
    assembler = getattr(probe, "_content_assembler", None)
    for name in ("_method_frame", "_header_frame"):
        if getattr(assembler, name, probe) is not None:
            return "_content_assembler"
    if type(getattr(assembler, "_seen_so_far", None)) is not int:
        return "_content_assembler"
    kinds = {"_consumers": dict, "_cancelled": set}
    for name, kind in kinds.items():
        if type(getattr(probe, name, None)) is not kind:
            return name
    return ""
