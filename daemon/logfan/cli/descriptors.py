"""Standard descriptors that were closed at the start: the numbers 0, 1 and 2 stay taken.

Else the next socket would get one of them, and what is printed would go into it. Printing never
fails for a character that the locale has not.
"""

import os
import sys
from io import TextIOWrapper


def take_standard_ones() -> None:
    """Open /dev/null at those of the three that are closed. To be called before anything is opened.

    Nothing is read, and what is logged goes nowhere. At 1 it is open for reading only, and
    `sys.__stdout__` stays None: a record written there has to fail, not to vanish.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:  # a lower one is always free here, so it is this one
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
