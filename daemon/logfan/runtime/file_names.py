"""Whether a path can name a file."""

import os
import sys
from pathlib import Path

_EMPTY = "must not be empty; where none is meant, leave it out"


def checked_name(given: object, path: Path) -> Path:
    """The path. Raises ValueError where what it was given as is empty, or no file can have this
    name."""
    if given == "":
        raise ValueError(_EMPTY)
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(
            f"holds characters that file names cannot hold in this locale, whose encoding is "
            f"{sys.getfilesystemencoding()}; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        ) from None
    if b"\0" in raw:
        raise ValueError("must not hold the character U+0000")
    return path
