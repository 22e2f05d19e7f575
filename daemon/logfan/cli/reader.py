"""Who reads a program's output, and that it went away: `logfan demo | head`."""

import os
import select
import stat
import threading
from collections.abc import Callable


class Reader:
    """What is behind standard output."""

    def __init__(self) -> None:
        self.is_gone = False
        """It is a pipe, and no program reads it any more."""

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Have `on_gone` called, on a thread of its own, once it is gone. What is written from then
        on goes nowhere, so that nothing fails."""
        if stat.S_ISFIFO(os.fstat(1).st_mode):
            threading.Thread(target=self._wait, args=(on_gone,), daemon=True).start()

    def _wait(self, on_gone: Callable[[], None]) -> None:
        poller = select.poll()
        poller.register(1, 0)  # an error is reported without being asked for
        poller.poll()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if os.path.sameopenfile(1, 2):
            os.dup2(nowhere, 2)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        self.is_gone = True
        on_gone()
