"""A secret, such as a password, that a file holds."""

import errno
from pathlib import Path

_MOST_CHARS = 64 << 10


def secret_in(path: Path) -> str:
    """The text of the file, without white space around it. Raises OSError, also for a pipe, which
    may never end, and for what is not UTF-8."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MOST_CHARS).strip()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "it is not UTF-8", str(path)) from None
