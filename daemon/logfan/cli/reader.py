"""Who reads a program's output, and that it went away: `logfan demo | head`."""

import os
import select
import stat
import threading
from collections.abc import Callable


def reader_gone(then: Callable[[], None]) -> threading.Event:
    """Set once standard output is a pipe that no program reads any more; then `then` is called, on
    a thread of its own. What is written from then on goes nowhere, so that nothing fails."""
    gone = threading.Event()

    def wait() -> None:
        poller = select.poll()
        poller.register(1, 0)  # an error is reported without being asked for
        poller.poll()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if os.path.sameopenfile(1, 2):
            os.dup2(nowhere, 2)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        gone.set()
        then()

    if stat.S_ISFIFO(os.fstat(1).st_mode):
        threading.Thread(target=wait, daemon=True).start()
    return gone
