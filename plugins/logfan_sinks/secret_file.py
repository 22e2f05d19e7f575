"""A secret, such as a password, that a file holds."""

from pathlib import Path

from pydantic import SecretStr

import logfan

_MOST_CHARS = 64 << 10


def secret_in(path: Path) -> str:
    """The text of the file, without white space around it. Raises `logfan.SinkUnavailable`, also
    for a pipe, which may never end, and for what is not UTF-8."""
    if path.exists() and not path.is_file():
        raise logfan.SinkUnavailable(f"{path}: it is no regular file")
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MOST_CHARS).strip()
    except UnicodeDecodeError:
        raise logfan.SinkUnavailable(f"{path}: it is not UTF-8") from None
    except OSError as error:
        raise logfan.SinkUnavailable(f"{path}: {error.strerror}") from None


def secret_of(given: SecretStr | None, path: Path | None) -> str:
    """What the config has itself, else what the file holds. Raises as `secret_in` does."""
    return secret_in(path) if given is None else given.get_secret_value()  # type: ignore[arg-type]
