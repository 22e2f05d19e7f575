"""A secret, such as a password, that a file holds."""

from pathlib import Path

_MOST_CHARS = 64 << 10


def secret_in(path: Path) -> str:
    """The text of the file, without white space around it. Raises OSError."""
    with path.open() as file:
        return file.read(_MOST_CHARS).strip()
