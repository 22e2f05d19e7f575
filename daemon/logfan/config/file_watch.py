"""Whether files changed since they were read, by what the file system keeps about them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

State = tuple[int, ...] | None
"""What distinguishes one version of a file from another; None where there is no file."""


def states_of(paths: Iterable[Path]) -> dict[Path, State]:
    """Of each file, or of what a symbolic link leads to. To be taken before the files are read."""
    return {path: _state(path) for path in paths}


def _state(path: Path) -> State:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    # ctime too: where a file could not be read, a change of its mode or owner counts.
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


class FileWatch:
    """Looks at files. A change counts once two looks, one after the other, saw the same: a file
    that is being written is left alone."""

    def __init__(self, states: Mapping[Path, State]) -> None:
        """`states`: those of the files that were read."""
        self._read = dict(states)
        self._before: dict[Path, State] | None = None
        """What the last look saw, where that was news."""

    def look(self) -> list[Path]:
        """The files that changed; each change is reported once."""
        now = states_of(self._read)
        if now == self._read:
            self._before = None
            return []
        if now != self._before:
            self._before = now
            return []
        changed = [path for path in now if now[path] != self._read[path]]
        self._read, self._before = now, None
        return changed

    def add(self, files: Iterable[Path]) -> None:
        """Look at these as well, as they are now."""
        self._read = states_of(files) | self._read

    def renew(self) -> None:
        """The files as they are now are read next, whatever comes of it."""
        self._read, self._before = states_of(self._read), None
