"""Files that a config names: secrets, keys, certificates. A pipe or a device, which may never end,
is none."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 20


def must_be_regular(path: Path) -> None:
    """Raises OSError where there is no file, or something that is none."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_small(path: Path) -> bytes:
    """What is in it. Raises OSError, also where that is more than 1 MiB."""
    must_be_regular(path)
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, "it is too large for what it is named for", str(path))
    return data
