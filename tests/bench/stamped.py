"""The daemon, with a note of the time after each acknowledgement: for `bench.latency` only.

`python -m bench.stamped FILE run --config …` wraps `Subscription.ack` in memory and then does what
`logfan` does. It costs a clock and an append for each acknowledgement, below 1 µs.
Where the seam is gone, or more than one connection was used, there is no file and the run fails.
"""

import atexit
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from logfan.amqp.subscription import Subscription
from logfan.cli import main as logfan


def main(arguments: Sequence[str]) -> None:
    """The first argument is the file for tags and times, pairs of 64 bits; the rest is logfan's."""
    notes = array("q")
    ack: Any = Subscription.ack
    known: list[Subscription] = []

    def noted(subscription: Subscription, tag: int) -> None:
        ack(subscription, tag)
        notes.extend((tag, time.monotonic_ns()))
        if subscription not in known:
            known.append(subscription)

    def write() -> None:
        if len(known) == 1:
            Path(arguments[0]).write_bytes(notes.tobytes())

    vars(Subscription)["ack"]  # the seam: raises KeyError where it is gone
    setattr(Subscription, "ack", noted)  # noqa: B010 - a method of a class we do not own
    atexit.register(write)
    sys.argv = ["logfan", *arguments[1:]]
    logfan()


if __name__ == "__main__":
    main(sys.argv[1:])
