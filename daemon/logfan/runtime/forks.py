"""How often this process was forked: a plugin's code may return to the host in the copy as well."""

import os

count = 0
"""Of the forks that led here. A copy made by `subprocess` never runs our code."""


def _note() -> None:
    global count  # noqa: PLW0603 - there is one process
    count += 1


os.register_at_fork(after_in_child=_note)


def end_copy(name: str) -> None:
    """End this process, which is a copy that came back from the code of the sink `name`."""
    try:
        text = (
            f"sink {name}: its code forked, and the copy (process {os.getpid()}) returned to "
            "logfan; the copy ends here, as both would write. Use subprocess, or end the copy with "
            "os._exit\n"
        )
        os.write(2, text.encode())  # the log's locks may be held by threads that are not here
    finally:
        os._exit(70)
