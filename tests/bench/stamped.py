"""The daemon, with a note of the time after each acknowledgement: for `bench.latency` only.

`python -m bench.stamped FILE run --config …` wraps pika's `Channel.basic_ack` in memory and then
does what `logfan` does. It costs a clock and an append for each acknowledgement, below 1 µs.
Where the seam is gone, or more than one channel was used, there is no file and the run fails.
"""

import atexit
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pika.channel import Channel

from logfan.cli import main as logfan


def main(arguments: Sequence[str]) -> None:
    """The first argument is the file for tags and times, pairs of 64 bits; the rest is logfan's."""
    notes = array("q")
    ack: Any = Channel.basic_ack
    known: list[Channel] = []

    def noted(channel: Channel, delivery_tag: int = 0, multiple: bool = False) -> None:
        ack(channel, delivery_tag, multiple)
        notes.extend((delivery_tag, time.monotonic_ns()))
        if channel not in known:
            known.append(channel)

    def write() -> None:
        if len(known) == 1:
            Path(arguments[0]).write_bytes(notes.tobytes())

    vars(Channel)["basic_ack"]  # the seam: raises KeyError where it is gone
    setattr(Channel, "basic_ack", noted)  # noqa: B010 - a method of a class we do not own
    atexit.register(write)
    sys.argv = ["logfan", *arguments[1:]]
    logfan()


if __name__ == "__main__":
    main(sys.argv[1:])
